/* Causal attention with grouped queries, forward and backward, in tiles (attention_tiles.h).
 *
 * Products are single-threaded. Tiles are tasks forward. Backward, where dk and dv are sums over
 * tiles, a task is some tiles of a sequence and a head of keys, in their order; where there are few
 * sequences and heads, those of a head are several tasks with sums of their own, which are added up
 * afterwards. How they are shared out depends on the shape alone, and so do the sums. */
#include <math.h>
#include <string.h>

#include "model/attention_tiles.h"
#include "tensor/gemm.h"

/* Tasks of a backward, if there are so many tiles: enough for the threads of most machines. */
#define TASKS 12

/* Tasks that the tiles of a sequence and a head of keys are shared out to. */
static size_t parts_of(const mq_attention_shape *shape) {
    const size_t heads = shape->sequences * shape->kv_heads, tiles = mq_attn_tile_count(shape);
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
    return mq_context_threads(context) * mq_attn_work_floats(shape) +
           (backward ? 2 * part_floats(shape) : 0);
}

/* --- forward ---------------------------------------------------------------------------------- */

static void forward_tile(float *out, float *lse, const mq_attn_tile *t, const float *q,
                         const mq_attn_operand *k, const mq_attn_operand *v,
                         const mq_attn_view *view, const mq_attention_shape *shape,
                         const mq_attn_work *w, const mq_kernels *kernels) {
    const size_t group = mq_attn_group(shape), d = shape->head_dim;
    const mq_attn_operand queries = {w->q, w->q16}, scores = {w->scores, w->scores16};
    mq_attn_take_queries(q, t, view, w, shape, kernels);
    mq_attn_against_keys(w->scores, &queries, k, shape->scale, t, view, w, shape);
    for (size_t i = 0; i < t->rows; i++) {
        const size_t r = i / group;
        size_t begin, end;
        mq_attn_visible(&begin, &end, t, r, shape->window);
        float *row = w->scores + i * w->ld;
        float max;
        kernels->softmax(row + begin, &max, &w->sums[i], end - begin, shape->softcap);
        mq_attn_finish_row(w->scores, w->scores16, i, t, begin, end, w, kernels);
        lse[view->lse + (t->first + r) * shape->heads + i % group] = max + logf(w->sums[i]);
    }
    mq_attn_over_keys(w->out, &scores, v, t, view, w, shape);
    for (size_t i = 0; i < t->rows; i++) {
        kernels->scale(w->out + i * d, 1.0F / w->sums[i], d);
    }
    mq_attn_put_rows(out, w->out, t, view, shape);
}

void mq_attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                          const mq_attention_shape *shape, float *scratch,
                          const mq_attention_bf16 *bf16, const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const mq_attn_operand keys = {k, bf16 ? bf16->k : NULL}, values = {v, bf16 ? bf16->v : NULL};
    const size_t tiles = mq_attn_tile_count(shape);
    const size_t tasks = shape->sequences * shape->kv_heads * tiles;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        const mq_attn_work own = mq_attn_work_of_thread(scratch, bf16, shape);
        const size_t head = task / tiles;
        const mq_attn_view view =
            mq_attn_view_of(shape, head / shape->kv_heads, head % shape->kv_heads);
        const mq_attn_tile t =
            mq_attn_tile_at(shape, tiles - 1 - task % tiles); /* the largest of them first */
        const mq_attn_work w = mq_attn_for_tile(&own, &t);
        forward_tile(out, lse, &t, q, &keys, &values, &view, shape, &w, kernels);
    }
    mq_gemm_leave_single(context);
}

/* --- backward --------------------------------------------------------------------------------- */

/* The arrays of a backward, as mq_attention_backward has them. */
typedef struct backward_arrays {
    float *dq, *dk, *dv;
    const float *dout, *out, *lse, *q;
    mq_attn_operand k, v;
} backward_arrays;

/* scores <- p and dp <- dL/dscores (times scale, which bfloat16's queries have), both 0 where a key
 * is hidden. With o = Σ p·v the sum Σ p·dp of a row is do·o (FlashAttention, eq. 4). */
