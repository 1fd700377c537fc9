/* layer: tensor */
#include "faulty_folder.h"
#include "tensor/safetensors.h"

/* A checkpoint with something of everything: names to be escaped, odd sizes, empty tensors and
 * scalars. */
static const mq_tensor_spec specs[] = {
    {.name = "q.codes", .dtype = MQ_U8, .dims = 2, .shape = {3, 5}},
    {.name = "q.scales", .dtype = MQ_F16, .dims = 2, .shape = {3, 1}},
    {.name = "norm", .dtype = MQ_F32, .dims = 1, .shape = {7}},
    {.name = "a \"name\" \\ \t \xe2\x82\xac", .dtype = MQ_BF16, .dims = 1, .shape = {2}},
    {.name = "empty", .dtype = MQ_F64, .dims = 2, .shape = {0, 9}},
    {.name = "scalar", .dtype = MQ_I64, .dims = 0},
    {.name = "bits", .dtype = MQ_BOOL, .dims = 3, .shape = {1, 1, 1}},
};
enum { COUNT = sizeof specs / sizeof *specs };

static size_t bytes_of(const mq_tensor_spec *spec) {
    size_t bytes = mq_dtype_size(spec->dtype);
    for (size_t i = 0; i < spec->dims; i++) {
        bytes *= spec->shape[i];
    }
    return bytes;
}

static void fill(unsigned char *data, size_t index) {
    for (size_t i = 0; i < bytes_of(&specs[index]); i++) {
        data[i] = (unsigned char)(17 * index + i);
    }
}

/* Puts the tensors in another order than declared, the first of them in pieces. */
static mq_status put_all(mq_tensor_writer *writer, mq_error *err) {
    unsigned char data[64];
    for (size_t i = COUNT; i-- > 1;) {
        fill(data, i);
        mq_status status = mq_tensor_writer_put(writer, i, data, bytes_of(&specs[i]), err);
        if (status != MQ_OK) {
            return status;
        }
    }
    fill(data, 0);
    mq_status status = mq_tensor_writer_put_part(writer, 0, 0, data, 5, err);
    return status == MQ_OK ? mq_tensor_writer_put_part(writer, 0, 5, data + 5, 10, err) : status;
}

static mq_status write_checkpoint(const char *path, size_t max_shard_size, mq_error *err) {
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    mq_status status = mq_output_begin(&output, path, false, err);
    if (status != MQ_OK) {
        return status;
    }
    status = mq_tensor_writer_open(&writer, output, specs, COUNT, max_shard_size, err);
    if (status == MQ_OK) {
        status = put_all(writer, err);
        if (status == MQ_OK) {
            status = mq_tensor_writer_close(writer, err);
        } else {
            mq_tensor_writer_abandon(writer);
        }
    }
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    mq_output_discard(output);
    return status;
}

static void assert_checkpoint(const char *path, size_t files) {
    mq_error err = {0};
    mq_tensors *tensors = NULL;
    mq_status status = mq_tensors_open(&tensors, path, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), COUNT);
    assert_int_equal(mq_tensors_file_count(tensors), files);
    for (size_t i = 0; i < COUNT; i++) {
        const mq_tensor_info *info = mq_tensors_find(tensors, specs[i].name);
        assert_non_null(info);
        assert_int_equal(info->dtype, specs[i].dtype);
        assert_int_equal(info->dims, specs[i].dims);
        assert_memory_equal(info->shape, specs[i].shape, sizeof info->shape);
        assert_int_equal(info->bytes, bytes_of(&specs[i]));
        assert_int_equal(info->file_offset % mq_dtype_size(info->dtype), 0);
        unsigned char expected[64];
        fill(expected, i);
        assert_memory_equal(info->data, expected, info->bytes);
    }
    mq_tensors_close(tensors);
}

static void what_is_written_is_read(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *path = temporary_path(folder, "out");
    assert_int_equal(write_checkpoint(path, 0, &err), MQ_OK);
    assert_checkpoint(path, 1);
    assert_int_equal(temporary_entries(path), 1);
    assert_int_equal(write_checkpoint(temporary_path(folder, "large"), 1000, &err), MQ_OK);
    assert_checkpoint(temporary_path(folder, "large"), 1);
}

static void the_header_is_padded_and_begins_with_the_metadata(void **state) {
    temporary *folder = *state;
    mq_error err;
    assert_int_equal(write_checkpoint(temporary_path(folder, "out"), 0, &err), MQ_OK);
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(
        mq_read_file(&text, &size, temporary_path(folder, "out/model.safetensors"), 1 << 20, &err),
        MQ_OK);
    uint64_t length;
    memcpy(&length, text, sizeof length);
    assert_int_equal(length % 8, 0);
    static const char expected[] = "{\"__metadata__\":{\"format\":\"pt\"},\"empty\":";
    assert_memory_equal(text + 8, expected, sizeof expected - 1);
    assert_int_equal(size, 8 + length + 15 + 6 + 28 + 4 + 0 + 8 + 1);
    mq_free(text);
}

