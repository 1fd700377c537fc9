/* layer: base */
#include <errno.h>
#include <sys/stat.h>

#include "output_fixture.h"

static void output_appears_whole_at_commit(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    mq_output *output = NULL;
    assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_OK);
    assert_int_equal(write_files(output, source, &err), MQ_OK);
    assert_false(mq_path_exists(path));
    assert_true(mq_is_folder(mq_output_folder(output)));
    assert_int_equal(mq_output_commit(output, &err), MQ_OK);
    assert_written(path);
    mq_output_discard(output);
    assert_written(path);
    assert_int_equal(temporary_entries(folder->path), 2);
    mode_t mask = umask(0);
    umask(mask);
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0777 & ~mask);
}

static void discarding_leaves_nothing(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    mq_output *output = NULL;
    char slashes[PATH_MAX + 16];
    snprintf(slashes, sizeof slashes, "%s/out//", folder->path);
    assert_int_equal(mq_output_begin(&output, slashes, false, &err), MQ_OK);
    assert_int_equal(write_files(output, source, &err), MQ_OK);
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 1);
    mq_output_discard(NULL);
}

static void a_name_without_folder_is_beside_us(void **state) {
    temporary *folder = *state;
    char *before = getcwd(NULL, 0);
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    assert_non_null(before);
    assert_int_equal(chdir(folder->path), 0);
    mq_error err;
    assert_int_equal(run("out", source, false, &err), MQ_OK);
    assert_written("out");
    assert_int_equal(chdir(before), 0);
    free(before);
}

static void names_that_cannot_be_are_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_output *output = NULL;
    const char *no_names[] = {"", "/", ".", "..", "a/..", "//"};
    for (size_t i = 0; i < sizeof no_names / sizeof *no_names; i++) {
        assert_int_equal(mq_output_begin(&output, no_names[i], false, &err), MQ_ERR_USAGE);
        assert_int_equal(mq_output_begin(&output, no_names[i], true, &err), MQ_ERR_USAGE);
    }
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "no/out"), false, &err),
                     MQ_ERR_INPUT);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_OK);
    assert_int_equal(mq_write_file(output, "a/b", "", 0, &err), MQ_ERR_INPUT);
    assert_int_equal(mq_write_file(output, "", "", 0, &err), MQ_ERR_INPUT);
    assert_int_equal(mq_write_file(output, "a", "", 0, &err), MQ_OK);
    assert_int_equal(mq_write_file(output, "a", "", 0, &err),
                     MQ_ERR_MACHINE); /* never over another */
    const char *file = temporary_path(folder, "out/a");
    assert_string_equal(err.file, file);
    assert_int_equal(mq_copy_file(output, "c", temporary_path(folder, "none"), &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, temporary_path(folder, "none"));
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 0);
}

/* The temporary folder's name has 17 bytes more, or 26 where it is set aside, and 255 are the most.
 */
static void names_that_are_too_long_are_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    char name[NAME_MAX + 1] = "";
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    for (size_t length = 230; length <= NAME_MAX; length += 16) {
        memset(name, 'n', length);
        const char *path = temporary_path(folder, name);
        assert_int_equal(mq_output_check(path, false, &err), MQ_ERR_USAGE);
        assert_int_equal(mq_output_file_check(path, false, &err), MQ_ERR_USAGE);
        assert_int_equal(run(path, source, false, &err), MQ_ERR_USAGE);
        assert_non_null(strstr(err.message, "an output's may have 229"));
    }
    name[229] = '\0';
    const char *path = temporary_path(folder, name);
    assert_int_equal(mq_output_check(path, false, &err), MQ_OK);
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
}

static void what_exists_is_kept_unless_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    FILE *old = fopen(temporary_path(folder, "out/old"), "w");
    assert_non_null(old);
    fclose(old);
    assert_int_equal(run(path, source, false, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "the output exists already; --force replaces it");
    assert_string_equal(err.file, path);
    assert_int_equal(temporary_entries(path), 4);
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
    assert_int_equal(temporary_entries(folder->path), 2);
}

/* In whose place nothing can be put. */
static void mount_points_are_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    assert_int_equal(run("/proc", temporary_path(folder, "source"), true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "is a mount point, which cannot be replaced; name an output "
                                     "in it, or beside it");
    assert_int_equal(mq_output_check("/proc", true, &err), MQ_ERR_USAGE);
}

/* The second of two runs is told before it has done anything. */
static void another_runs_output_is_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *path = temporary_path(folder, "out");
    mq_output *first = NULL, *second = NULL;
    assert_int_equal(mq_output_begin(&first, path, false, &err), MQ_OK);
    assert_int_equal(mq_output_check(path, false, &err), MQ_ERR_USAGE);
    assert_int_equal(mq_output_begin(&second, path, true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "is being made by another run");
    assert_null(second);
    mq_status status = MQ_ERR_MACHINE; /* that there is no memory to look does not mean no */
    for (size_t countdown = 1; status == MQ_ERR_MACHINE; countdown++) {
        mq_alloc_fail_after(countdown);
        status = mq_output_begin(&second, path, false, &err);
        mq_alloc_fail_after(0);
    }
    assert_int_equal(status, MQ_ERR_USAGE);
    mq_output_discard(first);
    assert_int_equal(mq_output_check(path, false, &err), MQ_OK);
    assert_int_equal(mq_output_begin(&second, path, false, &err), MQ_OK);
    mq_output_discard(second);
}

