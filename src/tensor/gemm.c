#include "tensor/gemm.h"

#include <cblas.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/machine.h"

/* OpenBLAS counts in int. Nothing that fits in memory today comes near, but a leading dimension can
 * be anything. */
static bool fits_blas(size_t value) { return value <= INT_MAX; }

static bool shape_fits_blas(const mq_gemm_shape *s) {
    return fits_blas(s->m) && fits_blas(s->n) && fits_blas(s->k) && fits_blas(s->lda) &&
           fits_blas(s->ldb) && fits_blas(s->ldc);
}

bool mq_gemm_same_shape(const mq_gemm_shape *a, const mq_gemm_shape *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb &&
           a->ldc == b->ldc && a->trans_a == b->trans_a && a->trans_b == b->trans_b &&
           a->accumulate == b->accumulate && a->packed_b == b->packed_b;
}

/* A product of nothing or over nothing is the reference's: BLAS refuses leading dimensions of 0. */
void mq_gemm(float *c, const float *a, const float *b, const mq_gemm_shape *shape, float alpha) {
    const mq_gemm_shape *s = shape;
    if (s->m == 0 || s->n == 0 || s->k == 0 || !shape_fits_blas(s)) {
        mq_gemm_reference(c, a, b, s, alpha);
        return;
    }
    cblas_sgemm(CblasRowMajor, s->trans_a ? CblasTrans : CblasNoTrans,
                s->trans_b ? CblasTrans : CblasNoTrans, (int)s->m, (int)s->n, (int)s->k, alpha, a,
                (int)s->lda, b, (int)s->ldb, s->accumulate ? 1.0F : 0.0F, c, (int)s->ldc);
}

void mq_gemm_gram(float *c, size_t ldc, const float *x, size_t ldx, size_t rows, size_t n) {
    if (rows == 0 || n == 0) {
        return;
    }
    if (!fits_blas(rows) || !fits_blas(n) || !fits_blas(ldx) || !fits_blas(ldc)) {
        for (size_t i = 0; i < n; i++) {
            const mq_gemm_shape row = {.m = 1,
                                       .n = n - i,
                                       .k = rows,
                                       .lda = ldx,
                                       .ldb = ldx,
                                       .ldc = ldc,
                                       .trans_a = true,
                                       .accumulate = true};
            mq_gemm_reference(c + i * ldc + i, x + i, x + i, &row, 1.0F);
        }
        return;
    }
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)rows, 1.0F, x, (int)ldx, 1.0F,
                c, (int)ldc);
}

/* The panels are what is split among threads: a triangle, and what is to the right of it. Wide
 * enough for the speed of a product of all. */
#define GRAM_PANEL 192

void mq_gram_add(float *gram, const float *x, size_t tokens, size_t in, const mq_context *context) {
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic) num_threads((int)mq_context_threads(context))
    for (size_t first = 0; first < in; first += GRAM_PANEL) {
        const size_t count = in - first < GRAM_PANEL ? in - first : GRAM_PANEL,
                     next = first + count;
        float *rows = gram + first * in;
        const mq_gemm_shape right = {.m = count,
                                     .n = in - next,
                                     .k = tokens,
                                     .lda = in,
                                     .ldb = in,
                                     .ldc = in,
                                     .trans_a = true,
                                     .accumulate = true};
        mq_gemm(rows + next, x + first, x + next, &right, 1.0f);
        mq_gemm_gram(rows + first, in, x + first, in, tokens, count);
    }
    mq_gemm_leave_single(context);
}

void mq_gemm_reference(float *c, const float *a, const float *b, const mq_gemm_shape *shape,
                       float alpha) {
    const mq_gemm_shape *s = shape;
    for (size_t i = 0; i < s->m; i++) {
        for (size_t j = 0; j < s->n; j++) {
            double sum = 0;
            for (size_t l = 0; l < s->k; l++) {
                double left = s->trans_a ? a[l * s->lda + i] : a[i * s->lda + l];
                double right = s->trans_b ? b[j * s->ldb + l] : b[l * s->ldb + j];
                sum += left * right;
            }
            float *to = &c[i * s->ldc + j];
            *to = (float)(alpha * sum + (s->accumulate ? (double)*to : 0.0));
        }
    }
}

void mq_gemm_enter_single(void) { openblas_set_num_threads(1); }

void mq_gemm_leave_single(const mq_context *context) {
    mq_gemm_set_threads(mq_context_threads(context));
}

void mq_gemm_set_threads(size_t threads) {
    openblas_set_num_threads(threads > INT_MAX ? INT_MAX : (int)threads);
}

size_t mq_gemm_threads(void) {
    const int threads = openblas_get_num_threads();
    return threads > 0 ? (size_t)threads : 1;
}

mq_status mq_gemm_check_buffers(size_t count, mq_error *err) {
    const size_t mappable = mq_memory_mappable();
    return mappable / MQ_GEMM_BUFFER_BYTES >= count
               ? MQ_OK
               : mq_fail(err, MQ_ERR_MACHINE,
                         "matrix products need %zu MiB of address space, and its limit (ulimit -v "
                         "or -d) leaves %zu MiB; a higher limit or fewer --threads help",
                         count * (MQ_GEMM_BUFFER_BYTES >> 20), mappable >> 20);
}

void mq_gemm_describe(char *out, size_t size) {
    /* The configuration begins "OpenBLAS 0.3.21 NO_LAPACK ..."; without a version, the name alone.
     */
    const char *config = openblas_get_config();
    const char *first = strchr(config, ' ');
    const char *second = first == NULL ? NULL : strchr(first + 1, ' ');
    bool versioned = second != NULL && first[1] >= '0' && first[1] <= '9';
    int length = versioned ? (int)(second - config) : 8;
    snprintf(out, size, "%.*s %s", length, versioned ? config : "OpenBLAS",
             openblas_get_corename());
}
