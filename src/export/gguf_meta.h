/* The metadata of a GGUF file (its specification: docs/gguf.md of ggml, version 3): typed values
 * under keys. */
#ifndef MQ_EXPORT_GGUF_META_H
#define MQ_EXPORT_GGUF_META_H

#include "base/buffer.h"
#include "export/plan.h"

/* Starts as {0}. A lack of memory is remembered in bytes.failed; look once, at the end. */
typedef struct mq_gguf_meta {
    mq_buffer bytes; /* keys and values as they stand in the file; mq_free(bytes.text) */
    uint64_t count;
} mq_gguf_meta;

/* value fits in 32 bits, as all sizes of a config.json do (MQ_MAX_DIMENSION). */
void mq_gguf_u32(mq_gguf_meta *meta, const char *key, size_t value);
void mq_gguf_i32(mq_gguf_meta *meta, const char *key, int32_t value);
void mq_gguf_f32(mq_gguf_meta *meta, const char *key, double value);
void mq_gguf_bool(mq_gguf_meta *meta, const char *key, bool value);
void mq_gguf_string(mq_gguf_meta *meta, const char *key, const char *value);

/* Begins an array of count elements; then as many of the functions below. */
typedef enum mq_gguf_type {
    MQ_GGUF_U32 = 4,
    MQ_GGUF_I32 = 5,
    MQ_GGUF_F32 = 6,
    MQ_GGUF_BOOL = 7,
    MQ_GGUF_STRING = 8
} mq_gguf_type;
void mq_gguf_array(mq_gguf_meta *meta, const char *key, mq_gguf_type type, size_t count);

/* Numbers as they stand in the file, little endian. */
void mq_gguf_put_u32(mq_buffer *buffer, uint32_t value);
void mq_gguf_put_u64(mq_buffer *buffer, uint64_t value);
void mq_gguf_put_f32(mq_buffer *buffer, float value);
void mq_gguf_put_string(mq_buffer *buffer, const char *text, size_t length);

/* Licence, languages and base models, of "model_card" in a slice's provenance; NULL: of none. */
void mq_gguf_put_card(mq_gguf_meta *meta, const cJSON *card);

/* generation_config.json of the master's folder, for cJSON_Delete; NULL: it is not there, or cannot
 * be read, which is warned of. */
mq_status mq_gguf_read_generation(cJSON **out, const mq_plan *plan, mq_error *err);
/* What it says of sampling. */
void mq_gguf_put_sampling(mq_gguf_meta *meta, const cJSON *generation);

/* The tokenizer of the master's folder, and its chat templates; where neither names the token that
 * ends a text, nor config.json does, generation's. MQ_ERR_USAGE for one that GGUF has no name for.
 */
mq_status mq_gguf_put_tokenizer(mq_gguf_meta *meta, const mq_plan *plan, const cJSON *generation,
                                mq_error *err);
/* The chat template in chat_template.jinja of the master's folder; without that file the one, or
 * the several, in `config`, its tokenizer_config.json (NULL: there is none), whose names for them
 * are spelled as in GGUF afterwards. */
mq_status mq_gguf_put_chat(mq_gguf_meta *meta, const mq_plan *plan, cJSON *config, mq_error *err);

#endif
