#include "base/machine.h"

#include <stdio.h>

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