/* --- faults ----------------------------------------------------------------------------------- */

/* Makes call number 1, 2, 3, ... fail until the run succeeds. Every failure is the machine's and
 * leaves the folder as it was: without output, or with the old one. If it was the one that puts the
 * output in its place, that is kept beside it. */
static void sweep(temporary *folder, const char *call, const char *error, bool replace,
                  size_t at_least) {
    const char *source = temporary_path(folder, "source");
    const char *path = temporary_path(folder, "out");
    size_t entries = temporary_entries(folder->path);
    size_t before = mq_alloc_current();
    for (size_t n = 1;; n++) {
        char fault[48];
        mq_error err = {0};
        snprintf(fault, sizeof fault, "%s:%zu:%s", call, n, error);
        assert_true(mq_fault_configure(fault));
        mq_status status = run(path, source, replace, &err);
        mq_fault_configure(NULL);
        assert_int_equal(mq_alloc_current(), before);
        if (status == MQ_OK) {
            assert_true(n > at_least);
            assert_written(path);
            assert_int_equal(temporary_entries(folder->path), replace ? entries : entries + 1);
            return;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_string_not_equal(err.file, "");
        if (strcmp(call, "rename") == 0 || strstr(err.message, "is kept as") != NULL) {
            const char *kept = kept_beside(folder, &err);
            assert_written(kept);
            temporary_remove(kept);
        }
        assert_int_equal(temporary_entries(folder->path), entries);
        if (replace) {
            assert_file(temporary_path(folder, "out/old"), "old");
        }
    }
}

static void every_fault_leaves_nothing_behind(void **state) {
    temporary *folder = *state;
    static const struct {
        const char *call, *error;
        size_t at_least;
    } cases[] = {
        {"write", "ENOSPC", 5}, {"write", "EIO", 5},   {"read", "EIO", 2},
        {"fsync", "EIO", 5},    {"open", "EMFILE", 6}, {"rename", "EIO", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
        sweep(folder, cases[i].call, cases[i].error, false, cases[i].at_least);
        temporary_remove(temporary_path(folder, "out"));
    }
}

static void every_fault_leaves_the_old_output(void **state) {
    temporary *folder = *state;
    const char *cases[][2] = {{"write", "ENOSPC"},
                              {"read", "EIO"},
                              {"fsync", "EIO"},
                              {"open", "EMFILE"},
                              {"rename", "EIO"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
        assert_int_equal(mkdir(temporary_path(folder, "out"), 0777), 0);
        temporary_write(folder, "out/config.json", "{}", 2);
        temporary_write(folder, "out/matquant.json", SOURCE, sizeof SOURCE - 1);
        temporary_write(folder, "out/old", "old", 3);
        sweep(folder, cases[i][0], cases[i][1], true, 1);
        temporary_remove(temporary_path(folder, "out"));
    }
}

/* On a file system that knows neither kind of renaming, with the plain one failing at each of its
 * places. */
static void plain_renaming_is_enough(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_true(mq_fault_configure("rename:1:EINVAL"));
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_written(path);
    FILE *old = fopen(temporary_path(folder, "out/old"), "w");
    assert_non_null(old);
    fclose(old);
    for (int failing = 2; failing <= 3; failing++) {
        char faults[64];
        snprintf(faults, sizeof faults, "rename:1:EINVAL,rename:%d:EIO", failing);
        assert_true(mq_fault_configure(faults));
        assert_int_equal(run(path, source, true, &err), MQ_ERR_MACHINE);
        const char *kept = kept_beside(folder, &err);
        assert_written(kept);
        temporary_remove(kept);
        assert_int_equal(temporary_entries(path), 4);
        assert_int_equal(temporary_entries(folder->path), 2);
    }
    assert_true(mq_fault_configure("rename:1:EINVAL"));
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
    assert_int_equal(temporary_entries(folder->path), 2);
}

static void short_writes_are_continued(void **state) {
    temporary *folder = *state;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    for (int n = 1; n <= 8; n++) {
        char fault[64];
        mq_error err;
        snprintf(fault, sizeof fault, "write:%d:SHORT,write:%d:SHORT,read:%d:SHORT", n, n + 1, n);
        assert_true(mq_fault_configure(fault));
        assert_int_equal(run(path, source, n > 1, &err), MQ_OK);
        assert_written(path);
    }
}

static void lack_of_memory_leaves_nothing_behind(void **state) {
    temporary *folder = *state;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    size_t before = mq_alloc_current();
    for (size_t countdown = 1;; countdown++) {
        mq_error err;
        mq_alloc_fail_after(countdown);
        mq_status status = run(path, source, false, &err);
        mq_alloc_fail_after(0);
        assert_int_equal(mq_alloc_current(), before);
        if (status == MQ_OK) {
            assert_true(countdown > 10);
            assert_written(path);
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_int_equal(temporary_entries(folder->path), 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(output_appears_whole_at_commit),
        TEST(discarding_leaves_nothing),
        TEST(a_name_without_folder_is_beside_us),
        TEST(names_that_cannot_be_are_refused),
        TEST(names_that_are_too_long_are_refused),
        TEST(what_exists_is_kept_unless_replaced),
        TEST(mount_points_are_refused),
        TEST(another_runs_output_is_refused),
        TEST(every_fault_leaves_nothing_behind),
        TEST(every_fault_leaves_the_old_output),
        TEST(plain_renaming_is_enough),
        TEST(short_writes_are_continued),
        TEST(lack_of_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
