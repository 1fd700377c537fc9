/* From a finished grid to what is stored: codes, and a float16 pair for every width. */
#include <math.h>
#include <string.h>

#include "quant/grid.h"
#include "quant/lanes.h"
#include "tensor/dtype.h"

void mq_grid_carve(mq_grid *grid, const mq_grid_class *class_, const mq_grid_options *options,
                   size_t out, size_t in, size_t groups, mq_slab *slab) {
    *grid = (mq_grid){.class_ = class_, .options = options, .out = out, .in = in, .groups = groups};
    class_->carve(grid, slab);
}

void mq_finish_scratch_carve(mq_finish_scratch *scratch, const mq_grid_options *options, size_t out,
                             size_t groups, mq_slab *slab) {
    *scratch = (mq_finish_scratch){0};
    for (size_t i = 0; i < options->width_count; i++) {
        scratch->scale[i] = mq_carve(slab, out, groups * sizeof(float));
        scratch->middle[i] = mq_carve(slab, out, groups * sizeof(float));
    }
}

void mq_quantized_carve(mq_quantized *quantized, size_t out, size_t in, size_t groups,
                        mq_slab *slab) {
    *quantized = (mq_quantized){.out = out, .in = in, .groups = groups};
    quantized->codes = mq_carve(slab, out, in);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        quantized->scales[width] = mq_carve(slab, out, groups * sizeof(uint16_t));
        quantized->biases[width] = mq_carve(slab, out, groups * sizeof(uint16_t));
    }
}

/* What bfloat16 and float16 both have: 8 significant bits. */
static uint16_t half_of_both(double value) {
    return mq_f32_to_f16(mq_bf16_to_f32(mq_f32_to_bf16((float)value)));
}

static uint16_t half_of(double value, bool both) {
    return both ? half_of_both(value) : mq_f32_to_f16((float)value);
}

/* Rounds a pair so that the value at level `at` stays what it was, as nearly as float16 can say it,
 * or as float16 and bfloat16 both can. */
static bool store_pair(uint16_t *scale, uint16_t *bias, double exact_scale, double value, double at,
                       bool both) {
    *scale = half_of(exact_scale, both);
    const float stored = mq_f16_to_f32(*scale);
    *bias = half_of(value - (double)stored * at, both);
    return isfinite(stored) && isfinite(mq_f16_to_f32(*bias));
}

bool mq_symmetric_pair(uint16_t *scale, uint16_t *bias, double exact_scale, unsigned width) {
    *scale = half_of_both(exact_scale);
    *bias = mq_f32_to_f16(-(float)(1u << (width - 1)) * mq_f16_to_f32(*scale));
    return isfinite(mq_f16_to_f32(*bias)); /* exact, as it has the scale's digits: or infinite */
}

/* Least squares of h·(scale·(s - 2^(r-1)) - w)² over one group. */
static bool fit_symmetric(uint16_t *scale, uint16_t *bias, const uint8_t *codes, const float *w,
                          const float *h, size_t count, unsigned width, mq_slice_rule rule) {
    const double zero = (double)(1u << (width - 1));
    double tw = 0, tt = 0, sum_h = 0;
    for (size_t i = 0; i < count; i++) {
        const double t = (double)mq_slice_code(codes[i], width, rule) - zero;
        tw += (double)h[i] * t * (double)w[i];
        tt += (double)h[i] * t * t;
        sum_h += (double)h[i];
    }
    return mq_symmetric_pair(scale, bias, tt > 1e-12 * sum_h ? tw / tt : 0.0, width);
}

/* Least squares of h·(scale·s + bias - w)² over one group (docs/method.md, 2: widths that were not
 * trained). */
