#include "tensor/dtype.h"

#include <assert.h>
#include <string.h>

#include "base/machine.h"
#include "tensor/bf16.h"
#include "tensor/dtype_f16.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[MQ_DTYPE_COUNT] = {
    [MQ_F32] = {"F32", 4},   [MQ_F16] = {"F16", 2},         [MQ_BF16] = {"BF16", 2},
    [MQ_F64] = {"F64", 8},   [MQ_I64] = {"I64", 8},         [MQ_I32] = {"I32", 4},
    [MQ_I16] = {"I16", 2},   [MQ_I8] = {"I8", 1},           [MQ_U64] = {"U64", 8},
    [MQ_U32] = {"U32", 4},   [MQ_U16] = {"U16", 2},         [MQ_U8] = {"U8", 1},
    [MQ_BOOL] = {"BOOL", 1}, [MQ_F8_E4M3] = {"F8_E4M3", 1}, [MQ_F8_E5M2] = {"F8_E5M2", 1},
};

const char *mq_dtype_name(mq_dtype dtype) { return dtypes[dtype].name; }

bool mq_dtype_parse(mq_dtype *out, const char *name) {
    for (int i = 0; i < MQ_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (mq_dtype)i;
            return true;
        }
    }
    return false;
}

size_t mq_dtype_size(mq_dtype dtype) { return dtypes[dtype].size; }

bool mq_dtype_is_weight(mq_dtype dtype) {
    return dtype == MQ_F32 || dtype == MQ_F16 || dtype == MQ_BF16;
}

/* --- one number ------------------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float mq_f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0) { /* zero or subnormal: mantissa · 2^-24, exact in float32 */
        float magnitude = (float)mantissa * 0x1.0p-24f;
        return float_of_bits(sign | bits_of_float(magnitude));
    }
    if (exponent == 31) { /* infinity, or NaN made quiet as F16C does */
        uint32_t quiet = mantissa != 0 ? 0x400000u : 0;
        return float_of_bits(sign | 0x7f800000u | (mantissa << 13) | quiet);
    }
    return float_of_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t mq_f32_to_f16(float value) {
    uint32_t bits = bits_of_float(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) { /* NaN: quiet, the upper bits of its payload kept */
        half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x477ff000u) { /* 65520, halfway to the next after 65504, and above */
        half = 0x7c00u;
    } else if (magnitude >= 0x38800000u) { /* 2^-14 and above: normal; a carry moves the exponent */
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    } else {
        /* Adding 0.5 leaves 2^-24 as the last place: the float32 sum rounds as the subnormal must.
         */
        half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    }
    return (uint16_t)(sign | half);
}

float mq_bf16_to_f32(uint16_t bits) { return mq_bf16_value(bits); }

uint16_t mq_f32_to_bf16(float value) { return mq_bf16_round(value); }

/* --- arrays: loads and stores through memcpy, since data may stand anywhere ------------------- */

void mq_f16_to_f32_reference(float *out, const void *data, size_t count) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, bytes + 2 * i, sizeof half);
        out[i] = mq_f16_to_f32(half);
    }
}

void mq_f32_to_f16_reference(void *out, const float *values, size_t count) {
    unsigned char *bytes = out;
    for (size_t i = 0; i < count; i++) {
        uint16_t half = mq_f32_to_f16(values[i]);
        memcpy(bytes + 2 * i, &half, sizeof half);
    }
}

bool mq_has_f16c(void) { return mq_simd_best() >= MQ_SIMD_AVX2; }

static void bf16_to_f32(float *out, const void *data, size_t count) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        out[i] = mq_bf16_value(bits);
    }
}

static void f32_to_bf16(void *out, const float *values, size_t count) {
    unsigned char *bytes = out;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = mq_bf16_round(values[i]);
        memcpy(bytes + 2 * i, &bits, sizeof bits);
    }
}

static void f16_to_f32(float *out, const void *data, size_t count) {
#if defined(__x86_64__)
    if (mq_has_f16c()) {
        mq_f16_to_f32_avx2(out, data, count);
        return;
    }
#endif
    mq_f16_to_f32_reference(out, data, count);
}

static void f32_to_f16(void *out, const float *values, size_t count) {
#if defined(__x86_64__)
    if (mq_has_f16c()) {
        mq_f32_to_f16_avx2(out, values, count);
        return;
    }
#endif
    mq_f32_to_f16_reference(out, values, count);
}

void mq_to_f32(float *out, const void *data, mq_dtype dtype, size_t count) {
    assert(mq_dtype_is_weight(dtype));
    if (count == 0) {
        return; /* data may be NULL then */
    }
    if (dtype == MQ_F32) {
        memcpy(out, data, count * sizeof *out);
    } else if (dtype == MQ_F16) {
        f16_to_f32(out, data, count);
    } else {
        bf16_to_f32(out, data, count);
    }
}

void mq_from_f32(void *out, mq_dtype dtype, const float *values, size_t count) {
    assert(mq_dtype_is_weight(dtype));
    if (count == 0) {
        return;
    }
    if (dtype == MQ_F32) {
        memcpy(out, values, count * sizeof *values);
    } else if (dtype == MQ_F16) {
        f32_to_f16(out, values, count);
    } else {
        f32_to_bf16(out, values, count);
    }
}

/* --- finite values ---------------------------------------------------------------------------- */

/* An element of `size` bytes at data is not finite when all bits of its exponent are set. */
#define DEFINE_FIRST_NON_FINITE(name, type, exponent)                                              \
    static size_t name(const unsigned char *data, size_t count) {                                  \
        enum { CHUNK = 4096 };                                                                     \
        for (size_t first = 0; first < count; first += CHUNK) {                                    \
            size_t length = count - first < CHUNK ? count - first : CHUNK;                         \
            type found = 0;                                                                        \
            for (size_t i = 0; i < length; i++) {                                                  \
                type bits;                                                                         \
                memcpy(&bits, data + (first + i) * sizeof bits, sizeof bits);                      \
                found |= (type)((bits & (exponent)) == (exponent));                                \
            }                                                                                      \
            for (size_t i = 0; found != 0 && i < length; i++) {                                    \
                type bits;                                                                         \
                memcpy(&bits, data + (first + i) * sizeof bits, sizeof bits);                      \
                if ((bits & (exponent)) == (exponent)) {                                           \
                    return first + i;                                                              \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        return count;                                                                              \
    }

DEFINE_FIRST_NON_FINITE(first_non_finite_f64, uint64_t, UINT64_C(0x7ff0000000000000))
DEFINE_FIRST_NON_FINITE(first_non_finite_f32, uint32_t, UINT32_C(0x7f800000))
DEFINE_FIRST_NON_FINITE(first_non_finite_f16, uint16_t, 0x7c00u)
DEFINE_FIRST_NON_FINITE(first_non_finite_bf16, uint16_t, 0x7f80u)

size_t mq_first_non_finite(const void *data, mq_dtype dtype, size_t count) {
    switch (dtype) {
    case MQ_F64:
        return first_non_finite_f64(data, count);
    case MQ_F32:
        return first_non_finite_f32(data, count);
    case MQ_F16:
        return first_non_finite_f16(data, count);
    case MQ_BF16:
        return first_non_finite_bf16(data, count);
    default:
        return count; /* integers always are; the 8-bit floats are only carried */
    }
}
