/* The nested grid: storage, threads over rows, and from parameters to codes. */
#include "quant/nested.h"

#include <string.h>

#include "base/machine.h"

/* What 8 bits would have of a narrower width's code is a small part of their step from it: a fifth
 * of their pull keeps them within half a percent of full precision's perplexity, and the others are
 * heard the more. What that gives and costs is in tests/bench/RESULTS.md, "Whose gradient decides a
 * code". */
static float pull_of(unsigned width) { return width == MQ_MAX_WIDTH ? 0.2f : 1.5f; }

static void levels_of(mq_nested *nested, const mq_grid_options *options) {
    nested->level_count = 0;
    nested->symmetric = options->zero_point == MQ_ZERO_SYMMETRIC;
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        size_t index = 0;
        while (index < options->width_count && options->widths[index] != width) {
            index++;
        }
        const bool trained = index < options->width_count;
        if (!trained && width != MQ_MAX_WIDTH) {
            continue;
        }
        const size_t j = nested->level_count++;
        nested->level[j] = width;
        nested->width_index[j] = trained ? index : MQ_MAX_WIDTHS;
        /* The widest has none (docs/method.md, 1): at 8 bits the natural code is as good as any. */
        nested->has_offset[j] = width != MQ_MAX_WIDTH && options->start != MQ_START_SEARCH;
        nested->pull[j] = pull_of(width);
    }
    nested->param_count = 2 + 2 * nested->level_count;
}

static void nested_carve(mq_grid *grid, mq_slab *slab) {
    mq_nested local = {0};
    mq_nested *nested = mq_carve(slab, 1, sizeof *nested);
    if (nested == NULL) {
        nested = &local;
    } else {
        *nested = local;
        grid->state = nested;
    }
    levels_of(nested, grid->options);
    const size_t groups =
        grid->out * grid->groups; /* both come from shapes whose product was checked */
    nested->lo0 = mq_carve(slab, groups, sizeof(float));
    nested->hi0 = mq_carve(slab, groups, sizeof(float));
    nested->params = mq_carve(slab, groups, nested->param_count * sizeof(float));
    nested->m = mq_carve(slab, groups, nested->param_count * sizeof(float));
    nested->v = mq_carve(slab, groups, nested->param_count * sizeof(float));
    const size_t weights = grid->out * grid->in;
    for (size_t j = 0; j < nested->level_count; j++) {
        if (nested->has_offset[j]) {
            nested->offset[j] = mq_carve(slab, weights, sizeof(float));
            nested->offset_m[j] = mq_carve(slab, weights, sizeof(float));
            nested->offset_v[j] = mq_carve(slab, weights, sizeof(float));
        }
    }
}

const mq_nested_kernels *mq_nested_kernels_at(size_t index) {
    static const mq_nested_kernels *const all[] = MQ_KERNELS_OF(mq_nested_kernels);
    return index <= (size_t)mq_simd_best() ? all[index] : NULL;
}

const mq_nested_kernels *mq_nested_kernels_best(void) {
    return mq_nested_kernels_at((size_t)mq_simd_best());
}

/* A clip that learning would turn around stays a thousandth wide; with a symmetric zero point lo =
 * -hi, of either sign. */
static void clip_of(float *lo, float *hi, const mq_nested *nested, size_t group) {
    const float *params = nested->params + group * nested->param_count;
    if (nested->symmetric) {
        const float ratio = 1.0f + 2.0f * params[1]; /* in units of the span, which is twice hi0 */
        *hi = nested->hi0[group] * (ratio > 1e-3f ? ratio : 1e-3f);
        *lo = -*hi;
        return;
    }
    const float first_span = nested->hi0[group] - nested->lo0[group];
    *lo = nested->lo0[group] + params[0] * first_span;
    *hi = nested->hi0[group] + params[1] * first_span;
    if (!(*hi - *lo > 1e-3f * first_span)) {
        *hi = *lo + 1e-3f * first_span;
    }
}

void mq_nested_group(float *lo, float *hi, mq_nested_level levels[MQ_MAX_LEVELS],
                     const mq_nested *nested, size_t group) {
    const float *params = nested->params + group * nested->param_count;
    clip_of(lo, hi, nested, group);
    for (size_t j = 0; j < nested->level_count; j++) {
        const unsigned width = nested->level[j];
        mq_nested_level *level = &levels[j];
        level->step = (*hi - *lo) / (float)(1u << width);
        level->factor = expf(params[2 + 2 * j]);
        level->scale = level->step * level->factor;
        if (nested->symmetric) {
            level->middle = -0.5f * level->scale;
            level->bias = -level->scale * (float)(1u << (width - 1));
        } else {
            level->middle = 0.5f * (*lo + *hi) + params[3 + 2 * j] * level->step;
            level->bias = level->middle - level->scale * ((float)(1u << (width - 1)) - 0.5f);
        }
    }
}

/* Rows a task: rows are independent of each other, so the split decides nothing but the time. */
#define ROWS_PER_TASK 16

/* What is learned begins at nothing. By the threads: of a block of billions of weights this is
 * gigabytes, most of them touched for the first time. */
