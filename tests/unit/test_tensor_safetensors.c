/* layer: tensor */
/* Checkpoints of one file and of shards: what is read, indices that lie, and a machine that fails.
 * Which files are refused is test_tensor_safetensors_refused.c's. */
#include "safetensors_text.h"

/* --- what is read ----------------------------------------------------------------------------- */

static void good_files_are_read(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_tensors *tensors = NULL;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"}," ENTRY(
        "z", 3, 0,
        3) ","
           "\"a\":{\"shape\":[2,1,2],\"data_offsets\":[3,11],\"dtype\":\"BF16\",\"more\":[1]},"
           "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[11,15]}," ENTRY(
               "none", 0, 15,
               15) ","
                   "\"none.too\":{\"dtype\":\"F32\",\"shape\":[5,0],\"data_offsets\":[3,3]}}   ";
    const char *path = write_tensors(folder, "good", header, 15);
    assert_int_equal(mq_tensors_open_file(&tensors, path, &err), MQ_OK);
    static const char *const order[] = {"z", "none.too", "a", "scalar", "none"};
    assert_int_equal(mq_tensors_count(tensors), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(mq_tensors_at(tensors, i)->name, order[i]);
        assert_ptr_equal(mq_tensors_find(tensors, order[i]), mq_tensors_at(tensors, i));
    }
    assert_null(mq_tensors_find(tensors, "b"));
    assert_string_equal(mq_tensors_where(tensors, "b"), path);
    assert_string_equal(mq_tensors_where(tensors, "a"), path);
    assert_null(mq_tensors_find(tensors, "__metadata__"));
    const mq_tensor_info *a = mq_tensors_find(tensors, "a");
    assert_int_equal(a->dtype, MQ_BF16);
    assert_int_equal(a->dims, 3);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 1);
    assert_int_equal(a->shape[2], 2);
    assert_int_equal(a->elements, 4);
    assert_int_equal(a->bytes, 8);
    assert_int_equal(a->data[0], 3);
    assert_int_equal(a->file_offset, 8 + strlen(header) + 3);
    assert_string_equal(a->file, path);
    const mq_tensor_info *scalar = mq_tensors_find(tensors, "scalar");
    assert_int_equal(scalar->dims, 0);
    assert_int_equal(scalar->elements, 1);
    assert_int_equal(mq_tensors_file_count(tensors), 1);
    assert_string_equal(mq_tensors_file(tensors, 0), path);
    for (size_t i = 0; i < 5; i++) {
        mq_tensor_will_need(tensors, mq_tensors_at(tensors, i));
        mq_tensor_dont_need(tensors, mq_tensors_at(tensors, i));
    }
    assert_int_equal(a->data[7], 10);
    mq_tensors_close(tensors);
    assert_int_equal(mq_tensors_open_file(&tensors, write_tensors(folder, "empty", "{}", 0), &err),
                     MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), 0);
    assert_null(mq_tensors_find(tensors, "a"));
    mq_tensors_close(tensors);
    mq_tensors_close(NULL);
}

static void values_are_read_and_checked(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_tensors *tensors = NULL;
    const char *header =
        "{\"w\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}," ENTRY("u", 1, 12,
                                                                                    13) "}";
    const char *path = write_tensors(folder, "values", header, 13);
    const uint16_t halves[6] = {0x3c00, 0xc000, 0x0001, 0x3555, 0x7c00, 0xfe00};
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 8 + (long)strlen(header), SEEK_SET), 0);
    assert_int_equal(fwrite(halves, 2, 6, file), 6);
    fclose(file);
    assert_int_equal(mq_tensors_open_file(&tensors, path, &err), MQ_OK);
    const mq_tensor_info *w = mq_tensors_find(tensors, "w");
    float out[6];
    assert_int_equal(mq_tensor_read_f32(out, w, 0, 4, &err), MQ_OK);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f && out[3] == 0x1.554p-2f);
    assert_int_equal(mq_tensor_read_f32(out, w, 1, 2, &err), MQ_OK);
    assert_true(out[0] == -2 && out[1] == 0x1p-24f);
    assert_int_equal(mq_tensor_read_f32(out, w, 6, 0, &err), MQ_OK);
    for (size_t first = 3; first <= 4; first++) {
        assert_int_equal(mq_tensor_read_f32(out, w, first, 6 - first, &err), MQ_ERR_INPUT);
        assert_string_equal(err.message, "element 4 is infinite");
        assert_int_equal(err.offset, 8 + strlen(header) + 8);
    }
    assert_int_equal(mq_tensor_read_f32(out, w, 5, 1, &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "element 5 is NaN");
    assert_string_equal(err.file, path);
    assert_string_equal(err.tensor, "w");
    assert_int_equal(err.offset, 8 + strlen(header) + 10);
    assert_int_equal(mq_tensor_read_f32(out, mq_tensors_find(tensors, "u"), 0, 1, &err),
                     MQ_ERR_INPUT);
    assert_string_equal(err.message, "its dtype is U8 where F32, F16 or BF16 is needed");
    assert_string_equal(err.tensor, "u");
    mq_tensors_close(tensors);
}

