/* What a block keeps between forward and backward, and what its files share. T tokens at most, H
 * hidden_size, I intermediate_size, Q = num_attention_heads·head_dim, K =
 * num_key_value_heads·head_dim. */
#ifndef MQ_MODEL_ACTIVATIONS_H
#define MQ_MODEL_ACTIVATIONS_H

#include "model/block.h"
#include "model/kernels.h"
#include "model/ops.h"
#include "tensor/panels.h"

struct mq_activations {
    size_t max_tokens;
    mq_passes f32, bf16;

    float *attn_in; /* [T, H]: normed, input of q, k, v; of float32 passes, like ffn_in and act */
    float *q_raw,
        *k_raw; /* [T, Q], [T, K]: before their norm; the same as q, k where nothing needs them */
    float *q, *k, *v;  /* [T, Q], [T, K], [T, K]: what attention gets */
    float *attn, *lse; /* [T, Q]: its output, input of o; [T, heads] */
    float *o;          /* [T, H]: output of o; NULL where no norm follows */
    float *h;      /* [T, H]: residual stream after attention; NULL without backward (y holds it) */
    float *ffn_in; /* [T, H]: normed, input of gate and up */
    float *act;    /* [T, I] */
    float *gate, *up; /* [T, I]: of float32 passes with backward, then their gradients; else NULL */
    float *down;      /* [T, H]; NULL where no norm follows */
    float *inv_rms[MQ_NORM_COUNT]; /* [T, mq_config_norm_rows] */

    /* With backward only: gradients of the above. */
    float *d_down, *d_o; /* [T, H]; NULL where the output is added as it is: they are dy and d_h
                            then */
    float *d_h, *d_attn; /* [T, H], [T, Q] */
    float *d_q, *d_k,
        *d_v; /* [T, Q], [T, K], [T, K]: by attention's input, then by the linear's output */
    float *norm_sums[MQ_NORM_COUNT]; /* [mq_rmsnorm_chunks(T), n]: dweight of each chunk */

    /* What is not kept, mq_block_pass.slab_*, and, never in use at the same time, attention's, and,
     * with a bfloat16 backward, [threads, piece_floats]: pieces of weight gradients to be taken. */
    float *scratch;
    size_t piece_floats;

    /* Of products of bfloat16 operands; NULL where there is no such backend. In panels
     * (tensor/panels.h), T the tokens of the call then. */
    mq_products products;
    mq_bf16 *input_bf16[MQ_LINEAR_COUNT]; /* [T, in]; q, k, v share theirs, and gate and up */
    mq_bf16 *d_bf16[MQ_LINEAR_COUNT];     /* [T, out]: with backward only */
    /* [T, I]: what backward is told of gate and up, which is half of what it has to read, and to
     * keep; their gradients are rounded, too. With backward only. */
    mq_bf16 *gate_bf16, *up_bf16;
    mq_bf16 *packed[MQ_LINEAR_COUNT]; /* the weights, for forward or for backward */
    /* Of weight gradients: gradients once more, [out, T], and inputs packed, shared as above. */
    mq_bf16 *d_turned[MQ_LINEAR_COUNT], *input_packed[MQ_LINEAR_COUNT];
    float *tiles;    /* [threads, MQ_BLOCK_TILE]: a panel of a result or two */
    float *rounding; /* [threads, MQ_ROW_CHUNK, rounding_width]: rows until they are rounded */
    size_t rounding_width;
    mq_bf16 *k_bf16, *v_bf16; /* [T, K]: by mq_attention_round_keys */
    mq_attention_bf16 attention;
};

/* One call of mq_block_forward or mq_block_backward. */
typedef struct mq_block_pass {
    const mq_kernels *kernels;
    const mq_config *config;
    const mq_block_weights *weights;
    const mq_products *bf16; /* NULL: the operands of all products are float32 */
    bool alone;              /* one thread has these tokens to itself: mq_block_in_runs */
    /* Of the slab or run of tokens at hand (S), not kept. */
    float *slab_hidden; /* [S, H]: output of o or down; gradient of a norm's output */
    float *slab_ffn[2]; /* [S, I]: gate and up if they are not kept; gradient of act (the first) */
    const mq_block_shape *shape;
    mq_activations *activations;
    const float *x;
    float *y;        /* forward */
    const float *dy; /* backward */
    const mq_block_grads *grads;
    const mq_context *context;
    /* Backward: gradient by the output of each linear, [tokens, out]. */
    float *d_linear[MQ_LINEAR_COUNT];
    /* Backward: whether a wanted gradient needs that by attention's output, and by the input norm's
     * output. */
    bool through_ffn, through_o, through_attention, through_input;
} mq_block_pass;

