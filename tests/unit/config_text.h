/* config.json as text, for the tests of what is read of it. */
#ifndef MQ_TESTS_CONFIG_TEXT_H
#define MQ_TESTS_CONFIG_TEXT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/config.h"

#define SIZES                                                                                      \
    "\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":4,"                         \
    "\"num_attention_heads\":4,\"vocab_size\":64"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," SIZES
#define GEMMA "\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\"," SIZES
#define GRANITE "\"architectures\":[\"GraniteForCausalLM\"],\"model_type\":\"granite\"," SIZES
#define OLMO2 "\"architectures\":[\"Olmo2ForCausalLM\"],\"model_type\":\"olmo2\"," SIZES
#define GEMMA2 "\"architectures\":[\"Gemma2ForCausalLM\"],\"model_type\":\"gemma2\"," SIZES

static inline mq_status parse(mq_config *out, const char *text, mq_error *err) {
    cJSON *json = NULL;
    assert_int_equal(mq_json_parse(&json, text, strlen(text), "config.json", err), MQ_OK);
    const mq_status status = mq_config_parse(out, json, "config.json", err);
    cJSON_Delete(json);
    return status;
}

static inline mq_config parse_good(const char *text) {
    mq_config config;
    mq_error err = {0};
    if (parse(&config, text, &err) != MQ_OK) {
        fail_msg("%s: %s", text, err.message);
    }
    return config;
}

/* --- what is read ----------------------------------------------------------------------------- */

enum { VALUE_SIZE = 64 };

static inline bool put_number(char out[VALUE_SIZE], const mq_config *config, const mq_rope *rope,
                              const char *name) {
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"hidden_size", (double)config->hidden_size},
        {"num_hidden_layers", (double)config->num_hidden_layers},
        {"num_attention_heads", (double)config->num_attention_heads},
        {"num_key_value_heads", (double)config->num_key_value_heads},
        {"head_dim", (double)config->head_dim},
        {"unrotated_dim", (double)config->unrotated_dim},
        {"vocab_size", (double)config->vocab_size},
        {"max_position_embeddings", (double)config->max_position_embeddings},
        {"rms_norm_eps", config->rms_norm_eps},
        {"tie_word_embeddings", config->tie_word_embeddings},
        {"attention_bias", config->attention_bias},
        {"mlp_bias", config->mlp_bias},
        {"attention_scale", config->attention_scale},
        {"attn_logit_softcapping", config->attn_logit_softcapping},
        {"final_logit_softcapping", config->final_logit_softcapping},
        {"embedding_multiplier", config->embedding_multiplier},
        {"residual_multiplier", config->residual_multiplier},
        {"logits_scaling", config->logits_scaling},
        {"sliding_window", (double)config->sliding_window},
        {"rope_theta", rope->rope_theta},
        {"factor", rope->factor},
        {"beta_fast", rope->beta_fast},
        {"beta_slow", rope->beta_slow},
        {"attention_factor", rope->attention_factor},
        {"truncate", rope->truncate},
        {"original_max_position_embeddings", (double)rope->original_max_position_embeddings},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            snprintf(out, VALUE_SIZE, "%.17g", numbers[i].value);
            return true;
        }
    }
    return false;
}

static inline bool put_word(char out[VALUE_SIZE], const mq_config *config, const mq_rope *rope,
                            const char *name) {
    static const char *const activations[] = {
        [MQ_SILU] = "silu", [MQ_GELU_TANH] = "gelu_pytorch_tanh"};
    static const char *const types[] = {
        [MQ_ROPE_NONE] = "default",  [MQ_ROPE_LINEAR] = "linear", [MQ_ROPE_DYNAMIC] = "dynamic",
        [MQ_ROPE_LLAMA3] = "llama3", [MQ_ROPE_YARN] = "yarn",     [MQ_ROPE_LONGROPE] = "longrope"};
    const char *word = strcmp(name, "architecture") == 0 ? config->arch->architecture
                       : strcmp(name, "activation") == 0 ? activations[config->activation]
                       : strcmp(name, "rope_type") == 0  ? types[rope->type]
                                                         : NULL;
    if (word != NULL) {
        snprintf(out, VALUE_SIZE, "%s", word);
    }
    return word != NULL;
}

