#include "export/mlx_config.h"

#include <string.h>

#include "store/folder.h"

/* --- what mlx-lm has not ---------------------------------------------------------------------- */

/* mlx-lm's Gemma takes every so-manieth layer for a global one, whatever layer_types says, and
 * needs at least one: 1 if all are, 0 if no number describes the layers. */
static size_t window_pattern(const mq_config *config) {
    size_t pattern = 0;
    while (pattern < config->num_hidden_layers && config->layer_is_local[pattern]) {
        pattern++;
    }
    pattern++;
    bool fits = pattern <= config->num_hidden_layers;
    for (size_t i = 0; fits && i < config->num_hidden_layers; i++) {
        fits = config->layer_is_local[i] == ((i + 1) % pattern != 0);
    }
    return fits ? pattern : 0;
}

static bool has_own_yarn(const mq_rope *rope) {
    return rope->type == MQ_ROPE_YARN && (rope->attention_factor >= 0 || !rope->truncate ||
                                          (rope->mscale > 0) != (rope->mscale_all_dim > 0));
}

static void warn(const mq_plan *plan, bool lacking, const char *what) {
    if (lacking) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "mlx-lm has not %s for %s: what it computes of this slice is not the model", what,
               plan->job->config->arch->architecture);
    }
}

void mq_mlx_warn_of_reader(const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const mq_arch *arch = config->arch;
    if (config->attention_bias && arch->norm[MQ_NORM_Q] != NULL) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "mlx-lm has no biases for %s, and will not load this slice", arch->architecture);
    }
    warn(plan, config->activation != arch->default_activation, "this activation");
    warn(plan, config->attn_logit_softcapping > 0, "attn_logit_softcapping");
    warn(plan, config->final_logit_softcapping > 0, "final_logit_softcapping");
    warn(plan, arch->windows == MQ_WINDOWS_SOME && window_pattern(config) == 0,
         "windows in these layers (it takes every so-manieth for one without)");
    warn(plan, arch->local_rope && config->rope[1].type != MQ_ROPE_NONE,
         "the local layers' rotary scaling");
    warn(plan, has_own_yarn(&config->rope[0]),
         "yarn with an attention factor of its own or without truncation");
    mq_plan_warn_windows(plan, "mlx-lm");
}

/* --- config.json ------------------------------------------------------------------------------ */

static bool is_given(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return item != NULL && !cJSON_IsNull(item);
}

/* VALUE, which becomes the object's, as the field NAME, in place of what was there. */
static mq_status set(cJSON *object, const char *name, cJSON *value, mq_error *err) {
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    return mq_json_add(object, name, value, err);
}

static mq_status set_number(cJSON *object, const char *name, double number, mq_error *err) {
    return set(object, name, cJSON_CreateNumber(number), err);
}

/* What the scaling leaves to a default; of dynamic's length neither reads one. */
static mq_status fill_scaling(cJSON *scaling, const mq_rope *rope, mq_error *err) {
    const bool has_length = rope->type == MQ_ROPE_LLAMA3 || rope->type == MQ_ROPE_YARN;
    mq_status status = MQ_OK;
    if (!is_given(scaling, "factor")) {
        status = set_number(scaling, "factor", rope->factor, err);
    }
    if (status == MQ_OK && has_length && !is_given(scaling, "original_max_position_embeddings")) {
        status = set_number(scaling, "original_max_position_embeddings",
                            (double)rope->original_max_position_embeddings, err);
    }
    return status;
}

/* Rotary settings as transformers 4 spells them, from version 5's rope_parameters, which mlx-lm's
 * families mostly do not read: they would rotate by their default base without a word. What the old
 * spelling cannot say, a scaling of Gemma's local layers, stays as it is. */
static mq_status spell_rope(cJSON *json, const mq_config *config, mq_error *err) {
    const bool layered = config->arch->local_rope;
    if (layered && config->rope[1].type != MQ_ROPE_NONE) {
        return MQ_OK;
    }
    const cJSON *settings = cJSON_GetObjectItemCaseSensitive(json, "rope_parameters");
    if (layered && cJSON_IsObject(settings)) {
        settings = cJSON_GetObjectItemCaseSensitive(settings, "full_attention");
    }
    if (!cJSON_IsObject(settings)) {
        settings = cJSON_GetObjectItemCaseSensitive(json, "rope_scaling");
    }
    mq_status status = MQ_OK;
    cJSON *scaling = NULL;
    if (config->rope[0].type != MQ_ROPE_NONE) {
        scaling = cJSON_Duplicate(settings, true);
        cJSON_DeleteItemFromObjectCaseSensitive(scaling, "rope_theta");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_parameters");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_scaling");
    if (config->rope[0].type != MQ_ROPE_NONE) {
        status = mq_json_add(json, "rope_scaling", scaling, err);
        status = status == MQ_OK ? fill_scaling(scaling, &config->rope[0], err) : status;
    }
    if (status == MQ_OK) {
        status = set_number(json, "rope_theta", config->rope[0].rope_theta, err);
    }
    return status == MQ_OK && layered
               ? set_number(json, "rope_local_base_freq", config->rope[1].rope_theta, err)
               : status;
}

static mq_status fill_sizes(cJSON *json, const mq_config *config, mq_error *err) {
    const struct {
        const char *name;
        double value;
    } fields[] = {
        {"num_key_value_heads", (double)config->num_key_value_heads},
        {"head_dim", (double)config->head_dim},
        {"max_position_embeddings", (double)config->max_position_embeddings},
        {"rms_norm_eps", config->rms_norm_eps},
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof fields / sizeof *fields; i++) {
        if (!is_given(json, fields[i].name)) {
            status = set_number(json, fields[i].name, fields[i].value, err);
        }
    }
    return status;
}

/* Gemma's. Where every layer is global no window is read. */
static mq_status fill_windows(cJSON *json, const mq_config *config, mq_error *err) {
    const size_t pattern = window_pattern(config);
    mq_status status = MQ_OK;
    if (pattern != 0) {
        status = set_number(json, "sliding_window_pattern", (double)pattern, err);
    }
    return status == MQ_OK && config->sliding_window != 0
               ? set_number(json, "sliding_window", (double)config->sliding_window, err)
               : status;
}

mq_status mq_mlx_spell_config(cJSON *json, const mq_config *config, mq_error *err) {
    mq_status status = spell_rope(json, config, err);
    if (status == MQ_OK) {
        status = fill_sizes(json, config, err);
    }
    if (status == MQ_OK) {
        status =
            set(json, "tie_word_embeddings", cJSON_CreateBool(config->tie_word_embeddings), err);
    }
    return status == MQ_OK && config->arch->windows == MQ_WINDOWS_SOME
               ? fill_windows(json, config, err)
               : status;
}

bool mq_mlx_is_unused_head(const mq_config *config, const char *name) {
    const char *head = config->arch->head;
    const size_t length = strlen(head) - strlen(".weight");
    return config->tie_word_embeddings && strncmp(name, head, length) == 0 &&
           (name[length] == '\0' || strcmp(name + length, ".weight") == 0);
}