static inline size_t mq_block_tokens(const mq_block_pass *pass) {
    return pass->shape->sequences * pass->shape->length;
}

/* Backward: whether the gradient by the linear's input is wanted. */
bool mq_block_passes_on(const mq_block_pass *pass, mq_linear linear);

/* Tokens [first, first + count) of those from `slab` on, which are worked on together: a slab, or a
 * run that one thread has to itself. */
typedef struct mq_rows {
    size_t first, count, slab;
} mq_rows;

/* The number of tokens in a slab, the part of a block's tokens that products are computed for at
 * once: all tokens, or enough that the products are as fast as for all. Intermediate results
 * between two products that are not kept are in scratch arrays of this many tokens. */
size_t mq_block_slab(const mq_config *config, size_t tokens);

/* Rows of a bfloat16 product. One thread takes so many tokens through all that a part of a block
 * does with them, products and what lies between, while its cache holds them, if the model is so
 * small that it does. */
#define MQ_RUN_ROWS 128
bool mq_block_in_runs(const mq_config *config);

static inline bool mq_block_pass_in_runs(const mq_block_pass *pass) {
    return pass->bf16 != NULL && mq_block_in_runs(pass->config);
}

/* Floats of mq_block_pass.slab_* for a slab or run of so many tokens, and where they are. bf16: of
 * a pass with such products, which has no slab_ffn. */
size_t mq_block_slab_floats(const mq_config *config, size_t tokens, bool bf16);
void mq_block_place_slab(mq_block_pass *pass, float *scratch, size_t tokens);

/* The tiles in which threads compute c[rows, columns] of a float32 product. The tiles at the right
 * and lower edges may be smaller. They do not depend on the number of threads, since a library may
 * round products of another shape differently. */
typedef struct mq_tiles {
    size_t rows, columns; /* of one */
    size_t down, across;  /* their number */
} mq_tiles;

/* together: the columns of all products that are made at the same time. */
mq_tiles mq_block_tiles(size_t rows, size_t columns, size_t together);

mq_attention_shape mq_block_attention_shape(const mq_config *config, const mq_block_shape *shape);

/* mq_block_pass.bf16: NULL where the weights are not bfloat16 ones. */
const mq_products *mq_block_bf16(const mq_block_weights *weights,
                                 const mq_activations *activations);

/* work on all rows of a slab, MQ_ROW_CHUNK at a time by all threads, or by this one if it is alone.
 */
void mq_block_for_rows(void (*work)(const mq_block_pass *, const mq_rows *),
                       const mq_block_pass *pass, const mq_rows *slab);

/* Where a slab's rows are in the arrays that products read and write, whole or scratch: a linear's
 * output y[rows, out], and the gradient by its input, dx[rows, in]. */
float *mq_block_output(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows);
float *mq_block_input_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows);
/* The same in pass->d_linear, the gradient by its output. */
const float *mq_block_gradient_rows(const mq_block_pass *pass, mq_linear linear,
                                    const mq_rows *rows);

/* Linears whose products are made together: they have the same input. */
typedef struct mq_together {
    mq_linear linears[3];
    size_t count;
} mq_together;
extern const mq_together mq_block_qkv, mq_block_o, mq_block_gate_up, mq_block_down;

/* y = x·wᵀ + bias of a group of linears, for a slab of tokens by all threads, or for a run by this
 * one. */
void mq_block_linears(const mq_block_pass *pass, const mq_together *group, const mq_rows *slab);
/* dx = Σ dy·w over the group; dy is pass->d_linear. */
void mq_block_linears_backward(const mq_block_pass *pass, const mq_together *group,
                               const mq_rows *slab);
/* How a product's operand is made, MQ_ROW_CHUNK rows at most, so that rounding finds them in cache:
 *   float *x = mq_block_input_rows(pass, linear, rows);
 *   ... x is filled with the linear's input, those rows ...
 *   mq_block_round_input(pass, linear, rows, x);
 * In float32, x is the place in the activations and rounding does nothing. */
float *mq_block_input_rows(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows);
/* This thread's room for MQ_ROW_CHUNK rows that are about to be rounded. */
float *mq_block_rounding_rows(const mq_activations *activations);
void mq_block_round_input(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                          const float *x);
/* Rounds d, the rows of the gradient by a linear's output, which in float32 are in pass->d_linear.
 */