/* A letter for each layer. */
static inline bool put_layers(char out[VALUE_SIZE], const mq_config *config, const char *name) {
    static const char rotations[] = {
        [MQ_ROTATION_GLOBAL] = 'g', [MQ_ROTATION_LOCAL] = 'l', [MQ_ROTATION_NONE] = '-'};
    const bool windows = strcmp(name, "layer_is_local") == 0;
    if (!windows && strcmp(name, "layer_rotation") != 0) {
        return false;
    }
    assert_in_range(config->num_hidden_layers, 1, VALUE_SIZE - 1);
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        out[i] = windows ? "gl"[config->layer_is_local[i]] : rotations[config->layer_rotation[i]];
    }
    out[config->num_hidden_layers] = '\0';
    return true;
}

/* Numbers may be written in several ways. */
static inline bool same_value(const char *a, const char *b) {
    char *end_a, *end_b;
    const double number_a = strtod(a, &end_a), number_b = strtod(b, &end_b);
    const bool numbers = end_a != a && end_b != b && *end_a == '\0' && *end_b == '\0';
    return numbers ? number_a == number_b : strcmp(a, b) == 0;
}

/* fields: "NAME VALUE|NAME VALUE", names as in mq_config and mq_rope, the latter of local layers
 * behind "local."; values are numbers, words as in config.json, or a letter for each layer: g is
 * global, l local, and - rotates nothing. */
static inline void has_fields(const mq_config *config, const char *fields, const char *text) {
    for (const char *at = fields; *at != '\0'; at += strcspn(at, "|"), at += *at == '|') {
        char field[VALUE_SIZE], wanted[VALUE_SIZE], found[VALUE_SIZE];
        assert_int_equal(sscanf(at, "%63[^ |] %63[^|]", field, wanted), 2);
        const bool local = strncmp(field, "local.", 6) == 0;
        const char *name = local ? field + 6 : field;
        const mq_rope *rope = &config->rope[local];
        if (!put_layers(found, config, name) && !put_word(found, config, rope, name) &&
            !put_number(found, config, rope, name)) {
            fail_msg("mq_config has no field %s", name);
        }
        if (!same_value(found, wanted)) {
            fail_msg("%s: %s is %s, not %s", text, field, found, wanted);
        }
    }
}

/* {base,extra} */
static inline void whole_text(char text[4096], const char *base, const char *extra) {
    const int length = snprintf(text, 4096, "{%s%s%s}", base, extra[0] != '\0' ? "," : "", extra);
    assert_in_range(length, 2, 4095);
}

/* {base,extra} must be read, and the fields be what came of it. */
static inline void accepted(const char *base, const char *extra, const char *fields) {
    char text[4096];
    whole_text(text, base, extra);
    mq_config config = parse_good(text);
    has_fields(&config, fields, text);
    mq_config_free(&config);
}

/* --- what is refused -------------------------------------------------------------------------- */

/* {base,extra} must be refused as bad input, in the file's name, with every one of the words. */
static inline void refused(const char *base, const char *extra, const char *words) {
    char text[4096], word[256];
    whole_text(text, base, extra);
    mq_config config;
    mq_error err = {0};
    assert_int_equal(parse(&config, text, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, "config.json");
    assert_null(config.layer_is_local);
    assert_null(config.layer_rotation);
    for (const char *at = words; *at != '\0'; at += strcspn(at, "|"), at += *at == '|') {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, "|"), at);
        if (strstr(err.message, word) == NULL) {
            fail_msg("\"%s\" does not say \"%s\" (%s)", err.message, word, extra);
        }
    }
}

#endif
