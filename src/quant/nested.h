/* The inside of the nested grid: shared by its kernels and its tests. docs/method.md, 1.
 *
 * Levels are the trained widths in ascending order and, last, 8 bits whether trained or not. Of a
 * weight w in a group with clip lo < hi, z = (w - lo)/(hi - lo), and p the level before k:
 *
 *   u_k      = 2^k · z + V_k                      V_k: the weight's rounding offset (8 bits: 0)
 *   first_k  = s_p · 2^(k-p)                      of the first level: 0
 *   end_k    = first_k + 2^(k-p)                  of the first level: 2^k
 *   soft_k   = clamp(u_k, first_k, end_k)
 *   s_k      = min(⌊soft_k⌋, end_k - 1)
 *   ŵ_k      = scale_k · (s_k + ½ - 2^(k-1)) + middle_k
 *   scale_k  = step_k · exp(ρ_k)                  step_k = (hi - lo)/2^k
 *   middle_k = (lo + hi)/2 + δ_k · step_k
 *
 * Gradients: straight through the floor; through the clamp to u_k where it does not bind, else to
 * `first_k`, that is 2^(k-p) times to soft_p; the step in δ_k · step_k is held constant. Of ŵ_k's
 * own gradient not all goes to first_k but pull_k times it, so that for what narrower levels decide
 * the weights of the loss are other ones than for what level k decides itself.
 *
 * With a symmetric zero point and the rounding slice, lo = -hi (hi may be negative: which end of
 * the range gets the level more is chosen), ŵ_k = scale_k · (s_k - 2^(k-1)), there is no δ, and
 *
 *   u_k      = 2^k · z + ½ + V_k
 *   first_k  = slice_k(a), end_k = slice_k(b) + 1
 *
 * where slice_k is the rounding slice of a code, and [a, b] are the codes whose slices are what the
 * narrower levels decided, 1 ... 255 before the first: their buckets overlap those of wider levels,
 * so that a level's edge may be decided by any level before it. */
#ifndef MQ_QUANT_NESTED_H
#define MQ_QUANT_NESTED_H

#include <assert.h>

#include "quant/grid.h"
#include "quant/search.h"

/* Of a group: clip offsets (lo, hi) in units of the first range, then ρ and δ of each level. */
#define MQ_GROUP_PARAMS (2 + 2 * MQ_MAX_LEVELS)

typedef struct mq_nested {
    size_t level_count;
    unsigned level[MQ_MAX_LEVELS];
    size_t width_index[MQ_MAX_LEVELS]; /* position in options->widths; MQ_MAX_WIDTHS: not trained */
    bool has_offset[MQ_MAX_LEVELS];
    float pull[MQ_MAX_LEVELS];    /* on the levels before, see above */
    bool symmetric;               /* the zero point, and the slice is rounded */
    size_t param_count;           /* 2 + 2·level_count: floats a group in params, m, v */
    float *lo0, *hi0;             /* [out·groups] */
    float *params, *m, *v;        /* [out·groups, param_count] */
    float *offset[MQ_MAX_LEVELS]; /* V_k [out, in]; NULL: none */
    float *offset_m[MQ_MAX_LEVELS], *offset_v[MQ_MAX_LEVELS];
} mq_nested;

static_assert(MQ_MAX_LEVELS == MQ_MAX_WIDTH - MQ_MIN_WIDTH + 1, "a level for each width");

/* A group's numbers at one level, computed from its parameters. */
typedef struct mq_nested_level {
    float scale, middle, step;
    float bias;   /* value of s = 0 */
    float factor; /* exp(ρ) */
} mq_nested_level;

/* Rows [first, last) of one layer; chosen for the machine at run time, the same results from each.
 */
typedef struct mq_nested_kernels {
    const char *name;
    void (*start)(mq_grid *grid, const float *gram, size_t first, size_t last);
    void (*values)(const mq_grid *grid, const mq_values values[], size_t first, size_t last);
    void (*step)(mq_grid *grid, const float *const gradients[], const mq_values values[],
                 const mq_adam *adam, size_t first, size_t last);
    /* The clip of one group, w[count] with weights h[count] of their errors: either grid's. */
    void (*search)(mq_search_fit *best, const mq_search *search, const float *w, const float *h,
                   size_t count);
} mq_nested_kernels;

/* By instruction set (base/machine.h); base is the reference for the others. */
extern const mq_nested_kernels mq_nested_kernels_base, mq_nested_kernels_avx2,
    mq_nested_kernels_avx512;
/* The fastest that this processor runs; and all of them, slowest first, until NULL. */
const mq_nested_kernels *mq_nested_kernels_best(void);
const mq_nested_kernels *mq_nested_kernels_at(size_t index);

/* [*low, *high] are the codes of 8 bits that a weight may still get: what the level `width`, having
 * decided for a slice, leaves of them. */
static inline void mq_nested_bucket(uint8_t *low, uint8_t *high, unsigned slice, unsigned width,
                                    bool symmetric) {
    const unsigned room = 1u << (MQ_MAX_WIDTH - width);
    unsigned first = slice * room, last = first + room - 1;
    if (symmetric && width < MQ_MAX_WIDTH) {
        first = first > room / 2 ? first - room / 2 : 0;
        last = slice + 1 < 1u << width ? last - room / 2 : 255;
    }
    *low = first > *low ? (uint8_t)first : *low;
    *high = last < *high ? (uint8_t)last : *high;
}

/* mq_grid_class's compensate, and the bytes that a thread needs for it (nested_compensate.c). */
void mq_nested_compensate(uint8_t *codes, const mq_grid *grid, const mq_compensation *compensation,
                          const mq_compensation_work *threads);
size_t mq_nested_compensate_bytes(size_t out, size_t in, size_t groups);

/* lo, hi and the numbers of each level for one group. */
void mq_nested_group(float *lo, float *hi, mq_nested_level levels[MQ_MAX_LEVELS],
                     const mq_nested *nested, size_t group);

#endif
