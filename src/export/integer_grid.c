#include "export/integer_grid.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "export/fit.h"
#include "export/rows.h"
#include "store/pack.h"

enum { LEVELS = MQ_FIT_LEVELS, LANES = 16 };

/* --- one group -------------------------------------------------------------------------------- */

/* Which of times[LEVELS] are not 0, a bit each. */
static void find_used(uint64_t used[LEVELS / 64], const uint32_t *times, size_t count) {
    uint8_t is_used[LEVELS] = {0};
    for (size_t s = 0; s < count; s++) {
        is_used[s] = times[s] != 0;
    }
    for (size_t k = 0; k < LEVELS / 64; k++) {
        used[k] = 0;
        for (size_t i = 0; i < 8; i++) { /* bytes of 0 and 1 become the bits of one */
            uint64_t eight;
            memcpy(&eight, is_used + 64 * k + 8 * i, sizeof eight);
            used[k] |= (eight * 0x0102040810204080u >> 56) << 8 * i;
        }
    }
}

/* Levels that do not occur are passed over by bits: in 8 bits most do not, and whether the next one
 * does, no processor can foresee. */
static void count_levels(mq_fit_levels *out, const uint8_t *slices, size_t count, float scale,
                         float bias, unsigned width) {
    uint32_t times[LEVELS];
    uint64_t used[LEVELS / 64];
    out->step = fabs((double)scale);
    out->last = (1u << width) - 1;
    memset(times, 0, (out->last + 1) * sizeof *times);
    for (size_t i = 0; i < count; i++) {
        times[slices[i]]++;
    }
    find_used(used, times, out->last + 1);
    out->count = 0;
    for (size_t k = 0; k <= out->last / 64; k++) {
        for (uint64_t left = used[k]; left != 0; left &= left - 1) {
            const unsigned s = (unsigned)(64 * k) + (unsigned)__builtin_ctzll(left);
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

/* The slice's own grid, whose zero point is whole already; its scale may be negative. Exact where
 * the scale is (matquant/format.h makes it so). */
static void keep_group(mq_fit_grid *out, const mq_fit_levels *levels, float scale, mq_dtype dtype) {
    out->zero = (levels->last + 1) / 2;
    out->scale = rounded_to(scale, dtype);
    for (size_t i = 0; i < levels->count; i++) {
        out->codes[i] = levels->slices[i];
    }
}

/* Adds to error[2] what a grid costs: Σ (w - slice's w)², Σ (slice's w)². */
static void add_error(double error[2], const mq_fit_grid *fitted, const mq_fit_levels *levels) {
    const float scale = fitted->scale, zero = (float)fitted->zero;
    double errors = 0, power = 0;
#pragma omp simd reduction(+ : errors, power)
    for (size_t i = 0; i < levels->count; i++) {
        const double value = (double)levels->values[i], times = (double)levels->times[i];
        const double off = (double)scale * (double)(fitted->codes[i] - zero) - value;
        errors += times * off * off;
        power += times * value * value;
    }
    error[0] += errors;
    error[1] += power;
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
    uint16_t half;
    memcpy(&half, info->data + index * sizeof half, sizeof half);
    return mq_f16_to_f32(half);
}

/* Groups [first, first + count) of a row, whose codes become those of the grid: count is at most
 * MQ_FIT_GROUPS. */
static void fit_groups(mq_integer_linear *self, double error[2], const mq_plan *plan,
                       const mq_integer_layout *layout, size_t row, size_t first, size_t count) {
    const mq_master_view *view = self->view;
    const unsigned width = mq_view_width(view, plan->job->width);
    const size_t parts = self->groups / view->groups, size = layout->group_size;
    uint8_t *codes = self->codes + row * view->in + first * size;
    mq_fit_levels levels[MQ_FIT_GROUPS];
    mq_fit_grid grids[MQ_FIT_GROUPS];
    for (size_t i = 0; i < count; i++) {
        const size_t pair = row * view->groups + (first + i) / parts;
        const float scale = half_at(view->scales[width], pair);
        count_levels(&levels[i], codes + i * size, size, scale, half_at(view->biases[width], pair),
                     width);
        if (mq_plan_is_symmetric(plan)) {
            keep_group(&grids[i], &levels[i], scale, layout->scale_dtype);
        }
    }
    if (!mq_plan_is_symmetric(plan)) {
        mq_fit_kernels_best()->integer(grids, levels, count, layout->scale_dtype);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t table[LEVELS] = {0};
        for (size_t k = 0; k < levels[i].count; k++) {
            table[levels[i].slices[k]] = (uint8_t)grids[i].codes[k];
        }
        for (size_t k = i * size; k < (i + 1) * size; k++) {
            codes[k] = table[codes[k]];
        }
        self->scales[row * self->groups + first + i] = grids[i].scale;
        self->zeros[row * self->groups + first + i] = (uint8_t)grids[i].zero;
        add_error(error, &grids[i], &levels[i]);
    }
}

/* error[2]: Σ (w - slice's w)², Σ (slice's w)². */
static void fit_row(mq_integer_linear *self, double error[2], const mq_plan *plan,
                    const mq_integer_layout *layout, size_t row) {
    const mq_master_view *view = self->view;
    mq_slice_codes(self->codes + row * view->in, view->codes->data + row * view->in, view->in,
                   mq_view_width(view, plan->job->width), mq_master_slice_rule(plan->job->master));
    error[0] = error[1] = 0;
    for (size_t first = 0; first < self->groups; first += MQ_FIT_GROUPS) {
        const size_t left = self->groups - first;
        fit_groups(self, error, plan, layout, row, first,
                   left < MQ_FIT_GROUPS ? left : MQ_FIT_GROUPS);
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
