#include <string.h>

#include "matquant/inspect.h"
#include "store/folder.h"
#include "store/quantized_weights.h"

static void release_master(void *master) { mq_master_close(master); }
static void release_slice(void *slice) { mq_slice_reader_close(slice); }

static mq_status open_master(mq_model *model, const char *folder, unsigned width, mq_error *err) {
    mq_master *master = NULL;
    mq_status status = mq_master_open(&master, folder, err);
    if (status != MQ_OK) {
        return status;
    }
    model->keep = master;
    model->release_keep = release_master;
    if (width ==
        0) { /* 8 of a whole master; a slice in the master's format serves one width alone */
        unsigned widths[7];
        mq_master_widths(widths, master);
        width = widths[0];
    }
    model->width = width;
    mq_config_find_layout(&model->config, mq_master_tensors(master));
    return mq_error_in_file(err, mq_master_weights(&model->weights, master, width, err), folder);
}

static mq_status open_slice(mq_model *model, const char *folder, unsigned width, mq_error *err) {
    mq_slice_reader *slice = NULL;
    mq_status status = mq_slice_reader_open(&slice, folder, NULL, err);
    if (status != MQ_OK) {
        return status;
    }
    model->keep = slice;
    model->release_keep = release_slice;
    unsigned own = mq_slice_reader_width(slice);
    model->width = own;
    if (width != 0 && width != own) {
        return mq_fail_file(err, MQ_ERR_USAGE, folder, "is a slice of %u bits, not of %u", own,
                            width);
    }
    mq_config_find_layout(&model->config, mq_slice_reader_tensors(slice));
    return mq_slice_weights(&model->weights, slice, err);
}

static mq_status open_quantized(mq_model *model, mq_kind kind, const char *folder, unsigned width,
                                mq_error *err) {
    model->folder = mq_strdup(folder);
    if (model->folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    mq_status status = mq_config_read(&model->config, folder, err);
    if (status == MQ_OK) {
        status = kind == MQ_KIND_MASTER ? open_master(model, folder, width, err)
                                        : open_slice(model, folder, width, err);
    }
    return status == MQ_OK ? mq_model_check(model, err) : status;
}

mq_status mq_model_open_any(mq_model **out, const char *folder, unsigned width, mq_error *err) {
    mq_kind kind = MQ_KIND_PLAIN;
    mq_status status = mq_folder_kind(&kind, folder, err);
    if (status != MQ_OK) {
        return status;
    }
    if (kind == MQ_KIND_PLAIN) {
        return width == 0 ? mq_model_open_plain(out, folder, err)
                          : mq_fail_file_in(err, MQ_ERR_USAGE, folder, MQ_CONFIG_FILE,
                                            "has no quantization_config: the model is not "
                                            "quantized, and has no slice of %u bits",
                                            width);
    }
    mq_model *model = mq_calloc(1, sizeof *model);
    if (model == NULL) {
        return mq_fail_memory(err, "the model", sizeof *model);
    }
    status = open_quantized(model, kind, folder, width, err);
    if (status != MQ_OK) {
        mq_model_free(model);
        return status;
    }
    *out = model;
    return MQ_OK;
}
