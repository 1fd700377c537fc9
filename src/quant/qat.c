/* All trained widths through the whole model and back, and a step of the codes that they share. */
#include "quant/qat.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "quant/distill.h"
#include "quant/qat_codes.h"

typedef struct qat {
    mq_qat_setup setup;
    mq_qat_rule rule;
    mq_distill distill;
    mq_student student[MQ_MAX_WIDTHS];        /* beside rule.widths */
    mq_block_params grads[MQ_MAX_WIDTHS];     /* of one block */
    mq_qat_codes (*codes)[MQ_LINEAR_COUNT];   /* [layers] */
    const mq_refit_store *store;              /* the caller's: as before, then the best so far */
    mq_refit_store moving;                    /* the same with the codes as they are now */
    size_t step, steps, measured, measurings; /* of the job, for progress */
    mq_slab slab;
} qat;

/* --- memory ----------------------------------------------------------------------------------- */

static void carve(qat *self, mq_slab *slab) {
    const mq_refit_setup *setup = &self->distill.setup;
    const mq_config *config = &setup->model->config;
    const size_t layers = config->num_hidden_layers;
    mq_distill_carve(&self->distill, slab);
    for (size_t k = 0; k < self->rule.width_count; k++) {
        mq_student_carve(&self->student[k], setup, slab);
        mq_block_params_carve(&self->grads[k], slab, config);
    }
    self->codes = mq_carve(slab, layers, sizeof *self->codes);
    for (size_t i = 0; i < layers * MQ_LINEAR_COUNT; i++) {
        const size_t layer = i / MQ_LINEAR_COUNT, linear = i % MQ_LINEAR_COUNT;
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)linear);
        mq_qat_codes codes;
        mq_qat_codes_carve(&codes, &self->rule, out, in, setup->selection->groups[layer][linear],
                           slab);
        if (self->codes != NULL) {
            self->codes[layer][linear] = codes;
        }
    }
}

static qat qat_for(const mq_qat_setup *setup, const mq_context *context) {
    assert(setup->refit.codes_move);
    qat self = {.setup = *setup};
    self.rule = mq_qat_rule_of(setup->widths, setup->lambda, setup->width_count,
                               setup->refit.slice_rule, setup->refit.zero_point);
    self.distill = mq_distill_for(&setup->refit, self.rule.width_count, context);
    return self;
}

static mq_status measure_slab(mq_slab *slab, const mq_qat_setup *setup, const mq_context *context,
                              mq_error *err) {
    qat measuring = qat_for(setup, context);
    *slab = (mq_slab){0};
    carve(&measuring, slab);
    return slab->overflow
               ? mq_fail(err, MQ_ERR_USAGE, "the memory of --qat overflows; use fewer --qat-tokens")
               : MQ_OK;
}

mq_status mq_qat_prepare(const mq_qat_setup *setup, mq_error *err) {
    return mq_distill_prepare(&setup->refit, err);
}

mq_status mq_qat_memory(size_t *out, const mq_qat_setup *setup, const mq_context *context,
                        mq_error *err) {
    mq_slab slab;
    const mq_status status = measure_slab(&slab, setup, context, err);
    if (status != MQ_OK) {
        return status;
    }
    return mq_add_size(out, slab.used, mq_distill_beside(&setup->refit, context))
               ? MQ_OK
               : mq_fail_memory(err, "--qat", SIZE_MAX);
}

/* --- the store, with codes that move ---------------------------------------------------------- */

static mq_status moving_codes(void *user, uint8_t *codes, size_t layer, mq_linear linear,
                              size_t first, size_t count, mq_error *err) {
    (void)err;
    const qat *self = user;
    const mq_qat_codes *moving = &self->codes[layer][linear];
    memcpy(codes, moving->now + first * moving->in, count * moving->in);
    return MQ_OK;
}

