#include "export/fit.h"

#include "base/machine.h"

const mq_fit_kernels *mq_fit_kernels_best(void) {
#if defined(__x86_64__)
    switch (mq_simd_best()) {
    case MQ_SIMD_AVX512:
        return &mq_fit_kernels_avx512;
    case MQ_SIMD_AVX2:
        return &mq_fit_kernels_avx2;
    case MQ_SIMD_NONE:
        break;
    }
#endif
    return &mq_fit_kernels_base;
}
