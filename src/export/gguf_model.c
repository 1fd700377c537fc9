#include "export/gguf_model.h"

#include "export/gguf_types.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "export/export.h"

static const mq_gguf_arch arches[] = {
    {.model_type = "llama",
     .name = "llama",
     .interleaved = true,
     .biases = true,
     .scaling = true,
     .factors = true},
    {.model_type = "mistral",
     .name = "llama",
     .interleaved = true,
     .scaling = true,
     .factors = true},
    {.model_type = "gemma3_text",
     .name = "gemma3",
     .windows = MQ_GGUF_WINDOWS_GIVEN,
     .logits_cap = MQ_GGUF_CAP_GIVEN,
     .largest_layers = 62,
     .activation = MQ_GELU_TANH},
    {.model_type = "gemma2",
     .name = "gemma2",
     .scaling = true,
     .always_tied = true,
     .windows = MQ_GGUF_WINDOWS_EVERY_2,
     .attention_cap = MQ_GGUF_CAP_ALWAYS,
     .logits_cap = MQ_GGUF_CAP_ALWAYS,
     .largest_layers = 46,
     .activation = MQ_GELU_TANH},
    {.model_type = "qwen2", .name = "qwen2", .scaling = true, .even_heads = true},
    {.model_type = "qwen3", .name = "qwen3", .scaling = true},
    {.model_type = "smollm3",
     .name = "smollm3",
     .interleaved = true,
     .scaling = true,
     .no_rope_step = 4},
    {.model_type = "granite",
     .name = "granite",
     .interleaved = true,
     .biases = true,
     .scaling = true,
     .factors = true,
     .multipliers = true},
    {.model_type = "olmo2",
     .name = "olmo2",
     .scaling = true,
     .never_tied = true,
     .even_heads = true},
    {.model_type = "phi3",
     .name = "phi3",
     .longrope = true,
     .even_heads = true,
     .fused = {[MQ_Q] = "attn_qkv", [MQ_GATE] = "ffn_up"},
     .windows = MQ_GGUF_WINDOWS_UNUSED},
};

/* --- what is refused -------------------------------------------------------------------------- */

#define INSTEAD "use --format safetensors or mlx"

static mq_status check_rope(const mq_plan *plan, mq_error *err) {
    const mq_config *config = plan->job->config;
    const mq_rope *rope = &config->rope[0];
    const mq_gguf_arch *arch = mq_gguf_arch_of(plan);
    const char *wrong = NULL;
    if (rope->type == MQ_ROPE_LONGROPE && arch->longrope) {
        return MQ_OK;
    }
    if (rope->type == MQ_ROPE_DYNAMIC) {
        wrong = "dynamic";
    } else if (!arch->scaling && rope->type != MQ_ROPE_NONE && rope->type != MQ_ROPE_LINEAR) {
        wrong = "this";
    } else if (rope->type == MQ_ROPE_LLAMA3 && !arch->factors) {
        wrong = "llama3's";
    } else if (rope->type == MQ_ROPE_YARN && (rope->attention_factor >= 0 || rope->mscale != 0 ||
                                              rope->mscale_all_dim != 0 || !rope->truncate)) {
        wrong = "yarn with an attention factor of its own or without truncation as";
    } else if (rope->type == MQ_ROPE_YARN && (rope->beta_fast != 32 || rope->beta_slow != 1)) {
        wrong = "yarn with a beta_fast other than 32 or a beta_slow other than 1 as";
    } else if (config->arch->local_rope && config->sliding_window != 0 &&
               config->rope[1].type != MQ_ROPE_NONE) {
        wrong = "the local layers'";
    }
    return wrong == NULL
               ? MQ_OK
               : mq_fail(err, MQ_ERR_USAGE, "llama.cpp has not %s rotary scaling for %s; " INSTEAD,
                         wrong, arch->name);
}

/* Whether those layers rotate that llama.cpp rotates: no field of a file can say which. */
static bool rotates_alike(const mq_config *config, const mq_gguf_arch *arch) {
    bool alike = true;
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        const bool rotates = arch->no_rope_step == 0 || (i + 1) % arch->no_rope_step != 0;
        alike = alike && rotates == (config->layer_rotation[i] != MQ_ROTATION_NONE);
    }
    return alike;
}

/* Likewise of windows: of this family only the versions since September 2026 read a pattern that is
 * not its own. */
