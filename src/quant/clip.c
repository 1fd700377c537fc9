/* The clip grid: OmniQuant's learned weight clipping (Shao et al. 2023, eq. 2) under MatQuant's
 * slices (arXiv 2502.06786, eq. 3 to 7), for recipe paper.
 *
 *   hi = sigmoid(γ)·max(w), lo = sigmoid(β)·min(w), α = (hi - lo)/255
 *   q = clamp(⌊(w - lo)/α + ½⌋, 0, 255)
 *   s_r = clamp(⌊q/2^(8-r) + ½⌋, 0, 2^r - 1), ŵ_r = α·2^(8-r)·s_r + lo
 *
 * Where one width r is trained alone and rounded, this is OmniQuant's own quantizer for it, rounded
 * once and with its largest slice at hi: with c = 2^(8-r), α = (hi - lo)/(256 - c) and
 * q = c·clamp(⌊(w - lo)/(c·α) + ½⌋, 0, 2^r - 1).
 *
 * With slice rule round-extra, the paper's extra precision, s_r = ⌊q/2^(8-r) + ½⌋ goes up to 2^r.
 *
 * γ and β (both 4 at the start) are all that is learned: one pair a group for all widths. Straight
 * through both roundings; both clamps stop the gradient of q. OmniQuant rounds the zero point
 * -lo/α; here, as in MatQuant's eq. 3, it stays real, unless the zero point is to be symmetric:
 *
 *   α = sigmoid(γ)·max|w|/127, lo = -128·α, q = clamp(⌊w/α + 128 + ½⌋, 1, 255)
 *
 * with γ alone to be learned.
 *
 * Where nothing is learned but the clip of the least error is searched (embeddings), γ and β are
 * what stands for that clip, and each width's pair is fitted to its slices. */
#include "quant/clip.h"

#include <assert.h>
#include <string.h>

#include "quant/lanes.h"
#include "quant/nested.h"

#define START_LOGIT 4.0f       /* sigmoid(4) = 0.982: OmniQuant's initial value */
#define FULL_RANGE_LOGIT 30.0f /* sigmoid = 1 in float32 */

static void clip_carve(mq_grid *grid, mq_slab *slab) {
    mq_clip local = {0};
    mq_clip *clip = mq_carve(slab, 1, sizeof *clip);
    if (clip == NULL) {
        clip = &local;
    } else {
        grid->state = clip;
    }
    const size_t groups = grid->out * grid->groups;
    clip->smallest = mq_carve(slab, groups, sizeof(float));
    clip->largest = mq_carve(slab, groups, sizeof(float));
    clip->params = mq_carve(slab, groups, 2 * sizeof(float));
    clip->m = mq_carve(slab, groups, 2 * sizeof(float));
    clip->v = mq_carve(slab, groups, 2 * sizeof(float));
}

static bool is_symmetric(const mq_grid *grid) {
    return grid->options->zero_point == MQ_ZERO_SYMMETRIC;
}

static void clip_follow(mq_grid *grid) {
    mq_clip *clip = grid->state;
    const size_t count = grid->in / grid->groups;
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        const float *w = grid->weight + group * count;
        float smallest = w[0], largest = w[0];
        for (size_t i = 1; i < count; i++) {
            smallest = w[i] < smallest ? w[i] : smallest;
            largest = w[i] > largest ? w[i] : largest;
        }
        if (is_symmetric(grid)) {
            largest = largest > -smallest ? largest : -smallest;
            smallest = -largest;
        }
        clip->smallest[group] = smallest;
        clip->largest[group] = largest;
    }
}

static float sigmoid(float logit) { return 1.0f / (1.0f + expf(-logit)); }

/* The candidates of the search as logits, logit[k] of shrink[k]. */
static mq_search search_of(float logit[MQ_SHRINKS], const mq_grid_options *options) {
    mq_search search = {
        .codes =
            options->slice_rule == MQ_SLICE_ROUND_EXTRA ? MQ_SEARCH_ROUND_EXTRA : MQ_SEARCH_ROUND,
        .level_count = options->width_count,
        .shrink_count = MQ_SHRINKS,
    };
    for (size_t k = 0; k < options->width_count; k++) {
        search.level[k] = options->widths[k];
        search.lambda[k] = (float)options->lambda[k];
    }
    for (size_t k = 0; k < MQ_SHRINKS; k++) {
        const float shrink = mq_search_shrink(k);
        logit[k] = k == 0 ? FULL_RANGE_LOGIT : logf(shrink / (1.0f - shrink));
        search.shrink[k] = sigmoid(logit[k]); /* exactly what range_of will make of it */
    }
    return search;
}

