/* layer: text */
/* Small tokenizers by hand: broken UTF-8, the beginning-of-sequence token, decoding, lack of
 * memory, long words. That results equal those of `tokenizers` is test_text_golden.c's, what is
 * refused test_text_tokenizer_refused.c's. */
#include "tokenizer_parts.h"

#include "text/tok_internal.h"

static mq_tokenizer *open_parts(temporary *folder, parts p) {
    mq_tokenizer *tokenizer = NULL;
    mq_error err = {0};
    write_tokenizer(folder, &p);
    if (mq_tokenizer_open(&tokenizer, folder->path, &err)) {
        fail_msg("%s", err.message);
    }
    return tokenizer;
}

/* Encodes and compares with ids, which -1 ends. */
static void check_encode(const mq_tokenizer *tokenizer, const char *text, size_t size,
                         bool add_special, const int32_t *expected) {
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(mq_tokenizer_encode(&ids, &count, tokenizer, text, size, add_special, NULL),
                     MQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ids[i], expected[i]);
    }
    assert_int_equal(expected[count], -1);
    mq_tokenizer_free_ids(ids);
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})

static void check_decode(const mq_tokenizer *tokenizer, const int32_t *ids, bool skip_special,
                         const char *expected) {
    char *text = NULL;
    size_t size = 0, count = 0;
    while (ids[count] != -1) {
        count++;
    }
    assert_int_equal(mq_tokenizer_decode(&text, &size, tokenizer, ids, count, skip_special, NULL),
                     MQ_OK);
    assert_int_equal(size, strlen(expected));
    assert_string_equal(text, expected);
    mq_tokenizer_free_text(text);
}

/* --- encoding --------------------------------------------------------------------------------- */

static void test_merges_and_added_tokens(void **state) {
    mq_tokenizer *t = open_parts(*state, (parts){.post_processor = TEMPLATE});
    check_encode(t, "abcab", 5, false, IDS(4, 3));
    check_encode(t, "ab<x>c", 6, false, IDS(3, 9, 2));
    check_encode(t, "ab<x", 4, false,
                 IDS(3)); /* unknown characters vanish without an unknown token */
    check_encode(t, "abc", 3, true, IDS(6, 4));
    check_encode(t, "", 0, true, IDS(6));
    check_encode(t, NULL, 0, false, IDS(-1));
    assert_int_equal(mq_tokenizer_vocab_size(t), 10);
    assert_int_equal(mq_tokenizer_bos(t), 6);
    mq_tokenizer_free(t);
}

#define STRIPPING(id, content, left, right)                                                        \
    "{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,\"lstrip\":" left            \
    ",\"rstrip\":" right ",\"normalized\":false,\"special\":true}"

/* What tokenizers 0.23 says of white space between two tokens that both want it: a token that takes
 * what is before it and finds that gone, and itself with it, is not there; one that takes nothing
 * is, though another has taken it. */
static void test_white_space_wanted_twice(void **state) {
    static const struct {
        const char *added, *text;
        int32_t ids[5]; /* which -1 ends */
    } cases[] = {
        {"[" STRIPPING("2", "\\n", "true", "true") "]", "a\n\nb", {0, 2, 1, -1}},
        {"[" STRIPPING("3", "<n>", "false", "true") "," STRIPPING("2", "\\n", "true", "false") "]",
         "a<n>\nb",
         {0, 3, 1, -1}},
        {"[" STRIPPING("3", "<n>", "false", "true") "," STRIPPING("2", "\\n", "false", "false") "]",
         "a<n>\nb",
         {0, 3, 2, 1, -1}},
    };
    static const char model[] =
        "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"\\n\":2},\"merges\":[]}";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_tokenizer *t = open_parts(*state, (parts){.model = model, .added = cases[i].added});
        check_encode(t, cases[i].text, strlen(cases[i].text), false, cases[i].ids);
        mq_tokenizer_free(t);
    }
}

