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

/* The numbers of a super-block, and how often each occurs. */
typedef struct super_values {
    const mq_fit_subs *of;
    float times[MQ_FIT_SUB][LANES];
} super_values;

/* How many of the bytes of 0 and 1 are 1. */
static inline unsigned count_ones(uint64_t bytes) {
    return (unsigned)(bytes * 0x0101010101010101u >> 56);
}

static void count_numbers(super_values *out) {
    const mq_fit_subs *of = out->of;
    for (size_t j = 0; j < LANES; j++) {
        const uint8_t *numbers = of->numbers + j * MQ_FIT_SUB;
        unsigned times[MQ_FIT_SUB] = {0};
        if (of->count <= 4) { /* eight at a time by their two bits */
            for (size_t i = 0; i < MQ_FIT_SUB; i += 8) {
                const uint64_t each = 0x0101010101010101u;
                uint64_t eight;
                memcpy(&eight, numbers + i, sizeof eight);
                const uint64_t low = eight & each, high = eight >> 1 & each;
                times[1] += count_ones(low & ~high);
                times[2] += count_ones(high & ~low);
                times[3] += count_ones(low & high);
            }
            times[0] = MQ_FIT_SUB - times[1] - times[2] - times[3];
        } else {
            for (size_t i = 0; i < MQ_FIT_SUB; i++) {
                times[numbers[i]]++;
            }
        }
        for (size_t i = 0; i < of->count; i++) {
            out->times[i][j] = (float)times[i];
        }
    }
}

/* Σ (w - value)² of each of the sub-blocks from j on. */
static inline side_f pair_error(const super_values *w, size_t j, side_f scale, side_f minimum,
                                side_f inverse) {
    side_f error = {0};
    for (size_t i = 0; i < w->of->count; i++) {
        const side_f value = side_at(w->of->values[i] + j);
        const side_f off = scale * super_codes(value, minimum, inverse) - minimum - value;
        error += side_at(w->times[i] + j) * off * off;
    }
    return error;
}

