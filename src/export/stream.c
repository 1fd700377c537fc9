#include "export/stream.h"

#include <omp.h>

#include "base/context.h"
#include "base/error.h"
#include "base/machine.h"
#include "export/put_ahead.h"
#include "export/rows.h"
#include "store/symmetric.h"

typedef struct stream {
    mq_plan *plan;
    mq_put_ahead *parts;
} stream;

/* What a reader must reject of a quantized linear: a scale or bias that is not finite, or not as a
 * symmetric zero point has it (matquant/format.h), which pieces are taken for exact by. */
static mq_status check_linear(const mq_plan *plan, const mq_piece *piece, mq_error *err) {
    const mq_master_view *linear = piece->linear;
    if (linear == NULL) {
        return MQ_OK;
    }
    for (size_t i = 0; i < 3 && piece->sources[i] != NULL; i++) {
        const mq_tensor_info *info = piece->sources[i];
        const size_t at = info == linear->codes
                              ? info->elements
                              : mq_first_non_finite(info->data, info->dtype, info->elements);
        if (at != info->elements) {
            return mq_fail_offset(err, MQ_ERR_INPUT, info->file, info->name,
                                  info->file_offset + at * mq_dtype_size(info->dtype),
                                  "element %zu is not finite", at);
        }
    }
    if (!mq_plan_is_symmetric(plan) || piece->sources[0] != linear->codes) {
        return MQ_OK; /* once a linear */
    }
    const unsigned width = mq_plan_width(plan, linear);
    const mq_status status = mq_check_symmetric_pairs(linear, width, err);
    return status == MQ_OK && width == MQ_MAX_WIDTH ? mq_check_symmetric_codes(linear, err)
                                                    : status;
}

mq_status mq_stream_check_finite(const mq_tensor_info *info, size_t done, size_t bytes,
                                 mq_error *err) {
    if (!mq_dtype_is_weight(info->dtype)) {
        return MQ_OK;
    }
    const size_t size = mq_dtype_size(info->dtype), count = bytes / size;
    const size_t at = mq_first_non_finite(info->data + done, info->dtype, count);
    return at == count ? MQ_OK
                       : mq_fail_offset(err, MQ_ERR_INPUT, info->file, info->name,
                                        info->file_offset + done + at * size,
                                        "weight number %zu is not finite", done / size + at);
}

/* Bytes as they are; the mapping is written from, nothing is copied: it stays until the end. */
static mq_status copy_piece(const stream *self, size_t index, mq_error *err) {
    const mq_export_job *job = self->plan->job;
    const mq_tensor_info *info = self->plan->pieces[index].sources[0];
    size_t done = 0;
    do { /* once even for a tensor without elements: it has to be put, too */
        const size_t bytes = mq_smaller(info->bytes - done, job->block_bytes);
        mq_status status = mq_check_interrupt(job->context, err);
        if (status == MQ_OK) {
            status = mq_stream_check_finite(info, done, bytes, err);
        }
        if (status == MQ_OK) {
            status = mq_put_ahead_give(self->parts, index, done, info->data + done, bytes, err);
        }
        if (status != MQ_OK) {
            return status;
        }
        done += bytes;
    } while (done < info->bytes);
    return MQ_OK;
}

/* A block of them, or one that is longer. */
static size_t rows_at_once(const mq_plan *plan, const mq_piece *piece) {
    const size_t rows = piece->row_bytes > 0 ? plan->job->block_bytes / piece->row_bytes : SIZE_MAX;
    return rows > 0 ? rows : 1;
}

static mq_status fill_piece(const stream *self, size_t index, mq_error *err) {
    mq_piece *piece = &self->plan->pieces[index];
    const size_t most = rows_at_once(self->plan, piece);
    for (size_t first = 0, count; first < piece->rows; first += count) {
        unsigned char *room = NULL;
        mq_status status = mq_check_interrupt(self->plan->job->context, err);
        if (status == MQ_OK) {
            const size_t rows = mq_smaller(piece->rows - first, most);
            status = mq_put_ahead_room(self->parts, &room, &count, rows, piece->row_bytes, err);
        }
        if (status == MQ_OK) {
            status = piece->fill(room, self->plan, piece, first, count, err);
        }
        if (status == MQ_OK) {
            status = mq_put_ahead_give(self->parts, index, first * piece->row_bytes, room,
                                       count * piece->row_bytes, err);
        }
        if (status != MQ_OK) {
            return status;
        }
    }
    return MQ_OK;
}

static mq_status stream_piece(const stream *self, size_t index, mq_error *err) {
    const mq_tensors *tensors = mq_master_tensors(self->plan->job->master);
    const mq_piece *piece = &self->plan->pieces[index];
    for (size_t i = 0; i < 3 && piece->sources[i] != NULL; i++) {
        mq_tensor_will_need(tensors, piece->sources[i]);
    }
    mq_status status = check_linear(self->plan, piece, err);
    if (status == MQ_OK) {
        status = piece->fill == NULL ? copy_piece(self, index, err) : fill_piece(self, index, err);
    }
    for (size_t i = 0; i < 3 && piece->sources[i] != NULL; i++) {
        mq_tensor_dont_need(tensors, piece->sources[i]);
    }
    return status;
}

static mq_status stream_all(const stream *self, mq_error *err) {
    const double start = mq_seconds();
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < self->plan->count; i++) {
        status = stream_piece(self, i, err);
        const mq_progress progress = {.phase = "slice",
                                      .unit = "tensor",
                                      .done = (double)(i + 1),
                                      .total = (double)self->plan->count,
                                      .elapsed_seconds = mq_seconds() - start};
        if (status == MQ_OK) {
            mq_report(self->plan->job->context, &progress);
        }
    }
    return status;
}

/* All threads where rows are shared out; otherwise one that makes and one that puts: those without
 * work would wait without sleeping. */
static int team_of(const mq_plan *plan) {
    const int most = omp_get_max_threads();
    bool shared = false;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        shared = shared || piece->is_inexact || piece->fill == mq_fill_values;
    }
    return shared || most < 2 ? most : 2;
}

mq_status mq_stream_pieces(mq_plan *plan, mq_put_part *put, void *user, mq_error *err) {
    stream self = {.plan = plan};
    size_t block_bytes = plan->job->block_bytes; /* or a row that is longer */
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        if (piece->fill != NULL && piece->row_bytes > block_bytes) {
            block_bytes = piece->row_bytes;
        }
    }
    const int team = team_of(plan);
    mq_status status = mq_put_ahead_begin(&self.parts, block_bytes, put, user, team > 1, err);
    if (status != MQ_OK) {
        return status;
    }
    /* The caller's thread goes from piece to piece, the others take what it makes tasks of: parts
     * to be put, rows to be filled. */
#pragma omp parallel num_threads(team)
    {
        const size_t number = (size_t)omp_get_thread_num();
        mq_take_processor(number);
        if (number == 0) {
            status = mq_put_ahead_end(self.parts, stream_all(&self, err), err);
        }
    }
    return status;
}
