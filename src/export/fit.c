#include "export/fit.h"

#include "base/machine.h"

const mq_fit_kernels *mq_fit_kernels_best(void) {
#if defined(__x86_64__)
    static const mq_fit_kernels *const all[] = {&mq_fit_kernels_base, &mq_fit_kernels_avx2,
                                                &mq_fit_kernels_avx512};
    return all[mq_simd_best()];
#else
    return &mq_fit_kernels_base;
#endif
}
