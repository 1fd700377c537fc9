/* Text that is put together: a growing byte buffer, and what becomes of bytes that are no UTF-8. */
#ifndef MQ_TEXT_UTF8_H
#define MQ_TEXT_UTF8_H

#include "base/alloc.h"
#include "base/utf8.h"

/* The property White_Space. */
bool mq_is_white_space(uint32_t code_point);

/* A buffer that grows; zero-initialized it is empty. data is NULL until something is appended. */
typedef struct mq_bytes {
    char *data; /* mq_free */
    size_t size, capacity;
} mq_bytes;

/* MQ_ERR_MACHINE when there is no memory; the contents stay. */
mq_status mq_bytes_reserve(mq_bytes *bytes, size_t extra, mq_error *err);
mq_status mq_bytes_append(mq_bytes *bytes, const void *data, size_t size, mq_error *err);
mq_status mq_bytes_append_char(mq_bytes *bytes, uint32_t code_point, mq_error *err);
void mq_bytes_free(mq_bytes *bytes);

/* Appends text with each maximal ill-formed subsequence replaced by U+FFFD. */
mq_status mq_utf8_repair(mq_bytes *out, const char *text, size_t size, mq_error *err);

#endif
