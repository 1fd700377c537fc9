/* The search for super-blocks without an offset, Q3_K and Q6_K: a part of fit_kernel.h. Lane j is
 * sub-block j.
 *
 * Where the slice has an offset and the type has none, a sub-block's best scale is far from unique:
 * its error, seen as a function of the scale, has as many valleys as codes move. So each sub-block
 * is tried with many steps, and takes the one whose codes explain most; then the scale that all
 * share is searched for, by which each sub-block's becomes a whole number. */
#ifndef MQ_EXPORT_FIT_CENTRED_H
#define MQ_EXPORT_FIT_CENTRED_H

#include "export/fit_lanes.h"

enum { CENTRED_TOPS = 6, CENTRED_TURNS = 3 };

/* What a type has room for: codes and scales from -codes and -scales to one less than these, whole
 * numbers. Steps are tried at which the value that is farthest from 0 has a code of `first`, of
 * `first` and `pace` and so on; beyond the room for codes it is cut off. */
typedef struct centred_room {
    float codes, scales;
    float first, pace;
    size_t starts;
    float upper_first; /* a second series, from here on, of which the farthest value's code is on
                          the side that has one less */
    size_t upper_starts;
} centred_room;

/* Tried on slices of two models and on random weights: more of them find next to nothing. */
static const centred_room three_bits = {4, 32, -5.5f, 0.35f, 10, 2.4f, 7};
static const centred_room six_bits = {32, 128, -33, 1, 20, 0, 0};

static inline side_f centred_codes(side_f value, side_f inverse, const centred_room *room) {
    const side_f none = {0}, shift = 0x1.8p23f - none;
    const side_f low = -room->codes - none, high = room->codes - 1 - none;
    return (side_between(value * inverse, low, high) + shift) - shift;
}

/* --- a sub-block's own scale ------------------------------------------------------------------ */

/* The best so far, of each of the sub-blocks. */
typedef struct centred_wish {
    side_f scale, gain;
} centred_wish;

/* The codes at a step, and the scale that is best for them, of which Σ w² - Σ (w - value)² is the
 * gain. */
static inline void try_step(centred_wish *best, const sub_weights *w, size_t j, side_f inverse,
                            const centred_room *room) {
    const side_f none = {0};
    side_f squares = none, products = none;
    for (size_t i = 0; i < MQ_FIT_SUB; i += 2) {
        const side_f v = side_at(w->at[i] + j), u = side_at(w->at[i + 1] + j);
        const side_f a = centred_codes(v, inverse, room), b = centred_codes(u, inverse, room);
        squares += a * a + b * b;
        products += a * v + b * u;
    }
    const side_f scale = side_pick(squares > none, products / squares, none);
    const side_f gain = scale * products;
    const side_i better = gain > best->gain;
    best->scale = side_pick(better, scale, best->scale);
    best->gain = side_pick(better, gain, best->gain);
}

/* The value that is farthest from 0, of each of the sub-blocks from j on. */
static inline side_f farthest(const sub_weights *w, size_t j) {
    side_f far = {0}, most = {0};
    for (size_t i = 0; i < MQ_FIT_SUB; i++) {
        const side_f value = side_at(w->at[i] + j), size = side_pick(value < 0, -value, value);
        far = side_pick(size > most, value, far);
        most = side_pick(size > most, size, most);
    }
    return far;
}

static inline void wish_sides(float *wishes, const sub_weights *w, size_t j, const float *steps,
                              const centred_room *room) {
    const side_f by_far = side_inverse(farthest(w, j));
    centred_wish best = {{0}, {0}};
    try_step(&best, w, j, side_inverse(side_at(steps + j)), room);
    best.gain *= 1 + 0x1p-20f; /* of several that are exact, the one that the others have, too */
    for (size_t k = 0; k < room->starts; k++) {
        try_step(&best, w, j, by_far * (room->first + (float)k * room->pace), room);
    }
    for (size_t k = 0; k < room->upper_starts; k++) {
        try_step(&best, w, j, by_far * (room->upper_first + (float)k * room->pace), room);
    }
    memcpy(wishes + j, &best.scale, sizeof best.scale);
}

/* --- the scale that all share ----------------------------------------------------------------- */

typedef struct centred {
    float d;
    float scales[LANES]; /* whole */
    double error, squares, products;
} centred;

