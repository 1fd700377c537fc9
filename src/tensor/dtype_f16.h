/* float16 arrays to and from float32: the portable reference, and the processor's own instructions
 * (F16C), which give the same bits. out and data at any alignment. */
#ifndef MQ_TENSOR_DTYPE_F16_H
#define MQ_TENSOR_DTYPE_F16_H

#include <stdbool.h>
#include <stddef.h>

bool mq_has_f16c(void); /* whether the _avx2 forms may be called */

void mq_f16_to_f32_reference(float *out, const void *data, size_t count);
void mq_f16_to_f32_avx2(float *out, const void *data, size_t count);

void mq_f32_to_f16_reference(void *out, const float *values, size_t count);
void mq_f32_to_f16_avx2(void *out, const float *values, size_t count);

#endif
