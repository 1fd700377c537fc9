#include "text/utf8.h"

#include <string.h>

bool mq_is_white_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

mq_status mq_bytes_reserve(mq_bytes *bytes, size_t extra, mq_error *err) {
    size_t needed;
    if (!mq_add_size(&needed, bytes->size, extra)) {
        return mq_fail_memory(err, "text", SIZE_MAX);
    }
    if (needed <= bytes->capacity) {
        return MQ_OK;
    }
    size_t capacity = bytes->capacity < SIZE_MAX / 2 ? 2 * bytes->capacity : SIZE_MAX;
    if (capacity < needed) {
        capacity = needed;
    }
    if (capacity < 64) {
        capacity = 64;
    }
    char *data = mq_realloc(bytes->data, capacity, 1);
    if (!data) {
        return mq_fail_memory(err, "text", capacity);
    }
    bytes->data = data;
    bytes->capacity = capacity;
    return MQ_OK;
}

mq_status mq_bytes_append(mq_bytes *bytes, const void *data, size_t size, mq_error *err) {
    if (size > bytes->capacity - bytes->size) {
        mq_status status = mq_bytes_reserve(bytes, size, err);
        if (status) {
            return status;
        }
    }
    if (size) {
        memcpy(bytes->data + bytes->size, data, size);
        bytes->size += size;
    }
    return MQ_OK;
}

mq_status mq_bytes_append_char(mq_bytes *bytes, uint32_t code_point, mq_error *err) {
    char encoded[4];
    size_t length = mq_utf8_encode(encoded, code_point);
    return mq_bytes_append(bytes, encoded, length, err);
}

void mq_bytes_free(mq_bytes *bytes) {
    mq_free(bytes->data);
    *bytes = (mq_bytes){0};
}

mq_status mq_utf8_repair(mq_bytes *out, const char *text, size_t size, mq_error *err) {
    mq_status status = mq_bytes_reserve(out, size, err);
    size_t good = 0; /* where the well-formed run that is not copied yet begins */
    for (size_t at = 0; at < size && !status;) {
        uint32_t code_point;
        size_t length = mq_utf8_decode(&code_point, text + at, size - at);
        if (code_point == MQ_UTF8_BAD) {
            status = mq_bytes_append(out, text + good, at - good, err);
            if (!status) {
                status = mq_bytes_append_char(out, MQ_UTF8_REPLACEMENT, err);
            }
            good = at + length;
        }
        at += length;
    }
    return status ? status : mq_bytes_append(out, text + good, size - good, err);
}
