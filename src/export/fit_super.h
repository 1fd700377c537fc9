/* The search for super-blocks, Q2_K: a part of fit_kernel.h. Lane j is sub-block j. */
#ifndef MQ_EXPORT_FIT_SUPER_H
#define MQ_EXPORT_FIT_SUPER_H

#include "export/fit_lanes.h"

typedef struct super {
    float scale, minimum;               /* d and dmin */
    float scales[LANES], minima[LANES]; /* whole, 0 … 15 */
    double error;
} super;

static inline float super_code(float value, float minimum, float inverse) {
    return round_small(between((value + minimum) * inverse, 0, 3));
}

/* The same of SIDES sub-blocks. */
static inline side_f super_codes(side_f value, side_f minimum, side_f inverse) {
    const side_f none = {0}, shift = 0x1.8p23f - none;
    return (side_between((value + minimum) * inverse, none, 3 - none) + shift) - shift;
}

static inline side_f super_error(side_f value, side_f scale, side_f minimum, side_f inverse) {
    const side_f off = scale * super_codes(value, minimum, inverse) - minimum - value;
    return off * off;
}

/* Σ (w - value)² of each of the sub-blocks from j on. */
static inline side_f pair_error(const sub_weights *w, size_t j, side_f scale, side_f minimum,
                                side_f inverse) {
    side_f error = {0};
    for (size_t i = 0; i < MQ_FIT_SUB; i += 4) {
        error += (super_error(side_at(w->at[i] + j), scale, minimum, inverse) +
                  super_error(side_at(w->at[i + 1] + j), scale, minimum, inverse)) +
                 (super_error(side_at(w->at[i + 2] + j), scale, minimum, inverse) +
                  super_error(side_at(w->at[i + 3] + j), scale, minimum, inverse));
    }
    return error;
}

/* For d and dmin as they are: for the sub-blocks from j on the best 4-bit pairs near the wishes. */
static inline void assign_sides(super *out, float *least_errors, const sub_weights *w, size_t j,
                                const float *wish_scale, const float *wish_minimum) {
    const side_f none = {0}, most = 15 - none, shift = 0x1.8p23f - none;
    const float by_scale = out->scale != 0 ? 1 / out->scale : 0;
    const float by_minimum = out->minimum != 0 ? 1 / out->minimum : 0;
    const side_f near_s =
        (side_between(side_at(wish_scale + j) * by_scale, none, most) + shift) - shift;
    const side_f near_m =
        (side_between(side_at(wish_minimum + j) * by_minimum, none, most) + shift) - shift;
    side_f scales = none, minima = none, least = INFINITY - none;
    for (int ds = -1; ds <= 1; ds++) {
        const side_f s = side_between(near_s + (float)ds, none, most);
        const side_f scale = out->scale * s, inverse = side_pick(scale != none, 1 / scale, none);
        for (int dm = -1; dm <= 1; dm++) {
            const side_f m = side_between(near_m + (float)dm, none, most);
            const side_f error = pair_error(w, j, scale, out->minimum * m, inverse);
            const side_i better = error < least;
            least = side_pick(better, error, least);
            scales = side_pick(better, s, scales);
            minima = side_pick(better, m, minima);
        }
    }
    memcpy(out->scales + j, &scales, sizeof scales);
    memcpy(out->minima + j, &minima, sizeof minima);
    memcpy(least_errors + j, &least, sizeof least);
}

static void assign_super(super *out, const sub_weights *w, const float wish_scale[LANES],
                         const float wish_minimum[LANES], float scale, float minimum) {
    float least[LANES];
    out->scale = fit_half(scale);
    out->minimum = fit_half(minimum);
    for (size_t j = 0; j < LANES; j += SIDES) {
        assign_sides(out, least, w, j, wish_scale, wish_minimum);
    }
    out->error = 0;
    for (size_t j = 0; j < LANES; j++) {
        out->error += (double)least[j];
    }
}

/* Of each sub-block Σ q, Σ q², Σ q·w, Σ w. */
typedef struct super_sums {
    float codes[LANES], squares[LANES], products[LANES], sums[LANES];
} super_sums;

static void add_super(super_sums *out, const super *block, const sub_weights *w) {
    for (size_t j = 0; j < LANES; j += SIDES) {
        const side_f none = {0};
        const side_f part = block->scale * side_at(block->scales + j);
        const side_f inverse = side_pick(part != none, 1 / part, none);
        const side_f minimum = block->minimum * side_at(block->minima + j);
        side_f codes = none, squares = none, products = none, sums = none;
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            const side_f value = side_at(w->at[i] + j), q = super_codes(value, minimum, inverse);
            codes += q;
            squares += q * q;
            products += q * value;
            sums += value;
        }
        memcpy(out->codes + j, &codes, sizeof codes);
        memcpy(out->squares + j, &squares, sizeof squares);
        memcpy(out->products + j, &products, sizeof products);
        memcpy(out->sums + j, &sums, sizeof sums);
    }
}

/* Least squares for d and dmin with everything else as it is. */
static bool solve_super(float *scale, float *minimum, const super *block, const sub_weights *w) {
    super_sums of;
    add_super(&of, block, w);
    double xx = 0, xy = 0, yy = 0, xw = 0, yw = 0; /* x = scales·q, y = -minima */
    for (size_t j = 0; j < LANES; j++) {
        const double s = block->scales[j], m = block->minima[j];
        xx += s * s * (double)of.squares[j];
        xy -= s * m * (double)of.codes[j];
        yy += m * m * MQ_FIT_SUB;
        xw += s * (double)of.products[j];
        yw -= m * (double)of.sums[j];
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
    const sub_weights w = sub_weights_of(values);
    float largest_scale = 0, largest_minimum = 0;
    for (size_t j = 0; j < LANES; j++) {
        largest_scale = wish_scale[j] > largest_scale ? wish_scale[j] : largest_scale;
        largest_minimum = wish_minimum[j] > largest_minimum ? wish_minimum[j] : largest_minimum;
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

#endif
