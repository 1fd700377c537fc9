/* Matrix products in float32 or bfloat16 behind one function. An operand may exist in float32,
 * rounded to bfloat16, or in both forms; the caller of a product says which form to use. */
#ifndef MQ_TENSOR_PRODUCT_H
#define MQ_TENSOR_PRODUCT_H

#include "base/alloc.h"
#include "tensor/gemm_bf16.h"

/* A matrix. The form that the products read must be there; the other may be NULL. */
typedef struct mq_operand {
    const float *f32;
    const mq_bf16 *bf16; /* the same, rounded */
} mq_operand;

/* The operand from an element on. */
static inline mq_operand mq_operand_at(mq_operand x, size_t at) {
    return (mq_operand){x.f32 ? x.f32 + at : NULL, x.bf16 ? x.bf16 + at : NULL};
}

/* What bfloat16 products need. */
typedef struct mq_products {
    const mq_gemm_bf16 *gemm; /* NULL: all products are float32 */
    unsigned char *scratch;   /* [threads, scratch_size] */
    size_t scratch_size;
} mq_products;

/* gemm, which stays the caller's and is ready for all products (or NULL), and its scratch. */
mq_products mq_products_carve(mq_slab *slab, const mq_gemm_bf16 *gemm, size_t threads);

/* c = (accumulate ? c : 0) + op(a)·op(b), by mq_gemm_bf16_run, or by mq_gemm where bf16 or its gemm
 * is NULL. */
void mq_product(float *c, mq_operand a, mq_operand b, const mq_gemm_shape *shape,
                const mq_products *bf16);

#endif
