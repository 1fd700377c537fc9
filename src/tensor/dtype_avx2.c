#include <immintrin.h>

#include "tensor/dtype_f16.h"

#define LANES 8

void mq_f16_to_f32_avx2(float *out, const void *data, size_t count) {
    const unsigned char *bytes = data;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
    }
    mq_f16_to_f32_reference(out + i, bytes + 2 * i, count - i);
}

void mq_f32_to_f16_avx2(void *out, const float *values, size_t count) {
    unsigned char *bytes = out;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(values + i),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(void *)(bytes + 2 * i), halves);
    }
    mq_f32_to_f16_reference(bytes + 2 * i, values + i, count - i);
}
