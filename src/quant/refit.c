/* The refit of one width after another: batches through the whole model and back, measuring on the
 * validation sequences, keeping the best. */
#include "quant/refit.h"

#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "model/head_gradient.h"
#include "quant/refit_student.h"

struct mq_refit {
    mq_refit_setup setup;
    const mq_context *context;
    size_t batch; /* sequences a step */
    mq_student student;

    float *teacher_hidden; /* [train + validation, length, hidden_size]: of the last block */
    float *hidden;         /* [validation, length, hidden_size]: the student's */
    float *kl;             /* [the larger of validation and batch, length] */
    float *boundary;       /* [layers + 1, batch·length, hidden_size]: what enters each block */
    float *gradient[2];    /* [batch·length, hidden_size] */
    mq_block_params params, grads;
    mq_bf16 *rounded[MQ_LINEAR_COUNT]; /* params.linear, for products of bfloat16 operands */
    uint8_t *codes[MQ_LINEAR_COUNT];   /* of one block */
    float *final_norm;                 /* [hidden_size]: gradient */
    mq_activations *activations;
    mq_head_gradient *head;
    float *cos_table[2], *sin_table[2]; /* [length, head_dim/2] for each rotary kind */
    double started;                     /* mq_seconds of the opening, for progress */
    size_t *order;                      /* [train]: sequences in the order of the epoch */
    int32_t *ids;                       /* [batch, length] */
    float *targets; /* [batch·length, hidden_size]: the teacher's, in that order */
    mq_slab slab;
};

/* --- memory ----------------------------------------------------------------------------------- */

static void carve_block(mq_refit *refit, mq_slab *slab) {
    const mq_config *config = &refit->setup.model->config;
    mq_block_params_carve(&refit->params, slab, config);
    mq_block_params_carve(&refit->grads, slab, config);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        refit->codes[i] = mq_carve(slab, out, in);
        if (refit->setup.gemm != NULL) {
            refit->rounded[i] = mq_carve(slab, out, in * sizeof(mq_bf16));
        }
    }
    for (size_t i = 0; i < 2; i++) {
        const size_t row = config->head_dim / 2 * sizeof(float);
        refit->cos_table[i] = mq_carve(slab, refit->setup.length, row);
        refit->sin_table[i] = mq_carve(slab, refit->setup.length, row);
    }
}

static void carve(mq_refit *refit, mq_slab *slab) {
    const mq_refit_setup *setup = &refit->setup;
    const mq_config *config = &setup->model->config;
    const size_t row = config->hidden_size * sizeof(float);
    size_t all, measured, step, boundaries;
    if (!mq_mul_size(&all, setup->train + setup->validation, setup->length) ||
        !mq_mul_size(&measured, setup->validation, setup->length) ||
        !mq_mul_size(&step, refit->batch, setup->length) ||
        !mq_mul_size(&boundaries, step, config->num_hidden_layers + 1)) {
        slab->overflow = true;
        return;
    }
    mq_student_carve(&refit->student, setup, slab);
    refit->teacher_hidden = mq_carve(slab, all, row);
    refit->hidden = mq_carve(slab, measured, row);
    refit->kl = mq_carve(slab, measured > step ? measured : step, sizeof(float));
    refit->boundary = mq_carve(slab, boundaries, row);
    refit->gradient[0] = mq_carve(slab, step, row);
    refit->gradient[1] = mq_carve(slab, step, row);
    refit->targets = mq_carve(slab, step, row);
    refit->ids = mq_carve(slab, step, sizeof(int32_t));
    refit->order = mq_carve(slab, setup->train, sizeof(size_t));
    refit->final_norm = mq_carve(slab, 1, row);
    carve_block(refit, slab);
    refit->activations = mq_activations_carve_bf16(slab, config, refit->batch, setup->length, true,
                                                   setup->gemm, refit->context);
    refit->head = mq_head_gradient_carve(slab, config, step, setup->gemm, refit->context);
}

size_t mq_refit_batch(const mq_refit_setup *setup) {
    return setup->batch < setup->train ? setup->batch : setup->train;
}

