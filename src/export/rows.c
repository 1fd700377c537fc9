#include "export/rows.h"

#include "base/context.h"
#include "base/error.h"
#include "store/names.h"
#include "store/pack.h"
#include "store/quantized_weights.h"

/* Rows that are encoded together, so that there are enough blocks to go side by side. */
enum { ROWS = 8 };

/* What a thread works with. */
typedef struct scratch {
    uint8_t *slices;        /* [ROWS, in] */
    float *scales, *biases; /* [ROWS, groups] */
    float *values;          /* [ROWS, in] */
    mq_slab slab;
} scratch;

static void carve(scratch *self, const mq_master_view *view) {
    self->values = mq_carve(&self->slab, ROWS * view->in, sizeof *self->values);
    self->scales = mq_carve(&self->slab, ROWS * view->groups, sizeof *self->scales);
    self->biases = mq_carve(&self->slab, ROWS * view->groups, sizeof *self->biases);
    self->slices = mq_carve(&self->slab, ROWS * view->in, 1);
}

size_t mq_source_row(const mq_piece *piece, size_t row) {
    if (piece->heads == 0) {
        return row;
    }
    const size_t head_dim = piece->rows / piece->heads, at = row % head_dim;
    return row - at + at % 2 * (head_dim / 2) + at / 2;
}

/* Rows [row, row + count) of the source as those from number `at` on that are encoded together;
 * returns their slices. */
static const uint8_t *read_rows(const scratch *self, const mq_plan *plan, const mq_piece *piece,
                                size_t at, size_t row, size_t count) {
    const mq_master_view *view = piece->linear;
    const unsigned width = mq_view_width(view, plan->job->width);
    const size_t pair = at * view->groups, pairs = count * view->groups;
    const size_t bytes = row * view->groups * sizeof(uint16_t), weights = count * view->in;
    const uint8_t *codes = view->codes->data + row * view->in, *slices = codes;
    if (width < MQ_MAX_WIDTH || piece->heads != 0) { /* else they are the codes as they lie */
        uint8_t *room = self->slices + at * view->in;
        mq_slice_codes(room, codes, weights, width, mq_master_slice_rule(plan->job->master));
        slices = room;
    }
    mq_to_f32(self->scales + pair, view->scales[width]->data + bytes, MQ_F16, pairs);
    mq_to_f32(self->biases + pair, view->biases[width]->data + bytes, MQ_F16, pairs);
    if (piece->takes_values) {
        mq_dequantize_row(self->values + at * view->in, slices, self->scales + pair,
                          self->biases + pair, weights, pairs);
    }
    return slices;
}

/* Σ (w - value)² and Σ value² of some rows. */
typedef struct row_error {
    double error, power;
} row_error;

/* Σ value²: in single precision for as many at a time as that is good for. */
static double power_of(const float *values, size_t count) {
    enum { SIDES = 16, PART = 1024 };
    double power = 0;
    for (size_t first = 0; first < count; first += PART) {
        const size_t left = count - first, now = left < PART ? left : PART;
        float sums[SIDES] = {0};
        for (size_t i = 0; i + SIDES <= now; i += SIDES) {
            for (size_t l = 0; l < SIDES; l++) {
                sums[l] += values[first + i + l] * values[first + i + l];
            }
        }
        for (size_t i = now - now % SIDES; i < now; i++) {
            sums[0] += values[first + i] * values[first + i];
        }
        for (size_t l = 0; l < SIDES; l++) {
            power += (double)sums[l];
        }
    }
    return power;
}

/* Rows [first, first + count) of the piece, at most ROWS. */
static row_error encode_together(unsigned char *out, const scratch *self, const mq_plan *plan,
                                 const mq_piece *piece, size_t first, size_t count,
                                 mq_encode_rows *encode) {
    const mq_master_view *view = piece->linear;
    const uint8_t *slices = self->slices;
    if (piece->heads == 0) { /* rows in the order of the source */
        slices = read_rows(self, plan, piece, 0, first, count);
    }
    for (size_t i = 0; piece->heads != 0 && i < count; i++) {
        read_rows(self, plan, piece, i, mq_source_row(piece, first + i), 1);
    }
    const mq_row read = {.in = count * view->in,
                         .groups = count * view->groups,
                         .width = mq_view_width(view, plan->job->width),
                         .slices = slices,
                         .scales = self->scales,
                         .biases = self->biases,
                         .values = piece->takes_values ? self->values : NULL};
    row_error result = {0};
    encode(out, &read, piece, &result.error);
    result.power = read.values == NULL ? 0 : power_of(read.values, read.in);
    return result;
}

static mq_status encode_all(unsigned char *out, row_error *errors, const mq_plan *plan,
                            const mq_piece *piece, size_t first, size_t count,
                            mq_encode_rows *encode, mq_error *err) {
    bool failed = false;
    /* What is exact is only moved: waking threads would only cost. */
#pragma omp parallel if (piece->is_inexact && count * piece->linear->in >= MQ_WORTH_THREADS)       \
    reduction(||                                                                                   \
              : failed)
    {
        scratch self = {0};
        carve(&self, piece->linear);
        failed = mq_slab_allocate(&self.slab, "rows of weights", NULL) != MQ_OK;
        if (!failed) {
            carve(&self, piece->linear);
        }
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < count; i += ROWS) {
            const size_t left = count - i;
            if (!failed) {
                errors[i / ROWS] = encode_together(out + i * piece->row_bytes, &self, plan, piece,
                                                   first + i, left < ROWS ? left : ROWS, encode);
            }
        }
        mq_slab_free(&self.slab);
    }
    return failed ? mq_fail_memory(err, "rows of weights", 0) : MQ_OK;
}

