#include "export/rows.h"

#include <omp.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "store/names.h"
#include "store/pack.h"
#include "store/quantized_weights.h"

/* Rows that are encoded together, so that there are enough blocks to go side by side. */
enum { ROWS = 8 };

/* Σ (w - value)² and Σ value² of some rows. */
typedef struct row_error {
    double error, power;
} row_error;

/* What a thread works with. */
typedef struct scratch {
    float *values;          /* [ROWS, in] */
    float *scales, *biases; /* [ROWS, groups] */
    uint8_t *slices;        /* [ROWS, in] */
} scratch;

/* What all work with. */
typedef struct shared {
    scratch first;     /* of [threads, ROWS, ...] each */
    row_error *errors; /* [rows / ROWS] */
    mq_slab slab;
} shared;

static void carve(shared *self, const mq_master_view *view, size_t count) {
    const size_t rows = (size_t)omp_get_num_threads() * ROWS;
    scratch *first = &self->first;
    first->values = mq_carve(&self->slab, rows * view->in, sizeof *first->values);
    first->scales = mq_carve(&self->slab, rows * view->groups, sizeof *first->scales);
    first->biases = mq_carve(&self->slab, rows * view->groups, sizeof *first->biases);
    first->slices = mq_carve(&self->slab, rows * view->in, 1);
    self->errors = mq_carve(&self->slab, count / ROWS + 1, sizeof *self->errors);
}

