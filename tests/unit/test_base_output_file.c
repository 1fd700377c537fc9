/* layer: base */
/* An output file appears whole or not at all. */
#include <sys/stat.h>

#include "base/fault.h"
#include "base/file.h"
#include "temporary.h"

static void assert_holds(const char *path, const char *text) {
    char *data = NULL;
    size_t size = 0;
    assert_int_equal(mq_read_file(&data, &size, path, 1000, NULL), MQ_OK);
    assert_string_equal(data, text);
    mq_free(data);
}

static void test_writes(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "out");
    mq_error err;
    assert_int_equal(mq_output_file_check(path, false, &err), MQ_OK);
    assert_int_equal(mq_output_file(path, "first", 5, false, &err), MQ_OK);
    assert_holds(path, "first");
    assert_int_equal(mq_output_file_check(path, false, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "the output exists already; --force replaces it");
    assert_string_equal(err.file, path);
    assert_int_equal(mq_output_file(path, "second", 6, false, &err), MQ_ERR_USAGE);
    assert_holds(path, "first");
    assert_int_equal(mq_output_file_check(path, true, &err), MQ_OK);
    assert_int_equal(mq_output_file(path, "second", 6, true, &err), MQ_OK);
    assert_holds(path, "second");
    assert_int_equal(mq_output_file(path, NULL, 0, true, &err), MQ_OK);
    assert_holds(path, "");
    assert_int_equal(temporary_entries(folder->path), 1);
}

static void test_what_is_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *inner = temporary_path(folder, "folder");
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(mq_output_file(inner, "x", 1, true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "exists and is not a plain file");
    assert_int_equal(mq_output_file_check("", true, &err), MQ_ERR_USAGE);
    assert_int_equal(mq_output_file_check("a/..", true, &err), MQ_ERR_USAGE);
    const char *nowhere = temporary_path(folder, "none/out");
    assert_int_equal(mq_output_file_check(nowhere, true, &err), MQ_ERR_INPUT);
    assert_int_equal(mq_output_file(nowhere, "x", 1, true, &err), MQ_ERR_INPUT);
    assert_int_equal(temporary_entries(folder->path), 1);
}

/* Whatever call fails, the old file is there as it was, and nothing beside it. */
static void test_faults(void **state) {
    temporary *folder = *state;
    const char *path = temporary_write(folder, "out", "old", 3);
    static const char *const faults[] = {"open:1:EMFILE", "write:1:ENOSPC",
                                         "write:1:SHORT,write:2:EIO", "fsync:1:EIO",
                                         "rename:1:EIO"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_true(mq_fault_configure(faults[i]));
        mq_error err;
        assert_int_equal(mq_output_file(path, "new", 3, true, &err), MQ_ERR_MACHINE);
        assert_string_equal(err.file, path);
        assert_true(mq_fault_configure(NULL));
        assert_holds(path, "old");
        assert_int_equal(temporary_entries(folder->path), 1);
    }
    assert_true(mq_fault_configure("write:1:SHORT"));
    assert_int_equal(mq_output_file(path, "whole", 5, true, NULL), MQ_OK);
    assert_true(mq_fault_configure(NULL));
    assert_holds(path, "whole");
}

/* Who could read the old file can read the new one, and nobody else, whatever the umask is. */
static void test_permissions_are_kept(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "out");
    static const mode_t masks[] = {0077, 0}, modes[] = {0644, 0600, 0440};
    for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
        const mode_t before = umask(masks[m]);
        struct stat about;
        assert_int_equal(mq_output_file(path, "old", 3, false, NULL), MQ_OK);
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 0777, 0666 & ~masks[m]);
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            assert_int_equal(chmod(path, modes[i]), 0);
            assert_int_equal(mq_output_file(path, "new", 3, true, NULL), MQ_OK);
            assert_int_equal(stat(path, &about), 0);
            assert_int_equal(about.st_mode & 0777, modes[i]);
        }
        umask(before);
        assert_int_equal(remove(path), 0);
    }
}

/* Some file systems have no permissions to give. */
static void test_permissions_that_are_the_same_are_not_given(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "out");
    const mode_t before = umask(0022);
    mq_error err;
    assert_int_equal(mq_output_file(path, "old", 3, false, NULL), MQ_OK);
    assert_true(mq_fault_configure("chmod:1:EPERM"));
    assert_int_equal(mq_output_file(path, "new", 3, true, NULL), MQ_OK);
    assert_holds(path, "new");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(mq_output_file(path, "newer", 5, true, &err), MQ_ERR_MACHINE);
    assert_string_equal(err.message,
                        "cannot give its permissions to the new one: Operation not permitted");
    assert_true(mq_fault_configure(NULL));
    assert_holds(path, "new");
    umask(before);
}

/* Where the system has no exchange one rename takes the old file's place: at no moment is there
 * none. Only the third call would fail. */
static void test_without_exchange(void **state) {
    temporary *folder = *state;
    const char *path = temporary_write(folder, "out", "old", 3);
    assert_true(mq_fault_configure("rename:1:EINVAL,rename:3:EIO"));
    assert_int_equal(mq_output_file(path, "new", 3, true, NULL), MQ_OK);
    assert_holds(path, "new");
    assert_int_equal(temporary_entries(folder->path), 1);
    assert_true(mq_fault_configure("rename:1:EINVAL,rename:2:EIO"));
    mq_error err;
    assert_int_equal(mq_output_file(path, "newer", 5, true, &err), MQ_ERR_MACHINE);
    assert_true(mq_fault_configure(NULL));
    assert_holds(path, "new");
    assert_int_equal(temporary_entries(folder->path), 1);
}

static void test_lack_of_memory(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "out");
    size_t failures = 0;
    for (size_t countdown = 1;; countdown++, failures++) {
        mq_alloc_fail_after(countdown);
        mq_status status = mq_output_file_check(path, false, NULL);
        status = status ? status : mq_output_file(path, "x", 1, false, NULL);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_int_equal(temporary_entries(folder->path), 0);
    }
    assert_true(failures >= 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_writes),
        TEST(test_what_is_refused),
        TEST(test_faults),
        TEST(test_permissions_are_kept),
        TEST(test_permissions_that_are_the_same_are_not_given),
        TEST(test_without_exchange),
        TEST(test_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
