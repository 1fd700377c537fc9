/* Messages, progress and interruption. How a context is made stands in tensor/context.c, since that
 * sets up the BLAS. */
#include "base/context.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/error.h"

size_t mq_context_threads(const mq_context *context) {
    return context != NULL ? context->threads : (size_t)omp_get_max_threads();
}

mq_context mq_context_inner(const mq_context *outer, const mq_sink *sink) {
    mq_context inner = {.threads = mq_context_threads(outer)};
    if (outer != NULL) {
        inner = *outer;
    }
    inner.options.sink = sink != NULL ? *sink : (mq_sink){NULL, NULL, NULL};
    return inner;
}

const char *mq_context_blas(const mq_context *context) { return context->blas; }

void mq_log(const mq_context *context, mq_log_level level, const char *format, ...) {
    if (context == NULL || context->options.sink.message == NULL) {
        return;
    }
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mq_make_printable(text);
    context->options.sink.message(context->options.sink.user, level, text);
}

void mq_report(const mq_context *context, const mq_progress *progress) {
    if (context != NULL && context->options.sink.progress != NULL) {
        context->options.sink.progress(context->options.sink.user, progress);
    }
}

mq_status mq_check_interrupt(const mq_context *context, mq_error *err) {
    if (context != NULL && context->options.interrupted != NULL &&
        *context->options.interrupted != 0) {
        return mq_fail(err, MQ_ERR_INTERRUPTED, "interrupted");
    }
    return MQ_OK;
}

double mq_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
