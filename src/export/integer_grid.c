#include "export/integer_grid.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "export/rows.h"
#include "store/pack.h"

enum { LEVELS = 256, LANES = 8 };

/* --- one group -------------------------------------------------------------------------------- */

/* The levels of the slice that occur in a group, with how often. The fit is made in single
 * precision, codes as floats, so that compilers turn its loops into vectors; what the one that is
 * kept costs is added up in double. */
typedef struct histogram {
    size_t count, padded; /* the next multiple of LANES: such levels occur 0 times */
    float values[LEVELS], times[LEVELS];
    uint8_t slices[LEVELS];
    double low, high; /* of all levels of the grid, and 0 */
    double step;
    unsigned last; /* the largest code */
} histogram;

typedef struct grid {
    float scale, error;
    unsigned zero;
    float codes[LEVELS]; /* by index in the histogram */
} grid;

static void count_levels(histogram *out, const uint8_t *slices, size_t count, float scale,
                         float bias, unsigned width) {
    size_t times[LEVELS] = {0};
    for (size_t i = 0; i < count; i++) {
        times[slices[i]]++;
    }
    out->count = 0;
    out->step = fabs((double)scale);
    out->last = (1u << width) - 1;
    for (unsigned s = 0; s <= out->last; s++) {
        if (times[s] > 0) {
            out->values[out->count] = scale * (float)s + bias; /* as eval computes it */
            out->times[out->count] = (float)times[s];
            out->slices[out->count++] = (uint8_t)s;
        }
    }
    out->padded = (out->count + LANES - 1) / LANES * LANES;
    for (size_t i = out->count; i < out->padded; i++) {
        out->values[i] = out->times[i] = 0;
    }
    const double a = bias, b = bias + (double)scale * out->last;
    out->low = a < b ? a : b;
    out->high = a < b ? b : a;
}

static float rounded_to(double value, mq_dtype dtype) {
    const float single = (float)value;
    if (dtype == MQ_F32) {
        return single;
    }
    if (dtype == MQ_BF16) {
        return mq_bf16_to_f32(mq_f32_to_bf16(single));
    }
    const float half = mq_f16_to_f32(mq_f32_to_f16(single));
    return isfinite(half) ? half : 65504.0f;
}

/* In a fixed order. */
static float sum_lanes(const float lane[LANES]) {
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* scale: as it will be stored. */
static void assign(grid *out, const histogram *levels, unsigned zero, float scale) {
    out->zero = zero;
    out->scale = scale;
    const float inverse = scale > 0 ? 1 / scale : 0, z = (float)zero, last = (float)levels->last;
    float sum[LANES] = {0};
    for (size_t i = 0; i < levels->padded; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            float at = levels->values[i + l] * inverse + z + 0.5f;
            at = at > 0 ? at : 0;
            at = at < last ? at : last;
            const float code = (float)(int)at;
            const float error = scale * (code - z) - levels->values[i + l];
            out->codes[i + l] = code;
            sum[l] += levels->times[i + l] * error * error;
        }
    }
    out->error = sum_lanes(sum);
}

static double solve(const grid *current, const histogram *levels) {
    float tt[LANES] = {0}, tw[LANES] = {0};
    const float zero = (float)current->zero;
    for (size_t i = 0; i < levels->padded; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            const float t = current->codes[i + l] - zero;
            const float weighted = levels->times[i + l] * t;
            tt[l] += weighted * t;
            tw[l] += weighted * levels->values[i + l];
        }
    }
    const float squares = sum_lanes(tt);
    return squares > 0 ? (double)(sum_lanes(tw) / squares) : 0;
}

static void improve(grid *best, const histogram *levels, unsigned zero, double start,
                    mq_dtype dtype) {
    grid next;
    float before = INFINITY, scale = rounded_to(start, dtype);
    for (size_t k = 0; k < 8; k++) {
        assign(&next, levels, zero, scale);
        if (!(next.error < before)) {
            break;
        }
        before = next.error;
        if (next.error < best->error) {
            best->scale = next.scale;
            best->error = next.error;
            best->zero = next.zero;
            memcpy(best->codes, next.codes, levels->count * sizeof *next.codes);
        }
        scale = rounded_to(solve(&next, levels), dtype);
        if (scale == next.scale) { /* nothing would change any more */
            break;
        }
    }
}

/* Zero points near the slice's own, which need not be within reach; from its own step, and from the
 * least one that reaches both ends. */
static void fit_group(grid *best, const histogram *levels, mq_dtype dtype) {
    const double own = levels->step > 0 ? -levels->low / levels->step : 0;
    const double near = own < 0 ? 0 : own > levels->last ? levels->last : nearbyint(own);
    const unsigned reach = levels->last <= 7 ? levels->last : 2;
    const unsigned middle = (unsigned)near, first = middle > reach ? middle - reach : 0;
    best->error = INFINITY;
    for (unsigned zero = first; zero <= middle + reach && zero <= levels->last; zero++) {
        const double up =
            levels->high > 0 && zero < levels->last ? levels->high / (levels->last - zero) : 0;
        const double down = levels->low < 0 && zero > 0 ? -levels->low / zero : 0;
        improve(best, levels, zero, levels->step, dtype);
        improve(best, levels, zero, up > down ? up : down, dtype);
    }
}

