/* layer: text */
/* The front matter of a README.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/front_matter.h"

/* A copy without a byte behind it, so that the sanitizers see what reads too far. */
static void read_as_sized(const char *text, size_t size, const char *expected) {
    char *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, text, size);
    cJSON *found = NULL;
    assert_int_equal(mq_front_matter_read(&found, copy, size, NULL), MQ_OK);
    char *printed = cJSON_PrintUnformatted(found);
    if (strcmp(printed, expected) != 0) {
        fail_msg("%s\nis read as %s, not %s", text, printed, expected);
    }
    cJSON_free(printed);
    cJSON_Delete(found);
    free(copy);
}

static void read_as(const char *text, const char *expected) {
    read_as_sized(text, strlen(text), expected);
}

static void scalars(void **state) {
    (void)state;
    read_as("---\nlicense: apache-2.0\n---\n# Text\nlicense: mit\n",
            "{\"license\":\"apache-2.0\"}");
    read_as("---\r\nlicense: other  \r\nlicense_name: 'it''s mine' # not yours\r\n---\r\n",
            "{\"license\":\"other\",\"license_name\":\"it's mine\"}");
    read_as("\xef\xbb\xbf---  \n# comment\n\nlicense_link:\thttps://example.org/a#b?c=d\n---",
            "{\"license_link\":\"https://example.org/a#b?c=d\"}");
    read_as("---\nlanguage: no # Norwegian\nlicense: \"a \\\"b\\\" \\\\ c\"\n---\n",
            "{\"language\":\"no\",\"license\":\"a \\\"b\\\" \\\\ c\"}");
    read_as("---\nlicense_name: Lizenz für \"alle\" [1]\n---\n",
            "{\"license_name\":\"Lizenz für \\\"alle\\\" [1]\"}");
    read_as("---\nlicense: mit\nlicense: gpl\nbase_model_relation: merge\n---\n",
            "{\"license\":\"mit\"}");
}

static void lists(void **state) {
    (void)state;
    read_as("---\nlanguage: [en, \"de\", 'fr' , no]\nlicense: mit\n---\n",
            "{\"language\":[\"en\",\"de\",\"fr\",\"no\"],\"license\":\"mit\"}");
    read_as("---\nlanguage: [ en , ] # one\n---\n", "{\"language\":[\"en\"]}");
    read_as("---\nlanguage:\n- en\n- 'de'\n\n# and\n- fr # too\ntags:\n- x\n---\n",
            "{\"language\":[\"en\",\"de\",\"fr\"]}");
    read_as("---\nbase_model: # two\n  - a/b\n  - c/d\nmodel-index:\n  - name: e\n---\n",
            "{\"base_model\":[\"a/b\",\"c/d\"]}");
}

/* What is not understood is left out, and the rest is read. */
static void other_values(void **state) {
    (void)state;
    static const char *const values[] = {
        "",           "~",        "null",         "''",           ">-",       ">-\n  text",
        "|\n  text",  "&a b",     "*a",           "!!str a",      "{a: b}",   "[",
        "[]",         "[a",       "[a, [b]]",     "[a, {b: c}]",  "[a] b",    "[a,\n  b]",
        "a: b",       "a:",       "'a",           "'a' b",        "\"a",      "\"a\\",
        "\"a\\x41\"", "a\n  b",   "a\n- b",       "\n  a",        "\n  a: b", "\n-",
        "\n- a: b",   "\n- a\n-", "\n- a\n  b",   "\n- a\n  - b", "\n- - a",  "\n- [a]",
        "\n- 'a' b",  "\xff",     "\n- a\n- \xc3"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char text[200];
        snprintf(text, sizeof text, "---\nlanguage: %s\nlicense: mit\n---\n", values[i]);
        read_as(text, "{\"license\":\"mit\"}");
    }
    static const char nul[] = "---\nlicense: a\0b\n---\n";
    read_as_sized(nul, sizeof nul - 1, "{}");
}

static void no_front_matter(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "\n",
                                        "---",
                                        "---\n",
                                        "---\nlicense: mit\n",
                                        "---\nlicense: mit\n----\n",
                                        "\n---\nlicense: mit\n---\n",
                                        "# Title\n---\nlicense: mit\n---\n",
                                        "--- x\nlicense: mit\n---\n",
                                        " ---\nlicense: mit\n---\n",
                                        "---\n---\nlicense: mit\n---\n",
                                        "---\n license: mit\n---\n",
                                        "---\nlicense:mit\nlicenses: mit\n\"license\": mit\n---\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        read_as(texts[i], "{}");
    }
}

/* Wherever a text is cut off, it is read to its end and no further. */
static void any_beginning(void **state) {
    (void)state;
    static const char text[] = "---\nlicense: \"a\\\"\"\nlanguage: [a, 'b''', c]\nbase_model:\n"
                               "  - a # b\n  - 'c'\nlicense_name: d: e\n---\n";
    for (size_t size = 0; size < sizeof text; size++) {
        char *copy = malloc(size + 4);
        assert_non_null(copy);
        memcpy(copy, text, size);
        memcpy(copy + size, "\n---", 4);
        for (size_t end = size; end <= size + 4; end += 4) {
            char *exact = malloc(end > 0 ? end : 1);
            assert_non_null(exact);
            memcpy(exact, copy, end);
            cJSON *found = NULL;
            assert_int_equal(mq_front_matter_read(&found, exact, end, NULL), MQ_OK);
            assert_true(cJSON_IsObject(found));
            if (end == size) { /* an unfinished header says nothing; the last line needs no end */
                assert_int_equal(cJSON_GetArraySize(found), size < sizeof text - 2 ? 0 : 3);
            }
            cJSON_Delete(found);
            free(exact);
        }
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),       cmocka_unit_test(lists),
        cmocka_unit_test(other_values),  cmocka_unit_test(no_front_matter),
        cmocka_unit_test(any_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
