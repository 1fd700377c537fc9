/* Matrix products of bfloat16 operands, a and b in mq_gemm_shape's equation, that are accumulated
 * in float32, made by oneDNN with the processor's bfloat16 instructions (AVX512-BF16, AMX).
 *
 * Each product runs on the calling thread alone. An operand that is rounded to bfloat16 (8
 * significant bits) is off by at most 2^-8 of itself; the instructions add in float32 and take
 * denormal numbers for 0. The order of the sum depends on shape and processor, never on the number
 * of threads.
 *
 * oneDNN compiles code for each shape: all shapes are prepared before the first product, so that
 * nothing is compiled or allocated in the loop; its scratch memory is the caller's. */
#ifndef MQ_TENSOR_GEMM_BF16_H
#define MQ_TENSOR_GEMM_BF16_H

#include "base/error.h"
#include "tensor/bf16.h"
#include "tensor/gemm.h"

typedef struct mq_gemm_bf16 mq_gemm_bf16;

/* Whether this program was built with oneDNN, and whether the processor has the instructions. */
bool mq_gemm_bf16_built(void);
bool mq_gemm_bf16_usable(void);

/* For at most `threads` threads of an OpenMP team. *out is the caller's, to be freed with
 * mq_gemm_bf16_free. MQ_ERR_USAGE when oneDNN is not built in, MQ_ERR_MACHINE when the processor
 * has no such instructions or memory is short. */
mq_status mq_gemm_bf16_new(mq_gemm_bf16 **out, size_t threads, mq_error *err);
void mq_gemm_bf16_free(mq_gemm_bf16 *gemm); /* NULL is allowed */

/* Makes a shape, of which no size is 0, ready, unless it is already. Not while products run.
 * MQ_ERR_MACHINE when oneDNN cannot. */
mq_status mq_gemm_bf16_prepare(mq_gemm_bf16 *gemm, const mq_gemm_shape *shape, mq_error *err);
/* Bytes of scratch memory, aligned to MQ_ALIGNMENT, that any prepared product needs; a multiple of
 * that, so that threads' can follow one another. */
size_t mq_gemm_bf16_scratch(const mq_gemm_bf16 *gemm);

/* Bytes of b[k, n] in the layout that oneDNN multiplies from, for shapes with packed_b, of which
 * one with these k and n is prepared: it copies any other b into that for each product. */
size_t mq_gemm_bf16_packed_size(const mq_gemm_bf16 *gemm, size_t k, size_t n);
/* Makes packed (aligned to MQ_ALIGNMENT) of b on the calling thread, as mq_gemm_bf16_run makes
 * products. All products of the same gemm with the same k and n can read it. */
void mq_gemm_bf16_pack(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *shape,
                       const mq_gemm_bf16 *gemm, void *scratch);

/* A prepared product on the calling thread; within an OpenMP region all threads may. What goes
 * wrong is kept for mq_gemm_bf16_check, and c is then not to be used. */
void mq_gemm_bf16_run(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                      const mq_gemm_bf16 *gemm, void *scratch);
/* MQ_ERR_MACHINE if any product since mq_gemm_bf16_new failed. */
mq_status mq_gemm_bf16_check(const mq_gemm_bf16 *gemm, mq_error *err);

/* "oneDNN 2.6.3 avx512_core_bf16" into out. */
void mq_gemm_bf16_describe(char *out, size_t size);

#endif