/* --- shards ----------------------------------------------------------------------------------- */

#define INDEX "model.safetensors.index.json"

static void write_index(temporary *folder, const char *weight_map) {
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":%s}", weight_map);
    temporary_write(folder, INDEX, text, strlen(text));
}

static void assert_folder_rejected(temporary *folder, const char *file, const char *tensor,
                                   const char *message) {
    mq_error err;
    mq_tensors *tensors = NULL;
    size_t before = mq_alloc_current();
    assert_int_equal(mq_tensors_open(&tensors, folder->path, &err), MQ_ERR_INPUT);
    assert_int_equal(mq_alloc_current(), before);
    assert_null(tensors);
    assert_string_equal(err.message, message);
    assert_string_equal(err.file, file[0] == '\0' ? folder->path : temporary_path(folder, file));
    assert_string_equal(err.tensor, tensor);
}

static void shards_are_one_checkpoint(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_tensors *tensors = NULL;
    write_tensors(folder, "s1", "{" ENTRY("b", 2, 0, 2) "," ENTRY("c", 2, 2, 4) "}", 4);
    write_tensors(folder, "s2", "{" ENTRY("a", 3, 0, 3) "}", 3);
    write_index(folder, "{\"a\":\"s2\",\"b\":\"s1\",\"c\":\"s1\"}");
    assert_int_equal(mq_tensors_open(&tensors, folder->path, &err), MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), 3);
    assert_string_equal(mq_tensors_at(tensors, 0)->name, "b");
    assert_string_equal(mq_tensors_at(tensors, 1)->name, "c");
    assert_string_equal(mq_tensors_at(tensors, 2)->name, "a");
    assert_string_equal(mq_tensors_find(tensors, "a")->file, temporary_path(folder, "s2"));
    assert_string_equal(mq_tensors_where(tensors, "a"), temporary_path(folder, "s2"));
    assert_string_equal(mq_path_base(mq_tensors_where(tensors, "no.such.tensor")),
                        "model.safetensors.index.json");
    assert_int_equal(mq_tensors_file_count(tensors), 2);
    assert_string_equal(mq_path_base(mq_tensors_file(tensors, 1)), "s2");
    mq_tensor_will_need(tensors, mq_tensors_find(tensors, "a"));
    mq_tensor_dont_need(tensors, mq_tensors_find(tensors, "a"));
    /* Another file in the place of one: what is read, and its digest, stay. */
    char before[65], other[65], digest[65];
    const char *path = temporary_path(folder, "s2");
    assert_int_equal(mq_sha256_file(before, path, NULL, &err), MQ_OK);
    assert_int_equal(rename(write_tensors(folder, "s3", "{" ENTRY("a", 3, 0, 3) "} ", 3), path), 0);
    assert_int_equal(mq_sha256_file(other, path, NULL, &err), MQ_OK);
    assert_string_not_equal(other, before);
    assert_int_equal(mq_tensors_sha256(digest, tensors, 1, NULL, &err), MQ_OK);
    assert_string_equal(digest, before);
    mq_tensors_close(tensors);

    write_tensors(folder, "model.safetensors", "{" ENTRY("only", 1, 0, 1) "}",
                  1); /* goes before an index */
    assert_int_equal(mq_tensors_open(&tensors, folder->path, &err), MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), 1);
    mq_tensors_close(tensors);
}

