#include <string.h>

#include "matquant/inspect.h"
#include "store/folder.h"
#include "store/quantized_weights.h"

/* What the weights of a master's model read from. */
typedef struct kept_master {
    mq_master *master;
    mq_mixture mixture;
} kept_master;

static void release_master(void *keep) {
    kept_master *kept = keep;
    mq_mixture_free(&kept->mixture);
    mq_master_close(kept->master);
    mq_free(kept);
}

static void release_slice(void *slice) { mq_slice_reader_close(slice); }

/* The widths that are asked for of a folder. */
typedef struct asked_widths {
    unsigned width; /* 0: its own */
    const mq_layer_bits *layer_bits;
    size_t count;
} asked_widths;

static mq_status open_mixture(mq_model *model, kept_master *kept, const asked_widths *asked,
                              mq_error *err) {
    model->width = asked->width;
    if (model->width == 0) {
        /* 8 of a whole master; a slice in the master's format serves one width alone */
        unsigned widths[MQ_MAX_WIDTHS];
        mq_master_widths(widths, kept->master);
        model->width = widths[0];
    }
    mq_status status = mq_mixture_make(&kept->mixture, kept->master, model->width,
                                       asked->layer_bits, asked->count, err);
    if (status == MQ_OK) {
        model->widths = mq_mixture_counts(&kept->mixture, &model->config);
        status = mq_master_weights(&model->weights, &kept->mixture, err);
    }
    return status;
}

static mq_status open_master(mq_model *model, const char *folder, const asked_widths *asked,
                             mq_error *err) {
    kept_master *kept = mq_calloc(1, sizeof *kept);
    if (kept == NULL) {
        return mq_fail_memory(err, "a master checkpoint", sizeof *kept);
    }
    model->keep = kept;
    model->release_keep = release_master;
    const mq_status status = mq_master_open(&kept->master, folder, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_config_find_layout(&model->config, mq_master_tensors(kept->master));
    return mq_error_in_file(err, open_mixture(model, kept, asked, err), folder);
}

static mq_status open_slice(mq_model *model, const char *folder, const asked_widths *asked,
                            mq_error *err) {
    mq_slice_reader *slice = NULL;
    mq_status status = mq_slice_reader_open(&slice, folder, NULL, err);
    if (status != MQ_OK) {
        return status;
    }
    model->keep = slice;
    model->release_keep = release_slice;
    unsigned own = mq_slice_reader_width(slice);
    model->width = own;
    if (asked->width != 0 && asked->width != own) {
        return mq_fail_file(err, MQ_ERR_USAGE, folder, "is a slice of %u bits, not of %u", own,
                            asked->width);
    }
    for (size_t i = 0; i < mq_slice_reader_count(slice); i++) {
        const mq_slice_view *view = mq_slice_reader_at(slice, i);
        mq_width_counts_add(&model->widths, mq_slice_reader_width_of(slice, view),
                            view->out * view->in);
    }
    mq_config_find_layout(&model->config, mq_slice_reader_tensors(slice));
    return mq_slice_weights(&model->weights, slice, err);
}

static mq_status open_quantized(mq_model *model, mq_kind kind, const char *folder,
                                const asked_widths *asked, mq_error *err) {
    model->folder = mq_strdup(folder);
    if (model->folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    mq_status status = mq_config_read(&model->config, folder, err);
    if (status == MQ_OK) {
        status = kind == MQ_KIND_MASTER ? open_master(model, folder, asked, err)
                                        : open_slice(model, folder, asked, err);
    }
    return status == MQ_OK ? mq_model_check(model, err) : status;
}

static mq_status open_plain(mq_model **out, const char *folder, const asked_widths *asked,
                            mq_error *err) {
    return asked->width == 0 ? mq_model_open_plain(out, folder, err)
                             : mq_fail_file_in(err, MQ_ERR_USAGE, folder, MQ_CONFIG_FILE,
                                               "has no quantization_config: the model is not "
                                               "quantized, and has no slice of %u bits",
                                               asked->width);
}

mq_status mq_model_open_mixed(mq_model **out, const char *folder, unsigned width,
                              const mq_layer_bits *layer_bits, size_t count, mq_error *err) {
    const asked_widths asked = {width, layer_bits, count};
    mq_kind kind = MQ_KIND_PLAIN;
    mq_status status = mq_folder_kind(&kind, folder, err);
    if (status != MQ_OK) {
        return status;
    }
    if (count > 0 && kind != MQ_KIND_MASTER) {
        return mq_fail_file(err, MQ_ERR_USAGE, folder,
                            "is no master checkpoint: its layers have the widths that they have");
    }
    if (kind == MQ_KIND_PLAIN) {
        return open_plain(out, folder, &asked, err);
    }
    mq_model *model = mq_calloc(1, sizeof *model);
    if (model == NULL) {
        return mq_fail_memory(err, "the model", sizeof *model);
    }
    status = open_quantized(model, kind, folder, &asked, err);
    if (status != MQ_OK) {
        mq_model_free(model);
        return status;
    }
    *out = model;
    return MQ_OK;
}
