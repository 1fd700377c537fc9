/* The search for super-blocks, Q2_K: a part of fit_kernel.h. Lane j is sub-block j.
 *
 * With its codes q as they are, what a sub-block's numbers w = s·q - m + r cost in another grid,
 * S·q - M, takes no more than five sums over them: with a = S - s and b = M - m it is
 *
 *     Σ (S·q - M - w)² = a²·Σq² - 2a·(b·Σq + Σq·r) + b·(16·b + 2·Σr) + Σr²,
 *
 * and the best S for an M is known. So pairs and steps are searched with the codes of the grid that
 * each sub-block wishes for, which cost nothing (r is 0) where that is the slice's own; only then
 * are the codes chosen anew, which can but help. */
#ifndef MQ_EXPORT_FIT_SUPER_H
#define MQ_EXPORT_FIT_SUPER_H

#include "export/fit_lanes.h"

/* The numbers of a super-block, and how often each occurs. */
typedef struct super_values {
    const mq_fit_subs *of;
    float times[MQ_FIT_SUB][LANES];
} super_values;

/* Of each sub-block the grid s·q - m that codes are of, and sums over its weights: q is Σq, qr is
 * Σq·r, and so on; by_qq is 1 / Σq². */
typedef struct super_sums {
    float s[LANES], m[LANES];
    float q[LANES], qq[LANES], by_qq[LANES];
    float r[LANES], qr[LANES], rr[LANES], w[LANES], qw[LANES];
} super_sums;

typedef struct super {
    float scale, minimum;               /* d and dmin */
    float scales[LANES], minima[LANES]; /* whole, 0 … 15 */
    float error;
} super;

/* --- the numbers ------------------------------------------------------------------------------ */

/* The sum of eight bytes, at most 255. */
static inline unsigned sum_bytes(uint64_t bytes) {
    return (unsigned)(bytes * 0x0101010101010101u >> 56);
}

/* Of the numbers of a sub-block, which are less than 4: by their two bits. */
static inline void count_four(super_values *out, size_t j) {
    const uint64_t each = 0x0101010101010101u;
    uint64_t eight[2];
    memcpy(eight, out->of->numbers + j * MQ_FIT_SUB, sizeof eight);
    const uint64_t high[2] = {eight[0] >> 1 & each, eight[1] >> 1 & each};
    const unsigned odd = sum_bytes((eight[0] & each) + (eight[1] & each));
    const unsigned upper = sum_bytes(high[0] + high[1]);
    const unsigned last = sum_bytes((eight[0] & high[0]) + (eight[1] & high[1]));
    out->times[0][j] = (float)(MQ_FIT_SUB + last - odd - upper);
    out->times[1][j] = (float)(odd - last);
    out->times[2][j] = (float)(upper - last);
    out->times[3][j] = (float)last;
}

static void count_numbers(super_values *out) {
    for (size_t j = 0; j < LANES; j++) {
        if (out->of->count == 4) {
            count_four(out, j);
            continue;
        }
        unsigned times[MQ_FIT_SUB] = {0};
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            times[out->of->numbers[j * MQ_FIT_SUB + i]]++;
        }
        for (size_t i = 0; i < out->of->count; i++) {
            out->times[i][j] = (float)times[i];
        }
    }
}

static inline side_f side_whole(side_f value, side_f most) {
    const side_f none = {0}, shift = 0x1.8p23f - none;
    return (side_between(value, none, most) + shift) - shift;
}

/* With the nearest codes, which are put at codes, of the grid s·q - m from lane j on. */
static inline void sum_sides(super_sums *out, float codes[MQ_FIT_SUB][LANES], const super_values *w,
                             size_t j) {
    const side_f none = {0}, s = side_at(out->s + j), m = side_at(out->m + j);
    const side_f inverse = side_inverse(s);
    side_f q = none, qq = none, r = none, qr = none, rr = none;
    for (size_t i = 0; i < w->of->count; i++) {
        const side_f value = side_at(w->of->values[i] + j), times = side_at(w->times[i] + j);
        const side_f code = side_whole((value + m) * inverse, 3 - none);
        const side_f off = value - (s * code - m), coded = times * code, left = times * off;
        q += coded;
        qq += coded * code;
        r += left;
        qr += left * code;
        rr += left * off;
        memcpy(codes[i] + j, &code, sizeof code);
    }
    const side_f by_qq = side_inverse(qq);
    const side_f sum = s * q - m * (float)MQ_FIT_SUB + r, product = s * qq - m * q + qr;
    memcpy(out->q + j, &q, sizeof q);
    memcpy(out->qq + j, &qq, sizeof qq);
    memcpy(out->by_qq + j, &by_qq, sizeof by_qq);
    memcpy(out->r + j, &r, sizeof r);
    memcpy(out->qr + j, &qr, sizeof qr);
    memcpy(out->rr + j, &rr, sizeof rr);
    memcpy(out->w + j, &sum, sizeof sum);
    memcpy(out->qw + j, &product, sizeof product);
}

