#include "base/machine.h"

#include <sched.h>
#include <stdio.h>

mq_simd mq_simd_best(void) {
#if defined(__x86_64__)
    /* Every processor with AVX2 has F16C, which clang's builtin has no name for. */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return MQ_SIMD_NONE;
    }
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
               ? MQ_SIMD_AVX512
               : MQ_SIMD_AVX2;
#else
    return MQ_SIMD_NONE;
#endif
}

/* A number from a file of one line; false for "max" and where there is no such file. */
static bool number_in(size_t *out, const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    unsigned long long number;
    const bool good = fscanf(file, "%llu", &number) == 1;
    fclose(file);
    if (good) {
        *out = (size_t)number;
    }
    return good;
}

/* A container's limit may be below what the machine has. What the container uses already is not
 * subtracted: most of that is cached files, which make room. */
static void bound_by_group(size_t *available) {
    size_t limit;
    if (number_in(&limit, "/sys/fs/cgroup/memory.max") && limit < *available) {
        *available = limit;
    }
}

bool mq_memory_available(size_t *out) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) {
        return false;
    }
    char line[256];
    unsigned long long kibibytes;
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "MemAvailable: %llu kB", &kibibytes) == 1;
    }
    fclose(file);
    if (found) {
        *out = (size_t)kibibytes * 1024;
        bound_by_group(out);
    }
    return found;
}

void mq_take_processor(size_t number) {
#if defined(CPU_ZERO)
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return; /* more processors than the set has room for */
    }
    size_t left = number % (size_t)CPU_COUNT(&allowed);
    size_t processor = 0;
    while (!CPU_ISSET(processor, &allowed) || left-- > 0) {
        processor++;
    }
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) {
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
    }
#else
    (void)number;
#endif
}
