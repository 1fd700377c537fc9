/* layer: eval */
/* Task files: what is read, which tokens choices come to, what choices share, and what is refused.
 */
#include "byte_tokenizer.h"

#include <zlib.h>

#include "eval/tasks.h"

/* --- reading into text again ------------------------------------------------------------------ */

static mq_status read_file(mq_task_set *set, const char *path, const mq_tokenizer *tokenizer,
                           bool bos, size_t max_input_tokens, size_t max_items, mq_error *err) {
    const mq_task_encoding encoding = {.tokenizer = tokenizer,
                                       .bos = bos ? mq_tokenizer_bos(tokenizer) : -1,
                                       .vocab_size = 260,
                                       .max_input_tokens = max_input_tokens};
    *set = (mq_task_set){0};
    return mq_task_set_read(set, path, max_items, &encoding, NULL, err);
}

static char shown(int32_t id) {
    return id == 256 ? '^' : id == 257 ? 'x' : id == 258 ? 'y' : id == 259 ? '&' : (char)id;
}

/* "id:gold context|continuation/bytes=parent+shared ..." of every item, items separated by "; ";
 * '^' is the beginning-of-sequence token and '&' is xy. Nothing after '=' where nothing is shared.
 */
static const char *describe(const mq_task_set *set) {
    static char text[2048];
    size_t used = 0;
    for (size_t i = 0; i < set->item_count; i++) {
        const mq_task_item *item = &set->items[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s:%zu%s", i ? "; " : "",
                                 item->id, item->gold, item->truncated ? "!" : "");
        for (size_t c = item->first; c < item->first + item->count; c++) {
            const mq_task_choice *choice = &set->choices[c];
            text[used++] = ' ';
            for (size_t t = 0; t < choice->length; t++) {
                if (t == choice->context) {
                    text[used++] = '|';
                }
                text[used++] = shown(set->ids[choice->first + t]);
            }
            used += (size_t)snprintf(text + used, sizeof text - used, "/%zu=", choice->bytes);
            if (choice->shared > 0) {
                used += (size_t)snprintf(text + used, sizeof text - used, "%zu+%zu",
                                         choice->parent - item->first, choice->shared);
            }
        }
    }
    text[used] = '\0';
    return text;
}

/* What a file of this text, read with these settings, comes to. */
static void reads(temporary *folder, const char *text, const mq_tokenizer *tokenizer, bool bos,
                  size_t max_input_tokens, size_t max_items, const char *expected) {
    const char *path = temporary_write(folder, "t.jsonl", text, strlen(text));
    mq_task_set set;
    mq_error err = {0};
    if (read_file(&set, path, tokenizer, bos, max_input_tokens, max_items, &err) != MQ_OK) {
        fail_msg("%s: %s", text, err.message);
    }
    assert_string_equal(describe(&set), expected);
    mq_task_set_free(&set);
}

#define CHOICE(context, continuation)                                                              \
    "{\"context\": \"" context "\", \"continuation\": \"" continuation "\"}"
#define ITEM(id, gold, ...)                                                                        \
    "{\"id\": \"" id "\", \"choices\": [" __VA_ARGS__ "], \"gold\": " gold "}\n"

/* --- tokens ----------------------------------------------------------------------------------- */

