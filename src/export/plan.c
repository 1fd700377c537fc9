#include "export/plan.h"

#include <string.h>

#include "store/names.h"

void mq_plan_begin(mq_plan *plan, const mq_export_job *job) {
    *plan = (mq_plan){
        .job = job, .group_size = mq_master_group_size(job->master), .layout = job->config->layout};
}

void mq_plan_free(mq_plan *plan) {
    for (size_t i = 0; i < plan->count; i++) {
        mq_free((char *)(uintptr_t)plan->pieces[i].spec.name);
    }
    mq_free(plan->pieces);
    if (plan->free_own != NULL) {
        plan->free_own(plan->own);
    }
    *plan = (mq_plan){0};
}

mq_status mq_plan_add(mq_plan *plan, const char *name, const mq_piece *piece, mq_error *err) {
    if (plan->count == plan->capacity) {
        const size_t capacity = plan->capacity == 0 ? 64 : 2 * plan->capacity;
        mq_piece *pieces = mq_realloc(plan->pieces, capacity, sizeof *pieces);
        if (pieces == NULL) {
            return mq_fail_memory(err, "the list of tensors", capacity * sizeof *pieces);
        }
        plan->pieces = pieces;
        plan->capacity = capacity;
    }
    mq_piece *added = &plan->pieces[plan->count];
    *added = *piece;
    char renamed[MQ_NAME_SIZE];
    added->spec.name = mq_strdup(mq_config_rename(renamed, plan->job->config, name, plan->layout));
    if (added->spec.name == NULL) {
        return mq_fail_memory(err, "the list of tensors", 0);
    }
    plan->count++;
    const size_t bytes = piece->rows * piece->row_bytes;
    plan->bytes += bytes;
    plan->quantized_bytes += piece->linear != NULL ? bytes : 0;
    for (size_t i = 0; i < 3 && piece->sources[i] != NULL; i++) {
        plan->bytes_read += piece->sources[i]->bytes;
    }
    return MQ_OK;
}

const mq_tensor_info *mq_plan_source(bool *is_private, const mq_plan *plan,
                                     const mq_tensor_info *info) {
    const mq_tensor_info *own = mq_mixture_private(plan->job->mixture, info->name);
    *is_private = own != NULL;
    return own != NULL ? own : info;
}

mq_status mq_plan_add_copy(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    mq_piece piece = {
        .spec = {.dtype = info->dtype, .dims = info->dims}, .rows = 1, .row_bytes = info->bytes};
    piece.sources[0] = mq_plan_source(&piece.is_private, plan, info);
    for (size_t i = 0; i < info->dims; i++) {
        piece.spec.shape[i] = info->shape[i];
    }
    return mq_plan_add(plan, info->name, &piece, err);
}

static bool has(const mq_plan *plan, const char *name) {
    return plan->has == NULL || plan->has(plan->job->config, name);
}

static bool has_layer(const mq_plan *plan, const mq_master_view *view) {
    char name[MQ_STORED_NAME_SIZE];
    return has(plan, mq_name_make(name, view->prefix, "weight", 0));
}

mq_status
mq_plan_walk(mq_plan *plan,
             mq_status (*add_linear)(mq_plan *plan, const mq_master_view *view, mq_error *err),
             mq_status (*add_unquantized)(mq_plan *plan, const mq_tensor_info *info, mq_error *err),
             mq_error *err) {
    const mq_master *master = plan->job->master;
    const mq_tensors *tensors = mq_master_tensors(master);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        const mq_role role = mq_master_role(NULL, master, info);
        if (role == MQ_ROLE_PLAIN && has(plan, info->name)) {
            status = add_unquantized(plan, info, err);
        } else if (role == MQ_ROLE_LINEAR) {
            mq_name name = mq_name_parse(info->name);
            const mq_master_view *view =
                name.form == MQ_NAME_CODES ? mq_master_find(master, name.stem) : NULL;
            if (view != NULL && has_layer(plan, view)) { /* its scales and biases come with it */
                plan->quantized_weights += view->out * view->in;
                status = add_linear(plan, view, err);
            }
        }
    }
    return status;
}

void mq_piece_reads_all(mq_piece *piece, const mq_plan *plan, const mq_master_view *view) {
    piece->linear = view;
    piece->sources[0] = view->codes;
    const unsigned width = mq_plan_width(plan, view);
    piece->sources[1] = view->scales[width];
    piece->sources[2] = view->biases[width];
}

bool mq_plan_is_symmetric(const mq_plan *plan) {
    return mq_master_zero_point(plan->job->master) == MQ_ZERO_SYMMETRIC;
}

double mq_plan_relative_error(const mq_plan *plan) {
    double error = 0, power = 0;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->pieces[i].is_inexact && plan->pieces[i].linear != NULL) {
            error += plan->pieces[i].error;
            power += plan->pieces[i].power;
        }
    }
    return power > 0 ? error / power : 0;
}

double mq_plan_bits_per_weight(const mq_plan *plan) {
    return plan->quantized_weights == 0
               ? 0.0
               : 8.0 * (double)plan->quantized_bytes / (double)plan->quantized_weights;
}

mq_dtype mq_plan_source_dtype(const mq_plan *plan) {
    const mq_layout *layout = mq_config_layout(plan->job->config);
    const char *const names[] = {layout->embedding, layout->final_norm};
    for (size_t i = 0; i < 2; i++) {
        const mq_tensor_info *info =
            mq_tensors_find(mq_master_tensors(plan->job->master), names[i]);
        if (info != NULL && mq_dtype_is_weight(info->dtype)) {
            return info->dtype;
        }
    }
    return MQ_BF16;
}

mq_dtype mq_plan_dtype(const mq_plan *plan) {
    switch (plan->job->options->dtype) {
    case MQ_SLICE_DTYPE_BF16:
        return MQ_BF16;
    case MQ_SLICE_DTYPE_F16:
        return MQ_F16;
    case MQ_SLICE_DTYPE_F32:
        return MQ_F32;
    case MQ_SLICE_DTYPE_SOURCE:
        break;
    }
    return mq_plan_source_dtype(plan);
}

size_t mq_plan_window(const mq_plan *plan, bool knows_windows) {
    const size_t window = plan->job->config->sliding_window;
    return knows_windows || window == 0 ? SIZE_MAX : window;
}

void mq_plan_warn_windows(const mq_plan *plan, const char *program, bool knows_windows,
                          const char *follows) {
    const size_t window = mq_plan_window(plan, knows_windows);
    if (window < plan->job->config->max_position_embeddings) {
        mq_log(
            plan->job->context, MQ_LOG_WARNING,
            "%s computes %s without its windows: what it says of more than %zu tokens is not the "
            "model's%s",
            program, plan->job->config->arch->architecture, window, follows);
    }
}

bool mq_plan_has_other_parts(const mq_plan *plan) {
    bool found = false;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_tensor_info *source = plan->pieces[i].sources[0];
        found = found ||
                (source != NULL && mq_config_is_of_other_part(plan->job->config, source->name));
    }
    return found;
}

void mq_plan_warn_parts(const mq_plan *plan, const char *why) {
    const mq_tensors *tensors = mq_master_tensors(plan->job->master);
    const char *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const char *name = mq_tensors_at(tensors, i)->name;
        if (mq_config_is_of_other_part(plan->job->config, name)) {
            first = first == NULL ? name : first;
            count++;
        }
    }
    if (count > 0) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "the slice is the language model alone, without %zu tensors of other parts (%.150s, "
               "...): %s",
               count, first, why);
    }
}
