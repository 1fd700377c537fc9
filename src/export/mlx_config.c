#include "export/mlx_config.h"

#include <math.h>
#include <string.h>

#include "store/folder.h"

/* --- what mlx-lm has not ---------------------------------------------------------------------- */

/* A family by model_type, that of the language model, and what mlx-lm has of it. */
typedef struct mlx_family {
    const char *model_type;
    bool biases;          /* of attention, where config.json asks for them */
    bool head_dim;        /* the field */
    bool head;            /* one that is not the embeddings */
    bool scaling;         /* of rotary embeddings */
    bool windows;         /* of all layers but every n-th */
    bool softcaps;        /* of attention and logits, always */
    bool asks_for_biases; /* has no default for attention_bias and mlp_bias */
    bool longrope; /* by its long factors always, and an attention factor of the lengths alone */
} mlx_family;

static const mlx_family *family_of(const mq_config *config) {
    static const mlx_family families[] = {
        {.model_type = "gemma3_text",
         .head_dim = true,
         .head = true,
         .scaling = true,
         .windows = true},
        {.model_type = "gemma2", .head_dim = true, .softcaps = true},
        {.model_type = "phi3", .head = true, .scaling = true, .longrope = true},
        {.model_type = "qwen2", .biases = true, .head = true, .scaling = true},
        {.model_type = "qwen3", .head_dim = true, .head = true, .scaling = true},
        {.model_type = "granite",
         .biases = true,
         .head = true,
         .scaling = true,
         .asks_for_biases = true},
    };
    static const mlx_family other = {
        .biases = true, .head_dim = true, .head = true, .scaling = true};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].model_type, mq_arch_text_model_type(config->arch)) == 0) {
            return &families[i];
        }
    }
    return &other;
}

/* mlx-lm's Gemma 3 takes every n-th layer for a global one, whatever layer_types says, and needs at
 * least one; 0: no number describes the layers. */
static size_t window_pattern(const mq_config *config) {
    const size_t pattern = mq_config_window_pattern(config);
    return pattern <= config->num_hidden_layers ? pattern : 0;
}

/* Of mscale and mscale_all_dim transformers looks only where both are given. */
static bool has_own_yarn(const mq_rope *rope) {
    const bool one = rope->mscale > 0 && !(rope->mscale > 1) && !(rope->mscale < 1);
    const bool alone = rope->mscale_all_dim > 0 ? !(rope->mscale > 0) : rope->mscale > 0 && !one;
    return rope->type == MQ_ROPE_YARN && (rope->attention_factor >= 0 || !rope->truncate || alone);
}

static bool has_short_factors(const mq_rope *rope) {
    bool differ = false;
    for (size_t i = 0; i < rope->factor_count; i++) {
        differ = differ || rope->short_factor[i] < rope->long_factor[i] ||
                 rope->short_factor[i] > rope->long_factor[i];
    }
    return differ;
}

/* Other than what the lengths of the model make it. */
static bool has_own_attention_factor(const mq_config *config) {
    const mq_rope *rope = &config->rope[0];
    mq_rope plain = *rope;
    plain.attention_factor = -1.0;
    plain.factor =
        (double)config->max_position_embeddings / (double)rope->original_max_position_embeddings;
    return fabs(mq_rope_attention_factor(rope) / mq_rope_attention_factor(&plain) - 1.0) > 1e-9;
}

static void warn(const mq_plan *plan, bool lacking, const char *what) {
    if (lacking) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "mlx-lm has not %s for %s: what it computes of this slice is not the model", what,
               plan->job->config->arch->architecture);
    }
}

/* does: what mlx-lm does not do then, "load" or, where it notices later, "run". */
static void warn_of_refusal(const mq_plan *plan, bool lacking, const char *what, const char *does) {
    if (lacking) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "mlx-lm has no %s for %s, and will not %s this slice", what,
               plan->job->config->arch->architecture, does);
    }
}

static void warn_of_rope(const mq_plan *plan, const mlx_family *family) {
    const mq_config *config = plan->job->config;
    const mq_rope *rope = &config->rope[0];
    if (!family->scaling) {
        warn(plan, rope->type != MQ_ROPE_NONE, "rotary scaling");
        return;
    }
    warn(plan, config->arch->local_rope && config->rope[1].type != MQ_ROPE_NONE,
         "the local layers' rotary scaling (nor reads the others' beside it)");
    warn(plan, has_own_yarn(rope),
         "yarn with an attention factor of its own or without truncation");
    if (family->longrope && rope->type == MQ_ROPE_LONGROPE) {
        warn(plan, has_short_factors(rope), "longrope's short factors (it goes by the long ones)");
        warn(plan, has_own_attention_factor(config),
             "longrope with an attention factor of its own");
    }
}

