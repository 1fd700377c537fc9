/* layer: text */
/* Calibration and evaluation text: windows, sampling, formats, and what is refused. */
#include "byte_tokenizer.h"

#include <zlib.h>

#include "text/corpus.h"

static const char *write_text(temporary *folder, const char *name, const char *text) {
    return temporary_write(folder, name, text, strlen(text));
}

static const char *write_gzip(temporary *folder, const char *name, const char *text) {
    const char *path = temporary_path(folder, name);
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text, (unsigned)strlen(text)), (int)strlen(text));
    assert_int_equal(gzclose(file), Z_OK);
    return path;
}

/* The rows, as text again ('^' for the beginning-of-sequence token), joined by '|', are `expected`.
 */
static void check_rows(const char *path, const mq_tokenizer *tokenizer, mq_corpus_options options,
                       const char *expected) {
    mq_sequences rows;
    mq_error err = {0};
    if (mq_corpus_load(&rows, path, tokenizer, &options, NULL, &err)) {
        fail_msg("%s", err.message);
    }
    char text[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < rows.count * rows.length; i++) {
        if (i && i % rows.length == 0) {
            text[used++] = '|';
        }
        text[used++] = rows.ids[i] == 256 ? '^' : (char)rows.ids[i];
        assert_true(used < sizeof text - 2);
    }
    assert_int_equal(rows.length, options.length);
    assert_string_equal(text, expected);
    mq_sequences_free(&rows);
}

static void check_refused(const char *path, const mq_tokenizer *tokenizer,
                          mq_corpus_options options, mq_status status, const char *message,
                          long offset) {
    mq_sequences rows;
    mq_error err = {0};
    mq_status got = mq_corpus_load(&rows, path, tokenizer, &options, NULL, &err);
    if (got != status || !strstr(err.message, message)) {
        print_error("expected \"%s\", got %d \"%s\"\n", message, (int)got, err.message);
    }
    assert_int_equal(got, status);
    assert_non_null(strstr(err.message, message));
    assert_null(rows.ids);
    assert_string_equal(err.file, status == MQ_ERR_USAGE ? err.file : path);
    assert_int_equal(err.has_offset, offset >= 0);
    if (offset >= 0) {
        assert_int_equal(err.offset, offset);
    }
}

#define OPTIONS(...) ((mq_corpus_options){.vocab_size = 257, __VA_ARGS__})

/* --- text ------------------------------------------------------------------------------------- */

static void test_windows(void **state) {
    mq_tokenizer *with_bos = byte_tokenizer(*state, true, false),
                 *without = byte_tokenizer(*state, false, false);
    const char *path = write_text(*state, "a.txt", "abcdefghijk");
    check_rows(path, without, OPTIONS(.length = 4), "abcd|efgh");
    check_rows(path, without, OPTIONS(.length = 4, .max_count = 1), "abcd");
    check_rows(path, without, OPTIONS(.length = 4, .max_count = 9),
               "abcd|efgh"); /* evaluation takes what there is */
    check_rows(path, without, OPTIONS(.length = 4, .bos = true),
               "abcd|efgh"); /* asked for, but there is none */
    check_rows(path, with_bos, OPTIONS(.length = 4, .bos = true), "^abc|^def|^ghi");
    check_rows(path, with_bos, OPTIONS(.length = 4), "abcd|efgh");
    check_rows(path, with_bos, OPTIONS(.length = 11), "abcdefghijk");
    check_refused(path, with_bos, OPTIONS(.length = 12), MQ_ERR_INPUT,
                  "11 tokens give 0 sequences of 12", -1);
    check_refused(path, with_bos, OPTIONS(.length = 1, .bos = true), MQ_ERR_USAGE, "too short", -1);
    check_refused(path, with_bos, OPTIONS(.length = 0), MQ_ERR_USAGE, "too short", -1);
    check_refused(path, NULL, OPTIONS(.length = 4), MQ_ERR_USAGE, "needs a tokenizer", -1);
    check_refused(path, without, (mq_corpus_options){.length = 4, .vocab_size = 99}, MQ_ERR_INPUT,
                  "the token 99, but the model's vocabulary has 99", -1);
    check_refused(path, with_bos, (mq_corpus_options){.length = 4, .vocab_size = 256, .bos = true},
                  MQ_ERR_INPUT, "the token 256", -1);
    mq_tokenizer_free(with_bos);
    mq_tokenizer_free(without);
}

