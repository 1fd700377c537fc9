/* Which linear layers of a model are quantized, and in how many groups a row. */
#ifndef MQ_QUANT_SELECT_H
#define MQ_QUANT_SELECT_H

#include "matquant/quantize.h"
#include "model/config.h"

/* groups[layer][linear]: groups a row, or 0: this one is not quantized. */
typedef struct mq_selection {
    size_t layers;
    size_t group_size; /* 0: the whole row; layers that it does not divide use the fallback */
    size_t blocks;     /* up to the last block with anything quantized; the rest are not computed */
    size_t (*groups)[MQ_LINEAR_COUNT]; /* mq_free */
    size_t tensors, weights; /* quantized; linears of one tensor have the same groups, or none */
    size_t embedding_groups; /* per row of embeddings and head; 0: they are not quantized */
} mq_selection;

/* MQ_ERR_USAGE: a pattern is not a regular expression (PCRE2), or nothing is left to quantize.
 * MQ_ERR_INPUT: the group size does not divide the input size of a selected tensor (the message
 * names the tensor, and a group size that would). */
mq_status mq_select(mq_selection *out, const mq_quantize_options *options, const mq_config *config,
                    mq_error *err);
void mq_selection_free(mq_selection *selection);

/* Groups of all linears that are quantized. */
size_t mq_selection_groups(const mq_selection *selection, const mq_config *config);
/* Whether one of the first so many layers has this linear not quantized. */
bool mq_selection_keeps(const mq_selection *selection, size_t layers, int linear);

#endif
