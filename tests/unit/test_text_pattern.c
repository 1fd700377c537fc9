/* layer: text */
/* Regular expressions: translation from Oniguruma's syntax, and walking the matches. */
#include "temporary.h"

#include "text/tok_pattern.h"

/* --- translation ------------------------------------------------------------------------------ */

static void test_translated(void **state) {
    static const char *const pairs[][2] = {
        {"a|b+?c*+(?:d)[^ef]$", "a|b+?c*+(?:d)[^ef]$"},
        {"\\p{Z}\\P{C}\\p{^Zs}[\\p{Z}\\P{N}]", "\\p{Z}\\P{C}\\P{Zs}[\\p{Z}\\P{N}]"},
        {"\\p{^Sm}[\\p{Pd}\\P{P}]", "[^\\p{Sm}\\x{10d8e}-\\x{10d8f}]"
                                    "[\\p{Pd}\\x{10d6e}-\\x{10d6e}\\P{P}]"},
        {"\\p{Han}[\\p{Hiragana}]", "\\p{sc:Han}[\\p{sc:Hiragana}]"},
        {"\\p{No}[\\p{No}]\\P{No}", "[\\p{No}\\x{1d2c0}-\\x{1d2d3}][\\p{No}\\x{1d2c0}-\\x{1d2d3}]"
                                    "[^\\p{No}\\x{1d2c0}-\\x{1d2d3}]"},
        {"\\x41\\x{1F600}\\u00e9\\v", "\\x{41}\\x{1f600}\\x{e9}\\x{b}"},
        {"a{2}b{1,3}c{,4}d{5,}{x", "a{2}b{1,3}c{0,4}d{5,}\\{x"},
        {"(?i:a)(?=b)(?!c)(?<=d)(?<!e)(?>f)(g)", "(?i:a)(?=b)(?!c)(?<=d)(?<!e)(?>f)(g)"},
        {"(?i)a\\.\\-\\/\\ ", "(?i)a\\.\\-\\/\\ "},
        {"[a-z-][-a]", "[a-z-][-a]"},
        {"\xc3\xa9\\n\\r\\t", "\xc3\xa9\\n\\r\\t"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        mq_bytes out = {0};
        mq_error err = {0};
        if (mq_regex_translate(&out, pairs[i][0], &err)) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(mq_bytes_append(&out, "", 1, NULL), MQ_OK);
        assert_string_equal(out.data, pairs[i][1]);
        mq_bytes_free(&out);
    }
}

static void test_refused(void **state) {
    static const char *const refused[] = {
        "",
        "(",
        ")",
        "[",
        "[a",
        "[]a]",
        "[a[b]]",
        "[a&&b]",
        "\\b",
        "a\\",
        "\\h",
        "\\R",
        "\\X",
        "\\1",
        "\\k<a>",
        "\\pL",
        "\\p{}",
        "\\p{L",
        "\\xff",
        "\\x{}",
        "\\x{110000}",
        "\\u12",
        "(?<a>b)",
        "(?#c)",
        "(*FAIL)",
        "a(?i)b",
        "a{2}+",
        "a{2}?",
        "[\\W]",
        "[\\s-z]",
        "[a-\\d]",
        "(?i:\\p{Lu})",
        "\\p{Klingon}",
        "*",
        "(?<=a+)b",
        "[z-a]",
        "\\G",
        "\\K",
    };
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mq_pattern pattern = {0};
        mq_error err = {0};
        mq_status status = mq_pattern_regex(&pattern, refused[i], &err);
        if (status != MQ_ERR_INPUT) {
            print_error("\"%s\" was not refused\n", refused[i]);
        }
        assert_int_equal(status, MQ_ERR_INPUT);
        assert_true(err.message[0] != '\0');
        mq_pattern_free(&pattern);
    }
}

/* --- matching --------------------------------------------------------------------------------- */

/* All matches, as "2-5 7-7 ". */
static void check_matches(mq_pattern *pattern, const char *text, const char *expected) {
    mq_matcher matcher;
    assert_int_equal(mq_matcher_init(&matcher, NULL), MQ_OK);
    mq_find find = mq_find_begin(pattern, &matcher, text, strlen(text));
    char found_text[256] = "";
    bool found = true;
    while (found) {
        size_t start, end;
        assert_int_equal(mq_find_next(&find, &found, &start, &end, NULL), MQ_OK);
        size_t used = strlen(found_text);
        if (found) {
            snprintf(found_text + used, sizeof found_text - used, "%zu-%zu ", start, end);
        }
    }
    assert_string_equal(found_text, expected);
    mq_matcher_free(&matcher);
    mq_pattern_free(pattern);
}

static void check_regex(const char *regex, const char *text, const char *expected) {
    mq_pattern pattern;
    assert_int_equal(mq_pattern_regex(&pattern, regex, NULL), MQ_OK);
    check_matches(&pattern, text, expected);
}

