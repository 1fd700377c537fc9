/* The embedding matrix and the head on the same grid as the linear layers: clips by error search
 * alone (search.h), whatever the recipe; nothing is learned. */
#ifndef MQ_QUANT_EMBEDDING_H
#define MQ_QUANT_EMBEDDING_H

#include "model/weights.h"
#include "quant/grid.h"

/* Takes rows [first, first + quantized->out); in rising order. */
typedef mq_status mq_embedding_rows(void *user, const mq_quantized *quantized, size_t first,
                                    mq_error *err);

/* Bytes that quantizing allocates meanwhile. */
size_t mq_embedding_memory(const mq_quantize_options *options, const mq_config *config,
                           size_t groups);

/* Quantizes the tensor NAME of the model, [vocab_size, hidden_size], a slab of rows after the
 * other. The search weighs the errors of the recipe's widths (of those that embeddings have) by
 * their lambda. MQ_ERR_INPUT when a pair does not fit in float16. */
mq_status mq_embedding_quantize(const mq_quantize_options *options, const mq_model *model,
                                const char *name, size_t groups, mq_embedding_rows *rows,
                                void *user, const mq_context *context, mq_error *err);

#endif
