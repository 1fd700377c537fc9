/* Temporary folders and files for the unit tests. Every test removes its own. */
#ifndef MQ_TEST_TEMPORARY_H
#define MQ_TEST_TEMPORARY_H

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct temporary {
    char path[PATH_MAX]; /* the folder */
    char **joined;       /* [joined_count], all paths given out */
    size_t joined_count;
} temporary;

/* cmocka set-up: a fresh folder in TMPDIR, *state the temporary. */
static inline int temporary_setup(void **state) {
    temporary *made = calloc(1, sizeof *made);
    const char *parent = getenv("TMPDIR");
    assert_non_null(made);
    snprintf(made->path, sizeof made->path, "%s/matquant-test-XXXXXX",
             parent != NULL && parent[0] != '\0' ? parent : "/tmp");
    assert_non_null(mkdtemp(made->path));
    *state = made;
    return 0;
}

static inline int temporary_remove_one(const char *path, const struct stat *about, int type,
                                       struct FTW *walk) {
    (void)about;
    (void)type;
    (void)walk;
    return remove(path);
}

static inline void temporary_remove(const char *path) {
    nftw(path, temporary_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* cmocka tear-down */
static inline int temporary_teardown(void **state) {
    temporary *made = *state;
    temporary_remove(made->path);
    for (size_t i = 0; i < made->joined_count; i++) {
        free(made->joined[i]);
    }
    free(made->joined);
    free(made);
    return 0;
}

/* The path of `name` in the folder; valid until the test ends. */
static inline const char *temporary_path(temporary *folder, const char *name) {
    size_t size = strlen(folder->path) + strlen(name) + 2;
    char *path = malloc(size);
    folder->joined = realloc(folder->joined, (folder->joined_count + 1) * sizeof *folder->joined);
    assert_non_null(path);
    assert_non_null(folder->joined);
    folder->joined[folder->joined_count++] = path;
    snprintf(path, size, "%s/%s", folder->path, name);
    return path;
}

static inline const char *temporary_write(temporary *folder, const char *name, const void *data,
                                          size_t size) {
    const char *path = temporary_path(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* Entries of a folder, hidden ones too. */
static inline size_t temporary_entries(const char *path) {
    size_t entries = 0;
    DIR *stream = opendir(path);
    assert_non_null(stream);
    const struct dirent *entry;
    while ((entry = readdir(stream)) != NULL) {
        entries += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(stream);
    return entries;
}

#endif
