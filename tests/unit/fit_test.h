/* What the tests of the fits share: numbers, and every processor's kernels. */
#ifndef MQ_TEST_FIT_TEST_H
#define MQ_TEST_FIT_TEST_H

#include <stdint.h>

#include "export/fit.h"

static inline uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline float random_between(uint32_t *state, float low, float high) {
    return low + (high - low) * (float)(next_random(state) % 65536) / 65536;
}

static inline float half(float value) { return mq_f16_to_f32(mq_f32_to_f16(value)); }

/* compare holds kernels against mq_fit_kernels_base: of this processor, and of the one before. */
static inline void on_every_processor(void (*compare)(const mq_fit_kernels *kernels)) {
    const mq_fit_kernels *best = mq_fit_kernels_best();
    compare(best);
#if defined(__x86_64__)
    if (best == &mq_fit_kernels_avx512) {
        compare(&mq_fit_kernels_avx2);
    }
#endif
}

#endif
