/* layer: cli */
/* The command line of a verb: what is accepted, what is refused and in which words, and --help. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "options.h"

enum part { ALWAYS, SEQUENCES, WIDTHS, PARTS };
static const char *first[PARTS];

static const char *const colours[] = {"red", "green", "blue", NULL};
static const char *const tastes[] = {"sour", "bitter", NULL}; /* the others cannot be asked for */

/* Everything that an option can be, in one verb. */
static struct {
    const char *model, *output;
    bool force, bos;
    size_t samples, shard;
    uint64_t seed;
    double limit;
    unsigned colour;
    enum taste { NONE, SWEET, SOUR, BITTER } taste;
    cli_counts bits;
    cli_terms terms;
    cli_numbers lambda;
    cli_texts include, tasks;
    cli_layer_bits layers;
    bool bits_given;
} line;

static const cli_argument arguments[] = {{"MODEL", "what it is made of", &line.model},
                                         {NULL, NULL, NULL}};
static const cli_option options[] = {
    {CLI_TEXT, 'o', "output", &line.output, "FOLDER", .help = "what to make", .required = true},
    {CLI_FLAG, 'f', "force", &line.force, .help = "replace it"},
    {.type = CLI_HEADING, .help = "Numbers"},
    {CLI_CLEAR, 'n', "no-bos", &line.bos, .help = "leave it out", .part = SEQUENCES},
    {CLI_COUNT, 's', "samples", &line.samples, "N", "sequences", .min = 1, .max = 1000,
     .part = SEQUENCES},
    {CLI_BYTES, 0, "shard", &line.shard, "BYTES", .help = "size of a file"},
    {CLI_SEED, 0, "seed", &line.seed, "N", .help = "of chance"},
    {CLI_NUMBER, 0, "limit", &line.limit, "X", "the most", .min = -1, .max = 2},
    {CLI_CHOICE, 0, "colour", &line.colour, "NAME", "of the paint", .choices = colours},
    {CLI_CHOICE, 0, "taste", &line.taste, "NAME", "of it", .choices = tastes, .min = SOUR},
    {CLI_COUNTS, 0, "bits", &line.bits, "LIST", "widths", .min = 2, .max = 8,
     .given = &line.bits_given, .part = WIDTHS},
    {CLI_TERMS, 0, "terms", &line.terms, "LIST", "pairs", .min = 2, .max = 8},
    {CLI_NUMBERS, 0, "lambda", &line.lambda, "LIST", "weights", .max = 100},
    {CLI_TEXTS, 0, "include", &line.include, "REGEX", .help = "names, one option each"},
    {CLI_TEXTS, 't', "tasks", &line.tasks, "FILE...", .help = "files", .several = true},
    {CLI_LAYER_BITS, 0, "layers", &line.layers, "PATTERN=R", "widths", .min = 2, .max = 8},
    CLI_END};
static const cli_command command = {.name = "paint",
                                    .description = "Paints a model.",
                                    .arguments = arguments,
                                    .options = options,
                                    .first = first};

static char message[CLI_MESSAGE_SIZE];

/* The line is split at single spaces. */
static cli_parsed parse(const char *text) {
    static char copy[1024];
    char *argv[32];
    int count = 0;
    memset(&line, 0, sizeof line);
    line.bos = true;
    line.samples = 64;
    memset(message, 0, sizeof message);
    memset(first, 0, sizeof first);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        argv[count++] = word;
    }
    return cli_parse(&command, count, argv, message);
}

static void accepts(const char *text) {
    if (parse(text) != CLI_PARSED) {
        fail_msg("refused: %s: %s", text, message);
    }
}

static void refuses(const char *text, const char *expected) {
    assert_int_equal(parse(text), CLI_WRONG);
    assert_string_equal(message, expected);
}

static void test_forms_of_an_option(void **state) {
    (void)state;
    accepts("M -o out");
    assert_string_equal(line.model, "M");
    assert_string_equal(line.output, "out");
    assert_true(line.bos);
    accepts("--output=out M");
    assert_string_equal(line.output, "out");
    accepts("--output out M");
    assert_string_equal(line.output, "out");
    accepts("-oout M");
    assert_string_equal(line.output, "out");
    accepts("-fnoout M");
    assert_true(line.force);
    assert_false(line.bos);
    assert_string_equal(line.output, "out");
    accepts("-fns7 M --output=a=b");
    assert_int_equal(line.samples, 7);
    assert_string_equal(line.output, "a=b");
    accepts("-o first M -o second");
    assert_string_equal(line.output, "second");
    accepts("-o out -- --force");
    assert_string_equal(line.model, "--force");
    assert_false(line.force);
    accepts("-o out -");
    assert_string_equal(line.model, "-");
}

