/* layer: tensor */
/* Files that are refused, and what the errors say. */
#include "safetensors_text.h"

static void assert_rejected(const char *path, const char *tensor, bool has_offset, uint64_t offset,
                            const char *message) {
    mq_error err = {0};
    mq_tensors *tensors = NULL;
    size_t before = mq_alloc_current();
    mq_status status = mq_tensors_open_file(&tensors, path, &err);
    assert_int_equal(mq_alloc_current(), before);
    assert_int_equal(status, MQ_ERR_INPUT);
    assert_int_equal(err.status, MQ_ERR_INPUT);
    assert_null(tensors);
    assert_string_equal(err.message, message);
    assert_string_equal(err.file, path);
    assert_string_equal(err.tensor, tensor);
    assert_int_equal(err.has_offset, has_offset);
    if (has_offset) {
        assert_int_equal(err.offset, offset);
    }
}

static void lengths_that_lie_are_refused(void **state) {
    temporary *folder = *state;
    assert_rejected(temporary_write(folder, "a", "", 0), "", true, 0,
                    "the file ends within the header length");
    assert_rejected(temporary_write(folder, "a", "\2\0\0\0\0\0\0", 7), "", true, 7,
                    "the file ends within the header length");
    assert_rejected(temporary_write(folder, "a", "\3\0\0\0\0\0\0\0{}", 10), "", true, 0,
                    "a header of 3 bytes in a file of 10");
    assert_rejected(temporary_write(folder, "a", "\1\0\x40\6\0\0\0\0{}", 10), "", true, 0,
                    "a header of 104857601 bytes, more than 100 MiB");
    assert_rejected(temporary_write(folder, "a", "\0\0\x40\6\0\0\0\0{}", 10), "", true, 0,
                    "a header of 104857600 bytes in a file of 10");
    assert_rejected(temporary_write(folder, "a", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "",
                    true, 0, "a header of 18446744073709551615 bytes, more than 100 MiB");
    assert_rejected(temporary_write(folder, "a", "\0\0\0\0\0\0\0\0", 8), "", true, 8,
                    "the header does not begin with '{'");
}

static void headers_that_are_no_objects_are_refused(void **state) {
    temporary *folder = *state;
    assert_rejected(write_tensors(folder, "a", " {}", 0), "", true, 8,
                    "the header does not begin with '{'");
    assert_rejected(write_tensors(folder, "a", "[]", 0), "", true, 8,
                    "the header does not begin with '{'");
    assert_rejected(write_tensors(folder, "a", "{}x", 0), "", true, 10,
                    "something follows the JSON value");
    assert_rejected(write_tensors(folder, "a", "{\"\xff\":1}", 0), "", true, 10,
                    "JSON is not valid UTF-8");
    assert_rejected(write_tensors(folder, "a", "{\"a\\u0000b\":1}", 0), "", true, 11,
                    "a string that holds the character U+0000 is not supported");
    assert_rejected(temporary_write(folder, "a", "\4\0\0\0\0\0\0\0{ \0}", 12), "", true, 10,
                    "JSON holds a NUL byte");
    assert_rejected(write_tensors(folder, "a", "{\"__metadata__\":[]}", 0), "", false, 0,
                    "__metadata__ is not an object");
    assert_rejected(write_tensors(folder, "a", "{\"a\":1}", 0), "a", false, 0,
                    "its header entry is not an object");
    mq_error err;
    mq_tensors *tensors = NULL;
    assert_int_equal(
        mq_tensors_open_file(&tensors, write_tensors(folder, "a", "{\"a\":}", 0), &err),
        MQ_ERR_INPUT);
    assert_string_equal(err.message, "JSON is malformed");
    assert_in_range(err.offset, 13, 14);
    char *deep = malloc(50001);
    assert_non_null(deep);
    memset(deep, '[', 50000);
    memcpy(deep, "{\"a\":", 5);
    deep[50000] = '\0';
    assert_int_equal(mq_tensors_open_file(&tensors, write_tensors(folder, "a", deep, 0), &err),
                     MQ_ERR_INPUT);
    assert_string_equal(err.message, "JSON is malformed");
    free(deep);
}

static void bad_entries_are_refused(void **state) {
    temporary *folder = *state;
    static const struct {
        const char *entry, *message;
    } cases[] = {
        {"{}", "\"dtype\" is missing or not a string"},
        {"{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}",
         "\"dtype\" is missing or not a string"},
        {"{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}", "unknown dtype \"F33\""},
        {"{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}", "unknown dtype \"f32\""},
        {"{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", "\"shape\" is missing or not an array"},
        {"{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}",
         "\"shape\" is missing or not an array"},
        {"{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}",
         "an entry of \"shape\" is not a whole number"},
        {"{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}",
         "an entry of \"shape\" is not a whole number"},
        {"{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}",
         "an entry of \"shape\" is not a whole number"},
        {"{\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,4]}",
         "an entry of \"shape\" is not a whole number"},
        {"{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}",
         "more than 8 dimensions"},
        {"{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}",
         "the product of \"shape\" overflows"},
        {"{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,0]}",
         "the product of \"shape\" overflows"},
        {"{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}",
         "the product of \"shape\" overflows"},
        {"{\"dtype\":\"F32\",\"shape\":[1]}", "\"data_offsets\" are not two whole numbers"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}",
         "\"data_offsets\" are not two whole numbers"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}",
         "\"data_offsets\" are not two whole numbers"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}",
         "\"data_offsets\" are not two whole numbers"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.5,4]}",
         "\"data_offsets\" are not two whole numbers"},
        {"{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}",
         "\"dtype\" stands twice in its header entry"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}",
         "\"shape\" stands twice in its header entry"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"t.weight\":%s}", cases[i].entry);
        assert_rejected(write_tensors(folder, "a", header, 4), "t.weight", false, 0,
                        cases[i].message);
    }
}

