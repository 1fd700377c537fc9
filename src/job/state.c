/* Blocks and refitted widths on their way in and out of a state. */
#include "job/state.h"

#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/keep.h"
#include "job/state_file.h"

struct mq_quantize_state {
    const mq_quantize_plan *plan;
    mq_keep *keep;
    bool ours;                /* the folder is this job's */
    mq_output *output;        /* of the file that is being written; NULL: none is */
    mq_tensor_writer *writer; /* the same */
    size_t tensors;           /* that it will hold */
};

/* --- reading ---------------------------------------------------------------------------------- */

/* A tensor that open_file has found. Its data is aligned: the data section is, and tensors lie in
 * it by falling size of their elements. */
static const void *data_of(const mq_tensors *file, const char *name) {
    return mq_tensors_find(file, name)->data;
}

static void take_out(void *to, const mq_tensors *file, const char *name) {
    const mq_tensor_info *info = mq_tensors_find(file, name);
    memcpy(to, info->data, info->bytes);
}

/* Rows [first, first + count) of `row` bytes each. */
static void take_rows(void *to, const mq_tensors *file, const char *name, size_t first,
                      size_t count, size_t row) {
    memcpy(to, (const unsigned char *)data_of(file, name) + first * row, count * row);
}

static void take_linear(const mq_quantized *q, const mq_tensors *file,
                        const mq_master_linear *linear, size_t first) {
    char name[MQ_STORED_NAME_SIZE];
    const size_t pairs = q->groups * sizeof(uint16_t);
    take_rows(q->codes, file, mq_name_make(name, linear->prefix, "codes", 0), first, q->out, q->in);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        take_rows(q->scales[width], file, mq_name_make(name, linear->prefix, "scales", width),
                  first, q->out, pairs);
        take_rows(q->biases[width], file, mq_name_make(name, linear->prefix, "biases", width),
                  first, q->out, pairs);
    }
}

mq_status mq_state_restore_block(const mq_quantized quantized[MQ_LINEAR_COUNT], float *norm,
                                 mq_block_loss *loss, const mq_quantize_state *state, size_t layer,
                                 mq_error *err) {
    const mq_quantize_plan *plan = state->plan;
    const size_t widths = plan->options->width_count;
    mq_tensors *file = NULL;
    const mq_status status = mq_state_open_file(&file, plan, layer, 0, err);
    if (status != MQ_OK) {
        return status;
    }
    double losses[2 * MQ_MAX_WIDTHS];
    uint64_t epochs;
    take_out(losses, file, "losses");
    take_out(&loss->seconds, file, "seconds");
    take_out(&epochs, file, "epochs");
    loss->epochs = (size_t)epochs;
    memcpy(loss->before, losses, widths * sizeof(double));
    memcpy(loss->after, losses + widths, widths * sizeof(double));
    if (norm != NULL) {
        char name[MQ_NAME_SIZE];
        mq_config_norm_name(name, &plan->model->config, layer, MQ_NORM_PRE_FFN);
        take_out(norm, file, name);
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_master_linear *linear = mq_state_linear(plan, layer, (mq_linear)i);
        if (linear != NULL) {
            take_linear(&quantized[i], file, linear,
                        mq_config_linear_place(&plan->model->config, (mq_linear)i).first);
        }
    }
    mq_tensors_close(file);
    return MQ_OK;
}