static void test_matches(void **state) {
    (void)state;
    check_regex("\\s+(?!\\S)|\\s+", "a  b ", "1-2 2-3 4-5 ");
    check_regex("\\s", "\xe1\xa0\x8e\xc2\x85\xe3\x80\x80\xe2\x80\x8b",
                "3-5 5-8 "); /* not U+180E, not U+200B */
    check_regex("\\w+",
                "\xc2\xb2"
                "a\xcc\x81_\xe2\x80\xbf-\xc2\xb4",
                "0-9 ");
    static const char square[] = "a\xc2\xb2 b"; /* a square is of \w, but not in a class */
    check_regex("\\w+", square, "0-3 4-5 ");
    check_regex("[\\w]+", square, "0-1 4-5 ");
    check_regex("[^\\w]+", square, "1-4 ");
    check_regex("x?", "axb", "0-0 1-2 3-3 "); /* none where the last match ended */
    check_regex("^|$", "a\nb", "0-0 1-1 2-2 3-3 ");
    check_regex(".+", "a\r\nb", "0-2 3-4 ");
    check_regex("(?i:'s)", "'S'\xc5\xbf", "0-2 2-5 ");
    check_regex("(?<=a)b", "abcb", "1-2 ");
    check_regex("a++a", "aaa", "");
    check_regex("(a)(b)(c)?", "ab", "0-2 "); /* more groups than there is room for */
    check_regex("\\p{Han}+", "\xe3\x80\x82\xe4\xb8\x80", "3-6 ");
}

/* Characters of Unicode 15 and 16 count as what they are, whatever version PCRE2 has: U+31350 is
 * Lo, U+1E030 Lm, U+1E4F0 Nd, U+897 Mn. */
static void test_new_characters(void **state) {
    (void)state;
    static const char text[] = "\xf0\xb1\x8d\x90\xf0\x9e\x80\xb0\xf0\x9e\x93\xb0\xe0\xa2\x97";
    check_regex("\\p{L}+", text, "0-8 ");
    check_regex("[\\p{L}]+", text, "0-8 ");
    check_regex("\\p{Lo}", text, "0-4 ");
    check_regex("[^\\s\\p{L}\\p{N}]+", text, "12-15 ");
    check_regex("\\P{L}+", text, "8-15 ");
    check_regex("\\d", text, "8-12 ");
    check_regex("\\D+", text, "0-8 12-15 ");
    check_regex("\\p{M}", text, "12-15 ");
    check_regex("\\w+", text, "0-15 ");
    check_regex("\\W", text, "");
    static const char symbols[] = "\xf0\x9f\xa9\xb7\xe1\xad\x8e"; /* U+1FA77, U+1B4E */
    check_regex("\\p{S}", symbols, "0-4 ");
    check_regex("\\p{Po}", symbols, "4-7 ");
    check_regex("[\\p{P}\\p{S}]+", symbols, "0-7 ");
    check_regex("[^\\p{So}]", symbols, "4-7 ");
    check_regex("\\P{P}", symbols, "0-4 ");
}

static void test_plain_patterns(void **state) {
    (void)state;
    mq_pattern pattern;
    assert_int_equal(mq_pattern_literal(&pattern, "aa", 2, NULL), MQ_OK);
    check_matches(&pattern, "aaaxaa", "0-2 4-6 ");
    assert_int_equal(mq_pattern_literal(&pattern, ".", 1, NULL), MQ_OK);
    check_matches(&pattern, "a.b", "1-2 ");
    pattern = (mq_pattern){.kind = MQ_PATTERN_WHITE_SPACE};
    check_matches(&pattern, " \xc2\xa0x", "0-1 1-3 ");
}

/* A megabyte of white space before a letter: neither the JIT's stack nor a limit may stop it. */
static void test_long_match(void **state) {
    (void)state;
    size_t size = 1 << 20;
    char *text = mq_alloc(size, 1);
    assert_non_null(text);
    memset(text, ' ', size - 1);
    text[size - 1] = 'x';
    static const char *const regexes[] = {"\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "(?:\\s|y)+(?!\\S)"};
    for (size_t i = 0; i < 2; i++) {
        mq_pattern pattern;
        mq_matcher matcher;
        assert_int_equal(mq_pattern_regex(&pattern, regexes[i], NULL), MQ_OK);
        assert_int_equal(mq_matcher_init(&matcher, NULL), MQ_OK);
        mq_find find = mq_find_begin(&pattern, &matcher, text, size);
        bool found;
        size_t start, end;
        assert_int_equal(mq_find_next(&find, &found, &start, &end, NULL), MQ_OK);
        assert_true(found);
        assert_int_equal(start, 0);
        assert_int_equal(end, size - 2);
        mq_matcher_free(&matcher);
        mq_pattern_free(&pattern);
    }
    mq_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translated),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_matches),        cmocka_unit_test(test_plain_patterns),
        cmocka_unit_test(test_new_characters), cmocka_unit_test(test_long_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
