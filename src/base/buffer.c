#include "base/buffer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plain_locale.h"

void mq_buffer_put(mq_buffer *buffer, const char *text, size_t length) {
    if (buffer->failed) {
        return;
    }
    if (buffer->capacity - buffer->length <= length) {
        size_t capacity;
        char *grown = NULL;
        if (mq_add_size(&capacity, buffer->capacity, length) &&
            mq_add_size(&capacity, capacity, 64) && mq_mul_size(&capacity, capacity, 2)) {
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

void mq_buffer_put_text(mq_buffer *buffer, const char *text) {
    mq_buffer_put(buffer, text, strlen(text));
}

static void put_long(mq_buffer *buffer, int length, const char *format, va_list arguments) {
    const size_t size = length >= 0 ? (size_t)length + 1 : 0;
    char *text = length >= 0 ? mq_alloc(size, 1) : NULL;
    if (text == NULL) {
        buffer->failed = true;
        return;
    }
    vsnprintf(text, size, format, arguments);
    mq_buffer_put(buffer, text, size - 1);
    mq_free(text);
}

void mq_buffer_printf(mq_buffer *buffer, const char *format, ...) {
    char text[256];
    va_list arguments, again;
    const mq_plain_locale locale = mq_plain_locale_begin();
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    if (length >= 0 && (size_t)length < sizeof text) {
        mq_buffer_put(buffer, text, (size_t)length);
    } else {
        put_long(buffer, length, format, again);
    }
    va_end(again);
    va_end(arguments);
    mq_plain_locale_end(locale);
}

/* JSON has no infinity and no NaN: null, as cJSON itself does. */
void mq_buffer_put_json_number(mq_buffer *buffer, double value) {
    char text[64];
    if (!isfinite(value)) {
        mq_buffer_put_text(buffer, "null");
        return;
    }
    if (value == floor(value) && fabs(value) < 1e15) { /* 100000, not 1e+05 */
        mq_buffer_printf(buffer, "%.0f", value);
        return;
    }
    const mq_plain_locale locale = mq_plain_locale_begin();
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    mq_plain_locale_end(locale);
    mq_buffer_put_text(buffer, text);
}

void mq_buffer_put_json_string(mq_buffer *buffer, const char *text) {
    mq_buffer_put_text(buffer, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte == '"' || byte == '\\') {
            mq_buffer_put(buffer, (char[]){'\\', *c}, 2);
        } else if (byte == '\n') {
            mq_buffer_put_text(buffer, "\\n");
        } else if (byte == '\t') {
            mq_buffer_put_text(buffer, "\\t");
        } else if (byte < 0x20 || byte == 0x7f) {
            mq_buffer_printf(buffer, "\\u%04x", byte);
        } else {
            mq_buffer_put(buffer, c, 1);
        }
    }
    mq_buffer_put_text(buffer, "\"");
}
