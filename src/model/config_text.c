/* config.json of a model of several parts: the member that describes the language model, and what
 * stands beside it. */
#include <string.h>

#include "base/error.h"
#include "model/config_parts.h"

mq_status mq_config_find_text(const cJSON **text, const mq_arch *arch, const cJSON *json,
                              const char *file, mq_error *err) {
    *text = json;
    if (arch->text_field == NULL) {
        return MQ_OK;
    }
    *text = cJSON_GetObjectItemCaseSensitive(json, arch->text_field);
    if (!cJSON_IsObject(*text)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "%s, which describes %s's language model, %s",
                            arch->text_field, arch->architecture,
                            *text == NULL ? "is missing" : "is not an object");
    }
    const char *model_type = arch->text_model_type;
    mq_status status = mq_json_get_string(&model_type, *text, "model_type", false, file, err);
    if (status == MQ_OK && strcmp(model_type, arch->text_model_type) != 0) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file, "model_type is \"%.100s\", not \"%s\"",
                              model_type, arch->text_model_type);
    }
    return mq_config_in_text(err, status, arch);
}

mq_status mq_config_in_text(mq_error *err, mq_status status, const mq_arch *arch) {
    return err != NULL && status == MQ_ERR_INPUT && arch->text_field != NULL
               ? mq_fail_file(err, status, err->file, "in %s: %s", arch->text_field, err->message)
               : status;
}

/* transformers 5 ties by the outer field, version 4 by the inner one. */
static mq_status parse_tie(mq_config *config, const cJSON *json, const cJSON *text,
                           const char *file, mq_error *err) {
    static const char key[] = "tie_word_embeddings";
    const bool inner = config->tie_word_embeddings, said = mq_config_member(text, key) != NULL;
    mq_status status = mq_json_get_bool(&config->tie_word_embeddings, json, key, false, file, err);
    if (status == MQ_OK && said && inner != config->tie_word_embeddings) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file, "%s is %s, but %s in %s", key,
                              inner ? "false" : "true", inner ? "true" : "false",
                              config->arch->text_field);
    }
    return status;
}

mq_status mq_config_parse_beside(mq_config *config, const cJSON *json, const cJSON *text,
                                 const char *file, mq_error *err) {
    if (text == json) {
        return MQ_OK;
    }
    size_t vocab_size = config->vocab_size;
    mq_status status = mq_json_get_size(&vocab_size, json, "vocab_size", false, file, err);
    if (status == MQ_OK && vocab_size != config->vocab_size) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file, "vocab_size is %zu, but %zu in %s",
                              vocab_size, config->vocab_size, config->arch->text_field);
    }
    return status == MQ_OK ? parse_tie(config, json, text, file, err) : status;
}
