/* layer: base */
#include <math.h>

#include "base/json.h"
#include "base/json_build.h"
#include "json_memory.h"
#include "temporary.h"

/* Everything that can be put, in objects and in arrays. */
static mq_status build(cJSON **out, mq_status status, mq_error *err) {
    mq_json json = mq_json_begin(cJSON_CreateObject());
    mq_json_put_number(&json, json.root, "number", 0.5);
    mq_json_put_number(&json, json.root, "none", NAN);
    mq_json_put_size(&json, json.root, "size", 4096);
    mq_json_put_bool(&json, json.root, "yes", true);
    mq_json_put_bool(&json, json.root, "no", false);
    mq_json_put_text(&json, json.root, "text", "\"\xe2\x82\xac\"");
    mq_json_put_null(&json, json.root, "null");
    cJSON *object = mq_json_put_object(&json, json.root, "object");
    mq_json_put_size(&json, object, "one", 1);
    cJSON *array = mq_json_put_array(&json, json.root, "array");
    mq_json_put_number(&json, array, NULL, 2);
    mq_json_put_text(&json, array, NULL, "three");
    cJSON *element = mq_json_put_object(&json, array, NULL);
    mq_json_put_null(&json, element, "four");
    mq_json_put_array(&json, array, NULL);
    mq_json_put_copy(&json, array, NULL, object);
    mq_json_put_copy(&json, json.root, "copy", array);
    return mq_json_take(out, &json, status, "a test", err);
}

static const char built[] = "{\"number\":0.5,\"none\":null,\"size\":4096,\"yes\":true,"
                            "\"no\":false,\"text\":\"\\\"\xe2\x82\xac\\\"\",\"null\":null,"
                            "\"object\":{\"one\":1},"
                            "\"array\":[2,\"three\",{\"four\":null},[],{\"one\":1}],"
                            "\"copy\":[2,\"three\",{\"four\":null},[],{\"one\":1}]}";

static void values_stand_in_order(void **state) {
    (void)state;
    cJSON *json = NULL;
    assert_int_equal(build(&json, MQ_OK, NULL), MQ_OK);
    char *text = cJSON_PrintUnformatted(json);
    assert_string_equal(text, built);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void without_memory_there_is_nothing(void **state) {
    (void)state;
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    for (; status != MQ_OK; tried++) {
        mq_error err;
        cJSON *json = NULL;
        json_memory_begin(tried);
        status = build(&json, MQ_OK, &err);
        if (status != MQ_OK) {
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_non_null(strstr(err.message, "a test"));
            assert_null(json);
        }
        cJSON_Delete(json);
        assert_int_equal(json_memory_end(), 0);
    }
    assert_true(tried > 40);
}

/* The first thing that was missing stays missing, though there is memory again. */
static void what_failed_stays_failed(void **state) {
    (void)state;
    mq_error err;
    mq_json json = mq_json_begin(cJSON_CreateObject());
    mq_json_put_text(&json, json.root, "a", "a");
    assert_int_equal(mq_json_check(&json, "a test", &err), MQ_OK);
    json.failed = true;
    mq_json_put_text(&json, json.root, "b", "b");
    assert_null(mq_json_put_object(&json, json.root, "c"));
    assert_int_equal(cJSON_GetArraySize(json.root), 1);
    assert_int_equal(mq_json_check(&json, "a test", &err), MQ_ERR_MACHINE);
    cJSON *taken = json.root;
    assert_int_equal(mq_json_take(&taken, &json, MQ_OK, "a test", &err), MQ_ERR_MACHINE);
    assert_null(taken);
    assert_null(json.root);
}

static void another_failure_comes_first(void **state) {
    (void)state;
    mq_error err = {.message = "as it was"};
    cJSON *json = NULL;
    assert_int_equal(build(&json, MQ_ERR_INPUT, &err), MQ_ERR_INPUT);
    assert_null(json);
    assert_string_equal(err.message, "as it was");
}

static void without_a_root_it_puts_into_others(void **state) {
    (void)state;
    cJSON *theirs = cJSON_CreateObject();
    mq_json json = {.root = NULL};
    mq_json_put_size(&json, theirs, "a", 1);
    mq_json_put_size(&json, mq_json_put_object(&json, theirs, "b"), "c", 2);
    assert_int_equal(mq_json_check(&json, "a test", NULL), MQ_OK);
    char *text = cJSON_PrintUnformatted(theirs);
    assert_string_equal(text, "{\"a\":1,\"b\":{\"c\":2}}");
    cJSON_free(text);
    cJSON_Delete(theirs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_stand_in_order),
        cmocka_unit_test(without_memory_there_is_nothing),
        cmocka_unit_test(what_failed_stays_failed),
        cmocka_unit_test(another_failure_comes_first),
        cmocka_unit_test(without_a_root_it_puts_into_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
