/* Token sequences for calibration and evaluation, out of files. */
#ifndef MQ_TEXT_CORPUS_H
#define MQ_TEXT_CORPUS_H

#include "base/context.h"
#include "base/random.h"
#include "matquant/tokenizer.h"

/* count sequences of length tokens, [count, length] row-major. */
typedef struct mq_sequences {
    int32_t *ids; /* mq_free */
    size_t count, length;
    bool bos;        /* each begins with the beginning-of-sequence token, which was put there */
    char sha256[65]; /* of the file that they are from, as it was read; "": from none */
} mq_sequences;

typedef struct mq_corpus_options {
    size_t length;    /* tokens a sequence, the BOS counted in */
    size_t max_count; /* at most so many sequences; 0: all */
    size_t min_count; /* with sample: fewer is an error; 0: max_count */
    bool bos;    /* begin each with the tokenizer's beginning-of-sequence token, if its template has
                    one */
    bool sample; /* true (calibration): sequences drawn over the whole text by seed; false
                    (evaluation): the first ones, in order */
    uint64_t seed;
    size_t vocab_size; /* of the model: an id that is not below it is MQ_ERR_INPUT */
} mq_corpus_options;

/* path is .txt (any other name but .json, which is refused unread, too; JSON lines under such a
 * name are refused when the first is read), .jsonl or .ndjson (one object a line with the key
 * "text"), either gzipped, or .npy token ids (1-D or [n, length], any integer type, C order; then
 * no tokenizer is needed and no BOS is added: the ids are taken as they are, 2-D rows are cut into
 * as many windows of `length` as they have; they must have one).
 *
 * Text: the documents (jsonl) or the whole file (txt) are tokenized without special tokens,
 * documents joined by two newlines as text, and cut into consecutive windows of `length` (length -
 * 1 and the BOS, with bos). With sample, the windows are shuffled by seed and the first max_count
 * taken, in the shuffled order. A window at the end that is not full is dropped. MQ_ERR_INPUT:
 * empty, not UTF-8 (with the offset), more than 1 GiB of text, broken gzip, a line that is not JSON
 * or has no "text", fewer than min_count windows when sample is set (says how many tokens there are
 * and how many are needed), fewer than one otherwise. out->ids is the caller's. tokenizer may be
 * NULL for .npy only.
 */
mq_status mq_corpus_load(mq_sequences *out, const char *path, const mq_tokenizer *tokenizer,
                         const mq_corpus_options *options, const mq_context *context,
                         mq_error *err);
/* True for a path that is read as token ids (.npy, gzipped or not) and so needs no tokenizer. */
bool mq_corpus_is_ids(const char *path);
void mq_sequences_free(mq_sequences *sequences);

#endif