/* In a fixed order, which processors can take four at a time. */
static inline float sum_of(const float lane[LANES]) {
    typedef float four_f __attribute__((vector_size(4 * sizeof(float))));
    four_f part[4];
    memcpy(part, lane, sizeof part);
    const four_f all = (part[0] + part[1]) + (part[2] + part[3]);
    return (all[0] + all[2]) + (all[1] + all[3]);
}

/* Returns what they cost. */
static float sum_super(super_sums *out, float codes[MQ_FIT_SUB][LANES], const super_values *w) {
    for (size_t j = 0; j < LANES; j += SIDES) {
        sum_sides(out, codes, w, j);
    }
    return sum_of(out->rr);
}

/* --- pairs and steps -------------------------------------------------------------------------- */

/* For d and dmin as they are: for the sub-blocks from j on the best 4-bit pairs whose minimum is
 * near that of their codes' grid. */
static inline void assign_sides(super *out, float *least_errors, const super_sums *of, size_t j) {
    const side_f none = {0}, most = 15 - none;
    const side_f s = side_at(of->s + j), m = side_at(of->m + j), q = side_at(of->q + j);
    const side_f qq = side_at(of->qq + j), by_squares = side_at(of->by_qq + j),
                 qr = side_at(of->qr + j);
    const side_f r = 2 * side_at(of->r + j), rr = side_at(of->rr + j);
    const float by_scale = out->scale != 0 ? 1 / out->scale : 0;
    const float by_minimum = out->minimum != 0 ? 1 / out->minimum : 0;
    const side_f near = side_whole(m * by_minimum, most);
    side_f scales = none, minima = none, least = INFINITY - none;
    for (int step = -1; step <= 1; step++) {
        const side_f minimum = side_between(near + (float)step, none, most);
        const side_f b = out->minimum * minimum - m, slope = b * q + qr;
        const side_f scale = side_whole((s + slope * by_squares) * by_scale, most);
        const side_f a = out->scale * scale - s;
        const side_f error = a * (a * qq - 2 * slope) + (b * ((float)MQ_FIT_SUB * b + r) + rr);
        const side_i better = error < least;
        least = side_pick(better, error, least);
        scales = side_pick(better, scale, scales);
        minima = side_pick(better, minimum, minima);
    }
    memcpy(out->scales + j, &scales, sizeof scales);
    memcpy(out->minima + j, &minima, sizeof minima);
    memcpy(least_errors + j, &least, sizeof least);
}

static void assign_super(super *out, const super_sums *of, float scale, float minimum) {
    float least[LANES];
    out->scale = fit_half(scale);
    out->minimum = fit_half(minimum);
    for (size_t j = 0; j < LANES; j += SIDES) {
        assign_sides(out, least, of, j);
    }
    out->error = sum_of(least);
}

/* Least squares for d and dmin with everything else as it is, x = scales·q and y = -minima; as they
 * are where these do not tell them apart. */
static inline void solve_super(float *scale, float *minimum, const super *block,
                               const super_sums *of) {
    float products[5][LANES];
    for (size_t j = 0; j < LANES; j++) {
        const float x = block->scales[j], y = -block->minima[j];
        products[0][j] = x * x * of->qq[j];
        products[1][j] = x * y * of->q[j];
        products[2][j] = y * y * (float)MQ_FIT_SUB;
        products[3][j] = x * of->qw[j];
        products[4][j] = y * of->w[j];
    }
    const double xx = (double)sum_of(products[0]), xy = (double)sum_of(products[1]);
    const double yy = (double)sum_of(products[2]);
    const double xw = (double)sum_of(products[3]), yw = (double)sum_of(products[4]);
    const double determinant = xx * yy - xy * xy;
    const bool is_known = determinant > 1e-9 * xx * yy;
    const double by = is_known ? 1 / determinant : 0;
    *scale = is_known ? (float)((xw * yy - yw * xy) * by) : block->scale;
    *minimum = is_known ? (float)((yw * xx - xw * xy) * by) : block->minimum;
}

