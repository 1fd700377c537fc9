/* Causal attention of sequences that go on from rows of others (packed.h), forward only.
 *
 * A task is one head of one sequence and goes through its own queries a
 * tile at a time. The keys that a tile sees lie in several runs of rows: each has its product into
 * its own columns of the scores, and adds its values to the output. */
#include <omp.h>
#include <string.h>

#include "model/kernels.h"
#include "model/ops.h"
#include "model/packed.h"

/* Own queries [first, first + rows) of a sequence and the positions [first_key, first_key + keys)
 * of the keys that they see. */
typedef struct tile {
    size_t first, rows, first_key, keys;
} tile;

/* Keys that lie in consecutive rows: count rows from `row`, and their columns in the tile. */
typedef struct part {
    size_t row, column, count;
} part;

/* One head of one sequence. */
typedef struct head_task {
    const mq_packed_sequence *sequence;
    const float *q, *k, *v; /* the head's, of row 0 */
    float *out;
    size_t q_stride, kv_stride; /* floats between rows */
    float *scores, *sums;       /* [MQ_ATTENTION_TILE, ld], [MQ_ATTENTION_TILE] */
    size_t ld;
} head_task;

static tile tile_at(const mq_packed_sequence *sequence, size_t first, size_t window) {
    tile t = {.first = first, .rows = mq_smaller(sequence->own.count - first, MQ_ATTENTION_TILE)};
    t.first_key = mq_first_visible(sequence->position + first, window);
    t.keys = sequence->position + first + t.rows - t.first_key;
    return t;
}

/* What the tile sees of the sequence's i-th run (its own comes last), whose first token is at
 * *position; moves that on to the next run's. */
static part part_at(size_t *position, const mq_packed_sequence *sequence, size_t i, const tile *t) {
    const mq_row_run *run = i < sequence->before_count ? &sequence->before[i] : &sequence->own;
    const size_t begin = mq_larger(*position, t->first_key);
    const size_t end = mq_smaller(*position + run->count, t->first_key + t->keys);
    part p = {0};
    if (begin < end) {
        p = (part){run->first + begin - *position, begin - t->first_key, end - begin};
    }
    *position += run->count;
    return p;
}

/* scores[rows, keys] <- exp(scale · q·kᵀ - row's maximum), 0 where a key is hidden; sums[rows]. */
static void tile_scores(const head_task *task, const tile *t, const mq_attention_shape *shape,
                        const mq_kernels *kernels) {
    const mq_packed_sequence *sequence = task->sequence;
    const float *q = task->q + (sequence->own.first + t->first) * task->q_stride;
    for (size_t i = 0, position = 0; i <= sequence->before_count; i++) {
        const part p = part_at(&position, sequence, i, t);
        const mq_gemm_shape product = {.m = t->rows,
                                       .n = p.count,
                                       .k = shape->head_dim,
                                       .lda = task->q_stride,
                                       .ldb = task->kv_stride,
                                       .ldc = task->ld,
                                       .trans_b = true};
        mq_gemm(task->scores + p.column, q, task->k + p.row * task->kv_stride, &product,
                shape->scale);
    }
    for (size_t r = 0; r < t->rows; r++) {
        const size_t query = sequence->position + t->first + r;
        const size_t begin = mq_first_visible(query, shape->window) - t->first_key;
        const size_t end = query + 1 - t->first_key;
        float *row = task->scores + r * task->ld;
        float max;
        kernels->softmax(row + begin, &max, &task->sums[r], end - begin, shape->softcap);
        memset(row, 0, begin * sizeof *row);
        memset(row + end, 0, (t->keys - end) * sizeof *row);
    }
}

static void forward_tile(const head_task *task, const tile *t, const mq_attention_shape *shape,
                         const mq_kernels *kernels) {
    const mq_packed_sequence *sequence = task->sequence;
    float *out = task->out + (sequence->own.first + t->first) * task->q_stride;
    mq_gemm_shape product = {.m = t->rows,
                             .n = shape->head_dim,
                             .lda = task->ld,
                             .ldb = task->kv_stride,
                             .ldc = task->q_stride};
    tile_scores(task, t, shape, kernels);
    for (size_t i = 0, position = 0; i <= sequence->before_count; i++) {
        const part p = part_at(&position, sequence, i, t);
        if (p.count > 0) {
            product.k = p.count;
            mq_gemm(out, task->scores + p.column, task->v + p.row * task->kv_stride, &product,
                    1.0F);
            product.accumulate = true;
        }
    }
    for (size_t r = 0; r < t->rows; r++) {
        kernels->scale(out + r * task->q_stride, 1.0F / task->sums[r], shape->head_dim);
    }
}

void mq_attention_forward_packed(float *out, const mq_attention_inputs *in, const mq_packed *packed,
                                 const mq_attention_run *run) {
    const mq_kernels *kernels = mq_kernels_best();
    const mq_attention_shape *shape = run->shape;
    const mq_attention_shape longest = {.length = packed->longest, .window = shape->window};
    const size_t ld = mq_attention_score_stride(&longest);
    const size_t tasks = packed->sequence_count * shape->heads;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(run->context))
    for (size_t index = 0; index < tasks; index++) {
        const size_t head = index % shape->heads, group = shape->heads / shape->kv_heads;
        head_task task = {.sequence = &packed->sequences[index / shape->heads],
                          .q = in->q + head * shape->head_dim,
                          .k = in->k.f32 + head / group * shape->head_dim,
                          .v = in->v.f32 + head / group * shape->head_dim,
                          .out = out + head * shape->head_dim,
                          .q_stride = shape->heads * shape->head_dim,
                          .kv_stride = shape->kv_heads * shape->head_dim,
                          .ld = ld};
        task.scores = run->scratch + (size_t)omp_get_thread_num() * MQ_ATTENTION_TILE * (ld + 1);
        task.sums = task.scores + MQ_ATTENTION_TILE * ld;
        for (size_t first = 0; first < task.sequence->own.count; first += MQ_ATTENTION_TILE) {
            const tile t = tile_at(task.sequence, first, shape->window);
            forward_tile(&task, &t, shape, kernels);
        }
    }
    mq_gemm_leave_single(run->context);
}
