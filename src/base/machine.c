#include "base/machine.h"

#include <stdio.h>

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
    }
    return found;
}
