/* The refit's loops for any machine, the reference for the others, and the choice. */
#define MQ_KERNEL_NAME "base"
#define MQ_KERNEL_SYMBOL mq_refit_kernels_base
#include "base/machine.h"
#include "quant/refit_kernels_body.h"

const mq_refit_kernels *mq_refit_kernels_best(void) {
#if defined(__x86_64__)
    static const mq_refit_kernels *const all[] = {&mq_refit_kernels_base, &mq_refit_kernels_avx2,
                                                  &mq_refit_kernels_avx512};
    return all[mq_simd_best()];
#else
    return &mq_refit_kernels_base;
#endif
}
