/* The bare library's time for the products of a block's linear layers, for bench_learn: each by one
 * call of cblas_sgemm that the library spreads over its threads, by one single-threaded call for
 * each thread, and by one of oneDNN in bfloat16 for each thread. */
#ifndef MQ_BENCH_BARE_PRODUCTS_H
#define MQ_BENCH_BARE_PRODUCTS_H

#include <cblas.h>

#include "base/alloc.h"
#include "learn_timers.h"
#include "tensor/bf16.h"

typedef enum direction { FORWARD, INPUT_GRAD, WEIGHT_GRAD, DIRECTIONS } direction;

/* Best seconds so far of every product over `tokens` tokens; 0: not measured. */
typedef struct bare {
    const mq_config *config;
    size_t tokens, threads;
    bool bf16; /* measured as well */
    double by_library[MQ_LINEAR_COUNT][DIRECTIONS], by_threads[MQ_LINEAR_COUNT][DIRECTIONS];
    double by_bf16[MQ_LINEAR_COUNT][DIRECTIONS];
} bare;

/* Operands of any product of the block, x[tokens, in], w[out, in] and y[tokens, out], and room for
 * its result. */
typedef struct operands {
    float *x, *w, *y, *result;
    size_t tokens, out, in;
} operands;

/* Rows [first, first + count) of the product's result. */
static void product_rows(const operands *o, direction which, size_t first, size_t count) {
    const int tokens = (int)o->tokens, out = (int)o->out, in = (int)o->in, rows = (int)count;
    if (rows == 0) {
        return;
    }
    if (which == FORWARD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1, o->x + first * o->in,
                    in, o->w, in, 0, o->result + first * o->out, out);
    } else if (which == INPUT_GRAD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in, out, 1,
                    o->y + first * o->out, out, o->w, in, 0, o->result + first * o->in, in);
    } else {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, in, tokens, 1, o->y + first, out,
                    o->x, in, 0, o->result + first * o->in, in);
    }
}

static void product_by_threads(const operands *o, direction which, size_t threads) {
    const size_t rows = which == WEIGHT_GRAD ? o->out : o->tokens;
    openblas_set_num_threads(1);
#pragma omp parallel for num_threads((int)threads)
    for (size_t i = 0; i < threads; i++) {
        const size_t first = rows * i / threads;
        product_rows(o, which, first, rows * (i + 1) / threads - first);
    }
    openblas_set_num_threads((int)threads);
}

static void keep_least(double *best, double seconds) {
    *best = *best == 0.0 || seconds < *best ? seconds : *best;
}

static float *some_numbers(size_t count) {
    float *numbers = mq_alloc(count, sizeof *numbers);
    for (size_t i = 0; numbers && i < count; i++) {
        numbers[i] = (float)(i % 251) / 251.0F - 0.5F;
    }
    return numbers;
}

/* So many times at least, and so long that a moment's disturbance is not all there is. */
#define LEAST_SECONDS 0.1

static void time_product(bare *b, const operands *o, mq_linear linear, direction which,
                         size_t repeats) {
    const double start = mq_seconds();
    for (size_t r = 0; r < repeats || (repeats > 1 && mq_seconds() - start < LEAST_SECONDS); r++) {
        double begin = seconds_now();
        product_rows(o, which, 0, which == WEIGHT_GRAD ? o->out : o->tokens);
        keep_least(&b->by_library[linear][which], seconds_now() - begin);
        begin = seconds_now();
        product_by_threads(o, which, b->threads);
        keep_least(&b->by_threads[linear][which], seconds_now() - begin);
    }
}

/* --- the bare library in bfloat16 ------------------------------------------------------------- */

/* What thread i of `threads` multiplies, as a shape and where in its operands it begins. */
typedef struct share {
    mq_gemm_shape shape;
    const mq_bf16 *a, *b;
    float *c;
} share;

static share share_of(const operands *o, const mq_bf16 *numbers, direction which, size_t i,
                      size_t threads) {
    const size_t rows = which == WEIGHT_GRAD ? o->out : o->tokens;
    const size_t first = rows * i / threads, m = rows * (i + 1) / threads - first;
    const size_t out = o->out, in = o->in;
    if (which == FORWARD) {
        return (share){{m, out, in, in, in, out, false, true, false, false},
                       numbers + first * in,
                       numbers,
                       o->result + first * out};
    }
    if (which == INPUT_GRAD) {
        return (share){{m, in, out, out, in, in, false, false, false, false},
                       numbers + first * out,
                       numbers,
                       o->result + first * in};
    }
    return (share){{m, in, o->tokens, out, in, in, true, false, false, false},
                   numbers + first,
                   numbers,
                   o->result + first * in};
}

