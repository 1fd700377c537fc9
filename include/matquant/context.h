/* What a job runs with: threads, where its messages and progress go, and whether it has been asked
 * to stop.
 *
 * One call of mq_quantize, mq_slice, mq_evaluate or mq_verify at a time per process: the BLAS's
 * thread count and the memory counters are the process's. Different contexts may be used one after
 * the other. The BLAS's thread count, and OpenMP's of the calling thread, are the last job's
 * afterwards, also if it had no context.
 *
 * Threads of OpenMP do not survive fork(2): in a child of a process that has run a job, a job of
 * more than one thread waits for ever. Fork before the first job, run jobs in a thread that has
 * ended by then, or let the child have one thread.
 *
 * Signals are the program's; this library sets no handlers. What is beyond a limit on the size of
 * files is MQ_ERR_MACHINE only where SIGXFSZ is ignored (signal(SIGXFSZ, SIG_IGN)): otherwise it
 * ends the program. Models are mapped into memory, and what cannot be read of a mapping (a disk
 * error, or a file that was cut short meanwhile) raises SIGBUS, which is no error of a call: a
 * handler can say so and end the process. The program matquant does both. */
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
    /* The parts of done and of elapsed_seconds that an earlier run did and this one took over. They
     * say nothing about how long the rest will take. */
    double taken, taken_seconds;
} mq_progress;

/* Where messages and progress go. Both callbacks may be NULL. They are called from the thread that
 * called the library, never concurrently, and possibly from inside an OpenMP region of that thread.
 * What they are given is theirs until they return, which they must: an exception or longjmp would
 * leave locks and temporary folders behind. Messages, those of mq_error too, name the options of
 * the command-line program ("--group-size"), not the members of the structs here. */
typedef struct mq_sink {
    void *user;
    void (*message)(void *user, mq_log_level level, const char *text);
    void (*progress)(void *user, const mq_progress *progress);
} mq_sink;

typedef struct mq_context_options {
    size_t threads; /* 0: as many as the process may use, and OMP_NUM_THREADS says, if it is set */
    mq_sink sink;   /* copied */
    const volatile sig_atomic_t
        *interrupted; /* NULL, or a flag that a signal handler, a callback or another thread sets
                         to ask for a stop; it outlives the context */
} mq_context_options;

/* Where a function of this library takes a const mq_context *, NULL stands for a context that is
 * silent and never interrupted, with as many threads as OpenMP would start. */
typedef struct mq_context mq_context;

/* On success *out is the caller's, to be freed with mq_context_free. options may be NULL (all
 * defaults). Sets the number of threads of OpenMP, for the calling thread, and of the BLAS, for the
 * process. So do the functions that a context is given to, which may be called from another thread
 * than this one; they leave it so. MQ_ERR_MACHINE if so many threads cannot be started, or there is
 * too little address space for them. MQ_ERR_USAGE if the environment variable MATQUANT_KERNELS,
 * which the library reads once, is not the name of an instruction set that this processor has
 * (base, avx2, avx512); without a context such a name counts for nothing. */
mq_status mq_context_new(mq_context **out, const mq_context_options *options, mq_error *err);
void mq_context_free(mq_context *context); /* NULL is allowed */

size_t mq_context_threads(const mq_context *context);

/* Name of the BLAS and of the kernel that it chose for this machine, such as "OpenBLAS 0.3.21
 * SkylakeX". The text belongs to the context, which must not be NULL. */
const char *mq_context_blas(const mq_context *context);

/* The kernel that OpenBLAS should be told to use (OPENBLAS_CORETYPE) if it chose one from before
 * AVX2 although the processor has more; it does so on processors that are newer than itself, and
 * matrix products are then slow. NULL if it chose well, or if that variable is set, which is the
 * user's choice. Static text. */
const char *mq_blas_better_kernel(void);

/* For the first line of main. Libraries that this one uses read their settings when they are
 * loaded. Therefore this function sets OPENBLAS_CORETYPE to the kernel above, and GOMP_SPINCOUNT
 * (unless it or OMP_WAIT_POLICY is set) such that threads that wait for one another soon sleep;
 * then it restarts the program with the arguments argv, which end with NULL. Anything that the
 * program has done before is lost. Returns, with nothing changed, if nothing has to be set or the
 * program cannot be restarted: not Linux, no /proc, run by a loader. */
void mq_take_environment(char *const *argv);

#ifdef __cplusplus
}
#endif
#endif
