#include "matquant/version.h"
#include "store/folder.h"
#include "store/master.h"
#include "store/master_config.h"
#include "store/master_plan.h"
#include "store/names.h"

#include <string.h>

struct mq_master_writer {
    mq_master_plan plan;
    mq_master_linear *linears;
    size_t linear_count;
    mq_master_settings settings;
    const mq_tensors *source;
    mq_output *output;
    mq_tensor_writer *tensors;
    cJSON *config;
    char *folder; /* the source's */
};

static mq_status make_config(mq_master_writer *writer, const mq_master_layout *layout,
                             mq_error *err) {
    mq_status status =
        mq_read_folder_json(&writer->config, layout->source, MQ_CONFIG_FILE, false, err);
    if (status != MQ_OK) {
        return status;
    }
    static const char *const taken[] = {"quantization_config", "quantization"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        const cJSON *member = cJSON_GetObjectItemCaseSensitive(writer->config, taken[i]);
        if (member != NULL && !cJSON_IsNull(member)) {
            return mq_fail_file_in(err, MQ_ERR_INPUT, layout->source, MQ_CONFIG_FILE,
                                   "the model is already quantized (it has the field %s)",
                                   taken[i]);
        }
        cJSON_DeleteItemFromObjectCaseSensitive(writer->config, taken[i]);
    }
    mq_json json = {.root = NULL};
    mq_master_settings_put(&json, writer->config, &writer->settings, layout->ignored,
                           layout->ignored_count);
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

static mq_status writer_fill(mq_master_writer *writer, const mq_master_layout *layout,
                             mq_error *err) {
    writer->settings.slice_rule = layout->slice_rule;
    writer->settings.zero_point = layout->zero_point;
    writer->settings.group_size = layout->group_size;
    writer->settings.width_count = layout->width_count;
    memcpy(writer->settings.widths, layout->widths, sizeof writer->settings.widths);
    writer->linear_count = layout->linear_count;
    writer->folder = mq_strdup(layout->source);
    if (writer->folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(layout->source));
    }
    mq_status status = mq_new(&writer->linears, layout->linear_count, sizeof *writer->linears,
                              "the list of layers", err);
    if (status != MQ_OK) {
        return status;
    }
    if (layout->linear_count > 0) {
        memcpy(writer->linears, layout->linears, layout->linear_count * sizeof *writer->linears);
    }
    for (size_t i = 0; i < writer->linear_count; i++) {
        const mq_master_linear *linear = &writer->linears[i];
        if (linear->min_width > 0 && writer->settings.embedding_count < MQ_EMBEDDING_LAYERS) {
            writer->settings.embedding_bits = linear->min_width;
            writer->settings.embedding_layers[writer->settings.embedding_count++] = linear->prefix;
        }
    }
    if ((status = make_config(writer, layout, err)) != MQ_OK ||
        (status = mq_master_plan_make(&writer->plan, layout, writer->source, err)) != MQ_OK) {
        return status;
    }
    return mq_tensor_writer_open(&writer->tensors, writer->output, writer->plan.specs,
                                 writer->plan.count, layout->max_shard_size, err);
}

mq_status mq_master_writer_open(mq_master_writer **out, const mq_master_layout *layout,
                                const mq_tensors *source, mq_output *output, mq_error *err) {
    mq_master_writer *writer = mq_calloc(1, sizeof *writer);
    if (writer == NULL) {
        return mq_fail_memory(err, "a master checkpoint", sizeof *writer);
    }
    writer->source = source;
    writer->output = output;
    mq_status status = writer_fill(writer, layout, err);
    if (status != MQ_OK) {
        mq_master_writer_abandon(writer);
        return status;
    }
    *out = writer;
    return MQ_OK;
}

/* values[rows, groups] from row `first` on. */
static mq_status check_affine(const mq_master_writer *writer, size_t index, const uint16_t *values,
                              size_t first, size_t rows, mq_error *err) {
    const mq_tensor_spec *spec = &writer->plan.specs[index];
    size_t count = rows * spec->shape[1];
    if (values == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, NULL, spec->name, "was not computed");
    }
    size_t bad = mq_first_non_finite(values, MQ_F16, count);
    if (bad < count) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, NULL, spec->name,
                              "row %zu, group %zu is outside the range of float16",
                              first + bad / spec->shape[1], bad % spec->shape[1]);
    }
    return MQ_OK;
}