/* A stop is heeded between words, and the text before it is given back. */
static void test_interrupted(void **state) {
    static const char split[] = "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                                "\"behavior\":\"Isolated\",\"invert\":false}";
    mq_tokenizer *t = open_parts(*state, (parts){.pre_tokenizer = split});
    const volatile sig_atomic_t asked = 1;
    const mq_context context = {.options = {.interrupted = &asked}, .threads = 1};
    const size_t before = mq_alloc_current();
    int32_t *ids = NULL;
    size_t count = 0;
    mq_error err = {0};
    assert_int_equal(mq_tokenizer_encode_in(&ids, &count, t, "ab c", 4, false, &context, &err),
                     MQ_ERR_INTERRUPTED);
    assert_null(ids);
    assert_int_equal(mq_alloc_current(), before);
    check_encode(t, "ab c", 4, false, IDS(3, 8, 2));
    mq_tokenizer_free(t);
}

/* Table 3-8 of Unicode and the cases around it: one U+FFFD (id 7) for each maximal ill-formed
 * subsequence. */
static void test_broken_utf8(void **state) {
    mq_tokenizer *t = open_parts(*state, (parts){0});
    check_encode(t,
                 "a\xff"
                 "b",
                 3, false, IDS(0, 7, 1));
    check_encode(t, "\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", 9, false, IDS(7, 7, 7, 7, 7, 7, 7, 7));
    check_encode(t, "\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", 9, false, IDS(7, 7, 7, 7, 7, 7, 7, 7));
    check_encode(t, "\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", 9, false, IDS(7, 7, 7, 7, 7, 7, 7));
    check_encode(t, "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", 9, false, IDS(7, 7, 7, 7));
    check_encode(t, "a\xf0\x9f\x98", 4, false, IDS(0, 7));
    mq_tokenizer_free(t);
}

static void test_unknown_token(void **state) {
    mq_tokenizer *t =
        open_parts(*state, (parts){.model = "{" VOCAB "," MERGES ",\"unk_token\":\"<unk>\"}"});
    check_encode(t, "azzb", 4, false, IDS(0, 5, 5, 1));
    mq_tokenizer_free(t);
    t = open_parts(*state, (parts){.model = "{" VOCAB "," MERGES
                                            ",\"unk_token\":\"<unk>\",\"fuse_unk\":true}"});
    check_encode(t, "azzb", 4, false, IDS(0, 5, 1));
    mq_tokenizer_free(t);
    t = open_parts(*state, (parts){.model = "{" VOCAB "," MERGES ",\"unk_token\":\"<none>\"}"});
    int32_t *ids = NULL;
    size_t count = 0;
    mq_error err = {0};
    check_encode(t, "ab", 2, false, IDS(3));
    assert_int_equal(mq_tokenizer_encode(&ids, &count, t, "z", 1, false, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "\"<none>\""));
    assert_null(ids);
    mq_tokenizer_free(t);
}

/* One word of a million characters that merge all over: quadratic work would take minutes. */
static void test_long_word(void **state) {
    size_t size = 1 << 20, count = 0;
    char *text = mq_alloc(size, 1);
    int32_t *ids = NULL;
    assert_non_null(text);
    memset(text, 'a', size);
    mq_tokenizer *t = open_parts(
        *state, (parts){.added = "[]",
                        .model = "{\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"aaaaaaaa\":3},"
                                 "\"merges\":[\"a a\",\"aa aa\",\"aaaa aaaa\"]}"});
    assert_int_equal(mq_tokenizer_encode(&ids, &count, t, text, size, false, NULL), MQ_OK);
    assert_int_equal(count, size / 8);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ids[i], 3);
    }
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free(t);
    mq_free(text);
}

/* One character with very many marks whose classes (230, 220, 230) stand in no order: the same. */
static void test_many_marks(void **state) {
    static const char marks[] = "\xcc\x81\xcc\xa3\xcc\x80"; /* U+0301, U+0323, U+0300 */
    const size_t times = 400000, step = sizeof marks - 1, size = 1 + times * step;
    size_t count = 0;
    char *text = mq_alloc(size, 1);
    int32_t *ids = NULL;
    assert_non_null(text);
    text[0] = 'a';
    for (size_t i = 0; i < times; i++) {
        memcpy(text + 1 + i * step, marks, step);
    }
    mq_tokenizer *t = open_parts(
        *state, (parts){.added = "[]",
                        .normalizer = "{\"type\":\"NFC\"}",
                        .model = "{\"vocab\":{\"\xe1\xba\xa1\":0,\"\xcc\xa3\":1,\"\xcc\x81\":2,"
                                 "\"\xcc\x80\":3},\"merges\":[]}"}); /* the first: U+1EA1 */
    assert_int_equal(mq_tokenizer_encode(&ids, &count, t, text, size, false, NULL), MQ_OK);
    assert_int_equal(count, 3 * times);
    for (size_t i = 0; i < count; i++) {
        const size_t above = 2 + (i + times) % 2; /* those of one class as they stood */
        assert_int_equal(ids[i], i == 0 ? 0 : i < times ? 1 : above);
    }
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free(t);
    mq_free(text);
}

