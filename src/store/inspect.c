#include "matquant/inspect.h"

#include <stdio.h>
#include <string.h>

#include "store/folder.h"
#include "store/quantized_weights.h"
#include "store/slice_size.h"

/* --- what is the same for all kinds ----------------------------------------------------------- */

static void take_shape(mq_inspection *out, const mq_config *config) {
    snprintf(out->architecture, sizeof out->architecture, "%s", config->arch->architecture);
    out->num_hidden_layers = config->num_hidden_layers;
    out->hidden_size = config->hidden_size;
    out->vocab_size = config->vocab_size;
}

static mq_status add_file_sizes(size_t *total, const mq_tensors *tensors, mq_error *err) {
    for (size_t i = 0; i < mq_tensors_file_count(tensors); i++) {
        size_t size = 0;
        mq_status status = mq_file_size(&size, mq_tensors_file(tensors, i), err);
        if (status != MQ_OK) {
            return status;
        }
        *total += size;
    }
    return MQ_OK;
}

/* What a tensor that is not quantized adds. */
static void count_plain(mq_inspection *out, const mq_tensor_info *info) {
    out->tensors++;
    out->weights += info->elements;
}

/* out->group_size is set. */
static void count_linear(mq_inspection *out, size_t rows, size_t columns, size_t groups) {
    out->tensors++;
    out->quantized_tensors++;
    out->weights += rows * columns;
    out->quantized_weights += rows * columns;
    if (out->group_size == 0 || columns / groups == out->group_size) {
        return;
    }
    const size_t size = groups > 1 ? columns / groups : 0, least = out->other_group_size;
    out->other_tensors++;
    if (least == 0 || (size > 0 && size < least)) {
        out->other_group_size = size;
    }
}

/* matquant.json without its long parts. */
static mq_status take_provenance(mq_inspection *out, const cJSON *provenance, mq_error *err) {
    if (provenance == NULL) {
        return MQ_OK;
    }
    cJSON *copy = cJSON_Duplicate(provenance, true);
    if (copy != NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(copy, "tensors");
        cJSON_DeleteItemFromObjectCaseSensitive(copy, "blocks");
        cJSON_DeleteItemFromObjectCaseSensitive(copy, "files");
        out->provenance = mq_json_print(copy);
    }
    cJSON_Delete(copy);
    return out->provenance == NULL ? mq_fail_memory(err, "the provenance", 0) : MQ_OK;
}

/* What the provenance says of a width. */
static mq_width_size told_of(const cJSON *provenance, unsigned width) {
    return (mq_width_size){.width = width,
                           .trained = mq_provenance_trained(provenance, width),
                           .refit_kl = mq_provenance_refit_kl(provenance, width)};
}

/* --- masters ---------------------------------------------------------------------------------- */

/* The size of the slice that `matquant slice` writes: in MLX's format where that can hold it, else
 * in ours. */
static mq_width_size measure_width(const mq_master *master, const mq_config *config,
                                   unsigned width) {
    const mq_slice_size size = mq_slice_size_of(master, config, width);
    const double weights = (double)size.quantized_weights;
    mq_width_size out = told_of(mq_master_provenance(master), width);
    out.bits_per_weight = weights > 0 ? 8.0 * (double)size.quantized_bytes / weights : 0.0;
    out.bytes = size.bytes;
    return out;
}

/* What a slice in the master's own format takes: it is not cut again. */
static mq_width_size measure_slice(const mq_master *master, unsigned width, size_t weights) {
    const mq_tensors *tensors = mq_master_tensors(master);
    mq_width_size size = told_of(mq_master_provenance(master), width);
    size_t quantized = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        quantized += mq_master_role(NULL, master, info) == MQ_ROLE_LINEAR ? info->bytes : 0;
        size.bytes += info->bytes;
    }
    size.bits_per_weight = weights > 0 ? 8.0 * (double)quantized / (double)weights : 0.0;
    return size;
}

static mq_status inspect_open_master(mq_inspection *out, const mq_master *master,
                                     const mq_config *config, mq_error *err) {
    const mq_tensors *tensors = mq_master_tensors(master);
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        if (mq_master_role(NULL, master, info) == MQ_ROLE_PLAIN) {
            count_plain(out, info);
        }
    }
    out->group_size = mq_master_group_size(master);
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        count_linear(out, view->out, view->in, view->groups);
    }
    out->slice_rule = mq_master_slice_rule(master);
    out->zero_point = mq_master_zero_point(master);
    out->embedding_bits = mq_master_embedding_bits(master);
    unsigned widths[7];
    out->width_count = mq_master_widths(widths, master);
    const bool is_slice = mq_provenance_slice(mq_master_provenance(master)) != NULL;
    for (size_t i = 0; i < out->width_count; i++) {
        out->widths[i] = is_slice ? measure_slice(master, widths[i], out->quantized_weights)
                                  : measure_width(master, config, widths[i]);
    }
    mq_status status = add_file_sizes(&out->bytes, tensors, err);
    return status == MQ_OK ? take_provenance(out, mq_master_provenance(master), err) : status;
}

