/* The inside of mq_context: sending messages and progress, and asking whether to stop. */
#ifndef MQ_BASE_CONTEXT_H
#define MQ_BASE_CONTEXT_H

#include "matquant/context.h"

struct mq_context {
    mq_context_options options;
    size_t threads; /* resolved, at least 1 */
    char blas[96];
};

/* context may be NULL in all of these, too (matquant/context.h). */
void mq_log(const mq_context *context, mq_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void mq_report(const mq_context *context, const mq_progress *progress);

/* MQ_OK, or MQ_ERR_INTERRUPTED with err filled in once the interrupted flag is set. */
mq_status mq_check_interrupt(const mq_context *context, mq_error *err);

/* For the first line of public functions that divide their work: from now on the calling thread's
 * parallel regions, and the BLAS, have the context's number of threads. Nothing with NULL. (In
 * tensor/context.c.) */
void mq_context_use(const mq_context *context);

/* outer with another sink, or (NULL) none: for work that says nothing, or whose progress is part of
 * another's. */
mq_context mq_context_inner(const mq_context *outer, const mq_sink *sink);

double mq_seconds(void); /* monotonic clock */

#endif
