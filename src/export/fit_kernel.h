/* The searches of fit.h, compiled once for each instruction set: a file that defines MQ_KERNEL_NAME
 * includes this one. Fits are made in single precision, codes as floats, in loops over lanes that
 * compilers turn into vectors. */
#ifndef MQ_KERNEL_NAME
#error "define MQ_KERNEL_NAME before including fit_kernel.h"
#endif

#include <math.h>
#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "export/fit.h"
#include "tensor/bf16.h"

enum { LANES = 16, STARTS = 4, TURNS = 3 /* of Q8_0 */ };

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

static inline float fit_rounded(float value, mq_dtype dtype) {
    if (dtype == MQ_F32) {
        return value;
    }
    if (dtype == MQ_F16) {
        return fit_half(value);
    }
    const uint32_t bits = (uint32_t)mq_bf16_round(value) << 16;
    float rounded;
    memcpy(&rounded, &bits, sizeof rounded);
    return rounded;
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

/* In a fixed order. */
static inline float sum_lanes(const float lane[LANES]) {
    float half[LANES / 2];
    for (size_t l = 0; l < LANES / 2; l++) {
        half[l] = lane[l] + lane[l + LANES / 2];
    }
    return ((half[0] + half[4]) + (half[2] + half[6])) +
           ((half[1] + half[5]) + (half[3] + half[7]));
}

/* --- no offset: Q8_0 -------------------------------------------------------------------------- */

/* -128 is left out, as llama.cpp does: its kernels negate codes. */
static inline float symmetric_code(float value, float inverse) {
    return round_small(between(value * inverse, -127, 127));
}

/* Codes to the nearest level: their error, and the scale that is best for them. */
static inline float try_symmetric(float *better, const float *values, float scale) {
    const float inverse = scale != 0 ? 1 / scale : 0;
    float error[LANES], squares[LANES], products[LANES];
    for (size_t l = 0; l < LANES; l++) {
        const float v = values[l], w = values[l + LANES];
        const float a = symmetric_code(v, inverse), b = symmetric_code(w, inverse);
        const float off_a = scale * a - v, off_b = scale * b - w;
        error[l] = off_a * off_a + off_b * off_b;
        squares[l] = a * a + b * b;
        products[l] = a * v + b * w;
    }
    const float square = sum_lanes(squares);
    *better = square > 0 ? sum_lanes(products) / square : 0;
    return sum_lanes(error);
}

/* From the slice's own step and from the widest range; scale and codes take turns. The starts go
 * side by side without looking at each other, so that a processor need not wait for one of them. */
static float fit_symmetric(float codes[MQ_FIT_BLOCK], const float *values, float step) {
    float largest = 0;
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        const float size = fabsf(values[i]);
        largest = size > largest ? size : largest;
    }
    const float starts[STARTS] = {largest / 127, largest / 126.5f, largest / 127.4f, fabsf(step)};
    float scales[TURNS + 1][STARTS], errors[TURNS][STARTS];
    for (size_t i = 0; i < STARTS; i++) {
        scales[0][i] = fit_half(starts[i]);
    }
    for (size_t k = 0; k < TURNS; k++) {
        for (size_t i = 0; i < STARTS; i++) {
            float better;
            errors[k][i] = try_symmetric(&better, values, scales[k][i]);
            scales[k + 1][i] = fit_half(better);
        }
    }
    float best = scales[0][0], least = errors[0][0];
    for (size_t k = 0; k < TURNS; k++) {
        for (size_t i = 0; i < STARTS; i++) {
            const bool is_less = errors[k][i] < least;
            least = is_less ? errors[k][i] : least;
            best = is_less ? scales[k][i] : best;
        }
    }
    const float inverse = best != 0 ? 1 / best : 0;
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        codes[i] = symmetric_code(values[i], inverse);
    }
    return best;
}

/* --- super-blocks: Q2_K; lane j is sub-block j ------------------------------------------------ */

typedef struct super {
    float scale, minimum;               /* d and dmin */
    float scales[LANES], minima[LANES]; /* whole, 0 … 15 */
    double error;
} super;

/* The weights of a super-block: i of sub-block j at [i][j]. */
typedef struct sub_weights {
    float at[MQ_FIT_SUB][LANES];
} sub_weights;

static inline float super_code(float value, float minimum, float inverse) {
    return round_small(between((value + minimum) * inverse, 0, 3));
}

static inline float super_error(float value, float scale, float minimum, float inverse) {
    const float off = scale * super_code(value, minimum, inverse) - minimum - value;
    return off * off;
}

