/* The search for grids with a whole zero point: a part of fit_kernel.h. Lane l is group l.
 *
 * A few grids are tried, each with one pass over the values: from the nearest codes follow their
 * best scale and what they cost with it. The best is kept. Which grids: the slice's own step, and
 * steps that are somewhat narrower (clipped at the ends) or wider (other levels meet other codes).
 */
#ifndef MQ_EXPORT_FIT_INTEGER_H
#define MQ_EXPORT_FIT_INTEGER_H

#include "export/fit_lanes.h"

/* A grid that is tried. */
typedef struct integer_trial {
    float step; /* in the slice's steps; above 1 nothing is clipped */
    bool other; /* the zero point on the other side of the slice's, not the nearest to it */
} integer_trial;

enum { TRIALS_MAX = 8 };

/* By the width of the slice, most useful first: chosen one after the other from a fine raster, each
 * as what took most error from groups of masters and of normal and uniform numbers. The first has
 * to be the slice's own: where that has a whole zero point, it is exact. As many as pay: at 4 bits
 * two more would take 0.1 % off the error, at 8, where it is small and each takes a pass over the
 * weights, three more 5 %. */
static const struct {
    size_t count;
    integer_trial at[TRIALS_MAX];
} integer_trials[] = {
    [2] = {5, {{1, 0}, {0.6f, 1}, {0.44f, 0}, {0.66f, 0}, {1.3f, 0}}},
    [3] = {5, {{1, 0}, {0.82f, 0}, {0.82f, 1}, {1.2f, 0}, {0.7f, 0}}},
    [4] = {6, {{1, 0}, {0.91f, 0}, {1.12f, 0}, {0.9f, 1}, {1.19f, 0}, {0.81f, 0}}},
    [5] = {8,
           {{1, 0},
            {1.095f, 0},
            {1.06f, 0},
            {1.165f, 0},
            {0.94f, 0},
            {1.125f, 0},
            {1.215f, 0},
            {1.035f, 0}}},
    [6] = {8,
           {{1, 0},
            {1.1f, 0},
            {1.04f, 0},
            {1.3f, 0},
            {1.06f, 0},
            {1.024f, 0},
            {1.132f, 0},
            {1.076f, 0}}},
    [7] = {8,
           {{1, 0},
            {1.138f, 0},
            {1.028f, 0},
            {1.17f, 0},
            {1.044f, 0},
            {1.212f, 0},
            {1.062f, 0},
            {1.014f, 0}}},
    [8] = {5, {{1, 0}, {1.168f, 0}, {1.022f, 0}, {1.062f, 0}, {1.012f, 0}}},
};

/* The values of SIDES groups: of each level how often it occurs, or one weight after the other. */
typedef struct integer_values {
    size_t count;
    side_f values[MQ_FIT_LEVELS];
    side_f times[MQ_FIT_LEVELS]; /* where is_counted */
} integer_values;

/* SIDES grids. */
typedef struct integer_grids {
    side_f scale, zero;
} integer_grids;

/* --- reading ---------------------------------------------------------------------------------- */

#if defined(__AVX2__)
/* Which of 64 bytes are `byte`, a bit each. */
static inline uint64_t equal_bytes(const uint8_t *at, unsigned byte) {
#if defined(__AVX512BW__)
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(at), _mm512_set1_epi8((char)byte));
#else
    const __m256i same = _mm256_set1_epi8((char)byte);
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)at);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(at + 32));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, same)) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, same)) << 32;
#endif
}
#endif

/* times[s · SIDES]: how many of slices[size] are s, for s up to last. */
static void count_levels(int32_t *times, const uint8_t *slices, size_t size, unsigned last) {
    size_t i = 0;
    for (unsigned s = 0; s <= last; s++) {
        times[s * SIDES] = 0;
    }
#if defined(__AVX2__)
    for (; last < 32 && i + 64 <= size; i += 64) { /* counting one by one waits for itself */
        for (unsigned s = 0; s <= last; s++) {
            times[s * SIDES] += __builtin_popcountll(equal_bytes(slices + i, s));
        }
    }
#endif
    for (; i < size; i++) {
        times[slices[i] * SIDES]++;
    }
}

