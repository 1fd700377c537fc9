/* Tokenizers as tokenizer.json describes them: BPE, either byte-level or SentencePiece's.
 *
 * The supported components are those that the supported model families use. An unknown component is
 * never ignored: opening the file fails with a message that names it. Results equal those of the
 * `tokenizers` package, given the same bytes. Input is UTF-8; each maximal ill-formed subsequence
 * (Unicode 3.9, table 3-8) counts as one U+FFFD, as in Python's bytes.decode("utf-8", "replace").
 */
#ifndef MATQUANT_TOKENIZER_H
#define MATQUANT_TOKENIZER_H

#include "matquant/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_tokenizer mq_tokenizer;

/* Reads FOLDER/tokenizer.json. If its template names no beginning-of-sequence token, also reads
 * tokenizer_config.json and config.json to find one. */
mq_status mq_tokenizer_open(mq_tokenizer **out, const char *folder, mq_error *err);
void mq_tokenizer_free(mq_tokenizer *tokenizer); /* NULL is allowed */

/* Encodes size bytes. *ids is the caller's, to be freed with mq_tokenizer_free_ids. With
 * add_special, the template's tokens (such as a beginning-of-sequence token) are added as the
 * file's post_processor says. Text that spells an added token becomes that token, as with
 * `tokenizers`. Thread-safe: the tokenizer is not changed. */
mq_status mq_tokenizer_encode(int32_t **ids, size_t *count, const mq_tokenizer *tokenizer,
                              const char *text, size_t size, bool add_special, mq_error *err);
void mq_tokenizer_free_ids(int32_t *ids);

/* The text of count tokens, in UTF-8, as made by the file's decoder (ill-formed bytes stay as they
 * are). *text is the caller's, to be freed with mq_tokenizer_free_text; *size does not count the
 * final 0. */
mq_status mq_tokenizer_decode(char **text, size_t *size, const mq_tokenizer *tokenizer,
                              const int32_t *ids, size_t count, bool skip_special, mq_error *err);
void mq_tokenizer_free_text(char *text);

size_t mq_tokenizer_vocab_size(const mq_tokenizer *tokenizer); /* highest id + 1 */
/* The id that the template puts before a sequence, or -1. */
int32_t mq_tokenizer_bos(const mq_tokenizer *tokenizer);

#ifdef __cplusplus
}
#endif
#endif