static void search_params(mq_grid *grid, const float *gram) {
    const mq_nested_kernels *kernels = mq_nested_kernels_best();
    const size_t count = grid->in / grid->groups;
    mq_clip *clip = grid->state;
    float logit[MQ_SHRINKS];
    const mq_search search = search_of(logit, grid->options);
#pragma omp parallel for schedule(static)
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        mq_search_fit fit;
        kernels->search(&fit, &search, grid->weight + group * count,
                        gram + group % grid->groups * count, count);
        clip->params[2 * group] = clip->params[2 * group + 1] = logit[fit.candidate];
    }
}

static void clip_start(mq_grid *grid, const float *weight, const float *gram) {
    mq_clip *clip = grid->state;
    const size_t groups = grid->out * grid->groups;
    const mq_grid_start start = grid->options->start;
    grid->weight = weight;
    clip_follow(grid);
    for (size_t p = 0; p < 2 * groups; p++) { /* whatever the input: gram is for the search */
        clip->params[p] = start == MQ_START_RANGE ? FULL_RANGE_LOGIT : START_LOGIT;
    }
    if (start == MQ_START_SEARCH) {
        assert(!is_symmetric(grid));
        search_params(grid, gram);
    }
    memset(clip->m, 0, groups * 2 * sizeof(float));
    memset(clip->v, 0, groups * 2 * sizeof(float));
}

typedef struct clip_range {
    float lo, alpha;
    float dlo, dhi;  /* derivatives of lo by β and of hi by γ */
    float low, high; /* of lo by min(w) and of hi by max(w) */
    float dalpha;    /* symmetric: of α by γ */
    float first;     /* the least code */
    float spacing;   /* c: what codes are multiples of */
} clip_range;

/* With a symmetric zero point: α of the larger end, and its derivative by γ in dalpha. */
static clip_range symmetric_range(const mq_clip *clip, size_t group) {
    const float high = sigmoid(clip->params[2 * group + 1]);
    clip_range range = {.alpha = high * clip->largest[group] / 127.0f,
                        .dalpha = high * (1.0f - high) * clip->largest[group] / 127.0f,
                        .first = 1.0f,
                        .spacing = 1.0f};
    if (!(range.alpha > 1e-10f)) { /* all zero, or nearly so */
        range.alpha = 1e-10f;
    }
    range.lo = -128.0f * range.alpha;
    return range;
}

/* c: what codes are multiples of. */
static float spacing_of(const mq_grid_options *options) {
    const bool dedicated = options->width_count == 1 && options->start == MQ_START_LEARNING &&
                           options->slice_rule == MQ_SLICE_ROUND;
    return dedicated ? (float)(1u << (MQ_MAX_WIDTH - options->widths[0])) : 1.0f;
}

static clip_range range_of(const mq_grid *grid, size_t group) {
    const mq_clip *clip = grid->state;
    if (is_symmetric(grid)) {
        return symmetric_range(clip, group);
    }
    const float low = sigmoid(clip->params[2 * group]);
    const float high = sigmoid(clip->params[2 * group + 1]);
    clip_range range = {
        .lo = low * clip->smallest[group],
        .dlo = low * (1.0f - low) * clip->smallest[group],
        .dhi = high * (1.0f - high) * clip->largest[group],
        .low = low,
        .high = high,
        .spacing = spacing_of(grid->options),
    };
    float span = high * clip->largest[group] - range.lo;
    if (!(span > 1e-8f)) { /* constant, or all of one sign and nearly so */
        span = 1e-8f + 1e-6f * fabsf(range.lo);
    }
    range.alpha = span / (256.0f - range.spacing);
    return range;
}

