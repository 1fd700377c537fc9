/* Text sampled from a model itself, for calibration when there is none or little. */
#ifndef MQ_MODEL_GENERATE_H
#define MQ_MODEL_GENERATE_H

#include "base/random.h"
#include "model/block.h"

typedef struct mq_generate_setup {
    const mq_model *model;
    size_t sequences, length;
    size_t given;       /* tokens that each sequence begins with, 1 to length */
    double temperature; /* above 0; 1: the model's own distribution */
    uint64_t seed;
    mq_gemm_bf16 *gemm; /* been through mq_generate_prepare; NULL: float32 products */
} mq_generate_setup;

/* Makes setup's gemm, if it has one, ready for all products of sampling. */
mq_status mq_generate_prepare(const mq_generate_setup *setup, mq_error *err);

/* Bytes that mq_generate allocates: the whole model, in float32 or, with a gemm, in bfloat16, and
 * the cache of a batch of sequences. SIZE_MAX when a size overflows. */
size_t mq_generate_memory(const mq_generate_setup *setup);

/* The first token of each row of ids[sequences, length]: first_id (a beginning-of-sequence token)
 * or, when that is negative, one drawn uniformly from the vocabulary. MQ_ERR_INPUT: first_id is no
 * token of the model's. */
mq_status mq_generate_first(int32_t *ids, const mq_generate_setup *setup, int32_t first_id,
                            mq_error *err);

/* ids[sequences, length]: each row goes on after the tokens that are given in it by sampling from
 * the model's distribution (data-free calibration as in LLM-QAT, Liu et al. 2023). Sequences run in
 * batches with a cache of keys and values; ends of text do not stop a sequence. Deterministic for a
 * seed and a library of products. MQ_ERR_USAGE: given, temperature; MQ_ERR_INPUT: an id that is
 * none, logits that are no numbers; MQ_ERR_MACHINE, MQ_ERR_INTERRUPTED. */
mq_status mq_generate(int32_t *ids, const mq_generate_setup *setup, const mq_context *context,
                      mq_error *err);

#endif
