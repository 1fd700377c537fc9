/* Choosing between float32 and bfloat16 products.
 *
 * Bytes depend on the choice, so it should not depend on chance. A thread's own processor time is
 * measured, which other programs disturb less than the clock; of some repetitions the best; and
 * bfloat16 has to win by a margin. Processors without the instructions are ruled out before. Of
 * those with them, one with AVX512-BF16 (Zen 5) made products 2.1 times as fast as in float32, and
 * twelve measurements while six other processes shared each core said 1.75 to 2.4; AMX makes them
 * about ten times as fast. 1.3 is far from all of these, so that two runs on one machine choose the
 * same. A gain of less would not be worth rounded operands: what is not a product of a linear layer
 * is as slow as before. */
#include "quant/backend.h"

#include <omp.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/random.h"
#include "matquant/names.h"
#include "model/block.h"
#include "tensor/gemm.h"
#include "tensor/panels.h"

/* --- measuring -------------------------------------------------------------------------------- */

#define REPEATS 3

/* The operands of a linear's products over some rows; every thread has results and scratch of its
 * own. */
typedef struct trial {
    size_t rows, out, in, threads;
    float *x, *w, *dy, *result; /* [rows, in], [out, in], [rows, out]; [threads, largest] */
    size_t largest;
    mq_gemm_shape shapes[3]; /* of float32: forward, input gradient, weight gradient */
    /* Of bfloat16, forward alone: x in panels, w packed. */
    mq_panelled panelled;
    mq_bf16 *x_bf16, *w_bf16, *packed;
    mq_products products; /* without gemm: float32 is measured */
} trial;

static void trial_carve(trial *t, mq_slab *slab) {
    t->x = mq_carve(slab, t->rows * t->in, sizeof(float));
    t->w = mq_carve(slab, t->out * t->in, sizeof(float));
    t->dy = mq_carve(slab, t->rows * t->out, sizeof(float));
    t->result = mq_carve(slab, t->threads * t->largest, sizeof(float));
    if (t->products.gemm != NULL) {
        t->x_bf16 = mq_carve(slab, t->rows * t->in, sizeof(mq_bf16));
        t->w_bf16 = mq_carve(slab, t->out * t->in, sizeof(mq_bf16));
        t->packed =
            mq_carve(slab, mq_panelled_size(t->products.gemm, &t->panelled), sizeof(mq_bf16));
        t->products = mq_products_carve(slab, t->products.gemm, t->threads);
    }
}

static void fill(float *values, size_t count, uint64_t stream) {
    mq_random random;
    mq_random_seed(&random, 0, stream);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(mq_random_unit(&random) - 0.5);
    }
}

/* Any numbers will do: x is rounded as it lies. */
static void fill_all(const trial *t) {
    fill(t->x, t->rows * t->in, 0);
    fill(t->w, t->out * t->in, 1);
    fill(t->dy, t->rows * t->out, 2);
    if (t->products.gemm != NULL) {
        mq_bf16_round_all(t->x_bf16, t->x, t->rows * t->in);
        mq_bf16_round_all(t->w_bf16, t->w, t->out * t->in);
        for (size_t j = 0; j < t->panelled.n.count; j++) {
            mq_panelled_pack(t->packed, t->w_bf16, &t->panelled, j, t->rows, &t->products);
        }
    }
}

static double thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void product(const trial *t, size_t kind) {
    const float *a[3] = {t->x, t->dy, t->dy}, *b[3] = {t->w, t->w, t->x};
    float *result = t->result + (size_t)omp_get_thread_num() * t->largest;
    if (t->products.gemm == NULL) {
        mq_gemm(result, a[kind], b[kind], &t->shapes[kind], 1.0F);
        return;
    }
    for (size_t j = 0; j < t->panelled.n.count; j++) {
        mq_panelled_product(result, t->x_bf16, t->rows, 0, t->rows, t->packed, &t->panelled, j,
                            false, &t->products);
    }
}

/* Processor time of one product, in the mean of all threads, which make it at once; the best of
 * REPEATS. */