static mq_status put_affine(mq_master_writer *writer, size_t index, const uint16_t *values,
                            size_t first, size_t rows, mq_error *err) {
    const mq_status status = check_affine(writer, index, values, first, rows, err);
    const size_t row = writer->plan.specs[index].shape[1] * sizeof *values;
    return status != MQ_OK ? status
                           : mq_tensor_writer_put_part(writer->tensors, index, first * row, values,
                                                       rows * row, err);
}

mq_status mq_master_writer_put_rows(mq_master_writer *writer, size_t index,
                                    const mq_quantized *quantized, size_t first, mq_error *err) {
    const mq_master_linear *linear = &writer->linears[index];
    if (first > linear->out || quantized->out > linear->out - first ||
        quantized->in != linear->in || quantized->groups != linear->groups) {
        return mq_fail_tensor(
            err, MQ_ERR_INPUT, NULL, linear->prefix,
            "was quantized as [%zu, %zu] with %zu groups, planned was [%zu, %zu] with %zu",
            quantized->out, quantized->in, quantized->groups, linear->out, linear->in,
            linear->groups);
    }
    size_t at = writer->plan.first[index];
    const size_t rows = quantized->out;
    mq_status status = mq_tensor_writer_put_part(writer->tensors, at, first * linear->in,
                                                 quantized->codes, rows * linear->in, err);
    unsigned widths[7];
    const size_t count = mq_layer_widths(widths, writer->settings.widths,
                                         writer->settings.width_count, linear->min_width);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = put_affine(writer, ++at, quantized->scales[widths[i]], first, rows, err);
        if (status == MQ_OK) {
            status = put_affine(writer, ++at, quantized->biases[widths[i]], first, rows, err);
        }
    }
    return status;
}

/* Index of a width's scales; its biases follow. */
static size_t pairs_at(const mq_master_writer *writer, size_t index, unsigned width) {
    size_t at = writer->plan.first[index] + 1;
    unsigned widths[7];
    mq_layer_widths(widths, writer->settings.widths, writer->settings.width_count,
                    writer->linears[index].min_width);
    for (size_t i = 0; widths[i] != width; i++) {
        at += 2;
    }
    return at;
}

/* Rows of a tensor of the plan, in place of those that were put. */
static mq_status replace_rows(mq_master_writer *writer, size_t index, size_t first,
                              const void *values, size_t rows, size_t row, mq_error *err) {
    if (first == 0) {
        mq_tensor_writer_begin_again(writer->tensors, index);
    }
    return mq_tensor_writer_put_part(writer->tensors, index, first * row, values, rows * row, err);
}

static mq_status replace_affine(mq_master_writer *writer, size_t index, const uint16_t *values,
                                size_t first, size_t rows, mq_error *err) {
    const mq_status status = check_affine(writer, index, values, first, rows, err);
    const size_t row = writer->plan.specs[index].shape[1] * sizeof *values;
    return status != MQ_OK ? status : replace_rows(writer, index, first, values, rows, row, err);
}

mq_status mq_master_writer_replace_pairs(mq_master_writer *writer, size_t index, unsigned width,
                                         size_t first, size_t count, const uint16_t *scales,
                                         const uint16_t *biases, mq_error *err) {
    const size_t at = pairs_at(writer, index, width);
    const mq_status status = replace_affine(writer, at, scales, first, count, err);
    return status != MQ_OK ? status : replace_affine(writer, at + 1, biases, first, count, err);
}

mq_status mq_master_writer_replace_codes(mq_master_writer *writer, size_t index, size_t first,
                                         size_t count, const uint8_t *codes, mq_error *err) {
    return replace_rows(writer, writer->plan.first[index], first, codes, count,
                        writer->linears[index].in, err);
}

mq_status mq_master_writer_get_pairs(uint16_t *scales, uint16_t *biases,
                                     const mq_master_writer *writer, size_t index, unsigned width,
                                     size_t first, size_t count, mq_error *err) {
    const size_t at = pairs_at(writer, index, width);
    const size_t row = writer->linears[index].groups * sizeof *scales;
    const mq_status status =
        mq_tensor_writer_get_part(scales, writer->tensors, at, first * row, count * row, err);
    return status != MQ_OK ? status
                           : mq_tensor_writer_get_part(biases, writer->tensors, at + 1, first * row,
                                                       count * row, err);
}