static mq_status inspect_master(mq_inspection *out, const char *folder, mq_config *config,
                                mq_error *err) {
    mq_master *master = NULL;
    mq_status status = mq_master_open(&master, folder, err);
    if (status == MQ_OK) {
        mq_config_find_layout(config, mq_master_tensors(master));
        status = mq_quantized_check(config, master, NULL, mq_model_check_shapes, err);
    }
    if (status == MQ_OK) {
        status = inspect_open_master(out, master, config, err);
    }
    mq_master_close(master);
    return status;
}

/* --- slices ----------------------------------------------------------------------------------- */

static mq_status inspect_open_slice(mq_inspection *out, const mq_slice_reader *slice,
                                    mq_error *err) {
    const mq_tensors *tensors = mq_slice_reader_tensors(slice);
    size_t bytes = 0, quantized_bytes = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        bytes += info->bytes;
        if (mq_slice_reader_role(slice, info) == MQ_ROLE_LINEAR) {
            quantized_bytes += info->bytes;
        } else {
            count_plain(out, info);
        }
    }
    out->group_size = mq_slice_reader_group_size(slice);
    for (size_t i = 0; i < mq_slice_reader_count(slice); i++) {
        const mq_slice_view *view = mq_slice_reader_at(slice, i);
        count_linear(out, view->out, view->in, view->groups);
    }
    out->width_count = 1;
    double weights = (double)out->quantized_weights;
    mq_width_size *size = &out->widths[0];
    *size = told_of(mq_slice_reader_provenance(slice), mq_slice_reader_width(slice));
    size->bits_per_weight = weights > 0 ? 8.0 * (double)quantized_bytes / weights : 0.0;
    size->bytes = bytes;
    mq_status status = add_file_sizes(&out->bytes, tensors, err);
    return status == MQ_OK ? take_provenance(out, mq_slice_reader_provenance(slice), err) : status;
}

static mq_status inspect_slice(mq_inspection *out, const char *folder, mq_config *config,
                               mq_error *err) {
    mq_slice_reader *slice = NULL;
    mq_status status = mq_slice_reader_open(&slice, folder, NULL, err);
    if (status == MQ_OK) {
        mq_config_find_layout(config, mq_slice_reader_tensors(slice));
        status = mq_quantized_check(config, NULL, slice, mq_model_check_shapes, err);
    }
    if (status == MQ_OK) {
        status = inspect_open_slice(out, slice, err);
    }
    mq_slice_reader_close(slice);
    return status;
}

/* --- plain checkpoints, and the choice -------------------------------------------------------- */

/* What plain weights were cut from, if they are a slice. */
static mq_status take_provenance_of(mq_inspection *out, const char *folder, mq_error *err) {
    cJSON *provenance = NULL;
    mq_status status = mq_read_folder_json(&provenance, folder, MQ_PROVENANCE_FILE, true, err);
    if (status == MQ_OK) {
        status = take_provenance(out, provenance, err);
    }
    cJSON_Delete(provenance);
    return status;
}

static mq_status inspect_plain(mq_inspection *out, const char *folder, mq_config *config,
                               mq_error *err) {
    mq_tensors *tensors = NULL;
    const char *heads[MQ_LAYOUT_COUNT + 1];
    mq_status status =
        mq_tensors_open_without(&tensors, folder, mq_config_unused_heads(heads, config), err);
    if (status == MQ_OK) {
        mq_config_find_layout(config, tensors);
        status = mq_plain_check_shapes(config, tensors, err);
    }
    if (status == MQ_OK) {
        for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
            count_plain(out, mq_tensors_at(tensors, i));
        }
        status = add_file_sizes(&out->bytes, tensors, err);
    }
    mq_tensors_close(tensors);
    return status == MQ_OK ? take_provenance_of(out, folder, err) : status;
}

mq_status mq_inspect(mq_inspection *out, const char *folder, mq_error *err) {
    *out = (mq_inspection){0};
    if (folder == NULL) {
        return mq_fail(err, MQ_ERR_USAGE, "a folder is needed");
    }
    mq_kind kind = MQ_KIND_PLAIN;
    mq_config config;
    mq_status status = mq_folder_kind(&kind, folder, err);
    if (status == MQ_OK) {
        status = mq_config_read(&config, folder, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    take_shape(out, &config);
    out->kind = kind;
    status = kind == MQ_KIND_PLAIN    ? inspect_plain(out, folder, &config, err)
             : kind == MQ_KIND_MASTER ? inspect_master(out, folder, &config, err)
                                      : inspect_slice(out, folder, &config, err);
    mq_config_free(&config);
    if (status != MQ_OK) {
        mq_inspection_free(out);
    }
    return status;
}

void mq_inspection_free(mq_inspection *inspection) {
    mq_free(inspection->provenance);
    inspection->provenance = NULL;
}