static bool has_windows_alike(const mq_config *config, const mq_gguf_arch *arch) {
    bool alike = true;
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        alike = alike && config->layer_is_local[i] == (i % 2 == 0);
    }
    return alike || arch->windows != MQ_GGUF_WINDOWS_EVERY_2;
}

/* Where the file does not say it llama.cpp takes the scale of queries from the head size, but for
 * the family's largest model. */
static bool scales_alike(const mq_config *config, const mq_gguf_arch *arch) {
    const size_t scalar = config->num_hidden_layers == arch->largest_layers
                              ? config->hidden_size / config->num_attention_heads
                              : config->head_dim;
    return arch->multipliers || fabs(config->attention_scale * sqrt((double)scalar) - 1) < 1e-6;
}

/* What llama.cpp has not of caps; NULL: nothing. */
static const char *wrong_cap(const mq_config *config, const mq_gguf_arch *arch) {
    const bool attention = config->attn_logit_softcapping != 0;
    const bool logits = config->final_logit_softcapping != 0;
    return attention && arch->attention_cap == MQ_GGUF_CAP_NEVER ? "attn_logit_softcapping"
           : logits && arch->logits_cap == MQ_GGUF_CAP_NEVER     ? "final_logit_softcapping"
           : !attention && arch->attention_cap == MQ_GGUF_CAP_ALWAYS
               ? "attention without attn_logit_softcapping"
           : !logits && arch->logits_cap == MQ_GGUF_CAP_ALWAYS
               ? "logits without final_logit_softcapping"
               : NULL;
}

static mq_status check_config(const mq_plan *plan, mq_error *err) {
    const mq_config *config = plan->job->config;
    const mq_gguf_arch *arch = mq_gguf_arch_of(plan);
    const char *wrong = wrong_cap(config, arch);
    if (config->activation != arch->activation) {
        wrong = "this activation";
    } else if (!scales_alike(config, arch)) {
        wrong = "this query_pre_attn_scalar";
    } else if (arch->always_tied && !config->tie_word_embeddings) {
        wrong = "a head beside the embeddings (tie_word_embeddings)";
    } else if (arch->even_heads && mq_config_has_own_head_dim(config)) {
        wrong = "a head_dim other than hidden_size / num_attention_heads";
    } else if (arch->never_tied && config->tie_word_embeddings) {
        wrong = "embeddings that are the head (tie_word_embeddings)";
    } else if (!arch->biases && (config->attention_bias || config->mlp_bias)) {
        wrong = "biases";
    } else if (!has_windows_alike(config, arch)) {
        wrong = "windows in these layers (until September 2026 every second has one)";
    } else if (!rotates_alike(config, arch)) {
        wrong = "this pattern of no_rope_layers";
    }
    return wrong == NULL ? check_rope(plan, err)
                         : mq_fail(err, MQ_ERR_USAGE, "llama.cpp has not %s for %s; " INSTEAD,
                                   wrong, arch->name);
}

static mq_status find_arch(mq_gguf *own, const mq_plan *plan, mq_error *err) {
    const mq_arch *arch = plan->job->config->arch;
    for (size_t i = 0; i < sizeof arches / sizeof *arches; i++) {
        if (strcmp(arches[i].model_type, mq_arch_text_model_type(arch)) == 0) {
            own->arch = &arches[i];
            return MQ_OK;
        }
    }
    return mq_fail(err, MQ_ERR_USAGE, "%s has no name in GGUF here; " INSTEAD, arch->architecture);
}

static bool knows_windows(const mq_plan *plan) {
    const mq_gguf_windows windows = mq_gguf_arch_of(plan)->windows;
    return windows != MQ_GGUF_WINDOWS_NONE && windows != MQ_GGUF_WINDOWS_UNUSED;
}

/* Older versions skip a list without a word. */
static void warn_of_window_list(const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    if (mq_gguf_arch_of(plan)->windows == MQ_GGUF_WINDOWS_GIVEN && config->sliding_window != 0 &&
        mq_config_window_pattern(config) == 0) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "llama.cpp reads which layers of %s have windows since September 2026, where they "
               "are not all but every n-th: older versions compute another model",
               mq_gguf_arch_of(plan)->name);
    }
}