/* Keeps this pair for the sub-blocks where it is better than what they have. */
static inline void try_pairs(super *out, float least[LANES], const sub_weights *w,
                             const float s[LANES], const float m[LANES]) {
    float scale[LANES], minimum[LANES], inverse[LANES], error[LANES];
    for (size_t j = 0; j < LANES; j++) {
        scale[j] = out->scale * s[j];
        minimum[j] = out->minimum * m[j];
        inverse[j] = scale[j] != 0 ? 1 / scale[j] : 0;
        error[j] = 0;
    }
    for (size_t i = 0; i < MQ_FIT_SUB; i += 4) {
        for (size_t j = 0; j < LANES; j++) {
            error[j] += (super_error(w->at[i][j], scale[j], minimum[j], inverse[j]) +
                         super_error(w->at[i + 1][j], scale[j], minimum[j], inverse[j])) +
                        (super_error(w->at[i + 2][j], scale[j], minimum[j], inverse[j]) +
                         super_error(w->at[i + 3][j], scale[j], minimum[j], inverse[j]));
        }
    }
    for (size_t j = 0; j < LANES; j++) {
        const bool better = error[j] < least[j];
        least[j] = better ? error[j] : least[j];
        out->scales[j] = better ? s[j] : out->scales[j];
        out->minima[j] = better ? m[j] : out->minima[j];
    }
}

/* For d and dmin as they are: for each sub-block the best 4-bit pair near the wish. */
static void assign_super(super *out, const sub_weights *w, const float wish_scale[LANES],
                         const float wish_minimum[LANES], float scale, float minimum) {
    out->scale = fit_half(scale);
    out->minimum = fit_half(minimum);
    const float by_scale = out->scale != 0 ? 1 / out->scale : 0;
    const float by_minimum = out->minimum != 0 ? 1 / out->minimum : 0;
    float least[LANES];
    for (size_t j = 0; j < LANES; j++) {
        out->scales[j] = out->minima[j] = 0;
        least[j] = INFINITY;
    }
    for (int ds = -1; ds <= 1; ds++) {
        for (int dm = -1; dm <= 1; dm++) {
            float s[LANES], m[LANES];
            for (size_t j = 0; j < LANES; j++) {
                const float near_s = round_small(between(wish_scale[j] * by_scale, 0, 15));
                const float near_m = round_small(between(wish_minimum[j] * by_minimum, 0, 15));
                s[j] = between(near_s + (float)ds, 0, 15);
                m[j] = between(near_m + (float)dm, 0, 15);
            }
            try_pairs(out, least, w, s, m);
        }
    }
    out->error = 0;
    for (size_t j = 0; j < LANES; j++) {
        out->error += (double)least[j];
    }
}

/* Least squares for d and dmin with everything else as it is. */
static bool solve_super(float *scale, float *minimum, const super *block, const sub_weights *w) {
    float codes[LANES] = {0}, squares[LANES] = {0}, products[LANES] = {0}, sums[LANES] = {0};
    for (size_t i = 0; i < MQ_FIT_SUB; i++) {
        for (size_t j = 0; j < LANES; j++) {
            const float part = block->scale * block->scales[j];
            const float inverse = part != 0 ? 1 / part : 0;
            const float q = super_code(w->at[i][j], block->minimum * block->minima[j], inverse);
            codes[j] += q;
            squares[j] += q * q;
            products[j] += q * w->at[i][j];
            sums[j] += w->at[i][j];
        }
    }
    double xx = 0, xy = 0, yy = 0, xw = 0, yw = 0; /* x = scales·q, y = -minima */
    for (size_t j = 0; j < LANES; j++) {
        const double s = block->scales[j], m = block->minima[j];
        xx += s * s * (double)squares[j];
        xy -= s * m * (double)codes[j];
        yy += m * m * MQ_FIT_SUB;
        xw += s * (double)products[j];
        yw -= m * (double)sums[j];
    }
    const double determinant = xx * yy - xy * xy;
    if (determinant <= 1e-9 * xx * yy) {
        return false;
    }
    *scale = (float)((xw * yy - yw * xy) / determinant);
    *minimum = (float)((yw * xx - xw * xy) / determinant);
    return true;
}

