/* layer: base */
/* UTF-8: every character there and back, and how long ill-formed sequences are. */
#include "base/utf8.h"
#include "temporary.h"

static void every_character_comes_back(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char encoded[4];
        uint32_t decoded;
        if (c >= 0xd800 && c < 0xe000) {
            continue;
        }
        size_t size = mq_utf8_encode(encoded, c);
        assert_int_equal(mq_utf8_decode(&decoded, encoded, size), size);
        assert_int_equal(decoded, c);
        for (size_t cut = 1; cut < size; cut++) {
            assert_int_equal(mq_utf8_decode(&decoded, encoded, cut), cut);
            assert_int_equal(decoded, MQ_UTF8_BAD);
        }
    }
}

/* The Unicode standard's tables 3-8 to 3-11: each line all of its maximal subsequences. */
static void ill_formed_bytes_are_taken_by_subsequences(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t lengths[9]; /* ended by 0 */
    } rows[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82", {1, 1, 1, 1, 1, 1, 1, 1}}, /* overlong */
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf", {1, 1, 1, 1, 1, 1, 1, 1}}, /* surrogates */
        {"\xf4\x91\x92\x93\xff\x80\xbf", {1, 1, 1, 1, 1, 1, 1}},        /* beyond U+10FFFF */
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf", {2, 1, 3, 2}},             /* cut short */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const size_t size = strlen(rows[i].text);
        size_t at = 0;
        for (const size_t *length = rows[i].lengths; at < size; at += *length++) {
            uint32_t decoded;
            assert_int_equal(mq_utf8_decode(&decoded, rows[i].text + at, size - at), *length);
            assert_int_equal(decoded, MQ_UTF8_BAD);
        }
        assert_int_equal(at, size);
    }
}

/* Wherever the bad byte is: eight plain ones are taken at once. */
static void the_first_bad_byte_is_found(void **state) {
    (void)state;
    size_t offset = 99;
    assert_true(mq_utf8_valid(&offset, "a\xc3\xa9", 3));
    assert_int_equal(offset, 99);
    assert_false(mq_utf8_valid(&offset, "a\xc3\xa9\xed\xa0\x80", 6));
    assert_int_equal(offset, 3);
    assert_false(mq_utf8_valid(NULL, "\xff", 1));
    for (size_t bad = 0; bad < 24; bad++) {
        char text[24];
        memset(text, 'a', sizeof text);
        assert_true(mq_utf8_valid(&offset, text, sizeof text));
        text[bad] = '\x80';
        assert_false(mq_utf8_valid(&offset, text, sizeof text));
        assert_int_equal(offset, bad);
    }
}

static void the_byte_order_mark_has_three_bytes(void **state) {
    (void)state;
    static const char mark[] = "\xef\xbb\xbf";
    assert_int_equal(mq_utf8_mark(mark, 3), 3);
    assert_int_equal(mq_utf8_mark(mark, 2), 0);
    assert_int_equal(mq_utf8_mark("\xef\xbb\xbe", 3), 0);
    assert_int_equal(mq_utf8_mark("a\xef\xbb\xbf", 4), 0);
    assert_int_equal(mq_utf8_mark(NULL, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_comes_back),
        cmocka_unit_test(ill_formed_bytes_are_taken_by_subsequences),
        cmocka_unit_test(the_first_bad_byte_is_found),
        cmocka_unit_test(the_byte_order_mark_has_three_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
