#include "tensor/product.h"

#include <omp.h>

mq_products mq_products_carve(mq_slab *slab, const mq_gemm_bf16 *gemm, size_t threads) {
    mq_products products = {.gemm = gemm};
    if (gemm != NULL) {
        products.scratch_size = mq_gemm_bf16_scratch(gemm);
        products.scratch = mq_carve(slab, threads, products.scratch_size);
    }
    return products;
}

void mq_product(float *c, mq_operand a, mq_operand b, const mq_gemm_shape *shape,
                const mq_products *bf16) {
    if (bf16 != NULL && bf16->gemm != NULL) {
        const size_t thread = (size_t)omp_get_thread_num();
        mq_gemm_bf16_run(c, a.bf16, b.bf16, shape, bf16->gemm,
                         bf16->scratch + thread * bf16->scratch_size);
    } else {
        mq_gemm(c, a.f32, b.f32, shape, 1.0F);
    }
}