mq_status mq_master_writer_get_codes(uint8_t *codes, const mq_master_writer *writer, size_t index,
                                     size_t first, size_t count, mq_error *err) {
    const size_t in = writer->linears[index].in;
    return mq_tensor_writer_get_part(codes, writer->tensors, writer->plan.first[index], first * in,
                                     count * in, err);
}

mq_status mq_master_writer_put_private(mq_master_writer *writer, const char *name, unsigned width,
                                       const float *values, size_t size, mq_error *err) {
    char own[MQ_STORED_NAME_SIZE];
    const size_t index = mq_tensor_writer_find(writer->tensors, mq_name_private(own, name, width));
    if (index == writer->plan.count) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, NULL, own, "was not planned");
    }
    const mq_dtype dtype = writer->plan.specs[index].dtype;
    void *bytes = NULL;
    mq_status status = mq_new(&bytes, size, mq_dtype_size(dtype), "a norm", err);
    if (status == MQ_OK) {
        mq_from_f32(bytes, dtype, values, size);
        const size_t bad = mq_first_non_finite(bytes, dtype, size);
        status = bad < size ? mq_fail_tensor(err, MQ_ERR_INPUT, NULL, own,
                                             "element %zu does not fit in its type", bad)
                            : mq_tensor_writer_put(writer->tensors, index, bytes,
                                                   size * mq_dtype_size(dtype), err);
    }
    mq_free(bytes);
    return status;
}

/* All that can be said while the tensors' writer is there. */
static mq_json make_provenance(const mq_master_writer *writer, const cJSON *provenance) {
    mq_json json = mq_json_begin(cJSON_CreateObject());
    mq_json_put_size(&json, json.root, "format_version", MQ_FORMAT_VERSION);
    mq_json_put_text(&json, json.root, "tool", "matquant " MQ_VERSION);
    for (const cJSON *item = provenance == NULL ? NULL : provenance->child; item != NULL;
         item = item->next) {
        mq_json_put_copy(&json, json.root, item->string, item);
    }
    mq_json_put_tensors(&json, json.root, writer->tensors, writer->plan.specs, writer->plan.count);
    return json;
}

/* Last of all: it has the digests of the other files. */
static mq_status write_provenance(const mq_master_writer *writer, mq_json *json,
                                  const mq_context *context, mq_error *err) {
    mq_status status = mq_json_put_files(json, json->root, writer->output, context, err);
    if (status == MQ_OK) {
        status = mq_json_check(json, MQ_PROVENANCE_FILE, err);
    }
    return status == MQ_OK ? mq_write_json(writer->output, MQ_PROVENANCE_FILE, json->root, err)
                           : status;
}

static mq_status finish(mq_master_writer *writer, const cJSON *provenance,
                        const mq_context *context, mq_error *err) {
    for (size_t i = 0; i < writer->plan.count; i++) {
        if (writer->plan.copied[i] != NULL) {
            mq_status status = mq_copy_tensor(writer->tensors, i, writer->source,
                                              writer->plan.copied[i], context, err);
            if (status != MQ_OK) {
                return status;
            }
        }
    }
    mq_json json = make_provenance(writer, provenance);
    mq_status status = mq_tensor_writer_close(writer->tensors, err);
    writer->tensors = NULL; /* closing frees it in every case */
    if (status == MQ_OK) {
        status = mq_write_json(writer->output, MQ_CONFIG_FILE, writer->config, err);
    }
    if (status == MQ_OK) {
        /* what is too large was named when the job began */
        status = mq_copy_small_files(writer->output, writer->folder, NULL, err);
    }
    if (status == MQ_OK) {
        status = write_provenance(writer, &json, context, err);
    }
    cJSON_Delete(json.root);
    return status;
}

mq_status mq_master_writer_finish(mq_master_writer *writer, const cJSON *provenance,
                                  const mq_context *context, mq_error *err) {
    mq_status status = finish(writer, provenance, context, err);
    mq_master_writer_abandon(writer);
    return status;
}

void mq_master_writer_abandon(mq_master_writer *writer) {
    if (writer == NULL) {
        return;
    }
    mq_tensor_writer_abandon(writer->tensors);
    mq_master_plan_free(&writer->plan);
    mq_free(writer->linears);
    mq_free(writer->folder);
    cJSON_Delete(writer->config);
    mq_free(writer);
}
