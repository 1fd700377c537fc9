/* Tiles of attention: see attention_tiles.h. */
#include "model/attention_tiles.h"

#include <omp.h>
#include <string.h>

#include "tensor/gemm.h"

size_t mq_attn_group(const mq_attention_shape *shape) { return shape->heads / shape->kv_heads; }

/* About 192 rows, measured with OpenBLAS: of fewer the products are slower, and the more tokens a
 * tile has, the more scores it makes that causality hides. */
size_t mq_attention_tile(const mq_attention_shape *shape) {
    const size_t tokens = 192 / mq_attn_group(shape) / 16 * 16;
    return tokens > 64 ? 64 : tokens > 16 ? tokens : 16;
}

size_t mq_attn_tile_count(const mq_attention_shape *shape) {
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

mq_attn_tile mq_attn_tile_at(const mq_attention_shape *shape, size_t index) {
    const size_t most = mq_attention_tile(shape), first = index * most;
    mq_attn_tile t = {.first = first};
    t.tokens = shape->length - first < most ? shape->length - first : most;
    t.rows = t.tokens * mq_attn_group(shape);
    t.first_key = shape->window > 0 && first + 1 > shape->window ? first + 1 - shape->window : 0;
    t.keys = first + t.tokens - t.first_key;
    return t;
}

void mq_attn_visible(size_t *begin, size_t *end, const mq_attn_tile *t, size_t r, size_t window) {
    const size_t query = t->first + r;
    const size_t first_key = window > 0 && query + 1 > window ? query + 1 - window : 0;
    *begin = first_key - t->first_key;
    *end = query + 1 - t->first_key;
}

size_t mq_attn_work_floats(const mq_attention_shape *shape) {
    const size_t rows = mq_attention_tile(shape) * mq_attn_group(shape);
    const size_t ld = mq_attention_score_stride(shape);
    const size_t own = rows * (2 * ld + 2 * shape->head_dim + 1);
    const size_t packed = (size_t)MQ_ATTENTION_TILE * (ld + 1); /* op_attention_packed.c's */
    return ((own > packed ? own : packed) + 15) / 16 * 16;
}

size_t mq_attention_bf16_scratch(const mq_attention_shape *shape) {
    const size_t rows = mq_attention_tile(shape) * mq_attn_group(shape);
    const size_t own = 2 * rows * (mq_attention_score_stride(shape) + shape->head_dim);
    return (own + 31) / 32 * 32;
}

size_t mq_attention_bf16_product(const mq_attention_shape *shape) {
    return mq_attention_score_stride(shape) * shape->head_dim;
}

mq_attn_work mq_attn_work_of_thread(float *scratch, const mq_attention_bf16 *bf16,
                                    const mq_attention_shape *shape) {
    const size_t thread = (size_t)omp_get_thread_num();
    const size_t rows = mq_attention_tile(shape) * mq_attn_group(shape), d = shape->head_dim;
    mq_attn_work w = {.ld = mq_attention_score_stride(shape)};
    w.scores = scratch + thread * mq_attn_work_floats(shape);
    w.dp = w.scores + rows * w.ld;
    w.q = w.dp + rows * w.ld;
    w.out = w.q + rows * d;
    w.sums = w.out + rows * d;
    if (bf16 && bf16->gemm) {
        w.bf16 = bf16;
        w.scores16 = bf16->scratch + thread * mq_attention_bf16_scratch(shape);
        w.dp16 = w.scores16 + rows * w.ld;
        w.q16 = w.dp16 + rows * w.ld;
        w.out16 = w.q16 + rows * d;
        w.product = bf16->product + thread * mq_attention_bf16_product(shape);
        w.gemm_scratch = bf16->gemm_scratch + thread * bf16->gemm_scratch_size;
    }
    return w;
}

mq_attn_view mq_attn_view_of(const mq_attention_shape *shape, size_t sequence, size_t kv_head) {
    const size_t token = sequence * shape->length, group = mq_attn_group(shape);
    mq_attn_view view = {.q_stride = shape->heads * shape->head_dim,
                         .kv_stride = shape->kv_heads * shape->head_dim};
    view.q = token * view.q_stride + kv_head * group * shape->head_dim;
    view.kv = token * view.kv_stride + kv_head * shape->head_dim;
    view.lse = token * shape->heads + kv_head * group;
    view.kv16 = (sequence * shape->kv_heads + kv_head) * shape->length * shape->head_dim;
    return view;
}

void mq_attn_take_rows(float *rows, const float *x, const mq_attn_tile *t, const mq_attn_view *view,
                       const mq_attention_shape *shape) {
    const size_t n = mq_attn_group(shape) * shape->head_dim;
    for (size_t r = 0; r < t->tokens; r++) {
        memcpy(rows + r * n, x + view->q + (t->first + r) * view->q_stride, n * sizeof *rows);
    }
}

void mq_attn_put_rows(float *x, const float *rows, const mq_attn_tile *t, const mq_attn_view *view,
                      const mq_attention_shape *shape) {
    const size_t n = mq_attn_group(shape) * shape->head_dim;
    for (size_t r = 0; r < t->tokens; r++) {
        memcpy(x + view->q + (t->first + r) * view->q_stride, rows + r * n, n * sizeof *rows);
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* Those of bfloat16, of a tile. Operands and results are dense: for others oneDNN 2.6 takes
 * "gemm:jit", which packs both operands first, and never "brg" (DNNL_VERBOSE=1 tells). */
static mq_gemm_shape against_shape(const mq_attn_tile *t, const mq_attention_shape *shape) {
    const size_t d = shape->head_dim;
    return (mq_gemm_shape){
        .m = t->rows, .n = t->keys, .k = d, .lda = d, .ldb = d, .ldc = t->keys, .trans_b = true};
}

static mq_gemm_shape over_shape(const mq_attn_tile *t, const mq_attention_shape *shape) {
    const size_t d = shape->head_dim;
    return (mq_gemm_shape){.m = t->rows, .n = d, .k = t->keys, .lda = t->keys, .ldb = d, .ldc = d};
}

static mq_gemm_shape to_keys_shape(const mq_attn_tile *t, const mq_attention_shape *shape) {
    const size_t d = shape->head_dim;
    return (mq_gemm_shape){
        .m = t->keys, .n = d, .k = t->rows, .lda = t->keys, .ldb = d, .ldc = d, .trans_a = true};
}

mq_status mq_attention_prepare(mq_gemm_bf16 *gemm, const mq_attention_shape *shape, bool backward,
                               mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_attn_tile_count(shape); i++) {
        const mq_attn_tile t = mq_attn_tile_at(shape, i);
        const mq_gemm_shape shapes[] = {against_shape(&t, shape), over_shape(&t, shape),
                                        to_keys_shape(&t, shape)};
        for (size_t j = 0; status == MQ_OK && j < (backward ? 3 : 2); j++) {
            status = mq_gemm_bf16_prepare(gemm, &shapes[j], err);
        }
    }
    return status;
}

void mq_attention_round_keys(mq_bf16 *to, const float *k, size_t first, size_t count,
                             const mq_attention_shape *shape) {
    const mq_kernels *kernels = mq_kernels_get();
    const size_t d = shape->head_dim, heads = shape->kv_heads;
    for (size_t token = first; token < first + count; token++) {
        const size_t sequence = token / shape->length, at = token % shape->length;
        for (size_t head = 0; head < heads; head++) {
            kernels->to_bf16(to + ((sequence * heads + head) * shape->length + at) * d,
                             k + (token * heads + head) * d, d);
        }
    }
}

static void run_bf16(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                     const mq_attn_work *w) {
    mq_gemm_bf16_run(w->bf16->gemm, c, a, b, shape, w->gemm_scratch);
}

void mq_attn_against_keys(float *product, const mq_attn_operand *rows, const mq_attn_operand *k,
                          float factor, const mq_attn_tile *t, const mq_attn_view *view,
                          const mq_attn_work *w, const mq_attention_shape *shape) {
    const size_t d = shape->head_dim;
    if (w->bf16) {
        const mq_gemm_shape s = against_shape(t, shape);
        run_bf16(product, rows->bf16, k->bf16 + view->kv16 + t->first_key * d, &s, w);
        return;
    }
    mq_gemm_shape s = against_shape(t, shape);
    s.ldb = view->kv_stride;
    s.ldc = w->ld;
    mq_gemm(product, rows->f32, k->f32 + view->kv + t->first_key * view->kv_stride, &s, factor);
}

void mq_attn_over_keys(float *rows, const mq_attn_operand *scores, const mq_attn_operand *k,
                       const mq_attn_tile *t, const mq_attn_view *view, const mq_attn_work *w,
                       const mq_attention_shape *shape) {
    const size_t d = shape->head_dim;
    if (w->bf16) {
        const mq_gemm_shape s = over_shape(t, shape);
        run_bf16(rows, scores->bf16, k->bf16 + view->kv16 + t->first_key * d, &s, w);
        return;
    }
    mq_gemm_shape s = over_shape(t, shape);
    s.lda = w->ld;
    s.ldb = view->kv_stride;
    mq_gemm(rows, scores->f32, k->f32 + view->kv + t->first_key * view->kv_stride, &s, 1.0F);
}

void mq_attn_add_to_keys(float *dk, const mq_attn_operand *scores, const mq_attn_operand *rows,
                         const mq_attn_tile *t, const mq_attn_view *view, const mq_attn_work *w,
                         const mq_attention_shape *shape, const mq_kernels *kernels) {
    const size_t d = shape->head_dim, stride = view->kv_stride;
    float *sums = dk + view->kv + t->first_key * stride;
    if (w->bf16) {
        const mq_gemm_shape s = to_keys_shape(t, shape);
        run_bf16(w->product, scores->bf16, rows->bf16, &s, w);
        for (size_t key = 0; key < t->keys; key++) {
            kernels->add(sums + key * stride, sums + key * stride, w->product + key * d, d);
        }
        return;
    }
    mq_gemm_shape s = to_keys_shape(t, shape);
    s.lda = w->ld;
    s.ldc = stride;
    s.accumulate = true;
    mq_gemm(sums, scores->f32, rows->f32, &s, 1.0F);
}

void mq_attn_finish_row(float *rows, mq_bf16 *rows16, size_t i, const mq_attn_tile *t, size_t begin,
                        size_t end, const mq_attn_work *w, const mq_kernels *kernels) {
    float *row = rows + i * w->ld;
    const size_t hidden = t->keys - end;
    if (w->bf16) {
        mq_bf16 *row16 = rows16 + i * w->ld;
        memset(row16, 0, begin * sizeof *row16);
        kernels->to_bf16(row16 + begin, row + begin, end - begin);
        memset(row16 + end, 0, hidden * sizeof *row16);
    } else {
        memset(row, 0, begin * sizeof *row);
        memset(row + end, 0, hidden * sizeof *row);
    }
}

mq_attn_work mq_attn_for_tile(const mq_attn_work *thread, const mq_attn_tile *t) {
    mq_attn_work w = *thread;
    w.ld = w.bf16 ? t->keys : w.ld;
    return w;
}

void mq_attn_take_queries(const float *q, const mq_attn_tile *t, const mq_attn_view *view,
                          const mq_attn_work *w, const mq_attention_shape *shape,
                          const mq_kernels *kernels) {
    mq_attn_take_rows(w->q, q, t, view, shape);
    if (w->bf16) {
        kernels->scale(w->q, shape->scale, t->rows * shape->head_dim);
        kernels->to_bf16(w->q16, w->q, t->rows * shape->head_dim);
    }
}