static bool fit_pair(uint16_t *scale, uint16_t *bias, const uint8_t *codes, const float *w,
                     const float *h, size_t count, unsigned width, mq_slice_rule rule, bool both) {
    double sum_h = 0, sum_s = 0, sum_w = 0;
    for (size_t i = 0; i < count; i++) {
        const double weight = (double)h[i];
        sum_h += weight;
        sum_s += weight * (double)mq_slice_code(codes[i], width, rule);
        sum_w += weight * (double)w[i];
    }
    const double mean_s = sum_s / sum_h;
    const double mean_w = sum_w / sum_h;
    double sw = 0, ss = 0;
    for (size_t i = 0; i < count; i++) {
        const double weight = (double)h[i];
        const double ds = (double)mq_slice_code(codes[i], width, rule) - mean_s;
        sw += weight * ds * ((double)w[i] - mean_w);
        ss += weight * ds * ds;
    }
    const double best = ss > 1e-12 * sum_h ? sw / ss : 0.0;
    return store_pair(scale, bias, best, mean_w, mean_s, both);
}

static bool finish_width(mq_quantized *quantized, const mq_grid *grid, const float *gram,
                         unsigned width, mq_slice_rule rule, const mq_finish_scratch *scratch) {
    const mq_grid_options *options = grid->options;
    size_t index = 0;
    while (index < options->width_count && options->widths[index] != width) {
        index++;
    }
    /* If a width's loss has weight 0, or no step visited it, no gradient adjusted its scale and
     * middle while the clip moved, so its pair is fitted instead. Exceptions: the codes were made
     * for these numbers (compensation at 8 bits), or all widths share them. */
    const bool made_for =
        grid->class_->pairs_shared || (width == MQ_MAX_WIDTH && scratch->compensation != NULL);
    const bool listed = options->start != MQ_START_SEARCH && index < options->width_count;
    const bool looked_after = listed && options->lambda[index] > 0.0 &&
                              (scratch->visited == NULL || scratch->visited[index]);
    const bool trained = listed && (looked_after || made_for);
    const bool symmetric = options->zero_point == MQ_ZERO_SYMMETRIC;
    const size_t count = grid->in / grid->groups;
    const double middle_at = (double)(1u << (width - 1)) - 0.5;
    int good = 1;
#pragma omp parallel for reduction(&& : good)
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        uint16_t *scale = &quantized->scales[width][group];
        uint16_t *bias = &quantized->biases[width][group];
        const float *h = gram + (group % grid->groups) * count;
        const uint8_t *codes = quantized->codes + group * count;
        const float *w = grid->weight + group * count;
        bool fits;
        if (trained && symmetric) {
            fits = mq_symmetric_pair(scale, bias, (double)scratch->scale[index][group], width);
        } else if (symmetric) {
            fits = fit_symmetric(scale, bias, codes, w, h, count, width, rule);
        } else if (trained) {
            fits = store_pair(scale, bias, (double)scratch->scale[index][group],
                              (double)scratch->middle[index][group], middle_at, false);
        } else {
            fits = fit_pair(scale, bias, codes, w, h, count, width, rule,
                            options->start == MQ_START_SEARCH);
        }
        good = good && fits;
    }
    return good != 0;
}

/* For each code, the range of codes around it that have the same slice at every width that the clip
 * was searched for, except 8 bits. */
typedef struct same_slices {
    float low[256], high[256];
} same_slices;

static bool have_same_slices(const mq_grid_options *options, unsigned a, unsigned b,
                             mq_slice_rule rule) {
    bool same = true;
    for (size_t i = 0; i < options->width_count; i++) {
        const unsigned width = options->widths[i];
        same = same && (width == MQ_MAX_WIDTH || mq_slice_code((uint8_t)a, width, rule) ==
                                                     mq_slice_code((uint8_t)b, width, rule));
    }
    return same;
}

static same_slices find_same_slices(const mq_grid_options *options, mq_slice_rule rule) {
    const unsigned least = options->zero_point == MQ_ZERO_SYMMETRIC ? 1 : 0;
    same_slices same;
    for (unsigned code = 0; code < 256; code++) {
        const bool follows = code > least && have_same_slices(options, code - 1, code, rule);
        same.low[code] = follows ? same.low[code - 1] : (float)code;
    }
    for (unsigned code = 256; code-- > 0;) {
        const bool goes_on = code < 255 && have_same_slices(options, code, code + 1, rule);
        same.high[code] = goes_on ? same.high[code + 1] : (float)code;
    }
    return same;
}

