#include "tensor/environment.h"

#include <cblas.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "matquant/context.h"

#define KERNEL "OPENBLAS_CORETYPE"
#define WAIT_POLICY "OMP_WAIT_POLICY"
#define SPINS "GOMP_SPINCOUNT"

/* How often a thread of libgomp looks whether those that it waits for are done before it sleeps:
 * some tens of microseconds. Its own 300,000 take milliseconds, in which nobody else has the
 * processor: two short runs at once on two processors then took 11 to 54 s, and take 6 with this,
 * one alone 3 either way; 4 if threads sleep at once. (scripts/bench-waiting.sh) */
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
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return (mq_vector_support){
        .avx2 = avx2,
        .avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl")};
#else
    return (mq_vector_support){0};
#endif
}

const char *mq_blas_better_kernel(void) {
    if (getenv(KERNEL) != NULL) {
        return NULL;
    }
    return mq_blas_kernel_for(openblas_get_corename(), this_processor());
}

/* By its own path, so that it keeps its name where processes are listed. Returns where it fails. */
static void start_anew(char *const *argv) {
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    if (length > 0 && (size_t)length < sizeof path) {
        path[length] = '\0';
        execv(path, argv);
    }
}

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
