/* Slices that are folders of the Hugging Face kind. */
#include "export/stream.h"

#include "export/export.h"
#include "store/folder.h"

static mq_status put_part(void *user, size_t index, size_t offset, const void *data, size_t bytes,
                          mq_error *err) {
    return mq_tensor_writer_put_part(user, index, offset, data, bytes, err);
}

/* What is known of the tensors once they are written. */
static mq_status put_tensors(cJSON *provenance, const mq_plan *plan, const mq_tensor_writer *writer,
                             const mq_tensor_spec *specs, mq_error *err) {
    mq_json json = {.root = NULL};
    const double error = mq_plan_relative_error(plan);
    if (error > 0) {
        mq_json_put_number(&json, cJSON_GetObjectItemCaseSensitive(provenance, "slice"),
                           "relative_error", error);
    }
    mq_json_put_tensors(&json, provenance, writer, specs, plan->count);
    return mq_json_check(&json, MQ_PROVENANCE_FILE, err);
}

/* Last of all: it has the digests of the other files. */
static mq_status write_provenance(cJSON *provenance, const mq_plan *plan, mq_error *err) {
    mq_json json = {.root = NULL};
    mq_status status =
        mq_json_put_files(&json, provenance, plan->job->output, plan->job->context, err);
    if (status == MQ_OK) {
        status = mq_json_check(&json, MQ_PROVENANCE_FILE, err);
    }
    return status == MQ_OK ? mq_write_json(plan->job->output, MQ_PROVENANCE_FILE, provenance, err)
                           : status;
}

static mq_status write_tensors(mq_plan *plan, cJSON *provenance, mq_error *err) {
    mq_tensor_spec *specs = NULL;
    mq_tensor_writer *writer = NULL;
    mq_status status = mq_new(&specs, plan->count, sizeof *specs, "the list of tensors", err);
    for (size_t i = 0; status == MQ_OK && i < plan->count; i++) {
        specs[i] = plan->pieces[i].spec;
    }
    if (status == MQ_OK) {
        status = mq_tensor_writer_open(&writer, plan->job->output, specs, plan->count,
                                       plan->job->options->max_shard_size, err);
    }
    if (status == MQ_OK) {
        status = mq_stream_pieces(plan, put_part, writer, err);
    }
    if (status == MQ_OK) {
        status = put_tensors(provenance, plan, writer, specs, err);
    }
    if (status == MQ_OK) {
        status = mq_tensor_writer_close(writer, err);
        writer = NULL;
    }
    mq_tensor_writer_abandon(writer);
    mq_free(specs);
    return status;
}

mq_status mq_export_put_dtype(cJSON *config, mq_dtype dtype, mq_error *err) {
    static const char *const torch_names[] = {
        [MQ_F32] = "float32", [MQ_F16] = "float16", [MQ_BF16] = "bfloat16"};
    static const char *const keys[] = {"torch_dtype", "dtype"};
    mq_json json = {.root = NULL};
    bool said = false;
    for (size_t i = 0; i < 2; i++) {
        const bool is_there = cJSON_GetObjectItemCaseSensitive(config, keys[i]) != NULL;
        if (is_there || (i == 1 && !said)) {
            cJSON_DeleteItemFromObjectCaseSensitive(config, keys[i]);
            mq_json_put_text(&json, config, keys[i], torch_names[dtype]);
            said = true;
        }
    }
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

/* The name in place of those that are taken for it (model/config_rope.c): transformers 5.24 does
 * not load "su", nor mlx-lm Phi-3's "yarn". */
static mq_status spell_longrope(cJSON *config, const mq_plan *plan, mq_error *err) {
    static const char *const objects[] = {"rope_scaling", "rope_parameters"};
    static const char *const names[] = {"rope_type", "type"};
    for (size_t i = 0; plan->job->config->rope[0].type == MQ_ROPE_LONGROPE && i < 4; i++) {
        const cJSON *object = cJSON_GetObjectItemCaseSensitive(config, objects[i / 2]);
        cJSON *name = cJSON_GetObjectItemCaseSensitive(object, names[i % 2]);
        if (cJSON_IsString(name) && cJSON_SetValuestring(name, "longrope") == NULL) {
            return mq_fail_memory(err, MQ_CONFIG_FILE, 0);
        }
    }
    return MQ_OK;
}

static mq_status write_config(mq_plan *plan, const mq_export_format *format, mq_error *err) {
    cJSON *config = cJSON_Duplicate(mq_master_config(plan->job->master), true);
    if (config == NULL) {
        return mq_fail_memory(err, MQ_CONFIG_FILE, 0);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization_config");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization");
    mq_status status = spell_longrope(config, plan, err);
    if (status == MQ_OK) {
        status = format->config(config, plan, err);
    }
    if (status == MQ_OK && plan->job->options->dtype != MQ_SLICE_DTYPE_SOURCE) {
        status = mq_export_put_dtype(config, mq_plan_dtype(plan), err);
    }
    if (status == MQ_OK) {
        status = mq_write_json(plan->job->output, MQ_CONFIG_FILE, config, err);
    }
    cJSON_Delete(config);
    return status;
}

/* Less than this share of the slice is not worth a word. */
#define WORTH_A_WARNING 0.05

/* Many models are saved in float32 though they were trained in 16 bits. What is copied is that
 * large in the slice, too, and MLX computes in the type that the embeddings have. */
static void warn_of_float32(const mq_plan *plan, const mq_export_format *format) {
    size_t bytes = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        bytes += piece->spec.dtype == MQ_F32 ? piece->rows * piece->row_bytes : 0;
    }
    if (format->takes_dtype && plan->job->options->dtype == MQ_SLICE_DTYPE_SOURCE &&
        mq_plan_source_dtype(plan) == MQ_F32 &&
        (double)bytes > WORTH_A_WARNING * (double)plan->bytes) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "%.3g %% of the slice's bytes are float32, as the source is; --dtype bf16 halves "
               "them%s",
               100.0 * (double)bytes / (double)plan->bytes,
               format == &mq_export_safetensors ? ", and rounds the weights" : "");
    }
}

/* Readers compute in the type that config.json names, or in that of the weights. */
static void warn_of_float16(const mq_plan *plan, const mq_export_format *format) {
    const mq_arch *arch = plan->job->config->arch;
    if (format->takes_dtype && arch->float16_fault != NULL && mq_plan_dtype(plan) == MQ_F16) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "programs that compute in float16 %s %s; use --dtype bf16", arch->float16_fault,
               arch->architecture);
    }
}

mq_status mq_export_folder(mq_plan *plan, const mq_export_format *format, mq_error *err) {
    cJSON *provenance = NULL;
    warn_of_float32(plan, format);
    warn_of_float16(plan, format);
    mq_status status = mq_export_provenance(&provenance, plan, format, err);
    if (status == MQ_OK) {
        status = write_tensors(plan, provenance, err);
    }
    if (status == MQ_OK) {
        status = write_config(plan, format, err);
    }
    if (status == MQ_OK) {
        status = mq_copy_small_files(plan->job->output, plan->job->options->master,
                                     plan->job->context, err);
    }
    if (status == MQ_OK) {
        status = mq_export_card(plan, format, provenance, err);
    }
    if (status == MQ_OK) {
        status = write_provenance(provenance, plan, err);
    }
    cJSON_Delete(provenance);
    return status;
}
