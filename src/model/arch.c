#include "model/arch.h"

#include <string.h>

static const char *const llama_fields[] = {
    "hidden_act", "activation", /* stands beside it in Falcon 3's files: "swiglu" */
    "mlp_bias",   "is_llama_config", NULL,
};

#define GEMMA3_FIELDS                                                                              \
    "hidden_activation", "query_pre_attn_scalar", "sliding_window", "sliding_window_pattern",      \
        "_sliding_window_pattern", "rope_local_base_freq", "attn_logit_softcapping"

static const char *const gemma3_fields[] = {GEMMA3_FIELDS, "final_logit_softcapping", NULL};

/* With images: transformers 5 does not cap the logits then, whatever the field says. */
static const char *const gemma3_part_fields[] = {GEMMA3_FIELDS, NULL};

/* Of images nothing is read here: the language model computes the same of text without them. */
static const char *const gemma3_fields_beside[] = {
    "text_config",
    "vision_config",
    "mm_tokens_per_image",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
    "vocab_size", /* mlx-lm reads it here */
    NULL,
};

/* transformers 5 has a module less than 4 had, and writes the rest as published. */
static const char *const gemma3_prefixes[] = {"vision_tower.vision_model.", "vision_tower.",
                                              "multi_modal_projector.", NULL};

static const char *const gemma3_module_prefixes[] = {"model.vision_tower.", "model.vision_tower.",
                                                     "model.multi_modal_projector.", NULL};

/* Of these and of SmolLM3: use_sliding_window is false (config_fields.c), and then sliding_window
 * has no influence. */
static const char *const qwen_fields[] = {"hidden_act", "sliding_window", NULL};

static const char *const gemma2_fields[] = {
    "hidden_activation",
    "hidden_act", /* stands beside it in published files */
    "query_pre_attn_scalar",
    "sliding_window",
    "sliding_window_size", /* the same, in the first files; read by nothing */
    "attn_logit_softcapping",
    "final_logit_softcapping",
    NULL,
};

static const char *const mistral_fields[] = {"hidden_act", "sliding_window", NULL};

static const char *const smollm3_fields[] = {
    "hidden_act", "mlp_bias", "sliding_window", "no_rope_layers", "no_rope_layer_interval", NULL,
};

static const char *const olmo2_fields[] = {"hidden_act", NULL};

static const char *const granite_fields[] = {
    "hidden_act",
    "mlp_bias",
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
    NULL,
};

/* Dropout is training's. */
static const char *const phi3_fields[] = {
    "hidden_act",
    "mlp_bias",
    "sliding_window",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "embd_pdrop",
    "resid_pdrop",
    NULL,
};

#define LINEAR_NAMES                                                                               \
    {                                                                                              \
        [MQ_Q] = "self_attn.q_proj", [MQ_K] = "self_attn.k_proj", [MQ_V] = "self_attn.v_proj",     \
        [MQ_O] = "self_attn.o_proj", [MQ_GATE] = "mlp.gate_proj", [MQ_UP] = "mlp.up_proj",         \
        [MQ_DOWN] = "mlp.down_proj",                                                               \
    }

/* The names of a language model below `prefix`, its head below `head_prefix`. */
#define LAYOUT(prefix, head_prefix, parts)                                                         \
    {                                                                                              \
        .block_prefix = prefix "layers.%zu.", .embedding = prefix "embed_tokens.weight",           \
        .final_norm = prefix "norm.weight", .head = head_prefix "lm_head.weight",                  \
        .other_parts = (parts),                                                                    \
    }

/* What most families share. */
#define PLAIN_NAMES .layouts = {LAYOUT("model.", "", NULL)}, .linear = LINEAR_NAMES

#define LLAMA_NORMS                                                                                \
    [MQ_NORM_INPUT] = "input_layernorm", [MQ_NORM_PRE_FFN] = "post_attention_layernorm"
#define HEAD_NORMS [MQ_NORM_Q] = "self_attn.q_norm", [MQ_NORM_K] = "self_attn.k_norm"

#define GEMMA_NORMS                                                                                \
    [MQ_NORM_INPUT] = "input_layernorm", [MQ_NORM_POST_ATTN] = "post_attention_layernorm",         \
    [MQ_NORM_PRE_FFN] = "pre_feedforward_layernorm",                                               \
    [MQ_NORM_POST_FFN] = "post_feedforward_layernorm"

/* What Gemma 2 and 3 share. */
#define GEMMA                                                                                      \
    .activation_field = "hidden_activation", .norm_plus_one = true, .scale_embeddings = true,      \
    .query_pre_attn_scalar = true, .attention_bias = true, .windows = MQ_WINDOWS_SOME,             \
    .default_tie_word_embeddings = true, .default_activation = MQ_GELU_TANH,                       \
    .default_rms_norm_eps = 1e-6, .default_query_pre_attn_scalar = 256.0,                          \
    .default_num_attention_heads = 8, .default_head_dim = 256, .default_num_key_value_heads = 4,   \
    .default_sliding_window = 4096

/* Gemma 3's language model, by itself or in a model with images. */
#define GEMMA3                                                                                     \
    GEMMA, .norm = {GEMMA_NORMS, HEAD_NORMS}, .float16_fault = "overflow on", .local_rope = true,  \
           .default_rope_theta = 1000000.0, .default_rope_local_base_freq = 10000.0,               \
           .default_max_position_embeddings = 131072, .default_vocab_size = 262208,                \
           .default_sliding_window_pattern = 6

