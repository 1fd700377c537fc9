/* layer: base */
#include <math.h>

#include "base/json.h"
#include "temporary.h"

static mq_status parse(cJSON **out, const char *text, mq_error *err) {
    return mq_json_parse(out, text, strlen(text), "f.json", err);
}

#define NUL "a string that holds the character U+0000 is not supported"

static void malformed_text_is_refused_with_its_offset(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        uint64_t offset;
        const char *message;
    } cases[] = {
        {"{\"a\":}", 6, 5, "JSON is malformed"},
        {"[1,2", 4, 3, "JSON is malformed"},
        {"", 0, 0, "JSON is malformed"},
        {"{} x", 4, 3, "something follows the JSON value"},
        {"{}{}", 4, 2, "something follows the JSON value"},
        {"{\"a\0\":1}", 8, 3, "JSON holds a NUL byte"},
        {"{}\0", 3, 2, "JSON holds a NUL byte"},
        {"{\"a\\u0000b\":1}", 14, 3, NUL},
        {"\"\\\\\\u0000\"", 10, 3, NUL}, /* after an escaped backslash */
        {"{\"a\":\"\xff\"}", 9, 6, "JSON is not valid UTF-8"},
        {"\"\xc0\x80\"", 4, 1, "JSON is not valid UTF-8"},     /* overlong */
        {"\"\xe0\x80\x80\"", 5, 1, "JSON is not valid UTF-8"}, /* overlong */
        {"\"\xed\xa0\x80\"", 5, 1, "JSON is not valid UTF-8"}, /* surrogate */
        {"\"\xf4\x90\x80\x80\"", 6, 1, "JSON is not valid UTF-8"},
        {"\"\xf0\x80\x80\x80\"", 6, 1, "JSON is not valid UTF-8"},
        {"\"\xe2\x82", 3, 1, "JSON is not valid UTF-8"}, /* cut short */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_error err;
        cJSON *json = NULL;
        char *exact = malloc(cases[i].size + 1); /* so that reading past the end is seen */
        assert_non_null(exact);
        memcpy(exact, cases[i].text, cases[i].size);
        assert_int_equal(mq_json_parse(&json, exact, cases[i].size, "f.json", &err), MQ_ERR_INPUT);
        free(exact);
        assert_null(json);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.file, "f.json");
        assert_true(err.has_offset);
        assert_int_equal(err.offset, cases[i].offset);
    }
}

static void nesting_is_limited(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    mq_error err;
    cJSON *json = NULL;
    assert_int_equal(mq_json_parse(&json, text, DEPTH, "deep.json", &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, "deep.json");
    free(text);
}

static void good_text_is_parsed(void **state) {
    (void)state;
    cJSON *json = NULL;
    assert_int_equal(parse(&json, " {\"a\": [1, \"\xe2\x82\xac\", \"\\\\u0000\"]}\n\t ", NULL),
                     MQ_OK);
    assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "a"), 1)->valuestring,
                        "\xe2\x82\xac");
    assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "a"), 2)->valuestring,
                        "\\u0000");
    cJSON_Delete(json);
}

