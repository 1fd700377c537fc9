/* What tokenizer.json says of its model, for whatever else reads it than the tokenizer: the same
 * files are read, and the same merges found in them. */
#ifndef MQ_TEXT_TOK_JSON_MODEL_H
#define MQ_TEXT_TOK_JSON_MODEL_H

#include "base/json.h"

/* Whether "model" is a byte-pair encoding by its type, which files older than that field have not;
 * merges, which the caller looks for, are what only such a model has. */
bool mq_tok_is_bpe(const cJSON *model);

/* What is wrong with a tokenizer_config.json of which no beginning-of-sequence token comes. */
#define MQ_TOK_NO_BOS                                                                              \
    "add_bos_token is set, but neither bos_token here nor bos_token_id in config.json names "      \
    "a token of the vocabulary"

/* The two halves of a merge. They point into the JSON, and left does not end with a 0 where both
 * are of one string. */
typedef struct mq_tok_halves {
    const char *left, *right;
    size_t left_size, right_size; /* bytes */
} mq_tok_halves;

/* An item of "merges": "a b", or ["a", "b"]. False: neither. */
bool mq_tok_read_halves(mq_tok_halves *out, const cJSON *item);
/* Whether it is none but the first line of a merges.txt, "#version: 0.2", which old files carried
 * over. */
bool mq_tok_is_version_line(const cJSON *item);

#endif
