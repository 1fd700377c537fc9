#include "export/put_ahead.h"

#include "base/alloc.h"
#include "base/error.h"

enum { PARTS = 256 };

typedef struct part {
    size_t index, offset, bytes;
    const void *data;
} part;

typedef struct batch {
    unsigned char *block; /* [batch_bytes] */
    size_t used, bytes;   /* of the block; of all parts, those from elsewhere included */
    size_t count;
    part parts[PARTS];
} batch;

struct mq_put_ahead {
    mq_put_part *put;
    void *user;
    size_t batch_bytes;
    batch batches[2];
    size_t making; /* which of the two */
    bool ahead;
    mq_status status; /* of the first part that failed; nothing is put after that */
    mq_error err;
};

/* --- putting ---------------------------------------------------------------------------------- */

static void put_all(mq_put_ahead *self, const batch *from) {
    for (size_t i = 0; self->status == MQ_OK && i < from->count; i++) {
        const part *p = &from->parts[i];
        self->status = self->put(self->user, p->index, p->offset, p->data, p->bytes, &self->err);
    }
}

/* Waits for the batch before, which may have failed, and sends the one that was being made. */
static mq_status send(mq_put_ahead *self, mq_error *err) {
    const batch *made = &self->batches[self->making];
#pragma omp taskwait
    mq_status status = self->status;
    if (!self->ahead) {
        put_all(self, made);
        status = self->status;
    } else {
        self->making = 1 - self->making;
        if (status == MQ_OK) {
            /* by a thread of the team that has nothing else to do; without a team at once */
#pragma omp task firstprivate(self, made)
            put_all(self, made);
        }
    }
    batch *next = &self->batches[self->making];
    next->used = next->bytes = next->count = 0;
    if (status != MQ_OK && err != NULL) {
        *err = self->err; /* nothing is put any more */
    }
    return status;
}

/* --- making ----------------------------------------------------------------------------------- */

mq_status mq_put_ahead_room(mq_put_ahead *self, unsigned char **room, size_t *count, size_t rows,
                            size_t row_bytes, mq_error *err) {
    batch *now = &self->batches[self->making];
    const size_t wanted = row_bytes > 0 ? self->batch_bytes / row_bytes : rows;
    const size_t left = row_bytes > 0 ? (self->batch_bytes - now->used) / row_bytes : rows;
    const size_t most = rows < wanted ? rows : wanted;
    mq_status status = MQ_OK;
    if (left < most && left <= wanted / 2) { /* the next batch has more: few rows cost as much */
        status = send(self, err);
        now = &self->batches[self->making];
        *count = most;
    } else {
        *count = left < most ? left : most;
    }
    *room = now->block + now->used;
    return status;
}

mq_status mq_put_ahead_give(mq_put_ahead *self, size_t index, size_t offset, const void *data,
                            size_t bytes, mq_error *err) {
    batch *now = &self->batches[self->making];
    if (data == now->block + now->used) {
        const size_t used = now->used + (bytes + MQ_ALIGNMENT - 1) / MQ_ALIGNMENT * MQ_ALIGNMENT;
        now->used = used < self->batch_bytes ? used : self->batch_bytes;
    }
    now->parts[now->count++] =
        (part){.index = index, .offset = offset, .bytes = bytes, .data = data};
    now->bytes += bytes;
    return now->count == PARTS || now->bytes >= self->batch_bytes ? send(self, err) : MQ_OK;
}

/* --- begin and end ---------------------------------------------------------------------------- */

mq_status mq_put_ahead_begin(mq_put_ahead **out, size_t batch_bytes, mq_put_part *put, void *user,
                             bool ahead, mq_error *err) {
    mq_put_ahead *self = mq_calloc(1, sizeof *self);
    if (self == NULL) {
        return mq_fail_memory(err, "blocks of rows", sizeof *self);
    }
    for (size_t i = 0; i < (ahead ? 2 : 1); i++) {
        const mq_status status =
            mq_new(&self->batches[i].block, batch_bytes, 1, "blocks of rows", err);
        if (status != MQ_OK) {
            mq_free(self->batches[0].block);
            mq_free(self);
            return status;
        }
    }
    self->put = put;
    self->user = user;
    self->batch_bytes = batch_bytes;
    self->ahead = ahead;
    *out = self;
    return MQ_OK;
}

mq_status mq_put_ahead_end(mq_put_ahead *self, mq_status status, mq_error *err) {
    (void)send(self, NULL);
#pragma omp taskwait
    const mq_status put = self->status;
    if (put != MQ_OK && err != NULL) {
        *err = self->err;
    }
    mq_free(self->batches[0].block);
    mq_free(self->batches[1].block);
    mq_free(self);
    return put != MQ_OK ? put : status;
}
