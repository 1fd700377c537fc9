/* The model behind a GGUF file: what llama.cpp can compute of a configuration, and its metadata. */
#ifndef MQ_EXPORT_GGUF_MODEL_H
#define MQ_EXPORT_GGUF_MODEL_H

#include "export/gguf_meta.h"

#define MQ_GGUF_ALIGNMENT 32

/* Architectures by config.json's model_type, that of the language model. */
typedef struct mq_gguf_arch {
    const char *model_type, *name;
    bool interleaved; /* rotates neighbouring rows */
    bool biases;      /* of any linear, as config.json says */
    bool windows;     /* of the layers that config.json names */
    bool scaling;     /* rotary scaling of all kinds that llama.cpp has, not only linear */
    bool factors;     /* llama3's, too: its factors are a tensor that only some loaders ask for */
    size_t no_rope_step; /* every no_rope_step-th layer does not rotate; 0: all do */
    mq_activation activation;
} mq_gguf_arch;

/* plan->own of this format. */
typedef struct mq_gguf {
    const mq_gguf_arch *arch;
    bool is_plain; /* --dtype: every matrix in `dtype` */
    mq_dtype dtype;
    mq_gguf_meta meta; /* made with the plan: a tokenizer may have to be refused */
} mq_gguf;

static inline const mq_gguf_arch *mq_gguf_arch_of(const mq_plan *plan) {
    return ((const mq_gguf *)plan->own)->arch;
}

/* Finds own->arch, and refuses (MQ_ERR_USAGE) what llama.cpp computes in another way. own must be
 * plan->own. */
mq_status mq_gguf_check_model(mq_gguf *own, const mq_plan *plan, mq_error *err);
/* All metadata; after the tensors were planned. */
mq_status mq_gguf_make_meta(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err);

#endif