mq_status mq_gguf_check_model(mq_gguf *own, const mq_plan *plan, mq_error *err) {
    mq_status status = find_arch(own, plan, err);
    if (status == MQ_OK) {
        status = check_config(plan, err);
    }
    if (status == MQ_OK) {
        mq_plan_warn_windows(plan, "llama.cpp", knows_windows(plan),
                             "; the file says that it was made for no more (context_length), and "
                             "llama-server takes no longer text");
        warn_of_window_list(plan);
        mq_plan_warn_parts(plan, "llama.cpp reads images by a file of their own, which its "
                                 "convert_hf_to_gguf.py --mmproj makes of the source");
    }
    return status;
}

/* --- metadata --------------------------------------------------------------------------------- */

/* "llama." and the rest of a key. */
#define KEY_SIZE 96
static const char *key(char out[KEY_SIZE], const mq_plan *plan, const char *end) {
    snprintf(out, KEY_SIZE, "%s.%s", mq_gguf_arch_of(plan)->name, end);
    return out;
}

static void put_rope(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const mq_rope *rope = &config->rope[0];
    char k[KEY_SIZE];
    mq_gguf_u32(meta, key(k, plan, "rope.dimension_count"), mq_config_rotary_dim(config));
    mq_gguf_f32(meta, key(k, plan, "rope.freq_base"), rope->rope_theta);
    if (rope->type == MQ_ROPE_LINEAR || rope->type == MQ_ROPE_YARN) {
        const bool yarn = rope->type == MQ_ROPE_YARN;
        mq_gguf_string(meta, key(k, plan, "rope.scaling.type"), yarn ? "yarn" : "linear");
        mq_gguf_f32(meta, key(k, plan, "rope.scaling.factor"), rope->factor);
        if (yarn) {
            const size_t original = rope->original_max_position_embeddings;
            mq_gguf_u32(meta, key(k, plan, "rope.scaling.original_context_length"),
                        original != 0 ? original : config->max_position_embeddings);
            mq_gguf_f32(meta, key(k, plan, "rope.scaling.yarn_beta_fast"), rope->beta_fast);
            mq_gguf_f32(meta, key(k, plan, "rope.scaling.yarn_beta_slow"), rope->beta_slow);
        }
    }
}

/* Beside the factors. llama.cpp goes by the short ones where it is given room for no more tokens
 * than the original length. */
static void put_longrope(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_rope *rope = &plan->job->config->rope[0];
    char k[KEY_SIZE];
    if (rope->type == MQ_ROPE_LONGROPE) {
        mq_gguf_u32(meta, key(k, plan, "rope.scaling.original_context_length"),
                    rope->original_max_position_embeddings);
        mq_gguf_f32(meta, key(k, plan, "rope.scaling.attn_factor"), mq_rope_attention_factor(rope));
    }
}

/* A number where one says it: llama.cpp has read it for longer than lists. */
static void put_window_pattern(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const size_t pattern = mq_config_window_pattern(config);
    char k[KEY_SIZE];
    key(k, plan, "attention.sliding_window_pattern");
    if (pattern != 0) {
        mq_gguf_u32(meta, k, pattern);
        return;
    }
    mq_gguf_array(meta, k, MQ_GGUF_BOOL, config->num_hidden_layers);
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        const char local = config->layer_is_local[i] ? 1 : 0;
        mq_buffer_put(&meta->bytes, &local, 1);
    }
}

static void put_windows(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    char k[KEY_SIZE];
    const bool unused = mq_gguf_arch_of(plan)->windows == MQ_GGUF_WINDOWS_UNUSED;
    if (unused || (config->sliding_window != 0 && knows_windows(plan))) {
        mq_gguf_u32(meta, key(k, plan, "attention.sliding_window"), config->sliding_window);
    }
    if (config->sliding_window == 0 || !knows_windows(plan)) {
        return;
    }
    mq_gguf_f32(meta, key(k, plan, "rope.freq_base_swa"), config->rope[1].rope_theta);
    if (mq_gguf_arch_of(plan)->windows == MQ_GGUF_WINDOWS_GIVEN) {
        put_window_pattern(meta, plan);
    }
}

