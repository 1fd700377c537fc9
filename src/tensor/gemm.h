/* Matrix products of float32, by OpenBLAS; those of bfloat16 operands are gemm_bf16.h's.
 *
 * All matrices are row-major float32. Products use as many threads as mq_gemm_set_threads said
 * last (a context's, when it is opened); those between mq_gemm_enter_single and
 * mq_gemm_leave_single use one. */
#ifndef MQ_TENSOR_GEMM_H
#define MQ_TENSOR_GEMM_H

#include "base/context.h"

/* c[m, n] = (accumulate ? c : 0) + op(a)[m, k]·op(b)[k, n], where op(a) is a[m, k] or the transpose
 * of a[k, m]; c is not read unless it is added to. */
typedef struct mq_gemm_shape {
    size_t m, n, k;
    size_t lda, ldb, ldc; /* elements between rows as they are stored */
    bool trans_a, trans_b, accumulate;
    bool packed_b; /* mq_gemm_bf16_run's b is what mq_gemm_bf16_pack made of the one described here;
                      others' products take no notice */
} mq_gemm_shape;

bool mq_gemm_same_shape(const mq_gemm_shape *a, const mq_gemm_shape *b);

/* The product times alpha. From several threads at once only between mq_gemm_enter_single and
 * mq_gemm_leave_single: elsewhere the products are right but wait for one another. */
void mq_gemm(float *c, const float *a, const float *b, const mq_gemm_shape *shape, float alpha);

/* c[n, n] += x[rows, n]ᵀ · x, and of c, which is symmetric, only the upper triangle. From several
 * threads as mq_gemm. */
void mq_gemm_gram(float *c, size_t ldc, const float *x, size_t ldx, size_t rows, size_t n);

/* gram[in, in] += x[tokens, in]ᵀ·x, the upper triangle, by all threads: the same sums for any
 * number of them. */
void mq_gram_add(float *gram, const float *x, size_t tokens, size_t in, const mq_context *context);

/* Around an OpenMP region whose threads call mq_gemm each on its own: sets the BLAS to one thread,
 * and back. */
void mq_gemm_enter_single(void);
void mq_gemm_leave_single(const mq_context *context);

/* Plain triple loops, kept as the reference that the tests hold the backends against; double
 * accumulation. */
void mq_gemm_reference(float *c, const float *a, const float *b, const mq_gemm_shape *shape,
                       float alpha);

/* "OpenBLAS 0.3.21 SkylakeX" into out. */
void mq_gemm_describe(char *out, size_t size);
/* Threads of the BLAS from now on, and as it is; of the process. */
void mq_gemm_set_threads(size_t threads);
size_t mq_gemm_threads(void);

/* Address space that OpenBLAS maps for a buffer (on x86-64), which it keeps: one for each thread
 * that it starts, and one for each that calls it. Where it may not it asks again, for ever. */
#define MQ_GEMM_BUFFER_BYTES ((size_t)128 << 20)
/* MQ_ERR_MACHINE unless the process may map so many more. */
mq_status mq_gemm_check_buffers(size_t count, mq_error *err);

#endif
