/* Names of a state's files, and which tensors they hold. */
#include "job/state_file.h"

#include <stdio.h>
#include <string.h>

/* --- names ------------------------------------------------------------------------------------ */

const char *mq_state_block_name(char out[MQ_STATE_NAME_SIZE], size_t layer) {
    snprintf(out, MQ_STATE_NAME_SIZE, "block-%05zu.safetensors", layer);
    return out;
}

const char *mq_state_width_name(char out[MQ_STATE_NAME_SIZE], unsigned width) {
    snprintf(out, MQ_STATE_NAME_SIZE, "refit-w%u.safetensors", width);
    return out;
}

bool mq_state_knows(const char *name) {
    char own[MQ_STATE_NAME_SIZE];
    size_t layer;
    unsigned width;
    return strcmp(name, MQ_STATE_JOB) == 0 || strcmp(name, MQ_STATE_TEXT) == 0 ||
           (sscanf(name, "block-%5zu.", &layer) == 1 &&
            strcmp(name, mq_state_block_name(own, layer)) == 0) ||
           (sscanf(name, "refit-w%1u.", &width) == 1 &&
            strcmp(name, mq_state_width_name(own, width)) == 0);
}

/* --- what a file holds ------------------------------------------------------------------------ */

mq_tensor_spec mq_state_text_spec(const mq_quantize_plan *plan) {
    return (mq_tensor_spec){.name = "ids",
                            .dtype = MQ_I32,
                            .dims = 2,
                            .shape = {plan->calibration.count, plan->calibration.length}};
}

static void list(mq_state_listing *l, const char *name, mq_dtype dtype, size_t rows,
                 size_t columns) {
    if (l->specs != NULL) {
        snprintf(l->names[l->count], sizeof l->names[l->count], "%s", name);
        l->specs[l->count] = (mq_tensor_spec){
            .name = l->names[l->count], .dtype = dtype, .dims = 2, .shape = {rows, columns}};
    }
    l->count++;
    l->bytes += rows * columns * mq_dtype_size(dtype); /* fits: the master holds as much */
}

static void list_pairs(mq_state_listing *l, const mq_master_linear *linear, unsigned width) {
    char name[MQ_STORED_NAME_SIZE];
    list(l, mq_name_make(name, linear->prefix, "scales", width), MQ_F16, linear->out,
         linear->groups);
    list(l, mq_name_make(name, linear->prefix, "biases", width), MQ_F16, linear->out,
         linear->groups);
}

const mq_master_linear *mq_state_linear(const mq_quantize_plan *plan, size_t layer,
                                        mq_linear linear) {
    return plan->selection.groups[layer][linear] == 0
               ? NULL
               : &plan->linears[plan->linear_index[layer * MQ_LINEAR_COUNT + (size_t)linear]];
}

static void list_block(mq_state_listing *l, const mq_quantize_plan *plan, size_t layer) {
    list(l, "losses", MQ_F64, 2, plan->options->width_count);
    list(l, "seconds", MQ_F64, 1, 1);
    list(l, "epochs", MQ_U64, 1, 1);
    if (plan->options->let && mq_let_scales_norm(&plan->selection, layer, &plan->model->config)) {
        char name[MQ_NAME_SIZE];
        mq_config_norm_name(name, &plan->model->config, layer, MQ_NORM_PRE_FFN);
        list(l, name, MQ_F32, 1, mq_config_norm_size(&plan->model->config, MQ_NORM_PRE_FFN));
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_master_linear *linear = mq_state_linear(plan, layer, (mq_linear)i);
        char name[MQ_STORED_NAME_SIZE];
        if (mq_config_linear_place(&plan->model->config, (mq_linear)i).first > 0) {
            continue;
        }
        if (linear != NULL) {
            list(l, mq_name_make(name, linear->prefix, "codes", 0), MQ_U8, linear->out, linear->in);
        }
        for (unsigned width = MQ_MAX_WIDTH; linear != NULL && width >= MQ_MIN_WIDTH; width--) {
            list_pairs(l, linear, width);
        }
    }
}

static void list_width(mq_state_listing *l, const mq_quantize_plan *plan, unsigned width) {
    list(l, "kl", MQ_F64, 1, 2);
    list(l, "counts", MQ_U64, 1, 2);
    for (size_t i = 0; i < plan->selection.tensors; i++) {
        list_pairs(l, &plan->linears[i], width);
    }
    for (size_t i = 0; i < plan->norm_count; i++) {
        char name[MQ_STORED_NAME_SIZE];
        const mq_tensor_info *norm = mq_tensors_find(plan->source, plan->norm_names[i]);
        list(l, mq_name_private(name, plan->norm_names[i], width), MQ_F32, 1,
             norm != NULL ? norm->elements : 0);
    }
}

