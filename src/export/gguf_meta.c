#include "export/gguf_meta.h"

#include <assert.h>
#include <string.h>

void mq_gguf_put_u32(mq_buffer *buffer, uint32_t value) {
    char bytes[4];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(value >> (8 * i) & 0xff);
    }
    mq_buffer_put(buffer, bytes, sizeof bytes);
}

void mq_gguf_put_u64(mq_buffer *buffer, uint64_t value) {
    char bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(value >> (8 * i) & 0xff);
    }
    mq_buffer_put(buffer, bytes, sizeof bytes);
}

void mq_gguf_put_f32(mq_buffer *buffer, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    mq_gguf_put_u32(buffer, bits);
}

void mq_gguf_put_string(mq_buffer *buffer, const char *text, size_t length) {
    mq_gguf_put_u64(buffer, length);
    mq_buffer_put(buffer, text, length);
}

static mq_buffer *begin(mq_gguf_meta *meta, const char *key, uint32_t type) {
    mq_gguf_put_string(&meta->bytes, key, strlen(key));
    mq_gguf_put_u32(&meta->bytes, type);
    meta->count++;
    return &meta->bytes;
}

void mq_gguf_u32(mq_gguf_meta *meta, const char *key, size_t value) {
    assert(value <= UINT32_MAX);
    mq_gguf_put_u32(begin(meta, key, MQ_GGUF_U32), (uint32_t)value);
}

void mq_gguf_i32(mq_gguf_meta *meta, const char *key, int32_t value) {
    mq_gguf_put_u32(begin(meta, key, MQ_GGUF_I32), (uint32_t)value);
}

void mq_gguf_f32(mq_gguf_meta *meta, const char *key, double value) {
    mq_gguf_put_f32(begin(meta, key, MQ_GGUF_F32), (float)value);
}

void mq_gguf_bool(mq_gguf_meta *meta, const char *key, bool value) {
    const char byte = value ? 1 : 0;
    mq_buffer_put(begin(meta, key, MQ_GGUF_BOOL), &byte, 1);
}

void mq_gguf_string(mq_gguf_meta *meta, const char *key, const char *value) {
    mq_gguf_put_string(begin(meta, key, MQ_GGUF_STRING), value, strlen(value));
}

void mq_gguf_array(mq_gguf_meta *meta, const char *key, mq_gguf_type type, size_t count) {
    static const uint32_t array = 9;
    mq_buffer *bytes = begin(meta, key, array);
    mq_gguf_put_u32(bytes, type);
    mq_gguf_put_u64(bytes, count);
}