/* Codes as near to the weights under the stored pair of 8 bits as the narrower widths' slices,
 * which stay what they were, leave room for. */
static void round_again(mq_quantized *quantized, const mq_grid *grid, mq_slice_rule rule) {
    const same_slices same = find_same_slices(grid->options, rule);
    const size_t count = grid->in / grid->groups;
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        const float scale = mq_f16_to_f32(quantized->scales[MQ_MAX_WIDTH][group]);
        const float bias = mq_f16_to_f32(quantized->biases[MQ_MAX_WIDTH][group]);
        if (scale == 0.0f) {
            continue;
        }
        for (size_t at = group * count; at < (group + 1) * count; at++) {
            const uint8_t was = quantized->codes[at];
            float code = rintf((grid->weight[at] - bias) / scale);
            code = code > same.low[was] ? code : same.low[was];
            quantized->codes[at] = (uint8_t)(code < same.high[was] ? code : same.high[was]);
        }
    }
}

bool mq_grid_finish(mq_quantized *quantized, const mq_grid *grid, const float *gram,
                    mq_slice_rule rule, const mq_finish_scratch *scratch) {
    grid->class_->finish(quantized->codes, scratch->scale, scratch->middle, grid);
    if (scratch->compensation != NULL) {
        grid->class_->compensate(quantized->codes, grid, scratch->compensation, scratch->work);
    }
    bool good = finish_width(quantized, grid, gram, MQ_MAX_WIDTH, rule, scratch);
    if (grid->options->start == MQ_START_SEARCH) {
        /* Two numbers of 8 significant bits may be half a step of 8 bits off at an end of the
         * range: codes make up for it, where nothing was learned for them. */
        round_again(quantized, grid, rule);
    }
    for (unsigned width = MQ_MIN_WIDTH; width < MQ_MAX_WIDTH; width++) {
        good = finish_width(quantized, grid, gram, width, rule, scratch) && good;
    }
    return good;
}

#define COARSE_SCALE 0x1p-20f /* of which float16 has every sixteenth part */

size_t mq_quantized_coarse_groups(const mq_quantized *quantized) {
    const size_t count = quantized->in / quantized->groups;
    size_t coarse = 0;
#pragma omp parallel for reduction(+ : coarse)
    for (size_t group = 0; group < quantized->out * quantized->groups; group++) {
        const uint8_t *codes = quantized->codes + group * count;
        if (fabsf(mq_f16_to_f32(quantized->scales[MQ_MAX_WIDTH][group])) < COARSE_SCALE) {
            coarse += memcmp(codes, codes + 1, count - 1) != 0; /* else it is one number */
        }
    }
    return coarse;
}

void mq_quantized_values(const mq_values *values, const mq_quantized *quantized, unsigned width,
                         mq_slice_rule rule) {
    const size_t count = quantized->in / quantized->groups;
#pragma omp parallel for
    for (size_t group = 0; group < quantized->out * quantized->groups; group++) {
        const float scale = mq_f16_to_f32(quantized->scales[width][group]);
        const float bias = mq_f16_to_f32(quantized->biases[width][group]);
        const uint8_t *codes = quantized->codes + group * count;
        float chunk[MQ_CHUNK];
        for (size_t done = 0; done < count; done += MQ_CHUNK) {
            const size_t n = count - done < MQ_CHUNK ? count - done : MQ_CHUNK;
            const size_t at = group * count + done;
            float *value = values->f32 != NULL ? values->f32 + at : chunk;
            for (size_t i = 0; i < n; i++) {
                value[i] = scale * (float)mq_slice_code(codes[done + i], width, rule) + bias;
            }
            if (values->bf16 != NULL) {
                mq_bf16_round_all(values->bf16 + at, value, n);
            }
        }
    }
}
