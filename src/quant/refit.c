/* The refit of one width after another: batches through the whole model and back, measuring on the
 * validation sequences, keeping the best. */
#include "quant/refit.h"

#include <stdio.h>

#include "base/random.h"
#include "quant/distill.h"

struct mq_refit {
    mq_distill distill;
    mq_student student;
    mq_block_params grads;
    mq_slab slab;
    size_t taken; /* work of the widths that were passed over */
};

/* --- memory ----------------------------------------------------------------------------------- */

/* Rows of linears are taken; with bfloat16 operands they need no room here (mq_block_grads.take).
 */
static void carve_grads(mq_block_params *grads, const mq_refit_setup *setup, mq_slab *slab) {
    const mq_config *config = &setup->model->config;
    if (!mq_distill_rounds_all(setup)) {
        mq_block_params_carve(grads, slab, config);
        return;
    }
    mq_block_params_carve_rest(grads, slab, config);
    float *wanted = mq_carve(slab, 1, sizeof *wanted);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        grads->linear[i] = wanted;
    }
}

static void carve(mq_refit *refit, mq_slab *slab) {
    mq_student_carve(&refit->student, &refit->distill.setup, slab);
    mq_distill_carve(&refit->distill, slab);
    carve_grads(&refit->grads, &refit->distill.setup, slab);
}

mq_status mq_refit_prepare(const mq_refit_setup *setup, mq_error *err) {
    return mq_distill_prepare(setup, err);
}

static mq_status measure_slab(mq_slab *slab, const mq_refit_setup *setup, const mq_context *context,
                              mq_error *err) {
    mq_refit measuring = {.distill = mq_distill_for(setup, 1, context)};
    *slab = (mq_slab){0};
    carve(&measuring, slab);
    return slab->overflow ? mq_fail(err, MQ_ERR_USAGE,
                                    "the memory of the refit overflows; use fewer --refit-tokens "
                                    "or a smaller --refit-batch")
                          : MQ_OK;
}

mq_status mq_refit_memory(size_t *out, const mq_refit_setup *setup, const mq_context *context,
                          mq_error *err) {
    mq_slab slab;
    const mq_status status = measure_slab(&slab, setup, context, err);
    if (status != MQ_OK) {
        return status;
    }
    return mq_add_size(out, slab.used, mq_distill_beside(setup, context))
               ? MQ_OK
               : mq_fail_memory(err, "the refit", SIZE_MAX);
}

mq_status mq_refit_open(mq_refit **out, const mq_refit_setup *setup, const mq_context *context,
                        mq_error *err) {
    mq_refit *refit = NULL;
    mq_status status = mq_new(&refit, 1, sizeof *refit, "the refit", err);
    if (status != MQ_OK) {
        return status;
    }
    *refit = (mq_refit){.distill = mq_distill_for(setup, 1, context)};
    status = measure_slab(&refit->slab, setup, context, err);
    if (status == MQ_OK) {
        status = mq_slab_allocate(&refit->slab, "the refit", err);
    }
    if (status == MQ_OK) {
        carve(refit, &refit->slab);
        status = mq_student_open(&refit->student, &refit->distill.setup, err);
    }
    if (status == MQ_OK) {
        status = mq_distill_teach(&refit->distill, err);
    }
    if (status != MQ_OK) {
        mq_refit_close(refit);
        return status;
    }
    *out = refit;
    return MQ_OK;
}

double mq_refit_epsilon(const mq_refit_setup *setup) {
    return mq_adam_pairs_epsilon(mq_selection_groups(setup->selection, &setup->model->config));
}

const mq_student *mq_refit_student(const mq_refit *refit) { return &refit->student; }

void mq_refit_close(mq_refit *refit) {
    if (refit != NULL) {
        mq_slab_free(&refit->slab);
        mq_free(refit);
    }
}

/* --- a step ----------------------------------------------------------------------------------- */

/* A layer's step: what mq_block_grads.take needs. */
typedef struct layer_step {
    mq_refit *refit;
    size_t layer;
    const mq_adam *adam;
} layer_step;

static void take_rows(void *user, mq_linear linear, size_t first, size_t count, const float *dw) {
    const layer_step *step = user;
    mq_student_step_rows(&step->refit->student, step->layer, linear, first, count, dw,
                         step->refit->distill.codes[linear], step->adam);
}

/* Through the layer; its numbers take their step at once, as soon as a row's gradient is there: no
 * other gradient depends on them any more. */
static mq_status step_block(mq_refit *refit, size_t layer, const mq_adam *adam, mq_error *err) {
    mq_student *student = &refit->student;
    layer_step step = {refit, layer, adam};
    mq_block_grads grads = mq_distill_grads(&refit->distill, &refit->grads, layer);
    grads.take = take_rows;
    grads.user = &step;
    const mq_status status = mq_distill_backward(&grads, &refit->distill, student, 0, layer, err);
    for (int i = 0; status == MQ_OK && i < MQ_NORM_COUNT; i++) {
        if (grads.norm[i] != NULL) {
            mq_student_step_norm(&student->norms[layer][i], grads.norm[i], adam);
        }
    }
    return status;
}

static mq_status train_step(mq_refit *refit, size_t first, const mq_adam *adam, mq_error *err) {
    mq_distill_gather(&refit->distill, first);
    mq_status status = mq_distill_forward(&refit->distill, &refit->student, 0, err);
    if (status == MQ_OK) {
        mq_student_step_norm(&refit->student.final_norm, refit->distill.final_norm, adam);
    }
    for (size_t layer = refit->distill.setup.model->config.num_hidden_layers;
         status == MQ_OK && layer-- > 0;) {
        status = step_block(refit, layer, adam, err);
    }
    return status;
}

