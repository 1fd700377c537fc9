/* JSON text of a cJSON value. cJSON's own printer gives numbers of 15 or 17 digits; this one gives
 * the shortest. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define INDENT 2

typedef struct text_buffer {
    char *text;
    size_t length, capacity;
    bool failed; /* no memory: the rest is not written */
} text_buffer;

static void put(text_buffer *buffer, const char *text, size_t length) {
    if (buffer->failed) {
        return;
    }
    if (buffer->capacity - buffer->length <= length) {
        size_t capacity;
        char *grown = NULL;
        if (mq_add_size(&capacity, buffer->capacity, length + 64) &&
            mq_mul_size(&capacity, capacity, 2)) {
            grown = mq_realloc(buffer->text, capacity, 1);
        }
        if (grown == NULL) {
            buffer->failed = true;
            return;
        }
        buffer->text = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->text + buffer->length, text, length);
    buffer->length += length;
    buffer->text[buffer->length] = '\0';
}

static void put_text(text_buffer *buffer, const char *text) { put(buffer, text, strlen(text)); }

static void put_line_break(text_buffer *buffer, size_t depth) {
    put_text(buffer, "\n");
    for (size_t i = 0; i < depth * INDENT; i++) {
        put_text(buffer, " ");
    }
}

/* JSON has no infinity and no NaN: null, as cJSON itself does. */
static void put_number(text_buffer *buffer, double value) {
    char text[64];
    if (!isfinite(value)) {
        put_text(buffer, "null");
        return;
    }
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(text, sizeof text, "%.0f", value);
        put_text(buffer, text);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    /* The program around the library may have set a locale with another decimal point. */
    for (char *c = text; *c != '\0'; c++) {
        if (strchr("0123456789+-e", *c) == NULL) {
            *c = '.';
        }
    }
    put_text(buffer, text);
}

static void put_string(text_buffer *buffer, const char *string) {
    put_text(buffer, "\"");
    for (const char *c = string; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte == '"' || byte == '\\') {
            put(buffer, (char[]){'\\', *c}, 2);
        } else if (byte == '\n') {
            put_text(buffer, "\\n");
        } else if (byte == '\t') {
            put_text(buffer, "\\t");
        } else if (byte < 0x20 || byte == 0x7f) {
            char escape[8];
            snprintf(escape, sizeof escape, "\\u%04x", byte);
            put_text(buffer, escape);
        } else {
            put(buffer, c, 1);
        }
    }
    put_text(buffer, "\"");
}

static bool holds_containers(const cJSON *array) {
    for (const cJSON *item = array->child; item != NULL; item = item->next) {
        if (cJSON_IsArray(item) || cJSON_IsObject(item)) {
            return true;
        }
    }
    return false;
}

static void put_value(text_buffer *buffer, const cJSON *value, size_t depth);

/* An array of numbers or strings stays on one line; everything else has a line an item. */
static void put_items(text_buffer *buffer, const cJSON *container, size_t depth) {
    bool object = cJSON_IsObject(container);
    bool one_line = !object && !holds_containers(container);
    put_text(buffer, object ? "{" : "[");
    for (const cJSON *item = container->child; item != NULL; item = item->next) {
        if (!one_line) {
            put_line_break(buffer, depth + 1);
        }
        if (object) {
            put_string(buffer, item->string);
            put_text(buffer, ": ");
        }
        put_value(buffer, item, depth + 1);
        if (item->next != NULL) {
            put_text(buffer, one_line ? ", " : ",");
        }
    }
    if (!one_line && container->child != NULL) {
        put_line_break(buffer, depth);
    }
    put_text(buffer, object ? "}" : "]");
}

static void put_value(text_buffer *buffer, const cJSON *value, size_t depth) {
    if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        put_items(buffer, value, depth);
    } else if (cJSON_IsString(value)) {
        put_string(buffer, value->valuestring);
    } else if (cJSON_IsNumber(value)) {
        put_number(buffer, value->valuedouble);
    } else if (cJSON_IsBool(value)) {
        put_text(buffer, cJSON_IsTrue(value) ? "true" : "false");
    } else if (cJSON_IsRaw(value)) {
        put_text(buffer, value->valuestring);
    } else {
        put_text(buffer, "null");
    }
}

char *mq_json_print(const cJSON *value) {
    text_buffer buffer = {0};
    put_value(&buffer, value, 0);
    put_text(&buffer, "\n");
    if (buffer.failed) {
        mq_free(buffer.text);
        return NULL;
    }
    return buffer.text;
}
