/* The header of the model card, YAML that the hub reads: how the slice is loaded, and what the
 * source's own card says of licence, languages and base model. */
#include <string.h>

#include "base/utf8.h"
#include "export/export.h"
#include "text/front_matter.h"

/* --- YAML ------------------------------------------------------------------------------------- */

/* What YAML takes for a line's end, or lets nobody write as it is. */
static bool is_escaped(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
           c == 0xfffe || c == 0xffff;
}

/* A scalar in double quotes, which may hold anything (YAML 1.2, 7.3.1). */
static void put_scalar(mq_buffer *card, const char *text) {
    size_t left = strlen(text);
    mq_buffer_put_text(card, "\"");
    while (left > 0) {
        uint32_t c;
        const size_t length = mq_utf8_decode(&c, text, left);
        if (c == MQ_UTF8_BAD || is_escaped(c)) {
            mq_buffer_printf(card, "\\u%04x",
                             (unsigned)(c == MQ_UTF8_BAD ? MQ_UTF8_REPLACEMENT : c));
        } else {
            mq_buffer_put_text(card, c == '"' || c == '\\' ? "\\" : "");
            mq_buffer_put(card, text, length);
        }
        text += length;
        left -= length;
    }
    mq_buffer_put_text(card, "\"");
}

/* key with a string, or a list of strings; anything else is left out. */
static void put_value(mq_buffer *card, const char *key, const cJSON *value) {
    if (cJSON_IsString(value)) {
        mq_buffer_printf(card, "%s: ", key);
        put_scalar(card, value->valuestring);
        mq_buffer_put_text(card, "\n");
    }
    const bool is_list = cJSON_IsArray(value);
    bool begun = false;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, value) {
        if (is_list && cJSON_IsString(item)) {
            if (!begun) {
                mq_buffer_printf(card, "%s:\n", key);
            }
            mq_buffer_put_text(card, "- ");
            put_scalar(card, item->valuestring);
            mq_buffer_put_text(card, "\n");
            begun = true;
        }
    }
}

/* --- the header ------------------------------------------------------------------------------- */

/* What config.json calls itself, if that looks like the hub's name of a model, "owner/name"; else
 * NULL. (A folder in a folder looks like one, too.) */
static const char *hub_name(const mq_plan *plan) {
    const char *name = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(mq_master_config(plan->job->master), "_name_or_path"));
    if (name == NULL) {
        return NULL;
    }
    const size_t owner = strcspn(name, "/");
    const char *allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    const bool is_one = owner > 0 && name[0] != '.' && name[owner] == '/' &&
                        name[owner + 1] != '\0' && strspn(name, allowed) == owner &&
                        name[owner + 1 + strspn(name + owner + 1, allowed)] == '\0';
    return is_one ? name : NULL;
}

/* The one that the source's own card names. What config.json calls itself is a second best: it may
 * be the name under which the source's parent was loaded, or a folder. */
static void put_base_model(mq_buffer *card, const mq_plan *plan, const cJSON *of_source) {
    const char *name = hub_name(plan);
    if (of_source != NULL) {
        put_value(card, "base_model", of_source);
    } else if (name != NULL) {
        mq_buffer_put_text(card, "base_model: ");
        mq_buffer_put_text(card, name);
        mq_buffer_put_text(card, "\nbase_model_relation: quantized\n");
    }
}

void mq_export_card_header(mq_buffer *card, const mq_plan *plan, const mq_export_format *format,
                           const cJSON *provenance) {
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    const cJSON *source = cJSON_GetObjectItemCaseSensitive(slice, "model_card");
    mq_buffer_printf(card, "---\nlibrary_name: %s\npipeline_tag: %s\n", format->library,
                     mq_plan_has_other_parts(plan) ? "image-text-to-text" : "text-generation");
    for (const char *const *key = mq_front_matter_keys(); *key != NULL; key++) {
        if (strcmp(*key, "base_model") != 0) {
            put_value(card, *key, cJSON_GetObjectItemCaseSensitive(source, *key));
        }
    }
    put_base_model(card, plan, cJSON_GetObjectItemCaseSensitive(source, "base_model"));
    mq_buffer_put_text(card, "tags:\n- matquant\n- quantized\n---\n\n");
}