/* One tokenizer, many threads at once: all get what one alone gets. */
static void test_threads(void **state) {
    mq_tokenizer *t = open_parts(
        *state, (parts){.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s+|c\"},"
                                         "\"behavior\":\"Isolated\",\"invert\":false}"});
    char text[4000];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = "abc ab<x>cab"[(i * i + i / 7) % 12];
    }
    int32_t *expected = NULL, *ids[16] = {NULL};
    size_t expected_count = 0, counts[16] = {0};
    mq_status status[16];
    assert_int_equal(
        mq_tokenizer_encode(&expected, &expected_count, t, text, sizeof text, false, NULL), MQ_OK);
#pragma omp parallel for num_threads(8) schedule(static, 1)
    for (int i = 0; i < 16; i++) {
        status[i] = mq_tokenizer_encode(&ids[i], &counts[i], t, text, sizeof text, false, NULL);
    }
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(status[i], MQ_OK);
        assert_int_equal(counts[i], expected_count);
        assert_memory_equal(ids[i], expected, expected_count * sizeof *expected);
        mq_tokenizer_free_ids(ids[i]);
    }
    mq_tokenizer_free_ids(expected);
    mq_tokenizer_free(t);
}

/* --- the beginning-of-sequence token ---------------------------------------------------------- */

static int32_t bos_with(temporary *folder, const char *tokenizer_config, const char *config) {
    temporary_write(folder, "tokenizer_config.json", tokenizer_config, strlen(tokenizer_config));
    temporary_write(folder, "config.json", config, strlen(config));
    mq_tokenizer *t = open_parts(folder, (parts){0});
    int32_t bos = mq_tokenizer_bos(t);
    check_encode(t, "ab", 2, true,
                 IDS(3)); /* encoding follows the template alone, and there is none */
    mq_tokenizer_free(t);
    return bos;
}

static void test_bos(void **state) {
    temporary *folder = *state;
    mq_tokenizer *t = open_parts(folder, (parts){0});
    assert_int_equal(mq_tokenizer_bos(t), -1);
    mq_tokenizer_free(t);
    assert_int_equal(bos_with(folder, "{\"bos_token\":\"<s>\"}", "{}"), -1);
    assert_int_equal(
        bos_with(folder, "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}", "{\"bos_token_id\":6}"),
        -1);
    assert_int_equal(bos_with(folder, "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", "{}"), 6);
    assert_int_equal(
        bos_with(folder, "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<x>\"}}", "{}"), 9);
    assert_int_equal(bos_with(folder, "{\"add_bos_token\":true}", "{\"bos_token_id\":6}"), 6);
    mq_error err = {0};
    temporary_write(folder, "config.json", "{\"bos_token_id\":60}", 19);
    assert_int_equal(mq_tokenizer_open(&t, folder->path, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.file, "tokenizer_config.json"));
}

/* --- decoding --------------------------------------------------------------------------------- */

static void test_decode(void **state) {
    mq_tokenizer *t = open_parts(*state, (parts){0});
    check_decode(t, IDS(3, 9, 2), false, "ab <x> c"); /* no decoder: joined by spaces */
    check_decode(t, IDS(3, 9, 2), true, "ab c");
    check_decode(t, IDS(3, 1000, -7, 2), false, "ab c"); /* ids that name nothing are left out */
    check_decode(t, IDS(-1), false, "");
    mq_tokenizer_free(t);
    t = open_parts(*state, (parts){.decoder = "{\"type\":\"Fuse\"}"});
    check_decode(t, IDS(3, 9, 2), false, "ab<x>c");
    mq_tokenizer_free(t);
}