static void an_index_that_lies_is_refused(void **state) {
    temporary *folder = *state;
    assert_folder_rejected(folder, "model.safetensors", "",
                           "is not there, and neither is model.safetensors.index.json; weights "
                           "in other formats are not read");
    write_tensors(folder, "s1", "{" ENTRY("b", 2, 0, 2) "," ENTRY("c", 2, 2, 4) "}", 4);
    write_tensors(folder, "s2", "{" ENTRY("a", 3, 0, 3) "}", 3);
    write_tensors(folder, "s3", "{" ENTRY("a", 3, 0, 3) "}", 3);
    write_index(folder, "{\"a\":\"s2\",\"b\":\"s4\"}");
    assert_folder_rejected(folder, "s4", "", "cannot open: No such file or directory");
    write_index(folder, "{\"a\":\"s2\",\"d\":\"s1\"}");
    assert_folder_rejected(folder, INDEX, "d", "is not in s1");
    write_index(folder, "{\"a\":\"s2\",\"b\":\"s2\",\"c\":\"s1\"}");
    assert_folder_rejected(folder, INDEX, "b", "is not in s2");
    write_index(folder, "{\"a\":\"s2\",\"a\":\"s1\"}");
    assert_folder_rejected(folder, INDEX, "a", "is not in s1");
    write_index(folder, "{\"a\":\"s2\",\"b\":\"s3\"}");
    mq_error err;
    mq_tensors *tensors = NULL;
    assert_int_equal(mq_tensors_open(&tensors, folder->path, &err), MQ_ERR_INPUT);
    assert_string_equal(err.tensor, "a");
    assert_true(strcmp(err.message, "is also in s2") == 0 ||
                strcmp(err.message, "is also in s3") == 0);
    const char *no_files[] = {"1",    "\"\"",   "\"../s1\"",   "\"/s1\"",    "\"..\"",
                              "null", "\"./\"", "\"./../s1\"", "\"././s1\"", "\"./..\""};
    for (size_t i = 0; i < sizeof no_files / sizeof *no_files; i++) {
        char map[64];
        snprintf(map, sizeof map, "{\"b\":%s}", no_files[i]);
        write_index(folder, map);
        assert_folder_rejected(folder, INDEX, "b",
                               "\"weight_map\" does not give the name of a file beside it");
    }
    write_index(folder, "{}");
    assert_folder_rejected(folder, INDEX, "", "\"weight_map\" is empty");
    write_index(folder, "[]");
    assert_folder_rejected(folder, INDEX, "", "\"weight_map\" is missing or not an object");
    temporary_write(folder, INDEX, "[]", 2);
    assert_folder_rejected(folder, INDEX, "", "\"weight_map\" is missing or not an object");
    assert_int_equal(mq_tensors_open(&tensors, temporary_path(folder, "none"), &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "is not a folder");
    assert_string_equal(err.file, temporary_path(folder, "none"));
}

/* Of an index: a file's name may begin with "./", and one tensor may be listed in vain. */
static void odd_indexes_are_read(void **state) {
    temporary *folder = *state;
    mq_error err;
    mq_tensors *tensors = NULL;
    write_tensors(folder, "s1", "{" ENTRY("b", 2, 0, 2) "," ENTRY("c", 2, 2, 4) "}", 4);
    write_tensors(folder, "s2", "{" ENTRY("a", 3, 0, 3) "}", 3);
    write_index(folder, "{\"a\":\"./s2\",\"b\":\"./s1\",\"c\":\"s1\"}");
    assert_int_equal(mq_tensors_open(&tensors, folder->path, &err), MQ_OK);
    assert_int_equal(mq_tensors_file_count(tensors), 2);
    assert_string_equal(mq_tensors_find(tensors, "b")->file, temporary_path(folder, "s1"));
    mq_tensors_close(tensors);
    tensors = NULL;
    write_index(folder, "{\"a\":\"./s1\",\"b\":\"s1\"}");
    assert_folder_rejected(folder, INDEX, "a", "is not in s1");

    write_index(folder, "{\"a\":\"s2\",\"d\":\"s2\"}");
    assert_folder_rejected(folder, INDEX, "d", "is not in s2");
    static const char *const unneeded[] = {"x", "d", NULL}, *const there[] = {"a", NULL};
    assert_int_equal(mq_tensors_open_without(&tensors, folder->path, unneeded, &err), MQ_OK);
    assert_int_equal(mq_tensors_count(tensors), 1);
    assert_null(mq_tensors_find(tensors, "d"));
    mq_tensors_close(tensors);
    tensors = NULL;
    static const char *const others[] = {"{\"a\":\"s2\",\"e\":\"s2\"}",   /* another tensor */
                                         "{\"a\":\"s2\",\"d\":\"none\"}", /* no such file */
                                         "{\"a\":\"s1\",\"d\":\"s2\"}"};  /* in the wrong one */
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_index(folder, others[i]);
        assert_int_equal(mq_tensors_open_without(&tensors, folder->path, unneeded, &err),
                         MQ_ERR_INPUT);
        assert_null(tensors);
    }
    write_index(folder, "{\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s2\"}");
    assert_int_equal(mq_tensors_open_without(&tensors, folder->path, there, &err), MQ_ERR_INPUT);
}

