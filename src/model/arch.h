/* The architecture table: everything that tells one family of decoder-only transformers from
 * another is a column of this table, and all families run through the same code. */
#ifndef MQ_MODEL_ARCH_H
#define MQ_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>

/* The quantizable linear layers of a block, in the order in which the file format and all loops
 * name them. */
typedef enum mq_linear {
    MQ_Q,
    MQ_K,
    MQ_V,
    MQ_O,
    MQ_GATE,
    MQ_UP,
    MQ_DOWN,
    MQ_LINEAR_COUNT
} mq_linear;

typedef enum mq_norm {
    MQ_NORM_INPUT,     /* before attention */
    MQ_NORM_POST_ATTN, /* on attention's output, before it is added (Gemma, OLMo 2) */
    MQ_NORM_PRE_FFN, /* before the feed-forward part (Llama calls this one post_attention_layernorm)
                      */
    MQ_NORM_POST_FFN, /* on its output, before it is added (Gemma, OLMo 2) */
    MQ_NORM_Q,        /* per head, [head_dim], or of all heads at once (qk_norm_whole) */
    MQ_NORM_K,
    MQ_NORM_COUNT
} mq_norm;

/* Layers that see a window of tokens only. */
typedef enum mq_windows {
    MQ_WINDOWS_NONE,    /* the family has none */
    MQ_WINDOWS_REFUSED, /* it may have some; only those without are supported */
    MQ_WINDOWS_SOME,    /* as layer_types, sliding_window_pattern or the family's own say */
    MQ_WINDOWS_ALL,     /* every layer, unless sliding_window is null */
} mq_windows;

typedef enum mq_activation { MQ_SILU, MQ_GELU_TANH } mq_activation;

/* What a checkpoint's tensors are called, or their names begin with. */
typedef struct mq_layout {
    const char *block_prefix;                  /* with one %zu: "model.layers.%zu." */
    const char *embedding, *final_norm, *head; /* full tensor names with ".weight" */
    const char *const *other_parts; /* NULL-terminated: what the names of tensors begin with that
                                       are the model's, but not its language model's; the first
                                       that fits. As many in every layout; NULL: none */
} mq_layout;

/* The layouts that a family's checkpoints may have; their tensors show which
 * (mq_config_find_layout). */
typedef enum mq_layout_kind {
    MQ_LAYOUT_PUBLISHED, /* as its makers publish them; mlx-lm's modules have these names */
    MQ_LAYOUT_MODULES,   /* the names of transformers' modules */
    MQ_LAYOUT_COUNT
} mq_layout_kind;

typedef struct mq_arch {
    const char *architecture;    /* config.json "architectures"[0] */
    const char *model_type;      /* config.json "model_type" */
    const char *text_field;      /* the member of config.json that describes the language model:
                                    "text_config"; NULL: config.json does */
    const char *text_model_type; /* "model_type" in there */
    const char *const *fields_beside;   /* NULL-terminated: of config.json, where text_field */
    mq_layout layouts[MQ_LAYOUT_COUNT]; /* one without names is the first (mq_arch_layout) */
    /* "self_attn.q_proj", ...: tensor = prefix + this + ".weight". Linears of one name are the rows
     * of one tensor (mq_config_linear_place): they follow each other in mq_linear, have the same
     * inputs, and no biases. */
    const char *linear[MQ_LINEAR_COUNT];
    const char *norm[MQ_NORM_COUNT]; /* "input_layernorm", ...; NULL: the family has none */
    const char *const *fields;    /* NULL-terminated: the fields that this family reads beyond those
                                     that every family has (config_fields.c) */
    const char *activation_field; /* "hidden_act", ... */
    const char *activation_beside; /* a field that may stand beside it and is not read, but has to
                                      say the same; NULL: none */
    bool qk_norm_whole;            /* queries are normed over all heads at once, and keys */
    bool norm_plus_one;            /* the norm multiplies by 1 + weight */
    bool scale_embeddings;         /* by sqrt(hidden_size), in float32 */
    bool query_pre_attn_scalar;    /* attention scale from that field instead of head_dim */
    bool multipliers;     /* embedding_multiplier, attention_multiplier (the attention scale
                             itself), residual_multiplier and logits_scaling; absent: 1 */
    bool local_rope;      /* layers with a window rotate by a base of their own */
    bool no_rope;         /* some layers do not rotate, as no_rope_layers says */
    bool partial_rotary;  /* only a part of each head may rotate: partial_rotary_factor */
    bool longrope;        /* rotary scaling is longrope, if there is any */
    const char *own_code; /* auto_map may name Python files modeling_THIS and configuration_THIS:
                             what makers published before transformers had the family; NULL: none */
    const char *own_code_owner; /* of the repositories that the files are in, where own_code */
    const char *float16_fault;  /* "overflow on": what programs that compute in float16 do on its
                                   models; NULL: nothing of the kind is known */
    bool attention_bias;        /* the field says whether q, k, v and o have a bias */
    bool qkv_bias;              /* q, k and v have one, whatever the file says */
    mq_windows windows;
    bool default_tie_word_embeddings;
    mq_activation default_activation;
    double default_rope_theta, default_rms_norm_eps;
    double default_rope_local_base_freq; /* where local_rope */
    double default_query_pre_attn_scalar;
    double default_attn_logit_softcapping, default_final_logit_softcapping; /* 0: none */
    size_t default_max_position_embeddings;
    size_t default_num_attention_heads, default_vocab_size; /* 0: config.json must say */
    size_t default_head_dim;            /* 0: hidden_size / num_attention_heads */
    size_t default_num_key_value_heads; /* 0: num_attention_heads */
    size_t default_sliding_window, default_sliding_window_pattern;
    size_t default_no_rope_layer_interval;           /* where no_rope */
    size_t default_original_max_position_embeddings; /* where longrope */
} mq_arch;

/* The rows; *count of them. */
const mq_arch *mq_arch_table(size_t *count);
const mq_arch *mq_arch_find(const char *architecture); /* NULL: unknown */

const mq_layout *mq_arch_layout(const mq_arch *arch, mq_layout_kind kind);
/* "model_type" of the language model alone. */
const char *mq_arch_text_model_type(const mq_arch *arch);

#endif