mq_status mq_refit_prepare(const mq_refit_setup *setup, mq_error *err) {
    if (setup->gemm == NULL) {
        return MQ_OK;
    }
    const mq_config *config = &setup->model->config;
    const size_t tokens = mq_refit_batch(setup) * setup->length;
    const mq_status status = mq_block_prepare(setup->gemm, config, tokens, true, err);
    return status == MQ_OK ? mq_head_gradient_prepare(setup->gemm, config, tokens, err) : status;
}

static mq_refit refit_for(const mq_refit_setup *setup, const mq_context *context) {
    return (mq_refit){.setup = *setup, .context = context, .batch = mq_refit_batch(setup)};
}

static mq_status measure_slab(mq_slab *slab, const mq_refit_setup *setup, const mq_context *context,
                              mq_error *err) {
    mq_refit measuring = refit_for(setup, context);
    *slab = (mq_slab){0};
    carve(&measuring, slab);
    return slab->overflow ? mq_fail(err, MQ_ERR_USAGE,
                                    "the memory of the refit overflows; use fewer --refit-tokens "
                                    "or a smaller --refit-batch")
                          : MQ_OK;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

mq_status mq_refit_memory(size_t *out, const mq_refit_setup *setup, const mq_context *context,
                          mq_error *err) {
    const mq_config *config = &setup->model->config;
    mq_slab slab;
    const mq_status status = measure_slab(&slab, setup, context, err);
    if (status != MQ_OK) {
        return status;
    }
    /* Beside the slab: full precision's pass over all sequences, the student's over those of the
     * validation, and their head. */
    const size_t all = setup->train + setup->validation;
    const size_t full =
        mq_model_forward_memory(config, all, setup->length, setup->pass_batch, context);
    const size_t student = mq_model_forward_memory(config, setup->validation, setup->length,
                                                   setup->pass_batch, context) +
                           mq_student_read_memory(config);
    const size_t head = mq_head_memory(config, setup->validation * setup->length);
    const size_t beside = larger(full, larger(student, head));
    return mq_add_size(out, slab.used, beside) ? MQ_OK : mq_fail_memory(err, "the refit", SIZE_MAX);
}

mq_status mq_refit_open(mq_refit **out, const mq_refit_setup *setup, const mq_context *context,
                        mq_error *err) {
    const mq_config *config = &setup->model->config;
    mq_refit *refit = NULL;
    mq_status status = mq_new(&refit, 1, sizeof *refit, "the refit", err);
    if (status != MQ_OK) {
        return status;
    }
    *refit = refit_for(setup, context);
    status = measure_slab(&refit->slab, setup, context, err);
    if (status == MQ_OK) {
        status = mq_slab_allocate(&refit->slab, "the refit", err);
    }
    if (status == MQ_OK) {
        carve(refit, &refit->slab);
        status = mq_student_open(&refit->student, &refit->setup, err);
    }
    if (status == MQ_OK) {
        for (size_t i = 0; i < 2; i++) {
            mq_rope_tables(refit->cos_table[i], refit->sin_table[i], &config->rope[i], config,
                           setup->length);
        }
        status = mq_model_forward(refit->teacher_hidden, setup->model, setup->ids,
                                  setup->train + setup->validation, setup->length,
                                  setup->pass_batch, "full precision", context, err);
    }
    if (status != MQ_OK) {
        mq_refit_close(refit);
        return status;
    }
    refit->started = mq_seconds();
    *out = refit;
    return MQ_OK;
}

const mq_student *mq_refit_student(const mq_refit *refit) { return &refit->student; }

void mq_refit_close(mq_refit *refit) {
    if (refit != NULL) {
        mq_slab_free(&refit->slab);
        mq_free(refit);
    }
}

/* --- measuring -------------------------------------------------------------------------------- */

/* Mean KL of the validation sequences, with the student's numbers as they would be stored. */
static mq_status validate(double *kl, mq_refit *refit, mq_error *err) {
    const mq_refit_setup *setup = &refit->setup;
    const size_t at = setup->train * setup->length, tokens = setup->validation * setup->length;
    mq_context quiet = {.threads = mq_context_threads(refit->context)};
    if (refit->context != NULL) {
        quiet.options.interrupted = refit->context->options.interrupted;
    }
    refit->student.rounded = true;
    mq_status status =
        mq_model_forward(refit->hidden, &refit->student.model, setup->ids + at, setup->validation,
                         setup->length, setup->pass_batch, "refit", &quiet, err);
    if (status == MQ_OK) {
        status = mq_head_compare(NULL, refit->kl, NULL, &refit->student.model, refit->hidden,
                                 setup->model,
                                 refit->teacher_hidden + at * setup->model->config.hidden_size,
                                 NULL, tokens, &quiet, err);
    }
    refit->student.rounded = false;
    double sum = 0.0;
    for (size_t t = 0; status == MQ_OK && t < tokens; t++) {
        sum += (double)refit->kl[t];
    }
    *kl = sum / (double)tokens;
    return status;
}

/* --- a step ----------------------------------------------------------------------------------- */

/* The sequences from `first` on in the order of the epoch, a step's. */
static void gather(mq_refit *refit, size_t first) {
    const mq_refit_setup *setup = &refit->setup;
    const size_t length = setup->length, row = length * setup->model->config.hidden_size;
    for (size_t i = 0; i < refit->batch; i++) {
        const size_t sequence = refit->order[first + i];
        memcpy(refit->ids + i * length, setup->ids + sequence * length, length * sizeof(int32_t));
        memcpy(refit->targets + i * row, refit->teacher_hidden + sequence * row,
               row * sizeof(float));
    }
}

static mq_block_shape shape_of(const mq_refit *refit, size_t layer) {
    const mq_config *config = &refit->setup.model->config;
    const size_t rope = config->layer_is_local != NULL && config->layer_is_local[layer] ? 1 : 0;
    return (mq_block_shape){.config = config,
                            .layer = layer,
                            .sequences = refit->batch,
                            .length = refit->setup.length,
                            .cos_table = refit->cos_table[rope],
                            .sin_table = refit->sin_table[rope]};
}

static float *boundary_of(const mq_refit *refit, size_t layer) {
    return refit->boundary +
           layer * refit->batch * refit->setup.length * refit->setup.model->config.hidden_size;
}

/* A wide width's codes are finer than bfloat16 is. */
static bool is_wide(unsigned width) { return width >= 6; }

static bool wants_bf16(const mq_refit *refit) {
    return refit->setup.gemm != NULL && !is_wide(refit->student.width);
}

/* The layer's weights as products want them. */
static mq_block_weights weights_of(const mq_refit *refit) {
    mq_block_weights weights = mq_block_params_view(&refit->params);
    for (int i = 0; wants_bf16(refit) && i < MQ_LINEAR_COUNT; i++) {
        weights.linear_bf16[i] = refit->rounded[i];
    }
    return weights;
}

static void round_weights(mq_refit *refit) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &refit->setup.model->config, (mq_linear)i);
#pragma omp parallel for schedule(static)
        for (size_t row = 0; row < out; row++) {
            mq_bf16_round_all(refit->rounded[i] + row * in, refit->params.linear[i] + row * in, in);
        }
    }
}