/* q[count] as whole floats, and inside[count] = 1 where its clamp does not bind. */
static inline void codes_of(float *q, float *inside, const float *w, clip_range range,
                            size_t count) {
    const float inverse = 1.0f / (range.alpha * range.spacing);
    const float levels = 256.0f / range.spacing, last = levels - 1.0f;
    for (size_t i = 0; i < count; i++) {
        const float u = (w[i] - range.lo) * inverse + 0.5f;
        inside[i] = u >= range.first && u < levels ? 1.0f : 0.0f;
        const float bounded = u > range.first ? (u < last ? u : last) : range.first;
        q[i] = range.spacing * (float)(int)bounded;
    }
}

/* s[count] for a width, and inside[count] = 1 where the slice's own clamp does not bind. */
static inline void slices_of(float *s, float *inside, const float *q, unsigned width,
                             mq_slice_rule rule, size_t count) {
    const float shrink = 1.0f / (float)(1u << (MQ_MAX_WIDTH - width));
    const float last = (float)(1u << width) - (rule == MQ_SLICE_ROUND ? 1.0f : 0.0f);
    for (size_t i = 0; i < count; i++) {
        const float rounded = (float)(int)(q[i] * shrink + 0.5f);
        inside[i] = rounded <= last ? 1.0f : 0.0f;
        s[i] = rounded < last ? rounded : last;
    }
}

static void group_values(const mq_grid *grid, const mq_values values[], size_t group) {
    const size_t count = grid->in / grid->groups;
    const clip_range range = range_of(grid, group);
    float q[MQ_CHUNK], s[MQ_CHUNK], inside[MQ_CHUNK];
    for (size_t done = 0; done < count; done += MQ_CHUNK) {
        const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
        const size_t at = group * count + done;
        codes_of(q, inside, grid->weight + at, range, n);
        for (size_t k = 0; k < grid->options->width_count; k++) {
            if (values[k].f32 == NULL && values[k].bf16 == NULL) {
                continue;
            }
            const unsigned width = grid->options->widths[k];
            const float scale = range.alpha * (float)(1u << (MQ_MAX_WIDTH - width));
            slices_of(s, inside, q, width, grid->options->slice_rule, n);
            float unkept[MQ_CHUNK];
            float *value = values[k].f32 != NULL ? values[k].f32 + at : unkept;
            for (size_t i = 0; i < n; i++) {
                value[i] = scale * s[i] + range.lo;
            }
            if (values[k].bf16 != NULL) {
                mq_bf16_round_all(values[k].bf16 + at, value, n);
            }
        }
    }
}

static void clip_values(const mq_values values[], const mq_grid *grid) {
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        group_values(grid, values, group);
    }
}

/* by_weight += gradient where neither clamp binds: ŵ follows w there, straight through the
 * roundings at a fixed lo and α. */
static inline void add_by_weight(float *by_weight, const float *gradient, const float *fixed,
                                 size_t count) {
    for (size_t i = 0; i < count; i++) {
        by_weight[i] += (1.0f - fixed[i]) * gradient[i];
    }
}

/* The smallest and the largest weight of a group carry the clip: what it gets is theirs. */
static void add_by_clip(float *by_weight, const mq_clip *clip, const float *weight, size_t group,
                        size_t count, float by_smallest, float by_largest) {
    bool smallest = false, largest = false; /* the first of several */
    for (size_t i = 0; i < count; i++) {
        if (!smallest && weight[i] <= clip->smallest[group]) {
            by_weight[i] += by_smallest;
            smallest = true;
        }
        if (!largest && weight[i] >= clip->largest[group]) {
            by_weight[i] += by_largest;
            largest = true;
        }
    }
}

/* Gradients by lo and hi: with c = 2^(8-r) and t = (w - lo)/α, ŵ = α·c·s + lo has ∂ŵ/∂α = c·s -
 * [free]·t and ∂ŵ/∂lo (α fixed) = 1 - [free], where free means that neither clamp binds; α =
 * (hi - lo)/(256 - c'), c' what codes are multiples of. */