static float largest_lane(const float lane[LANES]) {
    float largest = 0;
    for (size_t j = 0; j < LANES; j++) {
        largest = lane[j] > largest ? lane[j] : largest;
    }
    return largest;
}

/* Coarser steps may meet the wishes better: several are begun with and improved side by side. */
static super search_super(const super_sums *of) {
    enum { STARTS = 5, TURNS = 2 };
    super tried[TURNS * STARTS];
    const float scale = largest_lane(of->s), minimum = largest_lane(of->m);
    for (size_t k = 0; k < STARTS; k++) {
        const float part = 1 / (float)(15 - k);
        assign_super(&tried[k], of, scale * part, minimum * part);
    }
    for (size_t k = STARTS; k < TURNS * STARTS; k++) {
        float better_scale, better_minimum;
        solve_super(&better_scale, &better_minimum, &tried[k - STARTS], of);
        assign_super(&tried[k], of, better_scale, better_minimum);
    }
    size_t best = 0;
    for (size_t k = 1; k < TURNS * STARTS; k++) {
        best = tried[k].error < tried[best].error ? k : best;
    }
    return tried[best];
}

/* --- all of it -------------------------------------------------------------------------------- */

/* The code of each weight of a sub-block: of, by its number. */
static inline void put_sub(uint8_t *codes, const uint8_t of[MQ_FIT_SUB], const uint8_t *numbers,
                           size_t count) {
    if (count != 4) {
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            codes[i] = of[numbers[i]];
        }
        return;
    }
    for (size_t i = 0; i < MQ_FIT_SUB; i++) { /* looked up without a load, all side by side */
        const uint8_t low = numbers[i] & 1 ? of[1] : of[0], high = numbers[i] & 1 ? of[3] : of[2];
        codes[i] = numbers[i] & 2 ? high : low;
    }
}

/* codes: of the numbers of each sub-block. */
static void put_super(mq_fit_super *out, const super *from, float codes[MQ_FIT_SUB][LANES],
                      const mq_fit_subs *of) {
    uint8_t whole[MQ_FIT_SUB][LANES];
    out->scale = from->scale;
    out->minimum = from->minimum;
    for (size_t j = 0; j < LANES; j++) {
        out->scales[j] = (uint8_t)(int)from->scales[j];
        out->minima[j] = (uint8_t)(int)from->minima[j];
    }
    for (size_t i = 0; i < of->count; i++) {
        for (size_t j = 0; j < LANES; j++) {
            whole[i][j] = (uint8_t)(int)codes[i][j];
        }
    }
    for (size_t j = 0; j < LANES; j++) {
        uint8_t each[MQ_FIT_SUB];
        for (size_t i = 0; i < of->count; i++) {
            each[i] = whole[i][j];
        }
        put_sub(out->codes + j * MQ_FIT_SUB, each, of->numbers + j * MQ_FIT_SUB, of->count);
    }
}

/* Codes, and the grid that they are the nearest of. */
typedef struct super_found {
    super grid;
    super_sums sums;
    float codes[MQ_FIT_SUB][LANES];
    float error;
} super_found;

static void choose_codes(super_found *out, const super_values *w) {
    for (size_t j = 0; j < LANES; j++) {
        out->sums.s[j] = out->grid.scale * out->grid.scales[j];
        out->sums.m[j] = out->grid.minimum * out->grid.minima[j];
    }
    out->error = sum_super(&out->sums, out->codes, w);
}

static void fit_super(mq_fit_super *out, const mq_fit_subs *of) {
    /* levels keep their codes in grids near theirs; those of other numbers move with the grid */
    const size_t turns = of->count == 4 ? 1 : 5;
    super_values w;
    super_found best, next;
    w.of = of;
    count_numbers(&w);
    memcpy(best.sums.s, of->wish_scale, sizeof best.sums.s);
    memcpy(best.sums.m, of->wish_minimum, sizeof best.sums.m);
    sum_super(&best.sums, best.codes, &w);
    best.grid = (super){0};
    best.error = INFINITY; /* of wishes, which are not to be had */
    for (size_t turn = 0; turn < turns; turn++) {
        next.grid = search_super(&best.sums);
        choose_codes(&next, &w);
        if (!(next.error < best.error)) {
            break;
        }
        best = next;
    }
    out->error = (double)best.error;
    put_super(out, &best.grid, best.codes, of);
}

#endif
