/* head_kernels.h for every processor of the architecture that we are built for, and the choice. */
#include "model/head_kernels.h"

#include "base/machine.h"

#define MQ_KERNEL_SYMBOL mq_head_kernels_base
#define MQ_KERNEL_NAME "base"
#include "model/head_kernels_body.h"

const mq_head_kernels *mq_head_kernels_at(size_t index) {
    static const mq_head_kernels *const all[] = MQ_KERNELS_OF(mq_head_kernels);
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}

const mq_head_kernels *mq_head_kernels_best(void) {
    return mq_head_kernels_at((size_t)mq_simd_best());
}
