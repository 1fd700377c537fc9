/* UTF-8: decoding with the treatment of ill-formed bytes that the interface promises. */
#ifndef MQ_BASE_UTF8_H
#define MQ_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MQ_UTF8_BAD UINT32_MAX
#define MQ_UTF8_REPLACEMENT 0xfffdU

/* Decodes what begins at text (size > 0 bytes are left). Returns its length in bytes; *code_point
 * is the code point, or MQ_UTF8_BAD when these bytes are a maximal ill-formed subsequence (Unicode
 * 15, section 3.9, table 3-8), 1 to 3 bytes long. */
size_t mq_utf8_decode(uint32_t *code_point, const char *text, size_t size);

/* Writes a code point (not a surrogate, below 0x110000) and returns its length, 1 to 4. */
size_t mq_utf8_encode(char out[4], uint32_t code_point);

/* Whether all of text is well-formed; if not, *offset (may be NULL) is that of the first ill-formed
 * byte. */
bool mq_utf8_valid(size_t *offset, const char *text, size_t size);

/* The length of the byte order mark (U+FEFF) with which some editors begin UTF-8: 3, or 0 if text
 * does not begin with one. */
size_t mq_utf8_mark(const char *text, size_t size);

#endif
