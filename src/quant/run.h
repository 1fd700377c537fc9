/* Quantizing a whole model, block by block, one block resident at a time. */
#ifndef MQ_QUANT_RUN_H
#define MQ_QUANT_RUN_H

#include "quant/learner.h"

/* Where finished work goes, in the order of the blocks; and where it is taken from if an earlier
 * run has done it. */
typedef struct mq_run_sink {
    void *user;
    /* One linear; quantized is valid during the call. */
    mq_status (*linear)(void *user, size_t layer, mq_linear linear, const mq_quantized *quantized,
                        mq_error *err);
    /* A norm that options->let divided: values[size] are the multipliers (1 + weight where the
     * architecture adds 1), after the block's linears. NULL where options->let is not set. */
    mq_status (*norm)(void *user, size_t layer, mq_norm norm, const float *values, mq_error *err);
    /* A block is done; loss is NULL when nothing was learned. */
    mq_status (*block)(void *user, size_t layer, const mq_block_loss *loss, mq_error *err);
    /* Whether a block was learned before: then it is not learned, but restored, and given to the
     * functions above like the others. NULL: none was. */
    bool (*is_done)(void *user, size_t layer);
    /* What they got of it then: fills codes and pairs of quantized[] (those with groups > 0; the
     * learner's memory), the norm's values (NULL where none was given) and loss. */
    mq_status (*restore)(void *user, const mq_quantized quantized[MQ_LINEAR_COUNT], float *norm,
                         mq_block_loss *loss, size_t layer, mq_error *err);
} mq_run_sink;

typedef struct mq_run_setup {
    const mq_quantize_options *options;
    const mq_model *model;
    const mq_selection *selection;
    const mq_gemm_bf16 *gemm; /* ready for all products (mq_backend); NULL: float32 */
    /* [MQ_MAX_WIDTH + 1], by width: what the student reads its embeddings from; NULL: the model */
    mq_weights *const *embeddings;
    const int32_t *ids; /* [options->samples, options->seq_len]; NULL for recipe rtn */
} mq_run_setup;

/* Bytes of the slab that mq_run allocates: the same carving, measured, for which embeddings and ids
 * do not count. MQ_ERR_USAGE when a size overflows. */
mq_status mq_run_memory(size_t *out, const mq_run_setup *setup, const mq_context *context,
                        mq_error *err);

mq_status mq_run(const mq_run_setup *setup, const mq_run_sink *sink, const mq_context *context,
                 mq_error *err);

#endif
