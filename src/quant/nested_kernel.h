/* The loops over weights of the nested grid, compiled once for each instruction set: a file that
 * defines MQ_KERNEL_NAME includes this one. No product and sum are fused (-ffp-contract=off) and
 * every sum has fixed lanes, so that all of them give the same results; mq_nested_kernels_base is
 * the reference that the tests hold the others against. */
#ifndef MQ_KERNEL_NAME
#error "define MQ_KERNEL_NAME before including nested_kernel.h"
#endif

#include <math.h>
#include <string.h>

#include "quant/lanes.h"
#include "quant/nested.h"
#include "quant/search_kernel.h"

/* --- start ------------------------------------------------------------------------------------ */

static mq_search search_of(const mq_nested *nested, const mq_grid_options *options) {
    mq_search search = {
        .codes = nested->symmetric ? MQ_SEARCH_SYMMETRIC : MQ_SEARCH_TOP,
        .level_count = nested->level_count,
        .shrink_count = options->start == MQ_START_RANGE ? 1 : MQ_SHRINKS,
    };
    for (size_t j = 0; j < nested->level_count; j++) {
        const size_t index = nested->width_index[j];
        search.level[j] = nested->level[j];
        search.lambda[j] = index < options->width_count ? (float)options->lambda[index] : 0.0f;
    }
    for (size_t k = 0; k < search.shrink_count; k++) {
        search.shrink[k] = mq_search_shrink(k);
    }
    return search;
}

/* rho and delta of a level. Where ratio has to be brought into its range, the middle moves with it,
 * so that the mean stays where it was: of a group of equal weights, whose codes are equal, too, the
 * scale that fits is what rounding left, and any other with the same middle is far off. */
static inline void start_level(float *rho, float *delta, const mq_search_fit *fit, size_t j,
                               float step, bool symmetric) {
    const float ratio = fit->scale[j] / step;
    float bounded = ratio > 0.25f ? ratio : 0.25f;
    bounded = bounded < 4.0f ? bounded : 4.0f;
    float middle = fit->middle[j];
    if (bounded != ratio) {
        middle += (fit->scale[j] - bounded * step) * fit->mean_level[j];
    }
    *rho = logf(bounded);
    *delta = symmetric ? 0.0f : (middle - (fit->lo + fit->hi) * 0.5f) / step;
}

static void start_rows(mq_grid *grid, const float *gram, size_t first, size_t last) {
    mq_nested *nested = grid->state;
    const size_t count = grid->in / grid->groups;
    const mq_search search = search_of(nested, grid->options);
    for (size_t row = first; row < last; row++) {
        for (size_t g = 0; g < grid->groups; g++) {
            const size_t group = row * grid->groups + g;
            mq_search_fit fit;
            search_group(&fit, &search, grid->weight + row * grid->in + g * count, gram + g * count,
                         count);
            nested->lo0[group] = fit.lo;
            nested->hi0[group] = fit.hi;
            float *params = nested->params + group * nested->param_count;
            params[0] = params[1] = 0.0f;
            for (size_t j = 0; j < nested->level_count; j++) {
                const float step = (fit.hi - fit.lo) / (float)(1u << nested->level[j]);
                start_level(&params[2 + 2 * j], &params[3 + 2 * j], &fit, j, step,
                            nested->symmetric);
            }
        }
    }
}

/* --- forward: codes and values of a chunk ----------------------------------------------------- */

/* code[j][i] and, where the clamp binds not, free_[j][i] = 1 (else 0); z[i] = (w - lo)/(hi - lo).
 */
typedef struct chunk_state {
    float z[MQ_CHUNK];
    float code[MQ_MAX_LEVELS][MQ_CHUNK];
    float free_[MQ_MAX_LEVELS][MQ_CHUNK];
} chunk_state;

