/* Element types of safetensors and their conversion to and from float32. */
#ifndef MQ_TENSOR_DTYPE_H
#define MQ_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mq_dtype {
    MQ_F32,
    MQ_F16,
    MQ_BF16, /* weights can be read from these */
    MQ_F64,
    MQ_I64,
    MQ_I32,
    MQ_I16,
    MQ_I8,
    MQ_U64,
    MQ_U32,
    MQ_U16,
    MQ_U8,
    MQ_BOOL,
    MQ_F8_E4M3,
    MQ_F8_E5M2, /* carried byte for byte, never computed with */
    MQ_DTYPE_COUNT
} mq_dtype;

/* "F32", "BF16", ... as safetensors spells them. */
const char *mq_dtype_name(mq_dtype dtype);
bool mq_dtype_parse(mq_dtype *out, const char *name); /* false: unknown */
size_t mq_dtype_size(mq_dtype dtype);                 /* bytes an element */
bool mq_dtype_is_weight(mq_dtype dtype);              /* F32, F16 or BF16 */

float mq_f16_to_f32(uint16_t half);
uint16_t mq_f32_to_f16(float value); /* IEEE round to nearest even; overflow gives infinity */
float mq_bf16_to_f32(uint16_t bits);
uint16_t mq_f32_to_bf16(float value); /* round to nearest even, NaN stays NaN */

/* out[count] from count elements at data (any alignment, little endian); dtype must be F32, F16 or
 * BF16. */
void mq_to_f32(float *out, const void *data, mq_dtype dtype, size_t count);
void mq_from_f32(void *out, mq_dtype dtype, const float *values, size_t count);

/* Index of the first element that is NaN or infinite, or count. */
size_t mq_first_non_finite(const void *data, mq_dtype dtype, size_t count);

#endif
