/* What the searches of fit.h share: rounding, and fits side by side in the lanes of a vector.
 * Compiled once for each instruction set, as part of fit_kernel.h. */
#ifndef MQ_EXPORT_FIT_LANES_H
#define MQ_EXPORT_FIT_LANES_H

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "export/fit.h"
#include "tensor/bf16.h"

enum { LANES = MQ_FIT_SUBS }; /* sub-blocks of a super-block, side by side */

/* Rounded to float16; an overflow stays the largest number. */
static inline float fit_half(float value) {
    const float largest = 65504.0f;
    value = value < largest ? value : largest;
    value = value > -largest ? value : -largest;
#if defined(__F16C__) /* the same bits, in one instruction */
    return _cvtsh_ss(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
    return mq_f16_to_f32(mq_f32_to_f16(value));
#endif
}

/* To the nearest whole number, ties to even; |value| < 2^22. */
static inline float round_small(float value) {
    const float shift = 0x1.8p23f; /* where the distance of neighbours is 1 */
    return (value + shift) - shift;
}

static inline float between(float value, float low, float high) {
    value = value > low ? value : low;
    return value < high ? value : high;
}

/* --- side by side ----------------------------------------------------------------------------- */

/* Several fits at once, one a lane: as many as the processor has lanes. */
#if defined(__AVX512F__)
enum { SIDES = 16 };
#elif defined(__AVX2__)
enum { SIDES = 8 };
#else
enum { SIDES = 4 };
#endif
typedef float side_f __attribute__((vector_size(SIDES * sizeof(float))));
typedef int32_t side_i __attribute__((vector_size(SIDES * sizeof(int32_t))));
typedef uint32_t side_u __attribute__((vector_size(SIDES * sizeof(uint32_t))));

static inline side_f side_at(const float *values) {
    side_f loaded;
    memcpy(&loaded, values, sizeof loaded);
    return loaded;
}

/* which: -1 for a, 0 for b. */
static inline side_f side_pick(side_i which, side_f a, side_f b) {
    return (side_f)((which & (side_i)a) | (~which & (side_i)b));
}

/* Of b where they are the same. */
static inline side_f side_largest(side_f a, side_f b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return side_pick(a > b, a, b);
#endif
}

static inline side_f side_size(side_f value) { return (side_f)((side_i)value & INT32_MAX); }

/* 0 of what is too small to be a scale. */
static inline side_f side_inverse(side_f value) {
    const side_f none = {0}, size = side_pick(value < none, -value, value);
    return side_pick(size > 0x1p-60f, 1 / value, none);
}

static inline side_f side_between(side_f value, side_f low, side_f high) {
#if defined(__AVX512F__)
    return _mm512_min_ps(_mm512_max_ps(value, low), high);
#elif defined(__AVX2__)
    return _mm256_min_ps(_mm256_max_ps(value, low), high);
#else
    value = side_pick(value > low, value, low);
    return side_pick(value < high, value, high);
#endif
}

static inline side_f side_half(side_f value) {
#if defined(__AVX2__)
    const side_f largest = (side_f){0} + 65504.0f;
    value = side_between(value, -largest, largest);
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#else
    return _mm256_cvtph_ps(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#endif
#else
    float values[SIDES];
    memcpy(values, &value, sizeof values);
    for (size_t l = 0; l < SIDES; l++) {
        values[l] = fit_half(values[l]);
    }
    memcpy(&value, values, sizeof values);
    return value;
#endif
}

static inline side_f side_rounded(side_f value, mq_dtype dtype) {
    if (dtype == MQ_F32) {
        return value;
    }
    if (dtype == MQ_F16) {
        return side_half(value);
    }
    const side_u bits = (side_u)value; /* mq_bf16_round, of what is no NaN */
    return (side_f)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

/* low: a0 b0 a1 b1 ... of their first halves, high: of their second. */
static inline void side_weave(side_f *low, side_f *high, side_f a, side_f b) {
#if defined(__AVX512F__)
    const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    *low = _mm512_permutex2var_ps(a, first, b);
    *high = _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(SIDES / 2)), b);
#elif defined(__AVX2__)
    const side_f even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
    *low = _mm256_permute2f128_ps(even, odd, 0x20);
    *high = _mm256_permute2f128_ps(even, odd, 0x31);
#else
    for (size_t i = 0; i < SIDES / 2; i++) {
        (*low)[2 * i] = a[i];
        (*low)[2 * i + 1] = b[i];
        (*high)[2 * i] = a[SIDES / 2 + i];
        (*high)[2 * i + 1] = b[SIDES / 2 + i];
    }
#endif
}

/* Rows become columns: woven as often as it takes, each time the first half with the second. */
static inline void side_turn(side_f rows[SIDES]) {
    for (size_t done = 1; done < SIDES; done *= 2) {
        side_f woven[SIDES];
        for (size_t i = 0; i < SIDES / 2; i++) {
            side_weave(&woven[2 * i], &woven[2 * i + 1], rows[i], rows[i + SIDES / 2]);
        }
        memcpy(rows, woven, sizeof woven);
    }
}

/* --- a grid that is tried --------------------------------------------------------------------- */

/* Over the numbers of each fit: squared errors, squares of codes, and codes times errors (times
 * values in fit_centred.h). */
typedef struct side_sums {
    side_f error, squares, products;
} side_sums;

static inline side_sums side_sum(side_sums a, side_sums b) {
    return (side_sums){a.error + b.error, a.squares + b.squares, a.products + b.products};
}

/* Of the nearest codes from low to high for w = scale·code; is_clipped: some values lie beyond.
 * times: how often each value occurs, or NULL. */
static inline side_sums try_scale(const side_f *values, const side_f *times, size_t count,
                                  side_f scale, side_f low, side_f high, bool is_clipped) {
    const side_f none = {0}, shift = 0x1.8p23f - none;
    const side_f inverse = side_pick(scale > none, 1 / scale, none);
    side_sums sums = {none, none, none};
    for (size_t i = 0; i < count; i++) {
        const side_f at_code = values[i] * inverse;
        const side_f inside = is_clipped ? side_between(at_code, low, high) : at_code;
        const side_f code = (inside + shift) - shift, off = scale * code - values[i];
        const side_f error = times != NULL ? times[i] * off : off;
        sums.error += error * off;
        sums.products += error * code;
        sums.squares += (times != NULL ? times[i] * code : code) * code;
    }
    return sums;
}

/* The scale that is best for those codes, as it will be stored, and the error that they have with
 * it: for that the values need not be looked at again. Never below 0, where rounding could put what
 * is next to exact: nothing is better than a grid that was exact when it was tried. */
static inline side_f better_scale(side_f *error, side_f scale, const side_sums *sums,
                                  mq_dtype dtype) {
    const side_f none = {0};
    const side_f by = side_pick(sums->squares > none, sums->products / sums->squares, none);
    const side_f best = scale - by;
    const side_f stored = side_rounded(side_pick(best > none, best, none), dtype);
    const side_f change = stored - scale;
    const side_f left = sums->error + change * (2 * sums->products + change * sums->squares);
    *error = side_pick(left > none, left, none);
    return stored;
}

/* --- super-blocks ----------------------------------------------------------------------------- */

/* Weight i of sub-block j at [i][j]. */
typedef struct sub_weights {
    float at[MQ_FIT_SUB][LANES];
} sub_weights;

static inline sub_weights sub_weights_of(const float values[MQ_FIT_SUBS * MQ_FIT_SUB]) {
    sub_weights w;
    for (size_t j = 0; j < LANES; j++) {
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            w.at[i][j] = values[j * MQ_FIT_SUB + i];
        }
    }
    return w;
}

#endif
