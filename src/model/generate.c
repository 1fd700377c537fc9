/* Sampling with a cache of keys and values. Sequences go in batches of fixed size, a token of each
 * in a step. All threads work on the same step: the weights, which a step reads whole, pass through
 * memory once for the batch, and there is one cache however many threads there are. Each sequence
 * has its own random numbers, and shapes of products do not depend on threads, so what is sampled
 * does not, either. */
#include "model/generate.h"

#include <math.h>

#include "base/error.h"
#include "model/generator.h"
#include "tensor/gemm.h"

/* --- sampling -------------------------------------------------------------------------------- */

/* The token whose interval of the cumulative distribution `point` (in 0 … Σ) falls in. p[vocab]. */
static size_t locate(const float *p, const float *chunk_sums, size_t vocab, double point) {
    size_t chunk = 0, chosen = 0;
    while ((chunk + 1) * MQ_GENERATOR_CHUNK < vocab && point >= (double)chunk_sums[chunk]) {
        point -= (double)chunk_sums[chunk++];
    }
    /* Where rounding leaves a rest beyond the chunk's end, its last token with any probability. */
    const size_t end = mq_smaller(vocab, (chunk + 1) * MQ_GENERATOR_CHUNK);
    for (size_t i = chunk * MQ_GENERATOR_CHUNK; i < end; i++) {
        if (p[i] > 0.0F) {
            chosen = i;
            if (point < (double)p[i]) {
                break;
            }
            point -= (double)p[i];
        }
    }
    return chosen;
}

/* Draws the next token of the batch's sequence b; false when the logits are no numbers. */
static bool sample(mq_generator *g, size_t b, float inverse_temperature) {
    const mq_config *config = &g->model->config;
    const size_t vocab = config->vocab_size;
    float *logits = g->logits + b * vocab,
          *chunk_sums = g->chunk_sums + b * mq_generator_chunks(config);
    g->head_kernels->finish(logits, vocab, (float)(1.0 / config->logits_scaling),
                            (float)config->final_logit_softcapping);
    const float max = g->head_kernels->largest(logits, vocab);
    double total = 0.0;
    for (size_t first = 0; first < vocab; first += MQ_GENERATOR_CHUNK) {
        float *p = logits + first;
        const float sum = g->head_kernels->exponentials(
            p, p, mq_smaller(MQ_GENERATOR_CHUNK, vocab - first), max, inverse_temperature);
        chunk_sums[first / MQ_GENERATOR_CHUNK] = sum;
        total += (double)sum;
    }
    if (!isfinite(total)) {
        return false;
    }
    const double point = mq_random_unit(&g->random[b]) * total;
    g->tokens[b] = (int32_t)locate(logits, chunk_sums, vocab, point);
    return true;
}

static mq_status sample_all(mq_generator *g, size_t rows, double temperature, mq_error *err) {
    bool finite = true;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)g->threads) reduction(&& : finite)
    for (size_t b = 0; b < rows; b++) {
        finite = sample(g, b, (float)(1.0 / temperature)) && finite;
    }
    return finite ? MQ_OK
                  : mq_fail_file(err, MQ_ERR_INPUT, g->model->folder,
                                 "the model's logits are not finite");
}

/* --- all sequences --------------------------------------------------------------------------- */

typedef struct job {
    const mq_generate_setup *setup;
    const mq_context *context;
    double begin;
} job;

static void report(const job *j, size_t done) {
    const mq_progress progress = {
        .phase = "generate",
        .unit = "token",
        .done = (double)done,
        .total = (double)j->setup->sequences * (double)j->setup->length,
        .elapsed_seconds = mq_seconds() - j->begin,
    };
    mq_report(j->context, &progress);
}

/* The tokens after `position` in ids[rows, length]: sampled, unless they are given. */
static mq_status next_tokens(int32_t *ids, mq_generator *g, const job *j, size_t position,
                             size_t rows, mq_error *err) {
    const bool sampled = position + 1 >= j->setup->given;
    mq_status status = mq_check_interrupt(j->context, err);
    for (size_t b = 0; b < rows; b++) {
        g->tokens[b] = ids[b * j->setup->length + position];
    }
    if (status == MQ_OK) {
        status = mq_generator_step(g, position, rows, sampled, err);
    }
    if (status == MQ_OK && sampled) {
        status = sample_all(g, rows, j->setup->temperature, err);
    }
    for (size_t b = 0; status == MQ_OK && sampled && b < rows; b++) {
        ids[b * j->setup->length + position + 1] = g->tokens[b];
    }
    return status;
}

/* ids[rows, length], the sequences from `first` on. */
static mq_status run_batch(int32_t *ids, mq_generator *g, const job *j, size_t first, size_t rows,
                           mq_error *err) {
    for (size_t b = 0; b < rows; b++) {
        mq_random_seed(&g->random[b], j->setup->seed, MQ_STREAM_SAMPLE + first + b);
    }
    for (size_t position = 0; position + 1 < j->setup->length; position++) {
        const mq_status status = next_tokens(ids, g, j, position, rows, err);
        if (status != MQ_OK) {
            return status;
        }
        report(j, first * j->setup->length + (position + 1) * rows);
    }
    return MQ_OK;
}

mq_status mq_generate_first(int32_t *ids, const mq_generate_setup *setup, int32_t first_id,
                            mq_error *err) {
    const size_t vocab = setup->model->config.vocab_size;
    if (first_id >= 0 && (size_t)first_id >= vocab) {
        return mq_fail_file(err, MQ_ERR_INPUT, setup->model->folder,
                            "token id %d is not below vocab_size %zu", (int)first_id, vocab);
    }
    for (size_t i = 0; i < setup->sequences && setup->length > 0; i++) {
        mq_random random;
        mq_random_seed(&random, setup->seed, MQ_STREAM_FIRST(i));
        ids[i * setup->length] =
            first_id >= 0 ? first_id : (int32_t)mq_random_below(&random, vocab);
    }
    return MQ_OK;
}

mq_status mq_generate(int32_t *ids, const mq_generate_setup *setup, const mq_context *context,
                      mq_error *err) {
    if (!(setup->temperature > 0.0) || !isfinite(setup->temperature)) {
        return mq_fail(err, MQ_ERR_USAGE, "the temperature is %g, but must be positive",
                       setup->temperature);
    }
    if (setup->given == 0 || setup->given > setup->length) {
        return mq_fail(err, MQ_ERR_USAGE, "%zu tokens of %zu are given", setup->given,
                       setup->length);
    }
    if (setup->sequences == 0 || setup->given == setup->length) {
        return MQ_OK;
    }
    mq_generator g;
    mq_status status = mq_generator_open(&g, setup, err);
    if (status != MQ_OK) {
        return status;
    }
    const job j = {.setup = setup, .context = context, .begin = mq_seconds()};
    mq_gemm_enter_single();
    for (size_t first = 0; status == MQ_OK && first < setup->sequences; first += g.batch) {
        status = run_batch(ids + first * setup->length, &g, &j, first,
                           mq_smaller(g.batch, setup->sequences - first), err);
    }
    mq_gemm_leave_single(context);
    if (status == MQ_OK && setup->gemm != NULL) {
        status = mq_gemm_bf16_check(setup->gemm, err);
    }
    if (status == MQ_OK) {
        report(&j, setup->sequences * setup->length);
    }
    mq_generator_close(&g);
    return status;
}
