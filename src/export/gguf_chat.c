/* Chat templates as GGUF's metadata: the default one, which programs take where they are asked for
 * none, and others by their names, such as "tool_use". The keys are those of llama.cpp's converter
 * (gguf-py, gguf_writer.py). */
#include <string.h>

#include "export/gguf_meta.h"
#include "store/folder.h"

enum { LARGEST_TEMPLATE = 16 << 20 }; /* bytes */

static const char *text_of(const cJSON *entry, const char *name) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, name));
}

/* --- several ---------------------------------------------------------------------------------- */

/* In place: `_` for every character that is no letter or digit of ASCII. */
static void spell_name(char *name) {
    static const char kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    char *end = name;
    for (const char *at = name; *at != '\0'; at++) {
        const bool begins = ((unsigned char)*at & 0xc0) != 0x80; /* a character, of UTF-8 */
        if (begins) {
            *end++ = strchr(kept, *at) != NULL ? *at : '_';
        }
    }
    *end = '\0';
}

static bool is_template(const cJSON *entry) {
    const char *name = text_of(entry, "name");
    return name != NULL && name[0] != '\0' && text_of(entry, "template") != NULL;
}

/* Whether it is one, and the last of its name: that one counts, as it does in transformers. */
static bool counts(const cJSON *entry) {
    bool is_last = is_template(entry);
    for (const cJSON *later = entry->next; is_last && later != NULL; later = later->next) {
        is_last =
            !is_template(later) || strcmp(text_of(later, "name"), text_of(entry, "name")) != 0;
    }
    return is_last;
}

static bool is_default(const cJSON *entry) {
    return strcmp(text_of(entry, "name"), "default") == 0;
}

/* "tokenizer.chat_template.NAME" */
static void put_named(mq_gguf_meta *meta, const cJSON *entry) {
    mq_buffer key = {0};
    mq_buffer_printf(&key, "tokenizer.chat_template.%s", text_of(entry, "name"));
    if (key.failed) {
        meta->bytes.failed = true;
    } else {
        mq_gguf_string(meta, key.text, text_of(entry, "template"));
    }
    mq_free(key.text);
}

/* [{"name": NAME, "template": TEXT}, ...] */
static void put_list(mq_gguf_meta *meta, cJSON *list) {
    size_t named = 0;
    cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, list) {
        if (is_template(entry)) {
            spell_name(cJSON_GetObjectItemCaseSensitive(entry, "name")->valuestring);
        }
    }
    cJSON_ArrayForEach(entry, list) {
        if (counts(entry) && is_default(entry)) {
            mq_gguf_string(meta, "tokenizer.chat_template", text_of(entry, "template"));
        } else if (counts(entry)) {
            put_named(meta, entry);
            named++;
        }
    }
    if (named == 0) {
        return;
    }
    mq_gguf_array(meta, "tokenizer.chat_templates", MQ_GGUF_STRING, named);
    cJSON_ArrayForEach(entry, list) {
        if (counts(entry) && !is_default(entry)) {
            const char *name = text_of(entry, "name");
            mq_gguf_put_string(&meta->bytes, name, strlen(name));
        }
    }
}

/* --- all of it -------------------------------------------------------------------------------- */

static mq_status put_file(mq_gguf_meta *meta, const char *path, mq_error *err) {
    char *text = NULL;
    size_t size;
    const mq_status status = mq_read_file(&text, &size, path, LARGEST_TEMPLATE, err);
    if (status == MQ_OK) {
        mq_gguf_string(meta, "tokenizer.chat_template", text);
    }
    mq_free(text);
    return status;
}

mq_status mq_gguf_put_chat(mq_gguf_meta *meta, const mq_plan *plan, cJSON *config, mq_error *err) {
    char *path = mq_path_join(plan->job->options->master, "chat_template.jinja");
    if (path == NULL) {
        return mq_fail_memory(err, "a path", 0);
    }
    mq_status status = MQ_OK;
    cJSON *item = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    if (mq_path_exists(path)) {
        status = put_file(meta, path, err);
    } else if (cJSON_IsString(item)) {
        mq_gguf_string(meta, "tokenizer.chat_template", item->valuestring);
    } else if (cJSON_IsArray(item)) {
        put_list(meta, item);
    }
    mq_free(path);
    return status;
}
