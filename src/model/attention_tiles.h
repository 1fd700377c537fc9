/* A tile of attention: where its operands are, a thread's scratch for it, and its products in
 * float32 or of bfloat16. What op_attention.c's forward and backward are made of.
 *
 * A tile is the queries of some tokens and of all heads that share keys and values, copied below
 * one another (token after token, the heads of one beside each other): one product of many rows
 * instead of a few small ones, and dk and dv are summed over the heads inside of it. Its scores are
 * against just the keys that one of them sees, so that causality and the window save what they can.
 *
 * With products of bfloat16 a tile's operands are rounded where they are made: queries, which take
 * the scale with them so that it is not lost on the way to dk, rows of scores once they are
 * probabilities, and gradients. */
#ifndef MQ_MODEL_ATTENTION_TILES_H
#define MQ_MODEL_ATTENTION_TILES_H

#include "model/kernels.h"
#include "model/ops.h"

/* Tokens [first, first + tokens), which are `rows` queries, and the keys [first_key, first_key +
 * keys) that they see. */
typedef struct mq_attn_tile {
    size_t first, tokens, rows, first_key, keys;
    size_t ld;         /* elements between rows of scores; with bfloat16 the keys */
    size_t key_stride; /* elements between keys, and between values, as products read them */
} mq_attn_tile;

/* Where one head of keys of one sequence, and the first of its heads of queries, begin, in
 * elements: q and out, k and v, lse. */
typedef struct mq_attn_view {
    size_t q_stride, kv_stride; /* floats between tokens */
    size_t q, kv, lse;
    size_t kv16; /* rounded keys and values, whose tokens follow one another */
} mq_attn_view;

/* What a thread is at, and its scratch. */
typedef struct mq_attn_work {
    const mq_attention_shape *shape;
    const mq_kernels *kernels;
    mq_attn_view view;
    mq_attn_tile tile;

    float *scores, *dp; /* [rows, ld] */
    float *q, *out;     /* [rows, head_dim]: queries; output, or its gradient */
    float *sums;        /* [rows] */

    const mq_products *bf16;  /* NULL: float32. Else the same arrays, rounded: */
    mq_bf16 *scores16, *dp16; /* [rows, ld] */
    mq_bf16 *q16, *out16;     /* [rows, head_dim]; q times scale */
    float *product;           /* [keys, head_dim] */
} mq_attn_work;

/* Heads of queries that share one of keys. */
size_t mq_attn_group(const mq_attention_shape *shape);
/* Tiles of a sequence and a head of keys. */
size_t mq_attn_tile_count(const mq_attention_shape *shape);
/* Floats of one thread's arrays in a run's scratch. */
size_t mq_attn_work_floats(const mq_attention_shape *shape);

/* The calling thread's, for a head of keys counted through all sequences; then for a tile of it. */
mq_attn_work mq_attn_work_on(const mq_attention_run *run, size_t head);
void mq_attn_to_tile(mq_attn_work *w, size_t index);

/* The columns [begin, end) of the tile that its row i sees. */
typedef struct mq_attn_span {
    size_t begin, end;
} mq_attn_span;

mq_attn_span mq_attn_visible(const mq_attn_work *w, size_t i);

/* rows[tile's rows, head_dim] of x, which is as q, and back. */
void mq_attn_take_rows(float *rows, const float *x, const mq_attn_work *w);
void mq_attn_put_rows(float *x, const float *rows, const mq_attn_work *w);
/* A tile's queries into w->q, and rounded into w->q16. */
void mq_attn_take_queries(const float *q, const mq_attn_work *w);
/* Row i of scores, or of their gradient, whose visible part is done, as products read it: 0 where a
 * key is hidden, and rounded. */
void mq_attn_finish_row(float *rows, mq_bf16 *rows16, size_t i, mq_attn_span seen,
                        const mq_attn_work *w);

/* product[rows, keys] = factor · rows[rows, head_dim]·kᵀ of a tile; k as k or v. bfloat16: without
 * factor. */
void mq_attn_against_keys(float *product, mq_operand rows, mq_operand k, float factor,
                          const mq_attn_work *w);
/* rows[rows, head_dim] = scores[rows, keys]·k of a tile; k as k or v. */
void mq_attn_over_keys(float *rows, mq_operand scores, mq_operand k, const mq_attn_work *w);
/* dk[keys, head_dim] += scores[rows, keys]ᵀ · rows[rows, head_dim] of a tile; dk as dk or dv. */
void mq_attn_add_to_keys(float *dk, mq_operand scores, mq_operand rows, const mq_attn_work *w);

#endif