static void members_are_typed(void **state) {
    (void)state;
    cJSON *json = NULL;
    mq_error err;
    size_t size = 7;
    double number = 7;
    bool flag = false;
    const char *text = "unset";
    assert_int_equal(
        parse(&json,
              "{\"s\":12,\"d\":-0.5,\"b\":true,\"t\":\"x\",\"n\":null,\"neg\":-1,\"half\":1.5,"
              "\"big\":9007199254740994,\"edge\":9007199254740992,\"inf\":1e999}",
              &err),
        MQ_OK);
    assert_int_equal(mq_json_get_size(&size, json, "s", true, "f", &err), MQ_OK);
    assert_int_equal(size, 12);
    assert_int_equal(mq_json_get_size(&size, json, "edge", true, "f", &err), MQ_OK);
    assert_true(size == (size_t)1 << 53);
    assert_int_equal(mq_json_get_double(&number, json, "d", true, "f", &err), MQ_OK);
    assert_true(number == -0.5);
    assert_int_equal(mq_json_get_bool(&flag, json, "b", true, "f", &err), MQ_OK);
    assert_true(flag);
    assert_int_equal(mq_json_get_string(&text, json, "t", true, "f", &err), MQ_OK);
    assert_string_equal(text, "x");

    size = 7;
    const char *absent[] = {"n", "missing", "S"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mq_json_get_size(&size, json, absent[i], false, "f", &err), MQ_OK);
        assert_int_equal(size, 7);
        assert_int_equal(mq_json_get_size(&size, json, absent[i], true, "f", &err), MQ_ERR_INPUT);
        assert_string_equal(err.file, "f");
    }
    assert_string_equal(err.message, "\"S\" is missing");
    const char *no_size[] = {"neg", "half", "big", "inf", "t", "b"};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(mq_json_get_size(&size, json, no_size[i], false, "f", &err), MQ_ERR_INPUT);
    }
    assert_string_equal(err.message, "\"b\" is not a whole number between 0 and 2^53");
    assert_int_equal(mq_json_get_double(&number, json, "t", false, "f", &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "\"t\" is not a finite number");
    assert_int_equal(mq_json_get_double(&number, json, "inf", false, "f", &err), MQ_ERR_INPUT);
    assert_int_equal(mq_json_get_bool(&flag, json, "s", false, "f", &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "\"s\" is not true or false");
    assert_int_equal(mq_json_get_string(&text, json, "s", false, "f", &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "\"s\" is not a string");
    assert_int_equal(mq_json_get_size(&size, cJSON_GetObjectItem(json, "t"), "x", false, "f", &err),
                     MQ_ERR_INPUT);
    cJSON_Delete(json);
}

static void assert_prints(const cJSON *value, const char *expected) {
    char *text = mq_json_print(value);
    assert_non_null(text);
    assert_string_equal(text, expected);
    mq_free(text);
}

static void numbers_print_shortest(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0\n"},
        {-1, "-1\n"},
        {100000, "100000\n"},
        {9007199254740991, "9007199254740991\n"},
        {123456789012345, "123456789012345\n"},
        {0.1, "0.1\n"},
        {1e-5, "1e-05\n"},
        {1.0 / 3, "0.3333333333333333\n"},
        {0.1 + 0.2, "0.30000000000000004\n"},
        {1e300, "1e+300\n"},
        {5e-324, "5e-324\n"},
        {1.7976931348623157e308, "1.7976931348623157e+308\n"},
        {24.01, "24.01\n"},
        {(double)0.1f, "0.10000000149011612\n"},
        {INFINITY, "null\n"},
        {NAN, "null\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cJSON *number = cJSON_CreateNumber(cases[i].value);
        assert_prints(number, cases[i].text);
        cJSON_Delete(number);
        if (isfinite(cases[i].value)) {
            assert_true(strtod(cases[i].text, NULL) == cases[i].value);
        }
    }
}

static void values_print_indented_and_read_back(void **state) {
    (void)state;
    static const char text[] = "{\n"
                               "  \"a\": [8, 4, 2],\n"
                               "  \"empty\": [],\n"
                               "  \"none\": {},\n"
                               "  \"quote \\\" \\\\ \\n \\t \\u0001 \xe2\x82\xac\": null,\n"
                               "  \"list\": [\n"
                               "    {\n"
                               "      \"x\": true\n"
                               "    },\n"
                               "    [false, \"s\"]\n"
                               "  ]\n"
                               "}\n";
    cJSON *json = NULL;
    assert_int_equal(parse(&json, text, NULL), MQ_OK);
    assert_prints(json, text);
    for (size_t countdown = 1;; countdown++) {
        assert_true(countdown < 100);
        mq_alloc_fail_after(countdown);
        char *printed = mq_json_print(json);
        mq_alloc_fail_after(0);
        if (printed != NULL) {
            assert_string_equal(printed, text);
            mq_free(printed);
            break;
        }
    }
    cJSON_Delete(json);
}

/* A whole number that the file has with a point has one when it is printed; one that is put there
 * by the program has none. */
static void floats_stay_floats(void **state) {
    static const char text[] =
        "{\"a\":30.0,\"b \\\" 1.0\":[1e6,-2,7,0.5,1e300],\"c\":{\"d\":-1E0}}";
    mq_error err;
    cJSON *json = NULL;
    const char *path = temporary_write(*state, "a.json", text, strlen(text));
    assert_int_equal(mq_json_read(&json, path, &err), MQ_OK);
    cJSON *copy = cJSON_Duplicate(json, true);
    cJSON_Delete(json);
    assert_non_null(cJSON_AddNumberToObject(copy, "e", 3));
    assert_prints(copy, "{\n"
                        "  \"a\": 30.0,\n"
                        "  \"b \\\" 1.0\": [1000000.0, -2, 7, 0.5, 1e+300],\n"
                        "  \"c\": {\n"
                        "    \"d\": -1.0\n"
                        "  },\n"
                        "  \"e\": 3\n"
                        "}\n");
    cJSON_Delete(copy);
}

static void files_are_read(void **state) {
    temporary *folder = *state;
    mq_error err;
    cJSON *json = NULL;
    const char *path = temporary_write(folder, "a.json", "{\"a\":1}\n", 8);
    assert_int_equal(mq_json_read(&json, path, &err), MQ_OK);
    assert_true(cJSON_IsObject(json));
    cJSON_Delete(json);
    json = NULL;
    path = temporary_write(folder, "b.json", "{\"a\":1,}\n", 9);
    assert_int_equal(mq_json_read(&json, path, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, path);
    assert_in_range(err.offset, 7, 8); /* cJSON points to the brace or just after it */
    path = temporary_path(folder, "none.json");
    assert_int_equal(mq_json_read(&json, path, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, path);
    assert_null(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_text_is_refused_with_its_offset),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(good_text_is_parsed),
        cmocka_unit_test(members_are_typed),
        cmocka_unit_test(numbers_print_shortest),
        cmocka_unit_test(values_print_indented_and_read_back),
        cmocka_unit_test_setup_teardown(files_are_read, temporary_setup, temporary_teardown),
        cmocka_unit_test_setup_teardown(floats_stay_floats, temporary_setup, temporary_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