static void clear_rows(mq_nested *nested, const mq_grid *grid, size_t first, size_t last) {
    const size_t params = grid->groups * nested->param_count;
    memset(nested->m + first * params, 0, (last - first) * params * sizeof(float));
    memset(nested->v + first * params, 0, (last - first) * params * sizeof(float));
    const size_t begin = first * grid->in, bytes = (last - first) * grid->in * sizeof(float);
    for (size_t j = 0; j < nested->level_count; j++) {
        if (nested->has_offset[j]) {
            memset(nested->offset[j] + begin, 0, bytes);
            memset(nested->offset_m[j] + begin, 0, bytes);
            memset(nested->offset_v[j] + begin, 0, bytes);
        }
    }
}

static void nested_start(mq_grid *grid, const float *weight, const float *gram) {
    mq_nested *nested = grid->state;
    const mq_nested_kernels *kernels = mq_nested_kernels_best();
    grid->weight = weight;
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < grid->out; first += ROWS_PER_TASK) {
        const size_t last = first + ROWS_PER_TASK < grid->out ? first + ROWS_PER_TASK : grid->out;
        clear_rows(nested, grid, first, last);
        kernels->start(grid, gram, first, last);
    }
}

static void nested_values(const mq_values values[], const mq_grid *grid) {
    const mq_nested_kernels *kernels = mq_nested_kernels_best();
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < grid->out; first += ROWS_PER_TASK) {
        const size_t last = first + ROWS_PER_TASK < grid->out ? first + ROWS_PER_TASK : grid->out;
        kernels->values(grid, values, first, last);
    }
}

static void nested_step(mq_grid *grid, const float *const gradients[], const mq_values values[],
                        const mq_adam *adam) {
    const mq_nested_kernels *kernels = mq_nested_kernels_best();
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < grid->out; first += ROWS_PER_TASK) {
        const size_t last = first + ROWS_PER_TASK < grid->out ? first + ROWS_PER_TASK : grid->out;
        kernels->step(grid, gradients, values, adam, first, last);
    }
}

/* The 8-bit code of one weight: the chain of levels from the first one that decides on, each inside
 * the bucket of the one before. */
static uint8_t code_of(const mq_nested *nested, float z, size_t at, size_t decides) {
    float code = 0.0f;
    unsigned parent = 0;
    for (size_t j = decides; j < nested->level_count; j++) {
        const float room = (float)(1u << (nested->level[j] - parent));
        const float begin = code * room;
        float soft = z * (float)(1u << nested->level[j]);
        if (nested->has_offset[j]) {
            soft += nested->offset[j][at];
        }
        soft = soft > begin ? soft : begin;
        soft = soft < begin + room - 1.0f ? soft : begin + room - 1.0f;
        code = (float)(int)soft;
        parent = nested->level[j];
    }
    return (uint8_t)code;
}

/* The same with a symmetric zero point: the codes from a to b are left by the levels before. */
static uint8_t symmetric_code_of(const mq_nested *nested, float z, size_t at, size_t decides) {
    uint8_t a = 1, b = 255;
    unsigned code = 0;
    for (size_t j = decides; j < nested->level_count; j++) {
        const unsigned width = nested->level[j];
        const float first = (float)mq_slice_code(a, width, MQ_SLICE_ROUND);
        const float last = (float)mq_slice_code(b, width, MQ_SLICE_ROUND);
        float soft = z * (float)(1u << width) + 0.5f;
        if (nested->has_offset[j]) {
            soft += nested->offset[j][at];
        }
        soft = soft > first ? soft : first;
        soft = soft < last ? soft : last;
        code = (unsigned)soft;
        mq_nested_bucket(&a, &b, code, width, true);
    }
    return (uint8_t)code;
}

static void nested_finish(uint8_t *codes, float *const scale[], float *const middle[],
                          const mq_grid *grid) {
    const mq_nested *nested = grid->state;
    const size_t count = grid->in / grid->groups;
    /* Where narrower levels have learned nothing, 8 bits decide, as the search took it. */
    const size_t decides = grid->options->start == MQ_START_SEARCH ? nested->level_count - 1 : 0;
#pragma omp parallel for
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        mq_nested_level levels[MQ_MAX_LEVELS];
        float lo, hi;
        mq_nested_group(&lo, &hi, levels, nested, group);
        const float inverse_span = 1.0f / (hi - lo);
        for (size_t at = group * count; at < (group + 1) * count; at++) {
            const float z = (grid->weight[at] - lo) * inverse_span;
            codes[at] = nested->symmetric ? symmetric_code_of(nested, z, at, decides)
                                          : code_of(nested, z, at, decides);
        }
        for (size_t j = 0; j < nested->level_count; j++) {
            if (nested->width_index[j] < MQ_MAX_WIDTHS) {
                scale[nested->width_index[j]][group] = levels[j].scale;
                middle[nested->width_index[j]][group] = levels[j].middle;
            }
        }
    }
}

const mq_grid_class mq_nested_grid = {
    .name = "nested",
    /* Steps of two sequences (quant/recipe.c) and a memory shorter than the usual 0.9. Widths share
     * ranges and codes, and int8's gradient comes on few steps and is so much heavier there: what
     * the first moment carries on of it may be what was in the others' way. The trials are in
     * tests/bench/RESULTS.md ("Steps and rates of the blocks"). */
    .rate_group = 1.6e-3,
    .rate_rounding = 8e-3,
    .beta1 = 0.5,
    .scaled_epsilon = true,
    .carve = nested_carve,
    .start = nested_start,
    .values = nested_values,
    .step = nested_step,
    .finish = nested_finish,
    .compensate = mq_nested_compensate,
    .compensate_bytes = mq_nested_compensate_bytes,
};
