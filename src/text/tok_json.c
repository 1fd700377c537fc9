/* Loading tokenizer.json: the top level, and what the parts share. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/tok_internal.h"
#include "text/tok_json_model.h"

/* --- what the parts share --------------------------------------------------------------------- */

mq_status mq_tok_refuse(mq_tok_loader *loader, const char *where, const char *format, ...) {
    char message[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return mq_fail_file(loader->err, MQ_ERR_INPUT, loader->file, "%s%s%s", where,
                        *where ? ": " : "", message);
}

/* Of two fields of one name cJSON finds the first, and other readers the last. */
static mq_status refuse_repeated(mq_tok_loader *loader, const char *where, const char *key) {
    return mq_tok_refuse(loader, where, "the field \"%.64s\" is there twice", key);
}

mq_status mq_tok_check_fields(mq_tok_loader *loader, const cJSON *object, const char *where,
                              const char *const *known) {
    if (!cJSON_IsObject(object)) {
        return mq_tok_refuse(loader, where, "not an object");
    }
    for (const cJSON *item = object->child; item; item = item->next) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], item->string) != 0) {
            i++;
        }
        if (!known[i]) {
            return mq_tok_refuse(loader, where, "the field \"%.64s\" is not known", item->string);
        }
        if (cJSON_GetObjectItemCaseSensitive(object, item->string) != item) {
            return refuse_repeated(loader, where, item->string);
        }
    }
    return MQ_OK;
}

mq_status mq_tok_in_field(mq_tok_loader *loader, mq_status status, const char *where,
                          const mq_error *inner) {
    if (status == MQ_ERR_INPUT) {
        return mq_tok_refuse(loader, where, "%s", inner->message);
    }
    if (status && loader->err) {
        *loader->err = *inner;
    }
    return status;
}

mq_status mq_tok_member(const cJSON **out, mq_tok_loader *loader, const cJSON *object,
                        const char *where, const char *key) {
    *out = cJSON_GetObjectItemCaseSensitive(object, key);
    for (const cJSON *item = *out ? (*out)->next : NULL; item; item = item->next) {
        if (strcmp(item->string, key) == 0) {
            return refuse_repeated(loader, where, key);
        }
    }
    return MQ_OK;
}

mq_status mq_tok_type(const char **out, mq_tok_loader *loader, const cJSON *object,
                      const char *where) {
    if (!cJSON_IsObject(object)) {
        return mq_tok_refuse(loader, where, "not an object");
    }
    return mq_tok_string(out, loader, object, where, "type");
}

mq_status mq_tok_bool(bool *out, mq_tok_loader *loader, const cJSON *object, const char *where,
                      const char *key, bool required) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item && !required) {
        return MQ_OK;
    }
    if (!cJSON_IsBool(item)) {
        return mq_tok_refuse(loader, where, "\"%s\" is %s", key,
                             item ? "neither true nor false" : "missing");
    }
    *out = cJSON_IsTrue(item);
    return MQ_OK;
}

mq_status mq_tok_string(const char **out, mq_tok_loader *loader, const cJSON *object,
                        const char *where, const char *key) {
    const cJSON *item = NULL;
    mq_status status = mq_tok_member(&item, loader, object, where, key);
    if (status) {
        return status;
    }
    if (!cJSON_IsString(item)) {
        return mq_tok_refuse(loader, where, "\"%s\" is %s", key, item ? "not a string" : "missing");
    }
    *out = item->valuestring;
    return MQ_OK;
}

mq_status mq_tok_char(const char **out, mq_tok_loader *loader, const cJSON *object,
                      const char *where, const char *key) {
    uint32_t c;
    mq_status status = mq_tok_string(out, loader, object, where, key);
    if (!status && (!**out || mq_utf8_decode(&c, *out, strlen(*out)) != strlen(*out))) {
        status = mq_tok_refuse(loader, where, "\"%s\" is not one character", key);
    }
    return status;
}

mq_status mq_tok_size(size_t *out, mq_tok_loader *loader, const cJSON *object, const char *where,
                      const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(value >= 0 && value <= 0x1p53) || floor(value) != value) {
        return mq_tok_refuse(loader, where, "\"%s\" is %s", key,
                             item ? "not a whole number" : "missing");
    }
    *out = (size_t)value;
    return MQ_OK;
}