mq_status mq_state_restore_width(mq_refit_report *report, const mq_quantize_state *state,
                                 unsigned width, mq_master_writer *writer, mq_error *err) {
    const mq_quantize_plan *plan = state->plan;
    mq_tensors *file = NULL;
    mq_status status = mq_state_open_file(&file, plan, 0, width, err);
    char name[MQ_STORED_NAME_SIZE];
    for (size_t i = 0; status == MQ_OK && i < plan->selection.tensors; i++) {
        const mq_master_linear *linear = &plan->linears[i];
        const uint16_t *scales = data_of(file, mq_name_make(name, linear->prefix, "scales", width));
        const uint16_t *biases = data_of(file, mq_name_make(name, linear->prefix, "biases", width));
        status =
            mq_master_writer_replace_pairs(writer, i, width, 0, linear->out, scales, biases, err);
    }
    for (size_t i = 0; status == MQ_OK && i < plan->norm_count; i++) {
        const mq_tensor_info *norm =
            mq_tensors_find(file, mq_name_private(name, plan->norm_names[i], width));
        const void *values = norm->data;
        status = mq_master_writer_put_private(writer, plan->norm_names[i], width, values,
                                              norm->elements, err);
    }
    if (status == MQ_OK) {
        double kl[2];
        uint64_t counts[2];
        take_out(kl, file, "kl");
        take_out(counts, file, "counts");
        *report = (mq_refit_report){.width = width,
                                    .kl_before = kl[0],
                                    .kl_after = kl[1],
                                    .kept_epoch = (size_t)counts[0],
                                    .tokens = (size_t)counts[1]};
    }
    mq_tensors_close(file);
    return status;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Begins a file of these tensors. */
static mq_status begin_file(mq_quantize_state *state, const char *name, const mq_tensor_spec *specs,
                            size_t count, mq_error *err) {
    char *path = mq_path_join(state->plan->options->state, name);
    mq_status status = path == NULL ? mq_fail_memory(err, "a path", MQ_STATE_NAME_SIZE)
                                    : mq_output_begin_file(&state->output, path, "", false, err);
    if (status == MQ_OK) {
        state->tensors = count;
        status = mq_tensor_writer_open_sealed(&state->writer, state->output, specs, count, err);
    }
    mq_free(path);
    return status;
}

/* Begins the file of a block or a width, unless it is being written already. */
static mq_status begin(mq_quantize_state *state, size_t layer, unsigned width, mq_error *err) {
    if (state->writer != NULL) {
        return MQ_OK;
    }
    char name[MQ_STATE_NAME_SIZE];
    mq_state_listing l;
    mq_status status = mq_state_list_make(&l, state->plan, layer, width, err);
    if (status == MQ_OK) {
        status = begin_file(
            state, width == 0 ? mq_state_block_name(name, layer) : mq_state_width_name(name, width),
            l.specs, l.count, err);
    }
    mq_state_list_free(&l);
    return status;
}

/* A part of a tensor, which begins at a byte offset within it; all of it is there in the end. */
static mq_status put_part(mq_quantize_state *state, const char *name, size_t offset,
                          const void *data, size_t bytes, mq_error *err) {
    const size_t index = mq_tensor_writer_find(state->writer, name);
    return index == state->tensors
               ? mq_fail_tensor(err, MQ_ERR_USAGE, NULL, name, "was not planned")
               : mq_tensor_writer_put_part(state->writer, index, offset, data, bytes, err);
}

static mq_status put(mq_quantize_state *state, const char *name, const void *data, size_t bytes,
                     mq_error *err) {
    return put_part(state, name, 0, data, bytes, err);
}

/* The file, of which every tensor was put, is there. */
static mq_status end(mq_quantize_state *state, mq_error *err) {
    mq_status status = mq_tensor_writer_close(state->writer, err);
    state->writer = NULL;
    if (status == MQ_OK) {
        status = mq_output_commit(state->output, err);
    }
    mq_output_discard(state->output);
    state->output = NULL;
    return status;
}

/* What the model wrote, unless it was taken from there. */
static mq_status keep_text(mq_quantize_state *state, mq_error *err) {
    const mq_quantize_plan *plan = state->plan;
    if (!mq_quantize_has_written(plan) || plan->text_taken) {
        return MQ_OK;
    }
    const mq_tensor_spec spec = mq_state_text_spec(plan);
    mq_status status = begin_file(state, MQ_STATE_TEXT, &spec, 1, err);
    if (status == MQ_OK) {
        status =
            put(state, spec.name, plan->calibration.ids,
                plan->calibration.count * plan->calibration.length * sizeof *plan->calibration.ids,
                err);
    }
    return status == MQ_OK ? end(state, err) : status;
}

/* The folder is of this job as far as that is known; one that is of none gets it with `write`. */
static mq_status hold_job(const mq_quantize_plan *plan, bool write, mq_error *err) {
    const char *folder = plan->options->state;
    cJSON *there = NULL, *here = NULL;
    mq_status status = mq_quantize_job(&here, plan, err);
    if (status == MQ_OK) {
        status = mq_state_read_job(&there, folder, err);
    }
    if (status == MQ_OK && there != NULL) {
        status = mq_state_compare_jobs(there, here, true, folder, err);
    } else if (status == MQ_OK && write) {
        status = mq_state_write_job(folder, here, err);
    }
    cJSON_Delete(here);
    cJSON_Delete(there);
    return status;
}

/* What was found before the lock was had may be another run's past: whose state it is, and what is
 * in it. */
static mq_status take_over(mq_quantize_state *state, mq_error *err) {
    mq_status status = hold_job(state->plan, false, err);
    if (status == MQ_OK) {
        status = mq_state_survey_again(state->plan, err);
    }
    state->ours = status == MQ_OK;
    return status;
}

mq_status mq_state_begin(mq_quantize_state *state, mq_error *err) {
    const mq_status status = hold_job(state->plan, true, err);
    return status == MQ_OK ? keep_text(state, err) : status;
}

mq_status mq_state_open(mq_quantize_state **out, const mq_quantize_plan *plan, mq_error *err) {
    mq_quantize_state *state = NULL;
    mq_status status = mq_new(&state, 1, sizeof *state, "the state", err);
    if (status != MQ_OK) {
        return status;
    }
    *state = (mq_quantize_state){.plan = plan};
    status = mq_keep_open(&state->keep, plan->options->state, mq_state_knows, err);
    if (status == MQ_OK) {
        status = take_over(state, err);
    }
    if (status != MQ_OK) {
        mq_state_close(state, false);
        return status;
    }
    *out = state;
    return MQ_OK;
}

/* Pairs of rows [first, first + count). */
static mq_status put_pairs(mq_quantize_state *state, const mq_master_linear *linear, unsigned width,
                           size_t first, size_t count, const uint16_t *scales,
                           const uint16_t *biases, mq_error *err) {
    char name[MQ_STORED_NAME_SIZE];
    const size_t row = linear->groups * sizeof *scales;
    const mq_status status = put_part(state, mq_name_make(name, linear->prefix, "scales", width),
                                      first * row, scales, count * row, err);
    return status != MQ_OK ? status
                           : put_part(state, mq_name_make(name, linear->prefix, "biases", width),
                                      first * row, biases, count * row, err);
}

mq_status mq_state_keep_linear(mq_quantize_state *state, size_t layer, mq_linear linear,
                               const mq_quantized *quantized, mq_error *err) {
    const mq_master_linear *entry = mq_state_linear(state->plan, layer, linear);
    const size_t first = mq_config_linear_place(&state->plan->model->config, linear).first;
    const size_t rows = quantized->out;
    char name[MQ_STORED_NAME_SIZE];
    mq_status status = begin(state, layer, 0, err);
    if (status == MQ_OK) {
        status = put_part(state, mq_name_make(name, entry->prefix, "codes", 0), first * entry->in,
                          quantized->codes, rows * entry->in, err);
    }
    for (unsigned width = MQ_MIN_WIDTH; status == MQ_OK && width <= MQ_MAX_WIDTH; width++) {
        status = put_pairs(state, entry, width, first, rows, quantized->scales[width],
                           quantized->biases[width], err);
    }
    return status;
}

mq_status mq_state_keep_norm(mq_quantize_state *state, size_t layer, mq_norm norm,
                             const float *values, mq_error *err) {
    const mq_config *config = &state->plan->model->config;
    char name[MQ_NAME_SIZE];
    mq_config_norm_name(name, config, layer, norm);
    const mq_status status = begin(state, layer, 0, err);
    return status != MQ_OK
               ? status
               : put(state, name, values, mq_config_norm_size(config, norm) * sizeof *values, err);
}

mq_status mq_state_keep_block(mq_quantize_state *state, size_t layer, const mq_block_loss *loss,
                              mq_error *err) {
    const size_t widths = state->plan->options->width_count;
    double losses[2 * MQ_MAX_WIDTHS];
    memcpy(losses, loss->before, widths * sizeof *losses);
    memcpy(losses + widths, loss->after, widths * sizeof *losses);
    const uint64_t epochs = loss->epochs;
    mq_status status = begin(state, layer, 0, err);
    if (status == MQ_OK) {
        status = put(state, "losses", losses, 2 * widths * sizeof *losses, err);
    }
    if (status == MQ_OK) {
        status = put(state, "seconds", &loss->seconds, sizeof loss->seconds, err);
    }
    if (status == MQ_OK) {
        status = put(state, "epochs", &epochs, sizeof epochs, err);
    }
    return status == MQ_OK ? end(state, err) : status;
}

mq_status mq_state_keep_pairs(mq_quantize_state *state, size_t index, unsigned width, size_t first,
                              size_t count, const uint16_t *scales, const uint16_t *biases,
                              mq_error *err) {
    const mq_status status = begin(state, 0, width, err);
    return status != MQ_OK ? status
                           : put_pairs(state, &state->plan->linears[index], width, first, count,
                                       scales, biases, err);
}

mq_status mq_state_keep_private(mq_quantize_state *state, const char *name, unsigned width,
                                const float *values, size_t size, mq_error *err) {
    char own[MQ_STORED_NAME_SIZE];
    const mq_status status = begin(state, 0, width, err);
    return status != MQ_OK
               ? status
               : put(state, mq_name_private(own, name, width), values, size * sizeof *values, err);
}

mq_status mq_state_keep_width(mq_quantize_state *state, const mq_refit_report *report,
                              mq_error *err) {
    const double kl[2] = {report->kl_before, report->kl_after};
    const uint64_t counts[2] = {report->kept_epoch, report->tokens};
    mq_status status = begin(state, 0, report->width, err);
    if (status == MQ_OK) {
        status = put(state, "kl", kl, sizeof kl, err);
    }
    if (status == MQ_OK) {
        status = put(state, "counts", counts, sizeof counts, err);
    }
    return status == MQ_OK ? end(state, err) : status;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Whether nothing is in it but the job, if that is ours. */
static bool is_bare(const mq_quantize_state *state) {
    char **names = NULL;
    size_t count;
    if (mq_list_folder(&names, &count, state->plan->options->state, NULL) != MQ_OK) {
        return false;
    }
    const bool bare =
        count == 0 || (count == 1 && state->ours && strcmp(names[0], MQ_STATE_JOB) == 0);
    mq_free_list(names, count);
    return bare;
}

void mq_state_close(mq_quantize_state *state, bool done) {
    if (state == NULL) {
        return;
    }
    const mq_quantize_plan *plan = state->plan;
    mq_tensor_writer_abandon(state->writer);
    mq_output_discard(state->output);
    if (state->keep != NULL && (done || is_bare(state))) {
        if (!mq_keep_remove(state->keep, MQ_STATE_JOB)) {
            mq_log(plan->context, MQ_LOG_WARNING, "%s: cannot be removed", plan->options->state);
        }
    } else if (state->ours) {
        mq_log(plan->context, MQ_LOG_INFO, "%s keeps what is finished: go on with the same command",
               plan->options->state);
    }
    mq_keep_close(state->keep);
    mq_free(state);
}
