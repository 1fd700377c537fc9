/* The refit's loops for any machine, the reference for the others, and the choice. */
#define MQ_KERNEL_NAME "base"
#define MQ_KERNEL_SYMBOL mq_refit_kernels_base
#include "quant/refit_kernels_body.h"

#include "base/machine.h"

const mq_refit_kernels *mq_refit_kernels_best(void) {
#if defined(__x86_64__)
    switch (mq_simd_best()) {
    case MQ_SIMD_AVX512:
        return &mq_refit_kernels_avx512;
    case MQ_SIMD_AVX2:
        return &mq_refit_kernels_avx2;
    case MQ_SIMD_NONE:
        break;
    }
#endif
    return &mq_refit_kernels_base;
}
