/* Causal attention with grouped queries, forward and backward.
 *
 * A tile is the queries of some tokens and of all heads that share keys and values, copied below
 * one another (token after token, the heads of one beside each other): one product of many rows
 * instead of a few small ones, and dk and dv are summed over the heads inside of it. Its scores are
 * against just the keys that one of them sees, so that causality and the window save what they can.
 * Products are single-threaded. Tiles are tasks forward. Backward, where dk and dv are sums over
 * tiles, a task is some tiles of a sequence and a head of keys, in their order; where there are few
 * sequences and heads, those of a head are several tasks with sums of their own, which are added up
 * afterwards. How they are shared out depends on the shape alone, and so do the sums. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/kernels.h"
#include "model/ops.h"
#include "tensor/gemm.h"

/* Tokens [first, first + tokens), which are `rows` queries, and the keys [first_key, first_key +
 * keys) that they see. */
typedef struct tile {
    size_t first, tokens, rows, first_key, keys;
} tile;

static size_t group_size(const mq_attention_shape *shape) { return shape->heads / shape->kv_heads; }

/* About 192 rows, measured with OpenBLAS: of fewer the products are slower, and the more tokens a
 * tile has, the more scores it makes that causality hides. */
size_t mq_attention_tile(const mq_attention_shape *shape) {
    const size_t tokens = 192 / group_size(shape) / 16 * 16;
    return tokens > 64 ? 64 : tokens > 16 ? tokens : 16;
}

static size_t tile_count(const mq_attention_shape *shape) {
    return (shape->length + mq_attention_tile(shape) - 1) / mq_attention_tile(shape);
}

/* Padded: a power of two as the stride would put a column of scores into few sets of the cache. */
size_t mq_attention_score_stride(const mq_attention_shape *shape) {
    size_t keys = shape->length;
    if (shape->window > 0 && shape->window + MQ_ATTENTION_TILE < keys) {
        keys = shape->window + MQ_ATTENTION_TILE;
    }
    return (keys + 15) / 16 * 16 + 16;
}

static tile tile_at(const mq_attention_shape *shape, size_t index) {
    const size_t most = mq_attention_tile(shape), first = index * most;
    tile t = {.first = first};
    t.tokens = shape->length - first < most ? shape->length - first : most;
    t.rows = t.tokens * group_size(shape);
    t.first_key = shape->window > 0 && first + 1 > shape->window ? first + 1 - shape->window : 0;
    t.keys = first + t.tokens - t.first_key;
    return t;
}

/* The columns [*begin, *end) of the tile that its token r sees. */
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

/* A thread's scratch. */
typedef struct work {
    float *scores, *dp; /* [rows, ld] */
    float *q, *out;     /* [rows, head_dim]: queries; output, or its gradient */
    float *sums;        /* [rows] */
    size_t ld;          /* row stride of scores and dp */
} work;

static size_t work_floats(const mq_attention_shape *shape) {
    const size_t rows = mq_attention_tile(shape) * group_size(shape);
    const size_t ld = mq_attention_score_stride(shape);
    const size_t own = rows * (2 * ld + 2 * shape->head_dim + 1);
    const size_t packed = (size_t)MQ_ATTENTION_TILE * (ld + 1); /* op_attention_packed.c's */
    return ((own > packed ? own : packed) + 15) / 16 * 16;
}

static work work_of_thread(float *scratch, const mq_attention_shape *shape) {
    const size_t rows = mq_attention_tile(shape) * group_size(shape), d = shape->head_dim;
    work w = {.ld = mq_attention_score_stride(shape)};
    w.scores = scratch + (size_t)omp_get_thread_num() * work_floats(shape);
    w.dp = w.scores + rows * w.ld;
    w.q = w.dp + rows * w.ld;
    w.out = w.q + rows * d;
    w.sums = w.out + rows * d;
    return w;
}

/* Tasks of a backward, if there are so many tiles: enough for the threads of most machines. */
#define TASKS 12

/* Tasks that the tiles of a sequence and a head of keys are shared out to. */
static size_t parts_of(const mq_attention_shape *shape) {
    const size_t heads = shape->sequences * shape->kv_heads, tiles = tile_count(shape);
    const size_t parts = (TASKS + heads - 1) / heads;
    return parts < tiles ? parts : tiles;
}

/* Floats of dk, and of dv, for all parts but the first: for any number of sequences no more than
 * this, since (parts - 1) * sequences <= (TASKS - 1) / kv_heads. */
static size_t part_floats(const mq_attention_shape *shape) {
    return (TASKS - 1) / shape->kv_heads * shape->length * shape->kv_heads * shape->head_dim;
}

size_t mq_attention_scratch(const mq_attention_shape *shape, bool backward,
                            const mq_context *context) {
    return mq_context_threads(context) * work_floats(shape) +
           (backward ? 2 * part_floats(shape) : 0);
}

