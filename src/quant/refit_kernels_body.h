/* The loops of refit_kernels.h, compiled once for each instruction set: include with
 * MQ_KERNEL_NAME and MQ_KERNEL_SYMBOL defined. */
#include "quant/lanes.h"
#include "quant/refit_kernels.h"

/* mq_slice_code for any width and rule without a branch: (code + half a step) >> shift, at most
 * `last`. */
typedef struct slicing {
    unsigned half, shift, last;
} slicing;

static inline slicing slicing_of(unsigned width, mq_slice_rule rule) {
    slicing s = {.half = 0, .shift = MQ_MAX_WIDTH - width, .last = (1u << width) - 1u};
    if (width < MQ_MAX_WIDTH && rule != MQ_SLICE_TOP) {
        s.half = 1u << (s.shift - 1u);
        s.last += rule == MQ_SLICE_ROUND_EXTRA ? 1u : 0u;
    }
    return s;
}

static inline float slice_of(unsigned code, const slicing *s) {
    const unsigned slice = (code + s->half) >> s->shift;
    return (float)(int)(slice < s->last ? slice : s->last);
}

static void group_weights(float *values, mq_bf16 *rounded, const uint8_t *codes, size_t count,
                          float scale, float bias, unsigned width, mq_slice_rule rule) {
    const slicing s = slicing_of(width, rule);
    if (rounded == NULL) {
        for (size_t i = 0; i < count; i++) {
            values[i] = scale * slice_of(codes[i], &s) + bias;
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        rounded[i] = mq_bf16_round(scale * slice_of(codes[i], &s) + bias);
    }
}

static void group_sums(float *sum, float *sum_s, const float *gradient, const uint8_t *codes,
                       size_t count, float centre, unsigned width, mq_slice_rule rule) {
    const slicing s = slicing_of(width, rule);
    mq_lanes plain = {{0}}, product = {{0}};
    for (size_t first = 0; first < count; first += MQ_CHUNK) {
        const size_t n = count - first < MQ_CHUNK ? count - first : MQ_CHUNK;
        float level[MQ_CHUNK];
        for (size_t i = 0; i < n; i++) {
            level[i] = slice_of(codes[first + i], &s) - centre;
        }
        mq_lanes_add(&plain, gradient + first, n);
        mq_lanes_add_product(&product, gradient + first, level, n);
    }
    *sum = mq_lanes_sum(&plain);
    *sum_s = mq_lanes_sum(&product);
}

const mq_refit_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, group_weights, group_sums};
