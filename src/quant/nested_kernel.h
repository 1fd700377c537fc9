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

/* --- start: the clip of least error ----------------------------------------------------------- */

/* What the search keeps of a group: weighted sums, and at each level the fit of (scale, middle). */
typedef struct group_fit {
    float lo, hi, error;
    float scale[MQ_MAX_LEVELS], middle[MQ_MAX_LEVELS];
} group_fit;

/* z·256 as a whole number 0 ... 255, kept as float. */
static inline void top_codes(float *code, const float *weight, float lo, float inverse_step,
                             bool symmetric, size_t count) {
    if (symmetric) { /* to the nearest, from 1 on */
        for (size_t i = 0; i < count; i++) {
            float u = (weight[i] - lo) * inverse_step + 0.5f;
            u = u > 1.0f ? u : 1.0f;
            u = u < 255.0f ? u : 255.0f;
            code[i] = (float)(int)u;
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        float u = (weight[i] - lo) * inverse_step;
        u = u > 0.0f ? u : 0.0f;
        u = u < 255.0f ? u : 255.0f;
        code[i] = (float)(int)u;
    }
}

/* level[i] = (code >> (8 - r)) + 1/2 - 2^(r-1); symmetric: the rounding slice - 2^(r-1) */
static inline void slice_levels(float *level, const float *code, unsigned width, bool symmetric,
                                size_t count) {
    const float shrink = 1.0f / (float)(1u << (MQ_MAX_WIDTH - width));
    if (symmetric) {
        const float half = (float)(1u << (width - 1));
        for (size_t i = 0; i < count; i++) {
            const float t = (float)(int)(code[i] * shrink + 0.5f) - half;
            level[i] = t < half - 1.0f ? t : half - 1.0f;
        }
        return;
    }
    const float centre = 0.5f - (float)(1u << (width - 1));
    for (size_t i = 0; i < count; i++) {
        level[i] = (float)(int)(code[i] * shrink) + centre;
    }
}

/* A candidate's codes of at most MQ_CHUNK weights, as the numbers at each level that they stand
 * for: made once for all levels, since the search spends most of its time on them. */
static inline void chunk_levels(float level[][MQ_CHUNK], const mq_nested *nested, const float *w,
                                float lo, float inverse_step, size_t n) {
    float code[MQ_CHUNK];
    top_codes(code, w, lo, inverse_step, nested->symmetric, n);
    for (size_t j = 0; j < nested->level_count; j++) {
        slice_levels(level[j], code, nested->level[j], nested->symmetric, n);
    }
}

/* Σ h·level, Σ h·level² and Σ h·level·(w - mean w) over a group at one level. */
typedef struct level_sums {
    mq_lanes hl, hll, hlw;
} level_sums;

static inline void add_chunk(level_sums *sums, const float *level, const float *w, const float *h,
                             float mean_w, size_t n) {
    float weighted[MQ_CHUNK];
    for (size_t i = 0; i < n; i++) {
        weighted[i] = h[i] * level[i];
    }
    mq_lanes_add(&sums->hl, weighted, n);
    mq_lanes_add_product(&sums->hll, weighted, level, n);
    for (size_t i = 0; i < n; i++) {
        weighted[i] *= w[i] - mean_w;
    }
    mq_lanes_add(&sums->hlw, weighted, n);
}

static inline void add_error(mq_lanes *error, const float *level, const float *w, const float *h,
                             float scale, float middle, size_t n) {
    float weighted[MQ_CHUNK];
    for (size_t i = 0; i < n; i++) {
        const float e = scale * level[i] + middle - w[i];
        weighted[i] = h[i] * e * e;
    }
    mq_lanes_add(error, weighted, n);
}

/* Least squares of h·(scale·level + middle - w)² over a group at every level for the clip in fit,
 * and the errors that are left. */
static void fit_levels(group_fit *fit, float error[MQ_MAX_LEVELS], const mq_nested *nested,
                       const float *w, const float *h, float sum_h, float mean_w, size_t count) {
    const float inverse_step = 256.0f / (fit->hi - fit->lo);
    float level[MQ_MAX_LEVELS][MQ_CHUNK];
    level_sums sums[MQ_MAX_LEVELS];
    mq_lanes errors[MQ_MAX_LEVELS];
    memset(sums, 0, nested->level_count * sizeof sums[0]);
    memset(errors, 0, nested->level_count * sizeof errors[0]);
    for (size_t at = 0; at < count; at += MQ_CHUNK) {
        const size_t n = count - at < MQ_CHUNK ? count - at : MQ_CHUNK;
        chunk_levels(level, nested, w + at, fit->lo, inverse_step, n);
        for (size_t j = 0; j < nested->level_count; j++) {
            add_chunk(&sums[j], level[j], w + at, h + at, mean_w, n);
        }
    }
    for (size_t j = 0; j < nested->level_count; j++) {
        if (nested->symmetric) { /* Σ h·level·w / Σ h·level² */
            const float squares = mq_lanes_sum(&sums[j].hll);
            const float product = mq_lanes_sum(&sums[j].hlw) + mean_w * mq_lanes_sum(&sums[j].hl);
            fit->scale[j] = squares > 1e-12f * sum_h ? product / squares : 0.0f;
            fit->middle[j] = 0.0f;
            continue;
        }
        const float mean_level = mq_lanes_sum(&sums[j].hl) / sum_h;
        const float variance = mq_lanes_sum(&sums[j].hll) - mean_level * mean_level * sum_h;
        fit->scale[j] = variance > 1e-12f * sum_h ? mq_lanes_sum(&sums[j].hlw) / variance : 0.0f;
        fit->middle[j] = mean_w - fit->scale[j] * mean_level;
    }
    for (size_t at = 0; at < count; at += MQ_CHUNK) {
        const size_t n = count - at < MQ_CHUNK ? count - at : MQ_CHUNK;
        if (count > MQ_CHUNK) { /* else they are there still */
            chunk_levels(level, nested, w + at, fit->lo, inverse_step, n);
        }
        for (size_t j = 0; j < nested->level_count; j++) {
            add_error(&errors[j], level[j], w + at, h + at, fit->scale[j], fit->middle[j], n);
        }
    }
    for (size_t j = 0; j < nested->level_count; j++) {
        error[j] = mq_lanes_sum(&errors[j]);
    }
}

static void fit_group(group_fit *best, const mq_grid *grid, const float *w, const float *h,
                      size_t count) {
    const mq_nested *nested = grid->state;
    const mq_grid_options *options = grid->options;
    float lo0 = w[0], hi0 = w[0];
    for (size_t i = 1; i < count; i++) {
        lo0 = w[i] < lo0 ? w[i] : lo0;
        hi0 = w[i] > hi0 ? w[i] : hi0;
    }
    mq_lanes sum_h = {{0}}, sum_hw = {{0}};
    mq_lanes_add(&sum_h, h, count);
    mq_lanes_add_product(&sum_hw, h, w, count);
    const float total_h = mq_lanes_sum(&sum_h);
    const float mean_w = mq_lanes_sum(&sum_hw) / total_h;

    if (nested->symmetric) { /* the largest is code 1: the end with a level more at narrow widths */
        const float largest = (hi0 > -lo0 ? hi0 : -lo0) * (128.0f / 127.0f) + 1e-8f;
        hi0 = hi0 > -lo0 ? -largest : largest;
        lo0 = -hi0;
    }
    const int shrinks = 14; /* t = 1.00, 0.95, ... 0.35; symmetric: and then the other sign */
    const int candidates = options->full_range ? 1 : nested->symmetric ? 2 * shrinks : shrinks;
    for (int k = 0; k < candidates; k++) {
        const float sign = k < shrinks ? 1.0f : -1.0f;
        const float shrink = sign * (1.0f - 0.05f * (float)(k % shrinks));
        group_fit fit = {.lo = lo0 * shrink, .hi = hi0 * shrink};
        if (!nested->symmetric &&
            !(fit.hi - fit.lo > 1e-8f)) { /* a constant group: any positive range will do */
            fit.hi = fit.lo + 1e-8f + fabsf(fit.lo) * 1e-6f;
        }
        float error[MQ_MAX_LEVELS];
        fit_levels(&fit, error, nested, w, h, total_h, mean_w, count);
        for (size_t j = 0; j < nested->level_count; j++) {
            if (nested->width_index[j] < options->width_count) {
                fit.error += (float)options->lambda[nested->width_index[j]] * error[j];
            }
        }
        if (k == 0 || fit.error < best->error) {
            *best = fit;
        }
    }
}

static void start_rows(mq_grid *grid, const float *gram, size_t first, size_t last) {
    mq_nested *nested = grid->state;
    const size_t count = grid->in / grid->groups;
    for (size_t row = first; row < last; row++) {
        for (size_t g = 0; g < grid->groups; g++) {
            const size_t group = row * grid->groups + g;
            group_fit fit;
            fit_group(&fit, grid, grid->weight + row * grid->in + g * count, gram + g * count,
                      count);
            nested->lo0[group] = fit.lo;
            nested->hi0[group] = fit.hi;
            float *params = nested->params + group * nested->param_count;
            params[0] = params[1] = 0.0f;
            for (size_t j = 0; j < nested->level_count; j++) {
                const float step = (fit.hi - fit.lo) / (float)(1u << nested->level[j]);
                float ratio = fit.scale[j] / step;
                ratio = ratio > 0.25f ? ratio : 0.25f;
                ratio = ratio < 4.0f ? ratio : 4.0f;
                params[2 + 2 * j] = logf(ratio);
                params[3 + 2 * j] =
                    nested->symmetric ? 0.0f : (fit.middle[j] - (fit.lo + fit.hi) * 0.5f) / step;
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
static inline void symmetric_codes(chunk_state *chunk, const mq_nested *nested, size_t at,
                                   size_t n) {
    float low[MQ_CHUNK], high[MQ_CHUNK];
    for (size_t i = 0; i < n; i++) {
        low[i] = 1.0f;
        high[i] = 255.0f;
    }
    for (size_t j = 0; j < nested->level_count; j++) {
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

static inline void chunk_codes(chunk_state *chunk, const mq_nested *nested, const float *w,
                               size_t at, float lo, float inverse_span, size_t n) {
    for (size_t i = 0; i < n; i++) {
        chunk->z[i] = (w[i] - lo) * inverse_span;
    }
    if (nested->symmetric) {
        symmetric_codes(chunk, nested, at, n);
        return;
    }
    unsigned parent = 0;
    for (size_t j = 0; j < nested->level_count; j++) {
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

static inline void chunk_values(const mq_values values[], const chunk_state *chunk,
                                const mq_nested *nested, const mq_nested_level *levels, size_t at,
                                size_t n) {
    for (size_t j = 0; j < nested->level_count; j++) {
        if (nested->width_index[j] >= MQ_MAX_WIDTHS) {
            continue;
        }
        const mq_values *wanted = &values[nested->width_index[j]];
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
    mq_nested_level levels[MQ_MAX_LEVELS];
    float lo, hi;
    chunk_state chunk;
    mq_nested_group(&lo, &hi, levels, nested, group);
    for (size_t done = 0; done < count; done += MQ_CHUNK) {
        const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
        chunk_codes(&chunk, nested, grid->weight + at + done, at + done, lo, 1.0f / (hi - lo), n);
        chunk_values(values, &chunk, nested, levels, at + done, n);
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

/* One chunk: gradients by u of every level, from the widest to the narrowest; updates the V_k on
 * the way. */
static inline void chunk_backward(group_sums *sums, mq_nested *nested, const chunk_state *chunk,
                                  const float *const gradients[], const mq_nested_level *levels,
                                  const mq_adam *adam, size_t at, size_t n) {
    float passed[MQ_CHUNK],
        du[MQ_CHUNK]; /* passed: gradient that reaches soft_j from the level after it */
    memset(passed, 0, sizeof passed);
    for (size_t j = nested->level_count; j-- > 0;) {
        const float *gradient =
            nested->width_index[j] < MQ_MAX_WIDTHS ? gradients[nested->width_index[j]] : NULL;
        if (gradient != NULL) {
            gradient += at;
            mq_lanes_add(&sums->value[j], gradient, n);
            mq_lanes_add_product(&sums->level[j], gradient, chunk->code[j], n);
            for (size_t i = 0; i < n; i++) {
                passed[i] += gradient[i] * levels[j].scale;
            }
        }
        const unsigned parent = j > 0 ? nested->level[j - 1] : 0;
        const float room = (float)(1u << (nested->level[j] - parent));
        for (size_t i = 0; i < n; i++) {
            du[i] = passed[i] * chunk->free_[j][i];
            passed[i] = (passed[i] - du[i]) * room;
        }
        if (nested->has_offset[j]) {
            float *v = nested->offset[j] + at;
            float *first = nested->offset_m[j] + at;
            float *second = nested->offset_v[j] + at;
            for (size_t i = 0; i < n; i++) {
                v[i] =
                    mq_adam_update(adam, adam->rate_rounding, v[i], du[i], &first[i], &second[i]);
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
        params[p] = mq_adam_update(adam, adam->rate_group, params[p], gradient[p], &m[p], &v[p]);
    }
}

/* Fetches what the step will touch so many weights later, before `end`: a dozen arrays are more
 * than a processor foresees by itself, and without this the step waits for memory a third of its
 * time. */
#define FETCH_AHEAD (2 * MQ_CHUNK)

static inline void fetch_ahead(const mq_grid *grid, const float *const gradients[],
                               const mq_values values[], size_t at, size_t n, size_t end) {
    const mq_nested *nested = grid->state;
    for (size_t i = at + FETCH_AHEAD; i < at + FETCH_AHEAD + n && i < end;
         i += MQ_ALIGNMENT / sizeof(float)) {
        __builtin_prefetch(grid->weight + i, 0);
        for (size_t j = 0; j < nested->level_count; j++) {
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
            fetch_ahead(grid, gradients, values, begin + done, n, last * grid->in);
            chunk_codes(&chunk, nested, grid->weight + begin + done, begin + done, lo,
                        1.0f / (hi - lo), n);
            chunk_backward(&sums, nested, &chunk, gradients, levels, adam, begin + done, n);
        }
        group_update(nested, &sums, levels, lo, hi, adam, group);
        group_values(grid, values, group, begin, count);
    }
}

const mq_nested_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, start_rows, values_rows, step_rows};
