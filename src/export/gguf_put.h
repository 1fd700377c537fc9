/* What the encoders of GGUF's blocks share. */
#ifndef MQ_EXPORT_GGUF_PUT_H
#define MQ_EXPORT_GGUF_PUT_H

#include "tensor/dtype.h"

/* The nearest float16; an overflow stays the largest number. */
static inline uint16_t mq_half_within(double value) {
    const double largest = 65504.0;
    return mq_f32_to_f16((float)(value > largest ? largest : value < -largest ? -largest : value));
}

static inline void mq_put_half(unsigned char *out, double value) {
    const uint16_t half = mq_half_within(value);
    out[0] = (unsigned char)(half & 0xff);
    out[1] = (unsigned char)(half >> 8);
}

#endif