static double product_seconds(const trial *t, size_t kind, const mq_context *context) {
    double best = 0.0;
    mq_gemm_enter_single();
    for (int r = 0; r < REPEATS; r++) {
        double sum = 0.0;
#pragma omp parallel num_threads((int)t->threads) reduction(+ : sum)
        {
            const double begin = thread_seconds();
            product(t, kind);
            sum = thread_seconds() - begin;
        }
        best = r == 0 || sum < best ? sum : best;
    }
    mq_gemm_leave_single(context);
    return best / (double)t->threads;
}

/* What there is to multiply. gemm NULL: float32. */
static mq_status describe(trial *t, mq_gemm_bf16 *gemm, const mq_config *config, mq_linear linear,
                          size_t tokens, const mq_context *context, mq_error *err) {
    const size_t rows = mq_block_tile_rows(tokens, gemm != NULL);
    *t = (trial){.rows = rows, .threads = mq_context_threads(context), .products = {.gemm = gemm}};
    mq_config_linear_shape(&t->out, &t->in, config, linear);
    const size_t out = t->out, in = t->in;
    t->shapes[0] = (mq_gemm_shape){
        .m = rows, .n = out, .k = in, .lda = in, .ldb = in, .ldc = out, .trans_b = true};
    t->shapes[1] = (mq_gemm_shape){.m = rows, .n = in, .k = out, .lda = out, .ldb = in, .ldc = in};
    t->shapes[2] = (mq_gemm_shape){
        .m = out, .n = in, .k = rows, .lda = out, .ldb = in, .ldc = in, .trans_a = true};
    for (size_t kind = 0; kind < (gemm == NULL ? 3 : 1); kind++) {
        t->largest = mq_larger(t->largest, t->shapes[kind].m * t->shapes[kind].n);
    }
    t->panelled = (mq_panelled){.k = mq_panels_of(in), .n = mq_panels_of(out), .trans_b = true};
    return gemm != NULL ? mq_panelled_prepare(gemm, &t->panelled, rows, err) : MQ_OK;
}

