/* An evaluation in the provenance of the master that was measured. */
#ifndef MQ_EVAL_RECORD_H
#define MQ_EVAL_RECORD_H

#include "matquant/eval.h"

/* What can be known before anything is measured, or opened for it: a text is needed, and the model
 * has to be a master whose matquant.json is there. `master` becomes what tells it from another one
 * that may be in its place when it has been measured (mq_provenance_sha256). */
mq_status mq_record_check(char master[65], const mq_eval_options *options, mq_error *err);

/* Writes results[count] into "evaluations" of the master's matquant.json (matquant/format.h), each
 * in place of an earlier one of the same width on the same windows. The file is written anew beside
 * it and renamed; nothing else in the folder is touched. MQ_ERR_INPUT if the folder holds another
 * `master` by now than mq_record_check saw. */
mq_status mq_record_write(const mq_eval_result *results, size_t count, const char master[65],
                          const mq_eval_options *options, const mq_context *context, mq_error *err);

#endif
