#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

void mq_buffer_printf(mq_buffer *buffer, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
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
