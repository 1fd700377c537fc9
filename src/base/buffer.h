/* A text that grows at its end. */
#ifndef MQ_BASE_BUFFER_H
#define MQ_BASE_BUFFER_H

#include "base/alloc.h"

/* Starts as {0}; text is 0-terminated once anything was put. After a lack of memory nothing more is
 * put, so that it is enough to look at `failed` once, at the end. text is the owner's (mq_free). */
typedef struct mq_buffer {
    char *text;
    size_t length, capacity;
    bool failed;
} mq_buffer;

void mq_buffer_put(mq_buffer *buffer, const char *text, size_t length);
void mq_buffer_put_text(mq_buffer *buffer, const char *text);
void mq_buffer_printf(mq_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A number as JSON has it, whatever the locale: the shortest text that reads back the same double;
 * null for what is not finite. */
void mq_buffer_put_json_number(mq_buffer *buffer, double value);
/* A JSON string literal, quotes and escapes and all; text in UTF-8. */
void mq_buffer_put_json_string(mq_buffer *buffer, const char *text);

#endif
