/* The products of head_gradient.c: logits out of normed hidden states, and gradients back to them,
 * for the rows of a chunk of the vocabulary, of float32 or of bfloat16 operands. */
#ifndef MQ_MODEL_HEAD_PRODUCTS_H
#define MQ_MODEL_HEAD_PRODUCTS_H

#include "base/context.h"
#include "model/weights.h"
#include "tensor/panels.h"

/* Working memory, for chunks of at most so many rows of the head and slabs of so many tokens. */
typedef struct mq_head_products {
    size_t hidden_size, chunk_rows, slab;
    float *normed;        /* [2·slab, hidden_size] */
    float *rows;          /* [threads, chunk_rows, hidden_size] */
    mq_products products; /* without gemm: float32 alone; else besides, in panels: */
    size_t chunk_rows_bf16;
    mq_bf16 *normed_bf16; /* [2·slab, hidden_size] */
    mq_bf16 *rows_bf16;   /* [threads, chunk_rows_bf16, hidden_size], not in panels */
    mq_bf16 *d_logits;    /* [threads, slab, chunk_rows_bf16] */
    mq_bf16 *packed;      /* [threads, packed_size]: rows for one product or the other */
    size_t packed_size;
} mq_head_products;

/* Makes gemm ready for slabs of `tokens` tokens and chunks of `rows` rows. */
mq_status mq_head_products_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                                   size_t rows, mq_error *err);

/* gemm NULL: for float32 alone; else it has been through mq_head_products_prepare for full slabs
 * and chunks, and outlives the result. */
mq_head_products mq_head_products_carve(mq_slab *slab, const mq_config *config, size_t tokens,
                                        size_t chunk_rows, size_t chunk_rows_bf16,
                                        const mq_gemm_bf16 *gemm, const mq_context *context);

/* Rows [first, first + count) of a model's head, in the calling thread's own memory, where the last
 * ones were, or where the model has them as they are wanted. */
typedef struct mq_head_rows {
    const float *f32;
    const mq_bf16 *bf16;
    size_t count;
} mq_head_rows;

mq_status mq_head_rows_read(mq_head_rows *out, const mq_head_products *m, const mq_model *of,
                            size_t first, size_t count, bool bf16, mq_error *err);

/* m->normed[tokens, hidden_size] is there: for products of bfloat16. */
void mq_head_round_normed(const mq_head_products *m, size_t tokens);

/* logits[tokens, count] = normed·rowsᵀ for tokens [first, first + tokens) of the `normed` that
 * there are. */
typedef struct mq_head_run {
    float *logits;
    size_t normed, first, tokens;
    /* Is given logits[tokens, count] of some tokens from `first` on as soon as they are made, while
     * the cache has them; each token's once. */
    void (*take)(void *user, float *logits, size_t first, size_t tokens);
    void *user;
} mq_head_run;

void mq_head_rows_logits(const mq_head_run *of, const mq_head_products *m, const mq_head_rows *rows,
                         bool bf16);

/* d_normed[tokens, hidden_size], with bf16 in panels, (+)= d_logits[tokens, count]·rows */
void mq_head_rows_gradient(float *d_normed, const mq_head_products *m, const float *d_logits,
                           size_t tokens, const mq_head_rows *rows, bool begins, bool bf16);

/* y[rows, columns] of x, which is in panels. */
void mq_head_from_panels(float *y, const float *x, size_t rows, size_t columns);

#endif
