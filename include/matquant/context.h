/* What a job runs with: threads, where its messages and progress go, and whether it has been asked
 * to stop. */
#ifndef MATQUANT_CONTEXT_H
#define MATQUANT_CONTEXT_H

#include <signal.h>

#include "matquant/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mq_log_level { MQ_LOG_WARNING, MQ_LOG_INFO, MQ_LOG_DEBUG } mq_log_level;

/* One step of a long job. done counts work that is finished, so done == total only at the very end.
 */
typedef struct mq_progress {
    const char *phase;      /* "learn", "evaluate", ...: static text */
    const char *unit;       /* what done and total count: "block", "window", ...: static text */
    double done, total;     /* in units; fractions are steps inside a unit */
    double elapsed_seconds; /* since the phase began */
    const char *detail;     /* one line about the unit just finished, or NULL while inside a unit */
    /* Of done and of elapsed_seconds: work that an earlier run did and this one took over, which
     * says nothing about how long the rest will take. */
    double taken, taken_seconds;
} mq_progress;

/* Both callbacks may be NULL. They are called from the thread that called the library, never
 * concurrently. */
typedef struct mq_sink {
    void *user;
    void (*message)(void *user, mq_log_level level, const char *text);
    void (*progress)(void *user, const mq_progress *progress);
} mq_sink;

typedef struct mq_context_options {
    size_t threads; /* 0: as many as the process may use */
    mq_sink sink;   /* copied */
    const volatile sig_atomic_t
        *interrupted; /* NULL, or a flag that a signal handler sets to ask for a stop */
} mq_context_options;

/* Where a function of this library takes a const mq_context *, NULL stands for one that says
 * nothing and is never interrupted, with as many threads as OpenMP would start. */
typedef struct mq_context mq_context;

/* *out is the caller's, to be freed with mq_context_free. options may be NULL (all defaults). Sets
 * the number of threads of OpenMP and of the BLAS for the process: two contexts at once should not
 * differ in it. */
mq_status mq_context_new(mq_context **out, const mq_context_options *options, mq_error *err);
void mq_context_free(mq_context *context); /* NULL is allowed */

size_t mq_context_threads(const mq_context *context);

/* Name of the BLAS and of the kernel that it chose for this machine, such as "OpenBLAS 0.3.21
 * SkylakeX"; not of NULL. The context's. */
const char *mq_context_blas(const mq_context *context);

/* The kernel that OpenBLAS should be told to take (OPENBLAS_CORETYPE), where it took one from
 * before AVX2 although the processor has more, as it does on processors that are newer than it;
 * NULL where it chose well, and where that variable is set, which is the user's choice. Static
 * text. Products are slow with such a kernel. */
const char *mq_blas_better_kernel(void);

/* For the first line of main: libraries that this one uses read how they should work when they are
 * loaded, so this sets OPENBLAS_CORETYPE to that kernel and GOMP_SPINCOUNT, by which threads that
 * wait for one another soon sleep (unless it or OMP_WAIT_POLICY is set), and starts the program
 * anew with the arguments argv (NULL at their end); what the program has done before is lost.
 * Returns, with nothing changed, where nothing is to be set and where the program cannot be started
 * anew: not under Linux, /proc not there, run by a loader. */
void mq_take_environment(char *const *argv);

#ifdef __cplusplus
}
#endif
#endif
