/* JSON text of a cJSON value. cJSON's own printer gives numbers of 15 or 17 digits; this one gives
 * the shortest. */
#include <string.h>

#include "base/buffer.h"
#include "base/json.h"

#define INDENT 2

static void put_line_break(mq_buffer *buffer, size_t depth) {
    mq_buffer_put_text(buffer, "\n");
    for (size_t i = 0; i < depth * INDENT; i++) {
        mq_buffer_put_text(buffer, " ");
    }
}

static bool holds_containers(const cJSON *array) {
    for (const cJSON *item = array->child; item != NULL; item = item->next) {
        if (cJSON_IsArray(item) || cJSON_IsObject(item)) {
            return true;
        }
    }
    return false;
}

static void put_value(mq_buffer *buffer, const cJSON *value, size_t depth);

/* An array of numbers or strings stays on one line; everything else has a line an item. */
static void put_items(mq_buffer *buffer, const cJSON *container, size_t depth) {
    bool object = cJSON_IsObject(container);
    bool one_line = !object && !holds_containers(container);
    mq_buffer_put_text(buffer, object ? "{" : "[");
    for (const cJSON *item = container->child; item != NULL; item = item->next) {
        if (!one_line) {
            put_line_break(buffer, depth + 1);
        }
        if (object) {
            mq_buffer_put_json_string(buffer, item->string);
            mq_buffer_put_text(buffer, ": ");
        }
        put_value(buffer, item, depth + 1);
        if (item->next != NULL) {
            mq_buffer_put_text(buffer, one_line ? ", " : ",");
        }
    }
    if (!one_line && container->child != NULL) {
        put_line_break(buffer, depth);
    }
    mq_buffer_put_text(buffer, object ? "}" : "]");
}

static void put_value(mq_buffer *buffer, const cJSON *value, size_t depth) {
    if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        put_items(buffer, value, depth);
    } else if (cJSON_IsString(value)) {
        mq_buffer_put_json_string(buffer, value->valuestring);
    } else if (cJSON_IsNumber(value) && value->valuestring != NULL) {
        mq_buffer_put_text(buffer, value->valuestring); /* mq_json_read */
    } else if (cJSON_IsNumber(value)) {
        mq_buffer_put_json_number(buffer, value->valuedouble);
    } else if (cJSON_IsBool(value)) {
        mq_buffer_put_text(buffer, cJSON_IsTrue(value) ? "true" : "false");
    } else if (cJSON_IsRaw(value)) {
        mq_buffer_put_text(buffer, value->valuestring);
    } else {
        mq_buffer_put_text(buffer, "null");
    }
}

char *mq_json_print(const cJSON *value) {
    mq_buffer buffer = {0};
    put_value(&buffer, value, 0);
    mq_buffer_put_text(&buffer, "\n");
    if (buffer.failed) {
        mq_free(buffer.text);
        return NULL;
    }
    return buffer.text;
}