void mq_block_round_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                             const float *d);
/* The same of panel j of any number of rows, d[rows, its width]. */
void mq_block_round_gradient_panel(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                                   size_t j, const float *d);

/* A linear's weight gradient over all tokens is made in so many pieces. Of bfloat16 they are rows,
 * which grads->take gets at once where there is one. */
size_t mq_block_pieces(const mq_block_pass *pass, mq_linear linear);
void mq_block_weight_gradient(const mq_block_pass *pass, mq_linear linear, size_t piece);

/* --- products of bfloat16 (block_products_bf16.c) --------------------------------------------- */

/* Floats of a thread's tiles: two results of MQ_RUN_ROWS rows, or a piece of a weight gradient. */
#define MQ_BLOCK_TILE (2 * MQ_RUN_ROWS * MQ_PANEL)

/* Numbers of mq_activations.packed and input_packed; gemm has been through mq_block_prepare for
 * these tokens. */
size_t mq_block_packed_size(const mq_gemm_bf16 *gemm, const mq_config *config, mq_linear linear,
                            bool backward);
size_t mq_block_packed_input_size(const mq_gemm_bf16 *gemm, const mq_config *config,
                                  mq_linear linear, size_t tokens);
/* Floats of the largest piece of a weight gradient. */
size_t mq_block_piece_floats(const mq_config *config);
/* Columns of an input that are unpacked and squared at a time; panels are a multiple. */
#define MQ_GRAM_COLUMNS MQ_PANEL_STEP
/* Rows of each piece, but the last, of a weight gradient or Gram matrix of so many rows. */
size_t mq_block_piece_rows(size_t rows);

/* A linear's input [tokens, in] as the b of dw = dyᵀ·x. */
mq_panelled mq_block_input_panelled(const mq_config *config, mq_linear linear, size_t tokens);
/* This thread's tiles. */
float *mq_block_own_tiles(const mq_activations *activations);

/* Packs the weights for the products that a forward or a backward makes of them. */
void mq_block_pack_weights(const mq_block_pass *pass);
/* Packs the inputs whose layers' gradients are wanted. */
void mq_block_pack_inputs(const mq_block_pass *pass);

/* What mq_block_linears and mq_block_linears_backward are there. */
void mq_block_linears_bf16(const mq_block_pass *pass, const mq_together *group,
                           const mq_rows *slab);
void mq_block_linears_backward_bf16(const mq_block_pass *pass, const mq_together *group,
                                    const mq_rows *slab);
void mq_block_weight_gradient_bf16(const mq_block_pass *pass, mq_linear linear, size_t piece);
size_t mq_block_pieces_bf16(const mq_config *config, mq_linear linear);

/* From the input of gate and up to that of down, and back: gate, up and their gradients are rounded
 * while a cache holds them, and kept nowhere else. */
void mq_block_gated_bf16(const mq_block_pass *pass, const mq_rows *slab);
void mq_block_gated_backward_bf16(const mq_block_pass *pass, const mq_rows *slab);

/* --- norms, and the parts of a block, with products of either kind ---------------------------- */

/* y = n(x) of rows->count tokens; arrays begin at the first of them. y may be x. Where the
 * architecture has no such norm n(x) is x (not of queries and keys, which then need no call). */
void mq_block_norm(float *y, const float *x, const mq_block_pass *pass, mq_norm norm,
                   const mq_rows *rows);
/* Likewise sum = base + n(x); sum may be base. */
void mq_block_norm_add(float *sum, const float *base, const float *x, const mq_block_pass *pass,
                       mq_norm norm, const mq_rows *rows);
/* dx = (base ? base : 0) + the gradient through n at x by dy, of MQ_ROW_CHUNK tokens at most. dx
 * NULL: not wanted; it may be dy or base. The weight's gradient goes into norm_sums where it is
 * wanted. x is not read where there is no norm. */
void mq_block_norm_backward(float *dx, const float *base, const float *dy, const float *x,
                            const mq_block_pass *pass, mq_norm norm, const mq_rows *rows);

/* The parts of a block before and after attention, for a slab of tokens; see block.h for the
 * formulas. */
void mq_block_qkv_forward(const mq_block_pass *pass, const mq_rows *slab);
void mq_block_qkv_backward(const mq_block_pass *pass, const mq_rows *slab);
void mq_block_ffn_forward(const mq_block_pass *pass, const mq_rows *slab);
void mq_block_ffn_backward(const mq_block_pass *pass, const mq_rows *slab);

#endif