/* Defaults are those of transformers' configuration classes. */
static const mq_arch table[] = {
    {
        .architecture = "LlamaForCausalLM",
        .model_type = "llama",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS},
        .fields = llama_fields,
        .activation_field = "hidden_act",
        .activation_beside = "activation",
        .attention_bias = true,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 2048,
    },
    {
        .architecture = "Gemma3ForCausalLM",
        .model_type = "gemma3_text",
        PLAIN_NAMES,
        .fields = gemma3_fields,
        GEMMA3,
    },
    {
        .architecture = "Gemma3ForConditionalGeneration",
        .model_type = "gemma3",
        .text_field = "text_config",
        .text_model_type = "gemma3_text",
        .fields_beside = gemma3_fields_beside,
        .layouts =
            {
                [MQ_LAYOUT_PUBLISHED] =
                    LAYOUT("language_model.model.", "language_model.", gemma3_prefixes),
                [MQ_LAYOUT_MODULES] = LAYOUT("model.language_model.", "", gemma3_module_prefixes),
            },
        .linear = LINEAR_NAMES,
        .fields = gemma3_part_fields,
        GEMMA3,
    },
    {
        .architecture = "Gemma2ForCausalLM",
        .model_type = "gemma2",
        PLAIN_NAMES,
        GEMMA,
        .norm = {GEMMA_NORMS},
        .fields = gemma2_fields,
        .activation_beside = "hidden_act",
        /* As is reported: 27B does, 9B does not. */
        .float16_fault = "may overflow on",
        .default_rope_theta = 10000.0,
        .default_max_position_embeddings = 8192,
        .default_vocab_size = 256000,
        .default_sliding_window_pattern = 2,
        .default_attn_logit_softcapping = 50.0,
        .default_final_logit_softcapping = 30.0,
    },
    {
        .architecture = "Qwen2ForCausalLM",
        .model_type = "qwen2",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS},
        .fields = qwen_fields,
        .activation_field = "hidden_act",
        .qkv_bias = true,
        .windows = MQ_WINDOWS_REFUSED,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 32768,
        .default_num_key_value_heads = 32,
    },
    {
        .architecture = "Qwen3ForCausalLM",
        .model_type = "qwen3",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS, HEAD_NORMS},
        .fields = qwen_fields,
        .activation_field = "hidden_act",
        .attention_bias = true,
        .windows = MQ_WINDOWS_REFUSED,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 32768,
        .default_head_dim = 128,
        .default_num_key_value_heads = 32,
    },
    {
        .architecture = "MistralForCausalLM",
        .model_type = "mistral",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS},
        .fields = mistral_fields,
        .activation_field = "hidden_act",
        .windows = MQ_WINDOWS_ALL,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 131072,
        .default_num_key_value_heads = 8,
        .default_sliding_window = 4096,
    },
    {
        .architecture = "SmolLM3ForCausalLM",
        .model_type = "smollm3",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS},
        .fields = smollm3_fields,
        .activation_field = "hidden_act",
        .no_rope = true,
        .attention_bias = true,
        .windows = MQ_WINDOWS_REFUSED,
        .default_tie_word_embeddings = true,
        .default_activation = MQ_SILU,
        .default_rope_theta = 2000000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 32768,
        .default_num_key_value_heads = 4,
        .default_no_rope_layer_interval = 4,
    },
    {
        .architecture = "GraniteForCausalLM",
        .model_type = "granite",
        PLAIN_NAMES,
        .norm = {LLAMA_NORMS},
        .fields = granite_fields,
        .activation_field = "hidden_act",
        .multipliers = true,
        .attention_bias = true,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-6,
        .default_max_position_embeddings = 2048,
    },
    {
        .architecture = "Olmo2ForCausalLM",
        .model_type = "olmo2",
        PLAIN_NAMES,
        .norm =
            {
                [MQ_NORM_POST_ATTN] = "post_attention_layernorm",
                [MQ_NORM_POST_FFN] = "post_feedforward_layernorm",
                HEAD_NORMS,
            },
        .fields = olmo2_fields,
        .activation_field = "hidden_act",
        .qk_norm_whole = true,
        .attention_bias = true,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-5,
        .default_max_position_embeddings = 2048,
    },
    {
        .architecture = "Phi3ForCausalLM",
        .model_type = "phi3",
        .layouts = {LAYOUT("model.", "", NULL)},
        .linear =
            {
                [MQ_Q] = "self_attn.qkv_proj",
                [MQ_K] = "self_attn.qkv_proj",
                [MQ_V] = "self_attn.qkv_proj",
                [MQ_O] = "self_attn.o_proj",
                [MQ_GATE] = "mlp.gate_up_proj",
                [MQ_UP] = "mlp.gate_up_proj",
                [MQ_DOWN] = "mlp.down_proj",
            },
        .norm = {LLAMA_NORMS},
        .fields = phi3_fields,
        .activation_field = "hidden_act",
        .partial_rotary = true,
        .longrope = true,
        .own_code = "phi3",
        .own_code_owner = "microsoft",
        .windows = MQ_WINDOWS_ALL,
        .default_activation = MQ_SILU,
        .default_rope_theta = 10000.0,
        .default_rms_norm_eps = 1e-5,
        .default_max_position_embeddings = 4096,
        .default_num_attention_heads = 32,
        .default_vocab_size = 32064,
        .default_original_max_position_embeddings = 4096,
    },
};

const mq_arch *mq_arch_table(size_t *count) {
    *count = sizeof table / sizeof table[0];
    return table;
}

const mq_arch *mq_arch_find(const char *architecture) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].architecture, architecture) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

const mq_layout *mq_arch_layout(const mq_arch *arch, mq_layout_kind kind) {
    return arch->layouts[kind].embedding != NULL ? &arch->layouts[kind]
                                                 : &arch->layouts[MQ_LAYOUT_PUBLISHED];
}

const char *mq_arch_text_model_type(const mq_arch *arch) {
    return arch->text_field != NULL ? arch->text_model_type : arch->model_type;
}