static mq_status forward(mq_refit *refit, size_t layer, mq_error *err) {
    const mq_status status =
        mq_student_load(&refit->params, refit->codes, &refit->student, layer, err);
    if (status != MQ_OK) {
        return status;
    }
    if (wants_bf16(refit)) {
        round_weights(refit);
    }
    const mq_block_weights weights = weights_of(refit);
    const mq_block_shape shape = shape_of(refit, layer);
    mq_block_forward(boundary_of(refit, layer + 1), boundary_of(refit, layer), &weights, &shape,
                     refit->activations, refit->context);
    return MQ_OK;
}

/* Through the layer, whose activations are there; its numbers take their step at once: no other
 * block's gradient depends on them any more. */
static void backward(mq_refit *refit, size_t layer, const mq_adam *adam) {
    mq_student *student = &refit->student;
    const mq_block_weights weights = weights_of(refit);
    const mq_block_shape shape = shape_of(refit, layer);
    mq_block_grads grads = {.input = layer > 0 ? refit->gradient[1] : NULL};
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        grads.linear[i] = student->pairs[layer][i].groups > 0 ? refit->grads.linear[i] : NULL;
    }
    for (int i = 0; i < MQ_NORM_COUNT; i++) {
        grads.norm[i] = refit->grads.norm[i];
    }
    mq_block_backward(&grads, refit->gradient[0], boundary_of(refit, layer), &weights, &shape,
                      refit->activations, refit->context);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (grads.linear[i] != NULL) {
            mq_student_step_pairs(student, layer, (mq_linear)i, grads.linear[i], refit->codes[i],
                                  adam);
        }
    }
    for (int i = 0; i < MQ_NORM_COUNT; i++) {
        if (grads.norm[i] != NULL) {
            mq_student_step_norm(&student->norms[layer][i], grads.norm[i], adam);
        }
    }
    float *next = refit->gradient[0];
    refit->gradient[0] = refit->gradient[1];
    refit->gradient[1] = next;
}