/* --- the machine fails ------------------------------------------------------------------------ */

static void opening_survives_lack_of_memory_and_faults(void **state) {
    temporary *folder = *state;
    write_tensors(folder, "s1", "{" ENTRY("b", 2, 0, 2) "," ENTRY("c", 2, 2, 4) "}", 4);
    write_tensors(folder, "s2", "{" ENTRY("a", 3, 0, 3) "}", 3);
    write_index(folder, "{\"a\":\"s2\",\"b\":\"s1\",\"c\":\"s1\"}");
    static const char *const faults[] = {NULL, "open:%zu:EMFILE", "map:%zu:ENOMEM", "read:%zu:EIO"};
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        size_t before = mq_alloc_current();
        for (size_t n = 1;; n++) {
            mq_error err = {0};
            mq_tensors *tensors = NULL;
            if (faults[f] == NULL) {
                mq_alloc_fail_after(n);
            } else {
                char fault[48];
                snprintf(fault, sizeof fault,
                         f == 1   ? "open:%zu:EMFILE"
                         : f == 2 ? "map:%zu:ENOMEM"
                                  : "read:%zu:EIO",
                         n);
                assert_true(mq_fault_configure(fault));
            }
            mq_status status = mq_tensors_open(&tensors, folder->path, &err);
            mq_alloc_fail_after(0);
            mq_fault_configure(NULL);
            if (status == MQ_OK) {
                assert_int_equal(mq_tensors_count(tensors), 3);
                mq_tensors_close(tensors);
                assert_true(n > (f == 0 ? 10 : 2));
                assert_int_equal(mq_alloc_current(), before);
                break;
            }
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_string_not_equal(err.file, "");
            assert_null(tensors);
            assert_int_equal(mq_alloc_current(), before);
        }
    }
}

static void thousands_of_tensors_are_found(void **state) {
    temporary *folder = *state;
    enum { COUNT = 50000 };
    char *header = malloc(COUNT * 96);
    assert_non_null(header);
    size_t length = 0;
    for (size_t i = 0; i < COUNT; i++) {
        length += (size_t)sprintf(header + length,
                                  "%c\"model.layers.%zu.weight\":{\"dtype\":\"U8\",\"shape\":[1],"
                                  "\"data_offsets\":[%zu,%zu]}",
                                  i == 0 ? '{' : ',', i, i, i + 1);
    }
    strcpy(header + length, "}");
    mq_error err;
    mq_tensors *tensors = NULL;
    assert_int_equal(
        mq_tensors_open_file(&tensors, write_tensors(folder, "many", header, COUNT), &err), MQ_OK);
    free(header);
    for (size_t i = 0; i < COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%zu.weight", i);
        assert_ptr_equal(mq_tensors_find(tensors, name), mq_tensors_at(tensors, i));
    }
    mq_tensors_close(tensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(good_files_are_read),
        TEST(values_are_read_and_checked),
        TEST(shards_are_one_checkpoint),
        TEST(an_index_that_lies_is_refused),
        TEST(odd_indexes_are_read),
        TEST(opening_survives_lack_of_memory_and_faults),
        TEST(thousands_of_tensors_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
