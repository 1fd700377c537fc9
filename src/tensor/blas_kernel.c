#include "tensor/blas_kernel.h"

#include <cblas.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "matquant/context.h"

#define VARIABLE "OPENBLAS_CORETYPE"

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
    if (getenv(VARIABLE) != NULL) {
        return NULL;
    }
    return mq_blas_kernel_for(openblas_get_corename(), this_processor());
}

void mq_blas_take_kernel(char *const *argv) {
    const char *kernel = mq_blas_better_kernel();
    if (kernel != NULL && setenv(VARIABLE, kernel, 1) == 0) {
        execv("/proc/self/exe", argv);
        (void)unsetenv(VARIABLE); /* what is loaded has not read it */
    }
}
