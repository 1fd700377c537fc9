/* kernels.h for every processor of the architecture that we are built for, and the choice between
 * them. */
#include "model/kernels.h"

#include "base/machine.h"

extern const mq_kernels mq_kernels_baseline;
#define MQ_KERNELS_TABLE mq_kernels_baseline
#define MQ_KERNELS_NAME "baseline"
#include "model/kernels_body.h"

#if defined(__x86_64__)
extern const mq_kernels mq_kernels_avx2, mq_kernels_avx512;

const mq_kernels *mq_kernels_at(size_t index) {
    const mq_kernels *const all[] = {&mq_kernels_baseline, &mq_kernels_avx2, &mq_kernels_avx512};
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}
#else
const mq_kernels *mq_kernels_at(size_t index) { return index == 0 ? &mq_kernels_baseline : NULL; }
#endif

const mq_kernels *mq_kernels_get(void) {
    const mq_kernels *best = mq_kernels_at(0);
    for (size_t i = 1; mq_kernels_at(i); i++) {
        best = mq_kernels_at(i);
    }
    return best;
}