static mq_status stored_pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                              mq_linear linear, unsigned width, mq_error *err) {
    const qat *self = user;
    return self->store->pairs(self->store->user, scales, biases, layer, linear, width, err);
}

static mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    const qat *self = user;
    return self->store->put_pairs(self->store->user, layer, linear, width, scales, biases, err);
}

/* --- start, keep ------------------------------------------------------------------------------ */

static mq_status start(qat *self, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0;
         status == MQ_OK && i < self->distill.setup.selection->layers * MQ_LINEAR_COUNT; i++) {
        const size_t layer = i / MQ_LINEAR_COUNT;
        const mq_linear linear = (mq_linear)(i % MQ_LINEAR_COUNT);
        mq_qat_codes *codes = &self->codes[layer][linear];
        if (codes->groups > 0) {
            status = self->store->codes(self->store->user, codes->start, layer, linear, 0,
                                        codes->out, err);
            mq_qat_codes_begin(codes);
        }
    }
    for (size_t k = 0; status == MQ_OK && k < self->rule.width_count; k++) {
        status = mq_student_open(&self->student[k], &self->distill.setup, err);
    }
    return status;
}

/* Codes and pairs as they are now are the best so far. */
static mq_status keep(qat *self, mq_qat_result *result, mq_error *err) {
    mq_status status = MQ_OK;
    result->moved = 0;
    for (size_t i = 0;
         status == MQ_OK && i < self->distill.setup.selection->layers * MQ_LINEAR_COUNT; i++) {
        const size_t layer = i / MQ_LINEAR_COUNT;
        const mq_linear linear = (mq_linear)(i % MQ_LINEAR_COUNT);
        const mq_qat_codes *codes = &self->codes[layer][linear];
        if (codes->groups == 0) {
            continue;
        }
        for (size_t at = 0; at < codes->out * codes->in; at++) {
            result->moved += codes->now[at] != codes->start[at] ? 1 : 0;
        }
        status = self->store->put_codes(self->store->user, layer, linear, codes->now, err);
    }
    for (size_t k = 0; status == MQ_OK && k < self->rule.width_count; k++) {
        mq_student_keep(&self->student[k]);
        status = mq_student_put_pairs(&self->student[k], err);
    }
    return status;
}

/* --- measuring -------------------------------------------------------------------------------- */

static void report(const qat *self, const char *detail) {
    const size_t measuring = mq_distill_measuring_work(&self->distill, MQ_MAX_WIDTH); /* of any */
    const double total = (double)self->steps + (double)(self->measurings * measuring);
    const double inside = (double)self->step + (double)(self->measured * measuring);
    const mq_progress progress = {.phase = "qat",
                                  .unit = "step",
                                  .done = detail != NULL ? total : inside,
                                  .total = total,
                                  .elapsed_seconds = mq_seconds() - self->distill.started,
                                  .detail = detail};
    mq_report(self->distill.context, &progress);
}

/* Every width's divergence as the store has it. */
static mq_status measure_stored(double kl[MQ_MAX_WIDTH + 1], qat *self, mq_error *err) {
    mq_status status = MQ_OK;
    for (unsigned width = MQ_MIN_WIDTH; status == MQ_OK && width <= MQ_MAX_WIDTH; width++) {
        status = mq_student_start(&self->student[0], width, self->store, err);
        if (status == MQ_OK) {
            status = mq_distill_measure(&kl[width], &self->distill, &self->student[0], err);
        }
    }
    self->measured++;
    return status;
}

static double weighted(const qat *self, const double kl[MQ_MAX_WIDTH + 1]) {
    double sum = 0.0;
    for (size_t k = 0; k < self->rule.width_count; k++) {
        sum += self->rule.lambda[k] * kl[self->rule.widths[k]];
    }
    return sum;
}

