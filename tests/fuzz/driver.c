/* In libFuzzer's place: gives the target each file that the command line names, as it is. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "target.h"

/* *data is the caller's, to be freed. */
static bool read_file(uint8_t **data, size_t *size, const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return false;
    }
    long end = -1;
    if (fseek(file, 0, SEEK_END) == 0) {
        end = ftell(file);
        rewind(file);
    }
    *size = end < 0 ? 0 : (size_t)end;
    *data = malloc(*size + 1);
    const bool whole = end >= 0 && *data != NULL && fread(*data, 1, *size, file) == *size;
    if (!whole) {
        free(*data);
    }
    fclose(file);
    return whole;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE...\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        uint8_t *data;
        size_t size;
        fprintf(stderr, "%s\n", argv[i]); /* the last one is what the target aborted on */
        if (!read_file(&data, &size, argv[i])) {
            fprintf(stderr, "cannot be read\n");
            return 1;
        }
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    return 0;
}
