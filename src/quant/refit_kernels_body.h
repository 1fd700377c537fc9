/* The loops of refit_kernels.h, compiled once for each instruction set: include with
 * MQ_KERNEL_NAME and MQ_KERNEL_SYMBOL defined. */
#include "quant/lanes.h"
#include "quant/refit_kernels.h"

static void group_weights(float *values, mq_bf16 *rounded, const uint8_t *codes, size_t count,
                          float scale, float bias, unsigned width, mq_slice_rule rule) {
    if (rounded == NULL) {
        for (size_t i = 0; i < count; i++) {
            values[i] = scale * (float)(int)mq_slice_code(codes[i], width, rule) + bias;
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        rounded[i] = mq_bf16_round(scale * (float)(int)mq_slice_code(codes[i], width, rule) + bias);
    }
}

static void group_sums(float *sum, float *sum_s, const float *gradient, const uint8_t *codes,
                       size_t count, float centre, unsigned width, mq_slice_rule rule) {
    mq_lanes plain = {{0}}, product = {{0}};
    for (size_t first = 0; first < count; first += MQ_CHUNK) {
        const size_t n = count - first < MQ_CHUNK ? count - first : MQ_CHUNK;
        float level[MQ_CHUNK];
        for (size_t i = 0; i < n; i++) {
            level[i] = (float)(int)mq_slice_code(codes[first + i], width, rule) - centre;
        }
        mq_lanes_add(&plain, gradient + first, n);
        mq_lanes_add_product(&product, gradient + first, level, n);
    }
    *sum = mq_lanes_sum(&plain);
    *sum_s = mq_lanes_sum(&product);
}

const mq_refit_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, group_weights, group_sums};
