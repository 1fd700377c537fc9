#include "export/integer_grid.h"

#include <omp.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "export/fit.h"
#include "export/rows.h"
#include "store/pack.h"

enum { ROWS = 16 }; /* that are fitted together: whole vectors of groups, whatever a row has */

/* What the threads work with. */
typedef struct scratch {
    double *errors;  /* [rows / ROWS, 2]: Σ (w - slice's w)², Σ (slice's w)² */
    float *biases;   /* [threads, ROWS, groups] */
    uint32_t *words; /* [threads, ROWS, row_words] */
    uint8_t *codes;  /* [threads, ROWS, in] */
} scratch;

static void carve(mq_integer_linear *self, scratch *with) {
    const size_t out = self->view->out, groups = out * self->groups;
    const size_t rows = (size_t)omp_get_num_threads() * ROWS;
    self->scales = mq_carve(&self->slab, groups, sizeof *self->scales);
    self->words = mq_carve(&self->slab, out * self->row_words, sizeof *self->words);
    self->zeros = mq_carve(&self->slab, groups, 1);
    with->errors = mq_carve(&self->slab, out / ROWS + 1, 2 * sizeof *with->errors);
    with->biases = mq_carve(&self->slab, rows * self->groups, sizeof *with->biases);
    with->words = mq_carve(&self->slab, rows * self->row_words, sizeof *with->words);
    with->codes = mq_carve(&self->slab, rows * self->view->in, 1);
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

/* Columns [first, first + count) of out[row_words, columns]: with ROWS of them, lines of the cache
 * that no other thread writes to. */
static void turn_words(uint32_t *out, const uint32_t *words, size_t row_words, size_t columns,
                       size_t first, size_t count) {
    for (size_t w = 0; w < row_words; w++) {
        for (size_t k = 0; k < count; k++) {
            out[w * columns + first + k] = words[k * row_words + w];
        }
    }
}

/* Rows [first, first + count), at most ROWS. */
static void fit_rows(const mq_integer_linear *self, const scratch *with, const mq_plan *plan,
                     const mq_integer_layout *layout, size_t first, size_t count) {
    const mq_master_view *view = self->view;
    const unsigned width = mq_plan_width(plan, view);
    const size_t parts = self->groups / view->groups, at = first * self->groups;
    const size_t own = (size_t)omp_get_thread_num() * ROWS;
    uint8_t *codes = with->codes + own * view->in;
    float *biases = with->biases + own * self->groups;
    uint32_t *words = with->words + own * self->row_words;
    mq_fit_groups groups = {.count = count * self->groups,
                            .size = layout->group_size,
                            .width = width,
                            .dtype = layout->scale_dtype,
                            .codes = codes,
                            .scales = self->scales + at,
                            .biases = biases,
                            .zeros = self->zeros + at};
    mq_slice_codes(codes, view->codes->data + first * view->in, count * view->in, width,
                   mq_master_slice_rule(plan->job->master));
    read_pairs(groups.scales, view->scales[width], parts, at, groups.count);
    read_pairs(biases, view->biases[width], parts, at, groups.count);
    if (mq_plan_is_symmetric(plan)) {
        keep_groups(&groups);
    } else {
        mq_fit_kernels_best()->integer(&groups);
    }
    if (layout->words_by_row) {
        words = self->words + first * self->row_words;
    }
    for (size_t i = 0; i < count; i++) {
        pack_row(words + i * self->row_words, codes + i * view->in, view->in, width);
    }
    if (!layout->words_by_row) {
        turn_words(self->words, words, self->row_words, view->out, first, count);
    }
    with->errors[first / ROWS * 2] = groups.error;
    with->errors[first / ROWS * 2 + 1] = groups.power;
}

static void fit_linear(const mq_integer_linear *self, const scratch *with, const mq_plan *plan,
                       const mq_integer_layout *layout) {
    const size_t out = self->view->out;
#pragma omp taskloop num_tasks(MQ_TASKS) if (out * self->view->in >= MQ_WORTH_THREADS)
    for (size_t first = 0; first < out; first += ROWS) {
        fit_rows(self, with, plan, layout, first, out - first < ROWS ? out - first : ROWS);
    }
}

mq_status mq_integer_fit(mq_integer_linear *kept, const mq_plan *plan, const mq_master_view *view,
                         const mq_integer_layout *layout, mq_error *err) {
    if (kept->view == view) {
        return MQ_OK;
    }
    mq_integer_free(kept);
    scratch with;
    kept->view = view;
    kept->groups = view->in / layout->group_size;
    kept->row_words = mq_packed_words(view->in, mq_plan_width(plan, view));
    carve(kept, &with);
    const mq_status status = mq_slab_allocate(&kept->slab, "a fitted layer", err);
    if (status != MQ_OK) {
        mq_integer_free(kept);
        return status;
    }
    carve(kept, &with);
    fit_linear(kept, &with, plan, layout);
    for (size_t i = 0; i * ROWS < view->out; i++) {
        kept->error += with.errors[2 * i];
        kept->power += with.errors[2 * i + 1];
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
