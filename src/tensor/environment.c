#include "tensor/environment.h"

#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "matquant/context.h"

#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define KERNEL "OPENBLAS_CORETYPE"
#define WAIT_POLICY "OMP_WAIT_POLICY"
#define SPINS "GOMP_SPINCOUNT"

/* How often a thread of libgomp looks whether those that it waits for are done before it sleeps:
 * some tens of microseconds. Its own 300,000 take milliseconds, in which nobody else has the
 * processor: two short runs at once on two processors were not done after a minute, and take 6.7 s
 * with this; one alone 3.4 and 3.3 s, and 5.5 if threads sleep at once (scripts/bench-waiting.sh).
 */
#define SPIN_COUNT "1000"

const char *mq_blas_kernel_for(const char *chosen, mq_vector_support support) {
    static const char *const old[] = {"Prescott",     "Core2",      "Penryn",     "Dunnington",
                                      "Nehalem",      "Atom",       "Nano",       "Opteron",
                                      "Opteron_SSE3", "Barcelona",  "Bobcat",     "Sandybridge",
                                      "Bulldozer",    "Piledriver", "Steamroller"};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        if (strcmp(chosen, old[i]) == 0) {
            return support.avx512 ? "SkylakeX" : support.avx2 ? "Haswell" : NULL;
        }
    }
    return NULL;
}

static mq_vector_support this_processor(void) {
    mq_vector_support support = {.avx2 = mq_simd_of_processor() >= MQ_SIMD_AVX2};
#if defined(__x86_64__)
    support.avx512 = mq_simd_of_processor() >= MQ_SIMD_AVX512 && __builtin_cpu_supports("avx512cd");
#endif
    return support;
}

const char *mq_blas_better_kernel(void) {
    if (getenv(KERNEL) != NULL) {
        return NULL;
    }
    return mq_blas_kernel_for(openblas_get_corename(), this_processor());
}

#if defined(__linux__)
/* With OMP_PROC_BIND the OpenMP runtime has bound this thread to one place before main began, and
 * what is started anew would see no other processor: it may run in all places. */
static bool unbind(void) {
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int place = 0; place < omp_get_num_places(); place++) {
        int ids[CPU_SETSIZE];
        const int count = omp_get_place_num_procs(place);
        if (count > CPU_SETSIZE) {
            return false;
        }
        omp_get_place_proc_ids(place, ids);
        for (int i = 0; i < count; i++) {
            if (ids[i] < 0 || ids[i] >= CPU_SETSIZE) {
                return false;
            }
            CPU_SET((size_t)ids[i], &all);
        }
    }
    return CPU_COUNT(&all) == 0 || sched_setaffinity(0, sizeof all, &all) == 0;
}

/* Whether the file that the kernel runs is this program, not a loader that was told to run it and
 * would take the first argument for a program. */
static bool runs_itself(void) {
    struct stat running, named;
    const char *name = (const char *)getauxval(AT_EXECFN);
    return name != NULL && stat("/proc/self/exe", &running) == 0 && stat(name, &named) == 0 &&
           running.st_dev == named.st_dev && running.st_ino == named.st_ino;
}

/* By its own path, so that it keeps its name where processes are listed. Returns where it fails,
 * and the thread is bound as it was then. */
static void start_anew(char *const *argv) {
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    cpu_set_t bound;
    if (length <= 0 || (size_t)length >= sizeof path || !runs_itself() ||
        sched_getaffinity(0, sizeof bound, &bound) != 0) {
        return;
    }
    path[length] = '\0';
    if (omp_get_proc_bind() == omp_proc_bind_false || unbind()) {
        execv(path, argv);
    }
    (void)sched_setaffinity(0, sizeof bound, &bound);
}
#else
static void start_anew(char *const *argv) { (void)argv; }
#endif

void mq_take_environment(char *const *argv) {
    const char *kernel = mq_blas_better_kernel();
    const bool spins = getenv(SPINS) == NULL && getenv(WAIT_POLICY) == NULL;
    if (argv[0] == NULL || (kernel == NULL && !spins)) {
        return;
    }
    if ((kernel == NULL || setenv(KERNEL, kernel, 1) == 0) &&
        (!spins || setenv(SPINS, SPIN_COUNT, 1) == 0)) {
        start_anew(argv);
    }
    /* What is loaded has not read them. */
    if (kernel != NULL) {
        (void)unsetenv(KERNEL);
    }
    if (spins) {
        (void)unsetenv(SPINS);
    }
}
