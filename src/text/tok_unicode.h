/* Where the Unicode versions of `tokenizers` and of our libraries differ. */
#ifndef MQ_TEXT_TOK_UNICODE_H
#define MQ_TEXT_TOK_UNICODE_H

#include "text/utf8.h"

/* Appends, as ranges for the inside of a class, the characters that `tokenizers` counts among a
 * general category (or all categories that begin with these letters) and an older PCRE2 does not
 * know yet. Nothing for categories that the shipped patterns do not use (Z, C). */
mq_status mq_unicode_append_newer(mq_bytes *out, const char *category, size_t size, mq_error *err);

/* Whether normalization has to leave the character alone because `tokenizers` does not know it
 * there. */
bool mq_unicode_inert(uint32_t code_point);

#endif
