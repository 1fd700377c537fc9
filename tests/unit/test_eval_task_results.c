/* layer: eval */
/* What the log-likelihoods of tasks come to: accuracies, lines, and results from files. */
#include "task_set.h"

#include <math.h>

#include "base/json.h"

/* Two tasks of given log-likelihoods: (-4, -6) in bytes (1, 2), and so on. */
static mq_task_set given_set(void) {
    static const struct {
        double loglikelihood[2];
        size_t bytes[2], gold;
    } items[5] = {
        {{-4, -6}, {1, 2}, 0},   /* right, wrong by bytes */
        {{-4, -6}, {1, 2}, 1},   /* wrong, right by bytes */
        {{-5, -5}, {3, 3}, 0},   /* equal: the first */
        {{-9, -1}, {9, 1}, 1},   /* right; equal by bytes: the first, wrong */
        {{-2, -30}, {1, 40}, 1}, /* the second task: wrong, right by bytes */
    };
    mq_task_set set = new_set();
    mq_free(set.tasks);
    set.tasks = mq_calloc(2, sizeof(mq_task));
    set.task_count = 2;
    set.tasks[0] = (mq_task){"x/one.jsonl.gz", 0, 4};
    set.tasks[1] = (mq_task){"two", 4, 1};
    for (size_t i = 0; i < 5; i++) {
        set.items[i] =
            (mq_task_item){mq_strdup(i == 3 ? "\"3\"" : "id"), 2 * i, 2, items[i].gold, i == 1};
        for (size_t c = 0; c < 2; c++) {
            set.choices[2 * i + c] = (mq_task_choice){.length = 5,
                                                      .context = 3 + c,
                                                      .bytes = items[i].bytes[c],
                                                      .loglikelihood = items[i].loglikelihood[c]};
        }
    }
    set.item_count = 5;
    set.choice_count = 10;
    return set;
}

static void assert_near(double value, double expected) {
    if (!(fabs(value - expected) < 1e-12)) {
        fail_msg("%.15g instead of %.15g", value, expected);
    }
}

static void test_accuracies(void **state) {
    (void)state;
    mq_task_set set = given_set();
    mq_eval_result result = {0};
    assert_int_equal(mq_task_summarize(&result, &set, NULL), MQ_OK);
    assert_int_equal(result.task_count, 2);
    const mq_task_result *one = &result.tasks[0], *two = &result.tasks[1];
    assert_string_equal(one->name, "one");
    assert_string_equal(two->name, "two");
    assert_int_equal(one->items, 4);
    assert_int_equal(one->choices, 8);
    assert_int_equal(one->tokens, 4 * (2 + 1));
    assert_int_equal(one->truncated, 1);
    assert_int_equal(two->truncated, 0);
    assert_near(one->accuracy.acc, 0.75);
    assert_near(one->accuracy.acc_norm, 0.5);
    assert_near(one->accuracy.acc_stderr, sqrt(0.75 * 0.25 / 3));
    assert_near(one->accuracy.acc_norm_stderr, sqrt(0.5 * 0.5 / 3));
    assert_near(two->accuracy.acc, 0);
    assert_near(two->accuracy.acc_norm, 1);
    assert_true(isnan(two->accuracy.acc_stderr));
    assert_near(result.mean.acc, 0.375);
    assert_near(result.mean.acc_norm, 0.75);
    assert_true(isnan(result.mean.acc_stderr));
    mq_eval_result_free(&result);

    /* With two items in both tasks the mean has an error. */
    set.tasks[0].count = 3;
    set.tasks[1] = (mq_task){"two", 3, 2};
    assert_int_equal(mq_task_summarize(&result, &set, NULL), MQ_OK);
    assert_near(result.tasks[0].accuracy.acc_stderr, 1.0 / 3);
    assert_near(result.tasks[1].accuracy.acc_stderr, 0.5);
    assert_near(result.mean.acc_stderr, sqrt(1.0 / 9 + 0.25) / 2);
    mq_eval_result_free(&result);

    /* What is not a number is no answer. */
    set.choices[1].loglikelihood = NAN;
    assert_int_equal(mq_task_summarize(&result, &set, NULL), MQ_OK);
    assert_true(isnan(result.tasks[0].accuracy.acc) && isnan(result.mean.acc_norm));
    assert_near(result.tasks[1].accuracy.acc, 0.5);
    mq_eval_result_free(&result);
    mq_task_set_free(&set);
}

static void test_item_lines(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "items.jsonl");
    mq_task_set set = given_set();
    set.choices[9].loglikelihood = NAN;
    assert_int_equal(mq_task_write_items(path, false, &set, NULL), MQ_OK);
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(mq_read_file(&text, &size, path, 10000, NULL), MQ_OK);
    assert_non_null(strstr(text, "{\"task\": \"one\", \"id\": \"id\", \"gold\": 1, \"answer\": 0, "
                                 "\"answer_norm\": 1, \"truncated\": true, \"loglikelihood\": [-4, "
                                 "-6], \"tokens\": [2, 1], \"bytes\": [1, 2]}\n"));
    assert_non_null(strstr(text, "\"id\": \"\\\"3\\\"\""));
    assert_non_null(strstr(text,
                           "{\"task\": \"two\", \"id\": \"id\", \"gold\": 1, \"answer\": null, "
                           "\"answer_norm\": null, \"truncated\": false, "
                           "\"loglikelihood\": [-2, null]"));
    size_t lines = 0;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1, lines++) {
        cJSON *object = NULL;
        const size_t length = (size_t)(strchr(line, '\n') - line);
        assert_int_equal(mq_json_parse(&object, line, length, path, NULL), MQ_OK);
        cJSON_Delete(object);
    }
    assert_int_equal(lines, 5);
    mq_free(text);
    mq_error err = {0};
    assert_int_equal(mq_task_write_items(path, false, &set, &err), MQ_ERR_USAGE);
    size_t failures = 0;
    for (size_t countdown = 1;; countdown++, failures++) {
        mq_alloc_fail_after(countdown);
        const mq_status status = mq_task_write_items(path, true, &set, NULL);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
    }
    assert_true(failures >= 3);
    mq_task_set_free(&set);
}

