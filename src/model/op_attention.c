/* Causal attention with grouped queries, forward and backward, in tiles (attention_tiles.h).
 *
 * Products are single-threaded. Tiles are tasks forward. Backward, where dk and dv are sums over
 * tiles, a task is some tiles of a sequence and a head of keys, in their order; where there are few
 * sequences and heads, those of a head are several tasks with sums of their own, which are added up
 * afterwards. How they are shared out depends on the shape alone, and so do the sums. */
#include <math.h>
#include <string.h>

#include "model/attention_tiles.h"

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

static void forward_tile(float *out, float *lse, const mq_attention_inputs *in,
                         const mq_attn_work *w) {
    const size_t group = mq_attn_group(w->shape), d = w->shape->head_dim, rows = w->tile.rows;
    const mq_operand queries = {w->q, w->q16}, scores = {w->scores, w->scores16};
    mq_attn_take_queries(in->q, w);
    mq_attn_against_keys(w->scores, queries, in->k, w->shape->scale, w);
    for (size_t i = 0; i < rows; i++) {
        const mq_attn_span seen = mq_attn_visible(w, i);
        float *row = w->scores + i * w->tile.ld;
        float max;
        w->kernels->softmax(row + seen.begin, &max, &w->sums[i], seen.end - seen.begin,
                            w->shape->softcap);
        mq_attn_finish_row(w->scores, w->scores16, i, seen, w);
        lse[w->view.lse + (w->tile.first + i / group) * w->shape->heads + i % group] =
            max + logf(w->sums[i]);
    }
    mq_attn_over_keys(w->out, scores, in->v, w);
    for (size_t i = 0; i < rows; i++) {
        w->kernels->scale(w->out + i * d, 1.0F / w->sums[i], d);
    }
    mq_attn_put_rows(out, w->out, w);
}

void mq_attention_forward(float *out, float *lse, const mq_attention_inputs *in,
                          const mq_attention_run *run) {
    const size_t tiles = mq_attn_tile_count(run->shape);
    const size_t tasks = run->shape->sequences * run->shape->kv_heads * tiles;
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(run->context))
    for (size_t task = 0; task < tasks; task++) {
        mq_attn_work w = mq_attn_work_on(run, task / tiles);
        mq_attn_to_tile(&w, tiles - 1 - task % tiles); /* the largest of them first */
        forward_tile(out, lse, in, &w);
    }
    mq_gemm_leave_single(run->context);
}

/* --- backward --------------------------------------------------------------------------------- */

/* scores <- p and dp <- dL/dscores (times scale, which bfloat16's queries have), both 0 where a key
 * is hidden. With o = Σ p·v the sum Σ p·dp of a row is do·o (FlashAttention, eq. 4). */
static void backward_rows(const mq_attention_kept *kept, const mq_attn_work *w) {
    const mq_attention_shape *shape = w->shape;
    const size_t group = mq_attn_group(shape), d = shape->head_dim;
    for (size_t i = 0; i < w->tile.rows; i++) {
        const size_t token = w->tile.first + i / group;
        const mq_attn_span seen = mq_attn_visible(w, i);
        float *row = w->scores + i * w->tile.ld, *dp_row = w->dp + i * w->tile.ld;
        const float *out = kept->out + w->view.q + token * w->view.q_stride + i % group * d;
        w->kernels->softmax_backward(row + seen.begin, dp_row + seen.begin, seen.end - seen.begin,
                                     kept->lse[w->view.lse + token * shape->heads + i % group],
                                     w->kernels->dot(w->out + i * d, out, d),
                                     w->bf16 ? 1.0F : shape->scale, shape->softcap);
        mq_attn_finish_row(w->scores, w->scores16, i, seen, w);
        mq_attn_finish_row(w->dp, w->dp16, i, seen, w);
    }
}