static void offsets_outside_the_data_are_refused(void **state) {
    temporary *folder = *state;
    static const struct {
        const char *offsets;
        uint64_t begin;
        const char *message;
    } cases[] = {
        {"[4,0]", 4, "\"data_offsets\" 4 to 0 are not within the 4 bytes of data"},
        {"[0,8]", 0, "\"data_offsets\" 0 to 8 are not within the 4 bytes of data"},
        {"[8,12]", 8, "\"data_offsets\" 8 to 12 are not within the 4 bytes of data"},
        {"[9007199254740988,9007199254740992]", 9007199254740988,
         "\"data_offsets\" 9007199254740988 to 9007199254740992 are not within the 4 bytes of "
         "data"},
        {"[0,3]", 0, "3 bytes of data for a dtype and shape of 4"},
        {"[1,4]", 1, "3 bytes of data for a dtype and shape of 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":%s}}", cases[i].offsets);
        assert_rejected(write_tensors(folder, "a", header, 4), "t", true,
                        8 + strlen(header) + cases[i].begin, cases[i].message);
    }
}

static void tensors_that_overlap_or_leave_gaps_are_refused(void **state) {
    temporary *folder = *state;
    const char *header = "{" ENTRY("a", 4, 0, 4) "," ENTRY("b", 4, 3, 7) "}";
    assert_rejected(write_tensors(folder, "f", header, 7), "b", true, 8 + strlen(header) + 3,
                    "overlaps tensor a");
    header = "{" ENTRY("a", 4, 0, 4) "," ENTRY("b", 4, 0, 4) "}";
    assert_rejected(write_tensors(folder, "f", header, 4), "b", true, 8 + strlen(header),
                    "overlaps tensor a");
    header = "{" ENTRY("a", 4, 0, 4) "," ENTRY("b", 0, 2, 2) "}"; /* empty, but inside another */
    assert_rejected(write_tensors(folder, "f", header, 4), "b", true, 8 + strlen(header) + 2,
                    "overlaps tensor a");
    header = "{" ENTRY("b", 4, 5, 9) "," ENTRY("a", 4, 0, 4) "}";
    assert_rejected(write_tensors(folder, "f", header, 9), "", true, 8 + strlen(header) + 4,
                    "1 bytes of data belong to no tensor");
    header = "{" ENTRY("a", 4, 2, 6) "}";
    assert_rejected(write_tensors(folder, "f", header, 6), "", true, 8 + strlen(header),
                    "2 bytes of data belong to no tensor");
    header = "{" ENTRY("a", 4, 0, 4) "}";
    assert_rejected(write_tensors(folder, "f", header, 7), "", true, 8 + strlen(header) + 4,
                    "3 bytes of data belong to no tensor");
    assert_rejected(write_tensors(folder, "f", "{}", 1), "", true, 10,
                    "1 bytes of data belong to no tensor");
    header = "{" ENTRY("a", 4, 0, 4) "," ENTRY("a", 4, 4, 8) "}";
    assert_rejected(write_tensors(folder, "f", header, 8), "a", false, 0,
                    "stands twice in the header");
}

static void every_truncation_is_refused(void **state) {
    temporary *folder = *state;
    const char *header = "{" ENTRY("a", 4, 0, 4) "," ENTRY("b", 4, 4, 8) "}";
    const char *path = write_tensors(folder, "f", header, 8);
    size_t size = 8 + strlen(header) + 8;
    for (size_t length = 0; length < size; length++) {
        mq_error err;
        mq_tensors *tensors = NULL;
        write_tensors(folder, "f", header, 8);
        assert_int_equal(truncate(path, (off_t)length), 0);
        assert_int_equal(mq_tensors_open_file(&tensors, path, &err), MQ_ERR_INPUT);
        assert_string_equal(err.file, path);
        assert_true(err.has_offset);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(lengths_that_lie_are_refused),
        TEST(headers_that_are_no_objects_are_refused),
        TEST(bad_entries_are_refused),
        TEST(offsets_outside_the_data_are_refused),
        TEST(tensors_that_overlap_or_leave_gaps_are_refused),
        TEST(every_truncation_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
