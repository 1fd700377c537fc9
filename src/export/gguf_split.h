/* The part of a tokenizer.json that GGUF has names for only. */
#ifndef MQ_EXPORT_GGUF_SPLIT_H
#define MQ_EXPORT_GGUF_SPLIT_H

#include "base/json.h"
#include "export/gguf_meta.h"

/* tokenizer.ggml.model and .pre, from the normalizer and the pre_tokenizer of tokenizer.json.
 * MQ_ERR_USAGE when llama.cpp has none that cuts text the same way; where it does so but for some
 * texts, a warning says for which. */
mq_status mq_gguf_put_split(mq_gguf_meta *meta, const cJSON *tokenizer, bool sentencepiece,
                            const mq_plan *plan, mq_error *err);

/* MQ_ERR_USAGE: "WHAT has no counterpart in GGUF". */
mq_status mq_gguf_refuse_tokenizer(mq_error *err, const char *what);

#endif
