/* What the tests of output folders write. */
#ifndef OUTPUT_FIXTURE_H
#define OUTPUT_FIXTURE_H

#include <linux/capability.h>
#include <sys/syscall.h>

#include "base/file.h"
#include "faulty_folder.h"

static inline void assert_file(const char *path, const char *expected) {
    char *text = NULL;
    size_t size = 0;
    mq_error err;
    assert_int_equal(mq_read_file(&text, &size, path, 1 << 20, &err), MQ_OK);
    assert_string_equal(text, expected);
    mq_free(text);
}

/* What stands in matquant.json: an old output may have these files, too. */
#define SOURCE "{\"files\": {\"pieces\": {}, \"old\": {}}}"

/* What most tests write: three files, each in another way. */
static inline mq_status write_files(mq_output *output, const char *source, mq_error *err) {
    mq_writer *writer = NULL;
    mq_status status = mq_write_file(output, "config.json", "{}\n", 3, err);
    if (status == MQ_OK) {
        status = mq_copy_file(output, "matquant.json", source, err);
    }
    if (status == MQ_OK) {
        status = mq_writer_open(&writer, output, "pieces", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    status = mq_write(writer, "0123", 4, err);
    if (status == MQ_OK) {
        status = mq_write_at(writer, 6, "67", 2, err);
    }
    if (status == MQ_OK) {
        status = mq_write(writer, "45", 2, err);
    }
    if (status != MQ_OK) {
        mq_writer_abandon(writer);
        return status;
    }
    return mq_writer_close(writer, err);
}

static inline mq_status run(const char *path, const char *source, bool replace, mq_error *err) {
    mq_output *output = NULL;
    mq_status status = mq_output_begin(&output, path, replace, err);
    if (status != MQ_OK) {
        return status;
    }
    status = write_files(output, source, err);
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    mq_output_discard(output);
    return status;
}

static inline void assert_written(const char *path) {
    char *joined = mq_path_join(path, "config.json");
    assert_file(joined, "{}\n");
    mq_free(joined);
    joined = mq_path_join(path, "matquant.json");
    assert_file(joined, SOURCE);
    mq_free(joined);
    joined = mq_path_join(path, "pieces");
    assert_file(joined, "01234567");
    mq_free(joined);
    assert_int_equal(temporary_entries(path), 3);
}

/* From now on permissions bind this process, root's as well: its privileges are given up. */
static inline void obey_permissions(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    (void)syscall(SYS_capset, &header, none);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
