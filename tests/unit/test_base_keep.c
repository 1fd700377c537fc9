/* layer: base */
/* A folder that keeps files between runs. */
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/keep.h"
#include "faulty_folder.h"

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
    static const struct {
        const char *fault;
        size_t left;
    } faults[] = {
        {"mkdir:1:ENOSPC", 0}, {"open:1:EMFILE", 1}, {"open:2:EMFILE", 0}, {"fsync:1:EIO", 0}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_true(mq_fault_configure(faults[i].fault));
        assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_ERR_MACHINE);
        assert_true(mq_fault_configure(NULL));
        assert_int_equal(temporary_entries(folder->path), faults[i].left);
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

static mq_status open_kept(const char *path, mq_error *err) {
    mq_keep *keep = NULL;
    const mq_status status = mq_keep_open(&keep, path, knows, err);
    mq_keep_close(keep);
    return status;
}

static void test_what_cannot_be_looked_through(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    assert_int_equal(mkdir(path, 0777), 0);
    temporary_write(folder, "kept/a", "1", 1);
    temporary_write(folder, "kept/c", "1", 1);
    assert_true(never_goes_on(open_kept, path, "mkdir", "EIO") > 0);
    assert_true(never_goes_on(open_kept, path, "open", "EMFILE") > 0);
    assert_true(never_goes_on(open_kept, path, "list", "EIO") > 0);
    assert_true(never_goes_on(check, path, "list", "EIO") > 0);
    assert_int_equal(temporary_entries(path), 2);
}

/* The last file goes only when all others have gone: not when the list of them has broken off. */
static void test_the_last_file_stays_for_the_next_run(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    mq_keep *keep = NULL;
    mq_error err;
    size_t n = 1;
    for (bool met = true; met; n++) {
        assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
        const char *last = temporary_write(folder, "kept/a", "1", 1);
        temporary_write(folder, "kept/b.x", "1", 1);
        fault_begin("list", n, "EIO");
        const bool removed = mq_keep_remove(keep, "a");
        met = fault_end();
        assert_int_equal(removed, !met);
        assert_int_equal(mq_path_exists(last), met);
        mq_keep_close(keep);
    }
    assert_true(n > 5); /* opened, two files, and the end */
    assert_false(mq_path_exists(path));
}

/* What is no failure: a file system that knows no locks, and a folder that was there and has gone.
 */
static void test_what_can_be_done_without(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "kept");
    static const char *const faults[] = {"lock:1:ENOLCK", "mkdir:1:EEXIST"};
    mq_keep *keep = NULL;
    mq_error err;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_true(mq_fault_configure(faults[i]));
        assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_OK);
        assert_true(fault_end());
        assert_true(mq_keep_remove(keep, NULL));
        mq_keep_close(keep);
        assert_int_equal(temporary_entries(folder->path), 0);
    }
    fault_begin("lock", 1, "EAGAIN");
    assert_int_equal(mq_keep_open(&keep, path, knows, &err), MQ_ERR_USAGE);
    assert_true(fault_end());
    assert_non_null(strstr(err.message, "another run"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_comes_and_goes),
        TEST(test_foreign_things_stay),
        TEST(test_one_run_at_a_time),
        TEST(test_through_a_link),
        TEST(test_folders_that_stay),
        TEST(test_two_runs_that_make_and_remove_it),
        TEST(test_failures),
        TEST(test_what_cannot_be_looked_through),
        TEST(test_the_last_file_stays_for_the_next_run),
        TEST(test_what_can_be_done_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
