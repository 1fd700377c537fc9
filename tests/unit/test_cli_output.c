/* layer: cli */
/* What the program prints: JSON, tables, sizes and times, progress. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"
#include "progress.h"
#include "table.h"

static void check_json_text(const char *value, const char *expected) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "k", value);
    assert_false(json.failed);
    char *text = cJSON_PrintUnformatted(json.root);
    assert_string_equal(text, expected);
    cJSON_free(text);
    cli_json_free(&json);
}

static void test_json_text(void **state) {
    (void)state;
    check_json_text("a\"b\\c\n", "{\"k\":\"a\\\"b\\\\c\\n\"}");
    check_json_text("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
                    "{\"k\":\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"}");
    /* Not UTF-8: a stray continuation, a cut sequence, an overlong one, a surrogate, past U+10FFFF.
     */
    check_json_text("\x80", "{\"k\":\"\xef\xbf\xbd\"}");
    check_json_text("x\xe2\x82", "{\"k\":\"x\xef\xbf\xbd\xef\xbf\xbd\"}");
    check_json_text("\xc0\xaf", "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\"}");
    check_json_text("\xed\xa0\x80", "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
    check_json_text("\xf4\x90\x80\x80",
                    "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
    check_json_text(NULL, "{\"k\":null}");
}

static void test_json_members(void **state) {
    (void)state;
    cli_json json;
    cli_json_begin(&json);
    cli_json_size(&json, json.root, "size", 3000000000);
    cli_json_number(&json, json.root, "number", 0.1);
    cli_json_number(&json, json.root, "nan", (double)NAN);
    cli_json_number(&json, json.root, "inf", (double)INFINITY);
    cli_json_bool(&json, json.root, "bool", true);
    cJSON *list = cli_json_array(&json, json.root, "list");
    cJSON *element = cli_json_element(&json, list);
    cli_json_number(&json, element, "x", 1.0 / 3);
    cli_json_raw(&json, json.root, "raw", "{\"a\": [1, 2]}");
    assert_false(json.failed);
    char *text = cJSON_PrintUnformatted(json.root);
    assert_string_equal(
        text, "{\"size\":3000000000,\"number\":0.1,\"nan\":null,\"inf\":null,\"bool\":true,"
              "\"list\":[{\"x\":0.33333333333333331}],\"raw\":{\"a\":[1,2]}}");
    cJSON_free(text);
    cli_json_raw(&json, json.root, "bad", "{");
    assert_true(json.failed);
    cli_json_free(&json);
}

/* In digits, all of them: a reader of JSON takes 1e+15 for a number that is not whole. */
static void test_json_sizes(void **state) {
    (void)state;
    cli_json json;
    cli_json_begin(&json);
    cli_json_size(&json, json.root, "none", 0);
    cli_json_size(&json, json.root, "round", 1000000000000000);
    cli_json_size(&json, json.root, "odd", ((size_t)1 << 53) + 1);
    cli_json_size(&json, json.root, "disk", (size_t)1 << 63);
    cli_json_size(&json, json.root, "largest", SIZE_MAX);
    assert_false(json.failed);
    char *text = cJSON_PrintUnformatted(json.root);
    assert_string_equal(text, "{\"none\":0,\"round\":1000000000000000,\"odd\":9007199254740993,"
                              "\"disk\":9223372036854775808,\"largest\":18446744073709551615}");
    cJSON_free(text);
    cli_json_free(&json);
}

static void test_table(void **state) {
    (void)state;
    cli_table table = {0};
    cli_table_row(&table);
    cli_table_cell(&table, "bits");
    cli_table_cell(&table, "loss");
    cli_table_row(&table);
    cli_table_cell(&table, "%d", 8);
    cli_table_cell(&table, "%.2f dB", -33.125);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    cli_table_print(out, &table);
    cli_print_field(out, "label", "%d", 5);
    fclose(out);
    assert_string_equal(text, "bits       loss\n"
                              "8     -33.12 dB\n"
                              "label                 5\n");
    free(text);
    assert_true(fabs(cli_decibels(0.001) - 30) < 1e-12);
}

static void check_bytes(size_t bytes, const char *expected) {
    char out[CLI_CELL_SIZE];
    assert_string_equal(cli_show_bytes(out, bytes), expected);
}

static void check_seconds(double seconds, const char *expected) {
    char out[CLI_CELL_SIZE];
    assert_string_equal(cli_show_seconds(out, seconds), expected);
}

static void test_units(void **state) {
    (void)state;
    check_bytes(0, "0 B");
    check_bytes(1023, "1023 B");
    check_bytes(1024, "1.00 KiB");
    check_bytes(1024 * 1024 - 1, "1.00 MiB");
    check_bytes((size_t)3 << 30, "3.00 GiB");
    check_bytes(SIZE_MAX, "16.00 EiB");
    check_seconds(0, "0.0 s");
    check_seconds(99.94, "99.9 s");
    check_seconds(99.96, "1:40");
    check_seconds(3599.4, "59:59");
    check_seconds(3600, "1:00:00");
    check_seconds(-1, "-");
    check_seconds((double)NAN, "-");
}

static void check_phase(double done, double total, double elapsed, const char *detail,
                        const char *next, const char *expected) {
    char out[160];
    mq_progress report = {.phase = "learn",
                          .unit = "block",
                          .done = done,
                          .total = total,
                          .elapsed_seconds = elapsed};
    cli_progress_text(out, sizeof out, &report, detail, next);
    assert_string_equal(out, expected);
}

static void check_progress(double done, double total, double elapsed, const char *detail,
                           const char *expected) {
    check_phase(done, total, elapsed, detail, NULL, expected);
}

static void test_progress(void **state) {
    (void)state;
    check_progress(0, 30, 0, NULL, "learn 0.0 %: block 0/30");
    check_progress(2.5, 30, 2.9, NULL, "learn 8.3 %: block 2/30"); /* too early to tell */
    check_progress(0.2, 30, 100, NULL, "learn 0.6 %: block 0/30"); /* too little to tell */
    check_progress(7.5, 30, 30, NULL, "learn 25.0 %, ETA 1:30: block 7/30");
    check_progress(7.5, 30, 30, "block 7: fine", "learn 25.0 %, ETA 1:30: block 7: fine");
    /* not 100 before the end */
    check_progress(29.9999, 30, 3000, NULL, "learn 99.9 %, ETA 0:01: block 29/30");
    check_progress(30, 30, 3000, NULL, "learn 100.0 %: block 30/30");
    check_progress(0, 0, 0, NULL, "learn 0.0 %: block 0/0");
    /* what was taken over says nothing about the time to go */
    mq_progress taken = {.phase = "learn",
                         .unit = "block",
                         .done = 15,
                         .total = 30,
                         .elapsed_seconds = 42,
                         .taken = 10,
                         .taken_seconds = 12};
    char out[160];
    cli_progress_text(out, sizeof out, &taken, NULL, NULL);
    assert_string_equal(out, "learn 50.0 %, ETA 1:30: block 15/30");
    taken.done = 10; /* of its own nothing yet */
    cli_progress_text(out, sizeof out, &taken, NULL, NULL);
    assert_string_equal(out, "learn 33.3 %: block 10/30");
    /* the time to go is the phase's own: what follows is said */
    check_phase(7.5, 30, 30, NULL, "refit", "learn 25.0 %, ETA 1:30, then refit: block 7/30");
    check_phase(30, 30, 120, NULL, "refit", "learn 100.0 %, then refit: block 30/30");
}

/* A name out of somebody's file clears no screen and makes no lines. */
static void test_control_characters(void **state) {
    (void)state;
    cli_table table = {0};
    cli_table_row(&table);
    cli_table_cell(&table, "%s", "a\033[2Jb\n");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    cli_table_print(out, &table);
    cli_print_field(out, "x\r", "%s", "a\nb\x7f");
    fclose(out);
    assert_string_equal(text, "a?[2Jb?\n"
                              "x?                    a?b?\n");
    free(text);
    check_progress(1, 2, 0, "a\033b", "learn 50.0 %: a?b");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_text),
        cmocka_unit_test(test_json_members),
        cmocka_unit_test(test_json_sizes),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
