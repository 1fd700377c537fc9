/* The search of search.h, compiled with the nested grid's loops for each instruction set
 * (nested_kernel.h, which includes this); the same results from each. */
#include <math.h>
#include <string.h>

#include "quant/grid.h"
#include "quant/lanes.h"
#include "quant/search.h"

/* The codes 0 … 255 for a clip, kept as floats. */
static inline void search_codes(float *code, const float *weight, const mq_search_fit *clip,
                                mq_search_codes kind, size_t count) {
    const float lo = clip->lo;
    if (kind == MQ_SEARCH_TOP) {
        const float inverse_step = 256.0f / (clip->hi - lo);
        for (size_t i = 0; i < count; i++) {
            float u = (weight[i] - lo) * inverse_step;
            u = u > 0.0f ? u : 0.0f;
            u = u < 255.0f ? u : 255.0f;
            code[i] = (float)(int)u;
        }
        return;
    }
    const bool symmetric = kind == MQ_SEARCH_SYMMETRIC;
    const float first = symmetric ? 1.0f : 0.0f;
    /* As clip.c computes it: the codes are to be the same. */
    const float inverse_step =
        symmetric ? 256.0f / (clip->hi - lo) : 1.0f / ((clip->hi - lo) / 255.0f);
    for (size_t i = 0; i < count; i++) {
        float u = (weight[i] - lo) * inverse_step + 0.5f;
        u = u > first ? u : first;
        u = u < 255.0f ? u : 255.0f;
        code[i] = (float)(int)u;
    }
}

/* A code's slice, counted from the middle of all: s + 1/2 - 2^(r-1), SYMMETRIC: s - 2^(r-1). */
static inline void search_levels(float *level, const float *code, unsigned width,
                                 mq_search_codes kind, size_t count) {
    const float shrink = 1.0f / (float)(1u << (MQ_MAX_WIDTH - width));
    const float half = (float)(1u << (width - 1));
    if (kind == MQ_SEARCH_TOP) {
        const float centre = 0.5f - half;
        for (size_t i = 0; i < count; i++) {
            level[i] = (float)(int)(code[i] * shrink) + centre;
        }
        return;
    }
    const float centre = kind == MQ_SEARCH_SYMMETRIC ? half : half - 0.5f;
    const float slices = kind == MQ_SEARCH_ROUND_EXTRA ? 2.0f * half : 2.0f * half - 1.0f;
    const float last = slices - centre;
    for (size_t i = 0; i < count; i++) {
        const float t = (float)(int)(code[i] * shrink + 0.5f) - centre;
        level[i] = t < last ? t : last;
    }
}

/* A candidate's codes of at most MQ_CHUNK weights, as the numbers at each level that they stand
 * for: made once for all levels, since the search spends most of its time on them. */