/* The slice's own grid, whose zero point is whole already; its scale may be negative. Exact where
 * the scale is (matquant/format.h makes it so). */
static void keep_group(grid *out, const histogram *levels, float scale, mq_dtype dtype) {
    out->zero = (levels->last + 1) / 2;
    out->scale = rounded_to(scale, dtype);
    for (size_t i = 0; i < levels->count; i++) {
        out->codes[i] = levels->slices[i];
    }
}

/* What a grid costs. */
static double error_of(const grid *fitted, const histogram *levels) {
    double sum = 0;
    for (size_t i = 0; i < levels->count; i++) {
        const double t = (double)fitted->codes[i] - fitted->zero;
        const double error = (double)fitted->scale * t - (double)levels->values[i];
        sum += (double)levels->times[i] * error * error;
    }
    return sum;
}

/* --- one linear ------------------------------------------------------------------------------- */

static void carve(mq_integer_linear *self, double **errors, const mq_master_view *view) {
    const size_t groups = view->out * self->groups;
    self->scales = mq_carve(&self->slab, groups, sizeof *self->scales);
    *errors = mq_carve(&self->slab, 2 * view->out, sizeof **errors);
    self->zeros = mq_carve(&self->slab, groups, 1);
    self->codes = mq_carve(&self->slab, view->out * view->in, 1);
}

static float half_at(const mq_tensor_info *info, size_t index) {
    float value;
    mq_to_f32(&value, info->data + index * sizeof(uint16_t), MQ_F16, 1);
    return value;
}

/* error[2]: Σ (w - slice's w)², Σ (slice's w)². */
static void fit_row(mq_integer_linear *self, double error[2], const mq_plan *plan,
                    const mq_integer_layout *layout, size_t row) {
    const mq_master_view *view = self->view;
    const unsigned width = plan->job->width;
    const size_t parts = self->groups / view->groups, size = layout->group_size;
    uint8_t *codes = self->codes + row * view->in;
    mq_slice_codes(codes, view->codes->data + row * view->in, view->in, width,
                   mq_master_slice_rule(plan->job->master));
    error[0] = error[1] = 0;
    for (size_t g = 0; g < self->groups; g++) {
        const size_t pair = row * view->groups + g / parts;
        histogram levels;
        grid best = {.error = INFINITY};
        count_levels(&levels, codes + g * size, size, half_at(view->scales[width], pair),
                     half_at(view->biases[width], pair), width);
        if (mq_plan_is_symmetric(plan)) {
            keep_group(&best, &levels, half_at(view->scales[width], pair), layout->scale_dtype);
        } else {
            fit_group(&best, &levels, layout->scale_dtype);
        }
        uint8_t table[LEVELS] = {0};
        for (size_t i = 0; i < levels.count; i++) {
            const double value = (double)levels.values[i];
            table[levels.slices[i]] = (uint8_t)best.codes[i];
            error[1] += (double)levels.times[i] * value * value;
        }
        for (size_t i = g * size; i < (g + 1) * size; i++) {
            codes[i] = table[codes[i]];
        }
        self->scales[row * self->groups + g] = best.scale;
        self->zeros[row * self->groups + g] = (uint8_t)best.zero;
        error[0] += error_of(&best, &levels);
    }
}

mq_status mq_integer_fit(mq_integer_linear *kept, const mq_plan *plan, const mq_master_view *view,
                         const mq_integer_layout *layout, mq_error *err) {
    if (kept->view == view) {
        return MQ_OK;
    }
    mq_integer_free(kept);
    double *errors = NULL;
    kept->groups = view->in / layout->group_size;
    carve(kept, &errors, view);
    mq_status status = mq_slab_allocate(&kept->slab, "a fitted layer", err);
    if (status != MQ_OK) {
        mq_integer_free(kept);
        return status;
    }
    carve(kept, &errors, view);
    kept->view = view;
#pragma omp parallel for schedule(dynamic, 16) if (view->out * view->in >= MQ_WORTH_THREADS)
    for (size_t row = 0; row < view->out; row++) {
        fit_row(kept, errors + 2 * row, plan, layout, row);
    }
    for (size_t row = 0; row < view->out; row++) {
        kept->error += errors[2 * row];
        kept->power += errors[2 * row + 1];
    }
    return mq_check_interrupt(plan->job->context, err);
}

void mq_integer_free(mq_integer_linear *kept) {
    mq_slab_free(&kept->slab);
    *kept = (mq_integer_linear){0};
}

size_t mq_integer_group_size(const mq_master *master) {
    size_t common = 0; /* greatest common divisor, by Euclid */
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        if (view->min_width > 0) { /* embeddings are not stored in these grids */
            continue;
        }
        size_t rest = view->in / view->groups;
        while (rest != 0) {
            const size_t next = common % rest;
            common = rest;
            rest = next;
        }
    }
    return common;
}

void mq_pack_strided(uint32_t *out, const uint8_t *codes, size_t stride, size_t count,
                     unsigned width) {
    uint64_t bits = 0;
    unsigned held = 0;
    for (size_t i = 0; i < count; i++) {
        bits |= (uint64_t)codes[i * stride] << held;
        held += width;
        if (held >= 32) {
            *out++ = (uint32_t)bits;
            bits >>= 32;
            held -= 32;
        }
    }
    if (held > 0) {
        *out = (uint32_t)bits;
    }
}