/* --- a width ---------------------------------------------------------------------------------- */

typedef struct width_run {
    unsigned width;
    size_t before, after; /* work of the other widths */
    size_t measured;      /* how often the validation sequences were */
    size_t train;         /* sequences */
    double started;
    size_t step, steps;
    double sum;    /* of KL over the epoch's tokens so far, as the steps found it */
    size_t tokens; /* of those */
} width_run;

static void report(const mq_refit *refit, const width_run *run, const char *detail) {
    const size_t work = mq_refit_work(refit, run->width);
    const size_t inside =
        run->step + run->measured * mq_distill_measuring_work(&refit->distill, run->width);
    const mq_progress progress = {.phase = "refit",
                                  .unit = "step",
                                  .done = (double)(run->before + (detail != NULL ? work : inside)),
                                  .total = (double)(run->before + work + run->after),
                                  .elapsed_seconds = mq_seconds() - refit->distill.started,
                                  .detail = detail,
                                  .taken = (double)refit->taken};
    mq_report(refit->distill.context, &progress);
}

static mq_adam adam_at(const mq_refit *refit, const width_run *run) {
    const double rate =
        refit->distill.setup.rate >= 0.0 ? refit->distill.setup.rate : mq_refit_rate(run->width);
    return mq_distill_adam(&refit->distill, rate, 0.0, run->step, run->steps);
}

static mq_status train_epoch(mq_refit *refit, width_run *run, mq_random *random, mq_error *err) {
    mq_random_shuffle(random, refit->distill.order, run->train);
    run->sum = 0.0;
    run->tokens = 0;
    mq_status status = MQ_OK;
    for (size_t first = 0; status == MQ_OK && first < run->train; first += refit->distill.batch) {
        const mq_adam adam = adam_at(refit, run);
        status = train_step(refit, first, &adam, err);
        run->step++;
        const size_t tokens = refit->distill.batch * refit->distill.setup.length;
        for (size_t t = 0; status == MQ_OK && t < tokens; t++) {
            run->sum += (double)refit->distill.kl[t];
        }
        run->tokens += tokens;
        if (status == MQ_OK) {
            report(refit, run, NULL);
        }
    }
    return status;
}

static mq_status train(mq_refit_result *result, mq_refit *refit, width_run *run, mq_error *err) {
    mq_random random;
    mq_random_seed(&random, refit->distill.setup.seed, MQ_STREAM_REFIT + run->width);
    for (size_t i = 0; i < run->train; i++) { /* the last ones: mq_refit_share */
        refit->distill.order[i] = refit->distill.setup.train - run->train + i;
    }
    mq_status status =
        mq_distill_measure(&result->kl_before, &refit->distill, &refit->student, err);
    run->measured++;
    result->kl_after = result->kl_before;
    for (size_t epoch = 1; status == MQ_OK && epoch <= refit->distill.setup.epochs; epoch++) {
        double kl;
        status = train_epoch(refit, run, &random, err);
        if (status == MQ_OK) {
            status = mq_distill_measure(&kl, &refit->distill, &refit->student, err);
            run->measured++;
        }
        if (status == MQ_OK && kl < result->kl_after) { /* false for NaN */
            mq_student_keep(&refit->student);
            result->kl_after = kl;
            result->kept_epoch = epoch;
        }
        if (status == MQ_OK) {
            mq_log(refit->distill.context, MQ_LOG_DEBUG,
                   "refit of int%u: epoch %zu, KL %.5f while training, %.5f after", run->width,
                   epoch, run->sum / (double)run->tokens, kl);
        }
    }
    return status;
}

static size_t step_count(const mq_refit *refit, unsigned width) {
    return mq_refit_share(&refit->distill.setup, width) / refit->distill.batch *
           refit->distill.setup.epochs;
}

size_t mq_refit_work(const mq_refit *refit, unsigned width) {
    return step_count(refit, width) +
           (refit->distill.setup.epochs + 1) * mq_distill_measuring_work(&refit->distill, width);
}

static void report_width(const mq_refit *refit, const width_run *run, const mq_refit_result *result,
                         const char *how) {
    char detail[128];
    snprintf(detail, sizeof detail, "int%u%s  KL %.4f -> %.4f nats", run->width, how,
             result->kl_before, result->kl_after);
    report(refit, run, detail);
}

mq_status mq_refit_width(mq_refit_result *result, mq_refit *refit, unsigned width,
                         const mq_refit_store *store, size_t before, size_t after, mq_error *err) {
    const mq_refit_setup *setup = &refit->distill.setup;
    width_run run = {.width = width,
                     .before = before,
                     .after = after,
                     .started = mq_seconds(),
                     .train = mq_refit_share(&refit->distill.setup, width)};
    run.steps = step_count(refit, width);
    *result = (mq_refit_result){.tokens = run.steps * refit->distill.batch * setup->length};
    mq_status status = mq_student_start(&refit->student, width, store, err);
    if (status == MQ_OK) {
        status = train(result, refit, &run, err);
    }
    if (status == MQ_OK) {
        status = mq_student_put(&refit->student, err);
    }
    if (status == MQ_OK) {
        result->seconds = mq_seconds() - run.started;
        report_width(refit, &run, result, "");
    }
    return status;
}

void mq_refit_pass_over(mq_refit *refit, const mq_refit_result *result, unsigned width,
                        size_t before, size_t after) {
    const width_run run = {.width = width, .before = before, .after = after};
    refit->taken += mq_refit_work(refit, width);
    report_width(refit, &run, result, ", refitted before");
}
