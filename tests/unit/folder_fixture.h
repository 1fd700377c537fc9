/* The folder of a test, and what is expected of errors and of what stands in folders. Every
 * function fails the test it is called from when anything goes wrong. */
#ifndef MQ_TEST_FOLDER_FIXTURE_H
#define MQ_TEST_FOLDER_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"

#define UNUSED __attribute__((unused))

static char fixture_root[256];
static unsigned fixture_count;

static UNUSED int fixture_setup(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(fixture_root, sizeof fixture_root, "%s/matquant-store-XXXXXX",
             base != NULL ? base : "/tmp");
    return mkdtemp(fixture_root) == NULL ? -1 : 0;
}

static UNUSED int fixture_teardown(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture_root);
    return system(command);
}

/* A path below the test's folder; the caller's (mq_free). Names of folders that do not exist yet.
 */
static UNUSED char *fixture_path(const char *name) {
    char *path = mq_asprintf("%s/%s-%u", fixture_root, name, fixture_count++);
    assert_non_null(path);
    return path;
}

static UNUSED void must(mq_status status, const mq_error *err) {
    if (status != MQ_OK) {
        char line[1400];
        mq_error_format(line, sizeof line, err);
        fail_msg("%s", line);
    }
}

static UNUSED char *fixture_file(const char *folder, const char *name) {
    char *path = mq_path_join(folder, name);
    assert_non_null(path);
    return path;
}

/* status, that the error is one line that holds all of these words, and its tensor ("": none). */
static UNUSED void expect_error(mq_status status, mq_status wanted, const mq_error *err,
                                const char *file, const char *tensor, const char *words) {
    char line[1400];
    mq_error_format(line, sizeof line, err);
    if (status != wanted) {
        fail_msg("status %d instead of %d: %s", (int)status, (int)wanted, line);
    }
    assert_int_equal(err->status, wanted);
    if (strstr(err->file, file) == NULL || strstr(err->message, words) == NULL ||
        strcmp(err->tensor, tensor) != 0) {
        fail_msg("expected file %s, tensor \"%s\", \"%s\"; got: %s", file, tensor, words, line);
    }
    assert_null(strchr(line, '\n'));
}

/* Nothing of this name, hidden leftovers included, stands in its folder, which is there. */
static UNUSED void expect_nothing_left(const char *path) {
    char *folder = mq_path_parent(path);
    assert_non_null(folder);
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        fail_msg("cannot open %s", folder);
    }
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strstr(entry->d_name, mq_path_base(path)) != NULL) {
            fail_msg("left behind: %s/%s", folder, entry->d_name);
        }
    }
    closedir(entries);
    mq_free(folder);
}

/* How many entries a folder has, hidden ones and folders included. */
static UNUSED size_t fixture_entries(const char *folder) {
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        fail_msg("cannot open %s", folder);
    }
    size_t count = 0;
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count - 2; /* . and .. */
}

/* Two folders of plain files: the same names with the same bytes, and nothing else in either. */
static UNUSED void expect_same_folders(const char *a, const char *b) {
    mq_error err;
    char **names = NULL;
    size_t count = 0;
    must(mq_list_folder(&names, &count, a, &err), &err);
    assert_int_equal(fixture_entries(a), count);
    assert_int_equal(fixture_entries(b), count);
    for (size_t i = 0; i < count; i++) {
        char *path[2] = {fixture_file(a, names[i]), fixture_file(b, names[i])}, *content[2];
        size_t size[2];
        for (size_t k = 0; k < 2; k++) {
            must(mq_read_file(&content[k], &size[k], path[k], (size_t)1 << 30, &err), &err);
        }
        if (size[0] != size[1] || memcmp(content[0], content[1], size[0]) != 0) {
            fail_msg("%s and %s differ", path[0], path[1]);
        }
        for (size_t k = 0; k < 2; k++) {
            mq_free(content[k]);
            mq_free(path[k]);
        }
    }
    mq_free_list(names, count);
}

#endif