mq_status mq_tok_copy(char **out, size_t *size, mq_tok_loader *loader, const char *text) {
    *size = strlen(text);
    *out = mq_strdup(text);
    return *out ? MQ_OK : mq_fail_memory(loader->err, "the tokenizer", *size + 1);
}

mq_status mq_tok_pattern(mq_pattern *out, mq_tok_loader *loader, const cJSON *object,
                         const char *where) {
    static const char *const known[] = {"String", "Regex", NULL};
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(object, "pattern");
    if (!pattern) {
        return mq_tok_refuse(loader, where, "\"pattern\" is missing");
    }
    mq_status status = mq_tok_check_fields(loader, pattern, where, known);
    if (status) {
        return status;
    }
    bool is_regex = cJSON_HasObjectItem(pattern, "Regex");
    const char *text = NULL;
    status = mq_tok_string(&text, loader, pattern, where, is_regex ? "Regex" : "String");
    if (status) {
        return status;
    }
    mq_error inner = {0};
    status = is_regex ? mq_pattern_regex(out, text, &inner)
                      : mq_pattern_literal(out, text, strlen(text), &inner);
    return mq_tok_in_field(loader, status, where, &inner);
}

mq_status mq_tok_scheme(const char **out, mq_tok_loader *loader, const cJSON *object,
                        const char *where) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "prepend_scheme");
    bool prefix = true;
    *out = NULL;
    mq_status status = item ? mq_tok_string(out, loader, object, where, "prepend_scheme") : MQ_OK;
    status =
        status ? status : mq_tok_bool(&prefix, loader, object, where, "add_prefix_space", false);
    if (status) {
        return status;
    }
    if (!*out) {
        *out = prefix ? "always" : "never";
    }
    if (strcmp(*out, "always") != 0 && strcmp(*out, "first") != 0 && strcmp(*out, "never") != 0) {
        return mq_tok_refuse(loader, where, "the prepend_scheme \"%.64s\" is not known", *out);
    }
    if (!prefix && strcmp(*out, "never") != 0) {
        return mq_tok_refuse(loader, where,
                             "add_prefix_space contradicts the prepend_scheme \"%s\"", *out);
    }
    return MQ_OK;
}

mq_status mq_tok_load_list(mq_tok_loader *loader, const cJSON *value, const char *where,
                           const char *key, mq_tok_load_fn *load) {
    const char *const known[] = {"type", key, NULL};
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(value, key);
    if (!status && !cJSON_IsArray(list)) {
        status = mq_tok_refuse(loader, where, "\"%s\" is not a list", key);
    }
    size_t i = 0;
    for (const cJSON *item = status ? NULL : list->child; item && !status; item = item->next, i++) {
        char inner[160];
        snprintf(inner, sizeof inner, "%.100s.%s[%zu]", where, key, i);
        status = cJSON_IsObject(item) ? load(loader, item, inner)
                                      : mq_tok_refuse(loader, inner, "not an object");
    }
    return status;
}

/* --- the beginning-of-sequence token ---------------------------------------------------------- */

static mq_status read_optional(cJSON **out, const char *folder, const char *name, char **path,
                               mq_error *err) {
    *path = mq_path_join(folder, name);
    if (!*path) {
        return mq_fail_memory(err, "a path", strlen(folder) + strlen(name));
    }
    return mq_path_exists(*path) ? mq_json_read(out, *path, err) : MQ_OK;
}

static int32_t find_token(const mq_tokenizer *t, const char *text) {
    size_t size = strlen(text);
    for (size_t i = 0; i < t->added.count; i++) {
        if (t->added.tokens[i].content_size == size &&
            memcmp(t->added.tokens[i].content, text, size) == 0) {
            return t->added.tokens[i].id;
        }
    }
    return mq_vocab_find(&t->vocab, text, size);
}

static mq_status bos_from_config(mq_tokenizer *t, const char *folder, const char *reason_file,
                                 mq_error *err) {
    cJSON *config = NULL;
    char *path = NULL;
    size_t id = SIZE_MAX;
    mq_status status = read_optional(&config, folder, "config.json", &path, err);
    if (!status && config) {
        status = mq_json_get_size(&id, config, "bos_token_id", false, path, err);
    }
    if (!status && id >= t->vocab_size) {
        status = mq_fail_file(err, MQ_ERR_INPUT, reason_file, MQ_TOK_NO_BOS);
    }
    if (!status) {
        t->bos = (int32_t)id;
    }
    cJSON_Delete(config);
    mq_free(path);
    return status;
}