static void large_checkpoints_are_split(void **state) {
    temporary *folder = *state;
    mq_error err;
    /* q.codes 15 | q.scales 6, | norm 28 | the rest 13, the largest of them alone more than the
     * limit */
    const char *path = temporary_path(folder, "out");
    assert_int_equal(write_checkpoint(path, 20, &err), MQ_OK);
    assert_checkpoint(path, 4);
    assert_int_equal(temporary_entries(path), 5);
    assert_true(mq_path_exists(temporary_path(folder, "out/model-00001-of-00004.safetensors")));
    assert_true(mq_path_exists(temporary_path(folder, "out/model-00004-of-00004.safetensors")));
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(mq_read_file(&text, &size,
                                  temporary_path(folder, "out/model.safetensors.index.json"),
                                  1 << 20, &err),
                     MQ_OK);
    assert_non_null(strstr(text, "\"total_size\": 62"));
    assert_non_null(strstr(text, "\"norm\": \"model-00003-of-00004.safetensors\""));
    mq_free(text);
}

static void an_empty_checkpoint_can_be_written(void **state) {
    temporary *folder = *state;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    mq_tensors *tensors = NULL;
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, NULL), MQ_OK);
    assert_int_equal(mq_tensor_writer_open(&writer, output, NULL, 0, 0, NULL), MQ_OK);
    assert_int_equal(mq_tensor_writer_find(writer, "a"), 0);
    assert_int_equal(mq_tensor_writer_close(writer, NULL), MQ_OK);
    assert_int_equal(mq_output_commit(output, NULL), MQ_OK);
    mq_output_discard(output);
    assert_int_equal(mq_tensors_open(&tensors, temporary_path(folder, "out"), NULL), MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), 0);
    mq_tensors_close(tensors);
}

static void misuse_is_refused(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    unsigned char data[64] = {0};
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, &err), MQ_OK);
    const mq_tensor_spec twice[] = {{.name = "t", .dtype = MQ_U8},
                                    {.name = "u", .dtype = MQ_U8},
                                    {.name = "t", .dtype = MQ_U8}};
    assert_int_equal(mq_tensor_writer_open(&writer, output, twice, 3, 0, &err), MQ_ERR_INPUT);
    assert_string_equal(err.tensor, "t");
    assert_string_equal(err.message, "would be written twice");
    const mq_tensor_spec huge[] = {
        {.name = "h", .dtype = MQ_F32, .dims = 2, .shape = {SIZE_MAX, 2}}};
    assert_int_equal(mq_tensor_writer_open(&writer, output, huge, 1, 0, &err), MQ_ERR_USAGE);
    const mq_tensor_spec sum[] = {{.name = "h", .dtype = MQ_U8, .dims = 1, .shape = {SIZE_MAX}},
                                  {.name = "i", .dtype = MQ_U8, .dims = 1, .shape = {2}}};
    assert_int_equal(mq_tensor_writer_open(&writer, output, sum, 2, 0, &err),
                     MQ_OK); /* in two shards */
    mq_tensor_writer_abandon(writer);
    mq_output_discard(output);

    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, &err), MQ_OK);
    assert_int_equal(mq_tensor_writer_open(&writer, output, specs, COUNT, 0, &err), MQ_OK);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(mq_tensor_writer_find(writer, specs[i].name), i);
    }
    assert_int_equal(mq_tensor_writer_find(writer, "none"), COUNT);
    assert_int_equal(mq_tensor_writer_put(writer, 2, data, 27, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "27 bytes where 28 were declared");
    assert_string_equal(err.tensor, "norm");
    assert_int_equal(mq_tensor_writer_put_part(writer, 2, 4, data, 4, &err), MQ_ERR_USAGE);
    assert_int_equal(mq_tensor_writer_put_part(writer, 2, 0, data, 29, &err), MQ_ERR_USAGE);
    assert_int_equal(mq_tensor_writer_put_part(writer, 2, 0, data, 4, &err), MQ_OK);
    assert_int_equal(mq_tensor_writer_put_part(writer, 2, 0, data, 4, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "4 bytes at 0 do not follow the 4 of 28 that are there");
    assert_int_equal(mq_tensor_writer_put(writer, 2, data, 28, &err), MQ_ERR_USAGE);
    assert_int_equal(mq_tensor_writer_close(writer, &err), MQ_ERR_USAGE);
    assert_string_equal(err.tensor, "q.codes");
    assert_string_equal(err.message, "0 of 15 bytes were written");
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 0);
}

static void checksums_are_those_of_the_bytes(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, &err), MQ_OK);
    assert_int_equal(mq_tensor_writer_open(&writer, output, specs, COUNT, 0, &err), MQ_OK);
    assert_int_equal(put_all(writer, &err), MQ_OK);
    for (size_t i = 0; i < COUNT; i++) {
        unsigned char data[64];
        fill(data, i);
        assert_int_equal(mq_tensor_writer_crc(writer, i), mq_crc32(0, data, bytes_of(&specs[i])));
    }
    assert_int_equal(mq_tensor_writer_close(writer, &err), MQ_OK);
    mq_output_discard(output);
}

