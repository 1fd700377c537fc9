/* Regular expressions (PCRE2) that an option gives, looked for in the names of layers. */
#ifndef MQ_QUANT_PATTERNS_H
#define MQ_QUANT_PATTERNS_H

#include "base/alloc.h"

typedef struct mq_pattern mq_pattern;

/* All zero: no patterns. */
typedef struct mq_patterns {
    mq_pattern *items; /* [count], in the order that they were added */
    size_t count, capacity;
    const char *option; /* for messages: "--include" */
    void *match;        /* PCRE2's */
} mq_patterns;

/* An empty list for at most `capacity` patterns, which is to be freed whatever comes back; option
 * must outlive it. */
mq_status mq_patterns_begin(mq_patterns *list, size_t capacity, const char *option, mq_error *err);
/* Adds text[length], no more of them than the capacity; it must outlive the list. MQ_ERR_USAGE: not
 * a regular expression. */
mq_status mq_patterns_add(mq_patterns *list, const char *text, size_t length, mq_error *err);
void mq_patterns_free(mq_patterns *list);

/* *last: one more than the index of the last pattern that is found in the name; 0: none is. All are
 * tried, so that it is known of each whether it is of use. MQ_ERR_USAGE: a pattern takes more steps
 * than PCRE2 makes. */
mq_status mq_patterns_match(size_t *last, mq_patterns *list, const char *name, mq_error *err);

/* The first pattern that was found in none of the names, its length in *length; NULL: there is no
 * such. */
const char *mq_patterns_unused(size_t *length, const mq_patterns *list);

#endif