static void test_tokens(void **state) {
    mq_tokenizer *bos = byte_tokenizer(*state, true, true);
    mq_tokenizer *none = byte_tokenizer(*state, false, true);
    const char *plain = ITEM("a", "1", CHOICE("Q:", " no") "," CHOICE("Q:", " yes"));
    reads(*state, plain, none, true, 99, 0, "a:1 Q:| no/3= Q:| yes/4=0+3");
    reads(*state, plain, bos, true, 99, 0, "a:1 ^Q:| no/3= ^Q:| yes/4=0+4");
    reads(*state, plain, bos, false, 99, 0, "a:1 Q:| no/3= Q:| yes/4=0+3");
    /* White space at the context's end goes to the continuation, but its bytes do not count. */
    reads(*state, ITEM("a", "0", CHOICE("Q:  ", "b") "," CHOICE("Q:\\n\\u001f", "c")), none, true,
          99, 0,
          "a:0 Q:|  b/1= Q:|\n\x1f"
          "c/1=0+2");
    reads(*state, ITEM("a", "0", CHOICE("e\\u2003", "b")), none, true, 99, 0,
          "a:0 e|\xe2\x80\x83"
          "b/1=");
    /* The whole is encoded at once: where it joins what the context ends with, the context's own
     * tokens count, and as many of the whole's are left out. */
    reads(*state, ITEM("a", "0", CHOICE("ax", "yb")), none, true, 99, 0, "a:0 ax|b/2=");
    reads(*state, ITEM("a", "0", CHOICE("a", "xyb")), none, true, 99, 0, "a:0 a|&b/3=");
    /* Without a context there is the beginning-of-sequence token. */
    reads(*state, ITEM("a", "0", CHOICE("", "b") "," CHOICE(" ", "b")), bos, true, 99, 0,
          "a:0 ^|b/1= ^| b/1=0+1");
    /* Bytes, not characters. */
    reads(*state, ITEM("a", "0", CHOICE("Q", "\\u20ac")), none, true, 99, 0,
          "a:0 Q|\xe2\x82\xac/3=");
    mq_tokenizer_free(bos);
    mq_tokenizer_free(none);
}

/* All tokens but the last are the input: contexts are cut on the left until it fits. */
static void test_truncation(void **state) {
    mq_tokenizer *bos = byte_tokenizer(*state, true, false);
    const char *text = ITEM("a", "0", CHOICE("abcd", "ef") "," CHOICE("abcd", "e"))
        ITEM("b", "0", CHOICE("a", "b"));
    reads(*state, text, bos, true, 6, 0, "a:0 ^abcd|ef/2= ^abcd|e/1=0+5; b:0 ^a|b/1=");
    reads(*state, text, bos, true, 5, 0, "a:0! abcd|ef/2= ^abcd|e/1=; b:0 ^a|b/1=");
    reads(*state, text, bos, true, 2, 0, "a:0! d|ef/2= cd|e/1=; b:0 ^a|b/1=");
    const char *path = temporary_write(*state, "t.jsonl", text, strlen(text));
    mq_task_set set;
    mq_error err = {0};
    assert_int_equal(read_file(&set, path, bos, true, 1, 0, &err), MQ_ERR_INPUT);
    assert_string_equal(
        err.message, "line 1: a continuation of 2 tokens is longer than the model's 1 positions");
    mq_task_set_free(&set);
    mq_tokenizer_free(bos);
}

