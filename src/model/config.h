/* config.json, checked against the architecture table. */
#ifndef MQ_MODEL_CONFIG_H
#define MQ_MODEL_CONFIG_H

#include "base/json.h"
#include "model/arch.h"
#include "tensor/safetensors.h"

typedef enum mq_rope_type {
    MQ_ROPE_NONE, /* config.json "default" or no scaling */
    MQ_ROPE_LINEAR,
    MQ_ROPE_DYNAMIC,
    MQ_ROPE_LLAMA3,
    MQ_ROPE_YARN,
    MQ_ROPE_LONGROPE
} mq_rope_type;

/* One way of rotating queries and keys; fields as in rope_scaling / rope_parameters of config.json.
 */
typedef struct mq_rope {
    mq_rope_type type;
    double rope_theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn, longrope; < 0: not given */
    double mscale, mscale_all_dim;            /* yarn; 0: not given */
    bool truncate;                            /* yarn */
    size_t original_max_position_embeddings;  /* 0: not given */
    /* longrope: what the frequencies are divided by, [factor_count] each, in sequences of up to
     * original_max_position_embeddings tokens and in longer ones. One allocation, short_factor, of
     * the configuration; NULL: another type. */
    double *short_factor, *long_factor;
    size_t factor_count;
} mq_rope;

/* Which way of rotating a layer has. */
typedef enum mq_rotation {
    MQ_ROTATION_GLOBAL, /* by rope[0] */
    MQ_ROTATION_LOCAL,  /* by rope[1]: layers with a window, where the family tells them apart */
    MQ_ROTATION_NONE,   /* queries and keys stay as they are */
    MQ_ROTATION_COUNT
} mq_rotation;

typedef struct mq_config {
    const mq_arch *arch;
    mq_layout_kind layout; /* of the tensors that it is of: mq_config_find_layout; before, the
                              first */
    size_t hidden_size, intermediate_size, num_hidden_layers;
    size_t num_attention_heads, num_key_value_heads, head_dim;
    size_t vocab_size, max_position_embeddings;
    double rms_norm_eps;
    bool tie_word_embeddings, attention_bias, mlp_bias;
    mq_activation activation;
    double attention_scale;      /* 1/sqrt(head_dim), 1/sqrt(query_pre_attn_scalar) or
                                    attention_multiplier */
    double embedding_multiplier; /* of embeddings, in float32: 1, sqrt(hidden_size) or the field */
    double residual_multiplier;  /* of what attention and the feed-forward part add; 1: as it is */
    double logits_scaling;       /* what logits are divided by, before they are capped */
    double attn_logit_softcapping; /* 0: none */
    double final_logit_softcapping;
    size_t sliding_window; /* tokens that a local layer sees, itself included; 0: every layer is
                              global */
    bool *layer_is_local;  /* [num_hidden_layers] */
    size_t unrotated_dim;  /* the last numbers of each head, which no rotation turns */
    mq_rotation *layer_rotation; /* [num_hidden_layers] */
    mq_rope rope[2];             /* by mq_rotation: global layers, local layers */
} mq_config;

/* Reads FOLDER/config.json. MQ_ERR_INPUT: an architecture that the table has not (names the known
 * ones), a field that is neither known to have no influence on the result (ids, dtype,
 * initializer_range, use_cache, ...) nor represented here (by name), a value out of range, a
 * contradiction between fields. "quantization_config"/"quantization" are left to the caller. Both
 * spellings of rotary settings are read: rope_theta + rope_scaling (+ rope_local_base_freq), and
 * transformers 5's rope_parameters (flat, or one per layer type); where both are there, they must
 * say the same. Of a model with other parts (arch->text_field) the language model's member is read
 * like the config.json of such a model by itself; the parts' own members are not. */
mq_status mq_config_read(mq_config *out, const char *folder, mq_error *err);
/* The same of a model that is not quantized: MQ_ERR_INPUT for either of the two fields. */
mq_status mq_config_read_plain(mq_config *out, const char *folder, mq_error *err);
mq_status mq_config_parse(mq_config *out, const cJSON *json, const char *file, mq_error *err);
void mq_config_free(mq_config *config);

/* Whether two configurations are of the same computation, however their files spell it and their
 * tensors are called. */
bool mq_config_same(const mq_config *a, const mq_config *b);

/* Chooses the layout whose final norm, which nothing quantizes, is among the tensors; the first
 * where none is. */
void mq_config_find_layout(mq_config *config, const mq_tensors *tensors);
static inline const mq_layout *mq_config_layout(const mq_config *config) {
    return mq_arch_layout(config->arch, config->layout);
}

