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
};

/* One call of mq_block_forward or mq_block_backward. */
typedef struct mq_block_pass {
    const mq_kernels *kernels;
    const mq_config *config;
    const mq_block_weights *weights;
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
} mq_rows;

/* Tokens of one run: so many that a product of their rows is nearly as fast as one of all (measured
 * with OpenBLAS: 512 rows), and with fewer than 2,048 tokens a quarter of them. It does not depend
 * on the number of threads, since OpenBLAS rounds small products otherwise than large ones. A
 * multiple of MQ_ROW_CHUNK. */
size_t mq_block_run(size_t tokens);

mq_attention_shape mq_block_attention_shape(const mq_config *config, const mq_block_shape *shape);

/* y[rows, out] = x·wᵀ + bias of a linear layer for a run of tokens; x is the run's part of the
 * layer's input among the activations, y begins at the run. */
void mq_block_linear(float *y, const mq_block_pass *pass, mq_linear linear, const mq_rows *rows);
/* dx[rows, in] = beta·dx + dy·w; dy is the run's part of pass->d_linear, dx begins at the run. */
void mq_block_linear_backward(float *dx, const mq_block_pass *pass, mq_linear linear,
                              const mq_rows *rows, float beta);
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
