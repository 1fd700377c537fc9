/* The parts of the job mq_quantize: checks before the first block, provenance, and the run itself.
 */
#ifndef MQ_STORE_QUANTIZE_H
#define MQ_STORE_QUANTIZE_H

#include "matquant/quantize.h"
#include "quant/run.h"
#include "quant/select.h"
#include "store/master.h"
#include "text/corpus.h"

/* Everything that is known of a job before its first block. */
typedef struct mq_quantize_plan {
    const mq_quantize_options *options;
    const mq_context *context;
    mq_model *model;
    mq_tensors *source;
    mq_selection selection;
    mq_sequences calibration;  /* ids NULL for recipe rtn */
    mq_master_linear *linears; /* [selection.tensors], in the order of the blocks */
    size_t *linear_index;      /* [layers · MQ_LINEAR_COUNT]: position in linears */
    char **ignored;            /* prefixes of linears that stay as they are */
    size_t ignored_count;
    mq_master_layout layout;
    mq_backend backend;
    size_t working_set,
        sampling;  /* bytes: of a block's learner; of --calib self's model and cache */
    size_t memory; /* predicted peak of allocated bytes */
    size_t output_bytes, disk_free;
} mq_quantize_plan;

/* Opens and checks all that can be known: options, paths, model, every weight finite, group sizes,
 * calibration, memory and disk. Nothing is written. The plan is to be freed in every case. */
mq_status mq_quantize_plan_make(mq_quantize_plan *plan, const mq_quantize_options *options,
                                const mq_context *context, mq_error *err);
void mq_quantize_plan_free(mq_quantize_plan *plan);

/* The JSON object of the file matquant.json, without what the master's writer adds. blocks[layers]
 * or NULL. Nothing in it depends on time or place, nor on the number of threads, so that two runs
 * write the same bytes. *out is the caller's. */
mq_status mq_quantize_provenance(cJSON **out, const mq_quantize_plan *plan,
                                 const mq_block_loss *blocks, mq_error *err);

#endif