/* Groups of the same size, one after the other: at least one. Lanes without one take the first. */
static void read_levels(integer_values *out, const uint8_t *slices, size_t count, size_t size,
                        unsigned last, side_f scale, side_f bias) {
    int32_t times[MQ_FIT_LEVELS][SIDES];
    for (size_t l = 0; l < SIDES; l++) {
        count_levels(&times[0][l], slices + (l < count ? l : 0) * size, size, last);
    }
    out->count = last + 1;
    for (size_t s = 0; s <= last; s++) {
        side_i whole;
        memcpy(&whole, times[s], sizeof whole);
        out->times[s] = __builtin_convertvector(whole, side_f);
        out->values[s] = scale * (float)s + bias; /* as eval computes it */
    }
}

/* They are moved in the time of one. Where fewer are left, zeros follow. */
static inline uint32_t four_bytes(const uint8_t *at, size_t left) {
    uint32_t word = 0;
    if (left >= sizeof word) {
        memcpy(&word, at, sizeof word);
        return word;
    }
    for (size_t k = 0; k < left; k++) {
        word |= (uint32_t)at[k] << 8 * k;
    }
    return word;
}

static void read_weights(integer_values *out, const uint8_t *slices, size_t count, size_t size,
                         side_f scale, side_f bias) {
    out->count = size;
    for (size_t i = 0; i < size; i += 4) {
        const size_t left = size - i < 4 ? size - i : 4;
        uint32_t words[SIDES];
        for (size_t l = 0; l < SIDES; l++) {
            words[l] = four_bytes(slices + (l < count ? l : 0) * size + i, left);
        }
        side_u word;
        memcpy(&word, words, sizeof word);
        for (size_t k = 0; k < left; k++) {
            const side_i slice = (side_i)(word >> 8 * (unsigned)k & 255u);
            out->values[i + k] = scale * __builtin_convertvector(slice, side_f) + bias;
        }
    }
}

/* --- trying ----------------------------------------------------------------------------------- */

static inline side_sums try_integers(const integer_values *of, integer_grids at, unsigned last,
                                     bool is_counted, bool is_clipped) {
    return try_scale(of->values, is_counted ? of->times : NULL, of->count, at.scale, -at.zero,
                     (float)last - at.zero, is_clipped);
}

/* The slices' own grids: their steps, wider where 0 lies so far outside that no zero point reaches
 * all of the range, and the sums of both ends. */
typedef struct integer_range {
    side_f step, ends;
} integer_range;

static inline integer_range range_of(side_f scale, side_f bias, unsigned last) {
    const side_f none = {0}, most = (float)last - none, shift = 0x1.8p23f - none;
    const side_f end = scale * (float)last + bias;
    const side_f low = side_pick(bias < end, bias, end), high = side_pick(bias < end, end, bias);
    const side_f step = side_pick(scale < none, -scale, scale);
    const side_f own = side_pick(step > none, -low / step, side_pick(low < none, most, none));
    const side_f near = (side_between(own, none, most) + shift) - shift;
    const side_f up = high / (most - near + 0.5f), down = -low / (near + 0.5f);
    const side_f reach = side_pick(up > down, up, down);
    return (integer_range){side_pick(reach > step, reach, step), low + high};
}

/* Where wider steps leave room, the same on both sides. */
static inline side_f zero_of(const integer_range *range, integer_trial from, unsigned last) {
    const side_f none = {0}, most = (float)last - none, shift = 0x1.8p23f - none;
    const side_f step = range->step * (from.step > 1 ? from.step : 1);
    const side_f ends = side_pick(step > none, range->ends / step, none);
    const side_f middle = side_between((most - ends) / 2, none, most);
    const side_f near = (middle + shift) - shift;
    const side_f other = near + side_pick(middle < near, none - 1, none + 1);
    return from.other ? side_between(other, none, most) : near;
}