mq_status mq_fill_encoded(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                          size_t count, mq_encode_rows *encode, mq_error *err) {
    const size_t parts = (count + ROWS - 1) / ROWS;
    row_error *errors = NULL;
    mq_status status = mq_new(&errors, parts, sizeof *errors, "the errors of rows", err);
    if (status == MQ_OK) {
        status = encode_all(out, errors, plan, piece, first, count, encode, err);
    }
    for (size_t i = 0; status == MQ_OK && i < parts; i++) {
        piece->error += errors[i].error;
        piece->power += errors[i].power;
    }
    mq_free(errors);
    return status;
}

/* --- plain numbers ---------------------------------------------------------------------------- */

/* Numbers that are read and rounded before the next: with what they become they stay in a
 * processor's own cache. */
enum { AT_ONCE = 16384 };

/* values[count] in the element type, and what rounding costs. */
static row_error round_values(unsigned char *out, mq_dtype dtype, const float *values,
                              size_t count) {
    row_error all = {0};
    mq_from_f32(out, dtype, values, count);
    if (dtype == MQ_F32) {
        return all;
    }
    float rounded[256];
    for (size_t first = 0; first < count; first += 256) {
        const size_t now = count - first < 256 ? count - first : 256;
        mq_to_f32(rounded, out + first * mq_dtype_size(dtype), dtype, now);
        double errors = 0.0, power = 0.0;
#pragma omp simd reduction(+ : errors, power)
        for (size_t i = 0; i < now; i++) {
            const double value = (double)values[first + i], error = (double)rounded[i] - value;
            errors += error * error;
            power += value * value;
        }
        all.error += errors;
        all.power += power;
    }
    return all;
}

/* Some rows of a piece of plain numbers. values: room for them. */
static mq_status fill_part(unsigned char *out, row_error *cost, float *values, const mq_plan *plan,
                           const mq_piece *piece, size_t first, size_t count, mq_error *err) {
    const mq_weights *weights = plan->job->weights;
    const mq_dtype dtype = piece->spec.dtype;
    const size_t all = count * (piece->row_bytes / mq_dtype_size(dtype));
    const mq_status status =
        weights->class_->read(values, weights, piece->spec.name, first, count, err);
    if (status != MQ_OK) {
        return status;
    }
    *cost = round_values(out, dtype, values, all);
    const size_t at = mq_first_non_finite(out, dtype, all);
    return at == all ? MQ_OK
                     : mq_fail_tensor(err, MQ_ERR_USAGE, "", piece->spec.name,
                                      "holds %g, which %s cannot; use --dtype bf16 or f32",
                                      (double)values[at], mq_dtype_name(dtype));
}

/* What the threads of a fill share: the first part that failed, in the order of rows. */
typedef struct failure {
    size_t part;
    mq_status status;
    mq_error err;
} failure;

static void note_failure(failure *shared, size_t part, mq_status status, const mq_error *err) {
#pragma omp critical(mq_fill_values)
    {
        if (shared->status == MQ_OK || part < shared->part) {
            *shared = (failure){part, status, *err};
        }
    }
}

mq_status mq_fill_values(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                         size_t count, mq_error *err) {
    const size_t columns = piece->row_bytes / mq_dtype_size(piece->spec.dtype);
    const size_t rows = columns > 0 && columns < AT_ONCE ? AT_ONCE / columns : 1;
    const size_t parts = (count + rows - 1) / rows;
    row_error *costs = NULL;
    mq_status status = mq_new(&costs, parts, sizeof *costs, "the errors of rows", err);
    if (status != MQ_OK) {
        return status;
    }
    failure failed = {0};
#pragma omp parallel if (count * columns >= MQ_WORTH_THREADS)
    {
        float *values = NULL;
        mq_error own = {0};
        const mq_status ready =
            mq_new(&values, rows * columns, sizeof *values, "rows of weights", &own);
        if (ready != MQ_OK) {
            note_failure(&failed, 0, ready, &own);
        }
#pragma omp for schedule(static)
        for (size_t part = 0; part < parts; part++) {
            const size_t at = part * rows, left = count - at;
            const mq_status filled =
                values == NULL ? MQ_OK
                               : fill_part(out + at * piece->row_bytes, &costs[part], values, plan,
                                           piece, first + at, left < rows ? left : rows, &own);
            if (filled != MQ_OK) {
                note_failure(&failed, part, filled, &own);
            }
        }
        mq_free(values);
    }
    for (size_t part = 0; part < parts; part++) {
        piece->error += costs[part].error;
        piece->power += costs[part].power;
    }
    mq_free(costs);
    if (failed.status != MQ_OK && err != NULL) {
        *err = failed.err;
    }
    return failed.status;
}

mq_status mq_add_dequantized(mq_plan *plan, const mq_master_view *view, mq_dtype dtype,
                             mq_error *err) {
    mq_piece piece = {.spec = {.dtype = dtype, .dims = 2, .shape = {view->out, view->in}},
                      .rows = view->out,
                      .row_bytes = view->in * mq_dtype_size(dtype),
                      .fill = mq_fill_values,
                      .is_inexact = dtype != MQ_F32};
    mq_piece_reads_all(&piece, plan, view);
    char name[MQ_STORED_NAME_SIZE];
    return mq_plan_add(plan, mq_name_make(name, view->prefix, "weight", 0), &piece, err);
}