/* The template's first token; without one, what tokenizer_config.json asks for: classes of
 * transformers 4 build the template from add_bos_token and bos_token, and llama.cpp heeds them.
 * (Version 5 takes the template from tokenizer.json alone.) */
static mq_status load_bos(mq_tokenizer *t, const char *folder, mq_error *err) {
    t->bos = t->before_count ? t->before[0] : -1;
    if (t->before_count) {
        return MQ_OK;
    }
    cJSON *config = NULL;
    char *path = NULL;
    bool add = false;
    mq_status status = read_optional(&config, folder, "tokenizer_config.json", &path, err);
    if (!status && config) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, "add_bos_token");
        add = cJSON_IsTrue(item);
    }
    if (!status && add) {
        const cJSON *token = cJSON_GetObjectItemCaseSensitive(config, "bos_token");
        if (cJSON_IsObject(token)) {
            token = cJSON_GetObjectItemCaseSensitive(token, "content");
        }
        t->bos = cJSON_IsString(token) ? find_token(t, token->valuestring) : -1;
        if (t->bos < 0) {
            status = bos_from_config(t, folder, path, err);
        }
    }
    cJSON_Delete(config);
    mq_free(path);
    return status;
}

/* --- the file --------------------------------------------------------------------------------- */

/* "truncation" and "padding" shape batches and change no ids of a text that is encoded whole;
 * transformers sets them anew at every call, whatever the file says, and so they are not looked at
 * here. */
static mq_status load_root(mq_tok_loader *loader, const cJSON *root) {
    static const char *const known[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    mq_status status = mq_tok_check_fields(loader, root, "", known);
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(root, "version");
    if (!status && version &&
        !(cJSON_IsString(version) && strcmp(version->valuestring, "1.0") == 0)) {
        status = mq_tok_refuse(loader, "version", "only \"1.0\" is known");
    }
    if (!status) {
        status = mq_tok_load_model(loader, cJSON_GetObjectItemCaseSensitive(root, "model"));
    }
    if (!status) {
        status = mq_tok_load_normalizer(
            loader, cJSON_GetObjectItemCaseSensitive(root, "normalizer"), "normalizer");
    }
    if (!status) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
        status = mq_tok_load_pre_tokenizer(loader, item, "pre_tokenizer");
    }
    if (!status) {
        status = mq_tok_load_added(loader, cJSON_GetObjectItemCaseSensitive(root, "added_tokens"));
    }
    if (!status) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "post_processor");
        status = mq_tok_load_post_processor(loader, item, "post_processor");
    }
    if (!status) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "decoder");
        loader->tokenizer->has_decoder = item && !cJSON_IsNull(item);
        status = mq_tok_load_decoder(loader, item, "decoder");
    }
    return status;
}

/* The older form of some tokenizers, of which tokenizer.json can be made. */
static mq_status check_sentencepiece(const char *folder, const char *path, mq_error *err) {
    char *other = mq_path_join(folder, "tokenizer.model");
    if (!other) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    const bool alone = !mq_path_exists(path) && mq_path_exists(other);
    mq_free(other);
    return alone ? mq_fail_file(err, MQ_ERR_INPUT, path,
                                "is not there, and tokenizer.model is not read; transformers makes "
                                "tokenizer.json of it: AutoTokenizer.from_pretrained(FOLDER)"
                                ".save_pretrained(FOLDER)")
                 : MQ_OK;
}

mq_status mq_tok_load(mq_tokenizer *tokenizer, const char *folder, mq_error *err) {
    char *path = mq_path_join(folder, "tokenizer.json");
    if (!path) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    cJSON *root = NULL;
    mq_tok_loader loader = {tokenizer, path, err};
    mq_status status = check_sentencepiece(folder, path, err);
    status = status ? status : mq_json_read(&root, path, err);
    if (!status) {
        status = load_root(&loader, root);
    }
    cJSON_Delete(root);
    mq_free(path);
    return status ? status : load_bos(tokenizer, folder, err);
}