/* Adds one linear's floating-point operations and seconds a thread. */
static mq_status try_linear(double *operations, double *seconds, mq_gemm_bf16 *gemm,
                            const mq_config *config, mq_linear linear, size_t tokens,
                            const mq_context *context, mq_error *err) {
    trial t;
    mq_slab slab = {0};
    mq_status status = describe(&t, gemm, config, linear, tokens, context, err);
    if (status == MQ_OK) {
        trial_carve(&t, &slab);
        status = mq_slab_allocate(&slab, "measuring products", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    trial_carve(&t, &slab);
    fill_all(&t);
    for (size_t kind = 0; kind < (gemm == NULL ? 3 : 1); kind++) {
        *operations += 2.0 * (double)t.rows * (double)t.out * (double)t.in;
        *seconds += product_seconds(&t, kind, context);
    }
    mq_slab_free(&slab);
    return gemm != NULL ? mq_gemm_bf16_check(gemm, err) : MQ_OK;
}

/* GFLOP/s of all threads over products of a square-like and of an oblong layer. */
static mq_status measure_kind(double *rate, mq_gemm_bf16 *gemm, const mq_config *config,
                              size_t tokens, const mq_context *context, mq_error *err) {
    static const mq_linear linears[] = {MQ_Q, MQ_DOWN};
    double operations = 0.0, seconds = 0.0;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof linears / sizeof *linears; i++) {
        status = try_linear(&operations, &seconds, gemm, config, linears[i], tokens, context, err);
    }
    *rate = seconds > 0.0 ? 1e-9 * operations * (double)mq_context_threads(context) / seconds : 0.0;
    return status;
}

/* Of float32 and, if wanted, bfloat16 (else 0), with a gemm of its own, so that what the run keeps
 * does not depend on having measured. */
static mq_status measure(double rate[2], bool bf16, const mq_config *config, size_t tokens,
                         const mq_context *context, mq_error *err) {
    mq_gemm_bf16 *gemm = NULL;
    rate[1] = 0.0;
    mq_status status = measure_kind(&rate[0], NULL, config, tokens, context, err);
    if (status == MQ_OK && bf16) {
        status = mq_gemm_bf16_new(&gemm, mq_context_threads(context), err);
        if (status == MQ_OK) {
            status = measure_kind(&rate[1], gemm, config, tokens, context, err);
        }
        mq_gemm_bf16_free(gemm);
    }
    return status;
}

/* --- choosing --------------------------------------------------------------------------------- */

static mq_status choose(bool *bf16, mq_backend *backend, const mq_quantize_options *options,
                        const mq_config *config, size_t tokens, const mq_context *context,
                        mq_error *err) {
    *bf16 = options->gemm == MQ_GEMM_ONEDNN_BF16;
    backend->automatic = options->gemm == MQ_GEMM_AUTO && mq_gemm_bf16_usable();
    if (!backend->automatic && !options->dry_run) {
        return MQ_OK;
    }
    const bool both = backend->automatic || *bf16;
    const mq_status status = measure(backend->rate, both, config, tokens, context, err);
    if (status == MQ_OK) {
        backend->unmapped = 0;
    }
    if (backend->automatic) {
        *bf16 = status == MQ_OK && backend->rate[1] >= MQ_BACKEND_MARGIN * backend->rate[0];
    }
    return status;
}

double mq_backend_rate(const mq_backend *backend) { return backend->rate[backend->bf16 != NULL]; }

void mq_backend_report(const mq_backend *backend, const mq_context *context) {
    if (backend->automatic) {
        mq_log(context, MQ_LOG_INFO,
               "products: openblas %.0f GFLOP/s, onednn-bf16 %.0f GFLOP/s; --gemm auto takes %s",
               backend->rate[0], backend->rate[1], backend->name);
    }
}

/* The sequences of a full batch and of the last one. */
static mq_status batch_sizes(size_t sequences[2], const mq_quantize_options *options,
                             mq_error *err) {
    const size_t batch = options->batch < options->samples ? options->batch : options->samples;
    size_t largest;
    if (!mq_mul3_size(&largest, batch, options->seq_len, 4096)) {
        return mq_fail(err, MQ_ERR_USAGE, "--batch %zu times --seq-len %zu is too large",
                       options->batch, options->seq_len);
    }
    sequences[0] = batch;
    sequences[1] = options->samples % batch;
    return MQ_OK;
}

mq_status mq_backend_open(mq_backend *backend, const mq_quantize_options *options,
                          const mq_config *config, const mq_context *context, mq_error *err) {
    *backend = (mq_backend){0};
    if (options->recipe == MQ_RECIPE_RTN) {
        return MQ_OK;
    }
    const size_t threads = mq_context_threads(context);
    size_t sequences[2] = {0, 0};
    bool bf16 = false;
    mq_status status = batch_sizes(sequences, options, err);
    if (status == MQ_OK) {
        status = mq_gemm_check_buffers(threads, err);
    }
    if (status == MQ_OK) {
        backend->unmapped = threads * MQ_GEMM_BUFFER_BYTES;
        status =
            choose(&bf16, backend, options, config, sequences[0] * options->seq_len, context, err);
    }
    if (status != MQ_OK || !bf16) {
        backend->name = mq_name_at(mq_gemm_names(), MQ_GEMM_OPENBLAS);
        mq_gemm_describe(backend->kernel, sizeof backend->kernel);
        return status;
    }
    backend->name = mq_name_at(mq_gemm_names(), MQ_GEMM_ONEDNN_BF16);
    mq_gemm_bf16_describe(backend->kernel, sizeof backend->kernel);
    status = mq_gemm_bf16_new(&backend->bf16, threads, err);
    for (size_t i = 0; status == MQ_OK && i < 2 && sequences[i] > 0; i++) {
        status = mq_block_prepare(backend->bf16, config, sequences[i], options->seq_len, true, err);
    }
    return status;
}

void mq_backend_close(mq_backend *backend) {
    mq_gemm_bf16_free(backend->bf16);
    *backend = (mq_backend){0};
}
