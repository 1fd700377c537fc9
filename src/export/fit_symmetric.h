/* The search for blocks without an offset, Q8_0: a part of fit_kernel.h. */
#ifndef MQ_EXPORT_FIT_SYMMETRIC_H
#define MQ_EXPORT_FIT_SYMMETRIC_H

#include "export/fit_lanes.h"

enum { STARTS = 4, TURNS = 3 };

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
static float fit_block(float codes[MQ_FIT_BLOCK], const float *values, float step) {
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

static inline side_f side_symmetric(side_f value, side_f inverse) {
    const side_f none = {0}, most = 127 - none, shift = 0x1.8p23f - none;
    return (side_between(value * inverse, -most, most) + shift) - shift;
}

static inline side_sums add_pair(const side_f *w, size_t l, side_f scale, side_f inverse) {
    const side_f v = w[l], u = w[l + LANES];
    const side_f a = side_symmetric(v, inverse), b = side_symmetric(u, inverse);
    const side_f off_a = scale * a - v, off_b = scale * b - u;
    return (side_sums){off_a * off_a + off_b * off_b, a * a + b * b, a * v + b * u};
}

/* try_symmetric of each lane; its sums are taken in the same order, so that results are the same.
 */
static inline side_f try_blocks(side_f *better, const side_f *w, side_f scale) {
    const side_f none = {0};
    const side_f inverse = side_pick(scale != none, 1 / scale, none);
    side_sums half[2];
    for (size_t k = 0; k < 2; k++) {
        side_sums quarter[2];
        for (size_t j = 0; j < 2; j++) {
            const size_t l = k + 2 * j;
            quarter[j] = side_sum(
                side_sum(add_pair(w, l, scale, inverse), add_pair(w, l + 8, scale, inverse)),
                side_sum(add_pair(w, l + 4, scale, inverse), add_pair(w, l + 12, scale, inverse)));
        }
        half[k] = side_sum(quarter[0], quarter[1]);
    }
    const side_sums all = side_sum(half[0], half[1]);
    *better = side_pick(all.squares > none, all.products / all.squares, none);
    return all.error;
}

/* fit_block of SIDES blocks. */
static void fit_blocks(float *scales, float *codes, const float *values, const float *steps) {
    float turned[MQ_FIT_BLOCK][SIDES];
    side_f w[MQ_FIT_BLOCK], largest = {0}, step;
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        for (size_t l = 0; l < SIDES; l++) {
            turned[i][l] = values[l * MQ_FIT_BLOCK + i];
        }
    }
    memcpy(w, turned, sizeof w);
    memcpy(&step, steps, sizeof step);
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        const side_f size = side_pick(w[i] < 0, -w[i], w[i]);
        largest = side_pick(size > largest, size, largest);
    }
    const side_f starts[STARTS] = {largest / 127, largest / 126.5f, largest / 127.4f,
                                   side_pick(step < 0, -step, step)};
    side_f best = {0}, least = {0};
    side_f tried[TURNS][STARTS], errors[TURNS][STARTS];
    for (size_t i = 0; i < STARTS; i++) {
        side_f scale = starts[i];
        for (size_t k = 0; k < TURNS; k++) {
            side_f better;
            tried[k][i] = side_half(scale);
            errors[k][i] = try_blocks(&better, w, tried[k][i]);
            scale = better;
        }
    }
    for (size_t k = 0; k < TURNS; k++) {
        for (size_t i = 0; i < STARTS; i++) {
            const side_i is_less = k + i == 0 ? (side_i)(least == least) : errors[k][i] < least;
            least = side_pick(is_less, errors[k][i], least);
            best = side_pick(is_less, tried[k][i], best);
        }
    }
    const side_f none = {0}, inverse = side_pick(best != none, 1 / best, none);
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        w[i] = side_symmetric(w[i], inverse);
    }
    memcpy(turned, w, sizeof w);
    for (size_t l = 0; l < SIDES; l++) {
        for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
            codes[l * MQ_FIT_BLOCK + i] = turned[i][l];
        }
    }
    memcpy(scales, &best, sizeof best);
}

static void fit_symmetric(float *scales, float *codes, const float *values, const float *steps,
                          size_t count) {
    size_t at = 0;
    for (; at + SIDES <= count; at += SIDES) {
        fit_blocks(scales + at, codes + at * MQ_FIT_BLOCK, values + at * MQ_FIT_BLOCK, steps + at);
    }
    for (; at < count; at++) {
        scales[at] = fit_block(codes + at * MQ_FIT_BLOCK, values + at * MQ_FIT_BLOCK, steps[at]);
    }
}

#endif
