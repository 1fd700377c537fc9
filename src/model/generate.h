/* Text sampled from a model itself, for calibration when there is none (--calib self). */
#ifndef MQ_MODEL_GENERATE_H
#define MQ_MODEL_GENERATE_H

#include "base/random.h"
#include "model/block.h"

/* ids[sequences, length]: each sequence begins with first_id (a beginning-of-sequence token) or,
 * when that is negative, a token drawn uniformly from the vocabulary, and goes on by sampling from
 * the model's own distribution at `temperature` (data-free calibration as in LLM-QAT, Liu et al.
 * 2023). Sequences run in batches with a cache of keys and values; ends of text do not stop a
 * sequence. Deterministic for a seed. */
mq_status mq_generate(int32_t *ids, const mq_model *model, size_t sequences, size_t length,
                      int32_t first_id, double temperature, uint64_t seed,
                      const mq_context *context, mq_error *err);

/* Bytes that mq_generate allocates meanwhile: the whole model in float32 and each worker's cache.
 * SIZE_MAX when a size overflows. */
size_t mq_generate_memory(const mq_model *model, size_t sequences, size_t length);

#endif
