/* The end-to-end refit as a stage of the job: its and --qat's share of the text, its memory, and
 * the numbers on their way from and to the master's writer. */
#include <stdlib.h>
#include <string.h>

#include "job/state.h"
#include "quant/refit.h"

/* Sequences that are trained on for each that is measured on; and where the text has fewer than are
 * wanted. */
#define VALIDATION_SHARE 16
#define SHORT_VALIDATION_SHARE 8
/* Sequences for each that the blocks learn from. Text that was not seen before teaches more than
 * the same text again (the trial is in tests/bench/RESULTS.md), and the narrowest width has use for
 * the most (mq_refit_share of quant/refit.h). Seven: SmolLM2 with the defaults, text enough and
 * products of float32 is to be done in 40 minutes on two cores. Where there is less, it is visited
 * several times, until there are LEAST_VISITS for each that the blocks learn from. */
#define REFIT_SEQUENCES 7
#define QAT_SEQUENCES 3
#define LEAST_VISITS 3
/* Passes over text that the model has written most of: the second gains as much as fresh text would
 * ("Text that the model writes" in tests/bench/RESULTS.md), and takes less time than to write it.
 */
#define WRITTEN_VISITS 2
/* Sequences at once where nothing is trained: more rows make faster products. */
#define PASS_BATCH 4

/* Of a stage that was told to train on so many tokens; 0: it was not told. */
static size_t train_of(const mq_quantize_options *options, size_t tokens, size_t sequences) {
    return tokens > 0 ? tokens / options->seq_len : sequences * options->samples;
}

static size_t epochs_of(const mq_quantize_options *options, size_t epochs, size_t train,
                        size_t visits) {
    if (epochs > 0 || train == 0) {
        return epochs;
    }
    const size_t least = (LEAST_VISITS * options->samples + train - 1) / train;
    return least > visits ? least : visits;
}

bool mq_quantize_is_validated(const mq_quantize_plan *plan) {
    return plan->refit_width_count > 0 || plan->options->qat;
}

void mq_quantize_refit_share(size_t *wanted, mq_quantize_plan *plan, size_t available) {
    const mq_quantize_options *options = plan->options;
    const size_t qat_tokens = options->qat_tokens > 0 ? options->qat_tokens : options->refit_tokens;
    const size_t refit =
        plan->refit_width_count > 0 ? train_of(options, options->refit_tokens, REFIT_SEQUENCES) : 0;
    const size_t qat = options->qat ? train_of(options, qat_tokens, QAT_SEQUENCES) : 0;
    size_t train = refit > qat ? refit : qat;
    *wanted = options->samples;
    if (!mq_quantize_is_validated(plan)) {
        return;
    }
    size_t validation = train / VALIDATION_SHARE > 1 ? train / VALIDATION_SHARE : 1;
    /* What is measured on comes behind what the blocks learn from, where the text has as much. */
    const size_t before = train > options->samples ? train : options->samples;
    *wanted = before + validation;
    if (available == 0 || available >= *wanted) {
        train = before;
    }
    plan->written = 0;
    if (available > 0 && available < train + validation) { /* at least two: min_count */
        const size_t share = available / SHORT_VALIDATION_SHARE;
        validation = share < validation ? share : validation;
        validation = validation > 1 ? validation : 1;
        const size_t rest = available > validation ? available - validation : 1;
        if (options->extend && !mq_quantize_is_self(options)) {
            plan->written = train - rest;
        } else {
            train = rest;
        }
    }
    plan->train = train;
    plan->validation = validation;
    plan->refit_train = refit < train ? refit : train;
    plan->qat_train = qat < train ? qat : train;
    /* Of what the refit trains on, which is the last of train: written ones are before it. */
    const size_t rest = plan->train - plan->written;
    const bool mostly_written = plan->refit_train > 2 * rest || mq_quantize_is_self(options);
    plan->refit_epochs = epochs_of(options, options->refit_epochs, plan->refit_train,
                                   mostly_written ? WRITTEN_VISITS : 1);
    plan->qat_epochs = epochs_of(options, options->qat_epochs, plan->qat_train, 1);
}

