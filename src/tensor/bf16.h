/* Rounding to bfloat16 inline, for loops that are compiled once for each instruction set. */
#ifndef MQ_TENSOR_BF16_H
#define MQ_TENSOR_BF16_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t mq_bf16; /* its bits: the upper half of a float32 */

/* As mq_f32_to_bf16: to nearest, ties to even; a NaN stays one. Written so that compilers make
 * vectors of it. */
static inline mq_bf16 mq_bf16_round(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t nan = (bits >> 16) | 0x40u; /* rounding could carry a NaN into a zero */
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (mq_bf16)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* The float32 that it stands for. */
static inline float mq_bf16_value(mq_bf16 rounded) {
    const uint32_t bits = (uint32_t)rounded << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void mq_bf16_round_all(mq_bf16 *out, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = mq_bf16_round(values[i]);
    }
}

#endif
