/* What the encoders of GGUF's blocks share. */
#ifndef MQ_EXPORT_GGUF_PUT_H
#define MQ_EXPORT_GGUF_PUT_H

#include "tensor/dtype.h"

/* Rounded to float16, as the file will hold it, which is returned; an overflow stays the largest
 * number. */
static inline float mq_put_half(unsigned char *out, double value) {
    const double largest = 65504.0;
    const uint16_t half = mq_f32_to_f16((float)(value > largest    ? largest
                                                : value < -largest ? -largest
                                                                   : value));
    out[0] = (unsigned char)(half & 0xff);
    out[1] = (unsigned char)(half >> 8);
    return mq_f16_to_f32(half);
}

#endif