/* Where one head of keys of one sequence, and the first of its heads of queries, begin, in
 * elements: q and out, k and v, lse. */
typedef struct head_view {
    size_t q_stride, kv_stride; /* floats between tokens */
    size_t q, kv, lse;
} head_view;

static head_view view_of(const mq_attention_shape *shape, size_t sequence, size_t kv_head) {
    const size_t token = sequence * shape->length, group = group_size(shape);
    head_view view = {.q_stride = shape->heads * shape->head_dim,
                      .kv_stride = shape->kv_heads * shape->head_dim};
    view.q = token * view.q_stride + kv_head * group * shape->head_dim;
    view.kv = token * view.kv_stride + kv_head * shape->head_dim;
    view.lse = token * shape->heads + kv_head * group;
    return view;
}

/* rows[tile's rows, head_dim] of x, which is as q, and back. */
static void take_rows(float *rows, const float *x, const tile *t, const head_view *view,
                      const mq_attention_shape *shape) {
    const size_t n = group_size(shape) * shape->head_dim;
    for (size_t r = 0; r < t->tokens; r++) {
        memcpy(rows + r * n, x + view->q + (t->first + r) * view->q_stride, n * sizeof *rows);
    }
}

static void put_rows(float *x, const float *rows, const tile *t, const head_view *view,
                     const mq_attention_shape *shape) {
    const size_t n = group_size(shape) * shape->head_dim;
    for (size_t r = 0; r < t->tokens; r++) {
        memcpy(x + view->q + (t->first + r) * view->q_stride, rows + r * n, n * sizeof *rows);
    }
}

/* --- forward ---------------------------------------------------------------------------------- */

/* product[rows, keys] = factor · rows[rows, head_dim]·kᵀ of a tile; k as k or v. */
static void against_keys(float *product, const float *rows, const float *k, float factor,
                         const tile *t, const head_view *view, const work *w,
                         const mq_attention_shape *shape) {
    mq_gemm(product, w->ld, rows, shape->head_dim, false,
            k + view->kv + t->first_key * view->kv_stride, view->kv_stride, true, t->rows, t->keys,
            shape->head_dim, factor, 0.0F);
}

/* rows[rows, head_dim] = scores[rows, keys]·k of a tile; k as k or v. */
static void over_keys(float *rows, const float *scores, const float *k, const tile *t,
                      const head_view *view, const work *w, const mq_attention_shape *shape) {
    mq_gemm(rows, shape->head_dim, scores, w->ld, false,
            k + view->kv + t->first_key * view->kv_stride, view->kv_stride, false, t->rows,
            shape->head_dim, t->keys, 1.0F, 0.0F);
}

static void forward_tile(float *out, float *lse, const tile *t, const float *q, const float *k,
                         const float *v, const head_view *view, const mq_attention_shape *shape,
                         const work *w, const mq_kernels *kernels) {
    const size_t group = group_size(shape), d = shape->head_dim;
    take_rows(w->q, q, t, view, shape);
    against_keys(w->scores, w->q, k, shape->scale, t, view, w, shape);
    for (size_t i = 0; i < t->rows; i++) {
        const size_t r = i / group;
        size_t begin, end;
        visible(&begin, &end, t, r, shape->window);
        float *row = w->scores + i * w->ld;
        float max;
        kernels->softmax(row + begin, &max, &w->sums[i], end - begin, shape->softcap);
        clear_hidden(row, t, begin, end);
        lse[view->lse + (t->first + r) * shape->heads + i % group] = max + logf(w->sums[i]);
    }
    over_keys(w->out, w->scores, v, t, view, w, shape);
    for (size_t i = 0; i < t->rows; i++) {
        kernels->scale(w->out + i * d, 1.0F / w->sums[i], d);
    }
    put_rows(out, w->out, t, view, shape);
}

void mq_attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                          const mq_attention_shape *shape, float *scratch,
                          const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const size_t tiles = tile_count(shape);
    const size_t tasks = shape->sequences * shape->kv_heads * tiles;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        const work w = work_of_thread(scratch, shape);
        const size_t head = task / tiles;
        const head_view view = view_of(shape, head / shape->kv_heads, head % shape->kv_heads);
        const tile t = tile_at(shape, tiles - 1 - task % tiles); /* the largest of them first */
        forward_tile(out, lse, &t, q, k, v, &view, shape, &w, kernels);
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
static void backward_rows(const tile *t, const backward_arrays *a, const head_view *view,
                          const mq_attention_shape *shape, const work *w,
                          const mq_kernels *kernels) {
    const size_t group = group_size(shape), d = shape->head_dim;
    for (size_t i = 0; i < t->rows; i++) {
        const size_t r = i / group, token = t->first + r;
        size_t begin, end;
        visible(&begin, &end, t, r, shape->window);
        float *row = w->scores + i * w->ld, *dp_row = w->dp + i * w->ld;
        const float *out = a->out + view->q + token * view->q_stride + i % group * d;
        kernels->softmax_backward(row + begin, dp_row + begin, end - begin,
                                  a->lse[view->lse + token * shape->heads + i % group],
                                  kernels->dot(w->out + i * d, out, d), shape->scale,
                                  shape->softcap);
        clear_hidden(row, t, begin, end);
        clear_hidden(dp_row, t, begin, end);
    }
}