static void backward_tile(const mq_attention_grads *grads, const mq_attention_kept *kept,
                          const mq_attention_inputs *in, const mq_attn_work *w) {
    const size_t count = w->tile.rows * w->shape->head_dim;
    const mq_operand queries = {w->q, w->q16}, douts = {w->out, w->out16};
    const mq_operand p = {w->scores, w->scores16}, ds = {w->dp, w->dp16};
    mq_attn_take_queries(in->q, w);
    mq_attn_take_rows(w->out, kept->dout, w);
    if (w->bf16) {
        w->kernels->to_bf16(w->out16, w->out, count);
    }
    mq_attn_against_keys(w->scores, queries, in->k, w->shape->scale, w);
    mq_attn_against_keys(w->dp, douts, in->v, 1.0F, w);
    backward_rows(kept, w);
    if (grads->dv) {
        mq_attn_add_to_keys(grads->dv, p, douts, w);
    }
    if (grads->dk) {
        mq_attn_add_to_keys(grads->dk, ds, queries, w);
    }
    if (grads->dq) {
        mq_attn_over_keys(w->out, ds, in->k, w); /* dout's rows have been used */
        if (w->bf16) {
            w->kernels->scale(w->out, w->shape->scale, count);
        }
        mq_attn_put_rows(grads->dq, w->out, w);
    }
}

/* dk, or dv, of the work's head becomes 0. */
static void clear_head(float *dk, const mq_attn_work *w) {
    const size_t d = w->shape->head_dim;
    for (size_t token = 0; dk && token < w->shape->length; token++) {
        memset(dk + w->view.kv + token * w->view.kv_stride, 0, d * sizeof *dk);
    }
}

static size_t kv_floats(const mq_attention_shape *shape) {
    return shape->sequences * shape->length * shape->kv_heads * shape->head_dim;
}

/* Where a part's sums go: the first part's are dk and dv themselves. */
static mq_attention_grads grads_of(const mq_attention_grads *grads, size_t part, float *sums,
                                   const mq_attention_shape *shape) {
    mq_attention_grads own = *grads;
    if (part > 0) {
        float *base = sums + 2 * (part - 1) * kv_floats(shape);
        own.dk = own.dk ? base : NULL;
        own.dv = own.dv ? base + kv_floats(shape) : NULL;
    }
    return own;
}

/* One task: every parts-th tile of a head, so that each part has early tiles, which see few keys,
 * and late ones. */
static void backward_part(const mq_attention_grads *own, const mq_attention_kept *kept,
                          const mq_attention_inputs *in, size_t part, mq_attn_work *w) {
    const size_t parts = parts_of(w->shape), tiles = mq_attn_tile_count(w->shape);
    clear_head(own->dk, w);
    clear_head(own->dv, w);
    for (size_t index = part; index < tiles; index += parts) {
        mq_attn_to_tile(w, index);
        backward_tile(own, kept, in, w);
    }
}

/* dk, or dv, += that of all parts but the first. sums: of the second. */
static void add_parts(float *dk, const float *sums, const mq_attention_run *run) {
    const mq_kernels *kernels = mq_kernels_best();
    const size_t parts = parts_of(run->shape), size = kv_floats(run->shape), chunk = 4096;
#pragma omp parallel for schedule(static) num_threads((int)mq_context_threads(run->context))
    for (size_t first = 0; first < size; first += chunk) {
        const size_t count = mq_smaller(size - first, chunk);
        for (size_t part = 1; part < parts; part++) {
            kernels->add(dk + first, dk + first, sums + 2 * (part - 1) * size + first, count);
        }
    }
}

void mq_attention_backward(const mq_attention_grads *grads, const mq_attention_kept *kept,
                           const mq_attention_inputs *in, const mq_attention_run *run) {
    const mq_attention_shape *shape = run->shape;
    const size_t parts = parts_of(shape), tasks = shape->sequences * shape->kv_heads * parts;
    float *sums = run->scratch + mq_attention_scratch(shape, false, run->context);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(run->context))
    for (size_t task = 0; task < tasks; task++) {
        const size_t part = parts - 1 - task % parts; /* the one with the largest tile first */
        const mq_attention_grads own = grads_of(grads, part, sums, shape);
        mq_attn_work w = mq_attn_work_on(run, task / parts);
        backward_part(&own, kept, in, part, &w);
    }
    mq_gemm_leave_single(run->context);
    if (parts > 1 && grads->dk) {
        add_parts(grads->dk, sums, run);
    }
    if (parts > 1 && grads->dv) {
        add_parts(grads->dv, sums + kv_floats(shape), run);
    }
}
