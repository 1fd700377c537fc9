/* layer: base */
/* A folder that keeps files between runs. */
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "base/keep.h"
#include "temporary.h"

static bool knows(const char *name) { return strcmp(name, "a") == 0 || strcmp(name, "b.x") == 0; }

static mq_status check(const char *path, mq_error *err) { return mq_keep_check(path, knows, err); }

static void test_comes_and_goes(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    mq_keep *keep = NULL;
    mq_error err;
    assert_int_equal(check(path, &err), MQ_OK);
    assert_false(mq_path_exists(path));
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
    assert_true(mq_is_folder(path));
    mq_keep_close(keep);
    temporary_write(folder, "kept/a", "1", 1);
    assert_int_equal(mkdir(temporary_path(folder, "kept/.b.x.matquant-aB3_-z"), 0777), 0);
    temporary_write(folder, "kept/.b.x.matquant-aB3_-z/b.x", "half", 4);
    assert_int_equal(check(path, &err), MQ_OK);
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
    assert_true(mq_keep_remove(keep, NULL));
    mq_keep_close(keep);
    assert_int_equal(temporary_entries(folder->path), 0);
}

static void test_foreign_things_stay(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    mq_keep *keep = NULL;
    mq_error err;
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
    temporary_write(folder, "kept/a", "1", 1);
    temporary_write(folder, "kept/c", "1", 1); /* appeared meanwhile */
    assert_int_equal(check(path, &err), MQ_ERR_USAGE);
    assert_string_equal(err.file, path);
    assert_non_null(strstr(err.message, "\"c\""));
    assert_true(mq_keep_remove(keep, NULL));
    mq_keep_close(keep);
    assert_false(mq_path_exists(temporary_path(folder, "kept/a")));
    assert_true(mq_path_exists(temporary_path(folder, "kept/c")));
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_ERR_USAGE);
    assert_int_equal(remove(temporary_path(folder, "kept/c")), 0);

    assert_int_equal(symlink("c", temporary_path(folder, "kept/a")),
                     0); /* a name alone is not it */
    assert_int_equal(check(path, &err), MQ_ERR_USAGE);
    assert_int_equal(remove(temporary_path(folder, "kept/a")), 0);
    assert_int_equal(mkdir(temporary_path(folder, "kept/.c.matquant-abcdef"), 0777), 0);
    assert_int_equal(check(path, &err), MQ_ERR_USAGE);
    assert_int_equal(check(temporary_write(folder, "file", "", 0), &err), MQ_ERR_USAGE);
    const char *orphan = temporary_path(folder, "no/kept");
    assert_int_equal(check(orphan, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, orphan);
    assert_int_equal(mq_keep_open(&keep, orphan, knows, &err), MQ_ERR_INPUT);
}

/* A link to the folder, with and without a slash after it: both stay, empty. */
static void test_through_a_link(void **state) {
    temporary *folder = *state;
    static const char *const names[] = {"link", "link/"};
    assert_int_equal(mkdir(temporary_path(folder, "kept"), 0777), 0);
    assert_int_equal(symlink("kept", temporary_path(folder, "link")), 0);
    for (size_t i = 0; i < 2; i++) {
        mq_keep *keep = NULL;
        mq_error err;
        assert_int_equal(mq_keep_open(&keep, temporary_path(folder, names[i]), knows, &err), MQ_OK);
        temporary_write(folder, "kept/a", "1", 1);
        assert_true(mq_keep_remove(keep, NULL));
        mq_keep_close(keep);
        assert_true(mq_path_exists(temporary_path(folder, "link")));
        assert_int_equal(temporary_entries(temporary_path(folder, "kept")), 0);
    }
}

/* What cannot be removed where it is stays, empty: the current folder, and one whose parent may not
 * be written in. */