static int compare_pointers(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

mq_status mq_quantize_private_names(mq_quantize_plan *plan, mq_error *err) {
    const mq_config *config = &plan->model->config;
    const size_t most = plan->selection.layers * MQ_NORM_COUNT + 1;
    mq_status status = mq_new(&plan->norms, most, sizeof *plan->norms, "the layout", err);
    if (status == MQ_OK) {
        status = mq_new(&plan->norm_names, most, sizeof *plan->norm_names, "the layout", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    for (size_t i = 0; i < plan->selection.layers * MQ_NORM_COUNT; i++) {
        const mq_norm norm = (mq_norm)(i % MQ_NORM_COUNT);
        const bool divided = plan->options->let && norm == MQ_NORM_PRE_FFN &&
                             mq_let_scales_norm(&plan->selection, i / MQ_NORM_COUNT, config);
        if (mq_config_norm_size(config, norm) > 0 && (plan->refit_width_count > 0 || divided)) {
            mq_config_norm_name(plan->norms[plan->norm_count++], config, i / MQ_NORM_COUNT, norm);
        }
    }
    if (plan->refit_width_count > 0) {
        memcpy(plan->norms[plan->norm_count++], mq_config_layout(config)->final_norm,
               strlen(mq_config_layout(config)->final_norm) + 1);
    }
    for (size_t i = 0; i < plan->norm_count; i++) {
        plan->norm_names[i] = plan->norms[i];
    }
    qsort(plan->norm_names, plan->norm_count, sizeof *plan->norm_names, compare_pointers);
    return MQ_OK;
}

mq_refit_setup mq_quantize_end_to_end(const mq_quantize_plan *plan, size_t train) {
    const mq_quantize_options *options = plan->options;
    /* The last of the sequences before those of the validation. */
    const size_t first = (plan->train - train) * options->seq_len;
    return (mq_refit_setup){.model = plan->model,
                            .source = plan->source,
                            .selection = &plan->selection,
                            .slice_rule = options->slice_rule,
                            .zero_point = options->zero_point,
                            .ids = plan->calibration.ids != NULL ? plan->calibration.ids + first
                                                                 : NULL,
                            .train = train,
                            .least = options->samples,
                            .validation = plan->validation,
                            .length = options->seq_len,
                            .batch = options->refit_batch,
                            .pass_batch = options->batch > PASS_BATCH ? options->batch : PASS_BATCH,
                            .kept_bytes = plan->kept_bytes,
                            .gemm = plan->backend.bf16,
                            .seed = options->seed,
                            .rate = -1.0};
}

static mq_refit_setup setup_of(const mq_quantize_plan *plan) {
    mq_refit_setup setup = mq_quantize_end_to_end(plan, plan->refit_train);
    setup.epochs = plan->refit_epochs;
    setup.widths = plan->refit_widths;
    setup.width_count = plan->refit_width_count;
    return setup;
}

mq_status mq_quantize_refit_memory(mq_quantize_plan *plan, mq_error *err) {
    const mq_refit_setup setup = setup_of(plan);
    const mq_status status = mq_refit_prepare(&setup, err);
    return status == MQ_OK ? mq_refit_memory(&plan->refit_memory, &setup, plan->context, err)
                           : status;
}

/* --- between end-to-end stages and the writer ------------------------------------------------- */

/* A linear's rows among those of the writer. */
typedef struct written_rows {
    size_t index, first, count;
} written_rows;

static written_rows rows_of(const mq_refit_bridge *self, size_t layer, mq_linear linear) {
    const mq_config *config = &self->plan->model->config;
    written_rows rows = {.index =
                             self->plan->linear_index[layer * MQ_LINEAR_COUNT + (size_t)linear],
                         .first = mq_config_linear_place(config, linear).first};
    size_t in;
    mq_config_linear_shape(&rows.count, &in, config, linear);
    return rows;
}

static mq_status get_codes(void *user, uint8_t *codes, size_t layer, mq_linear linear, size_t first,
                           size_t count, mq_error *err) {
    const mq_refit_bridge *self = user;
    const written_rows rows = rows_of(self, layer, linear);
    return mq_master_writer_get_codes(codes, self->writer, rows.index, rows.first + first, count,
                                      err);
}

static mq_status get_pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                           mq_linear linear, unsigned width, mq_error *err) {
    const mq_refit_bridge *self = user;
    const written_rows rows = rows_of(self, layer, linear);
    return mq_master_writer_get_pairs(scales, biases, self->writer, rows.index, width, rows.first,
                                      rows.count, err);
}

static mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    const mq_refit_bridge *self = user;
    const written_rows rows = rows_of(self, layer, linear);
    return mq_master_writer_replace_pairs(self->writer, rows.index, width, rows.first, rows.count,
                                          scales, biases, err);
}

static mq_status put_codes(void *user, size_t layer, mq_linear linear, const uint8_t *codes,
                           mq_error *err) {
    const mq_refit_bridge *self = user;
    const written_rows rows = rows_of(self, layer, linear);
    return mq_master_writer_replace_codes(self->writer, rows.index, rows.first, rows.count, codes,
                                          err);
}

static mq_status put_norm(void *user, const char *name, unsigned width, const float *values,
                          size_t size, mq_error *err) {
    const mq_refit_bridge *self = user;
    return mq_master_writer_put_private(self->writer, name, width, values, size, err);
}

mq_refit_store mq_quantize_store(mq_refit_bridge *bridge, const mq_quantize_plan *plan,
                                 mq_master_writer *writer) {
    *bridge = (mq_refit_bridge){plan, writer};
    return (mq_refit_store){bridge, get_codes, get_pairs, put_pairs, put_norm, put_codes};
}

/* --- the widths ------------------------------------------------------------------------------- */

/* The writer as a refit's store, and beside it the state, for what is put. */
typedef struct kept_bridge {
    mq_refit_bridge writer; /* first: what only reads the writer sees this */
    mq_quantize_state *state;
} kept_bridge;

static mq_status keep_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                            const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    kept_bridge *self = user;
    const mq_status status = put_pairs(&self->writer, layer, linear, width, scales, biases, err);
    const written_rows rows = rows_of(&self->writer, layer, linear);
    return status != MQ_OK ? status
                           : mq_state_keep_pairs(self->state, rows.index, width, rows.first,
                                                 rows.count, scales, biases, err);
}