/* The earlier choice that shares most, and no more than what is input of both. */
static void test_sharing(void **state) {
    mq_tokenizer *none = byte_tokenizer(*state, false, false);
    reads(*state, ITEM("a", "0", CHOICE("stem A", "end") "," CHOICE("stem B", "end")), none, true,
          99, 0, "a:0 stem A|end/3= stem B|end/3=0+5");
    reads(*state,
          ITEM("a", "3",
               CHOICE("Q", "a") "," CHOICE("Q", "b") "," CHOICE("R", "a") "," CHOICE("R", "bc")),
          none, true, 99, 0, "a:3 Q|a/1= Q|b/1=0+1 R|a/1= R|bc/2=2+1");
    reads(*state,
          ITEM("a", "2", CHOICE("Q", "abc") "," CHOICE("Q", "abde") "," CHOICE("Q", "abdef")), none,
          true, 99, 0, "a:2 Q|abc/3= Q|abde/4=0+3 Q|abdef/5=1+4");
    reads(*state, ITEM("a", "0", CHOICE("Q", "same") "," CHOICE("Q", "same")), none, true, 99, 0,
          "a:0 Q|same/4= Q|same/4=0+4");
    mq_tokenizer_free(none);
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_lines(void **state) {
    mq_tokenizer *none = byte_tokenizer(*state, false, false);
    const char *text = "\n" ITEM("a", "0", CHOICE("Q", "a")) " \r\n" ITEM(
        "b", "0",
        CHOICE("Q",
               "b")) "{\"gold\": 0, \"more\": [1], \"choices\": [" CHOICE("R",
                                                                          "c") "], \"id\": \"c\"}";
    reads(*state, text, none, true, 99, 0, "a:0 Q|a/1=; b:0 Q|b/1=; c:0 R|c/1=");
    reads(*state, text, none, true, 99, 2, "a:0 Q|a/1=; b:0 Q|b/1=");
    reads(*state, text, none, true, 99, 9, "a:0 Q|a/1=; b:0 Q|b/1=; c:0 R|c/1=");

    const char *path = temporary_path(*state, "t.jsonl.gz");
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text, (unsigned)strlen(text)), (int)strlen(text));
    assert_int_equal(gzclose(file), Z_OK);
    mq_task_set set;
    assert_int_equal(read_file(&set, path, none, true, 99, 0, NULL), MQ_OK);
    assert_string_equal(describe(&set), "a:0 Q|a/1=; b:0 Q|b/1=; c:0 R|c/1=");
    assert_int_equal(set.task_count, 1);
    assert_int_equal(set.tasks[0].count, 3);
    mq_task_set_free(&set);
    mq_tokenizer_free(none);
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[][2] = {{"tasks/arc_easy.jsonl.gz", "arc_easy"},
                                           {"a.jsonl", "a"},
                                           {"/x/a.gz", "a"},
                                           {"a.b.json", "a.b.json"},
                                           {".jsonl", ".jsonl"},
                                           {".jsonl.gz", ".jsonl"},
                                           {".gz", ".gz"},
                                           {"123456789.jsonl", "1234567"},
                                           {"12345\xc3\xa9", "12345\xc3\xa9"},
                                           {"123456\xc3\xa9", "123456"},
                                           {"12\xff", "12\xef\xbf\xbd"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[16];
        mq_task_name(name, i >= 7 ? 8 : sizeof name, names[i][0]);
        assert_string_equal(name, names[i][1]);
    }
}

static void refuses(temporary *folder, const char *text, const mq_tokenizer *tokenizer,
                    const char *message) {
    const char *path = temporary_write(folder, "t.jsonl", text, strlen(text));
    mq_task_set set;
    mq_error err = {0};
    const mq_status status = read_file(&set, path, tokenizer, true, 99, 0, &err);
    if (status != MQ_ERR_INPUT || !strstr(err.message, message)) {
        fail_msg("expected \"%s\", got %d \"%s\"", message, (int)status, err.message);
    }
    assert_string_equal(err.file, path);
    mq_task_set_free(&set);
}

#define GOOD ITEM("a", "0", CHOICE("Q", "a"))

