/* Edits of checkpoints that are there, plain or masters: of their tensors, their JSON files, single
 * bytes. Every function fails the test it is called from when anything goes wrong. */
#ifndef MQ_TEST_CHECKPOINT_EDITS_H
#define MQ_TEST_CHECKPOINT_EDITS_H

#include "folder_fixture.h"

#include "base/json.h"
#include "tensor/safetensors.h"

/* What to do with one tensor when a folder is written anew: drop it, give it another form (its
 * bytes all `fill`), or, when there is no such tensor, add it. */
typedef struct fixture_edit {
    const char *name;
    bool drop;
    mq_dtype dtype;
    size_t dims;
    size_t shape[2];
    unsigned char fill;
} fixture_edit;

/* Sets the member `key` of FOLDER/NAME (inside its member `object`, unless that is NULL) to what
 * json says; NULL removes it. */
static UNUSED void fixture_set_json(const char *folder, const char *name, const char *object,
                                    const char *key, const char *json) {
    mq_error err;
    char *path = fixture_file(folder, name);
    cJSON *whole = NULL;
    must(mq_json_read(&whole, path, &err), &err);
    cJSON *inner = object == NULL ? whole : cJSON_GetObjectItemCaseSensitive(whole, object);
    assert_non_null(inner);
    cJSON_DeleteItemFromObjectCaseSensitive(inner, key);
    if (json != NULL) {
        cJSON *value = cJSON_Parse(json);
        assert_non_null(value);
        assert_true(cJSON_AddItemToObject(inner, key, value));
    }
    char *text = cJSON_Print(whole);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    cJSON_free(text);
    cJSON_Delete(whole);
    mq_free(path);
}

static UNUSED const fixture_edit *fixture_find_edit(const fixture_edit *edits, size_t count,
                                                    const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(edits[i].name, name) == 0) {
            return &edits[i];
        }
    }
    return NULL;
}

static UNUSED void fixture_put_edit(mq_tensor_writer *writer, size_t index,
                                    const fixture_edit *edit) {
    mq_error err;
    size_t bytes =
        mq_dtype_size(edit->dtype) * edit->shape[0] * (edit->dims == 2 ? edit->shape[1] : 1);
    unsigned char *data = mq_alloc(bytes, 1);
    assert_non_null(data);
    memset(data, edit->fill, bytes);
    must(mq_tensor_writer_put(writer, index, data, bytes, &err), &err);
    mq_free(data);
}

/* Every file of the folder that has no tensors. */
static UNUSED void fixture_copy_others(mq_output *output, const char *from) {
    mq_error err;
    char **names = NULL;
    size_t files = 0;
    must(mq_list_folder(&names, &files, from, &err), &err);
    for (size_t i = 0; i < files; i++) {
        if (strstr(names[i], ".safetensors") == NULL) {
            char *path = fixture_file(from, names[i]);
            must(mq_copy_file(output, names[i], path, &err), &err);
            mq_free(path);
        }
    }
    mq_free_list(names, files);
}

/* Copies every file of `from` into a new folder, its tensors edited. */
static UNUSED char *fixture_rewrite(const char *from, const fixture_edit *edits,
                                    size_t edit_count) {
    char *folder = fixture_path("edited");
    mq_error err;
    mq_tensors *tensors = NULL;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    must(mq_tensors_open(&tensors, from, &err), &err);
    must(mq_output_begin(&output, folder, false, &err), &err);
    mq_tensor_spec specs[256];
    const fixture_edit *edited[256];
    const mq_tensor_info *kept[256];
    size_t count = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        const fixture_edit *edit = fixture_find_edit(edits, edit_count, info->name);
        if (edit != NULL) {
            continue;
        }
        specs[count] =
            (mq_tensor_spec){.name = info->name, .dtype = info->dtype, .dims = info->dims};
        memcpy(specs[count].shape, info->shape, sizeof specs[count].shape);
        edited[count] = NULL;
        kept[count++] = info;
    }
    for (size_t i = 0; i < edit_count; i++) {
        if (!edits[i].drop) {
            specs[count] = (mq_tensor_spec){
                .name = edits[i].name, .dtype = edits[i].dtype, .dims = edits[i].dims};
            memcpy(specs[count].shape, edits[i].shape, sizeof edits[i].shape);
            edited[count] = &edits[i];
            kept[count++] = NULL;
        }
    }
    must(mq_tensor_writer_open(&writer, output, specs, count, 0, &err), &err);
    for (size_t i = 0; i < count; i++) {
        if (edited[i] != NULL) {
            fixture_put_edit(writer, i, edited[i]);
        } else {
            must(mq_tensor_writer_put(writer, i, kept[i]->data, kept[i]->bytes, &err), &err);
        }
    }
    must(mq_tensor_writer_close(writer, &err), &err);
    fixture_copy_others(output, from);
    must(mq_output_commit(output, &err), &err);
    mq_output_discard(output);
    mq_tensors_close(tensors);
    return folder;
}

/* Makes matquant.json list every tensor of the folder, as its writer does. */
static UNUSED void fixture_relist(const char *folder) {
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    cJSON *list = cJSON_CreateObject();
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        char digits[9];
        snprintf(digits, sizeof digits, "%08x", (unsigned)mq_crc32(0, info->data, info->bytes));
        cJSON *entry = cJSON_AddObjectToObject(list, info->name);
        assert_non_null(cJSON_AddStringToObject(entry, "crc32", digits));
        assert_non_null(cJSON_AddStringToObject(entry, "dtype", mq_dtype_name(info->dtype)));
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (size_t d = 0; d < info->dims; d++) {
            assert_true(cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)info->shape[d])));
        }
    }
    char *text = cJSON_PrintUnformatted(list);
    fixture_set_json(folder, "matquant.json", NULL, "tensors", text);
    cJSON_free(text);
    cJSON_Delete(list);
    mq_tensors_close(tensors);
}

/* Flips every bit of one byte of a file. */
static UNUSED void fixture_flip(const char *path, size_t offset) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_not_equal(byte, EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 0xff, file), byte ^ 0xff);
    assert_int_equal(fclose(file), 0);
}

/* Flips the last byte of a tensor; returns where in its file that ends. */
static UNUSED size_t fixture_flip_last(const char *folder, const char *tensor) {
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    const mq_tensor_info *info = mq_tensors_find(tensors, tensor);
    assert_non_null(info);
    const size_t end = info->file_offset + info->bytes;
    fixture_flip(info->file, end - 1);
    mq_tensors_close(tensors);
    return end;
}

#endif
