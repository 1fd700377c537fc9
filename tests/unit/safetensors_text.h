/* Small safetensors files by hand. */
#ifndef SAFETENSORS_TEXT_H
#define SAFETENSORS_TEXT_H

#include "base/fault.h"
#include "temporary.h"
#include "tensor/safetensors.h"

static inline int setup(void **state) {
    mq_fault_configure(NULL);
    return temporary_setup(state);
}

static inline int teardown(void **state) {
    mq_fault_configure(NULL);
    mq_alloc_fail_after(0);
    return temporary_teardown(state);
}

/* Writes a safetensors file of this header (not padded) and `size` bytes 0, 1, 2, ... of data. */
static inline const char *write_tensors(temporary *folder, const char *name, const char *header,
                                        size_t size) {
    size_t length = strlen(header);
    unsigned char *bytes = malloc(8 + length + size);
    assert_non_null(bytes);
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    }
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < size; i++) {
        bytes[8 + length + i] = (unsigned char)i;
    }
    const char *path = temporary_write(folder, name, bytes, 8 + length + size);
    free(bytes);
    return path;
}

/* Of a tensor of bytes in a header. */
#define ENTRY(name, count, begin, end)                                                             \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #count "],\"data_offsets\":[" #begin "," #end "]" \
    "}"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
