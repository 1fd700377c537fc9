/* layer: base */
#include <locale.h>

#include "temporary.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/json.h"
#include "base/plain_locale.h"

/* Pashto, whose decimal point is of two bytes, made here: the machine need not have it. */
static void enter_locale(const temporary *folder) {
    char command[PATH_MAX + 128];
    snprintf(command, sizeof command,
             "localedef -i ps_AF -f UTF-8 '%s/ps_AF.UTF-8' >/dev/null 2>&1", folder->path);
    if (system(command) != 0) {
        skip(); /* without localedef, or what it makes locales of */
    }
    assert_int_equal(setenv("LOCPATH", folder->path, 1), 0);
    assert_non_null(setlocale(LC_ALL, "ps_AF.UTF-8"));
    assert_int_equal(strlen(localeconv()->decimal_point), 2);
}

static void numbers_have_points_in_any_locale(void **state) {
    enter_locale(*state);
    const locale_t before = uselocale((locale_t)0);
    mq_error err;
    cJSON *parsed = NULL;
    assert_int_equal(mq_json_parse(&parsed, "[1.5]", 5, "a.json", &err), MQ_OK);
    assert_true(cJSON_GetArrayItem(parsed, 0)->valuedouble == 1.5);
    cJSON_Delete(parsed);
    mq_buffer buffer = {0};
    mq_buffer_printf(&buffer, "%.2f ", 2.5);
    mq_buffer_printf(&buffer, "%300.2f ", 2.5); /* longer than its room on the stack */
    mq_buffer_put_json_number(&buffer, -0.125);
    assert_false(buffer.failed);
    assert_int_equal(strncmp(buffer.text, "2.50 ", 5), 0);
    assert_string_equal(buffer.text + 5 + 296, "2.50 -0.125");
    mq_free(buffer.text);
    assert_ptr_equal(uselocale((locale_t)0), before);
    assert_int_equal(strlen(localeconv()->decimal_point), 2);
    setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(
        numbers_have_points_in_any_locale, temporary_setup, temporary_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