/* The tensor that the model's head is: the embeddings where config.json ties them. */
static inline const char *mq_config_head(const mq_config *config) {
    const mq_layout *layout = mq_config_layout(config);
    return config->tie_word_embeddings ? layout->embedding : layout->head;
}

/* Whether a tensor, or a layer's prefix, is a head that the model does not use: one that stands
 * beside embeddings which are its head. */
bool mq_config_is_unused_head(const mq_config *config, const char *name);
/* The names, in any layout, of that head's tensor, which a checkpoint need not have: into
 * names[MQ_LAYOUT_COUNT + 1], NULL-terminated. None: it must. Returns names. */
const char *const *mq_config_unused_heads(const char *names[MQ_LAYOUT_COUNT + 1],
                                          const mq_config *config);

/* Whether the language model has a tensor of that name. It need not use it: see above. */
bool mq_config_has_tensor(const mq_config *config, const char *name);
/* Whether the name is of another part of the model: a vision tower. */
bool mq_config_is_of_other_part(const mq_config *config, const char *name);

/* n, if every n-th layer is global and all others are local: 1 if all are global, more than there
 * are layers if none is. 0: no number says which. */
size_t mq_config_window_pattern(const mq_config *config);

/* Whether heads have another size than their share of hidden_size. */
static inline bool mq_config_has_own_head_dim(const mq_config *config) {
    return config->head_dim * config->num_attention_heads != config->hidden_size;
}

/* Rows and columns of a linear layer's weight [out, in]. */
void mq_config_linear_shape(size_t *out, size_t *in, const mq_config *config, mq_linear linear);
bool mq_config_has_bias(const mq_config *config, mq_linear linear);
size_t mq_config_norm_size(const mq_config *config,
                           mq_norm norm); /* 0: the architecture has none */
/* How many runs of that size a token has: its heads, each normed by itself, or 1. */
size_t mq_config_norm_rows(const mq_config *config, mq_norm norm);

/* Where a linear is stored: from row `first` on of a tensor of so many rows, that of its name. A
 * family whose table gives several linears one name has them in one tensor, one below another in
 * the order of mq_linear. Groups run along a row, and every row is quantized by itself: so what
 * computes and learns knows linears alone, and what stores, selects, names and exports knows
 * tensors alone, with the source's names. Here is where the two meet. */
typedef struct mq_linear_place {
    size_t first, rows;
} mq_linear_place;

/* A loop over tensors takes the linears with first 0: each tensor has one. */
mq_linear_place mq_config_linear_place(const mq_config *config, mq_linear linear);

/* Tensor names. Written into name[size], cut never (MQ_NAME_SIZE is enough for every row of the
 * table). */
#define MQ_NAME_SIZE 160
/* Of the tensor that has the linear's rows; a bias is the linear's own. */
void mq_config_linear_name(char name[MQ_NAME_SIZE], const mq_config *config, size_t layer,
                           mq_linear linear, const char *suffix); /* suffix: "weight" or "bias" */
void mq_config_norm_name(char name[MQ_NAME_SIZE], const mq_config *config, size_t layer,
                         mq_norm norm);

/* What a tensor or layer is called in another layout: in name or, if it is called so already or is
 * none of the model's, `from` itself. */
const char *mq_config_rename(char name[MQ_NAME_SIZE], const mq_config *config, const char *from,
                             mq_layout_kind layout);

/* The numbers of a head that its rotation turns, an even number. */
static inline size_t mq_config_rotary_dim(const mq_config *config) {
    return config->head_dim - config->unrotated_dim;
}

/* Tokens that one of this layer sees, itself and those before it; 0: all. Where layer_is_local is
 * NULL, as in a config made by hand, no layer has a window. */
static inline size_t mq_config_window(const mq_config *config, size_t layer) {
    return config->layer_is_local != NULL && config->layer_is_local[layer] ? config->sliding_window
                                                                           : 0;
}

/* Tokens of the longest sequence that the model is made for and that is computed here. Sequences
 * longer than longrope's original length are not: all their positions would rotate otherwise. */
size_t mq_config_longest(const mq_config *config);
/* MQ_ERR_USAGE: sequences of so many tokens are not computed. Others may still be longer than the
 * model is made for. */
mq_status mq_config_check_length(const mq_config *config, size_t length, mq_error *err);

/* Rotation tables for positions 0 … length-1: cos[length, rotary_dim/2], sin likewise, attention
 * factor multiplied in (transformers: ROPE_INIT_FUNCTIONS). `length`, which mq_config_check_length
 * has passed, matters to dynamic NTK alone. */
void mq_rope_tables(float *cos_table, float *sin_table, const mq_rope *rope,
                    const mq_config *config, size_t length);
/* The attention factor: what cosines and sines are multiplied by. */
double mq_rope_attention_factor(const mq_rope *rope);

#endif
