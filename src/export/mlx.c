/* MLX's affine format: what mlx-lm's load() reads.
 *
 * A layer is taken for quantized when its scales are there, so that layers without (embeddings,
 * ignored ones) need no entry. config.json names group size and bits once, and a layer whose group
 * size differs by its own entry, under the layer's path beside the two. The safetensors header's
 * "format" may stay "pt": MLX does not look at it and transformers accepts it. */
#include "export/stream.h"

#include "store/folder.h"

static mq_status check(size_t *bytes, const mq_export_job *job, mq_error *err) {
    mq_slice_layout layout;
    mq_status status = mq_slice_layout_make(&layout, job->master, job->width, MQ_SLICE_MLX, err);
    if (status == MQ_OK) {
        *bytes = layout.bytes;
        mq_slice_layout_free(&layout);
    }
    return status;
}

static mq_status add_exceptions(cJSON *quantization, const mq_export_job *job,
                                const mq_slice_layout *layout, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_master_linear_count(job->master); i++) {
        const mq_master_view *view = mq_master_linear_at(job->master, i);
        size_t group_size = mq_mlx_group_size(view);
        if (group_size != layout->group_size) {
            status = mq_json_add(quantization, view->prefix,
                                 mq_export_quantization(group_size, job->width), err);
        }
    }
    return status;
}

/* The source's config.json with "quantization", and the same as "quantization_config", which the
 * hub shows. */
static mq_status make_config(cJSON **out, const mq_export_job *job, const mq_slice_layout *layout,
                             mq_error *err) {
    cJSON *config = cJSON_Duplicate(mq_master_config(job->master), true);
    if (config == NULL) {
        return mq_fail_memory(err, "config.json", 0);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization_config");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization");
    cJSON *quantization = mq_export_quantization(layout->group_size, job->width);
    mq_status status = mq_json_add(config, "quantization", quantization, err);
    if (status == MQ_OK) {
        status = add_exceptions(quantization, job, layout, err);
    }
    if (status == MQ_OK) {
        status =
            mq_json_add(config, "quantization_config", cJSON_Duplicate(quantization, true), err);
    }
    if (status != MQ_OK) {
        cJSON_Delete(config);
        return status;
    }
    *out = config;
    return MQ_OK;
}

static mq_status write_slice(const mq_export_job *job, mq_slice_report *report, mq_error *err) {
    mq_slice_layout layout;
    mq_status status = mq_slice_layout_make(&layout, job->master, job->width, MQ_SLICE_MLX, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *config = NULL;
    status = make_config(&config, job, &layout, err);
    if (status == MQ_OK) {
        status = mq_export_stream(job, &layout, config, mq_export_mlx.info.name, report, err);
    }
    cJSON_Delete(config);
    mq_slice_layout_free(&layout);
    return status;
}

const mq_export_format mq_export_mlx = {
    .info = {"mlx", "MLX's affine format: packed words, for mlx-lm and for matquant eval",
             "2, 3, 4, 5, 6, 8"},
    .check = check,
    .write = write_slice,
};
