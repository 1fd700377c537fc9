/* Causal attention with grouped queries, forward and backward.
 *
 * A task is the queries of one head (forward) or of all heads that share keys and values (backward:
 * dk and dv are sums over them, in the order of heads and tiles) in one sequence. It goes through
 * MQ_ATTENTION_TILE queries at a time, with one tile of scores against just the keys that one of
 * them sees, so that causality and the window save what they can, and single-threaded matrix
 * products on views into q, k and v. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/kernels.h"
#include "model/ops.h"
#include "tensor/gemm.h"

/* Queries [first, first + rows) and the keys [first_key, first_key + keys) that they see. */
typedef struct tile {
    size_t first, rows, first_key, keys;
    size_t ld; /* row stride of scores */
} tile;

/* Padded: a power of two as the stride would put a column of scores into few sets of the cache. */
size_t mq_attention_score_stride(const mq_attention_shape *shape) {
    size_t keys = shape->length;
    if (shape->window > 0 && shape->window + MQ_ATTENTION_TILE < keys) {
        keys = shape->window + MQ_ATTENTION_TILE;
    }
    return (keys + 15) / 16 * 16 + 16;
}

static tile tile_at(const mq_attention_shape *shape, size_t first) {
    tile t = {.first = first, .ld = mq_attention_score_stride(shape)};
    t.rows = shape->length - first < MQ_ATTENTION_TILE ? shape->length - first : MQ_ATTENTION_TILE;
    t.first_key = shape->window > 0 && first + 1 > shape->window ? first + 1 - shape->window : 0;
    t.keys = first + t.rows - t.first_key;
    return t;
}

/* The columns [*begin, *end) of the tile that its row r sees. */
static void visible(size_t *begin, size_t *end, const tile *t, size_t r, size_t window) {
    const size_t query = t->first + r;
    const size_t first_key = window > 0 && query + 1 > window ? query + 1 - window : 0;
    *begin = first_key - t->first_key;
    *end = query + 1 - t->first_key;
}

static void clear_hidden(float *row, const tile *t, size_t begin, size_t end) {
    memset(row, 0, begin * sizeof *row);
    memset(row + end, 0, (t->keys - end) * sizeof *row);
}

static size_t tile_floats(const mq_attention_shape *shape) {
    return (size_t)MQ_ATTENTION_TILE * mq_attention_score_stride(shape);
}

/* Two tiles and a row of MQ_ATTENTION_TILE numbers a thread. */
static size_t scratch_floats(const mq_attention_shape *shape) {
    return 2 * tile_floats(shape) + MQ_ATTENTION_TILE;
}

size_t mq_attention_scratch(const mq_attention_shape *shape, const mq_context *context) {
    return mq_context_threads(context) * scratch_floats(shape);
}

/* --- forward ---------------------------------------------------------------------------------- */

/* Where one head of one sequence begins, in elements: q and out, k and v, lse. */
typedef struct head_view {
    size_t q_stride, kv_stride; /* floats between tokens */
    size_t q, kv, lse;
} head_view;

static head_view view_of(const mq_attention_shape *shape, size_t sequence, size_t head) {
    const size_t token = sequence * shape->length;
    head_view view = {.q_stride = shape->heads * shape->head_dim,
                      .kv_stride = shape->kv_heads * shape->head_dim};
    view.q = token * view.q_stride + head * shape->head_dim;
    view.kv = token * view.kv_stride + head / (shape->heads / shape->kv_heads) * shape->head_dim;
    view.lse = token * shape->heads + head;
    return view;
}

/* scores[rows, keys] = scale · q·kᵀ of a tile. */
static void tile_scores(float *scores, const tile *t, const float *q, const float *k,
                        const head_view *view, const mq_attention_shape *shape) {
    mq_gemm(scores, t->ld, q + view->q + t->first * view->q_stride, view->q_stride, false,
            k + view->kv + t->first_key * view->kv_stride, view->kv_stride, true, t->rows, t->keys,
            shape->head_dim, shape->scale, 0.0F);
}

static void forward_tile(float *out, float *lse, const tile *t, const float *q, const float *k,
                         const float *v, const head_view *view, const mq_attention_shape *shape,
                         float *scores, float *sums, const mq_kernels *kernels) {
    tile_scores(scores, t, q, k, view, shape);
    for (size_t r = 0; r < t->rows; r++) {
        size_t begin, end;
        visible(&begin, &end, t, r, shape->window);
        float *row = scores + r * t->ld;
        float max;
        kernels->softmax(row + begin, &max, &sums[r], end - begin, shape->softcap);
        clear_hidden(row, t, begin, end);
        lse[view->lse + (t->first + r) * shape->heads] = max + logf(sums[r]);
    }
    float *out_rows = out + view->q + t->first * view->q_stride;
    mq_gemm(out_rows, view->q_stride, scores, t->ld, false,
            v + view->kv + t->first_key * view->kv_stride, view->kv_stride, false, t->rows,
            shape->head_dim, t->keys, 1.0F, 0.0F);
    for (size_t r = 0; r < t->rows; r++) {
        kernels->scale(out_rows + r * view->q_stride, 1.0F / sums[r], shape->head_dim);
    }
}

