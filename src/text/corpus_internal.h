/* The two kinds of files that sequences come from. */
#ifndef MQ_TEXT_CORPUS_INTERNAL_H
#define MQ_TEXT_CORPUS_INTERNAL_H

#include "base/file.h"
#include "text/corpus.h"

#define MQ_CORPUS_MAX_SIZE ((size_t)4 << 30) /* bytes, unpacked */

/* Windows of token ids, [count, length], checked to be in [0, vocab_size). */
typedef struct mq_token_rows {
    int32_t *ids; /* mq_free */
    size_t count, length;
    size_t tokens; /* in the file, for messages */
    char sha256[65];
} mq_token_rows;

/* The tokens of a NumPy array file (format versions 1.0 to 3.0), in rows of options->length. */
mq_status mq_corpus_read_npy(mq_token_rows *out, const char *path, const mq_corpus_options *options,
                             const mq_context *context, mq_error *err);

#endif