/* Of each part the first option on the line, however it is spelled. */
static void test_first_of_each_part(void **state) {
    (void)state;
    accepts("M -f -o o");
    assert_string_equal(first[ALWAYS], "force");
    assert_null(first[SEQUENCES]);
    assert_null(first[WIDTHS]);
    accepts("M -s64 -n -o o --bits=8");
    assert_string_equal(first[SEQUENCES], "samples");
    assert_string_equal(first[WIDTHS], "bits");
    accepts("M -fn --samples 64 -o o");
    assert_string_equal(first[SEQUENCES], "no-bos");
}

static void test_values(void **state) {
    (void)state;
    accepts("M -o o --shard 3K --seed 9007199254740992 --limit -0.5e0 --colour blue "
            "--taste bitter");
    assert_int_equal(line.shard, 3072);
    assert_true(line.seed == 1ULL << 53);
    assert_true(line.limit == -0.5);
    assert_int_equal(line.colour, 2);
    assert_int_equal(line.taste, BITTER);
    accepts("M -o o --shard 2g");
    assert_true(line.shard == (size_t)2 << 30);
    accepts("M -o o --shard 5M");
    assert_int_equal(line.shard, 5 << 20);
    accepts("M -o o --bits 8,4,2 --lambda 10,.5,0 --include a --include=b");
    assert_true(line.bits_given);
    assert_int_equal(line.bits.count, 3);
    assert_int_equal(line.bits.items[2], 2);
    assert_int_equal(line.lambda.count, 3);
    assert_true(line.lambda.items[1] == 0.5);
    assert_int_equal(line.include.count, 2);
    assert_string_equal(line.include.items[1], "b");
    accepts("M -o o --bits 5");
    assert_int_equal(line.bits.count, 1);
}

static void expect_tasks(const char *text, const char *expected) {
    accepts(text);
    char found[128] = "";
    for (size_t i = 0; i < line.tasks.count; i++) {
        strcat(found, line.tasks.items[i]);
    }
    assert_string_equal(found, expected);
    assert_string_equal(line.model, "M");
}

static void test_several_values(void **state) {
    (void)state;
    expect_tasks("M -o o --tasks a", "a");
    expect_tasks("M --tasks a b c -o o", "abc");
    expect_tasks("-o o --tasks a b -- M", "ab");
    expect_tasks("M -t a b -t c -o o --tasks d", "abcd");
    expect_tasks("--tasks=a M -o o", "a"); /* the value does not stand alone */
    expect_tasks("-ta M -o o", "a");
    expect_tasks("--tasks a --include x M -o o", "a");
    refuses("-o o --tasks a M",
            "MODEL is missing: it belongs before '--tasks', which takes all words "
            "up to the next option");
    refuses("-o o --tasks a", "MODEL is missing");
    refuses("M -o o --tasks", "option '--tasks' needs a value: FILE...");
}

static void test_values_out_of_range(void **state) {
    (void)state;
    static const char *const samples[] = {
        "0", "1001", "-1", "+1", "1.5", "x", "99999999999999999999", "1 "};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0] - 1; i++) {
        char text[64], expected[128];
        snprintf(text, sizeof text, "M -o o --samples %s", samples[i]);
        snprintf(expected, sizeof expected,
                 "option '--samples' takes a whole number from 1 to 1000, not '%s'", samples[i]);
        refuses(text, expected);
    }
    refuses("M -o o --limit nan", "option '--limit' takes a number from -1 to 2, not 'nan'");
    refuses("M -o o --limit inf", "option '--limit' takes a number from -1 to 2, not 'inf'");
    refuses("M -o o --limit 1e999", "option '--limit' takes a number from -1 to 2, not '1e999'");
    refuses("M -o o --limit 2.1", "option '--limit' takes a number from -1 to 2, not '2.1'");
    refuses("M -o o --limit 1x", "option '--limit' takes a number from -1 to 2, not '1x'");
    refuses("M -o o --colour pink", "option '--colour' takes red, green or blue, not 'pink'");
    refuses("M -o o --taste sweet", "option '--taste' takes sour or bitter, not 'sweet'");
    refuses("M -o o --seed 9007199254740993",
            "option '--seed' takes a whole number up to 2^53, not '9007199254740993'");
    refuses("M -o o --seed 18446744073709551616",
            "option '--seed' takes a whole number up to 2^53, not '18446744073709551616'");
    refuses("M -o o --output=", "option '--output' takes a FOLDER, not ''");
}