/* --- from files to the result ----------------------------------------------------------------- */

static const char demo_items[] =
    "{\"id\": \"0\", \"choices\": [{\"context\": \"It was a dark and\", \"continuation\": \" "
    "stormy night\"}, {\"context\": \"It was a dark and\", \"continuation\": \" qqqq xyzzy\"}], "
    "\"gold\": 0}\n"
    "{\"id\": \"1\", \"choices\": [{\"context\": \"The city was\", \"continuation\": \"#%&\"}, "
    "{\"context\": \"He made his way down\", \"continuation\": \" the street\"}], \"gold\": 0}\n";

static void test_evaluate(void **state) {
    temporary *folder = *state;
    const char *path = temporary_write(folder, "demo.jsonl", demo_items, strlen(demo_items));
    const char *other = temporary_write(folder, "other.jsonl", demo_items, strlen(demo_items));
    const char *const files[] = {path, other};
    mq_eval_options options = mq_eval_defaults();
    options.model = MATQUANT_DATA_DIR "/demo-model";
    options.tasks = files;
    options.task_count = 2;
    options.items = temporary_path(folder, "items.jsonl");
    mq_eval_result result = {0};
    mq_error err = {0};
    if (mq_evaluate(&result, &options, NULL, &err) != MQ_OK) {
        fail_msg("%s: %s", err.file, err.message);
    }
    assert_int_equal(result.windows, 0);
    assert_int_equal(result.task_count, 2);
    assert_int_equal(result.tasks[0].items, 2);
    assert_near(result.tasks[0].accuracy.acc, 0.5); /* any English is likelier than none */
    assert_near(result.mean.acc, 0.5);
    assert_true(result.task_tokens > 0 && result.task_tokens < 200);
    mq_eval_result_free(&result);

    options.text = MATQUANT_DATA_DIR "/demo-eval.txt";
    options.seq_len = 32;
    options.windows = 2;
    options.max_items = 1;
    options.force = true;
    assert_int_equal(mq_evaluate(&result, &options, NULL, &err), MQ_OK);
    assert_int_equal(result.windows, 2);
    assert_int_equal(result.tasks[1].items, 1);
    assert_near(result.mean.acc, 1);
    mq_eval_result_free(&result);
}

static void refuses(const mq_eval_options *options, mq_status status, const char *message) {
    mq_eval_result result;
    mq_error err = {0};
    assert_int_equal(mq_evaluate(&result, options, NULL, &err), status);
    if (!strstr(err.message, message)) {
        fail_msg("'%s', expected '%s'", err.message, message);
    }
    assert_null(result.tasks);
}

static void test_what_is_refused(void **state) {
    temporary *folder = *state;
    const char *path = temporary_write(folder, "demo.jsonl", demo_items, strlen(demo_items));
    mq_eval_options good = mq_eval_defaults();
    good.model = MATQUANT_DATA_DIR "/demo-model";
    good.tasks = &path;
    good.task_count = 1;
    mq_eval_options bad = good;
    bad.task_count = 0;
    refuses(&bad, MQ_ERR_USAGE, "a text or tasks");
    bad.text = MATQUANT_DATA_DIR "/demo-eval.txt";
    bad.items = temporary_path(folder, "items");
    refuses(&bad, MQ_ERR_USAGE, "items of tasks only");
    bad = good;
    bad.reference = good.model;
    refuses(&bad, MQ_ERR_USAGE, "on a text");
    bad = good;
    bad.items = MATQUANT_DATA_DIR "/demo-eval.txt";
    refuses(&bad, MQ_ERR_USAGE, "exists already; --force");
    bad.items = path; /* --force is not advised where it does not help */
    refuses(&bad, MQ_ERR_USAGE, "a task's file");
    bad.force = true;
    refuses(&bad, MQ_ERR_USAGE, "a task's file");
    bad = good;
    bad.items = temporary_path(folder, "none/items");
    refuses(&bad, MQ_ERR_INPUT, "does not exist; create it first");
    /* A text that is no good is found before the tasks run, and the other way round. */
    bad = good;
    bad.text = "no-such-text";
    bad.items = temporary_path(folder, "items");
    refuses(&bad, MQ_ERR_INPUT, "cannot open");
    bad = good;
    const char *missing = "no-such-tasks";
    bad.tasks = &missing;
    refuses(&bad, MQ_ERR_INPUT, "cannot open");
    assert_int_equal(temporary_entries(folder->path), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracies),
        TEST(test_item_lines),
        TEST(test_evaluate),
        TEST(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
