#include "base/utf8.h"

#include <string.h>

/* The range that the second byte must be in, by the first one (table 3-7): it is what excludes
 * overlong forms, surrogates and code points above 0x10ffff. */
static bool second_byte_fits(unsigned char first, unsigned char second) {
    unsigned char low = 0x80, high = 0xbf;
    if (first == 0xe0) {
        low = 0xa0;
    } else if (first == 0xed) {
        high = 0x9f;
    } else if (first == 0xf0) {
        low = 0x90;
    } else if (first == 0xf4) {
        high = 0x8f;
    }
    return second >= low && second <= high;
}

size_t mq_utf8_decode(uint32_t *code_point, const char *text, size_t size) {
    const unsigned char *bytes = (const unsigned char *)text;
    unsigned char first = bytes[0];
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    *code_point = MQ_UTF8_BAD;
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || size < 2 || !second_byte_fits(first, bytes[1])) {
        return 1;
    }
    uint32_t value = first & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if (i == size || (bytes[i] & 0xc0) != 0x80) {
            return i;
        }
        value = value << 6 | (bytes[i] & 0x3fU);
    }
    *code_point = value;
    return length;
}

size_t mq_utf8_encode(char out[4], uint32_t code_point) {
    unsigned char *bytes = (unsigned char *)out;
    if (code_point < 0x80) {
        bytes[0] = (unsigned char)code_point;
        return 1;
    }
    size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        bytes[i] = (unsigned char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    bytes[0] = (unsigned char)(lead[length] | code_point);
    return length;
}

/* Whether eight bytes are characters of one byte each. */
static bool are_ascii(const char *text) {
    uint64_t eight;
    memcpy(&eight, text, sizeof eight);
    return (eight & UINT64_C(0x8080808080808080)) == 0;
}

bool mq_utf8_valid(size_t *offset, const char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        if (size - at >= 8 && are_ascii(text + at)) {
            at += 8;
            continue;
        }
        uint32_t code_point;
        size_t length = mq_utf8_decode(&code_point, text + at, size - at);
        if (code_point == MQ_UTF8_BAD) {
            if (offset) {
                *offset = at;
            }
            return false;
        }
        at += length;
    }
    return true;
}

size_t mq_utf8_mark(const char *text, size_t size) {
    static const char mark[] = "\xef\xbb\xbf";
    const size_t length = sizeof mark - 1;
    return size >= length && memcmp(text, mark, length) == 0 ? length : 0;
}