static void test_sizes_out_of_range(void **state) {
    (void)state;
    static const char *const sizes[] = {"3T", "K", "1KB", "20000000000G", "-1", ""};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "M -o o --shard=%s", sizes[i]);
        assert_int_equal(parse(text), CLI_WRONG);
        assert_non_null(strstr(message, "option '--shard' takes bytes as a whole number"));
        assert_int_equal(line.shard, 0);
    }
}

static void test_lists_out_of_range(void **state) {
    (void)state;
    static const char *const lists[] = {"8,,4", "8,4,", ",8",  "8,8",
                                        "9",    "1",    "8;4", "2,3,4,5,6,7,8,2"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "M -o o --bits %s", lists[i]);
        assert_int_equal(parse(text), CLI_WRONG);
        assert_non_null(strstr(message, "option '--bits' takes different whole numbers"));
        assert_int_equal(line.bits.count, 0);
    }
    assert_int_equal(parse("M -o o --lambda 1,-1"), CLI_WRONG);
    assert_int_equal(parse("M -o o --lambda 1,101"), CLI_WRONG);
    assert_int_equal(parse("M -o o --lambda 1,"), CLI_WRONG);
    assert_int_equal(line.lambda.count, 0);
}

/* What is wrong with such a list is its length alone. */
static void test_lists_that_are_too_long(void **state) {
    (void)state;
    accepts("M -o o --lambda 1,1,1,1,1,1,1,1,1,1,1,1,1,1");
    assert_int_equal(line.lambda.count, CLI_LIST_SIZE);
    refuses("M -o o --lambda 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
            "option '--lambda' takes a list of at most 14, not '1,1,1,1,1,1,1,1,1,1,1,1,1,1,1'");
    accepts("M -o o --terms 8,7,6,5,4,3,2,8:2,8:3,8:4,8:5,8:6,8:7,7:2");
    assert_int_equal(line.terms.count, CLI_LIST_SIZE);
    refuses("M -o o --terms 8,7,6,5,4,3,2,8:2,8:3,8:4,8:5,8:6,8:7,7:2,7:3",
            "option '--terms' takes a list of at most 14, not "
            "'8,7,6,5,4,3,2,8:2,8:3,8:4,8:5,8:6,8:7,7:2,7:3'");
    assert_int_equal(parse("M -o o --terms 8,7,6,5,4,3,2,8:2,8:3,8:4,8:5,8:6,8:7,7:2x"), CLI_WRONG);
    assert_non_null(strstr(message, "option '--terms' takes different whole numbers or pairs"));
}

/* The option with that value, once more than there is room for. */
static void expect_too_many(char *name, char *value, const char *wanted) {
    char *argv[2 * (CLI_TEXTS_SIZE + 1)];
    for (int i = 0; i <= CLI_TEXTS_SIZE; i++) {
        argv[2 * i] = name;
        argv[2 * i + 1] = value;
    }
    memset(&line, 0, sizeof line);
    assert_int_equal(cli_parse(&command, 2 * (CLI_TEXTS_SIZE + 1), argv, message), CLI_WRONG);
    assert_string_equal(message, wanted);
}

static void test_too_many_texts(void **state) {
    (void)state;
    char include[] = "--include", a[] = "a", layers[] = "--layers", a2[] = "a=2";
    expect_too_many(include, a, "option '--include' takes at most 64 of it, not 'a'");
    expect_too_many(layers, a2, "option '--layers' takes at most 64 of it, not 'a=2'");
}

/* The number stands after the last '=', and the pattern is as long as is said. */
static void test_layer_bits(void **state) {
    (void)state;
    accepts("M -o o --layers a=b=2 --layers=up|down=8");
    assert_int_equal(line.layers.count, 2);
    const mq_layer_bits *items = line.layers.items;
    assert_int_equal(items[0].length, 3);
    assert_memory_equal(items[0].pattern, "a=b", 3);
    assert_int_equal(items[0].width, 2);
    assert_int_equal(items[1].length, 7);
    assert_memory_equal(items[1].pattern, "up|down", 7);
    assert_int_equal(items[1].width, 8);
    static const char *const wrong[] = {"a", "a=", "a=1", "a=9", "a=2b", "=2", "a=-2", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "M -o o --layers=%s", wrong[i]);
        assert_int_equal(parse(text), CLI_WRONG);
        assert_non_null(strstr(message, "option '--layers' takes a PATTERN=R with R from 2 to 8"));
        assert_int_equal(line.layers.count, 0);
    }
}