static void test_what_is_refused(void **state) {
    mq_tokenizer *none = byte_tokenizer(*state, false, true);
    static const char *const cases[][2] = {
        {"", "there is no item in it"},
        {"\n  \n", "there is no item in it"},
        {GOOD "{\"id\": \"b\"", "line 2: JSON is malformed"},
        {GOOD "\n" GOOD "nonsense\n", "line 4: JSON is malformed"},
        {GOOD "{} {}\n", "line 2: something follows the JSON value"},
        {"[1]", "line 1: not an object"},
        {GOOD "{\"id\": \"\\u0000\"}", "line 2: a string that holds the character U+0000"},
        {"{\"choices\": [" CHOICE("Q", "a") "], \"gold\": 0}", "line 1: no string \"id\""},
        {"{\"id\": 7, \"choices\": [" CHOICE("Q", "a") "], \"gold\": 0}",
         "line 1: no string \"id\""},
        {GOOD "{\"id\": \"a\", \"gold\": 0}", "line 2: no \"choices\""},
        {"{\"id\": \"a\", \"choices\": [], \"gold\": 0}",
         "line 1: \"choices\" is no array of at least one"},
        {"{\"id\": \"a\", \"choices\": {\"context\": \"\"}, \"gold\": 0}",
         "line 1: \"choices\" is no array of at least one"},
        {"{\"id\": \"a\", \"choices\": [" CHOICE("Q", "a") "]}", "line 1: no number \"gold\""},
        {ITEM("a", "\"0\"", CHOICE("Q", "a")), "line 1: no number \"gold\""},
        {ITEM("a", "1", CHOICE("Q", "a")), "line 1: \"gold\" is 1, but there are choices 0 to 0"},
        {ITEM("a", "-1", CHOICE("Q", "a")), "line 1: \"gold\" is -1"},
        {ITEM("a", "0.5", CHOICE("Q", "a") "," CHOICE("Q", "b")), "line 1: \"gold\" is 0.5"},
        {ITEM("a", "1e999", CHOICE("Q", "a")), "line 1: \"gold\" is inf"},
        {ITEM("a", "0", "{\"context\": \"Q\"}"),
         "line 1: choice 0 is without a string \"continuation\""},
        {ITEM("a", "0", CHOICE("Q", "a") ",{\"continuation\": \"Q\"}"),
         "line 1: choice 1 is without a string \"context\""},
        {ITEM("a", "0", "\"Q\""), "line 1: choice 0 is without a string \"context\""},
        {ITEM("a", "0", CHOICE("Q", "")), "line 1: choice 0 has an empty continuation"},
        {ITEM("a", "0", CHOICE("x", "y")), "line 1: a continuation that adds no token"},
        {GOOD ITEM("a", "0", CHOICE("", "b")), "line 2: an empty context"},
        {GOOD ITEM("a", "0", CHOICE(" \\n", "b")), "line 2: an empty context"},
        {"{\"id\": \"\xff\"}", "line 1: JSON is not valid UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refuses(*state, cases[i][0], none, cases[i][1]);
    }
    mq_task_set set;
    mq_error err = {0};
    assert_int_equal(read_file(&set, "no-such-file", none, true, 9, 0, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, "no-such-file");
    mq_tokenizer_free(none);
}

static void test_another_vocabulary(void **state) {
    mq_tokenizer *none = byte_tokenizer(*state, false, false);
    const char *path = temporary_write(*state, "t.jsonl", GOOD, strlen(GOOD));
    const mq_task_encoding encoding = {
        .tokenizer = none, .bos = -1, .vocab_size = 97, .max_input_tokens = 9};
    mq_task_set set = {0};
    mq_error err = {0};
    assert_int_equal(mq_task_set_read(&set, path, 0, &encoding, NULL, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "line 1: token 97 is not in the model's vocabulary of 97"));
    mq_task_set_free(&set);
    mq_tokenizer_free(none);
}

/* Every allocation on the way fails once: the machine's error, and nothing leaks. */
static void test_lack_of_memory(void **state) {
    mq_tokenizer *bos = byte_tokenizer(*state, true, false);
    const char *text = ITEM("a", "1", CHOICE("Q:", " no") "," CHOICE("Q:", " yes")) GOOD;
    const char *path = temporary_write(*state, "t.jsonl", text, strlen(text));
    size_t failures = 0;
    for (size_t countdown = 1;; countdown++, failures++) {
        mq_task_set set;
        mq_error err = {0};
        mq_alloc_fail_after(countdown);
        const mq_status status = read_file(&set, path, bos, true, 99, 0, &err);
        mq_alloc_fail_after(0);
        mq_task_set_free(&set);
        if (status == MQ_OK) {
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_string_equal(err.file, path);
    }
    assert_true(failures >= 10);
    mq_tokenizer_free(bos);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_tokens),
        TEST(test_truncation),
        TEST(test_sharing),
        TEST(test_lines),
        TEST(test_names),
        TEST(test_what_is_refused),
        TEST(test_another_vocabulary),
        TEST(test_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
