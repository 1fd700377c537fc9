/* Metadata "general.*" of what the source's model card says (docs/gguf.md of ggml, "General
 * metadata"), spelled as llama.cpp's own converter spells it. */
#include <stdio.h>
#include <string.h>

#include "export/gguf_meta.h"

/* A value of the card is a string or a list of strings: the first string from here on, NULL: no
 * more. */
static const cJSON *string_from(const cJSON *item) {
    while (item != NULL && !cJSON_IsString(item)) {
        item = item->next;
    }
    return item;
}

static const cJSON *first_string(const cJSON *card, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(card, key);
    return cJSON_IsString(value) ? value : string_from(cJSON_IsArray(value) ? value->child : NULL);
}

/* The next of a list; a string that is a member of the card is no list. */
static const cJSON *next_string(const cJSON *item) {
    return item->string != NULL ? NULL : string_from(item->next);
}

static size_t count_strings(const cJSON *first) {
    size_t count = 0;
    for (const cJSON *item = first; item != NULL; item = next_string(item)) {
        count++;
    }
    return count;
}

/* Of several licences the card does not say whether all hold, or any. */
static void put_license(mq_gguf_meta *meta, const cJSON *card) {
    static const char *const keys[][2] = {{"license", "general.license"},
                                          {"license_name", "general.license.name"},
                                          {"license_link", "general.license.link"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const cJSON *value = first_string(card, keys[i][0]);
        if (count_strings(value) == 1) {
            mq_gguf_string(meta, keys[i][1], value->valuestring);
        }
    }
}

static void put_languages(mq_gguf_meta *meta, const cJSON *card) {
    const cJSON *first = first_string(card, "language");
    if (first == NULL) {
        return;
    }
    mq_gguf_array(meta, "general.languages", MQ_GGUF_STRING, count_strings(first));
    for (const cJSON *item = first; item != NULL; item = next_string(item)) {
        mq_gguf_put_string(&meta->bytes, item->valuestring, strlen(item->valuestring));
    }
}

/* "general.base_model.INDEX.PART" */
static void put_base(mq_gguf_meta *meta, size_t index, const char *part, const char *value) {
    char key[64];
    snprintf(key, sizeof key, "general.base_model.%zu.%s", index, part);
    mq_gguf_string(meta, key, value);
}

/* Of the hub's "owner/name" also the owner and the address. */
static void put_base_model(mq_gguf_meta *meta, size_t index, const char *id) {
    const char *slash = strchr(id, '/');
    if (slash == NULL || slash == id || slash[1] == '\0' || strchr(slash + 1, '/') != NULL) {
        put_base(meta, index, "name", id);
        return;
    }
    mq_buffer owner = {0}, address = {0};
    mq_buffer_put(&owner, id, (size_t)(slash - id));
    mq_buffer_put_text(&address, "https://huggingface.co/");
    mq_buffer_put_text(&address, id);
    if (owner.failed || address.failed) {
        meta->bytes.failed = true;
    } else {
        put_base(meta, index, "name", slash + 1);
        put_base(meta, index, "organization", owner.text);
        put_base(meta, index, "repo_url", address.text);
    }
    mq_free(owner.text);
    mq_free(address.text);
}

void mq_gguf_put_card(mq_gguf_meta *meta, const cJSON *card) {
    put_license(meta, card);
    put_languages(meta, card);
    const cJSON *first = first_string(card, "base_model");
    size_t index = 0;
    if (first != NULL) {
        mq_gguf_u32(meta, "general.base_model.count", count_strings(first));
    }
    for (const cJSON *item = first; item != NULL; item = next_string(item)) {
        put_base_model(meta, index++, item->valuestring);
    }
}