static void test_documents(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    static const char lines[] =
        "{\"text\": \"abc\"}\n\n{\"id\": 7, \"text\": \"\\u0064ef\"}\r\n{\"text\":\"ghi\"}";
    check_rows(write_text(*state, "a.jsonl", lines), t, OPTIONS(.length = 13), "abc\n\ndef\n\nghi");
    check_rows(write_gzip(*state, "b.jsonl.gz", lines), t, OPTIONS(.length = 13),
               "abc\n\ndef\n\nghi");
    check_rows(write_gzip(*state, "m.JsonL.GZ", lines), t, OPTIONS(.length = 13),
               "abc\n\ndef\n\nghi");
    check_rows(write_gzip(*state, "c.txt.gz", "hello"), t, OPTIONS(.length = 5), "hello");
    check_rows(write_text(*state, "d", "{\"texts\": 1}"), t, OPTIONS(.length = 12),
               "{\"texts\": 1}");
    check_refused(write_text(*state, "e.jsonl", "{\"text\":\"a\"}\nnot json\n"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "JSON is malformed", 13);
    check_refused(write_text(*state, "f.jsonl", "{\"text\":\"a\"}\n{\"texts\":\"b\"}\n"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "without a string \"text\"", 13);
    check_refused(write_text(*state, "g.jsonl", "{\"text\":7}"), t, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, "without a string \"text\"", 0);
    check_refused(write_text(*state, "k.jsonl", "{\"text\":\"a\"}\n{\"messages\":[]}\n"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "line 2 has \"messages\" and no \"text\"",
                  13);
    check_refused(write_text(*state, "l.jsonl", "{\"text\":7,\"messages\":[]}"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "without a string \"text\"", 0);
    check_refused(write_text(*state, "h.jsonl", "[\"text\"]"), t, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, "without a string \"text\"", 0);
    check_refused(write_text(*state, "j.jsonl", "{\"text\":\"\\\\u0000 \\u0000\"}"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "U+0000", 17);
    check_refused(write_text(*state, "i.jsonl", "\n \n"), t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "no text", -1);
    mq_tokenizer_free(t);
}

/* The mark is no text where it begins a file, and is text anywhere else. */
static void test_byte_order_mark(void **state) {
#define MARK "\xef\xbb\xbf"
    mq_tokenizer *t = byte_tokenizer(*state, false, false);
    check_rows(write_text(*state, "a.txt", MARK "abc"), t, OPTIONS(.length = 3), "abc");
    check_rows(write_text(*state, "b.txt", "a" MARK "b" MARK), t, OPTIONS(.length = 8),
               "a" MARK "b" MARK);
    check_rows(write_text(*state, "c.txt", MARK MARK), t, OPTIONS(.length = 3), MARK);
    check_rows(write_gzip(*state, "d.jsonl.gz", MARK "{\"text\":\"abc\"}"), t, OPTIONS(.length = 3),
               "abc");
    check_rows(write_text(*state, "e.jsonl", MARK "\n{\"text\":\"abc\"}"), t, OPTIONS(.length = 3),
               "abc");
    check_refused(write_text(*state, "f.jsonl", MARK "{\"text\":\"a\"}\n[]"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "line 2", 16);
    check_refused(write_text(*state, "g.txt", MARK), t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "no text", -1);
    mq_tokenizer_free(t);
#undef MARK
}

static void test_refused_text(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    mq_sequences rows;
    mq_error err = {0};
    check_refused(write_text(*state, "a.txt", ""), t, OPTIONS(.length = 1), MQ_ERR_INPUT, "no text",
                  -1);
    check_refused(write_text(*state, "b.txt", "abc\xff"), t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "not UTF-8", 3);
    check_refused(write_text(*state, "c.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xc3\"}"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, "not UTF-8", 22);
    assert_int_equal(mq_corpus_load(&rows, temporary_path(*state, "none.txt"), t,
                                    &OPTIONS(.length = 1), NULL, &err),
                     MQ_ERR_INPUT);
    const char *path = write_gzip(*state, "d.txt.gz", "some text that is long enough to be packed");
    size_t size = 0;
    assert_int_equal(mq_file_size(&size, path, NULL), MQ_OK);
    assert_int_equal(truncate(path, (off_t)size - 10), 0);
    assert_int_equal(mq_corpus_load(&rows, path, t, &OPTIONS(.length = 1), NULL, &err),
                     MQ_ERR_INPUT);
    assert_string_equal(err.file, path);
    mq_tokenizer_free(t);
}

/* JSON lines under another name would be learned from with all their brackets. */
static void test_documents_by_another_name(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    static const char says[] = "has JSON lines, by its first line";
    static const char text[] = "\n{\"id\": 1, \"text\": \"It was\"}\n{\"text\": \"dark\"}\n",
                      chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}";
    check_refused(write_text(*state, "a.txt", text), t, OPTIONS(.length = 1), MQ_ERR_INPUT, says,
                  -1);
    check_refused(write_text(*state, "a", chat), t, OPTIONS(.length = 1), MQ_ERR_INPUT, says, -1);
    check_refused(write_text(*state, "b", " \t{\"text\" : [\"a\"]}"), t, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, says, -1);
    check_refused(write_text(*state, "c", "{\"text\": \"a\\u0000\"}\n"), t, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, says, -1);
    check_refused(write_text(*state, "d", "{\"type\": \"text\", \"text\": \"a\"}\n"), t,
                  OPTIONS(.length = 1), MQ_ERR_INPUT, says, -1); /* a value before the key */
    check_refused(write_gzip(*state, "b.gz", text), t, OPTIONS(.length = 1), MQ_ERR_INPUT, says,
                  -1);
    static const char *const prose[] = {"{not json", "{\"other\": 1}\n", "{\"text\"}", " ",
                                        "It was\n{\"text\": \"dark\"}\n"};
    for (size_t i = 0; i < sizeof prose / sizeof *prose; i++) {
        mq_sequences rows;
        assert_int_equal(mq_corpus_load(&rows, write_text(*state, "prose.txt", prose[i]), t,
                                        &OPTIONS(.length = 1), NULL, NULL),
                         MQ_OK);
        assert_int_equal(rows.count, strlen(prose[i]));
        mq_sequences_free(&rows);
    }
    mq_tokenizer_free(t);
}

/* Before anything is read: what is in the files would be another error. */
static void test_refused_unread(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    const char *path = write_text(*state, "long.txt", "\xff");
    assert_int_equal(truncate(path, ((off_t)1 << 30) + 1), 0);
    check_refused(path, t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "1073741825 bytes of text are more than the tokenizer takes at once "
                  "(1073741824); use a part of it",
                  -1);
    check_refused(write_text(*state, "a.json", "\xff"), t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "is JSON by its name", -1);
    check_refused(write_text(*state, "b.JSON.gz", "\xff"), t, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "is JSON by its name", -1);
    mq_tokenizer_free(t);
}

/* Sampling shuffles all windows by the seed: the same seed gives the same, a shorter choice is the
 * beginning of a longer one, every window comes once. */
static void test_sampling(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    const char *path = write_text(*state, "a.txt", "abcdefghijklmnopqrstuvwxyz");
    mq_corpus_options options = {.length = 2, .sample = true, .seed = 5, .vocab_size = 257};
    mq_sequences all, again, other, few;
    assert_int_equal(mq_corpus_load(&all, path, t, &options, NULL, NULL), MQ_OK);
    assert_int_equal(mq_corpus_load(&again, path, t, &options, NULL, NULL), MQ_OK);
    options.max_count = 5;
    assert_int_equal(mq_corpus_load(&few, path, t, &options, NULL, NULL), MQ_OK);
    options = (mq_corpus_options){.length = 2, .sample = true, .seed = 6, .vocab_size = 257};
    assert_int_equal(mq_corpus_load(&other, path, t, &options, NULL, NULL), MQ_OK);
    assert_int_equal(all.count, 13);
    assert_int_equal(few.count, 5);
    assert_memory_equal(all.ids, again.ids, 26 * sizeof *all.ids);
    assert_memory_equal(all.ids, few.ids, 10 * sizeof *all.ids);
    assert_memory_not_equal(all.ids, other.ids, 26 * sizeof *all.ids);
    unsigned seen = 0;
    bool in_order = true;
    for (size_t i = 0; i < all.count; i++) {
        assert_int_equal(all.ids[2 * i] + 1, all.ids[2 * i + 1]);
        seen |= 1U << (all.ids[2 * i] - 'a') / 2;
        in_order = in_order && all.ids[2 * i] == (int32_t)('a' + 2 * i);
    }
    assert_int_equal(seen, (1U << 13) - 1);
    assert_false(in_order);
    check_refused(path, t, OPTIONS(.length = 2, .sample = true, .max_count = 14), MQ_ERR_INPUT,
                  "26 tokens give 13 sequences of 2, and 14 (28 tokens) are needed", -1);
    mq_sequences_free(&all);
    mq_sequences_free(&again);
    mq_sequences_free(&few);
    mq_sequences_free(&other);
    mq_tokenizer_free(t);
}

/* --- NumPy files ------------------------------------------------------------------------------ */

/* A file of that version of the format with this dictionary; returns its path. */
static const char *write_npy(temporary *folder, unsigned version, const char *dictionary,
                             const void *data, size_t size) {
    unsigned char file[512] = "\x93NUMPY";
    size_t length = strlen(dictionary), begin = version == 1 ? 10 : 12;
    file[6] = (unsigned char)version;
    file[8] = (unsigned char)length;
    memcpy(file + begin, dictionary, length);
    memcpy(file + begin + length, data, size);
    return temporary_write(folder, "ids.npy", file, begin + length + size);
}

#define DICTIONARY(descr, shape)                                                                   \
    "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }   \n"

static void test_npy_types(void **state) {
    static const struct {
        const char *descr;
        size_t size;
    } types[] = {{"|u1", 1}, {"|i1", 1}, {"<u2", 2}, {"<i2", 2},
                 {"<u4", 4}, {"<i4", 4}, {"<u8", 8}, {"=i8", 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        for (unsigned version = 1; version <= 3; version++) {
            unsigned char data[7 * 8] = {0};
            char dictionary[128];
            for (size_t k = 0; k < 7; k++) {
                data[k * types[i].size] = (unsigned char)('a' + k);
            }
            snprintf(dictionary, sizeof dictionary,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (7,), }\n", types[i].descr);
            const char *path = write_npy(*state, version, dictionary, data, 7 * types[i].size);
            check_rows(path, NULL, OPTIONS(.length = 3, .bos = true), "abc|def");
        }
    }
}

static void test_npy_rows(void **state) {
    const char *path = write_npy(*state, 1, DICTIONARY("|u1", "(3, 4)"), "abcdefghijkl", 12);
    check_rows(path, NULL, OPTIONS(.length = 4), "abcd|efgh|ijkl");
    check_rows(path, NULL, OPTIONS(.length = 3), "abc|efg|ijk");
    check_rows(path, NULL, OPTIONS(.length = 3, .max_count = 2), "abc|efg");
    check_rows(path, NULL, OPTIONS(.length = 2), "ab|cd|ef|gh|ij|kl");
    check_rows(path, NULL, OPTIONS(.length = 1), "a|b|c|d|e|f|g|h|i|j|k|l");
    check_refused(path, NULL, OPTIONS(.length = 5), MQ_ERR_INPUT,
                  "rows of 4 tokens are shorter than the 5", -1);
    check_refused(path, NULL, OPTIONS(.length = 4, .sample = true, .max_count = 4), MQ_ERR_INPUT,
                  "too short", -1);
    path = write_npy(*state, 1, DICTIONARY("|u1", "(2, 5)"), "abcdefghij", 10);
    check_rows(path, NULL, OPTIONS(.length = 2), "ab|cd|fg|hi");
    path = write_npy(*state, 2, "{\"shape\":(4,),\"fortran_order\":False,\"descr\":\"|u1\"}",
                     "abcd", 4);
    check_rows(path, NULL, OPTIONS(.length = 4), "abcd");
}

static void test_npy_refused(void **state) {
    static const struct {
        const char *dictionary, *message;
        size_t size;
    } cases[] = {
        {DICTIONARY("<f4", "(1,)"), "not an integer", 4},
        {DICTIONARY(">i4", "(1,)"), "big-endian", 4},
        {DICTIONARY("<i3", "(1,)"), "not an integer", 3},
        {DICTIONARY("|O", "(1,)"), "not an integer", 8},
        {"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)}", "not an integer", 4},
        {"{'descr': '<i4', 'fortran_order': True, 'shape': (1,)}", "C order", 4},
        {DICTIONARY("|u1", "()"), "single number", 1},
        {DICTIONARY("|u1", "(1, 1, 1)"), "two dimensions", 1},
        {DICTIONARY("|u1", "(2,)"), "not as long as its shape says", 1},
        {DICTIONARY("|u1", "(1,)"), "not as long as its shape says", 2},
        {DICTIONARY("|u1", "(0,)"), "no tokens", 0},
        {DICTIONARY("|u1", "(4, 0)"), "no tokens", 0},
        {DICTIONARY("|u1", "(-1,)"), "shape cannot be read", 1},
        {DICTIONARY("|u1", "(99999999999999999999,)"), "too large", 1},
        {DICTIONARY("<u8", "(4611686018427387904, 4)"), "not as long", 1},
        {"{'descr': '|u1', 'shape': (1,)}", "not complete", 1},
        {"{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (1,)}",
         "cannot be read", 1},
        {"{'descr': '|u1', 'fortran_order': False, 'shape': (1,)} x", "not complete", 1},
        {"{'descr': '|u1', 'fortran_order': False, 'shape': (1,", "shape cannot be read", 1},
        {"", "not a dictionary", 1},
    };
    static const char data[8] = "aaaaaaaa";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = write_npy(*state, 1, cases[i].dictionary, data, cases[i].size);
        mq_sequences rows;
        mq_error err = {0};
        assert_int_equal(mq_corpus_load(&rows, path, NULL, &OPTIONS(.length = 1), NULL, &err),
                         MQ_ERR_INPUT);
        if (!strstr(err.message, cases[i].message)) {
            print_error("expected \"%s\", got \"%s\"\n", cases[i].message, err.message);
        }
        assert_non_null(strstr(err.message, cases[i].message));
        assert_string_equal(err.file, path);
        assert_true(err.has_offset);
        assert_null(rows.ids);
    }
}

static void test_npy_ids(void **state) {
    static const char dictionary[] = DICTIONARY("<i4", "(2,)"), wide[] = DICTIONARY("<u8", "(1,)");
    static const int32_t negative[] = {5, -5}, large[] = {5, 257};
    static const uint64_t huge[] = {UINT64_MAX};
    long second = 10 + (long)strlen(dictionary) + 4;
    check_refused(write_npy(*state, 1, dictionary, negative, 8), NULL, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, "not in the model's vocabulary of 257", second);
    check_refused(write_npy(*state, 1, dictionary, large, 8), NULL, OPTIONS(.length = 1),
                  MQ_ERR_INPUT, "not in the model's vocabulary of 257", second);
    check_refused(write_npy(*state, 1, wide, huge, 8), NULL, OPTIONS(.length = 1), MQ_ERR_INPUT,
                  "not in the model's vocabulary of 257", 10 + (long)strlen(wide));
}

/* Every prefix of a good file is refused; nothing reads past the end. */
static void test_npy_truncated(void **state) {
    for (unsigned version = 1; version <= 2; version++) {
        const char *path =
            write_npy(*state, version, DICTIONARY("<i2", "(2, 2)"), "a\0b\0c\0d\0", 8);
        char whole[512];
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        size_t size = fread(whole, 1, sizeof whole, file);
        fclose(file);
        check_rows(path, NULL, OPTIONS(.length = 2), "ab|cd");
        for (size_t cut = 0; cut < size; cut++) {
            mq_sequences rows;
            temporary_write(*state, "ids.npy", whole, cut);
            assert_int_equal(mq_corpus_load(&rows, path, NULL, &OPTIONS(.length = 2), NULL, NULL),
                             MQ_ERR_INPUT);
        }
    }
}

/* --- lack of memory, a wish to stop ----------------------------------------------------------- */

static void test_no_memory(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    const char *paths[] = {
        write_gzip(*state, "a.jsonl.gz", "{\"text\":\"abc\"}\n{\"text\":\"def\"}\n"),
        write_npy(*state, 1, DICTIONARY("|u1", "(4,)"), "abcd", 4)};
    for (size_t i = 0; i < 2; i++) {
        size_t before = mq_alloc_current(), failures = 0;
        mq_sequences rows;
        mq_status status = MQ_ERR_MACHINE;
        for (; status; failures++) {
            mq_alloc_fail_after(failures + 1);
            status = mq_corpus_load(&rows, paths[i], t, &OPTIONS(.length = 2, .sample = true), NULL,
                                    NULL);
            mq_alloc_fail_after(0);
            assert_true(status == MQ_OK ||
                        (status == MQ_ERR_MACHINE && !rows.ids && mq_alloc_current() == before));
        }
        assert_true(failures > 3);
        mq_sequences_free(&rows);
    }
    mq_tokenizer_free(t);
}

static void test_interrupted(void **state) {
    mq_tokenizer *t = byte_tokenizer(*state, true, false);
    volatile sig_atomic_t flag = 1;
    struct mq_context context = {.options = {.interrupted = &flag}, .threads = 1};
    mq_sequences rows;
    mq_error err;
    const char *path = write_text(*state, "a.txt", "abc");
    assert_int_equal(mq_corpus_load(&rows, path, t, &OPTIONS(.length = 2), &context, &err),
                     MQ_ERR_INTERRUPTED);
    assert_string_equal(err.file, ""); /* it is not to blame */
    flag = 0;
    assert_int_equal(mq_corpus_load(&rows, path, t, &OPTIONS(.length = 2), &context, NULL), MQ_OK);
    mq_sequences_free(&rows);
    mq_tokenizer_free(t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_windows),         TEST(test_documents),
        TEST(test_byte_order_mark), TEST(test_refused_text),
        TEST(test_sampling),        TEST(test_npy_types),
        TEST(test_npy_rows),        TEST(test_npy_refused),
        TEST(test_npy_ids),         TEST(test_npy_truncated),
        TEST(test_no_memory),       TEST(test_interrupted),
        TEST(test_refused_unread),  TEST(test_documents_by_another_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