/* Bytes that are no UTF-8 come out as they went in, also where a byte-level token ends inside a
 * character. */
static void test_decode_ill_formed(void **state) {
    mq_tokenizer *t = open_parts(
        *state,
        (parts){.added = "[]",
                .decoder = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                           "\"trim_offsets\":true,\"use_regex\":true}",
                .model =
                    "{\"vocab\":{\"\xc3\xa2\":0,\"\xc4\xa4\":1,\"\xc2\xac\":2},\"merges\":[]}"});
    check_decode(t, IDS(0, 1, 2), false, "\xe2\x82\xac");
    check_decode(t, IDS(0, 1), false, "\xe2\x82");
    mq_tokenizer_free(t);
    t = open_parts(
        *state,
        (parts){
            .added = "[]",
            .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
                       "{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},"
                       "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":2}]}",
            .model = "{\"vocab\":{\"<0xE2>\":0,\"<0x82>\":1,\"_x__\":2,\"___\":3},\"merges\":[]}"});
    check_decode(t, IDS(0, 1, 2, 0), false, "\xe2\x82x\xe2");
    check_decode(t, IDS(3), false, "");
    mq_tokenizer_free(t);
}

/* --- lack of memory --------------------------------------------------------------------------- */

/* Every allocation fails in turn, and all after it; each time the error says so and nothing is left
 * behind. */
static void test_no_memory(void **state) {
    temporary *folder = *state;
    write_tokenizer(
        folder,
        &(parts){.post_processor = TEMPLATE,
                 .added = "[{\"id\":9,\"content\":\"<x>\",\"single_word\":true,\"lstrip\":true,"
                          "\"rstrip\":false,\"normalized\":true,\"special\":true}]",
                 .normalizer =
                     "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":"
                     "\"Replace\",\"pattern\":{\"Regex\":\"\\\\s\"},\"content\":\" \"}]}",
                 .pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\"}",
                 .decoder = "{\"type\":\"Metaspace\",\"replacement\":\"_\"}"});
    temporary_write(folder, "tokenizer_config.json", "{}", 2);
    static const char text[] =
        "ab abc \xef\xac\x81 \xcc\x81\xcc\xa3 <x> \xff abcabcabcabcabcabcabcabcabcabcabc ab";
    size_t before = mq_alloc_current();
    mq_tokenizer *t = NULL;
    mq_error err = {0};
    mq_status status = MQ_ERR_MACHINE;
    size_t failures = 0;
    for (; status; failures++) {
        mq_alloc_fail_after(failures + 1);
        status = mq_tokenizer_open(&t, folder->path, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || (status == MQ_ERR_MACHINE && err.message[0] && !t));
        assert_true(status == MQ_OK || mq_alloc_current() == before);
    }
    assert_true(failures > 30);
    int32_t *ids = NULL;
    size_t count = 0, opened = mq_alloc_current();
    status = MQ_ERR_MACHINE;
    for (failures = 0; status; failures++) {
        mq_alloc_fail_after(failures + 1);
        status = mq_tokenizer_encode(&ids, &count, t, text, sizeof text - 1, true, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK ||
                    (status == MQ_ERR_MACHINE && !ids && mq_alloc_current() == opened));
    }
    assert_true(failures > 10);
    char *decoded = NULL;
    size_t size = 0, encoded = mq_alloc_current();
    status = MQ_ERR_MACHINE;
    for (failures = 0; status; failures++) {
        mq_alloc_fail_after(failures + 1);
        status = mq_tokenizer_decode(&decoded, &size, t, ids, count, false, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK ||
                    (status == MQ_ERR_MACHINE && !decoded && mq_alloc_current() == encoded));
    }
    assert_true(failures > 5);
    mq_tokenizer_free_text(decoded);
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free(t);
    assert_int_equal(mq_alloc_current(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_merges_and_added_tokens),
        TEST(test_white_space_wanted_twice),
        TEST(test_interrupted),
        TEST(test_broken_utf8),
        TEST(test_unknown_token),
        TEST(test_long_word),
        TEST(test_many_marks),
        TEST(test_threads),
        TEST(test_bos),
        TEST(test_decode),
        TEST(test_decode_ill_formed),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