static void fit_super(mq_fit_super *out, const float *values, const float wish_scale[MQ_FIT_SUBS],
                      const float wish_minimum[MQ_FIT_SUBS]) {
    sub_weights w;
    float largest_scale = 0, largest_minimum = 0;
    for (size_t j = 0; j < LANES; j++) {
        largest_scale = wish_scale[j] > largest_scale ? wish_scale[j] : largest_scale;
        largest_minimum = wish_minimum[j] > largest_minimum ? wish_minimum[j] : largest_minimum;
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            w.at[i][j] = values[j * MQ_FIT_SUB + i];
        }
    }
    super best = {.error = INFINITY}, next;
    for (unsigned top = 15; top >= 11; top -= 2) { /* coarser steps may meet the wishes better */
        assign_super(&next, &w, wish_scale, wish_minimum, largest_scale / (float)top,
                     largest_minimum / (float)top);
        for (size_t step = 0; step < 4 && next.error < best.error; step++) {
            float scale, minimum;
            best = next;
            if (!solve_super(&scale, &minimum, &best, &w)) {
                break;
            }
            assign_super(&next, &w, wish_scale, wish_minimum, scale, minimum);
        }
    }
    out->scale = best.scale;
    out->minimum = best.minimum;
    for (size_t j = 0; j < LANES; j++) {
        const float part = best.scale * best.scales[j], inverse = part != 0 ? 1 / part : 0;
        out->scales[j] = (uint8_t)best.scales[j];
        out->minima[j] = (uint8_t)best.minima[j];
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            out->codes[j * MQ_FIT_SUB + i] =
                (uint8_t)super_code(w.at[i][j], best.minimum * best.minima[j], inverse);
        }
    }
}

/* --- a whole zero point ----------------------------------------------------------------------- */

/* A grid that is tried; better: the scale that is best for its codes. */
typedef struct trial {
    float scale, error, better;
    unsigned zero;
} trial;

static inline float integer_code(float value, float inverse, float zero, float last) {
    return (float)(int)between(value * inverse + zero + 0.5f, 0, last);
}

/* scale: as it will be stored. */
static inline trial try_integer(const mq_fit_levels *levels, unsigned zero, float scale) {
    const float inverse = scale > 0 ? 1 / scale : 0, z = (float)zero, last = (float)levels->last;
    float sum[LANES] = {0}, tt[LANES] = {0}, tw[LANES] = {0};
    for (size_t i = 0; i < levels->padded; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            const float value = levels->values[i + l];
            const float t = integer_code(value, inverse, z, last) - z;
            const float error = scale * t - value, weighted = levels->times[i + l] * t;
            sum[l] += levels->times[i + l] * error * error;
            tt[l] += weighted * t;
            tw[l] += weighted * value;
        }
    }
    const float squares = sum_lanes(tt);
    return (trial){.scale = scale,
                   .error = sum_lanes(sum),
                   .better = squares > 0 ? sum_lanes(tw) / squares : 0,
                   .zero = zero};
}

/* Scale by least squares and codes to the nearest level take turns, so often at most. */
static trial improve(trial now, const mq_fit_levels *levels, size_t turns, mq_dtype dtype) {
    for (size_t k = 0; k < turns; k++) {
        const float scale = fit_rounded(now.better, dtype);
        if (scale == now.scale) { /* nothing would change any more */
            break;
        }
        const trial next = try_integer(levels, now.zero, scale);
        if (!(next.error < now.error)) {
            break;
        }
        now = next;
    }
    return now;
}

/* Zero points near the slice's own, which need not be within reach; from its own step, and from the
 * least one that reaches both ends. With many levels, a turn from each start tells which two are
 * worth more; with few, starts end too far from where a turn takes them. */
static void fit_integer(mq_fit_grid *out, const mq_fit_levels *levels, mq_dtype dtype) {
    const double own = levels->step > 0 ? -levels->low / levels->step : 0;
    const double near = own < 0 ? 0 : own > levels->last ? levels->last : nearbyint(own);
    const unsigned reach = levels->last <= 7 ? levels->last : 2;
    const unsigned middle = (unsigned)near, first = middle > reach ? middle - reach : 0;
    const size_t turns = levels->last <= 127 ? 7 : 1;
    trial best = {.error = INFINITY}, second = best;
    for (unsigned zero = first; zero <= middle + reach && zero <= levels->last; zero++) {
        const double up =
            levels->high > 0 && zero < levels->last ? levels->high / (levels->last - zero) : 0;
        const double down = levels->low < 0 && zero > 0 ? -levels->low / zero : 0;
        const double starts[] = {levels->step, up > down ? up : down};
        for (size_t i = 0; i < 2; i++) {
            const float scale = fit_rounded((float)starts[i], dtype);
            const trial now = improve(try_integer(levels, zero, scale), levels, turns, dtype);
            if (now.error < best.error) {
                second = best;
                best = now;
            } else if (now.error < second.error) {
                second = now;
            }
        }
    }
    if (turns == 1) {
        best = improve(best, levels, 7, dtype);
        second = second.error < INFINITY ? improve(second, levels, 7, dtype) : second;
    }
    best = second.error < best.error ? second : best;
    const float inverse = best.scale > 0 ? 1 / best.scale : 0;
    out->scale = best.scale;
    out->zero = best.zero;
    for (size_t i = 0; i < levels->count; i++) {
        out->codes[i] =
            integer_code(levels->values[i], inverse, (float)best.zero, (float)levels->last);
    }
}

const mq_fit_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, fit_symmetric, fit_super, fit_integer};
