#include "export/fit.h"

const mq_fit_kernels *mq_fit_kernels_best(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                   ? &mq_fit_kernels_avx512
                   : &mq_fit_kernels_avx2;
    }
#endif
    return &mq_fit_kernels_base;
}