/* The same with a symmetric zero point: [low, high] are the codes that the levels before left. */
static inline void symmetric_codes(chunk_state *chunk, const mq_nested *nested, size_t level_count,
                                   size_t at, size_t n) {
    float low[MQ_CHUNK], high[MQ_CHUNK];
    for (size_t i = 0; i < n; i++) {
        low[i] = 1.0f;
        high[i] = 255.0f;
    }
    for (size_t j = 0; j < level_count; j++) {
        const float levels = (float)(1u << nested->level[j]);
        const float step = 256.0f / levels, shrink = levels / 256.0f, half = 0.5f * step;
        const float *offset = nested->has_offset[j] ? nested->offset[j] + at : NULL;
        float *code = chunk->code[j];
        float *free_ = chunk->free_[j];
        for (size_t i = 0; i < n; i++) {
            code[i] = chunk->z[i] * levels + 0.5f;
        }
        for (size_t i = 0; offset != NULL && i < n; i++) {
            code[i] += offset[i];
        }
        for (size_t i = 0; i < n; i++) {
            const float first = (float)(int)(low[i] * shrink + 0.5f);
            const float rounded = (float)(int)(high[i] * shrink + 0.5f);
            const float last = rounded < levels - 1.0f ? rounded : levels - 1.0f;
            float soft = code[i];
            free_[i] = soft > first && soft < last + 1.0f ? 1.0f : 0.0f;
            soft = soft > first ? soft : first;
            soft = soft < last ? soft : last;
            soft = (float)(int)soft;
            code[i] = soft;
            const float begin = soft * step - half;
            const float end = soft < levels - 1.0f ? soft * step + half - 1.0f : 255.0f;
            low[i] = begin > low[i] ? begin : low[i];
            high[i] = end < high[i] ? end : high[i];
        }
    }
}

/* Of the first so many levels. */
static inline void chunk_codes(chunk_state *chunk, const mq_nested *nested, size_t level_count,
                               const float *w, size_t at, float lo, float inverse_span, size_t n) {
    for (size_t i = 0; i < n; i++) {
        chunk->z[i] = (w[i] - lo) * inverse_span;
    }
    if (nested->symmetric) {
        symmetric_codes(chunk, nested, level_count, at, n);
        return;
    }
    unsigned parent = 0;
    for (size_t j = 0; j < level_count; j++) {
        const float levels = (float)(1u << nested->level[j]);
        const float room = (float)(1u << (nested->level[j] - parent));
        const float *offset = nested->has_offset[j] ? nested->offset[j] + at : NULL;
        const float *above = j > 0 ? chunk->code[j - 1] : NULL;
        float *code = chunk->code[j];
        float *free_ = chunk->free_[j];
        if (offset != NULL) {
            for (size_t i = 0; i < n; i++) {
                code[i] = chunk->z[i] * levels + offset[i];
            }
        } else {
            for (size_t i = 0; i < n; i++) {
                code[i] = chunk->z[i] * levels;
            }
        }
        for (size_t i = 0; i < n; i++) {
            const float begin = above != NULL ? above[i] * room : 0.0f;
            const float end = begin + room;
            float soft = code[i];
            free_[i] = soft > begin && soft < end ? 1.0f : 0.0f;
            soft = soft > begin ? soft : begin;
            soft = soft < end - 1.0f ? soft
                                     : end - 1.0f; /* min(floor(soft), end - 1), end being whole */
            code[i] = (float)(int)soft;
        }
        parent = nested->level[j];
    }
}

/* Where the values of a level go; NULL: nowhere. */
static inline const mq_values *wanted_of(const mq_nested *nested, const mq_values values[],
                                         size_t level) {
    if (nested->width_index[level] >= MQ_MAX_WIDTHS) {
        return NULL;
    }
    const mq_values *wanted = &values[nested->width_index[level]];
    return wanted->f32 != NULL || wanted->bf16 != NULL ? wanted : NULL;
}

/* Levels up to the widest whose values are wanted: the codes of wider ones are not. */
static inline size_t levels_wanted(const mq_nested *nested, const mq_values values[]) {
    size_t count = nested->level_count;
    while (count > 0 && wanted_of(nested, values, count - 1) == NULL) {
        count--;
    }
    return count;
}

static inline void chunk_values(const mq_values values[], const chunk_state *chunk,
                                const mq_nested *nested, size_t level_count,
                                const mq_nested_level *levels, size_t at, size_t n) {
    for (size_t j = 0; j < level_count; j++) {
        const mq_values *wanted = wanted_of(nested, values, j);
        if (wanted == NULL) {
            continue;
        }
        float unkept[MQ_CHUNK];
        float *value = wanted->f32 != NULL ? wanted->f32 + at : unkept;
        for (size_t i = 0; i < n; i++) {
            value[i] = levels[j].scale * chunk->code[j][i] + levels[j].bias;
        }
        if (wanted->bf16 != NULL) {
            mq_bf16_round_all(wanted->bf16 + at, value, n);
        }
    }
}

static inline void group_values(const mq_grid *grid, const mq_values values[], size_t group,
                                size_t at, size_t count) {
    const mq_nested *nested = grid->state;
    const size_t level_count = levels_wanted(nested, values);
    mq_nested_level levels[MQ_MAX_LEVELS];
    float lo, hi;
    chunk_state chunk;
    mq_nested_group(&lo, &hi, levels, nested, group);
    for (size_t done = 0; level_count > 0 && done < count; done += MQ_CHUNK) {
        const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
        chunk_codes(&chunk, nested, level_count, grid->weight + at + done, at + done, lo,
                    1.0f / (hi - lo), n);
        chunk_values(values, &chunk, nested, level_count, levels, at + done, n);
    }
}