static void test_folders_that_stay(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    mq_keep *keep = NULL;
    mq_error err;
    char before[PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(chdir(path), 0);
    assert_int_equal(mq_keep_open(&keep, ".", knows, &err), MQ_OK);
    temporary_write(folder, "kept/a", "1", 1);
    const bool removed = mq_keep_remove(keep, NULL);
    mq_keep_close(keep);
    assert_int_equal(chdir(before), 0);
    assert_true(removed);
    assert_int_equal(temporary_entries(path), 0);
    if (geteuid() == 0) {
        return; /* who may write anywhere */
    }
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
    temporary_write(folder, "kept/a", "1", 1);
    assert_int_equal(chmod(folder->path, 0555), 0);
    const bool emptied = mq_keep_remove(keep, NULL);
    assert_int_equal(chmod(folder->path, 0777), 0);
    mq_keep_close(keep);
    assert_true(emptied);
    assert_int_equal(temporary_entries(path), 0);
    /* But not what the job knows. */
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
    temporary_write(folder, "kept/a", "1", 1);
    assert_int_equal(chmod(path, 0555), 0);
    assert_false(mq_keep_remove(keep, NULL));
    assert_int_equal(chmod(path, 0777), 0);
    mq_keep_close(keep);
}

static void test_one_run_at_a_time(void **state) {
    const char *path = temporary_path(*state, "kept");
    mq_keep *first = NULL, *second = NULL;
    mq_error err;
    assert_int_equal(mq_keep_open(&first, path, knows, &err), MQ_OK);
    assert_int_equal(mq_keep_open(&second, path, knows, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "another run"));
    mq_keep_close(first);
    assert_int_equal(mq_keep_open(&second, path, knows, &err), MQ_OK);
    assert_true(mq_keep_remove(second, NULL));
    mq_keep_close(second);
}

/* Makes and removes the folder, over and over: false when anything happens but that the other has
 * it, or that the folder it has is not the one of that name. */
static bool come_and_go(const char *path, const char *file) {
    bool good = true;
    for (size_t i = 0; i < 300; i++) {
        mq_keep *keep = NULL;
        mq_error err = {0};
        const mq_status status = mq_keep_open(&keep, path, knows, &err);
        if (status == MQ_OK) {
            good = mq_output_file(file, "1", 1, false, NULL) == MQ_OK && good;
            good = mq_keep_remove(keep, NULL) && good;
            mq_keep_close(keep);
        } else {
            good = status == MQ_ERR_USAGE && strstr(err.message, "another run") != NULL && good;
        }
    }
    return good;
}

static void test_two_runs_that_make_and_remove_it(void **state) {
    const char *path = temporary_path(*state, "kept"), *file = temporary_path(*state, "kept/a");
    const pid_t other = fork();
    assert_true(other >= 0);
    if (other == 0) {
        _exit(come_and_go(path, file) ? 0 : 1);
    }
    const bool good = come_and_go(path, file);
    int result = -1;
    assert_int_equal(waitpid(other, &result, 0), other);
    assert_true(good);
    assert_int_equal(result, 0);
    assert_false(mq_path_exists(path));
}

/* What cannot be made leaves nothing; but a folder that could not be locked may be another run's by
 * now, and stays. */
static void test_failures(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    mq_keep *keep = NULL;
    mq_error err;
    static const char *const faults[] = {"open:1:EMFILE", "open:2:EMFILE", "fsync:1:EIO"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_true(mq_fault_configure(faults[i]));
        assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_ERR_MACHINE);
        assert_true(mq_fault_configure(NULL));
        assert_int_equal(temporary_entries(folder->path), i == 0 ? 1 : 0);
        rmdir(path);
    }
    mq_status status = MQ_ERR_MACHINE;
    for (size_t countdown = 1; status != MQ_OK; countdown++) {
        mq_alloc_fail_after(countdown);
        status = mq_keep_open(&keep, path, knows, &err);
        mq_alloc_fail_after(0);
        assert_int_equal(temporary_entries(folder->path), status == MQ_OK ? 1 : 0);
    }
    mq_keep_close(keep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_and_goes, temporary_setup, temporary_teardown),
        cmocka_unit_test_setup_teardown(test_foreign_things_stay, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(test_one_run_at_a_time, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(test_through_a_link, temporary_setup, temporary_teardown),
        cmocka_unit_test_setup_teardown(test_folders_that_stay, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(test_two_runs_that_make_and_remove_it, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(test_failures, temporary_setup, temporary_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
