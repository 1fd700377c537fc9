/* config.json as text, for the tests of what is read of it. */
#ifndef MQ_TESTS_CONFIG_TEXT_H
#define MQ_TESTS_CONFIG_TEXT_H

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/config.h"

#define SIZES                                                                                      \
    "\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":4,"                         \
    "\"num_attention_heads\":4,\"vocab_size\":64"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," SIZES
#define GEMMA "\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\"," SIZES
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

/* {base,extra} must be refused as bad input, in the file's name, with every one of the words. */
static inline void refused(const char *base, const char *extra, const char *words) {
    char text[4096], word[256];
    snprintf(text, sizeof text, "{%s%s%s}", base, extra[0] != '\0' ? "," : "", extra);
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
