/* head_kernels.h for every processor of the architecture that we are built for, and the choice. */
#include "model/head_kernels.h"

#include "base/machine.h"

extern const mq_head_kernels mq_head_kernels_baseline;
#define MQ_HEAD_KERNELS_TABLE mq_head_kernels_baseline
#define MQ_HEAD_KERNELS_NAME "baseline"
#include "model/head_kernels_body.h"

#if defined(__x86_64__)
extern const mq_head_kernels mq_head_kernels_avx2, mq_head_kernels_avx512;

const mq_head_kernels *mq_head_kernels_at(size_t index) {
    const mq_head_kernels *const all[] = {&mq_head_kernels_baseline, &mq_head_kernels_avx2,
                                          &mq_head_kernels_avx512};
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}
#else
const mq_head_kernels *mq_head_kernels_at(size_t index) {
    return index == 0 ? &mq_head_kernels_baseline : NULL;
}
#endif

const mq_head_kernels *mq_head_kernels_get(void) {
    const mq_head_kernels *best = mq_head_kernels_at(0);
    for (size_t i = 1; mq_head_kernels_at(i) != NULL; i++) {
        best = mq_head_kernels_at(i);
    }
    return best;
}