void mq_state_list(mq_state_listing *l, const mq_quantize_plan *plan, size_t layer,
                   unsigned width) {
    if (width == 0) {
        list_block(l, plan, layer);
    } else {
        list_width(l, plan, width);
    }
}

void mq_state_list_free(mq_state_listing *l) {
    mq_free(l->specs);
    mq_free(l->names);
}

mq_status mq_state_list_make(mq_state_listing *l, const mq_quantize_plan *plan, size_t layer,
                             unsigned width, mq_error *err) {
    mq_state_listing counted = {0};
    mq_state_list(&counted, plan, layer, width);
    *l = (mq_state_listing){0};
    mq_status status = mq_new(&l->specs, counted.count, sizeof *l->specs, "a state's tensors", err);
    if (status == MQ_OK) {
        status = mq_new(&l->names, counted.count, sizeof *l->names, "a state's tensors", err);
    }
    if (status == MQ_OK) {
        mq_state_list(l, plan, layer, width);
    } else {
        mq_state_list_free(l);
        *l = (mq_state_listing){0};
    }
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */

mq_status mq_state_fail_changed(const char *folder, mq_error *err) {
    return mq_fail_file(err, MQ_ERR_USAGE, folder,
                        "another run has been at work with it; start again");
}

static mq_status damaged(mq_status status, mq_error *err) {
    if (status == MQ_ERR_INPUT && err != NULL) {
        const size_t length = strlen(err->message);
        snprintf(err->message + length, sizeof err->message - length,
                 "; remove it, and it is made again");
    }
    return status;
}

/* A file of the folder that has these tensors, of two dimensions; their shapes are *alike. */
static mq_status open_with(mq_tensors **out, bool *alike, const char *folder, const char *name,
                           const mq_tensor_spec *specs, size_t count, mq_error *err) {
    char *path = mq_path_join(folder, name);
    mq_tensors *file = NULL;
    mq_status status = path == NULL ? mq_fail_memory(err, "a path", MQ_STATE_NAME_SIZE)
                                    : mq_tensors_open_sealed(&file, path, err);
    *alike = true;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const mq_tensor_info *info = mq_tensors_find(file, specs[i].name);
        if (info == NULL || info->dtype != specs[i].dtype || info->dims != 2) {
            status = mq_fail_tensor(err, MQ_ERR_INPUT, path, specs[i].name,
                                    "is not there as it should be");
        } else {
            *alike = *alike && memcmp(info->shape, specs[i].shape, 2 * sizeof *specs[i].shape) == 0;
        }
    }
    const bool gone = status == MQ_ERR_INPUT && !mq_path_exists(path); /* it was there before */
    mq_free(path);
    if (status != MQ_OK) {
        mq_tensors_close(file);
        return gone ? mq_state_fail_changed(folder, err) : damaged(status, err);
    }
    *out = file;
    return MQ_OK;
}

mq_status mq_state_open_file(mq_tensors **out, const mq_quantize_plan *plan, size_t layer,
                             unsigned width, mq_error *err) {
    char name[MQ_STATE_NAME_SIZE];
    mq_state_listing l;
    bool alike = true;
    mq_tensors *file = NULL;
    mq_status status = mq_state_list_make(&l, plan, layer, width, err);
    if (status == MQ_OK) {
        status = open_with(&file, &alike, plan->options->state,
                           width == 0 ? mq_state_block_name(name, layer)
                                      : mq_state_width_name(name, width),
                           l.specs, l.count, err);
    }
    mq_state_list_free(&l);
    if (status == MQ_OK && !alike) {
        mq_tensors_close(file);
        status = mq_fail_file(err, MQ_ERR_INPUT, plan->options->state,
                              "%s holds tensors of other shapes", name);
        return damaged(status, err);
    }
    *out = file;
    return status;
}

mq_status mq_state_open_text(mq_tensors **out, const mq_quantize_plan *plan, mq_error *err) {
    const mq_tensor_spec spec = mq_state_text_spec(plan);
    const mq_sequences *text = &plan->calibration;
    bool alike = true;
    mq_tensors *file = NULL;
    const mq_status status =
        open_with(&file, &alike, plan->options->state, MQ_STATE_TEXT, &spec, 1, err);
    if (status != MQ_OK) {
        return status;
    }
    const unsigned char *ids = mq_tensors_find(file, spec.name)->data;
    const size_t written = mq_quantize_is_self(plan->options) ? text->count : plan->written;
    const size_t row = text->length * sizeof *text->ids; /* bytes */
    if (!alike || memcmp(ids + written * row, text->ids + written * text->length,
                         (text->count - written) * row) != 0) {
        mq_tensors_close(file);
        return mq_fail_file(err, MQ_ERR_USAGE, plan->options->state,
                            "is the state of another job: its calibration text is another; remove "
                            "the folder or name another");
    }
    *out = file;
    return MQ_OK;
}
