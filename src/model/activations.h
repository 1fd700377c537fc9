/* What a block keeps between forward and backward, and what its files share. T tokens at most, H
 * hidden_size, I intermediate_size, Q = num_attention_heads·head_dim, K =
 * num_key_value_heads·head_dim. */
#ifndef MQ_MODEL_ACTIVATIONS_H
#define MQ_MODEL_ACTIVATIONS_H

#include "model/block.h"
#include "model/kernels.h"
#include "model/ops.h"

struct mq_activations {
    size_t max_tokens;
    bool backward;

    float *attn_in; /* [T, H]: normed, input of q, k, v */
    float *q_raw,
        *k_raw; /* [T, Q], [T, K]: before their norm; the same as q, k where nothing needs them */
    float *q, *k, *v;  /* [T, Q], [T, K], [T, K]: what attention gets */
    float *attn, *lse; /* [T, Q]: its output, input of o; [T, heads] */
    float *o;          /* [T, H]: output of o; NULL where no norm follows */
    float *h;      /* [T, H]: residual stream after attention; NULL without backward (y holds it) */
    float *ffn_in; /* [T, H]: normed, input of gate and up */
    float *gate, *up,
        *act;    /* [T, I]; gate and up NULL without backward; then they are their gradients */
    float *down; /* [T, H]; NULL where no norm follows */
    float *inv_rms[MQ_NORM_COUNT]; /* [T], or [T, heads] */

    /* With backward only: gradients of the above. */
    float *d_down, *d_o; /* [T, H]; NULL where no norm follows: they are dy and d_h then */
    float *d_h, *d_attn; /* [T, H], [T, Q] */
    float *d_q, *d_k,
        *d_v; /* [T, Q], [T, K], [T, K]: by attention's input, then by the linear's output */
    float *norm_sums[MQ_NORM_COUNT]; /* [mq_rmsnorm_chunks(T), n]: dweight of each run of tokens */

    float *scratch;        /* [threads, thread_scratch], or attention's */
    size_t thread_scratch; /* floats */
    size_t rounding_at;    /* where in it the rows for rounding begin: [MQ_ROUND_ROWS, H or I] */

    /* Of products of bfloat16 operands; NULL where there is no such backend. */
    const mq_gemm_bf16 *gemm;
    mq_bf16 *input_bf16[MQ_LINEAR_COUNT]; /* [T, in]; q, k, v share theirs, and gate and up */
    mq_bf16 *d_bf16[MQ_LINEAR_COUNT];     /* [T, out]: with backward only */
    unsigned char *gemm_scratch;          /* [threads, gemm_scratch_size] */
    size_t gemm_scratch_size;
};

/* One call of mq_block_forward or mq_block_backward. */
typedef struct mq_block_pass {
    const mq_kernels *kernels;
    const mq_config *config;
    const mq_block_weights *weights;
    bool bf16; /* the operands of the linear layers' products */
    const mq_block_shape *shape;
    mq_activations *activations;
    const float *x;
    float *y;        /* forward */
    const float *dy; /* backward */
    const mq_block_grads *grads;
    /* Backward: gradient by the output of each linear, [tokens, out]. */
    float *d_linear[MQ_LINEAR_COUNT];
    /* Backward: whether a wanted gradient needs that by attention's output, and by the input norm's
     * output. */
    bool through_ffn, through_o, through_attention, through_input;
} mq_block_pass;

/* A run of tokens that one thread works on, with its scratch. Begins at a multiple of MQ_ROW_CHUNK.
 */
typedef struct mq_rows {
    size_t first, count;
    float *scratch;
    float *rounding; /* part of scratch: see mq_block_input_rows */
} mq_rows;

mq_attention_shape mq_block_attention_shape(const mq_config *config, const mq_block_shape *shape);

/* Whether the weights are bfloat16 ones. */
bool mq_block_is_bf16(const mq_block_weights *weights, const mq_activations *activations);

/* y[rows, out] = x·wᵀ + bias of a linear layer for a run of tokens; x is the run's part of the
 * layer's input among the activations, y begins at the run. */
void mq_block_linear(float *y, const mq_block_pass *pass, mq_linear linear, const mq_rows *rows);
/* dx[rows, in] = dy·w; dy is the run's part of pass->d_linear, dx begins at the run. Those of k, v
 * and up are added to what q's and gate's left there. */
void mq_block_linear_backward(float *dx, const mq_block_pass *pass, mq_linear linear,
                              const mq_rows *rows);
/* How a product's operand is made, a few rows at a time, so that rounding finds them in cache:
 *   float *x = mq_block_input_rows(pass, linear, rows, r);     room for MQ_ROUND_ROWS rows
 *   ... x is filled with the linear's input, rows r ... r + n of the run ...
 *   mq_block_round_input(pass, linear, rows, r, n, x);
 * In float32, x is the place in the activations and rounding does nothing. */
#define MQ_ROUND_ROWS 32
float *mq_block_input_rows(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                           size_t r);
void mq_block_round_input(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                          size_t r, size_t n, const float *x);
/* Rounds rows r ... r + n of the run of pass->d_linear, the gradient by a linear's output. */
void mq_block_round_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                             size_t r, size_t n);

/* A linear's weight gradient over all tokens is made in so many pieces, cut along the longer side.
 */
size_t mq_block_pieces(const mq_config *config, mq_linear linear);
void mq_block_weight_gradient(const mq_block_pass *pass, mq_linear linear, size_t piece);

/* kernels->rmsnorm_backward for a run of tokens with `heads` rows of n each; arrays begin at the
 * run. The weight's gradient goes into norm_sums where it is wanted. */
void mq_block_norm_backward(float *dx, const float *base, const float *dy, const float *x,
                            const mq_block_pass *pass, mq_norm norm, const mq_rows *rows,
                            size_t heads);

/* The parts of a block before and after attention; see block.h for the formulas. */
void mq_block_qkv_forward(const mq_block_pass *pass, const mq_rows *rows);
void mq_block_qkv_backward(const mq_block_pass *pass, const mq_rows *rows);
void mq_block_ffn_forward(const mq_block_pass *pass, const mq_rows *rows);
void mq_block_ffn_backward(const mq_block_pass *pass, const mq_rows *rows);

#endif
