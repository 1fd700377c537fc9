/* Tiles of attention: see attention_tiles.h. */
#include "model/attention_tiles.h"

#include <omp.h>
#include <string.h>

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

/* A tile of a sequence and a head of keys. */
static mq_attn_tile tile_at(const mq_attention_shape *shape, size_t index, bool bf16) {
    const size_t most = mq_attention_tile(shape), first = index * most;
    mq_attn_tile t = {.first = first};
    t.tokens = mq_smaller(shape->length - first, most);
    t.rows = t.tokens * mq_attn_group(shape);
    t.first_key = mq_first_visible(first, shape->window);
    t.keys = first + t.tokens - t.first_key;
    t.ld = bf16 ? t.keys : mq_attention_score_stride(shape);
    t.key_stride = bf16 ? shape->head_dim : shape->kv_heads * shape->head_dim;
    return t;
}

mq_attn_span mq_attn_visible(const mq_attn_work *w, size_t i) {
    const size_t query = w->tile.first + i / mq_attn_group(w->shape);
    const size_t first_key = mq_first_visible(query, w->shape->window);
    return (mq_attn_span){first_key - w->tile.first_key, query + 1 - w->tile.first_key};
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

static mq_attn_view view_of(const mq_attention_shape *shape, size_t sequence, size_t kv_head) {
    const size_t token = sequence * shape->length, group = mq_attn_group(shape);
    mq_attn_view view = {.q_stride = shape->heads * shape->head_dim,
                         .kv_stride = shape->kv_heads * shape->head_dim};
    view.q = token * view.q_stride + kv_head * group * shape->head_dim;
    view.kv = token * view.kv_stride + kv_head * shape->head_dim;
    view.lse = token * shape->heads + kv_head * group;
    view.kv16 = (sequence * shape->kv_heads + kv_head) * shape->length * shape->head_dim;
    return view;
}

mq_attn_work mq_attn_work_on(const mq_attention_run *run, size_t head) {
    const mq_attention_shape *shape = run->shape;
    const size_t thread = (size_t)omp_get_thread_num(), ld = mq_attention_score_stride(shape);
    const size_t rows = mq_attention_tile(shape) * mq_attn_group(shape), d = shape->head_dim;
    mq_attn_work w = {.shape = shape,
                      .kernels = mq_kernels_best(),
                      .view = view_of(shape, head / shape->kv_heads, head % shape->kv_heads)};
    w.scores = run->scratch + thread * mq_attn_work_floats(shape);
    w.dp = w.scores + rows * ld;
    w.q = w.dp + rows * ld;
    w.out = w.q + rows * d;
    w.sums = w.out + rows * d;
    if (run->bf16 && run->bf16->products.gemm) {
        w.bf16 = &run->bf16->products;
        w.scores16 = run->bf16->scratch + thread * mq_attention_bf16_scratch(shape);
        w.dp16 = w.scores16 + rows * ld;
        w.q16 = w.dp16 + rows * ld;
        w.out16 = w.q16 + rows * d;
        w.product = run->bf16->product + thread * mq_attention_bf16_product(shape);
    }
    return w;
}

void mq_attn_to_tile(mq_attn_work *w, size_t index) {
    w->tile = tile_at(w->shape, index, w->bf16 != NULL);
}

void mq_attn_take_rows(float *rows, const float *x, const mq_attn_work *w) {
    const size_t n = mq_attn_group(w->shape) * w->shape->head_dim, stride = w->view.q_stride;
    for (size_t r = 0; r < w->tile.tokens; r++) {
        memcpy(rows + r * n, x + w->view.q + (w->tile.first + r) * stride, n * sizeof *rows);
    }
}

void mq_attn_put_rows(float *x, const float *rows, const mq_attn_work *w) {
    const size_t n = mq_attn_group(w->shape) * w->shape->head_dim, stride = w->view.q_stride;
    for (size_t r = 0; r < w->tile.tokens; r++) {
        memcpy(x + w->view.q + (w->tile.first + r) * stride, rows + r * n, n * sizeof *rows);
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* Of a tile. With bfloat16 operands and results are dense: for others oneDNN 2.6 takes "gemm:jit",
 * which packs both operands first, and never "brg" (DNNL_VERBOSE=1 tells). */
static mq_gemm_shape against_shape(const mq_attn_tile *t, size_t d) {
    return (mq_gemm_shape){.m = t->rows,
                           .n = t->keys,
                           .k = d,
                           .lda = d,
                           .ldb = t->key_stride,
                           .ldc = t->ld,
                           .trans_b = true};
}

static mq_gemm_shape over_shape(const mq_attn_tile *t, size_t d) {
    return (mq_gemm_shape){
        .m = t->rows, .n = d, .k = t->keys, .lda = t->ld, .ldb = t->key_stride, .ldc = d};
}

static mq_gemm_shape to_keys_shape(const mq_attn_tile *t, size_t d, bool accumulate) {
    return (mq_gemm_shape){.m = t->keys,
                           .n = d,
                           .k = t->rows,
                           .lda = t->ld,
                           .ldb = d,
                           .ldc = t->key_stride,
                           .trans_a = true,
                           .accumulate = accumulate};
}

mq_status mq_attention_prepare(mq_gemm_bf16 *gemm, const mq_attention_shape *shape, bool backward,
                               mq_error *err) {
    const size_t d = shape->head_dim;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_attn_tile_count(shape); i++) {
        const mq_attn_tile t = tile_at(shape, i, true);
        const mq_gemm_shape shapes[] = {against_shape(&t, d), over_shape(&t, d),
                                        to_keys_shape(&t, d, false)};
        for (size_t j = 0; status == MQ_OK && j < (backward ? 3 : 2); j++) {
            status = mq_gemm_bf16_prepare(gemm, &shapes[j], err);
        }
    }
    return status;
}

void mq_attention_round_keys(mq_bf16 *to, const float *k, size_t first, size_t count,
                             const mq_attention_shape *shape) {
    const mq_kernels *kernels = mq_kernels_best();
    const size_t d = shape->head_dim, heads = shape->kv_heads;
    for (size_t token = first; token < first + count; token++) {
        const size_t sequence = token / shape->length, at = token % shape->length;
        for (size_t head = 0; head < heads; head++) {
            kernels->to_bf16(to + ((sequence * heads + head) * shape->length + at) * d,
                             k + (token * heads + head) * d, d);
        }
    }
}

/* The keys that the tile sees. */
static mq_operand keys_of(mq_operand k, const mq_attn_work *w) {
    return mq_operand_at(k, (w->bf16 ? w->view.kv16 : w->view.kv) +
                                w->tile.first_key * w->tile.key_stride);
}

void mq_attn_against_keys(float *product, mq_operand rows, mq_operand k, float factor,
                          const mq_attn_work *w) {
    const mq_gemm_shape s = against_shape(&w->tile, w->shape->head_dim);
    if (w->bf16) {
        mq_product(product, rows, keys_of(k, w), &s, w->bf16);
    } else {
        mq_gemm(product, rows.f32, keys_of(k, w).f32, &s, factor);
    }
}

void mq_attn_over_keys(float *rows, mq_operand scores, mq_operand k, const mq_attn_work *w) {
    const mq_gemm_shape s = over_shape(&w->tile, w->shape->head_dim);
    mq_product(rows, scores, keys_of(k, w), &s, w->bf16);
}

void mq_attn_add_to_keys(float *dk, mq_operand scores, mq_operand rows, const mq_attn_work *w) {
    const size_t d = w->shape->head_dim, stride = w->view.kv_stride;
    const mq_gemm_shape s = to_keys_shape(&w->tile, d, !w->bf16);
    float *sums = dk + w->view.kv + w->tile.first_key * stride;
    mq_product(w->bf16 ? w->product : sums, scores, rows, &s, w->bf16);
    for (size_t key = 0; w->bf16 && key < w->tile.keys; key++) {
        w->kernels->add(sums + key * stride, sums + key * stride, w->product + key * d, d);
    }
}

void mq_attn_finish_row(float *rows, mq_bf16 *rows16, size_t i, mq_attn_span seen,
                        const mq_attn_work *w) {
    float *row = rows + i * w->tile.ld;
    const size_t hidden = w->tile.keys - seen.end;
    if (w->bf16) {
        mq_bf16 *row16 = rows16 + i * w->tile.ld;
        memset(row16, 0, seen.begin * sizeof *row16);
        w->kernels->to_bf16(row16 + seen.begin, row + seen.begin, seen.end - seen.begin);
        memset(row16 + seen.end, 0, hidden * sizeof *row16);
    } else {
        memset(row, 0, seen.begin * sizeof *row);
        memset(row + seen.end, 0, hidden * sizeof *row);
    }
}

void mq_attn_take_queries(const float *q, const mq_attn_work *w) {
    const size_t count = w->tile.rows * w->shape->head_dim;
    mq_attn_take_rows(w->q, q, w);
    if (w->bf16) {
        w->kernels->scale(w->q, w->shape->scale, count);
        w->kernels->to_bf16(w->q16, w->q, count);
    }
}