static void warn_of_caps(const mq_plan *plan, const mlx_family *family) {
    const mq_config *config = plan->job->config;
    const bool attention = config->attn_logit_softcapping > 0;
    const bool logits = config->final_logit_softcapping > 0;
    if (family->softcaps) {
        warn_of_refusal(plan, !attention, "attention without attn_logit_softcapping", "run");
        warn_of_refusal(plan, !logits, "logits without final_logit_softcapping", "run");
    } else {
        warn(plan, attention, "attn_logit_softcapping");
        warn(plan, logits, "final_logit_softcapping");
    }
}

void mq_mlx_warn_of_reader(const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const mlx_family *family = family_of(config);
    warn_of_refusal(plan, config->attention_bias && !family->biases, "biases", "load");
    warn_of_refusal(plan, mq_config_has_own_head_dim(config) && !family->head_dim, "head_dim",
                    "load");
    warn_of_refusal(plan, !config->tie_word_embeddings && !family->head,
                    "head beside the embeddings", "load");
    warn(plan, config->activation != config->arch->default_activation, "this activation");
    warn_of_caps(plan, family);
    warn(plan, family->windows && window_pattern(config) == 0,
         "windows in these layers (it takes every n-th for one without)");
    warn_of_rope(plan, family);
    mq_plan_warn_windows(plan, "mlx-lm", family->windows, "");
    mq_plan_warn_parts(plan, "mlx-lm reads text only");
}

/* --- config.json ------------------------------------------------------------------------------ */

static bool is_given(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return item != NULL && !cJSON_IsNull(item);
}

/* In place of what was there. */
static void set_number(mq_json *json, cJSON *object, const char *name, double number) {
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    mq_json_put_number(json, object, name, number);
}

/* Members that are null, or 0 where that means "not given": to mlx-lm a member that is there is
 * given. */
static void drop_unsaid(cJSON *scaling, const mq_rope *rope) {
    cJSON *next = NULL;
    for (cJSON *item = scaling != NULL ? scaling->child : NULL; item != NULL; item = next) {
        next = item->next;
        const bool is_mscale =
            strcmp(item->string, "mscale") == 0 || strcmp(item->string, "mscale_all_dim") == 0;
        if (cJSON_IsNull(item) ||
            (rope->type == MQ_ROPE_YARN && is_mscale && !(item->valuedouble > 0))) {
            cJSON_Delete(cJSON_DetachItemViaPointer(scaling, item));
        }
    }
}

/* What the scaling leaves to a default; of dynamic's length neither reads one. */
static void fill_scaling(mq_json *json, cJSON *scaling, const mq_rope *rope) {
    const bool yarn = rope->type == MQ_ROPE_YARN;
    const struct {
        const char *name;
        bool wanted;
        double value;
    } fields[] = {
        {"factor", rope->type != MQ_ROPE_LONGROPE, rope->factor},
        {"original_max_position_embeddings", yarn || rope->type == MQ_ROPE_LLAMA3,
         (double)rope->original_max_position_embeddings},
        {"beta_fast", yarn, rope->beta_fast},
        {"beta_slow", yarn, rope->beta_slow},
    };
    drop_unsaid(scaling, rope);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].wanted) {
            set_number(json, scaling, fields[i].name, fields[i].value);
        }
    }
}

/* What mlx-lm reads beside the rotary settings, and transformers 5 may have put among them. */
static void put_beside(mq_json *json, cJSON *made, const cJSON *settings, const mq_config *config) {
    static const char part[] = "partial_rotary_factor";
    const mq_rope *rope = &config->rope[0];
    if (config->arch->partial_rotary && !is_given(made, part) && is_given(settings, part)) {
        set_number(json, made, part, cJSON_GetObjectItemCaseSensitive(settings, part)->valuedouble);
    }
    if (rope->type == MQ_ROPE_LONGROPE) {
        set_number(json, made, "original_max_position_embeddings",
                   (double)rope->original_max_position_embeddings);
    }
}

/* Rotary settings as transformers 4 spells them, from version 5's rope_parameters, which mlx-lm's
 * families mostly do not read: they would rotate by their default base without a word. Where the
 * old spelling cannot say it all, with a scaling of Gemma's local layers, the new one stays beside
 * the bases. */
static void spell_scaling(mq_json *json, cJSON *made, const mq_config *config) {
    const bool layered = config->arch->local_rope;
    if (layered && config->rope[1].type != MQ_ROPE_NONE) {
        return;
    }
    cJSON *newer = cJSON_DetachItemFromObjectCaseSensitive(made, "rope_parameters");
    cJSON *older = cJSON_DetachItemFromObjectCaseSensitive(made, "rope_scaling");
    const cJSON *settings = newer;
    if (layered && cJSON_IsObject(settings)) {
        settings = cJSON_GetObjectItemCaseSensitive(settings, "full_attention");
    }
    if (!cJSON_IsObject(settings)) {
        settings = older;
    }
    put_beside(json, made, settings, config);
    if (config->rope[0].type != MQ_ROPE_NONE) {
        cJSON *scaling = mq_json_put_copy(json, made, "rope_scaling", settings);
        cJSON_DeleteItemFromObjectCaseSensitive(scaling, "rope_theta");
        if (config->rope[0].type == MQ_ROPE_LONGROPE) { /* under this name its kind is looked for */
            cJSON_DeleteItemFromObjectCaseSensitive(scaling, "type");
            mq_json_put_text(json, scaling, "type", "longrope");
        }
        fill_scaling(json, scaling, &config->rope[0]);
    }
    cJSON_Delete(newer);
    cJSON_Delete(older);
}

