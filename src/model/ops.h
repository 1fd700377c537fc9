/* The operations of a block that threads share, forward and backward; what one thread does by
 * itself is in kernels.h. All arrays float32, row-major; threads through OpenMP; results do not
 * depend on the number of threads. */
#ifndef MQ_MODEL_OPS_H
#define MQ_MODEL_OPS_H

#include <stddef.h>

#include "base/context.h"
#include "tensor/product.h"

/* RMSNorm (Zhang & Sennrich 2019): y[rows, n] = x · inv_rms · weight[n], inv_rms[rows] =
 * 1/sqrt(mean(x²) + eps). */
void mq_rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *weight, size_t rows,
                        size_t n, float eps);
/* dx[rows, n] = (accumulate ? dx : 0) + …, NULL: not wanted; dweight[n] overwritten, NULL: not
 * wanted. scratch[chunks·n] with chunks = mq_rmsnorm_chunks(rows). dx may be dy. */
void mq_rmsnorm_backward(float *dx, float *dweight, const float *dy, const float *x,
                         const float *inv_rms, const float *weight, size_t rows, size_t n,
                         bool accumulate, float *scratch);
size_t mq_rmsnorm_chunks(size_t rows);

/* Causal attention with grouped queries, in tiles: out[tokens, heads, head_dim] and, kept for
 * backward, lse[tokens, heads], the log-sum-exp of each row. window > 0: a token sees itself and
 * the window - 1 tokens before it. softcap > 0: scores = softcap·tanh(scores/softcap). */
typedef struct mq_attention_shape {
    size_t sequences, length, heads, kv_heads, head_dim, window;
    float scale, softcap;
} mq_attention_shape;

/* The first position that the token at `position` sees, of a window as above. */
static inline size_t mq_first_visible(size_t position, size_t window) {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
}

/* Tokens whose queries, of all heads that share keys and values, are a tile; of a packed batch,
 * whose tiles are of one head, MQ_ATTENTION_TILE. */
size_t mq_attention_tile(const mq_attention_shape *shape);
#define MQ_ATTENTION_TILE 128
/* Floats between rows of a tile of scores; of the shape, length and window count. */
size_t mq_attention_score_stride(const mq_attention_shape *shape);
/* Floats: two tiles of scores a thread, [queries of a tile, keys that a tile can see], and two of
 * queries; for backward also dk and dv, several times where there are few heads of keys. Enough for
 * fewer sequences of the same length, and for shorter ones, too. */
size_t mq_attention_scratch(const mq_attention_shape *shape, bool backward,
                            const mq_context *context);
/* What products of bfloat16 operands take: queries, keys, values, the softmax's result and
 * gradients are rounded; sums, the softmax and what comes out are float32. */
typedef struct mq_attention_bf16 {
    mq_products products; /* their gemm has been through mq_attention_prepare; NULL: float32 */
    mq_bf16 *scratch;     /* [threads, mq_attention_bf16_scratch] */
    float *product;       /* [threads, mq_attention_bf16_product] */
} mq_attention_bf16;

/* Makes gemm ready for a shape; the number of sequences does not count. */
mq_status mq_attention_prepare(mq_gemm_bf16 *gemm, const mq_attention_shape *shape, bool backward,
                               mq_error *err);
/* Elements for one thread, of the largest shape. */
size_t mq_attention_bf16_scratch(const mq_attention_shape *shape);
size_t mq_attention_bf16_product(const mq_attention_shape *shape);
/* to[sequences, kv_heads, length, head_dim]: tokens [first, first + count) of k, which is as k or
 * v. */
void mq_attention_round_keys(mq_bf16 *to, const float *k, size_t first, size_t count,
                             const mq_attention_shape *shape);

/* bfloat16, for products of it, is what mq_attention_round_keys has made of all tokens. */
typedef struct mq_attention_inputs {
    const float *q;  /* [tokens, heads, head_dim] */
    mq_operand k, v; /* [tokens, kv_heads, head_dim] */
} mq_attention_inputs;

/* What a backward reads besides: of the forward, and the gradient by out. */
typedef struct mq_attention_kept {
    const float *out, *lse, *dout; /* [tokens, heads, head_dim], [tokens, heads], as out */
} mq_attention_kept;

/* Gradients by the inputs, of their shapes; overwritten. */
typedef struct mq_attention_grads {
    float *dq, *dk, *dv;
} mq_attention_grads;

typedef struct mq_attention_run {
    const mq_attention_shape *shape;
    float *scratch;                /* [mq_attention_scratch] */
    const mq_attention_bf16 *bf16; /* NULL, or without a gemm: products of float32 */
    const mq_context *context;
} mq_attention_run;

void mq_attention_forward(float *out, float *lse, const mq_attention_inputs *in,
                          const mq_attention_run *run);
/* The same for the sequences of a packed batch (packed.h), arrays over its rows, without lse, of
 * float32; shape->sequences and shape->length do not count. Scratch for one sequence of as many
 * tokens as the batch has rows. */
struct mq_packed;
void mq_attention_forward_packed(float *out, const mq_attention_inputs *in,
                                 const struct mq_packed *packed, const mq_attention_run *run);
/* Scores are computed again from lse (Dao et al. 2022, FlashAttention). A gradient that is NULL is
 * not wanted. */
void mq_attention_backward(const mq_attention_grads *grads, const mq_attention_kept *kept,
                           const mq_attention_inputs *in, const mq_attention_run *run);

#endif