/* dk[keys, head_dim] += scores[rows, keys]ᵀ · rows[rows, head_dim] of a tile; dk as dk or dv. */
static void add_to_keys(float *dk, const float *scores, const float *rows, const tile *t,
                        const head_view *view, const work *w, const mq_attention_shape *shape) {
    mq_gemm(dk + view->kv + t->first_key * view->kv_stride, view->kv_stride, scores, w->ld, true,
            rows, shape->head_dim, false, t->keys, shape->head_dim, t->rows, 1.0F, 1.0F);
}

static void backward_tile(const tile *t, const backward_arrays *a, const head_view *view,
                          const mq_attention_shape *shape, const work *w,
                          const mq_kernels *kernels) {
    take_rows(w->q, a->q, t, view, shape);
    take_rows(w->out, a->dout, t, view, shape);
    against_keys(w->scores, w->q, a->k, shape->scale, t, view, w, shape);
    against_keys(w->dp, w->out, a->v, 1.0F, t, view, w, shape);
    backward_rows(t, a, view, shape, w, kernels);
    if (a->dv) {
        add_to_keys(a->dv, w->scores, w->out, t, view, w, shape);
    }
    if (a->dk) {
        add_to_keys(a->dk, w->dp, w->q, t, view, w, shape);
    }
    if (a->dq) {
        over_keys(w->out, w->dp, a->k, t, view, w, shape); /* dout's rows have been used */
        put_rows(a->dq, w->out, t, view, shape);
    }
}

static void clear_rows(float *x, size_t stride, size_t rows, size_t n) {
    for (size_t r = 0; x && r < rows; r++) {
        memset(x + r * stride, 0, n * sizeof *x);
    }
}

/* One task: every parts-th tile of a head, so that each part has early tiles, which see few keys,
 * and late ones. The first part's sums are dk and dv themselves. */
static void backward_part(size_t part, size_t parts, const backward_arrays *arrays, float *sums,
                          const head_view *view, const mq_attention_shape *shape, const work *w,
                          const mq_kernels *kernels) {
    const size_t size = shape->sequences * shape->length * view->kv_stride;
    backward_arrays own = *arrays;
    if (part > 0) {
        float *base = sums + 2 * (part - 1) * size;
        own.dk = own.dk ? base : NULL;
        own.dv = own.dv ? base + size : NULL;
    }
    clear_rows(own.dk ? own.dk + view->kv : NULL, view->kv_stride, shape->length, shape->head_dim);
    clear_rows(own.dv ? own.dv + view->kv : NULL, view->kv_stride, shape->length, shape->head_dim);
    for (size_t index = part; index < tile_count(shape); index += parts) {
        const tile t = tile_at(shape, index);
        backward_tile(&t, &own, view, shape, w, kernels);
    }
}

/* x[size] += that of all parts but the first. sums: of the second, which are 2·size apart. */
static void add_parts(float *x, const float *sums, size_t parts, size_t size,
                      const mq_kernels *kernels, const mq_context *context) {
    const size_t chunk = 4096;
#pragma omp parallel for schedule(static) num_threads((int)mq_context_threads(context))
    for (size_t first = 0; first < size; first += chunk) {
        const size_t count = size - first < chunk ? size - first : chunk;
        for (size_t part = 1; part < parts; part++) {
            kernels->add(x + first, x + first, sums + 2 * (part - 1) * size + first, count);
        }
    }
}

void mq_attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *out,
                           const float *lse, const float *q, const float *k, const float *v,
                           const mq_attention_shape *shape, float *scratch,
                           const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const backward_arrays arrays = {dq, dk, dv, dout, out, lse, q, k, v};
    const size_t parts = parts_of(shape), tasks = shape->sequences * shape->kv_heads * parts;
    const size_t size = shape->sequences * shape->length * shape->kv_heads * shape->head_dim;
    float *sums = scratch + mq_attention_scratch(shape, false, context);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        const work w = work_of_thread(scratch, shape);
        const size_t head = task / parts;
        const head_view view = view_of(shape, head / shape->kv_heads, head % shape->kv_heads);
        const size_t part = parts - 1 - task % parts; /* the one with the largest tile first */
        backward_part(part, parts, &arrays, sums, &view, shape, &w, kernels);
    }
    mq_gemm_leave_single(context);
    if (parts > 1 && dk) {
        add_parts(dk, sums, parts, size, kernels, context);
    }
    if (parts > 1 && dv) {
        add_parts(dv, sums + size, parts, size, kernels, context);
    }
}
