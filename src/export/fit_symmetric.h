/* The search for blocks without an offset, Q8_0: a part of fit_kernel.h. Lane l is block l. */
#ifndef MQ_EXPORT_FIT_SYMMETRIC_H
#define MQ_EXPORT_FIT_SYMMETRIC_H

#include "export/fit_lanes.h"

/* -128 is left out, as llama.cpp does: its kernels negate codes. */
enum { SYMMETRIC_LAST = 127 };

/* Steps that are tried besides the slice's own, in the least ones that clip nothing: chosen like
 * those of fit_integer.h. */
static const float symmetric_trials[] = {1, 1.008f, 1.016f, 1.032f};
enum { SYMMETRIC_TRIALS = sizeof symmetric_trials / sizeof *symmetric_trials };

/* Weight i of up to SIDES blocks at out[i]; lanes without a block are 0. */
static void read_blocks(side_f out[MQ_FIT_BLOCK], const float *values, size_t count) {
    for (size_t first = 0; first < MQ_FIT_BLOCK; first += SIDES) {
        for (size_t l = 0; l < SIDES; l++) {
            out[first + l] = l < count ? side_at(values + l * MQ_FIT_BLOCK + first) : (side_f){0};
        }
        side_turn(out + first);
    }
}

/* A grid that is tried, better_scale of fit_lanes.h in units of its step: x = value / step, r = x -
 * code. Of the squares of codes no sum is needed, as Σcode² = Σx² - 2·Σ(r·code) - Σr². */
typedef struct symmetric_try {
    side_f scale, error; /* the best scale for the nearest codes, a float16; their error with it */
} symmetric_try;

static inline symmetric_try try_symmetric(const side_f values[MQ_FIT_BLOCK], side_f power,
                                          side_f step, bool is_clipped) {
    const side_f none = {0}, last = (float)SYMMETRIC_LAST - none, shift = 0x1.8p23f - none;
    const side_i is_step = step > none;
    const side_f inverse = side_pick(is_step, 1 / step, none);
    side_f squares = none, products = none;
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        const side_f x = values[i] * inverse;
        const side_f code = ((is_clipped ? side_between(x, -last, last) : x) + shift) - shift;
        const side_f r = x - code;
        squares += r * r;
        products += r * code;
    }
    const side_f codes = power * inverse * inverse - 2 * products - squares;
    const side_f by = side_pick(codes > none, products / codes, none);
    const side_f scale = side_half(step * (1 + by));
    const side_f change = side_pick(is_step, scale * inverse - 1, none);
    const side_f left = squares + change * (change * codes - 2 * products);
    return (symmetric_try){scale, side_largest(left, none) * step * step};
}

static side_f symmetric_scale(const side_f values[MQ_FIT_BLOCK], side_f step) {
    side_f largest = {0}, power = {0};
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        largest = side_largest(side_size(values[i]), largest);
        power += values[i] * values[i];
    }
    const side_f least_step = largest / (float)SYMMETRIC_LAST, own = side_size(step);
    symmetric_try best = try_symmetric(values, power, own, true);
    /* A far smaller one, of a group of nearly equal weights, clips nearly all of them, and its sums
     * are differences of large numbers. */
    const side_i is_near = own > least_step * 0.25f;
    best.error = side_pick(is_near, best.error, INFINITY - (side_f){0});
    best.scale = side_pick(is_near, best.scale, (side_f){0});
    for (size_t k = 0; k < SYMMETRIC_TRIALS; k++) {
        const symmetric_try next =
            try_symmetric(values, power, least_step * symmetric_trials[k], false);
        const side_i better = next.error < best.error;
        best.error = side_pick(better, next.error, best.error);
        best.scale = side_pick(better, next.scale, best.scale);
    }
    return best.scale;
}

static void put_symmetrics(int8_t *codes, const float *values, float scale) {
    int32_t whole[MQ_FIT_BLOCK];
    const side_f none = {0}, last = (float)SYMMETRIC_LAST - none, shift = 0x1.8p23f - none;
    const float inverse = scale > 0 ? 1 / scale : 0;
    for (size_t i = 0; i < MQ_FIT_BLOCK; i += SIDES) {
        const side_f code =
            (side_between(side_at(values + i) * inverse, -last, last) + shift) - shift;
        const side_i now = __builtin_convertvector(code, side_i);
        memcpy(whole + i, &now, sizeof now);
    }
    for (size_t i = 0; i < MQ_FIT_BLOCK; i++) {
        codes[i] = (int8_t)whole[i];
    }
}

static void fit_symmetric(float *scales, int8_t *codes, float *errors, const float *values,
                          const float *steps, size_t count) {
    const side_f last = (float)SYMMETRIC_LAST - (side_f){0};
    for (size_t first = 0; first < count; first += SIDES) {
        const size_t left = count - first, now = left < SIDES ? left : SIDES;
        side_f block[MQ_FIT_BLOCK], step = {0};
        read_blocks(block, values + first * MQ_FIT_BLOCK, now);
        memcpy(&step, steps + first, now * sizeof *steps);
        const side_f scale = symmetric_scale(block, step);
        const side_sums sums = try_scale(block, NULL, MQ_FIT_BLOCK, scale, -last, last, true);
        memcpy(scales + first, &scale, now * sizeof *scales);
        memcpy(errors + first, &sums.error, now * sizeof *errors);
        for (size_t l = first; l < first + now; l++) {
            put_symmetrics(codes + l * MQ_FIT_BLOCK, values + l * MQ_FIT_BLOCK, scales[l]);
        }
    }
}

#endif
