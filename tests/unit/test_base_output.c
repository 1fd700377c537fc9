/* layer: base */
#include <errno.h>
#include <glob.h>
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

static mq_status begin(const char *path, mq_error *err) {
    mq_output *output = NULL;
    const mq_status status = mq_output_begin(&output, path, false, err);
    mq_output_discard(output);
    return status;
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
    assert_true(never_goes_on(begin, path, "list", "EIO") > 0);
    assert_true(never_goes_on(begin, path, "open", "EMFILE") > 0);
    mq_output_discard(first);
    assert_int_equal(mq_output_check(path, false, &err), MQ_OK);
    assert_int_equal(mq_output_begin(&second, path, false, &err), MQ_OK);
    mq_output_discard(second);
}

/* --- faults ----------------------------------------------------------------------------------- */

/* What every run of a sweep begins with: the source and, if it is to be replaced, an old output. */
static void lay_out(temporary *folder, bool replace) {
    temporary_remove(temporary_path(folder, "out"));
    temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    if (replace) {
        assert_int_equal(mkdir(temporary_path(folder, "out"), 0777), 0);
        temporary_write(folder, "out/config.json", "{}", 2);
        temporary_write(folder, "out/matquant.json", SOURCE, sizeof SOURCE - 1);
        temporary_write(folder, "out/old", "old", 3);
    }
}

/* A run that has failed: the machine's fault, with no output or the old one. If it was what puts
 * the output in its place, that is kept beside it. */
static void assert_failed(temporary *folder, const char *call, mq_status status,
                          const mq_error *err, bool replace) {
    assert_int_equal(status, MQ_ERR_MACHINE);
    assert_string_not_equal(err->file, "");
    if (strcmp(call, "rename") == 0 || strstr(err->message, "is kept as") != NULL) {
        const char *kept = kept_beside(folder, err);
        assert_written(kept);
        temporary_remove(kept);
    }
    if (replace) {
        assert_file(temporary_path(folder, "out/old"), "old");
    } else {
        assert_false(mq_path_exists(temporary_path(folder, "out")));
    }
}

/* Whether the old output is where it was set aside, as it was: there it stays if the system has no
 * exchange, and no name for it either. Removes it. */
static bool was_set_aside(temporary *folder) {
    glob_t found;
    const int result = glob(temporary_path(folder, ".out.matquant-*-replaced"), 0, NULL, &found);
    if (result == 0) {
        char *old = mq_path_join(found.gl_pathv[0], "old");
        assert_int_equal(found.gl_pathc, 1);
        assert_file(old, "old");
        temporary_remove(found.gl_pathv[0]);
        mq_free(old);
        globfree(&found);
    }
    return result == 0;
}

/* Calls that fail one after another. */
typedef struct swept {
    const char *call, *error;
    size_t failing; /* at least so many runs; 0: none */
    bool spared;    /* some of these calls can be done without */
} swept;

/* Makes call number 1, 2, 3, ... fail until there are no more. Every failure leaves the folder as
 * it was; where the call can be done without, the next run takes away what is left by that. */
static void sweep(temporary *folder, const swept *of, bool replace) {
    const char *source = temporary_path(folder, "source");
    const char *path = temporary_path(folder, "out");
    lay_out(folder, replace);
    const size_t entries = temporary_entries(folder->path), before = mq_alloc_current();
    size_t failed = 0;
    bool met = true;
    for (size_t n = 1; met; n++) {
        mq_error err = {0};
        fault_begin(of->call, n, of->error);
        const mq_status status = run(path, source, replace, &err);
        met = fault_end();
        assert_int_equal(mq_alloc_current(), before);
        if (status != MQ_OK) {
            assert_failed(folder, of->call, status, &err, replace);
            failed++;
        } else {
            assert_true(of->spared || !met || was_set_aside(folder));
            assert_written(path);
            assert_int_equal(met ? run(path, source, true, &err) : MQ_OK, MQ_OK);
            lay_out(folder, replace);
        }
        assert_int_equal(temporary_entries(folder->path), entries);
    }
    assert_true(failed >= of->failing && (of->failing > 0 || failed == 0));
}

static void every_fault_leaves_nothing_behind(void **state) {
    static const swept cases[] = {
        {"write", "ENOSPC", 5, false}, {"write", "EIO", 5, false},   {"read", "EIO", 2, false},
        {"fsync", "EIO", 5, false},    {"open", "EMFILE", 6, false}, {"rename", "EIO", 1, false},
        {"mkdir", "ENOSPC", 1, false}, {"mkdir", "EEXIST", 0, true}, {"list", "EIO", 6, true},
        {"lock", "ENOLCK", 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sweep(*state, &cases[i], false);
    }
}

static void every_fault_leaves_the_old_output(void **state) {
    static const swept cases[] = {
        {"write", "ENOSPC", 1, false}, {"read", "EIO", 1, false},   {"fsync", "EIO", 1, false},
        {"open", "EMFILE", 1, true},   {"rename", "EIO", 1, false}, {"mkdir", "ENOSPC", 1, false},
        {"mkdir", "EEXIST", 0, true},  {"list", "EIO", 6, true},    {"lock", "ENOLCK", 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sweep(*state, &cases[i], true);
    }
}

/* Where the file system knows no locks, at whichever of them that shows: nobody is in the way, and
 * the folder that was made is good enough. What a killed run has left stays, since nobody can tell
 * whether it is still wanted. */
static void locks_can_be_done_without(void **state) {
    temporary *folder = *state;
    const char *source = temporary_path(folder, "source");
    const char *path = temporary_path(folder, "out");
    const char *left = temporary_path(folder, ".out.matquant-aB3_-z");
    mq_error err;
    assert_int_equal(mkdir(left, 0777), 0);
    for (size_t replace = 0; replace < 2; replace++) {
        size_t n = 2; /* the first is of what was left */
        for (bool met = true; met; n++) {
            char faults[64];
            lay_out(folder, replace == 1);
            snprintf(faults, sizeof faults, "lock:1:ENOLCK,lock:%zu:ENOLCK,mkdir:2:EIO", n);
            assert_true(mq_fault_configure(faults));
            assert_int_equal(run(path, source, replace == 1, &err), MQ_OK);
            met = mq_faults_met() == 2;
            assert_true(mq_fault_configure(NULL));
            assert_written(path);
            assert_int_equal(temporary_entries(folder->path), 3);
        }
        assert_int_equal(n, 6 + replace); /* looking twice, its own and the old output's */
    }
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_false(mq_path_exists(left));
    /* One that somebody else has is another matter: then a second folder is made. */
    fault_begin("lock", 1, "EAGAIN");
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_true(fault_end());
    assert_true(mq_fault_configure("lock:1:EAGAIN,mkdir:2:EIO"));
    assert_int_equal(run(path, source, true, &err), MQ_ERR_MACHINE);
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
    temporary_write(folder, "out/old", "old", 3);
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
    for (int aside = 0; aside < 2; aside++) {
        assert_true(mq_fault_configure(aside ? "rename:1:EINVAL,rename:4:EIO" : "rename:1:EINVAL"));
        assert_int_equal(run(path, source, true, &err), MQ_OK);
        assert_written(path);
        assert_int_equal(was_set_aside(folder), aside);
        assert_int_equal(temporary_entries(folder->path), 2);
        temporary_write(folder, "out/old", "old", 3);
    }
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
        TEST(locks_can_be_done_without),
        TEST(plain_renaming_is_enough),
        TEST(short_writes_are_continued),
        TEST(lack_of_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
