/* Making a context. It stands in this layer, not in base, since it sets up the BLAS. */
#include <limits.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/context.h"
#include "tensor/gemm.h"

#define MAX_THREADS 4096

/* Processors that this process may run on. */
static size_t usable_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (size_t)CPU_COUNT(&set);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t holds */
    return online > 0 ? (size_t)online : 1;
}

mq_status mq_context_new(mq_context **out, const mq_context_options *options, mq_error *err) {
    mq_context_options resolved = {0};
    if (options != NULL) {
        resolved = *options;
    }
    size_t threads = resolved.threads > 0 ? resolved.threads : usable_processors();
    if (threads > MAX_THREADS) {
        return mq_fail(err, MQ_ERR_USAGE, "%zu threads are too many (at most %d)", threads,
                       MAX_THREADS);
    }
    mq_context *context = NULL;
    mq_status status = mq_new(&context, 1, sizeof *context, "the context", err);
    if (status != MQ_OK) {
        return status;
    }
    *context = (mq_context){.options = resolved, .threads = threads};
    omp_set_num_threads((int)threads);
    mq_gemm_set_threads(threads);
    mq_gemm_describe(context->blas, sizeof context->blas);
    *out = context;
    return MQ_OK;
}

void mq_context_free(mq_context *context) { mq_free(context); }