static void run_shares(const mq_gemm_bf16 *gemm, const operands *o, const mq_bf16 *numbers,
                       direction which, size_t threads, unsigned char *scratch, size_t size) {
#pragma omp parallel for num_threads((int)threads)
    for (size_t i = 0; i < threads; i++) {
        const share part = share_of(o, numbers, which, i, threads);
        if (part.shape.m > 0) {
            mq_gemm_bf16_run(part.c, part.a, part.b, &part.shape, gemm, scratch + i * size);
        }
    }
}

/* Any numbers will do as any operand: `numbers` are as many as the largest has. */
static mq_status time_bf16(bare *b, const operands *o, const mq_bf16 *numbers, mq_linear linear,
                           size_t repeats, mq_error *err) {
    const size_t threads = b->threads;
    mq_gemm_bf16 *gemm = NULL;
    mq_status status = mq_gemm_bf16_new(&gemm, threads, err);
    for (direction which = 0; which < DIRECTIONS; which++) {
        for (size_t i = 0; status == MQ_OK && i < threads; i++) {
            const share part = share_of(o, numbers, which, i, threads);
            status = part.shape.m > 0 ? mq_gemm_bf16_prepare(gemm, &part.shape, err) : MQ_OK;
        }
    }
    const size_t size = mq_gemm_bf16_scratch(gemm);
    unsigned char *scratch = NULL;
    if (status == MQ_OK) {
        status = mq_new(&scratch, threads, size, "scratch of products", err);
    }
    for (direction which = 0; status == MQ_OK && which < DIRECTIONS; which++) {
        const double start = mq_seconds();
        for (size_t r = 0; r < repeats || (repeats > 1 && mq_seconds() - start < LEAST_SECONDS);
             r++) {
            const double begin = seconds_now();
            run_shares(gemm, o, numbers, which, threads, scratch, size);
            keep_least(&b->by_bf16[linear][which], seconds_now() - begin);
        }
    }
    if (status == MQ_OK) {
        status = mq_gemm_bf16_check(gemm, err);
    }
    mq_free(scratch);
    mq_gemm_bf16_free(gemm);
    return status;
}

static mq_bf16 *some_rounded(size_t count) {
    mq_bf16 *numbers = mq_alloc(count, sizeof *numbers);
    for (size_t i = 0; numbers && i < count; i++) {
        numbers[i] = mq_bf16_round((float)(i % 251) / 251.0F - 0.5F);
    }
    return numbers;
}

/* --- both ------------------------------------------------------------------------------------- */

static mq_status time_linears(bare *b, operands *o, const mq_bf16 *rounded, size_t repeats,
                              mq_error *err) {
    mq_status status = MQ_OK;
    for (mq_linear linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        mq_config_linear_shape(&o->out, &o->in, b->config, linear);
        for (direction which = 0; which < DIRECTIONS; which++) {
            time_product(b, o, linear, which, repeats);
        }
        if (b->bf16) {
            status = time_bf16(b, o, rounded, linear, repeats, err);
        }
    }
    return status;
}

/* Every product `repeats` times in every way. */
static mq_status time_products(bare *b, size_t repeats, mq_error *err) {
    const size_t tokens = b->tokens;
    size_t widest = 0, weights = 0, out, in;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        mq_config_linear_shape(&out, &in, b->config, linear);
        widest = out > widest ? out : widest;
        widest = in > widest ? in : widest;
        weights = out * in > weights ? out * in : weights;
    }
    const size_t largest = tokens * widest > weights ? tokens * widest : weights;
    operands o = {.x = some_numbers(tokens * widest),
                  .w = some_numbers(weights),
                  .y = some_numbers(tokens * widest),
                  .result = some_numbers(largest),
                  .tokens = tokens};
    mq_bf16 *rounded = some_rounded(largest);
    mq_status status = o.x && o.w && o.y && o.result && rounded
                           ? time_linears(b, &o, rounded, repeats, err)
                           : mq_fail(err, MQ_ERR_MACHINE, "no memory for the products");
    mq_free(o.x);
    mq_free(o.w);
    mq_free(o.y);
    mq_free(o.result);
    mq_free(rounded);
    return status;
}

/* Of a product of float32. */
static double bare_seconds(const bare *b, mq_linear linear, direction which) {
    const double library = b->by_library[linear][which], threads = b->by_threads[linear][which];
    return library < threads ? library : threads;
}

static double bare_flops(const bare *b, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, b->config, linear);
    return 2.0 * (double)b->tokens * (double)out * (double)in;
}

#endif
