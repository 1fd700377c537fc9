#include "export/integer_grid.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "export/fit.h"
#include "export/rows.h"
#include "store/pack.h"

enum { ROWS = 16 }; /* that are fitted together: whole vectors of groups, whatever a row has */

/* What a thread works with. */
typedef struct scratch {
    float *biases;  /* [ROWS, groups] */
    uint8_t *codes; /* [ROWS, in] */
    mq_slab slab;
} scratch;

static void carve_scratch(scratch *self, const mq_integer_linear *linear) {
    self->biases = mq_carve(&self->slab, ROWS * linear->groups, sizeof *self->biases);
    self->codes = mq_carve(&self->slab, ROWS * linear->view->in, 1);
}

static void carve(mq_integer_linear *self, double **errors) {
    const size_t out = self->view->out, groups = out * self->groups;
    self->scales = mq_carve(&self->slab, groups, sizeof *self->scales);
    *errors = mq_carve(&self->slab, out / ROWS + 1, 2 * sizeof **errors);
    self->words = mq_carve(&self->slab, out * self->row_words, sizeof *self->words);
    self->zeros = mq_carve(&self->slab, groups, 1);
}

/* out[count] from pairs that are for `parts` groups each, from group `first` on. */
static void read_pairs(float *out, const mq_tensor_info *info, size_t parts, size_t first,
                       size_t count) {
    if (parts == 1) {
        mq_to_f32(out, info->data + first * sizeof(uint16_t), MQ_F16, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        mq_to_f32(out + i, info->data + (first + i) / parts * sizeof(uint16_t), MQ_F16, 1);
    }
}

/* The slice's own grids, whose zero points are whole already; scales may be negative. Exact where
 * the scale is (matquant/format.h makes it so). */
static void keep_groups(mq_fit_groups *groups) {
    const unsigned zero = 1u << (groups->width - 1);
    memset(groups->zeros, (int)zero, groups->count);
    for (size_t g = 0; g < groups->count; g++) {
        const uint8_t *codes = groups->codes + g * groups->size;
        const float own = groups->scales[g], bias = groups->biases[g];
        unsigned char stored[sizeof(float)];
        mq_from_f32(stored, groups->dtype, &own, 1);
        mq_to_f32(&groups->scales[g], stored, groups->dtype, 1);
        const double scale = (double)groups->scales[g];
        double errors = 0, power = 0;
#pragma omp simd reduction(+ : errors, power)
        for (size_t i = 0; i < groups->size; i++) {
            const double value = (double)(own * (float)codes[i] + bias);
            const double off = scale * ((double)codes[i] - (double)zero) - value;
            errors += off * off;
            power += value * value;
        }
        groups->error += errors;
        groups->power += power;
    }
}

/* The row's codes as words, the last filled up with zeros. */
static void pack_row(uint32_t *words, const uint8_t *codes, size_t count, unsigned width) {
    if (count * width % 32 == 0) {
        mq_pack_slices(words, codes, count, width);
    } else {
        mq_pack_strided(words, codes, 1, count, width);
    }
}

/* Rows [first, first + count), at most ROWS. error[2]: Σ (w - slice's w)², Σ (slice's w)². */
static void fit_rows(mq_integer_linear *self, double error[2], const scratch *with,
                     const mq_plan *plan, const mq_integer_layout *layout, size_t first,
                     size_t count) {
    const mq_master_view *view = self->view;
    const unsigned width = mq_view_width(view, plan->job->width);
    const size_t parts = self->groups / view->groups, at = first * self->groups;
    mq_fit_groups groups = {.count = count * self->groups,
                            .size = layout->group_size,
                            .width = width,
                            .dtype = layout->scale_dtype,
                            .codes = with->codes,
                            .scales = self->scales + at,
                            .biases = with->biases,
                            .zeros = self->zeros + at};
    mq_slice_codes(with->codes, view->codes->data + first * view->in, count * view->in, width,
                   mq_master_slice_rule(plan->job->master));
    read_pairs(self->scales + at, view->scales[width], parts, at, groups.count);
    read_pairs(with->biases, view->biases[width], parts, at, groups.count);
    if (mq_plan_is_symmetric(plan)) {
        keep_groups(&groups);
    } else {
        mq_fit_kernels_best()->integer(&groups);
    }
    for (size_t i = 0; i < count; i++) {
        pack_row(self->words + (first + i) * self->row_words, with->codes + i * view->in, view->in,
                 width);
    }
    error[0] = groups.error;
    error[1] = groups.power;
}

static mq_status fit_linear(mq_integer_linear *self, double *errors, const mq_plan *plan,
                            const mq_integer_layout *layout, mq_error *err) {
    const mq_master_view *view = self->view;
    bool failed = false;
#pragma omp parallel if (view->out * view->in >= MQ_WORTH_THREADS) reduction(|| : failed)
    {
        scratch with = {0};
        carve_scratch(&with, self);
        failed = mq_slab_allocate(&with.slab, "rows of weights", NULL) != MQ_OK;
        if (!failed) {
            carve_scratch(&with, self);
        }
#pragma omp for schedule(dynamic, 1)
        for (size_t first = 0; first < view->out; first += ROWS) {
            const size_t left = view->out - first;
            if (!failed) {
                fit_rows(self, errors + first / ROWS * 2, &with, plan, layout, first,
                         left < ROWS ? left : ROWS);
            }
        }
        mq_slab_free(&with.slab);
    }
    return failed ? mq_fail_memory(err, "rows of weights", 0) : MQ_OK;
}

mq_status mq_integer_fit(mq_integer_linear *kept, const mq_plan *plan, const mq_master_view *view,
                         const mq_integer_layout *layout, mq_error *err) {
    if (kept->view == view) {
        return MQ_OK;
    }
    mq_integer_free(kept);
    double *errors = NULL;
    kept->view = view;
    kept->groups = view->in / layout->group_size;
    kept->row_words = mq_packed_words(view->in, mq_view_width(view, plan->job->width));
    carve(kept, &errors);
    mq_status status = mq_slab_allocate(&kept->slab, "a fitted layer", err);
    if (status == MQ_OK) {
        carve(kept, &errors);
        status = fit_linear(kept, errors, plan, layout, err);
    }
    if (status != MQ_OK) {
        mq_integer_free(kept);
        return status;
    }
    for (size_t i = 0; i * ROWS < view->out; i++) {
        kept->error += errors[2 * i];
        kept->power += errors[2 * i + 1];
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