static mq_status step_forward(mq_refit *refit, size_t tokens, mq_error *err) {
    const mq_refit_setup *setup = &refit->setup;
    const size_t layers = setup->model->config.num_hidden_layers;
    mq_status status =
        mq_model_embed(boundary_of(refit, 0), &refit->student.model, refit->ids, tokens, err);
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = mq_check_interrupt(refit->context, err);
        if (status == MQ_OK) {
            status = forward(refit, layer, err);
        }
    }
    return status;
}

static mq_status train_step(mq_refit *refit, size_t first, const mq_adam *adam, mq_error *err) {
    const mq_refit_setup *setup = &refit->setup;
    const size_t layers = setup->model->config.num_hidden_layers;
    const size_t tokens = refit->batch * setup->length;
    gather(refit, first);
    mq_status status = step_forward(refit, tokens, err);
    if (status == MQ_OK) {
        const bool same_head = setup->embeddings[refit->student.width] == NULL;
        status = mq_head_kl_gradient(refit->kl, refit->gradient[0], refit->final_norm,
                                     same_head ? setup->model : &refit->student.model, setup->model,
                                     refit->targets, refit->student.final_norm.value,
                                     boundary_of(refit, layers), tokens, 1.0f / (float)tokens,
                                     wants_bf16(refit) ? setup->gemm : NULL, refit->head,
                                     refit->context, err);
    }
    if (status == MQ_OK) {
        mq_student_step_norm(&refit->student.final_norm, refit->final_norm, adam);
    }
    for (size_t layer = layers; status == MQ_OK && layer-- > 0;) {
        status = mq_check_interrupt(refit->context, err);
        if (status == MQ_OK &&
            layer + 1 < layers) { /* the last one's activations are still there */
            status = forward(refit, layer, err);
        }
        if (status == MQ_OK) {
            backward(refit, layer, adam);
        }
    }
    return status == MQ_OK && setup->gemm != NULL ? mq_gemm_bf16_check(setup->gemm, err) : status;
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

/* Measuring a sequence is one of the four passes that training on it is: forward to the boundaries,
 * forward again inside the blocks, and backward, which is two. Never 0: while the last step is done
 * and the last measuring is not, the job is not. */
static size_t measuring_work(const mq_refit *refit) {
    const size_t work = refit->setup.validation / (4 * refit->batch);
    return work > 0 ? work : 1;
}

static void report(const mq_refit *refit, const width_run *run, const char *detail) {
    const size_t work = mq_refit_work(refit, run->width);
    const size_t inside = run->step + run->measured * measuring_work(refit);
    const mq_progress progress = {.phase = "refit",
                                  .unit = "step",
                                  .done = (double)(run->before + (detail != NULL ? work : inside)),
                                  .total = (double)(run->before + work + run->after),
                                  .elapsed_seconds = mq_seconds() - refit->started,
                                  .detail = detail};
    mq_report(refit->context, &progress);
}

static mq_adam adam_at(const mq_refit *refit, const width_run *run) {
    const double rate = refit->setup.rate >= 0.0 ? refit->setup.rate : mq_refit_rate(run->width);
    mq_adam adam = mq_adam_at((float)rate, 0.0f, run->step, run->steps);
    if (run->step < MQ_REFIT_WARMUP) {
        adam.rate_group *= (float)(run->step + 1) / (float)MQ_REFIT_WARMUP;
    }
    return adam;
}

static mq_status train_epoch(mq_refit *refit, width_run *run, mq_random *random, mq_error *err) {
    mq_random_shuffle(random, refit->order, run->train);
    run->sum = 0.0;
    run->tokens = 0;
    mq_status status = MQ_OK;
    for (size_t first = 0; status == MQ_OK && first < run->train; first += refit->batch) {
        const mq_adam adam = adam_at(refit, run);
        status = train_step(refit, first, &adam, err);
        run->step++;
        const size_t tokens = refit->batch * refit->setup.length;
        for (size_t t = 0; status == MQ_OK && t < tokens; t++) {
            run->sum += (double)refit->kl[t];
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
    mq_random_seed(&random, refit->setup.seed, 0x7265666974ULL + run->width); /* "refit" */
    for (size_t i = 0; i < run->train; i++) {
        refit->order[i] = i;
    }
    mq_status status = validate(&result->kl_before, refit, err);
    run->measured++;
    result->kl_after = result->kl_before;
    for (size_t epoch = 1; status == MQ_OK && epoch <= refit->setup.epochs; epoch++) {
        double kl;
        status = train_epoch(refit, run, &random, err);
        if (status == MQ_OK) {
            status = validate(&kl, refit, err);
            run->measured++;
        }
        if (status == MQ_OK && kl < result->kl_after) { /* false for NaN */
            mq_student_keep(&refit->student);
            result->kl_after = kl;
            result->kept_epoch = epoch;
        }
        if (status == MQ_OK) {
            mq_log(refit->context, MQ_LOG_DEBUG,
                   "refit of int%u: epoch %zu, KL %.5f while training, %.5f after", run->width,
                   epoch, run->sum / (double)run->tokens, kl);
        }
    }
    return status;
}

/* A wide width has little to gain (SmolLM2's int8: KL 0.0055, and so it stayed), and a step of it
 * costs as much as another's: it is shown a third of the sequences. Whole steps only. */
static size_t train_share(const mq_refit *refit, unsigned width) {
    const size_t share = is_wide(width) ? refit->setup.train / 3 : refit->setup.train;
    const size_t steps = share / refit->batch;
    return refit->batch * (steps > 1 ? steps : 1);
}

static size_t step_count(const mq_refit *refit, unsigned width) {
    return train_share(refit, width) / refit->batch * refit->setup.epochs;
}

size_t mq_refit_work(const mq_refit *refit, unsigned width) {
    return step_count(refit, width) + (refit->setup.epochs + 1) * measuring_work(refit);
}

mq_status mq_refit_width(mq_refit_result *result, mq_refit *refit, unsigned width,
                         const mq_refit_store *store, size_t before, size_t after, mq_error *err) {
    const mq_refit_setup *setup = &refit->setup;
    width_run run = {.width = width,
                     .before = before,
                     .after = after,
                     .started = mq_seconds(),
                     .train = train_share(refit, width)};
    run.steps = step_count(refit, width);
    *result = (mq_refit_result){.tokens = run.steps * refit->batch * setup->length};
    mq_status status = mq_student_start(&refit->student, width, store, err);
    if (status == MQ_OK) {
        status = train(result, refit, &run, err);
    }
    if (status == MQ_OK) {
        status = mq_student_put(&refit->student, err);
    }
    if (status == MQ_OK) {
        char detail[128];
        snprintf(detail, sizeof detail, "int%u  KL %.4f -> %.4f nats", width, result->kl_before,
                 result->kl_after);
        result->seconds = mq_seconds() - run.started;
        report(refit, &run, detail);
    }
    return status;
}
