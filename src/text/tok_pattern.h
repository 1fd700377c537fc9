/* Patterns that text is split at or replaced by. */
#ifndef MQ_TEXT_TOK_PATTERN_H
#define MQ_TEXT_TOK_PATTERN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/utf8.h"

typedef enum mq_pattern_kind {
    MQ_PATTERN_LITERAL,
    MQ_PATTERN_REGEX,
    MQ_PATTERN_WHITE_SPACE /* one character with White_Space */
} mq_pattern_kind;

typedef struct mq_pattern {
    mq_pattern_kind kind;
    char *literal; /* mq_free */
    size_t literal_size;
    pcre2_code *code;
} mq_pattern;

/* What matching needs besides the pattern: one for each thread, good for every pattern. */
typedef struct mq_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} mq_matcher;

mq_status mq_matcher_init(mq_matcher *matcher, mq_error *err);
void mq_matcher_free(mq_matcher *matcher);

/* MQ_ERR_INPUT when it is empty (err has no file). */
mq_status mq_pattern_literal(mq_pattern *out, const char *text, size_t size, mq_error *err);

/* A regular expression in the syntax and with the meaning that `tokenizers` gives it, which is
 * Oniguruma's Ruby syntax. Constructs that PCRE2 takes otherwise are translated; those for which
 * that is not possible are refused (MQ_ERR_INPUT with the position in the pattern; err has no
 * file). */
mq_status mq_pattern_regex(mq_pattern *out, const char *regex, mq_error *err);

/* The same text for PCRE2 (appended to out, no 0 at the end). */
mq_status mq_regex_translate(mq_bytes *out, const char *regex, mq_error *err);

void mq_pattern_free(mq_pattern *pattern);

/* Walks the matches in well-formed text: leftmost, not overlapping, no empty match where the last
 * match ended. */
typedef struct mq_find {
    const mq_pattern *pattern;
    mq_matcher *matcher;
    const char *text;
    size_t size;
    size_t at;       /* where to search on */
    size_t last_end; /* of the last match; SIZE_MAX before the first */
} mq_find;

mq_find mq_find_begin(const mq_pattern *pattern, mq_matcher *matcher, const char *text,
                      size_t size);
/* *found = false: there are no more, start and end are then not set. */
mq_status mq_find_next(mq_find *find, bool *found, size_t *start, size_t *end, mq_error *err);

#endif