static void values_rows(const mq_grid *grid, const mq_values values[], size_t first, size_t last) {
    const size_t count = grid->in / grid->groups;
    for (size_t group = first * grid->groups; group < last * grid->groups; group++) {
        group_values(grid, values, group, group * count, count);
    }
}

/* --- backward and Adam ------------------------------------------------------------------------ */

/* Sums over a group that the gradients of its parameters are made of. */
typedef struct group_sums {
    mq_lanes u, uz; /* Σ 2^k·du_k and Σ 2^k·du_k·z over all levels */
    mq_lanes value[MQ_MAX_LEVELS], level[MQ_MAX_LEVELS]; /* Σ dŵ_k and Σ dŵ_k·s_k */
} group_sums;

/* The gradient by a level's values; NULL: there is none. */
static inline const float *gradient_of(const mq_nested *nested, const float *const gradients[],
                                       size_t level) {
    const size_t index = nested->width_index[level];
    return index < MQ_MAX_WIDTHS ? gradients[index] : NULL;
}

/* Levels up to the widest that has a gradient: none reaches those after it. */
static inline size_t levels_reached(const mq_nested *nested, const float *const gradients[]) {
    size_t count = nested->level_count;
    while (count > 0 && gradient_of(nested, gradients, count - 1) == NULL) {
        count--;
    }
    return count;
}

/* du[n] by u of a level, and what of passed[n], from the levels after it, goes on to the level
 * before: with its own gradient, by its values (NULL: it has none), pull times that. */
