/* The memory of sampling (generate.c), and one step of it (generate_step.c). */
#ifndef MQ_MODEL_GENERATOR_H
#define MQ_MODEL_GENERATOR_H

#include "base/random.h"
#include "model/generate.h"
#include "model/head_kernels.h"
#include "model/kernels.h"
#include "tensor/product.h"

#define MQ_GENERATOR_SEQUENCES 64 /* of a batch, at most */

/* A matrix [rows, columns] of the model: in float32 or, where there is a gemm, in bfloat16. */
typedef struct mq_generator_matrix {
    float *values;
    mq_bf16 *rounded;
} mq_generator_matrix;

/* Shapes of arrays: B sequences of a batch, L layers, H hidden_size, I intermediate_size, V
 * vocab_size, Q and K num_attention_heads and num_key_value_heads times head_dim. */
typedef struct mq_generator {
    const mq_model *model;
    mq_products products;                            /* without a gemm: of float32 */
    size_t length, batch, threads;                   /* B: of the largest batch */
    mq_block_params *params;                         /* [L]; biases and norms */
    mq_generator_matrix (*linears)[MQ_LINEAR_COUNT]; /* [L] */
    mq_generator_matrix head;                        /* [V, H] */
    float *final_norm;                               /* [H] */
    mq_rotations rotations;
    /* [L, B, num_key_value_heads, head_dim, length] and [.., length, head_dim]: as the products of
     * a few queries read them without packing. */
    float *keys, *values;
    float *x, *normed, *projected; /* [B, H] */
    float *inv_rms;                /* [B, num_attention_heads] */
    float *q, *k, *v, *attended;   /* [B, Q], [B, K], [B, K], [B, Q] */
    float *gate, *up;              /* [B, I] */
    float *scores;                 /* [threads, heads a key head, length] */
    float *logits;                 /* [B, V] */
    float *chunk_sums;             /* [B, mq_generator_chunks(config)] */
    mq_bf16 *operand;              /* with a gemm: [B, H, I or Q], what a product reads */
    float *reading; /* with a gemm: MQ_GENERATOR_ROWS rows of a matrix that is read */
    mq_random random[MQ_GENERATOR_SEQUENCES];
    int32_t tokens[MQ_GENERATOR_SEQUENCES];
    const mq_kernels *kernels;
    const mq_head_kernels *head_kernels;
    mq_slab memory;
} mq_generator;

#define MQ_GENERATOR_ROWS 64
#define MQ_GENERATOR_CHUNK 4096 /* logits whose exponentials are summed in one go */

static inline size_t mq_generator_chunks(const mq_config *config) {
    return (config->vocab_size + MQ_GENERATOR_CHUNK - 1) / MQ_GENERATOR_CHUNK;
}

/* Allocates, and reads the model. Freed by mq_generator_close if it went well. */
mq_status mq_generator_open(mq_generator *g, const mq_generate_setup *setup, mq_error *err);
void mq_generator_close(mq_generator *g);

/* Makes gemm ready for the products of so many sequences. */
mq_status mq_generator_prepare_step(mq_gemm_bf16 *gemm, const mq_config *config, size_t rows,
                                    mq_error *err);

/* tokens[rows], one of each sequence at `position`: into the cache and, if they are wanted,
 * logits[rows, vocab_size] of what follows. */
mq_status mq_generator_step(mq_generator *g, size_t position, size_t rows, bool want_logits,
                            mq_error *err);

#endif