/* Fails the n-th allocation or system call, n = 1, 2, 3, ..., until the checkpoint is written:
 * until then every failure is the machine's, names a file or memory, and leaves nothing, but what
 * is complete where it cannot have its name. */
static void sweep(temporary *folder, const char *call, const char *error, size_t at_least) {
    const char *path = temporary_path(folder, "out");
    size_t before = mq_alloc_current();
    for (size_t n = 1;; n++) {
        char fault[48];
        mq_error err = {0};
        if (call == NULL) {
            mq_alloc_fail_after(n);
        } else {
            snprintf(fault, sizeof fault, "%s:%zu:%s", call, n, error);
            assert_true(mq_fault_configure(fault));
        }
        mq_status status = write_checkpoint(path, 20, &err);
        mq_alloc_fail_after(0);
        mq_fault_configure(NULL);
        assert_int_equal(mq_alloc_current(), before);
        if (status == MQ_OK) {
            assert_true(n > at_least);
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_int_equal(err.status, MQ_ERR_MACHINE);
        assert_true(call == NULL || err.file[0] != '\0');
        const bool complete = strstr(err.message, "is kept as") != NULL;
        assert_true(complete || call == NULL || strcmp(call, "rename") != 0);
        if (complete) {
            const char *kept = kept_beside(folder, &err);
            assert_checkpoint(kept, 4);
            temporary_remove(kept);
        }
        assert_int_equal(temporary_entries(folder->path), 0);
    }
    assert_checkpoint(path, 4);
    temporary_remove(path);
}

static void every_failure_leaves_nothing_behind(void **state) {
    temporary *folder = *state;
    sweep(folder, NULL, NULL, 30);
    sweep(folder, "write", "ENOSPC", 10);
    sweep(folder, "fsync", "EIO", 5);
    sweep(folder, "open", "EMFILE", 5);
    sweep(folder, "rename", "EIO", 1);
    for (int n = 1; n < 14; n++) {
        char fault[32];
        snprintf(fault, sizeof fault, "write:%d:SHORT", n);
        assert_true(mq_fault_configure(fault));
        mq_error err;
        assert_int_equal(write_checkpoint(temporary_path(folder, "out"), 20, &err), MQ_OK);
        assert_checkpoint(temporary_path(folder, "out"), 4);
        temporary_remove(temporary_path(folder, "out"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A sealed file: any other byte, or another length, is found; its tensors are those of a plain one.
 */
static void a_sealed_file_is_checked_whole(void **state) {
    const char *path = temporary_path(*state, "sealed");
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    mq_tensors *tensors = NULL;
    mq_error err;
    assert_int_equal(mq_output_begin_file(&output, path, "", false, &err), MQ_OK);
    assert_int_equal(mq_tensor_writer_open_sealed(&writer, output, specs, COUNT, &err), MQ_OK);
    assert_int_equal(put_all(writer, &err), MQ_OK);
    assert_int_equal(mq_tensor_writer_close(writer, &err), MQ_OK);
    assert_int_equal(mq_output_commit(output, &err), MQ_OK);
    mq_output_discard(output);
    assert_int_equal(mq_tensors_open_sealed(&tensors, path, &err), MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        unsigned char data[64];
        const mq_tensor_info *info = mq_tensors_find(tensors, specs[i].name);
        assert_non_null(info);
        fill(data, i);
        assert_memory_equal(info->data, data, info->bytes);
    }
    mq_tensors_close(tensors);

    char *content;
    size_t size;
    assert_int_equal(mq_read_file(&content, &size, path, 1 << 20, NULL), MQ_OK);
    for (size_t i = 0; i <= size; i++) {
        content[i < size ? i : 0] ^= i < size ? 0x10 : 0;
        const size_t length = i < size ? size : size - 1;
        assert_int_equal(mq_output_file(path, content, length, true, NULL), MQ_OK);
        assert_int_equal(mq_tensors_open_sealed(&tensors, path, &err), MQ_ERR_INPUT);
        assert_string_equal(err.file, path);
        content[i < size ? i : 0] ^= i < size ? 0x10 : 0;
    }
    assert_int_equal(mq_output_file(path, content, 20, true, NULL), MQ_OK);
    assert_int_equal(mq_tensors_open_sealed(&tensors, path, &err), MQ_ERR_INPUT);
    mq_free(content);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read),
        TEST(the_header_is_padded_and_begins_with_the_metadata),
        TEST(large_checkpoints_are_split),
        TEST(an_empty_checkpoint_can_be_written),
        TEST(misuse_is_refused),
        TEST(checksums_are_those_of_the_bytes),
        TEST(every_failure_leaves_nothing_behind),
        TEST(a_sealed_file_is_checked_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
