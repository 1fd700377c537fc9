#include "base/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fault.h"

/* --- instruction sets ------------------------------------------------------------------------- */

#define KERNELS "MATQUANT_KERNELS"

mq_simd mq_simd_of_processor(void) {
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

mq_status mq_simd_capped(mq_simd *out, mq_simd most, const char *named, mq_error *err) {
    static const char *const names[] = {
        [MQ_SIMD_NONE] = "base", [MQ_SIMD_AVX2] = "avx2", [MQ_SIMD_AVX512] = "avx512"};
    *out = most;
    if (named == NULL || named[0] == '\0') {
        return MQ_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(named, names[i]) != 0) {
            continue;
        }
        if (i > (size_t)most) {
            return mq_fail(err, MQ_ERR_USAGE, KERNELS "=%s: this processor has no more than %s",
                           named, names[most]);
        }
        *out = (mq_simd)i;
        return MQ_OK;
    }
    return mq_fail(err, MQ_ERR_USAGE, KERNELS "=%s is none of base, avx2 and avx512", named);
}

mq_status mq_simd_check(mq_error *err) {
    mq_simd best;
    return mq_simd_capped(&best, mq_simd_of_processor(), getenv(KERNELS), err);
}

/* Read once: blocks ask thousands of times, from many threads. */
static pthread_once_t asked_once = PTHREAD_ONCE_INIT;
static mq_simd best_simd;

static void ask_environment(void) {
    (void)mq_simd_capped(&best_simd, mq_simd_of_processor(), getenv(KERNELS), NULL);
}

mq_simd mq_simd_best(void) {
    pthread_once(&asked_once, ask_environment);
    return best_simd;
}

/* --- memory ----------------------------------------------------------------------------------- */

#define LINE_SIZE 512 /* of the kernel's files, and of a path in them */

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

/* The limits of a group and of all that it is in, each in a file of its folder under root. group
 * ("/a/b") is cut to pieces. A container may not see its group's folder, but its own root's. */
static void bound_by_folders(size_t *available, const char *root, char *group, const char *file) {
    for (;;) {
        char path[2 * LINE_SIZE];
        size_t limit;
        const int length = snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        if (length > 0 && (size_t)length < sizeof path && number_in(&limit, path) &&
            limit < *available) {
            *available = limit;
        }
        char *last = strrchr(group, '/');
        if (last == NULL) {
            return;
        }
        *last = '\0';
    }
}

void mq_memory_bound_by_groups(size_t *available, const char *process, const char *root) {
    FILE *file = fopen(process, "re");
    char line[LINE_SIZE], old[LINE_SIZE];
    snprintf(old, sizeof old, "%s/memory", root);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *group = strchr(line, '/');
        if (group != NULL && strncmp(line, "0::", 3) == 0) {
            bound_by_folders(available, root, group, "memory.max");
        } else if (group != NULL && strstr(line, ":memory:") != NULL) {
            bound_by_folders(available, old, group, "memory.limit_in_bytes");
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* What is left of a limit when so many pages are used. */
static size_t left_of(int resource, unsigned long long pages) {
    struct rlimit limit;
    const long page = sysconf(_SC_PAGESIZE);
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || page <= 0) {
        return SIZE_MAX;
    }
    const unsigned long long used = pages * (unsigned long long)page;
    return limit.rlim_cur > used ? (size_t)(limit.rlim_cur - used) : 0;
}

size_t mq_memory_mappable(void) {
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return SIZE_MAX;
    }
    unsigned long long all, data; /* the latter with the stack, which has a limit of its own */
    const bool good = fscanf(file, "%llu %*u %*u %*u %*u %llu", &all, &data) == 2;
    fclose(file);
    return good ? mq_smaller(left_of(RLIMIT_AS, all), left_of(RLIMIT_DATA, data)) : SIZE_MAX;
}

bool mq_memory_available(size_t *out, size_t beside) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) {
        return false;
    }
    char line[LINE_SIZE];
    unsigned long long kibibytes;
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "MemAvailable: %llu kB", &kibibytes) == 1;
    }
    fclose(file);
    if (found) {
        const size_t mappable = mq_memory_mappable();
        *out = (size_t)kibibytes * 1024;
        mq_memory_bound_by_groups(out, "/proc/self/cgroup", "/sys/fs/cgroup");
        *out = mq_smaller(*out, mappable > beside ? mappable - beside : 0);
    }
    return found;
}

/* --- threads ---------------------------------------------------------------------------------- */

/* What a thread does that is only to be there: it waits until the gate is opened. */
static void *wait_at(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

mq_status mq_check_threads(size_t threads, mq_error *err) {
    pthread_t *others = NULL;
    mq_status status = mq_new(&others, threads, sizeof *others, "a list of threads", err);
    if (status != MQ_OK) {
        return status;
    }
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    size_t started = 1;
    int number = 0;
    pthread_mutex_lock(&gate);
    while (started < threads && (number = mq_sys_thread(&others[started], wait_at, &gate)) == 0) {
        started++;
    }
    pthread_mutex_unlock(&gate);
    for (size_t i = 1; i < started; i++) {
        pthread_join(others[i], NULL);
    }
    mq_free(others);
    char buffer[128];
    return number == 0 ? MQ_OK
                       : mq_fail(err, MQ_ERR_MACHINE, "cannot start %zu threads: %s", threads,
                                 strerror_r(number, buffer, sizeof buffer));
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