/* For d and dmin as they are: for the sub-blocks from j on the best 4-bit pairs near the wishes. */
static inline void assign_sides(super *out, float *least_errors, const super_values *w, size_t j) {
    const side_f none = {0}, most = 15 - none, shift = 0x1.8p23f - none;
    const float by_scale = out->scale != 0 ? 1 / out->scale : 0;
    const float by_minimum = out->minimum != 0 ? 1 / out->minimum : 0;
    const side_f near_s =
        (side_between(side_at(w->of->wish_scale + j) * by_scale, none, most) + shift) - shift;
    const side_f near_m =
        (side_between(side_at(w->of->wish_minimum + j) * by_minimum, none, most) + shift) - shift;
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

/* In a fixed order, which processors can take four at a time. */
static double sum_of(const float lane[LANES]) {
    double part[4] = {0};
    for (size_t j = 0; j < LANES; j += 4) {
        for (size_t k = 0; k < 4; k++) {
            part[k] += (double)lane[j + k];
        }
    }
    return (part[0] + part[1]) + (part[2] + part[3]);
}

static void assign_super(super *out, const super_values *w, float scale, float minimum) {
    float least[LANES];
    out->scale = fit_half(scale);
    out->minimum = fit_half(minimum);
    for (size_t j = 0; j < LANES; j += SIDES) {
        assign_sides(out, least, w, j);
    }
    out->error = sum_of(least);
}

/* Of each sub-block, x = scales·q and y = -minima: the sums of products that least squares take. */
typedef struct super_sums {
    float xx[LANES], xy[LANES], yy[LANES], xw[LANES], yw[LANES];
} super_sums;

static inline void add_super(super_sums *out, const super *block, const super_values *w, size_t j) {
    const side_f none = {0}, s = side_at(block->scales + j), y = -side_at(block->minima + j);
    const side_f part = block->scale * s, inverse = side_pick(part != none, 1 / part, none);
    const side_f minimum = block->minimum * side_at(block->minima + j);
    side_f codes = none, squares = none, products = none, sums = none;
    for (size_t i = 0; i < w->of->count; i++) {
        const side_f value = side_at(w->of->values[i] + j), times = side_at(w->times[i] + j);
        const side_f q = super_codes(value, minimum, inverse), weighted = times * q;
        codes += weighted;
        squares += weighted * q;
        products += weighted * value;
        sums += times * value;
    }
    const side_f xx = s * s * squares, xy = s * y * codes, yy = y * y * (float)MQ_FIT_SUB;
    const side_f xw = s * products, yw = y * sums;
    memcpy(out->xx + j, &xx, sizeof xx);
    memcpy(out->xy + j, &xy, sizeof xy);
    memcpy(out->yy + j, &yy, sizeof yy);
    memcpy(out->xw + j, &xw, sizeof xw);
    memcpy(out->yw + j, &yw, sizeof yw);
}

/* Least squares for d and dmin with everything else as it is. */
static bool solve_super(float *scale, float *minimum, const super *block, const super_values *w) {
    super_sums of;
    for (size_t j = 0; j < LANES; j += SIDES) {
        add_super(&of, block, w, j);
    }
    const double xx = sum_of(of.xx), xy = sum_of(of.xy), yy = sum_of(of.yy);
    const double xw = sum_of(of.xw), yw = sum_of(of.yw);
    const double determinant = xx * yy - xy * xy;
    if (determinant <= 1e-9 * xx * yy) {
        return false;
    }
    *scale = (float)((xw * yy - yw * xy) / determinant);
    *minimum = (float)((yw * xx - xw * xy) / determinant);
    return true;
}

static void put_super(mq_fit_super *out, const super *from, const mq_fit_subs *of) {
    float inverse[LANES], minimum[LANES];
    uint8_t codes[MQ_FIT_SUB][LANES];
    out->scale = from->scale;
    out->minimum = from->minimum;
    for (size_t j = 0; j < LANES; j++) {
        const float part = from->scale * from->scales[j];
        inverse[j] = part != 0 ? 1 / part : 0;
        minimum[j] = from->minimum * from->minima[j];
        out->scales[j] = (uint8_t)from->scales[j];
        out->minima[j] = (uint8_t)from->minima[j];
    }
    for (size_t i = 0; i < of->count; i++) {
        for (size_t j = 0; j < LANES; j++) {
            codes[i][j] = (uint8_t)super_code(of->values[i][j], minimum[j], inverse[j]);
        }
    }
    for (size_t j = 0; j < LANES; j++) {
        for (size_t i = j * MQ_FIT_SUB; i < (j + 1) * MQ_FIT_SUB; i++) {
            out->codes[i] = codes[of->numbers[i]][j];
        }
    }
}

static void fit_super(mq_fit_super *out, const mq_fit_subs *of) {
    super_values w = {.of = of};
    count_numbers(&w);
    float largest_scale = 0, largest_minimum = 0;
    for (size_t j = 0; j < LANES; j++) {
        const float scale = of->wish_scale[j], minimum = of->wish_minimum[j];
        largest_scale = scale > largest_scale ? scale : largest_scale;
        largest_minimum = minimum > largest_minimum ? minimum : largest_minimum;
    }
    super best = {.error = INFINITY}, next;
    for (unsigned top = 15; top >= 11; top -= 2) { /* coarser steps may meet the wishes better */
        assign_super(&next, &w, largest_scale / (float)top, largest_minimum / (float)top);
        for (size_t step = 0; step < 4 && next.error < best.error; step++) {
            float scale, minimum;
            best = next;
            if (!solve_super(&scale, &minimum, &best, &w)) {
                break;
            }
            assign_super(&next, &w, scale, minimum);
        }
    }
    put_super(out, &best, of);
}

#endif