static void put_sizes(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    char k[KEY_SIZE];
    /* What it would compute wrongly it is to refuse. */
    const size_t window = mq_plan_window(plan, knows_windows(plan));
    const size_t most = config->max_position_embeddings;
    mq_gguf_u32(meta, key(k, plan, "context_length"), window < most ? window : most);
    mq_gguf_u32(meta, key(k, plan, "embedding_length"), config->hidden_size);
    mq_gguf_u32(meta, key(k, plan, "block_count"), config->num_hidden_layers);
    mq_gguf_u32(meta, key(k, plan, "feed_forward_length"), config->intermediate_size);
    mq_gguf_u32(meta, key(k, plan, "vocab_size"), config->vocab_size);
    mq_gguf_u32(meta, key(k, plan, "attention.head_count"), config->num_attention_heads);
    mq_gguf_u32(meta, key(k, plan, "attention.head_count_kv"), config->num_key_value_heads);
    mq_gguf_u32(meta, key(k, plan, "attention.key_length"), config->head_dim);
    mq_gguf_u32(meta, key(k, plan, "attention.value_length"), config->head_dim);
    mq_gguf_f32(meta, key(k, plan, "attention.layer_norm_rms_epsilon"), config->rms_norm_eps);
    if (config->attn_logit_softcapping != 0) {
        mq_gguf_f32(meta, key(k, plan, "attn_logit_softcapping"), config->attn_logit_softcapping);
    }
    if (config->final_logit_softcapping != 0) {
        mq_gguf_f32(meta, key(k, plan, "final_logit_softcapping"), config->final_logit_softcapping);
    }
}

static void put_multipliers(mq_gguf_meta *meta, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    char k[KEY_SIZE];
    if (mq_gguf_arch_of(plan)->multipliers) {
        mq_gguf_f32(meta, key(k, plan, "embedding_scale"), config->embedding_multiplier);
        mq_gguf_f32(meta, key(k, plan, "attention.scale"), config->attention_scale);
        mq_gguf_f32(meta, key(k, plan, "residual_scale"), config->residual_multiplier);
        mq_gguf_f32(meta, key(k, plan, "logit_scale"), config->logits_scaling);
    }
}

/* Where the slice comes from, and the model card: one file has no README.md beside it. */
static mq_status put_provenance(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err) {
    cJSON *provenance = NULL;
    mq_status status = mq_export_provenance(&provenance, plan, &mq_export_gguf, err);
    if (status != MQ_OK) {
        return status;
    }
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    mq_gguf_put_card(meta, cJSON_GetObjectItemCaseSensitive(slice, "model_card"));
    mq_buffer card = {0};
    mq_export_card_text(&card, plan, &mq_export_gguf, provenance);
    mq_buffer_put(&card, "", 1);
    char *text = mq_json_print(provenance);
    if (text == NULL || card.failed) {
        status = mq_fail_memory(err, "the provenance", 0);
    } else {
        mq_gguf_string(meta, "general.description", card.text);
        mq_gguf_string(meta, "matquant.provenance", text);
    }
    mq_free(card.text);
    mq_free(text);
    cJSON_Delete(provenance);
    return status;
}

mq_status mq_gguf_make_meta(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err) {
    mq_gguf_string(meta, "general.architecture", mq_gguf_arch_of(plan)->name);
    mq_gguf_string(meta, "general.type", "model");
    mq_status status = mq_gguf_put_name(meta, plan, err);
    if (status != MQ_OK) {
        return status;
    }
    static const size_t plain_types[] = {[MQ_F32] = 0, [MQ_F16] = 1, [MQ_BF16] = 32};
    const mq_gguf *own = plan->own;
    mq_gguf_u32(meta, "general.file_type",
                own->is_plain ? plain_types[own->dtype] : mq_gguf_file_type(plan));
    mq_gguf_u32(meta, "general.quantization_version", 2);
    mq_gguf_u32(meta, "general.alignment", MQ_GGUF_ALIGNMENT);
    put_sizes(meta, plan);
    put_multipliers(meta, plan);
    put_rope(meta, plan);
    put_longrope(meta, plan);
    put_windows(meta, plan);
    cJSON *generation = NULL;
    status = mq_gguf_read_generation(&generation, plan, err);
    if (status == MQ_OK) {
        mq_gguf_put_sampling(meta, generation);
        status = mq_gguf_put_tokenizer(meta, plan, generation, err);
    }
    cJSON_Delete(generation);
    if (status == MQ_OK) {
        status = put_provenance(meta, plan, err);
    }
    return status == MQ_OK && meta->bytes.failed
               ? mq_fail_memory(err, "the metadata", meta->bytes.capacity)
               : status;
}