static mq_status keep_norm(void *user, const char *name, unsigned width, const float *values,
                           size_t size, mq_error *err) {
    kept_bridge *self = user;
    const mq_status status = put_norm(&self->writer, name, width, values, size, err);
    return status != MQ_OK ? status
                           : mq_state_keep_private(self->state, name, width, values, size, err);
}

/* One stage's refit of all widths. */
typedef struct widths {
    const mq_quantize_plan *plan;
    mq_master_writer *writer;
    mq_quantize_state *state;
    mq_refit *refit; /* NULL: an earlier run has done all of them */
    mq_refit_store store;
} widths;

/* A width that the state has, with the work of those before and after it. */
static mq_status take_width(mq_refit_report *report, const widths *w, unsigned width, size_t before,
                            size_t after, mq_error *err) {
    const mq_status status = mq_state_restore_width(report, w->state, width, w->writer, err);
    if (status == MQ_OK && w->refit != NULL) {
        const mq_refit_result result = {.kl_before = report->kl_before,
                                        .kl_after = report->kl_after};
        mq_refit_pass_over(w->refit, &result, width, before, after);
    }
    return status;
}

static mq_status make_width(mq_refit_report *report, const widths *w, unsigned width, size_t before,
                            size_t after, mq_error *err) {
    mq_refit_result result;
    const mq_status status =
        mq_refit_width(&result, w->refit, width, &w->store, before, after, err);
    if (status != MQ_OK) {
        return status;
    }
    *report = (mq_refit_report){.width = width,
                                .kl_before = result.kl_before,
                                .kl_after = result.kl_after,
                                .kept_epoch = result.kept_epoch,
                                .tokens = result.tokens};
    return w->state != NULL ? mq_state_keep_width(w->state, report, err) : MQ_OK;
}

static size_t work_of(const widths *w, size_t i) {
    return w->refit != NULL ? mq_refit_work(w->refit, w->plan->refit_widths[i]) : 0;
}

mq_status mq_quantize_refit(mq_refit_report *reports, const mq_quantize_plan *plan,
                            mq_weights *const embeddings[MQ_MAX_WIDTH + 1],
                            mq_master_writer *writer, mq_quantize_state *state, mq_error *err) {
    mq_refit_setup setup = setup_of(plan);
    memcpy(setup.embeddings, embeddings, sizeof setup.embeddings);
    kept_bridge bridge = {.state = state};
    widths w = {.plan = plan,
                .writer = writer,
                .state = state,
                .store = mq_quantize_store(&bridge.writer, plan, writer)};
    if (state != NULL) {
        w.store.user = &bridge;
        w.store.put_pairs = keep_pairs;
        w.store.put_norm = keep_norm;
    }
    mq_status status = MQ_OK;
    if (plan->kept.width_count < plan->refit_width_count) {
        status = mq_refit_open(&w.refit, &setup, plan->context, err);
    }
    size_t before = 0, after = 0; /* work of the widths, for progress */
    for (size_t i = 0; status == MQ_OK && i < plan->refit_width_count; i++) {
        after += work_of(&w, i);
    }
    for (size_t i = 0; status == MQ_OK && i < plan->refit_width_count; i++) {
        const unsigned width = plan->refit_widths[i];
        after -= work_of(&w, i);
        status = plan->kept.width[width] ? take_width(&reports[i], &w, width, before, after, err)
                                         : make_width(&reports[i], &w, width, before, after, err);
        before += work_of(&w, i);
    }
    mq_refit_close(w.refit);
    return status;
}