static void spell_rope(mq_json *json, cJSON *made, const mq_config *config) {
    spell_scaling(json, made, config);
    set_number(json, made, "rope_theta", config->rope[0].rope_theta);
    if (config->arch->local_rope) {
        set_number(json, made, "rope_local_base_freq", config->rope[1].rope_theta);
    }
}

static void fill_type(mq_json *json, cJSON *made, const char *model_type) {
    if (!is_given(made, "model_type")) {
        cJSON_DeleteItemFromObjectCaseSensitive(made, "model_type");
        mq_json_put_text(json, made, "model_type", model_type);
    }
}

static void spell_bool(mq_json *json, cJSON *made, const char *name, bool value) {
    cJSON_DeleteItemFromObjectCaseSensitive(made, name);
    mq_json_put_bool(json, made, name, value);
}

static void spell_tie(mq_json *json, cJSON *made, const mq_config *config) {
    spell_bool(json, made, "tie_word_embeddings", config->tie_word_embeddings);
}

static void fill_fields(mq_json *json, cJSON *made, const mq_config *config) {
    const mq_arch *arch = config->arch;
    const struct {
        const char *name;
        bool has;
        double value;
    } fields[] = {
        {"vocab_size", true, (double)config->vocab_size},
        {"num_attention_heads", true, (double)config->num_attention_heads},
        {"num_key_value_heads", true, (double)config->num_key_value_heads},
        {"head_dim", true, (double)config->head_dim},
        {"max_position_embeddings", true, (double)config->max_position_embeddings},
        {"rms_norm_eps", true, config->rms_norm_eps},
        {"query_pre_attn_scalar", arch->query_pre_attn_scalar, arch->default_query_pre_attn_scalar},
        {"embedding_multiplier", arch->multipliers, config->embedding_multiplier},
        {"attention_multiplier", arch->multipliers, config->attention_scale},
        {"residual_multiplier", arch->multipliers, config->residual_multiplier},
        {"logits_scaling", arch->multipliers, config->logits_scaling},
    };
    fill_type(json, made, mq_arch_text_model_type(arch));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].has && !is_given(made, fields[i].name)) {
            set_number(json, made, fields[i].name, fields[i].value);
        }
    }
}

/* Gemma 3's. Where every layer is global no window is read. */
static void fill_windows(mq_json *json, cJSON *made, const mq_config *config) {
    const size_t pattern = window_pattern(config);
    if (pattern != 0) {
        set_number(json, made, "sliding_window_pattern", (double)pattern);
    }
    if (config->sliding_window != 0) {
        set_number(json, made, "sliding_window", (double)config->sliding_window);
    }
}

/* SmolLM3's, where the source leaves it to the interval. */
static void fill_no_rope(mq_json *json, cJSON *made, const mq_config *config) {
    if (is_given(made, "no_rope_layers")) {
        return;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(made, "no_rope_layers");
    cJSON *list = mq_json_put_array(json, made, "no_rope_layers");
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        mq_json_put_size(json, list, NULL, config->layer_rotation[i] != MQ_ROTATION_NONE);
    }
}

/* mlx-lm reads these beside what describes the language model. */
static void fill_beside(mq_json *json, cJSON *made, const mq_config *config) {
    fill_type(json, made, config->arch->model_type);
    set_number(json, made, "vocab_size", (double)config->vocab_size);
    spell_tie(json, made, config);
}

void mq_mlx_spell_config(mq_json *json, cJSON *made, const mq_config *config) {
    const mq_arch *arch = config->arch;
    cJSON *text =
        arch->text_field == NULL ? made : cJSON_GetObjectItemCaseSensitive(made, arch->text_field);
    spell_rope(json, text, config);
    fill_fields(json, text, config);
    spell_tie(json, text, config);
    if (family_of(config)->windows) {
        fill_windows(json, text, config);
    }
    if (family_of(config)->asks_for_biases) {
        spell_bool(json, text, "attention_bias", config->attention_bias);
        spell_bool(json, text, "mlp_bias", config->mlp_bias);
    }
    if (arch->no_rope) {
        fill_no_rope(json, text, config);
    }
    if (text != made) {
        fill_beside(json, made, config);
    }
}
