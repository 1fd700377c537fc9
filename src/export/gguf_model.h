/* The model behind a GGUF file: what llama.cpp can compute of a configuration, and its metadata. */
#ifndef MQ_EXPORT_GGUF_MODEL_H
#define MQ_EXPORT_GGUF_MODEL_H

#include "export/gguf_meta.h"

#define MQ_GGUF_ALIGNMENT 32

/* Which layers llama.cpp lets see a window of tokens only. */
typedef enum mq_gguf_windows {
    MQ_GGUF_WINDOWS_NONE,
    MQ_GGUF_WINDOWS_GIVEN,   /* those that the file says: all but every n-th, or a list */
    MQ_GGUF_WINDOWS_EVERY_2, /* the first, the third, ... */
    MQ_GGUF_WINDOWS_UNUSED, /* none: the file says how long they are, 0: there are none, but today's
                               llama.cpp leaves them out */
} mq_gguf_windows;

/* Whether it caps attention or logits softly. */
typedef enum mq_gguf_cap {
    MQ_GGUF_CAP_NEVER,
    MQ_GGUF_CAP_GIVEN, /* if the file has the field */
    MQ_GGUF_CAP_ALWAYS,
} mq_gguf_cap;

/* Architectures by config.json's model_type, that of the language model. */
typedef struct mq_gguf_arch {
    const char *model_type, *name;
    bool interleaved; /* rotates neighbouring rows */
    bool biases;      /* of any linear, as config.json says */
    bool scaling;     /* rotary scaling of all kinds that llama.cpp has, not only linear */
    bool factors;     /* llama3's, too: its factors are a tensor that only some loaders ask for */
    bool longrope;    /* its two lists of factors are tensors */
    bool always_tied; /* has no head but the embeddings */
    bool never_tied;  /* wants a tensor for the head */
    bool even_heads;  /* of hidden_size / num_attention_heads, always */
    bool multipliers; /* of embeddings, queries, residuals and logits, as the file says */
    /* What tensors with the rows of several linears are called, by the first of these; NULL: as the
     * linear. */
    const char *fused[MQ_LINEAR_COUNT];
    mq_gguf_windows windows;
    mq_gguf_cap attention_cap, logits_cap;
    size_t largest_layers; /* the model of so many layers scales queries by hidden_size /
                              num_attention_heads, all others by head_dim; 0: there is none */
    size_t no_rope_step;   /* every no_rope_step-th layer does not rotate; 0: all do */
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
/* general.name (gguf_name.c). */
mq_status mq_gguf_put_name(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err);
/* Whether llama.cpp takes from that name that the tokenizer, a tokenizer.json, is Phi-3's; and
 * whether it then drops white space after the special token of this text. */
bool mq_gguf_named_phi3(const mq_plan *plan, const cJSON *tokenizer);
bool mq_gguf_phi3_strips(const char *text);
/* All metadata; after the tensors were planned. */
mq_status mq_gguf_make_meta(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err);

#endif
