/* Distillation at the head: the divergence of a model's next-token distributions from a
 * reference's, and its gradient by the hidden states and the final norm. */
#ifndef MQ_MODEL_HEAD_GRADIENT_H
#define MQ_MODEL_HEAD_GRADIENT_H

#include "base/alloc.h"
#include "model/weights.h"
#include "tensor/gemm_bf16.h"

/* Working memory, carved from the caller's slab: the logits of both sides for a slab of tokens, and
 * what sums over the vocabulary need. The struct itself is carved too: while measuring, NULL. */
typedef struct mq_head_gradient mq_head_gradient;

/* With a gemm of bfloat16 operands, which outlives it, was made for the context's threads, and has
 * been through mq_head_gradient_prepare for max_tokens: room for its operands too. The context
 * outlives it, too. */
mq_head_gradient *mq_head_gradient_carve(mq_slab *slab, const mq_config *config, size_t max_tokens,
                                         const mq_gemm_bf16 *gemm, const mq_context *context);

/* Makes every product of mq_head_kl_gradient with so many tokens ready. */
mq_status mq_head_gradient_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                                   mq_error *err);

typedef struct mq_head_kl {
    mq_head_side model;     /* where both have the same head, with the reference's model, whose rows
                               are read once for both */
    mq_head_side reference; /* with its own final norm */
    const float *norm;      /* [hidden_size]: multiplier of the model's final norm */
    size_t count;           /* tokens, at most max_tokens */
    float weight;
    bool bf16; /* products of the carving's gemm, which was prepared for this count */

    float *kl;       /* [count]: KL(reference ‖ model) of each token, nats */
    float *d_hidden; /* [count, hidden_size]: gradient of weight·Σ kl by model.hidden; NULL: none
                        is wanted */
    float *d_norm;   /* [hidden_size]: … by norm; NULL with d_hidden */
} mq_head_kl;

/* Fills in kl and, unless they are NULL, d_hidden and d_norm. With bf16 normed hidden states, the
 * head's rows and the gradients of the logits are rounded to bfloat16, and a logit is off by about
 * 1e-3 of the largest. The results do not depend on the number of threads. */
mq_status mq_head_kl_gradient(const mq_head_kl *of, mq_head_gradient *memory, mq_error *err);

#endif