void mq_attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                          const mq_attention_shape *shape, float *scratch,
                          const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const size_t tasks = shape->sequences * shape->heads;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        float *scores = scratch + (size_t)omp_get_thread_num() * scratch_floats(shape);
        float *sums = scores + 2 * tile_floats(shape);
        const head_view view = view_of(shape, task / shape->heads, task % shape->heads);
        for (size_t first = 0; first < shape->length; first += MQ_ATTENTION_TILE) {
            const tile t = tile_at(shape, first);
            forward_tile(out, lse, &t, q, k, v, &view, shape, scores, sums, kernels);
        }
    }
    mq_gemm_leave_single(context);
}

/* --- backward --------------------------------------------------------------------------------- */

/* The arrays of a backward, as mq_attention_backward has them. */
typedef struct backward_arrays {
    float *dq, *dk, *dv;
    const float *dout, *out, *lse, *q, *k, *v;
} backward_arrays;

/* scores <- p and dp <- dL/dscores (times scale), both 0 where a key is hidden. With o = Σ p·v the
 * sum Σ p·dp of a row is do·o (FlashAttention, eq. 4). */
static void backward_rows(float *scores, float *dp, const tile *t, const backward_arrays *a,
                          const head_view *view, const mq_attention_shape *shape,
                          const mq_kernels *kernels) {
    for (size_t r = 0; r < t->rows; r++) {
        const size_t token = t->first + r, at = view->q + token * view->q_stride;
        size_t begin, end;
        visible(&begin, &end, t, r, shape->window);
        float *row = scores + r * t->ld, *dp_row = dp + r * t->ld;
        const float delta = kernels->dot(a->dout + at, a->out + at, shape->head_dim);
        kernels->softmax_backward(row + begin, dp_row + begin, end - begin,
                                  a->lse[view->lse + token * shape->heads], delta, shape->scale,
                                  shape->softcap);
        clear_hidden(row, t, begin, end);
        clear_hidden(dp_row, t, begin, end);
    }
}

static void backward_tile(const tile *t, const backward_arrays *a, const head_view *view,
                          const mq_attention_shape *shape, float *scores,
                          const mq_kernels *kernels) {
    float *dp = scores + tile_floats(shape);
    const size_t d = shape->head_dim, rows_at = view->q + t->first * view->q_stride;
    const size_t keys_at = view->kv + t->first_key * view->kv_stride;
    tile_scores(scores, t, a->q, a->k, view, shape);
    mq_gemm(dp, t->ld, a->dout + rows_at, view->q_stride, false, a->v + keys_at, view->kv_stride,
            true, t->rows, t->keys, d, 1.0F, 0.0F);
    backward_rows(scores, dp, t, a, view, shape, kernels);
    if (a->dv) {
        mq_gemm(a->dv + keys_at, view->kv_stride, scores, t->ld, true, a->dout + rows_at,
                view->q_stride, false, t->keys, d, t->rows, 1.0F, 1.0F);
    }
    if (a->dk) {
        mq_gemm(a->dk + keys_at, view->kv_stride, dp, t->ld, true, a->q + rows_at, view->q_stride,
                false, t->keys, d, t->rows, 1.0F, 1.0F);
    }
    if (a->dq) {
        mq_gemm(a->dq + rows_at, view->q_stride, dp, t->ld, false, a->k + keys_at, view->kv_stride,
                false, t->rows, d, t->keys, 1.0F, 0.0F);
    }
}

static void clear_rows(float *x, size_t stride, size_t rows, size_t n) {
    for (size_t r = 0; x && r < rows; r++) {
        memset(x + r * stride, 0, n * sizeof *x);
    }
}

void mq_attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *out,
                           const float *lse, const float *q, const float *k, const float *v,
                           const mq_attention_shape *shape, float *scratch,
                           const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const backward_arrays arrays = {dq, dk, dv, dout, out, lse, q, k, v};
    const size_t group = shape->heads / shape->kv_heads;
    const size_t tasks = shape->sequences * shape->kv_heads;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        float *scores = scratch + (size_t)omp_get_thread_num() * scratch_floats(shape);
        const size_t first_head = task % shape->kv_heads * group;
        for (size_t head = first_head; head < first_head + group; head++) {
            const head_view view = view_of(shape, task / shape->kv_heads, head);
            if (head == first_head) {
                clear_rows(dk ? dk + view.kv : NULL, view.kv_stride, shape->length,
                           shape->head_dim);
                clear_rows(dv ? dv + view.kv : NULL, view.kv_stride, shape->length,
                           shape->head_dim);
            }
            for (size_t first = 0; first < shape->length; first += MQ_ATTENTION_TILE) {
                const tile t = tile_at(shape, first);
                backward_tile(&t, &arrays, &view, shape, scores, kernels);
            }
        }
    }
    mq_gemm_leave_single(context);
}