static void test_wrong_lines(void **state) {
    (void)state;
    refuses("", "MODEL is missing");
    refuses("-o o", "MODEL is missing");
    refuses("M", "option '--output' is missing");
    refuses("M N -o o", "unexpected argument 'N'");
    refuses("M --output", "option '--output' needs a value: FOLDER");
    refuses("M -fo", "option '--output' needs a value: FOLDER");
    refuses("M --force=yes", "option '--force' takes no value");
    refuses("M --sampels 3", "unknown option '--sampels', did you mean '--samples'?");
    refuses("M --sam=3", "unknown option '--sam', did you mean '--samples'?");
    refuses("M --zzzzzz", "unknown option '--zzzzzz'");
    refuses("M -x", "unknown option '-x'");
    refuses("M -fx", "unknown option '-x'");
    char *argv[] = {(char[]){""}};
    assert_int_equal(cli_parse(&command, 1, argv, message), CLI_WRONG);
    assert_string_equal(message, "MODEL is empty");
}

static void test_help_is_asked_for(void **state) {
    (void)state;
    assert_int_equal(parse("--help"), CLI_HELP);
    assert_int_equal(parse("M -fh --nonsense"), CLI_HELP);
    accepts("M -o --help"); /* that is what -o took */
    assert_string_equal(line.output, "--help");
}

static void test_help_text(void **state) {
    (void)state;
    assert_int_equal(parse("--bits 8,4 --terms 8:2,4 --lambda 0.1,1"), CLI_WRONG);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    cli_print_help(out, &command);
    fclose(out);
    static const char expected[] = "Usage: matquant paint MODEL -o FOLDER [OPTION...]\n"
                                   "\n"
                                   "Paints a model.\n"
                                   "\n"
                                   "  MODEL                   what it is made of\n"
                                   "  -o, --output FOLDER     what to make\n"
                                   "  -f, --force             replace it\n"
                                   "\n"
                                   "Numbers:\n"
                                   "  -n, --no-bos            leave it out\n"
                                   "  -s, --samples N         sequences (default: 64)\n"
                                   "  --shard BYTES           size of a file (default: 0)\n"
                                   "  --seed N                of chance (default: 0)\n"
                                   "  --limit X               the most (default: 0)\n"
                                   "  --colour NAME           of the paint (default: red)\n"
                                   "  --taste NAME            of it\n"
                                   "  --bits LIST             widths (default: 8,4)\n"
                                   "  --terms LIST            pairs (default: 8>2,4)\n"
                                   "  --lambda LIST           weights (default: 0.1,1)\n"
                                   "  --include REGEX         names, one option each\n"
                                   "  -t, --tasks FILE...     files\n"
                                   "  --layers PATTERN=R      widths\n";
    assert_string_equal(text, expected);
    free(text);
}

static void test_wrapping(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    /* 70 + 1 + 9 characters just fit; the next word begins a line. */
    cli_print_wrapped(out, "123456789 123456789\nnew", 70, 4);
    cli_print_wrapped(out, "1234567890 x", 70, 4);
    fclose(out);
    assert_string_equal(text, "123456789\n    123456789\n\n    new\n1234567890\n    x\n");
    free(text);
}

static void test_closest(void **state) {
    (void)state;
    static const char *const names[] = {"quantize", "slice", "eval", "inspect", "verify"};
    assert_string_equal(cli_closest("quantise", names, 5), "quantize");
    assert_string_equal(cli_closest("quan", names, 5), "quantize");
    assert_string_equal(cli_closest("vefiry", names, 5), "verify");
    assert_string_equal(cli_closest("evl", names, 5), "eval");
    assert_null(cli_closest("train", names, 5));
    assert_null(cli_closest("a-name-that-is-much-longer-than-any-option", names, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_of_an_option),
        cmocka_unit_test(test_first_of_each_part),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_several_values),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_sizes_out_of_range),
        cmocka_unit_test(test_lists_out_of_range),
        cmocka_unit_test(test_lists_that_are_too_long),
        cmocka_unit_test(test_too_many_texts),
        cmocka_unit_test(test_layer_bits),
        cmocka_unit_test(test_wrong_lines),
        cmocka_unit_test(test_help_is_asked_for),
        cmocka_unit_test(test_help_text),
        cmocka_unit_test(test_wrapping),
        cmocka_unit_test(test_closest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
