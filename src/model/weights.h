/* Where a model's float32 weights come from: a plain checkpoint here; a master at a width, or a
 * slice, in src/store/. Everything that runs a model reads through this interface, so that all of
 * these run the same code. */
#ifndef MQ_MODEL_WEIGHTS_H
#define MQ_MODEL_WEIGHTS_H

#include "matquant/mixture.h"
#include "model/config.h"
#include "tensor/bf16.h"
#include "tensor/safetensors.h"

typedef struct mq_weights mq_weights;

typedef struct mq_weights_class {
    bool (*has)(const mq_weights *self, const char *name);
    /* Logical shape (of the dequantized tensor), dims 1 (rows = 1) or 2. */
    mq_status (*shape)(size_t *rows, size_t *columns, const mq_weights *self, const char *name,
                       mq_error *err);
    /* Rows [first, first + count) as float32 into out[count, columns]. Several threads may read at
     * once. */
    mq_status (*read)(float *out, const mq_weights *self, const char *name, size_t first,
                      size_t count, mq_error *err);
    /* For messages: the path of the file that holds it, or would have to name it. */
    const char *(*where)(const mq_weights *self, const char *name);
    void (*free)(mq_weights *self);
    /* Row `first` and those behind it where they lie, of a tensor that is stored as bfloat16; NULL:
     * it is not. Unlike read, it does not look for NaN and infinities. The member may be NULL. */
    const mq_bf16 *(*stored_bf16)(const mq_weights *self, const char *name, size_t first);
} mq_weights_class;

struct mq_weights { /* first member of every implementation */
    const mq_weights_class *class_;
};

/* A plain checkpoint. tensors must outlive it. */
mq_status mq_plain_weights(mq_weights **out, const mq_tensors *tensors, mq_error *err);
void mq_weights_free(mq_weights *weights); /* NULL allowed */

/* A model that can be run: configuration and weights. Owns both (and keep, released with
 * release_keep). */
typedef struct mq_model {
    mq_config config;
    mq_weights *weights;
    char *folder;           /* for messages */
    unsigned width;         /* of a master's or a slice's weights; 0: they are plain */
    mq_width_counts widths; /* of its quantized layers */
    void *keep;             /* what weights read from, such as mq_tensors */
    void (*release_keep)(void *keep);
} mq_model;

/* A plain (not quantized) checkpoint folder; "quantization_config" in its config.json is
 * MQ_ERR_INPUT (already quantized, by what). Every tensor that the configuration needs must be
 * there with the right shape and a weight's dtype: MQ_ERR_INPUT naming it otherwise. */
mq_status mq_model_open_plain(mq_model **out, const char *folder, mq_error *err);
void mq_model_free(mq_model *model);
/* The check that the above makes, for other openers: shapes of all tensors against the
 * configuration; no block, bias or head beside those that it names (a head beside tied embeddings
 * must equal them). */
mq_status mq_model_check(const mq_model *model, mq_error *err);
/* As much of it as can be told without reading a weight: all but that a head equals embeddings. */
mq_status mq_model_check_shapes(const mq_model *model, mq_error *err);
/* The same of a plain checkpoint, under a configuration that has its layout. */
mq_status mq_plain_check_shapes(const mq_config *config, const mq_tensors *tensors, mq_error *err);

/* norm[size]: the multiplier of a norm, 1 + weight where the architecture has it so. */
mq_status mq_model_norm(float *norm, const mq_model *model, const char *name, size_t size,
                        mq_error *err);

/* hidden[count, hidden_size] of token ids, scaled where the architecture does. */
mq_status mq_model_embed(float *hidden, const mq_model *model, const int32_t *ids, size_t count,
                         mq_error *err);

/* --- the head: final norm and logits, never [tokens, vocab_size] at once ---------------------- */

/* A model and the output of its last block. */
typedef struct mq_head_side {
    const mq_model *model;
    const float *hidden; /* [count, hidden_size] */
} mq_head_side;

/* Of next-token distributions, [count] each; NULL: not wanted. The last two compare a model's with
 * a reference's. */
typedef struct mq_head_scores {
    float *nll;              /* -log p(target), in natural units */
    int32_t *top;            /* the id of the largest logit, the lowest on a tie */
    float *kl;               /* KL(reference ‖ model) in nats */
    unsigned char *same_top; /* 1 when both have the largest logit at the same id */
} mq_head_scores;

/* Works through the vocabulary in slabs of rows with a running log-sum-exp; working memory is
 * bounded by mq_head_memory(config, count). targets[count] are read for nll only. reference, of the
 * same vocab_size, is read for kl and same_top; NULL where these are. */
mq_status mq_head_score(const mq_head_scores *out, const mq_head_side *model,
                        const mq_head_side *reference, const int32_t *targets, size_t count,
                        const mq_context *context, mq_error *err);
/* Bytes that scoring count tokens of one or two models holds at most. */
size_t mq_head_memory(const mq_config *config, size_t count);

/* Full logits[count, vocab_size], for tests and tests/tools/logits.c. */
mq_status mq_head_logits(float *logits, const mq_model *model, const float *hidden, size_t count,
                         const mq_context *context, mq_error *err);

#endif
