/* Small safetensors files by hand. */
#ifndef SAFETENSORS_TEXT_H
#define SAFETENSORS_TEXT_H

#include "faulty_folder.h"
#include "tensor/safetensors.h"

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
