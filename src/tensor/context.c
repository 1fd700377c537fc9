/* Making a context. It stands in this layer, not in base, since it sets up the BLAS. */
#include <omp.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/machine.h"
#include "tensor/gemm.h"

#define MAX_THREADS 4096

/* Processors that this process may run on, and no more of them than OMP_NUM_THREADS says (first, of
 * a list). Not this thread's affinity: with OMP_PROC_BIND the OpenMP runtime has bound it to one of
 * them before main began. Nor omp_get_max_threads: a job leaves that as it was set for it. */
static size_t usable_processors(void) {
    const char *variable = getenv("OMP_NUM_THREADS");
    const int processors = omp_get_num_procs();
    const long most = variable != NULL ? strtol(variable, NULL, 10) : 0;
    const size_t usable = processors > 0 ? (size_t)processors : 1;
    return most > 0 ? mq_smaller(usable, (size_t)most) : usable;
}

/* OpenMP and the BLAS each start threads of their own, and where they cannot, they end the program
 * in their own way. The BLAS does so once it is told their number, OpenMP later. */
static mq_status start_threads(const mq_context *context, mq_error *err) {
    const size_t started = mq_gemm_threads();
    mq_status status = mq_check_threads(context->threads, err);
    if (status == MQ_OK && context->threads > started) {
        status = mq_gemm_check_buffers(context->threads - started, err);
    }
    if (status == MQ_OK) {
        mq_context_use(context);
        status = mq_check_threads(context->threads, err);
    }
    return status;
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
    mq_status status = mq_simd_check(err);
    if (status == MQ_OK) {
        status = mq_new(&context, 1, sizeof *context, "the context", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    *context = (mq_context){.options = resolved, .threads = threads};
    status = start_threads(context, err);
    if (status != MQ_OK) {
        mq_context_free(context);
        return status;
    }
    mq_gemm_describe(context->blas, sizeof context->blas);
    *out = context;
    return MQ_OK;
}

void mq_context_use(const mq_context *context) {
    if (context != NULL) {
        omp_set_num_threads((int)context->threads); /* libgomp's number is each thread's own */
        mq_gemm_set_threads(context->threads);
    }
}

void mq_context_free(mq_context *context) { mq_free(context); }