static inline void level_backward(float *du, float *passed, const float *gradient, float scale,
                                  float pull, const float *free_, float room, size_t n) {
    if (gradient == NULL) {
        for (size_t i = 0; i < n; i++) {
            du[i] = passed[i] * free_[i];
            passed[i] = (passed[i] - du[i]) * room;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const float own = gradient[i] * scale;
        du[i] = (passed[i] + own) * free_[i];
        passed[i] = (passed[i] + own * pull) * (1.0f - free_[i]) * room;
    }
}

/* One chunk: gradients by u of the levels that any reaches, from the widest to the narrowest;
 * updates their V_k on the way. The V_k of wider levels, and their moments, stand still until there
 * is a gradient again: a step in which a width is not visited says nothing about it, and need not
 * read it. (The bias correction of the moments is by the number of the step all the same: it is
 * what was tried.) */
static inline void chunk_backward(group_sums *sums, mq_nested *nested, size_t level_count,
                                  const chunk_state *chunk, const float *const gradients[],
                                  const mq_nested_level *levels, const mq_adam *adam, size_t at,
                                  size_t n) {
    float passed[MQ_CHUNK], du[MQ_CHUNK];
    memset(passed, 0, sizeof passed); /* what reaches soft_j from the levels after it */
    for (size_t j = level_count; j-- > 0;) {
        const float *gradient = gradient_of(nested, gradients, j);
        if (gradient != NULL) {
            gradient += at;
            mq_lanes_add(&sums->value[j], gradient, n);
            mq_lanes_add_product(&sums->level[j], gradient, chunk->code[j], n);
        }
        const unsigned parent = j > 0 ? nested->level[j - 1] : 0;
        level_backward(du, passed, gradient, levels[j].scale, nested->pull[j], chunk->free_[j],
                       (float)(1u << (nested->level[j] - parent)), n);
        if (nested->has_offset[j]) {
            float *v = nested->offset[j] + at;
            float *first = nested->offset_m[j] + at;
            float *second = nested->offset_v[j] + at;
            for (size_t i = 0; i < n; i++) {
                v[i] =
                    mq_adam_update(&first[i], &second[i], adam, adam->rate_rounding, v[i], du[i]);
            }
        }
        const float levels_k = (float)(1u << nested->level[j]);
        for (size_t i = 0; i < n; i++) {
            du[i] *= levels_k;
        }
        mq_lanes_add(&sums->u, du, n);
        mq_lanes_add_product(&sums->uz, du, chunk->z, n);
    }
}

/* Gradients of the group's parameters from its sums, and their step. */
static inline void group_update(mq_nested *nested, const group_sums *sums,
                                const mq_nested_level *levels, float lo, float hi,
                                const mq_adam *adam, size_t group) {
    float gradient[MQ_GROUP_PARAMS];
    const float span = hi - lo;
    const float u = mq_lanes_sum(&sums->u);
    const float uz = mq_lanes_sum(&sums->uz);
    float dlo = (uz - u) / span;
    float dhi = -uz / span;
    for (size_t j = 0; j < nested->level_count; j++) {
        const float value = mq_lanes_sum(&sums->value[j]);
        const float half = (float)(1u << (nested->level[j] - 1));
        const float centre = nested->symmetric ? half : half - 0.5f;
        const float level = mq_lanes_sum(&sums->level[j]) - centre * value;
        const float by_span = level * levels[j].factor / (float)(1u << nested->level[j]);
        dlo += 0.5f * value - by_span;
        dhi += 0.5f * value + by_span;
        gradient[2 + 2 * j] = level * levels[j].scale;
        gradient[3 + 2 * j] = nested->symmetric ? 0.0f : value * levels[j].step;
    }
    if (nested->symmetric) { /* lo is -hi */
        dhi -= dlo;
        dlo = 0.0f;
    }
    const float first_span = nested->hi0[group] - nested->lo0[group];
    gradient[0] = dlo * first_span;
    gradient[1] = dhi * first_span;
    float *params = nested->params + group * nested->param_count;
    float *m = nested->m + group * nested->param_count;
    float *v = nested->v + group * nested->param_count;
    for (size_t p = 0; p < nested->param_count; p++) {
        params[p] = mq_adam_update(&m[p], &v[p], adam, adam->rate_group, params[p], gradient[p]);
    }
}

/* Fetches what the step will touch so many weights later, before `end`: a dozen arrays are more
 * than a processor foresees by itself, and without this the step waits for memory a third of its
 * time. */
#define FETCH_AHEAD (2 * MQ_CHUNK)

static inline void fetch_ahead(const mq_grid *grid, const float *const gradients[],
                               const mq_values values[], size_t reached, size_t wanted, size_t at,
                               size_t n, size_t end) {
    const mq_nested *nested = grid->state;
    for (size_t i = at + FETCH_AHEAD; i < at + FETCH_AHEAD + n && i < end;
         i += MQ_ALIGNMENT / sizeof(float)) {
        __builtin_prefetch(grid->weight + i, 0);
        for (size_t j = reached; j < wanted; j++) {
            if (nested->has_offset[j]) {
                __builtin_prefetch(nested->offset[j] + i, 0);
            }
        }
        for (size_t j = 0; j < reached; j++) {
            if (nested->has_offset[j]) {
                __builtin_prefetch(nested->offset[j] + i, 1);
                __builtin_prefetch(nested->offset_m[j] + i, 1);
                __builtin_prefetch(nested->offset_v[j] + i, 1);
            }
        }
        for (size_t k = 0; k < grid->options->width_count; k++) {
            if (gradients[k] != NULL) {
                __builtin_prefetch(gradients[k] + i, 0);
            }
            if (values[k].f32 != NULL) {
                __builtin_prefetch(values[k].f32 + i, 1);
            }
            if (values[k].bf16 != NULL) {
                __builtin_prefetch(values[k].bf16 + i, 1);
            }
        }
    }
}

static void step_rows(mq_grid *grid, const float *const gradients[], const mq_values values[],
                      const mq_adam *adam, size_t first, size_t last) {
    mq_nested *nested = grid->state;
    const size_t count = grid->in / grid->groups;
    const size_t reached = levels_reached(nested, gradients);
    const size_t wanted = levels_wanted(nested, values);
    for (size_t group = first * grid->groups; group < last * grid->groups; group++) {
        const size_t begin = group * count;
        mq_nested_level levels[MQ_MAX_LEVELS];
        float lo, hi;
        chunk_state chunk;
        group_sums sums;
        memset(&sums, 0, sizeof sums);
        mq_nested_group(&lo, &hi, levels, nested, group);
        for (size_t done = 0; done < count; done += MQ_CHUNK) {
            const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
            fetch_ahead(grid, gradients, values, reached, wanted, begin + done, n, last * grid->in);
            chunk_codes(&chunk, nested, reached, grid->weight + begin + done, begin + done, lo,
                        1.0f / (hi - lo), n);
            chunk_backward(&sums, nested, reached, &chunk, gradients, levels, adam, begin + done,
                           n);
        }
        group_update(nested, &sums, levels, lo, hi, adam, group);
        group_values(grid, values, group, begin, count);
    }
}

const mq_nested_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, start_rows, values_rows, step_rows,
                                            search_group};
