/* What the tests of src/model share: golden folders, and temporary ones with altered copies of
 * them. */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "model/weights.h"

#define GOLDEN_MODELS MATQUANT_GOLDEN_DIR "/models"

static inline void fail_with(const char *what, const mq_error *err) {
    char line[1400];
    mq_error_format(line, sizeof line, err);
    fail_msg("%s: %s", what, line);
}

static inline char *golden_path(const char *name, const char *file) {
    char *path = mq_asprintf("%s/%s%s%s", GOLDEN_MODELS, name, file[0] != '\0' ? "/" : "", file);
    assert_non_null(path);
    return path;
}

static inline mq_model *open_golden(const char *name) {
    char *folder = golden_path(name, "");
    mq_model *model = NULL;
    mq_error err = {0};
    if (mq_model_open_plain(&model, folder, &err) != MQ_OK) {
        fail_with(name, &err);
    }
    mq_free(folder);
    return model;
}

static inline mq_tensors *open_expected(const char *name) {
    char *path = golden_path(name, "expected.safetensors");
    mq_tensors *tensors = NULL;
    mq_error err = {0};
    if (mq_tensors_open_file(&tensors, path, &err) != MQ_OK) {
        fail_with(name, &err);
    }
    mq_free(path);
    return tensors;
}

static inline float *read_expected(const mq_tensors *tensors, const char *name, size_t *elements) {
    const mq_tensor_info *info = mq_tensors_find(tensors, name);
    assert_non_null(info);
    float *values = mq_alloc(info->elements, sizeof *values);
    assert_non_null(values);
    mq_error err = {0};
    if (mq_tensor_read_f32(values, info, 0, info->elements, &err) != MQ_OK) {
        fail_with(name, &err);
    }
    *elements = info->elements;
    return values;
}

/* ids[sequences, length] of a golden case. */
static inline int32_t *read_ids(const mq_tensors *tensors, size_t *sequences, size_t *length) {
    const mq_tensor_info *info = mq_tensors_find(tensors, "ids");
    assert_non_null(info);
    assert_int_equal(info->dtype, MQ_I32);
    assert_int_equal(info->dims, 2);
    int32_t *ids = mq_alloc(info->elements, sizeof *ids);
    assert_non_null(ids);
    memcpy(ids, info->data, info->bytes);
    *sequences = info->shape[0];
    *length = info->shape[1];
    return ids;
}

/* A folder in the temporary one; remove_folder deletes it with the files in it. */
static inline char *make_folder(void) {
    const char *parent = getenv("TMPDIR");
    char *folder = mq_asprintf("%s/matquant-test-XXXXXX", parent != NULL ? parent : "/tmp");
    assert_non_null(folder);
    assert_non_null(mkdtemp(folder));
    return folder;
}

static inline void remove_folder(char *folder) {
    char **names;
    size_t count;
    assert_int_equal(mq_list_folder(&names, &count, folder, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *path = mq_path_join(folder, names[i]);
        assert_int_equal(unlink(path), 0);
        mq_free(path);
    }
    mq_free_list(names, count);
    assert_int_equal(rmdir(folder), 0);
    mq_free(folder);
}

static inline void write_bytes(const char *folder, const char *name, const void *data,
                               size_t size) {
    char *path = mq_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    mq_free(path);
}

/* Copies a file of a golden case, with the first `from` in it replaced by `to` of the same length
 * (NULL: as it is). */
static inline void copy_changed(const char *folder, const char *name, const char *file,
                                const char *from, const char *to) {
    char *path = golden_path(name, file), *data = NULL;
    size_t size = 0;
    assert_int_equal(mq_read_file(&data, &size, path, (size_t)1 << 30, NULL), MQ_OK);
    if (from != NULL) {
        assert_int_equal(strlen(from), strlen(to));
        char *at = memmem(data, size, from, strlen(from));
        assert_non_null(at);
        memcpy(at, to, strlen(to));
    }
    write_bytes(folder, file, data, size);
    mq_free(data);
    mq_free(path);
}

#endif
