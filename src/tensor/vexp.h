/* The exponential function as straight-line code that compilers turn into vector instructions: to
 * be inlined into loops marked `omp simd`, where a call into libm would keep them scalar. And the
 * largest of many numbers, which is subtracted before it. */
#ifndef MQ_TENSOR_VEXP_H
#define MQ_TENSOR_VEXP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* a·b + c, fused where the instruction set that this file is compiled for has it. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MQ_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define MQ_FMA(a, b, c) ((a) * (b) + (c))
#endif

/* exp(x) within 2 units in the last place for -87.33 <= x <= 88.37; 0 from -87.69 down, infinity
 * above, NaN for NaN.
 *
 * x = n·ln 2 + r, |r| <= ln(2)/2, n found by adding 1.5·2^23, which leaves the rounded integer in
 * the low bits of the sum; ln 2 in two parts; exp(r) by the polynomial of Cephes (Moshier, expf);
 * times 2^n through the exponent bits, where n = -127 makes 0 and n = 128 infinity. */
static inline __attribute__((always_inline)) float mq_exp_inline(float x) {
    const float lowest = -88.0F, highest = 89.0F, shifter = 12582912.0F;
    float clamped = lowest > x ? lowest : x;
    clamped = highest < clamped ? highest : clamped;
    const float shifted = MQ_FMA(clamped, 1.44269504F, shifter);
    const float n = shifted - shifter;
    float r = MQ_FMA(n, -0.693359375F, clamped);
    r = MQ_FMA(n, 2.12194440e-4F, r);
    float p = 1.9875691500e-4F;
    p = MQ_FMA(p, r, 1.3981999507e-3F);
    p = MQ_FMA(p, r, 8.3334519073e-3F);
    p = MQ_FMA(p, r, 4.1665795894e-2F);
    p = MQ_FMA(p, r, 1.6666665459e-1F);
    p = MQ_FMA(p, r, 5.0000001201e-1F);
    p = MQ_FMA(p, r * r, r) + 1.0F;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127U) << 23; /* what of the shifter is above the integer is shifted out */
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* 1/(1 + exp(-x)). */
static inline __attribute__((always_inline)) float mq_sigmoid_inline(float x) {
    return 1.0F / (1.0F + mq_exp_inline(-x));
}

/* tanh(x) to an absolute error of 2^-23. */
static inline __attribute__((always_inline)) float mq_tanh_inline(float x) {
    return 1.0F - 2.0F / (1.0F + mq_exp_inline(2.0F * x));
}

/* The largest of x[count], count > 0; x[0] if that is NaN, and others that are do not count. In
 * lanes by hand: a reduction with max would have to say what becomes of NaN. */
static inline __attribute__((always_inline)) float mq_largest_inline(const float *x, size_t count) {
    enum { LANES = 16 };
    float lane[LANES], largest = x[0];
    for (size_t j = 0; j < LANES; j++) {
        lane[j] = largest;
    }
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
#pragma omp simd
        for (size_t j = 0; j < LANES; j++) {
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
        }
    }
    for (; i < count; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    for (size_t j = 0; j < LANES; j++) {
        largest = lane[j] > largest ? lane[j] : largest;
    }
    return largest;
}

#endif
