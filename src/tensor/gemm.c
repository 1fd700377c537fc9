#include "tensor/gemm.h"

#include <cblas.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* OpenBLAS counts in int. Nothing that fits in memory today comes near, but a leading dimension can
 * be anything. */
static bool fits_blas(size_t value) { return value <= INT_MAX; }

/* c[m, n] = beta·c, all that is left of a product over nothing (BLAS refuses leading dimensions of
 * 0). */
static void scale_rows(float *c, size_t ldc, size_t m, size_t n, float beta) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
        }
    }
}

void mq_gemm(float *c, size_t ldc, const float *a, size_t lda, bool trans_a, const float *b,
             size_t ldb, bool trans_b, size_t m, size_t n, size_t k, float alpha, float beta) {
    if (m == 0 || n == 0) {
        return;
    }
    if (k == 0) {
        scale_rows(c, ldc, m, n, beta);
        return;
    }
    if (!fits_blas(m) || !fits_blas(n) || !fits_blas(k) || !fits_blas(lda) || !fits_blas(ldb) ||
        !fits_blas(ldc)) {
        mq_gemm_reference(c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, alpha, beta);
        return;
    }
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
                trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)lda, b,
                (int)ldb, beta, c, (int)ldc);
}

void mq_gemm_gram(float *c, size_t ldc, const float *x, size_t ldx, size_t rows, size_t n) {
    if (rows == 0 || n == 0) {
        return;
    }
    if (!fits_blas(rows) || !fits_blas(n) || !fits_blas(ldx) || !fits_blas(ldc)) {
        for (size_t i = 0; i < n; i++) {
            mq_gemm_reference(c + i * ldc + i, ldc, x + i, ldx, true, x + i, ldx, false, 1, n - i,
                              rows, 1.0F, 1.0F);
        }
        return;
    }
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)rows, 1.0F, x, (int)ldx, 1.0F,
                c, (int)ldc);
}

void mq_gemm_reference(float *c, size_t ldc, const float *a, size_t lda, bool trans_a,
                       const float *b, size_t ldb, bool trans_b, size_t m, size_t n, size_t k,
                       float alpha, float beta) {
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++) {
                double left = trans_a ? a[l * lda + i] : a[i * lda + l];
                double right = trans_b ? b[j * ldb + l] : b[l * ldb + j];
                sum += left * right;
            }
            /* beta == 0 says that c holds nothing yet, not even a number */
            double kept = beta == 0 ? 0 : (double)beta * c[i * ldc + j];
            c[i * ldc + j] = (float)(alpha * sum + kept);
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