static inline void chunk_levels(float level[][MQ_CHUNK], const mq_search *search, const float *w,
                                const mq_search_fit *clip, size_t n) {
    float code[MQ_CHUNK];
    search_codes(code, w, clip, search->codes, n);
    for (size_t j = 0; j < search->level_count; j++) {
        search_levels(level[j], code, search->level[j], search->codes, n);
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
static void fit_levels(mq_search_fit *fit, float error[MQ_MAX_LEVELS], const mq_search *search,
                       const float *w, const float *h, float sum_h, float mean_w, size_t count) {
    float level[MQ_MAX_LEVELS][MQ_CHUNK];
    level_sums sums[MQ_MAX_LEVELS];
    mq_lanes errors[MQ_MAX_LEVELS];
    memset(sums, 0, search->level_count * sizeof sums[0]);
    memset(errors, 0, search->level_count * sizeof errors[0]);
    for (size_t at = 0; at < count; at += MQ_CHUNK) {
        const size_t n = count - at < MQ_CHUNK ? count - at : MQ_CHUNK;
        chunk_levels(level, search, w + at, fit, n);
        for (size_t j = 0; j < search->level_count; j++) {
            add_chunk(&sums[j], level[j], w + at, h + at, mean_w, n);
        }
    }
    for (size_t j = 0; j < search->level_count; j++) {
        if (search->codes == MQ_SEARCH_SYMMETRIC) { /* Σ h·level·w / Σ h·level² */
            const float squares = mq_lanes_sum(&sums[j].hll);
            const float product = mq_lanes_sum(&sums[j].hlw) + mean_w * mq_lanes_sum(&sums[j].hl);
            fit->scale[j] = squares > 1e-12f * sum_h ? product / squares : 0.0f;
            fit->middle[j] = fit->mean_level[j] = 0.0f;
            continue;
        }
        const float mean_level = mq_lanes_sum(&sums[j].hl) / sum_h;
        const float variance = mq_lanes_sum(&sums[j].hll) - mean_level * mean_level * sum_h;
        fit->scale[j] = variance > 1e-12f * sum_h ? mq_lanes_sum(&sums[j].hlw) / variance : 0.0f;
        fit->middle[j] = mean_w - fit->scale[j] * mean_level;
        fit->mean_level[j] = mean_level;
    }
    for (size_t at = 0; at < count; at += MQ_CHUNK) {
        const size_t n = count - at < MQ_CHUNK ? count - at : MQ_CHUNK;
        if (count > MQ_CHUNK) { /* else they are there still */
            chunk_levels(level, search, w + at, fit, n);
        }
        for (size_t j = 0; j < search->level_count; j++) {
            add_error(&errors[j], level[j], w + at, h + at, fit->scale[j], fit->middle[j], n);
        }
    }
    for (size_t j = 0; j < search->level_count; j++) {
        error[j] = mq_lanes_sum(&errors[j]);
    }
}

/* The whole range of a group: what the candidates are parts of. */
static void full_clip(float *lo, float *hi, const mq_search *search, const float *w, size_t count) {
    *lo = *hi = w[0];
    for (size_t i = 1; i < count; i++) {
        *lo = w[i] < *lo ? w[i] : *lo;
        *hi = w[i] > *hi ? w[i] : *hi;
    }
    if (search->codes ==
        MQ_SEARCH_SYMMETRIC) { /* the largest is code 1: the end with a level more */
        const float largest = (*hi > -*lo ? *hi : -*lo) * (128.0f / 127.0f) + 1e-8f;
        *hi = *hi > -*lo ? -largest : largest;
        *lo = -*hi;
    }
}

static void search_group(mq_search_fit *best, const mq_search *search, const float *w,
                         const float *h, size_t count) {
    const bool symmetric = search->codes == MQ_SEARCH_SYMMETRIC;
    float lo0, hi0;
    full_clip(&lo0, &hi0, search, w, count);
    mq_lanes sum_h = {{0}}, sum_hw = {{0}};
    mq_lanes_add(&sum_h, h, count);
    mq_lanes_add_product(&sum_hw, h, w, count);
    const float total_h = mq_lanes_sum(&sum_h);
    const float mean_w = mq_lanes_sum(&sum_hw) / total_h;
    const size_t shrinks = search->shrink_count;
    const size_t candidates = symmetric && shrinks > 1 ? 2 * shrinks : shrinks;
    for (size_t k = 0; k < candidates; k++) {
        const float shrink = k < shrinks ? search->shrink[k] : -search->shrink[k - shrinks];
        mq_search_fit fit = {.lo = lo0 * shrink, .hi = hi0 * shrink, .candidate = k};
        if (!symmetric &&
            !(fit.hi - fit.lo > 1e-8f)) { /* a constant group: any positive range will do */
            fit.hi = fit.lo + 1e-8f + fabsf(fit.lo) * 1e-6f;
        }
        float error[MQ_MAX_LEVELS];
        fit_levels(&fit, error, search, w, h, total_h, mean_w, count);
        for (size_t j = 0; j < search->level_count; j++) {
            fit.error += search->lambda[j] * error[j];
        }
        if (k == 0 || fit.error < best->error) {
            *best = fit;
        }
    }
}