/* Whole scales next to the wishes, and the sums of the codes that follow: Σ (w - value)², Σ x² and
 * Σ x·value, x what d is multiplied by. */
static inline side_sums try_sides(float *scales, const sub_weights *w, size_t j, float d,
                                  const float *wishes, const centred_room *room) {
    const side_f none = {0}, shift = 0x1.8p23f - none;
    const side_f low = -room->scales - none, high = room->scales - 1 - none;
    const float by_d = d != 0 ? 1 / d : 0;
    const side_f s = (side_between(side_at(wishes + j) * by_d, low, high) + shift) - shift;
    const side_f scale = d * s, inverse = side_inverse(scale);
    side_sums all = {{0}, {0}, {0}};
    for (size_t i = 0; i < MQ_FIT_SUB; i += 2) {
        const side_f v = side_at(w->at[i] + j), u = side_at(w->at[i + 1] + j);
        const side_f a = centred_codes(v, inverse, room), b = centred_codes(u, inverse, room);
        const side_f off_a = scale * a - v, off_b = scale * b - u;
        all =
            side_sum(all, (side_sums){off_a * off_a + off_b * off_b, a * a + b * b, a * v + b * u});
    }
    memcpy(scales + j, &s, sizeof s);
    return (side_sums){all.error, s * s * all.squares, s * all.products};
}

static void try_centred(centred *out, const sub_weights *w, float d, const float *wishes,
                        const centred_room *room) {
    float error[LANES], squares[LANES], products[LANES];
    out->d = fit_half(d);
    for (size_t j = 0; j < LANES; j += SIDES) {
        const side_sums sums = try_sides(out->scales, w, j, out->d, wishes, room);
        memcpy(error + j, &sums.error, sizeof sums.error);
        memcpy(squares + j, &sums.squares, sizeof sums.squares);
        memcpy(products + j, &sums.products, sizeof sums.products);
    }
    out->error = out->squares = out->products = 0;
    for (size_t j = 0; j < LANES; j++) {
        out->error += (double)error[j];
        out->squares += (double)squares[j];
        out->products += (double)products[j];
    }
}

/* The largest wish becomes the lowest whole scale, or one of a few above it, with which the others
 * may be met better; then d by least squares and whole scales take turns. */
static centred search_centred(const sub_weights *w, const float wishes[LANES],
                              const centred_room *room) {
    const float least = 0x1p-24f; /* of float16's numbers */
    float largest = 0;
    for (size_t j = 0; j < LANES; j++) {
        largest = fabsf(wishes[j]) > fabsf(largest) ? wishes[j] : largest;
    }
    centred best = {.error = INFINITY}, next;
    for (unsigned k = 0; k < CENTRED_TOPS; k++) {
        float d = -largest / (room->scales * (float)(32 - k) / 32);
        d = d != 0 && fabsf(d) < least ? copysignf(least, d) : d;
        for (size_t turn = 0; turn < CENTRED_TURNS; turn++) {
            try_centred(&next, w, d, wishes, room);
            if (!(next.error < best.error)) {
                break;
            }
            best = next;
            d = next.squares > 0 ? (float)(next.products / next.squares) : 0;
        }
    }
    return best;
}

static void fit_centred(mq_fit_centred *out, const float *values, const float steps[MQ_FIT_SUBS],
                        unsigned bits) {
    const centred_room *room = bits == 3 ? &three_bits : &six_bits;
    const sub_weights w = sub_weights_of(values);
    float wishes[LANES];
    for (size_t j = 0; j < LANES; j += SIDES) {
        wish_sides(wishes, &w, j, steps, room);
    }
    const centred best = search_centred(&w, wishes, room);
    out->scale = best.d;
    for (size_t j = 0; j < LANES; j += SIDES) {
        const side_f inverse = side_inverse(best.d * side_at(best.scales + j));
        for (size_t i = 0; i < MQ_FIT_SUB; i++) {
            float codes[SIDES];
            const side_f now = centred_codes(side_at(w.at[i] + j), inverse, room) + room->codes;
            memcpy(codes, &now, sizeof codes);
            for (size_t l = 0; l < SIDES; l++) {
                out->codes[(j + l) * MQ_FIT_SUB + i] = (uint8_t)codes[l];
            }
        }
    }
    for (size_t j = 0; j < LANES; j++) {
        out->scales[j] = (int8_t)best.scales[j];
    }
}

#endif
