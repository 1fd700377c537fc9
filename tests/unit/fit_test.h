/* What the tests of the fits share: numbers, and every processor's kernels. */
#ifndef MQ_TEST_FIT_TEST_H
#define MQ_TEST_FIT_TEST_H

#include <stdint.h>

#include "export/fit.h"
#include "kernel_tables.h"

static inline uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline float random_between(uint32_t *state, float low, float high) {
    return low + (high - low) * (float)(next_random(state) % 65536) / 65536;
}

static inline float half(float value) { return mq_f16_to_f32(mq_f32_to_f16(value)); }

/* compare holds kernels against mq_fit_kernels_base: all that this processor runs. */
static inline void on_every_processor(void (*compare)(const mq_fit_kernels *kernels)) {
    EXPECT_TABLE(mq_fit_kernels);
    for (size_t i = 0; mq_fit_kernels_at(i) != NULL; i++) {
        compare(mq_fit_kernels_at(i));
    }
}

#endif
