#include "export/fit.h"

#include "base/machine.h"

const mq_fit_kernels *mq_fit_kernels_at(size_t index) {
    static const mq_fit_kernels *const all[] = MQ_KERNELS_OF(mq_fit_kernels);
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}

const mq_fit_kernels *mq_fit_kernels_best(void) {
    return mq_fit_kernels_at((size_t)mq_simd_best());
}