static inline integer_grids find_grids(const integer_values *of, const integer_range *range,
                                       unsigned width, mq_dtype dtype, bool is_counted) {
    const unsigned last = (1u << width) - 1;
    integer_grids best = {0};
    const side_f none = {0};
    side_f least = INFINITY - none;
    for (size_t k = 0; k < integer_trials[width].count; k++) {
        const integer_trial from = integer_trials[width].at[k];
        const integer_grids at = {range->step * from.step, zero_of(range, from, last)};
        const side_sums sums = from.step > 1 ? try_integers(of, at, last, is_counted, false)
                                             : try_integers(of, at, last, is_counted, true);
        side_f error;
        const side_f scale = better_scale(&error, at.scale, &sums, dtype);
        const side_i better = error < least;
        least = side_pick(better, error, least);
        best.scale = side_pick(better, scale, best.scale);
        best.zero = side_pick(better, at.zero, best.zero);
    }
    return best;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void put_integers(uint8_t *codes, size_t size, float scale, float bias, float fitted,
                         float zero, unsigned last) {
    const float inverse = fitted > 0 ? 1 / fitted : 0, low = -zero, high = (float)last - zero;
    for (size_t k = 0; k < size; k++) {
        const float value = scale * (float)codes[k] + bias;
        codes[k] = (uint8_t)(int)(round_small(between(value * inverse, low, high)) + zero);
    }
}

/* Up to SIDES groups. */
static void fit_groups(mq_fit_groups *groups, size_t first, size_t count) {
    const size_t size = groups->size;
    const unsigned last = (1u << groups->width) - 1;
    const bool is_counted = last < size;
    uint8_t *codes = groups->codes + first * size;
    float scales[SIDES] = {0}, biases[SIDES] = {0}, zeros[SIDES], errors[SIDES], powers[SIDES];
    memcpy(scales, groups->scales + first, count * sizeof *scales);
    memcpy(biases, groups->biases + first, count * sizeof *biases);
    const side_f scale = side_at(scales), bias = side_at(biases);
    const integer_range range = range_of(scale, bias, last);
    integer_values values;
    integer_grids grids;
    side_f power = {0};
    side_sums sums;
    if (is_counted) {
        read_levels(&values, codes, count, size, last, scale, bias);
        grids = find_grids(&values, &range, groups->width, groups->dtype, true);
        sums = try_integers(&values, grids, last, true, true);
    } else {
        read_weights(&values, codes, count, size, scale, bias);
        grids = find_grids(&values, &range, groups->width, groups->dtype, false);
        sums = try_integers(&values, grids, last, false, true);
    }
    for (size_t i = 0; i < values.count; i++) {
        const side_f square = values.values[i] * values.values[i];
        power += is_counted ? values.times[i] * square : square;
    }
    float fitted[SIDES];
    memcpy(fitted, &grids.scale, sizeof fitted);
    memcpy(zeros, &grids.zero, sizeof zeros);
    memcpy(errors, &sums.error, sizeof errors);
    memcpy(powers, &power, sizeof powers);
    for (size_t l = 0; l < count; l++) {
        put_integers(codes + l * size, size, scales[l], biases[l], fitted[l], zeros[l], last);
        groups->scales[first + l] = fitted[l];
        groups->zeros[first + l] = (uint8_t)zeros[l];
        groups->error += (double)errors[l];
        groups->power += (double)powers[l];
    }
}

static void fit_integer(mq_fit_groups *groups) {
    for (size_t first = 0; first < groups->count; first += SIDES) {
        const size_t left = groups->count - first;
        fit_groups(groups, first, left < SIDES ? left : SIDES);
    }
}

#endif
