/* One transformer block: forward, and backward for everything trainable.
 *
 * With n_i the norms that the architecture has and residual stream x [tokens, hidden_size]:
 *   q = rope(n_q(Q·n_input(x)))   k = rope(n_k(K·n_input(x)))   v = V·n_input(x)
 *   h = x + n_post_attn(r·O·attention(q, k, v))
 *   y = h + n_post_ffn(r·DOWN·(act(GATE·n_pre_ffn(h)) ⊙ UP·n_pre_ffn(h)))
 * where r is residual_multiplier, of families that have no such norms, and rope changes nothing in
 * layers that do not rotate; tokens = sequences · length; attention is causal within each sequence,
 * positions 0 … length-1. */
#ifndef MQ_MODEL_BLOCK_H
#define MQ_MODEL_BLOCK_H

#include "base/context.h"
#include "model/packed.h"
#include "model/weights.h"
#include "tensor/gemm_bf16.h"

/* Pointers to arrays that the caller owns. All products, the linear layers' and attention's, are of
 * float32 operands, or, if linear_bf16 has all of the weights, of bfloat16 ones (gemm_bf16.h):
 * those, and activations, probabilities and gradients rounded when they are made, and what backward
 * is told of gate and up. Everything else, the sums inside a product and what comes out of it, is
 * float32 in either case. */
typedef struct mq_block_weights {
    const float *linear[MQ_LINEAR_COUNT];        /* [out, in]; not read if there is linear_bf16 */
    const mq_bf16 *linear_bf16[MQ_LINEAR_COUNT]; /* [out, in]; all of them or none (NULL) */
    const float *bias[MQ_LINEAR_COUNT];          /* [out]; NULL: none */
    const float *norm[MQ_NORM_COUNT]; /* the multiplier itself (1 + weight where norm_plus_one);
                                         NULL: none */
} mq_block_weights;

/* Where gradients go; NULL: not wanted, and then not computed. They are overwritten, not added to.
 */
typedef struct mq_block_grads {
    float *linear[MQ_LINEAR_COUNT];
    float *norm[MQ_NORM_COUNT];
    float *input; /* [tokens, hidden_size] */
    /* Not NULL: is called for every row of every wanted linear, once, by several threads at a time,
     * as soon as its gradient is there and while it is in the cache: dw[count, in] of rows [first,
     * first + count). What `linear` points at is then only room for it; with bfloat16 operands it
     * is not even that, and says only that the gradient is wanted. */
    void (*take)(void *user, mq_linear linear, size_t first, size_t count, const float *dw);
    void *user;
} mq_block_grads;

/* Of linears that share an input, the one that it is called by, which comes before the others. */
static inline mq_linear mq_block_input_owner(mq_linear linear) {
    return linear == MQ_K || linear == MQ_V ? MQ_Q : linear == MQ_UP ? MQ_GATE : linear;
}

typedef struct mq_block_shape {
    const mq_config *config;
    size_t layer;                       /* decides window and rotary table */
    size_t sequences, length;           /* tokens = sequences · length */
    const float *cos_table, *sin_table; /* [length, rotary_dim/2] of this layer's rotation; NULL: it
                                           has none */
    /* NULL: sequences of equal length. Otherwise the tokens are its rows: sequences 1, length rows,
     * and the tables have its longest sequence's positions. Forward only. */
    const mq_packed *packed;
} mq_block_shape;

/* The rotary tables of positions [0, length), by mq_rotation. NULL: no layer has this one, or it is
 * MQ_ROTATION_NONE. */
typedef struct mq_rotations {
    float *cos_table[MQ_ROTATION_COUNT], *sin_table[MQ_ROTATION_COUNT]; /* [length, rotary_dim/2] */
} mq_rotations;

void mq_rotations_carve(mq_rotations *rotations, mq_slab *slab, const mq_config *config,
                        size_t length);
/* After carving on the real slab, with the same length. */
void mq_rotations_fill(const mq_rotations *rotations, const mq_config *config, size_t length);

/* A layer's shape, with the tables that it rotates by, for sequences of equal length. */
mq_block_shape mq_block_shape_of(const mq_config *config, size_t layer,
                                 const mq_rotations *rotations, size_t sequences, size_t length);

/* Everything the block keeps between forward and backward, and its scratch; carved from one slab.
 */
typedef struct mq_activations mq_activations;

typedef enum mq_passes {
    MQ_PASS_NONE,
    MQ_PASS_FORWARD,
    MQ_PASS_BACKWARD /* and forward */
} mq_passes;

/* What activations are for. */
typedef struct mq_activations_use {
    const mq_config *config;
    size_t sequences, length; /* the most of a call */
    mq_passes f32, bf16;      /* by the kind of products: which passes there are */
    /* Of bf16: stays the caller's, outlives the activations, and has been through mq_block_prepare
     * for each number of sequences, and each length, that they will be used with, and for the most
     * before this is called, with a backward if bf16 has. */
    const mq_gemm_bf16 *gemm;
} mq_activations_use;

/* The struct itself is carved too: while measuring (slab->base NULL) the result is NULL. */
mq_activations *mq_activations_carve(mq_slab *slab, const mq_activations_use *use,
                                     const mq_context *context);

/* More for another block at the same time, with backward: what is kept between forward and backward
 * is its own, gradients and scratch are those of `first`, which was carved for the same use. While
 * measuring, first is NULL. */
