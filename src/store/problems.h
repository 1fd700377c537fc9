/* What a reader does with a thing that it must reject: stop there (opening a file), or note it and
 * look on (verify). */
#ifndef MQ_STORE_PROBLEMS_H
#define MQ_STORE_PROBLEMS_H

#include "base/context.h"
#include "base/error.h"

typedef struct mq_problems {
    const mq_context *context; /* each problem is sent there as a warning */
    size_t count;
    mq_error first;
} mq_problems;

/* problems == NULL: gives *problem to err and returns its status, for the caller to return.
 * Otherwise counts it and returns MQ_OK, and the caller leaves out what cannot be used. Only
 * MQ_ERR_INPUT is a problem: what the machine fails at ends the job in both cases. */
mq_status mq_problem(mq_problems *problems, const mq_error *problem, mq_error *err);

#endif
