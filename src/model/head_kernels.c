/* head_kernels.h for every processor of the architecture that we are built for, and the choice. */
#include <stdbool.h>

#include "model/head_kernels.h"

extern const mq_head_kernels mq_head_kernels_baseline;
#define MQ_HEAD_KERNELS_TABLE mq_head_kernels_baseline
#define MQ_HEAD_KERNELS_NAME "baseline"
#include "model/head_kernels_body.h"

#if defined(__x86_64__)
extern const mq_head_kernels mq_head_kernels_avx2, mq_head_kernels_avx512;

const mq_head_kernels *mq_head_kernels_at(size_t index) {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (index == 0) {
        return &mq_head_kernels_baseline;
    }
    if (index == 1 && avx2) {
        return &mq_head_kernels_avx2;
    }
    return index == 2 && avx512 ? &mq_head_kernels_avx512 : NULL;
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