mq_activations *mq_activations_carve_beside(mq_slab *slab, const mq_activations *first,
                                            const mq_activations_use *use,
                                            const mq_context *context);

/* Rows of the largest products that a thread makes at a time, for blocks of so many tokens. */
size_t mq_block_tile_rows(size_t tokens, bool bf16);

/* Makes gemm ready for the products of a block of config's with so many sequences of so many tokens
 * (attention's have shapes by that), forward and, if wanted, backward. */
mq_status mq_block_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t sequences,
                           size_t length, bool backward, mq_error *err);

/* y[tokens, hidden_size] of x[tokens, hidden_size]; y may be x itself only if no backward follows.
 * x must stay unchanged until mq_block_backward. */
void mq_block_forward(float *y, const float *x, const mq_block_weights *weights,
                      const mq_block_shape *shape, mq_activations *activations,
                      const mq_context *context);

/* Gradients for dy[tokens, hidden_size], after mq_block_forward with the same arguments. dy is
 * overwritten as scratch. Skips each product that no wanted gradient needs (with input == NULL the
 * products that only lead there, too). */
void mq_block_backward(mq_block_grads *grads, float *dy, const float *x,
                       const mq_block_weights *weights, const mq_block_shape *shape,
                       mq_activations *activations, const mq_context *context);

/* After a forward in float32: the input [tokens, in] of a linear layer. */
const float *mq_activations_input(const mq_activations *activations, mq_linear linear);

/* After a forward with these arguments, of a linear's input x[tokens, in]: squares[in] += Σ x², and
 * matrix[in, in] += xᵀ·x, the upper triangle alone, unless it is NULL. Linears that share an input
 * have the same. With bfloat16 operands x is what the products read, rounded, and activations have
 * been carved with a backward, whose room is used. The same sums for any number of threads. */
void mq_block_gram_add(double *squares, float *matrix, mq_linear linear,
                       const mq_block_weights *weights, const mq_block_shape *shape,
                       mq_activations *activations, const mq_context *context);

/* --- a block's parameters in memory ----------------------------------------------------------- */

typedef struct mq_block_params {
    float *linear[MQ_LINEAR_COUNT], *bias[MQ_LINEAR_COUNT], *norm[MQ_NORM_COUNT];
    mq_bf16 *rounded[MQ_LINEAR_COUNT]; /* [out, in]: as products of bfloat16 operands want it; NULL:
                                          there is no room for it */
} mq_block_params;

/* Sets up the struct, without room for rounded weights. */
void mq_block_params_carve(mq_block_params *out, mq_slab *slab, const mq_config *config);
/* The same but for the linears' weights, which are NULL. */
void mq_block_params_carve_rest(mq_block_params *out, mq_slab *slab, const mq_config *config);
/* After either: room for the rounded weights of the linears that are wanted (NULL: of all). */
void mq_block_params_carve_rounded(mq_block_params *params, mq_slab *slab, const mq_config *config,
                                   const bool wanted[MQ_LINEAR_COUNT]);
/* Reads layer's parameters through model->weights; norms with 1 added where the architecture says
 * so. */
mq_status mq_block_params_load(mq_block_params *params, const mq_model *model, size_t layer,
                               mq_error *err);
/* The same but for the weights of some linears, which the caller fills in. */
mq_status mq_block_params_load_rest(mq_block_params *params, const mq_model *model, size_t layer,
                                    const bool skip_weight[MQ_LINEAR_COUNT], mq_error *err);
/* Rounds the weights of each linear that has room for it, but of those to skip (NULL: none). */
void mq_block_params_round(const mq_block_params *params, const mq_config *config,
                           const bool skip[MQ_LINEAR_COUNT]);
/* For products of float32 operands. */
mq_block_weights mq_block_params_view(const mq_block_params *params);
/* For products of bfloat16 ones, of the rounded weights; where there is room for none of these, the
 * same as mq_block_params_view. */
mq_block_weights mq_block_params_view_bf16(const mq_block_params *params);

/* --- a whole model, block by block ------------------------------------------------------------ */

/* Sequences of one length for a whole model, and how they pass through it. What it points at stays
 * the caller's. */
typedef struct mq_forward_run {
    const mq_model *model;
    const int32_t *ids; /* [sequences, length]: token ids */
    size_t sequences, length;
    size_t batch; /* sequences that pass a block at once; 0: one */
    /* For products of bfloat16 operands, and then it has been through mq_model_forward_prepare with
     * this run; NULL: float32. */
    const mq_gemm_bf16 *gemm;
    const char *phase; /* what progress is reported as, unit "block" */
} mq_forward_run;

/* hidden[sequences·length, hidden_size] of the last block, holding one block's weights at a time:
 * all sequences pass block after block. */
mq_status mq_model_forward(float *hidden, const mq_forward_run *run, const mq_context *context,
                           mq_error *err);
/* Makes gemm ready for the run, whatever run->gemm is; ids and phase are not read. */
mq_status mq_model_forward_prepare(mq_gemm_bf16 *gemm, const mq_forward_run *run, mq_error *err);
/* Bytes that mq_model_forward takes; ids and phase are not read. */
size_t mq_model_forward_memory(const mq_forward_run *run, const mq_context *context);

#endif
