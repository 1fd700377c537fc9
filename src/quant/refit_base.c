/* The refit's loops for any machine, the reference for the others, and the choice. */
#define MQ_KERNEL_NAME "base"
#define MQ_KERNEL_SYMBOL mq_refit_kernels_base
#include "base/machine.h"
#include "quant/refit_kernels_body.h"

const mq_refit_kernels *mq_refit_kernels_at(size_t index) {
    static const mq_refit_kernels *const all[] = MQ_KERNELS_OF(mq_refit_kernels);
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}

const mq_refit_kernels *mq_refit_kernels_best(void) {
    return mq_refit_kernels_at((size_t)mq_simd_best());
}