static void group_step(mq_grid *grid, const float *const gradients[], const mq_adam *adam,
                       size_t group) {
    mq_clip *clip = grid->state;
    const size_t count = grid->in / grid->groups;
    const clip_range range = range_of(grid, group);
    float q[MQ_CHUNK], s[MQ_CHUNK], in_code[MQ_CHUNK], in_slice[MQ_CHUNK], by_alpha[MQ_CHUNK];
    mq_lanes alpha = {{0}}, low = {{0}};
    float *by_weight = grid->weight_gradient != NULL ? grid->weight_gradient + group * count : NULL;
    if (by_weight != NULL) {
        memset(by_weight, 0, count * sizeof(float));
    }
    for (size_t done = 0; done < count; done += MQ_CHUNK) {
        const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
        const size_t at = group * count + done;
        codes_of(q, in_code, grid->weight + at, range, n);
        for (size_t k = 0; k < grid->options->width_count; k++) {
            if (gradients[k] == NULL) {
                continue;
            }
            const unsigned width = grid->options->widths[k];
            const float step = (float)(1u << (MQ_MAX_WIDTH - width));
            slices_of(s, in_slice, q, width, grid->options->slice_rule, n);
            for (size_t i = 0; i < n; i++) {
                const float free_ = in_code[i] * in_slice[i];
                const float t = (grid->weight[at + i] - range.lo) / range.alpha;
                by_alpha[i] = step * s[i] - free_ * t;
                in_slice[i] = 1.0f - free_;
            }
            mq_lanes_add_product(&alpha, gradients[k] + at, by_alpha, n);
            mq_lanes_add_product(&low, gradients[k] + at, in_slice, n);
            if (by_weight != NULL) {
                add_by_weight(by_weight + done, gradients[k] + at, in_slice, n);
            }
        }
    }
    const float by_span = mq_lanes_sum(&alpha) / (256.0f - range.spacing);
    const float by_lo = mq_lanes_sum(&low) - by_span;
    float gradient[2] = {by_lo * range.dlo, by_span * range.dhi};
    if (is_symmetric(grid)) { /* lo moves with α */
        gradient[0] = 0.0f;
        gradient[1] = (mq_lanes_sum(&alpha) - 128.0f * mq_lanes_sum(&low)) * range.dalpha;
    }
    if (by_weight != NULL) {
        add_by_clip(by_weight, clip, grid->weight + group * count, group, count, by_lo * range.low,
                    by_span * range.high);
    }
    for (size_t p = 0; p < 2; p++) {
        const size_t i = 2 * group + p;
        clip->params[i] = mq_adam_update(&clip->m[i], &clip->v[i], adam, adam->rate_group,
                                         clip->params[i], gradient[p]);
    }
}

static void clip_step(mq_grid *grid, const float *const gradients[], const mq_values values[],
                      const mq_adam *adam) {
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        group_step(grid, gradients, adam, group);
        group_values(grid, values, group);
    }
}

static void clip_finish(uint8_t *codes, float *const scale[], float *const middle[],
                        const mq_grid *grid) {
    const size_t count = grid->in / grid->groups;
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        const clip_range range = range_of(grid, group);
        float q[MQ_CHUNK], inside[MQ_CHUNK];
        for (size_t done = 0; done < count; done += MQ_CHUNK) {
            const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
            codes_of(q, inside, grid->weight + group * count + done, range, n);
            for (size_t i = 0; i < n; i++) {
                codes[group * count + done + i] = (uint8_t)q[i];
            }
        }
        for (size_t k = 0; k < grid->options->width_count; k++) {
            const unsigned width = grid->options->widths[k];
            scale[k][group] = range.alpha * (float)(1u << (MQ_MAX_WIDTH - width));
            middle[k][group] = range.lo + scale[k][group] * ((float)(1u << (width - 1)) - 0.5f);
        }
    }
}

const mq_grid_class mq_clip_grid = {
    .name = "clip",
    .rate_group = 1e-2, /* OmniQuant's --lwc_lr */
    .rate_rounding = 0.0,
    .beta1 = MQ_ADAM_BETA1,
    .pairs_shared = true,
    .carve = clip_carve,
    .start = clip_start,
    .values = clip_values,
    .step = clip_step,
    .finish = clip_finish,
    .follow = clip_follow,
};
