/* src/tensor/gemm_bf16.c's place in programs that are to test what is made of products of bfloat16
 * on any machine: operands are widened, products are OpenBLAS's. Only shapes that were prepared are
 * made, and only within their arrays' declared rows, as oneDNN would. */
#include "tensor/gemm_bf16.h"

#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tensor/dtype.h"

enum { MOST_SHAPES = 4096, SCRATCH = 64 };

struct mq_gemm_bf16 {
    size_t threads, count;
    mq_gemm_shape shapes[MOST_SHAPES];
};

bool mq_gemm_bf16_built(void) { return true; }

bool mq_gemm_bf16_usable(void) { return true; }

void mq_gemm_bf16_describe(char *out, size_t size) { snprintf(out, size, "oneDNN emulated"); }

mq_status mq_gemm_bf16_new(mq_gemm_bf16 **out, size_t threads, mq_error *err) {
    *out = mq_calloc(1, sizeof **out);
    if (*out == NULL) {
        return mq_fail_memory(err, "the emulation", sizeof **out);
    }
    (*out)->threads = threads;
    return MQ_OK;
}

void mq_gemm_bf16_free(mq_gemm_bf16 *gemm) { mq_free(gemm); }

static bool is_prepared(const mq_gemm_bf16 *gemm, const mq_gemm_shape *shape) {
    for (size_t i = 0; i < gemm->count; i++) {
        if (mq_gemm_same_shape(&gemm->shapes[i], shape)) {
            return true;
        }
    }
    return false;
}

mq_status mq_gemm_bf16_prepare(mq_gemm_bf16 *gemm, const mq_gemm_shape *shape, mq_error *err) {
    if (is_prepared(gemm, shape)) {
        return MQ_OK;
    }
    if (gemm->count == MOST_SHAPES || shape->m == 0 || shape->n == 0 || shape->k == 0 ||
        shape->lda < (shape->trans_a ? shape->m : shape->k) ||
        shape->ldb < (shape->trans_b ? shape->k : shape->n) || shape->ldc < shape->n) {
        return mq_fail(err, MQ_ERR_MACHINE, "emulated: no such product");
    }
    gemm->shapes[gemm->count++] = *shape;
    return MQ_OK;
}

size_t mq_gemm_bf16_scratch(const mq_gemm_bf16 *gemm) {
    (void)gemm;
    return SCRATCH;
}

/* The rows of an operand, densely, so that what lies between them is not read. By malloc: oneDNN
 * allocates nothing that is counted, and products have to run where nothing may be allocated. */
static float *widen(const mq_bf16 *x, size_t rows, size_t columns, size_t ld) {
    float *wide = malloc(rows * columns * sizeof *wide);
    assert(wide != NULL);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            wide[r * columns + c] = mq_bf16_to_f32(x[r * ld + c]);
        }
    }
    return wide;
}

/* What stands for a packed operand: b[k, n], dense, with its bits turned over, so that neither
 * passes for the other. */
#define TURNED 0x5a5aU

size_t mq_gemm_bf16_packed_size(const mq_gemm_bf16 *gemm, size_t k, size_t n) {
    size_t i = 0;
    while (i < gemm->count &&
           !(gemm->shapes[i].packed_b && gemm->shapes[i].k == k && gemm->shapes[i].n == n)) {
        i++;
    }
    assert(i < gemm->count);
    return n * k * sizeof(mq_bf16);
}

void mq_gemm_bf16_pack(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *shape,
                       const mq_gemm_bf16 *gemm, void *scratch) {
    assert(is_prepared(gemm, shape) && shape->packed_b);
    assert((size_t)omp_get_thread_num() < gemm->threads);
    memset(scratch, 0, SCRATCH);
    for (size_t k = 0; k < shape->k; k++) {
        for (size_t n = 0; n < shape->n; n++) {
            const size_t at = shape->trans_b ? n * shape->ldb + k : k * shape->ldb + n;
            packed[k * shape->n + n] = (mq_bf16)(b[at] ^ TURNED);
        }
    }
}

static void unpack(float *wide, const mq_bf16 *packed, size_t count) {
    for (size_t i = 0; i < count; i++) {
        wide[i] = mq_bf16_to_f32((mq_bf16)(packed[i] ^ TURNED));
    }
}

void mq_gemm_bf16_run(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                      const mq_gemm_bf16 *gemm, void *scratch) {
    mq_gemm_shape s = *shape;
    assert(is_prepared(gemm, &s) && (size_t)omp_get_thread_num() < gemm->threads);
    memset(scratch, 0, SCRATCH); /* it is there, and each thread's own */
    s.trans_b = s.trans_b && !s.packed_b;
    const size_t a_columns = s.trans_a ? s.m : s.k, b_columns = s.trans_b ? s.k : s.n;
    float *wide_a = widen(a, s.trans_a ? s.k : s.m, a_columns, s.lda);
    float *wide_b = widen(b, s.trans_b ? s.n : s.k, b_columns, s.packed_b ? b_columns : s.ldb);
    if (s.packed_b) {
        unpack(wide_b, b, s.n * s.k);
    }
    s.lda = a_columns;
    s.ldb = b_columns;
    mq_gemm(c, wide_a, wide_b, &s, 1.0F);
    free(wide_a);
    free(wide_b);
}

mq_status mq_gemm_bf16_check(const mq_gemm_bf16 *gemm, mq_error *err) {
    (void)gemm, (void)err;
    return MQ_OK;
}