/* The trained widths' as they are now; kept if that is the best so far. */
static mq_status judge(qat *self, mq_qat_result *result, size_t epoch, mq_error *err) {
    double kl[MQ_MAX_WIDTH + 1] = {0};
    mq_status status = MQ_OK;
    for (size_t k = 0; status == MQ_OK && k < self->rule.width_count; k++) {
        status =
            mq_distill_measure(&kl[self->rule.widths[k]], &self->distill, &self->student[k], err);
    }
    self->measured++;
    const double loss = weighted(self, kl);
    if (status == MQ_OK) {
        mq_log(self->distill.context, MQ_LOG_DEBUG,
               "qat: epoch %zu, weighted KL %.5f (%.5f before)", epoch, loss, result->loss_before);
    }
    if (status == MQ_OK && loss < result->loss_after) { /* false for NaN */
        result->loss_after = loss;
        result->kept_epoch = epoch;
        status = keep(self, result, err);
    }
    return status;
}

/* --- a step ----------------------------------------------------------------------------------- */

/* How much more a width's loss weighs on this step; 0: it is not visited. As in the blocks, a step
 * of int8 costs more than another's and moves little. */
static double factor_of(const qat *self, size_t k, size_t step) {
    const size_t period = self->setup.int8_period;
    if (self->rule.widths[k] != MQ_MAX_WIDTH) {
        return 1.0;
    }
    return step % period == period - 1 ? (double)period : 0.0;
}

static void step_linear(qat *self, size_t layer, mq_linear linear, const double *factor,
                        const mq_adam *pairs, const mq_adam *rounding) {
    float *gradient[MQ_MAX_WIDTHS] = {NULL};
    const float *scale[MQ_MAX_WIDTHS] = {NULL};
    mq_qat_codes *codes = &self->codes[layer][linear];
    for (size_t k = 0; k < self->rule.width_count; k++) {
        if (factor[k] > 0.0) {
            gradient[k] = self->grads[k].linear[linear];
            scale[k] = self->student[k].pairs[layer][linear].scale;
        }
    }
    /* The step of the pairs comes first, since that of the codes overwrites the gradients. The
     * codes' step therefore sees scales that are one step ahead, which does not matter: a step
     * changes them by a small fraction. */
    for (size_t k = 0; k < self->rule.width_count; k++) {
        if (gradient[k] != NULL) {
            mq_student_step_pairs(&self->student[k], layer, linear, gradient[k],
                                  self->distill.codes[linear], &pairs[k]);
        }
    }
    mq_qat_codes_step(codes, gradient, scale, factor, rounding);
}

static mq_status step_block(qat *self, size_t layer, const double *factor, const mq_adam *pairs,
                            const mq_adam *rounding, mq_error *err) {
    mq_status status = MQ_OK;
    /* The last to go forward is the first to come back: its last block is still there. */
    for (size_t k = self->rule.width_count; status == MQ_OK && k-- > 0;) {
        if (factor[k] > 0.0) {
            mq_block_grads grads = mq_distill_grads(&self->distill, &self->grads[k], layer);
            for (int i = 0; i < MQ_NORM_COUNT; i++) {
                grads.norm[i] = NULL; /* the refit's */
            }
            status = mq_distill_backward(&grads, &self->distill, &self->student[k], k, layer, err);
        }
    }
    for (int i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        if (self->codes[layer][i].groups > 0) {
            step_linear(self, layer, (mq_linear)i, factor, pairs, rounding);
        }
    }
    return status;
}

