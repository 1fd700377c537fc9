/* The master's own format, cut to one width: codes of a byte each whose lower bits are 0. It saves
 * the other widths' scales and biases only, but holds every width and grouping, and reads as a
 * master that serves one width.
 *
 * Its slice rule is "top" whatever the master's is: the slices are made already, and their top bits
 * are they. */
#include "export/stream.h"

#include "store/folder.h"
#include "store/master_config.h"

static mq_status check(size_t *bytes, const mq_export_job *job, mq_error *err) {
    mq_slice_layout layout;
    mq_status status =
        mq_slice_layout_make(&layout, job->master, job->width, MQ_SLICE_MATQUANT, err);
    if (status == MQ_OK) {
        *bytes = layout.bytes;
        mq_slice_layout_free(&layout);
    }
    return status;
}

static mq_status make_config(cJSON **out, const mq_export_job *job, mq_error *err) {
    cJSON *config = cJSON_Duplicate(mq_master_config(job->master), true);
    if (config == NULL) {
        return mq_fail_memory(err, "config.json", 0);
    }
    cJSON *old = cJSON_DetachItemFromObjectCaseSensitive(config, "quantization_config");
    mq_master_settings settings = {.slice_rule = MQ_SLICE_TOP,
                                   .group_size = mq_master_group_size(job->master),
                                   .widths = {job->width},
                                   .width_count = 1};
    cJSON *made = mq_master_settings_json(&settings, NULL, 0);
    mq_status status = mq_json_add(config, "quantization_config", made, err);
    const cJSON *ignored = cJSON_GetObjectItemCaseSensitive(old, "ignored");
    if (status == MQ_OK && ignored != NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(made, "ignored");
        status = mq_json_add(made, "ignored", cJSON_Duplicate(ignored, true), err);
    }
    cJSON_Delete(old);
    if (status != MQ_OK) {
        cJSON_Delete(config);
        return status;
    }
    *out = config;
    return MQ_OK;
}

static mq_status write_slice(const mq_export_job *job, mq_slice_report *report, mq_error *err) {
    mq_slice_layout layout;
    mq_status status =
        mq_slice_layout_make(&layout, job->master, job->width, MQ_SLICE_MATQUANT, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *config = NULL;
    status = make_config(&config, job, err);
    if (status == MQ_OK) {
        status = mq_export_stream(job, &layout, config, mq_export_matquant.info.name, report, err);
    }
    cJSON_Delete(config);
    mq_slice_layout_free(&layout);
    return status;
}

const mq_export_format mq_export_matquant = {
    .info = {"matquant", "the master's format with one width: a byte a weight, any grouping",
             "2 to 8"},
    .check = check,
    .write = write_slice,
};