static void backward_rows(const mq_attn_tile *t, const backward_arrays *a, const mq_attn_view *view,
                          const mq_attention_shape *shape, const mq_attn_work *w,
                          const mq_kernels *kernels) {
    const size_t group = mq_attn_group(shape), d = shape->head_dim;
    for (size_t i = 0; i < t->rows; i++) {
        const size_t r = i / group, token = t->first + r;
        size_t begin, end;
        mq_attn_visible(&begin, &end, t, r, shape->window);
        float *row = w->scores + i * w->ld, *dp_row = w->dp + i * w->ld;
        const float *out = a->out + view->q + token * view->q_stride + i % group * d;
        kernels->softmax_backward(row + begin, dp_row + begin, end - begin,
                                  a->lse[view->lse + token * shape->heads + i % group],
                                  kernels->dot(w->out + i * d, out, d),
                                  w->bf16 ? 1.0F : shape->scale, shape->softcap);
        mq_attn_finish_row(w->scores, w->scores16, i, t, begin, end, w, kernels);
        mq_attn_finish_row(w->dp, w->dp16, i, t, begin, end, w, kernels);
    }
}

static void backward_tile(const mq_attn_tile *t, const backward_arrays *a, const mq_attn_view *view,
                          const mq_attention_shape *shape, const mq_attn_work *w,
                          const mq_kernels *kernels) {
    const size_t count = t->rows * shape->head_dim;
    const mq_attn_operand queries = {w->q, w->q16}, douts = {w->out, w->out16};
    const mq_attn_operand p = {w->scores, w->scores16}, ds = {w->dp, w->dp16};
    mq_attn_take_queries(a->q, t, view, w, shape, kernels);
    mq_attn_take_rows(w->out, a->dout, t, view, shape);
    if (w->bf16) {
        kernels->to_bf16(w->out16, w->out, count);
    }
    mq_attn_against_keys(w->scores, &queries, &a->k, shape->scale, t, view, w, shape);
    mq_attn_against_keys(w->dp, &douts, &a->v, 1.0F, t, view, w, shape);
    backward_rows(t, a, view, shape, w, kernels);
    if (a->dv) {
        mq_attn_add_to_keys(a->dv, &p, &douts, t, view, w, shape, kernels);
    }
    if (a->dk) {
        mq_attn_add_to_keys(a->dk, &ds, &queries, t, view, w, shape, kernels);
    }
    if (a->dq) {
        mq_attn_over_keys(w->out, &ds, &a->k, t, view, w, shape); /* dout's rows have been used */
        if (w->bf16) {
            kernels->scale(w->out, shape->scale, count);
        }
        mq_attn_put_rows(a->dq, w->out, t, view, shape);
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
                          const mq_attn_view *view, const mq_attention_shape *shape,
                          const mq_attn_work *thread, const mq_kernels *kernels) {
    const size_t size = shape->sequences * shape->length * view->kv_stride;
    backward_arrays own = *arrays;
    if (part > 0) {
        float *base = sums + 2 * (part - 1) * size;
        own.dk = own.dk ? base : NULL;
        own.dv = own.dv ? base + size : NULL;
    }
    clear_rows(own.dk ? own.dk + view->kv : NULL, view->kv_stride, shape->length, shape->head_dim);
    clear_rows(own.dv ? own.dv + view->kv : NULL, view->kv_stride, shape->length, shape->head_dim);
    for (size_t index = part; index < mq_attn_tile_count(shape); index += parts) {
        const mq_attn_tile t = mq_attn_tile_at(shape, index);
        const mq_attn_work w = mq_attn_for_tile(thread, &t);
        backward_tile(&t, &own, view, shape, &w, kernels);
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
                           const mq_attention_bf16 *bf16, const mq_context *context) {
    const mq_kernels *kernels = mq_kernels_get();
    const backward_arrays arrays = {.dq = dq,
                                    .dk = dk,
                                    .dv = dv,
                                    .dout = dout,
                                    .out = out,
                                    .lse = lse,
                                    .q = q,
                                    .k = {k, bf16 ? bf16->k : NULL},
                                    .v = {v, bf16 ? bf16->v : NULL}};
    const size_t parts = parts_of(shape), tasks = shape->sequences * shape->kv_heads * parts;
    const size_t size = shape->sequences * shape->length * shape->kv_heads * shape->head_dim;
    float *sums = scratch + mq_attention_scratch(shape, false, context);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t task = 0; task < tasks; task++) {
        const mq_attn_work w = mq_attn_work_of_thread(scratch, bf16, shape);
        const size_t head = task / parts;
        const mq_attn_view view =
            mq_attn_view_of(shape, head / shape->kv_heads, head % shape->kv_heads);
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