static mq_status train_step(qat *self, size_t first, mq_error *err) {
    mq_adam pairs[MQ_MAX_WIDTHS];
    double factor[MQ_MAX_WIDTHS];
    const mq_refit_setup *setup = &self->distill.setup;
    const mq_adam rounding =
        mq_distill_adam(&self->distill, 0.0, self->setup.rate, self->step, self->steps);
    mq_status status = MQ_OK;
    mq_distill_gather(&self->distill, first);
    for (size_t k = 0; status == MQ_OK && k < self->rule.width_count; k++) {
        const double rate = setup->rate >= 0.0 ? setup->rate : mq_refit_rate(self->rule.widths[k]);
        pairs[k] = mq_distill_adam(&self->distill, rate, 0.0, self->step, self->steps);
        factor[k] = factor_of(self, k, self->step);
        if (factor[k] > 0.0) {
            status = mq_distill_forward(&self->distill, &self->student[k], k, err);
        }
    }
    for (size_t layer = setup->model->config.num_hidden_layers; status == MQ_OK && layer-- > 0;) {
        status = step_block(self, layer, factor, pairs, &rounding, err);
    }
    self->step++;
    return status;
}

/* --- the whole -------------------------------------------------------------------------------- */

static mq_status train(qat *self, mq_qat_result *result, mq_error *err) {
    const mq_refit_setup *setup = &self->distill.setup;
    const size_t batch = self->distill.batch, used = setup->train / batch * batch;
    mq_random random;
    mq_random_seed(&random, setup->seed, MQ_STREAM_QAT);
    for (size_t i = 0; i < setup->train; i++) {
        self->distill.order[i] = i;
    }
    mq_status status = MQ_OK;
    for (size_t k = 0; status == MQ_OK && k < self->rule.width_count; k++) {
        status = mq_student_start(&self->student[k], self->rule.widths[k], &self->moving, err);
    }
    for (size_t epoch = 1; status == MQ_OK && epoch <= setup->epochs; epoch++) {
        mq_random_shuffle(&random, self->distill.order, setup->train);
        for (size_t first = 0; status == MQ_OK && first < used; first += batch) {
            status = train_step(self, first, err);
            if (status == MQ_OK) {
                report(self, NULL);
            }
        }
        if (status == MQ_OK) {
            status = judge(self, result, epoch, err);
        }
    }
    return status;
}

static mq_status run(qat *self, mq_qat_result *result, mq_error *err) {
    const mq_refit_setup *setup = &self->distill.setup;
    self->steps = setup->train / self->distill.batch * setup->epochs;
    self->measurings = setup->epochs + 2;
    *result = (mq_qat_result){.tokens = self->steps * self->distill.batch * setup->length};
    mq_status status = mq_distill_teach(&self->distill, err);
    if (status == MQ_OK) {
        status = start(self, err);
    }
    if (status == MQ_OK) {
        status = measure_stored(result->kl_before, self, err);
        result->loss_before = result->loss_after = weighted(self, result->kl_before);
    }
    if (status == MQ_OK) {
        status = train(self, result, err);
    }
    if (status == MQ_OK && result->kept_epoch > 0) {
        status = measure_stored(result->kl_after, self, err);
    } else {
        memcpy(result->kl_after, result->kl_before, sizeof result->kl_after);
    }
    if (status == MQ_OK) {
        char detail[128];
        snprintf(detail, sizeof detail, "weighted KL %.4f -> %.4f nats, %zu codes moved",
                 result->loss_before, result->loss_after, result->moved);
        report(self, detail);
    }
    return status;
}

mq_status mq_qat_run(mq_qat_result *result, const mq_qat_setup *setup, const mq_refit_store *store,
                     const mq_context *context, mq_error *err) {
    qat *self = NULL;
    mq_status status = mq_new(&self, 1, sizeof *self, "--qat", err);
    if (status != MQ_OK) {
        return status;
    }
    *self = qat_for(setup, context);
    self->store = store;
    self->moving = (mq_refit_store){self, moving_codes, stored_pairs, put_pairs, NULL, NULL};
    status = measure_slab(&self->slab, setup, context, err);
    if (status == MQ_OK) {
        status = mq_slab_allocate(&self->slab, "--qat", err);
    }
    if (status == MQ_OK) {
        carve(self, &self->slab);
        status = run(self, result, err);
    }
    mq_slab_free(&self->slab);
    mq_free(self);
    return status;
}
