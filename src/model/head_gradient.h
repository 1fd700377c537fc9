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
 * been through mq_head_gradient_prepare for max_tokens: room for its operands too. */
mq_head_gradient *mq_head_gradient_carve(mq_slab *slab, const mq_config *config, size_t max_tokens,
                                         const mq_gemm_bf16 *gemm, const mq_context *context);

/* Makes every product of mq_head_kl_gradient with a count of max_tokens ready. */
mq_status mq_head_gradient_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t max_tokens,
                                   mq_error *err);

/* For the output of the last block, hidden[count, hidden_size] of a model and
 * reference_hidden[count, hidden_size] of `reference` (each with its own final norm:
 * norm[hidden_size] is the model's multiplier; where both have the same head, model is
 * `reference`, and its rows are read once for both):
 *
 *   kl[count]                       KL(reference ‖ model) of each token, nats
 *   d_hidden[count, hidden_size]    gradient of weight·Σ kl by hidden
 *   d_norm[hidden_size]             … by norm
 *
 * count is at most max_tokens, context not NULL and that of the carving. gemm: NULL for products in
 * float32, else that of the carving, and count is the number of tokens it was prepared for: normed
 * hidden states, the head's rows and the gradients of the logits are then rounded to bfloat16, and
 * a logit is off by about 1e-3 of the largest. The results do not depend on the number of threads.
 */
mq_status mq_head_kl_gradient(float *kl, float *d_hidden, float *d_norm, const mq_model *model,
                              const mq_model *reference, const float *reference_hidden,
                              const float *norm, const float *hidden, size_t count, float weight,
                              const mq_gemm_bf16 *gemm, mq_head_gradient *memory,
                              const mq_context *context, mq_error *err);

#endif