/* The calling thread's. */
static scratch scratch_of(const shared *all, const mq_master_view *view) {
    const size_t rows = (size_t)omp_get_thread_num() * ROWS;
    const scratch *first = &all->first;
    return (scratch){.values = first->values + rows * view->in,
                     .scales = first->scales + rows * view->groups,
                     .biases = first->biases + rows * view->groups,
                     .slices = first->slices + rows * view->in};
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
    const unsigned width = mq_plan_width(plan, view);
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
static row_error encode_together(unsigned char *out, const shared *all, const mq_plan *plan,
                                 const mq_piece *piece, size_t first, size_t count,
                                 mq_encode_rows *encode) {
    const mq_master_view *view = piece->linear;
    const scratch self = scratch_of(all, view);
    const uint8_t *slices = self.slices;
    if (piece->heads == 0) { /* rows in the order of the source */
        slices = read_rows(&self, plan, piece, 0, first, count);
    }
    for (size_t i = 0; piece->heads != 0 && i < count; i++) {
        read_rows(&self, plan, piece, i, mq_source_row(piece, first + i), 1);
    }
    const mq_row read = {.in = count * view->in,
                         .groups = count * view->groups,
                         .width = mq_plan_width(plan, view),
                         .slices = slices,
                         .scales = self.scales,
                         .biases = self.biases,
                         .values = piece->takes_values ? self.values : NULL};
    row_error result = {0};
    encode(out, &result.error, &read, piece);
    result.power = read.values == NULL ? 0 : power_of(read.values, read.in);
    return result;
}

static void encode_all(unsigned char *out, const shared *all, const mq_plan *plan,
                       const mq_piece *piece, size_t first, size_t count, mq_encode_rows *encode) {
    /* What is exact is only moved: sharing it out would only cost. */
    const bool worth = piece->is_inexact && count * piece->linear->in >= MQ_WORTH_THREADS;
#pragma omp taskloop num_tasks(MQ_TASKS) if (worth)
    for (size_t i = 0; i < count; i += ROWS) {
        all->errors[i / ROWS] =
            encode_together(out + i * piece->row_bytes, all, plan, piece, first + i,
                            count - i < ROWS ? count - i : ROWS, encode);
    }
}

mq_status mq_fill_encoded(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                          size_t count, mq_encode_rows *encode, mq_error *err) {
    shared all = {0};
    carve(&all, piece->linear, count);
    const mq_status status = mq_slab_allocate(&all.slab, "rows of weights", err);
    if (status == MQ_OK) {
        carve(&all, piece->linear, count);
        encode_all(out, &all, plan, piece, first, count, encode);
    }
    for (size_t i = 0; status == MQ_OK && i * ROWS < count; i++) {
        piece->error += all.errors[i].error;
        piece->power += all.errors[i].power;
    }
    mq_slab_free(&all.slab);
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

/* What is quantized, as eval reads it; anything else as it is, of however many dimensions. */
static mq_status read_values(float *values, const mq_plan *plan, const mq_piece *piece,
                             size_t first, size_t count, mq_error *err) {
    if (piece->linear == NULL) {
        const size_t columns = piece->sources[0]->elements / piece->rows;
        return mq_tensor_read_f32(values, piece->sources[0], first * columns, count * columns, err);
    }
    const mq_weights *weights = plan->job->weights;
    char name[MQ_STORED_NAME_SIZE];
    mq_name_make(name, piece->linear->prefix, "weight", 0);
    return weights->class_->read(values, weights, name, first, count, err);
}

/* Some rows of a piece of plain numbers. values: room for them. */
static mq_status fill_part(unsigned char *out, row_error *cost, float *values, const mq_plan *plan,
                           const mq_piece *piece, size_t first, size_t count, mq_error *err) {
    const mq_dtype dtype = piece->spec.dtype;
    const size_t all = count * (piece->row_bytes / mq_dtype_size(dtype));
    const mq_status status = read_values(values, plan, piece, first, count, err);
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

/* What the threads of a fill share. */
typedef struct filling {
    float *values;    /* [threads, rows, columns] */
    row_error *costs; /* [parts] */
    mq_first_error failed;
} filling;

static void fill_parts(unsigned char *out, filling *self, const mq_plan *plan,
                       const mq_piece *piece, size_t first, size_t count, size_t rows) {
    const size_t columns = piece->row_bytes / mq_dtype_size(piece->spec.dtype);
#pragma omp taskloop num_tasks(MQ_TASKS) if (count * columns >= MQ_WORTH_THREADS)
    for (size_t at = 0; at < count; at += rows) {
        mq_error err;
        float *values = self->values + (size_t)omp_get_thread_num() * rows * columns;
        const mq_status status =
            fill_part(out + at * piece->row_bytes, &self->costs[at / rows], values, plan, piece,
                      first + at, count - at < rows ? count - at : rows, &err);
        mq_first_error_note(&self->failed, at / rows, status, &err);
    }
}

mq_status mq_fill_values(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                         size_t count, mq_error *err) {
    const size_t columns = piece->row_bytes / mq_dtype_size(piece->spec.dtype);
    const size_t rows = columns > 0 && columns < AT_ONCE ? AT_ONCE / columns : 1;
    const size_t parts = (count + rows - 1) / rows;
    filling self = {.values = NULL};
    mq_status status = mq_new(&self.costs, parts, sizeof *self.costs, "the errors of rows", err);
    if (status == MQ_OK) {
        status = mq_new(&self.values, (size_t)omp_get_num_threads() * rows * columns,
                        sizeof *self.values, "rows of weights", err);
    }
    if (status == MQ_OK) {
        fill_parts(out, &self, plan, piece, first, count, rows);
        status = mq_first_error_take(&self.failed, err);
    }
    for (size_t part = 0; status == MQ_OK && part < parts; part++) {
        piece->error += self.costs[part].error;
        piece->power += self.costs[part].power;
    }
    mq_free(self.values);
    mq_free(self.costs);
    return status;
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

mq_status mq_add_converted(mq_plan *plan, const mq_tensor_info *info, mq_dtype dtype,
                           mq_error *err) {
    if (info->dtype == dtype || !mq_dtype_is_weight(info->dtype) || info->dims == 0 ||
        info->elements == 0) {
        return mq_plan_add_copy(plan, info, err);
    }
    const size_t rows = info->dims == 1 ? 1 : info->shape[0];
    mq_piece piece = {.spec = {.dtype = dtype, .dims = info->dims},
                      .rows = rows,
                      .row_bytes = info->elements / rows * mq_dtype_size(dtype),
                      .fill = mq_fill_values,
                      .is_inexact = dtype != MQ_F32};
    memcpy(piece.spec.shape, info->shape, info->dims * sizeof *info->shape);
    piece.sources[0] = mq_plan_source(&piece.is_private, plan, info);
    return mq_plan_add(plan, info->name, &piece, err);
}

mq_status mq_add_unquantized(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    return plan->job->options->dtype == MQ_SLICE_DTYPE_SOURCE
               ? mq_plan_add_copy(plan, info, err)
               : mq_add_converted(plan, info, mq_plan_dtype(plan), err);
}
