/* layer: base */
/* A folder that keeps files between runs. */
#include <string.h>
#include <sys/stat.h>

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
    assert_true(mq_keep_remove(keep));
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
    assert_true(mq_keep_remove(keep));
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
    assert_int_equal(mq_keep_open(&keep, temporary_path(folder, "no/kept"), knows, &err),
                     MQ_ERR_INPUT);
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
    assert_true(mq_keep_remove(second));
    mq_keep_close(second);
}

/* What cannot be made leaves nothing. */
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
        assert_int_equal(temporary_entries(folder->path), 0);
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
        cmocka_unit_test_setup_teardown(test_failures, temporary_setup, temporary_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
