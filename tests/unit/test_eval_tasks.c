/* layer: eval */
/* Log-likelihoods of packed items against each choice's whole sequence by itself. What they come to
 * is test_eval_task_results.c's. */
#include "task_set.h"

#include <math.h>

#include "base/random.h"
#include "eval/score.h"

#define MODELS MATQUANT_GOLDEN_DIR "/models/"
#define NO_LIMIT ((size_t)1 << 40)
enum { VOCAB = 64 }; /* of the golden models */

static mq_model *open_model(const char *name) {
    char path[512];
    snprintf(path, sizeof path, MODELS "%s", name);
    mq_model *model = NULL;
    mq_error err = {0};
    if (mq_model_open_plain(&model, path, &err) != MQ_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(model->config.vocab_size, VOCAB);
    return model;
}

static mq_context *new_context(size_t threads, mq_sink sink,
                               const volatile sig_atomic_t *interrupted) {
    mq_context *context = NULL;
    mq_context_options options = {.threads = threads, .sink = sink, .interrupted = interrupted};
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    return context;
}

/* --- sets of random tokens -------------------------------------------------------------------- */

static void begin_item(mq_task_set *set, const char *id, size_t gold) {
    assert_true(set->item_count < MAX_ITEMS);
    set->items[set->item_count++] =
        (mq_task_item){.id = mq_strdup(id), .first = set->choice_count, .gold = gold};
    set->tasks[0].count++;
}

/* A choice: the first `kept` tokens of the set's choice `like`, then `context` - kept random ones,
 * then `continuation` random ones. */
static void add(mq_task_set *set, mq_random *random, size_t like, size_t kept, size_t context,
                size_t continuation) {
    const size_t length = context + continuation;
    assert_true(set->choice_count < MAX_CHOICES && set->id_count + length <= MAX_IDS);
    mq_task_choice *choice = &set->choices[set->choice_count++];
    *choice = (mq_task_choice){.first = set->id_count,
                               .length = length,
                               .context = context,
                               .bytes = 3 * continuation + set->choice_count % 5};
    for (size_t i = 0; i < length; i++) {
        set->ids[set->id_count++] = i < kept ? set->ids[set->choices[like].first + i]
                                             : (int32_t)mq_random_below(random, VOCAB);
    }
    set->items[set->item_count - 1].count++;
}

/* All kinds of items. */
static mq_task_set ragged_set(uint64_t seed) {
    mq_task_set set = new_set();
    mq_random random;
    mq_random_seed(&random, seed, 0);
    begin_item(&set, "a shared context", 2);
    add(&set, &random, 0, 0, 20, 5);
    add(&set, &random, 0, 20, 20, 9);
    add(&set, &random, 0, 20, 20, 1);
    add(&set, &random, 0, 20, 20, 13);
    begin_item(&set, "one token each", 1); /* the rows of a context alone */
    add(&set, &random, 0, 0, 31, 1);
    add(&set, &random, 4, 31, 31, 1);
    begin_item(&set, "contexts that differ", 0);
    add(&set, &random, 0, 0, 12, 4);
    add(&set, &random, 6, 9, 12, 4);
    begin_item(&set, "nothing shared", 1);
    add(&set, &random, 0, 0, 1, 3);
    add(&set, &random, 0, 0, 40, 20);
    begin_item(&set, "two contexts, twice", 3);
    add(&set, &random, 0, 0, 10, 3);
    add(&set, &random, 10, 10, 10, 6);
    add(&set, &random, 10, 4, 10, 3);
    add(&set, &random, 12, 10, 10, 30);
    begin_item(&set, "beginnings of continuations", 0);
    add(&set, &random, 0, 0, 5, 8);
    add(&set, &random, 14, 9, 5, 9);
    add(&set, &random, 15, 11, 5, 12);
    add(&set, &random, 16, 17, 5, 12); /* the same sequence */
    begin_item(&set, "one choice", 0);
    add(&set, &random, 0, 0, 7, 7);
    for (size_t i = 0; i < set.item_count; i++) {
        mq_task_share(&set, &set.items[i]);
    }
    return set;
}

/* Σ log p of a choice, its whole sequence through the model by itself. */
static double plain_loglikelihood(const mq_model *model, const mq_task_set *set, size_t c,
                                  const mq_context *context) {
    const mq_task_choice *choice = &set->choices[c];
    const int32_t *ids = set->ids + choice->first;
    const size_t input = choice->length - 1, width = model->config.hidden_size;
    const mq_forward_run run = {
        .model = model, .ids = ids, .sequences = 1, .length = input, .batch = 1, .phase = "test"};
    const size_t count = choice->length - choice->context;
    float *hidden = malloc(input * width * sizeof *hidden), *nll = malloc(count * sizeof *nll);
    assert_int_equal(mq_model_forward(hidden, &run, context, NULL), MQ_OK);
    const mq_head_side side = {model, hidden + (choice->context - 1) * width};
    const mq_head_scores scores = {.nll = nll};
    assert_int_equal(
        mq_head_score(&scores, &side, NULL, ids + choice->context, count, context, NULL), MQ_OK);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum -= (double)nll[i];
    }
    free(hidden);
    free(nll);
    return sum;
}

static void score(mq_task_set *set, const mq_model *model, size_t batch_rows, size_t hidden_bytes,
                  const mq_context *context) {
    size_t rows;
    mq_error err = {0};
    if (mq_task_score(set, &rows, model, batch_rows, hidden_bytes, context, &err) != MQ_OK) {
        fail_msg("%s", err.message);
    }
}

/* --- log-likelihoods -------------------------------------------------------------------------- */

static void test_against_each_sequence_alone(void **state) {
    (void)state;
    static const char *const names[] = {"llama",
                                        "llama-biases",
                                        "gemma3",
                                        "gemma3-attention-softcap",
                                        "rope-linear",
                                        "gemma3-final-softcap",
                                        "gemma3-wide-window",
                                        "gemma3-own-head",
                                        "gemma2",
                                        "phi3"};
    mq_context *context = new_context(0, (mq_sink){0}, NULL);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        mq_model *model = open_model(names[n]);
        model->config.max_position_embeddings = VOCAB; /* some say less; tables are the same */
        mq_task_set set = ragged_set(n);
        score(&set, model, 100, NO_LIMIT, context);
        for (size_t c = 0; c < set.choice_count; c++) {
            const double expected = plain_loglikelihood(model, &set, c, context);
            if (!(fabs(set.choices[c].loglikelihood - expected) < 1e-5 * fabs(expected))) {
                fail_msg("%s, choice %zu: %.9g instead of %.9g", names[n], c,
                         set.choices[c].loglikelihood, expected);
            }
        }
        mq_task_set_free(&set);
        mq_model_free(model);
    }
    mq_context_free(context);
}

/* The first item: 19 + 4 + … own rows; what is shared is not computed again. */
static void test_rows(void **state) {
    (void)state;
    mq_model *model = open_model("llama");
    mq_task_set set = new_set();
    mq_random random;
    mq_random_seed(&random, 1, 0);
    begin_item(&set, "a", 0);
    add(&set, &random, 0, 0, 20, 5);
    add(&set, &random, 0, 20, 20, 9);
    add(&set, &random, 0, 20, 20, 1);
    set.ids[25 + 20] = (set.ids[20] + 1) % VOCAB; /* the continuations begin with other tokens */
    mq_task_share(&set, &set.items[0]);
    size_t rows;
    assert_int_equal(mq_task_score(&set, &rows, model, 9, NO_LIMIT, NULL, NULL), MQ_OK);
    assert_int_equal(rows, 24 + 8);
    mq_task_set_free(&set);
    mq_model_free(model);
}

static void assert_same_bits(const mq_task_set *a, const mq_task_set *b) {
    for (size_t c = 0; c < a->choice_count; c++) {
        assert_true(a->choices[c].loglikelihood == b->choices[c].loglikelihood);
    }
}

static void test_groups_and_threads_do_not_show(void **state) {
    (void)state;
    mq_model *model = open_model("gemma3");
    mq_context *one = new_context(1, (mq_sink){0}, NULL);
    mq_task_set expected = ragged_set(3), set = ragged_set(3);
    score(&expected, model, 60, NO_LIMIT, one);
    const size_t row = model->config.hidden_size * sizeof(float);
    const size_t limits[] = {0, 1, 70 * row, 150 * row};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        score(&set, model, 60, limits[i], one);
        assert_same_bits(&set, &expected);
    }
    mq_context_free(one);
    mq_context *three = new_context(3, (mq_sink){0}, NULL);
    score(&set, model, 60, 70 * row, three);
    assert_same_bits(&set, &expected);
    /* Other batches may round differently, but no more than that. */
    const size_t batches[] = {1, 40, 100, SIZE_MAX};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        score(&set, model, batches[i], NO_LIMIT, three);
        for (size_t c = 0; c < set.choice_count; c++) {
            assert_true(fabs(set.choices[c].loglikelihood - expected.choices[c].loglikelihood) <
                        1e-5 * fabs(expected.choices[c].loglikelihood));
        }
    }
    mq_context_free(three);
    mq_task_set_free(&expected);
    mq_task_set_free(&set);
    mq_model_free(model);
}

/* --- on the way ------------------------------------------------------------------------------- */

typedef struct recorder {
    size_t reports;
    double done, total;
} recorder;

static void record(void *user, const mq_progress *progress) {
    recorder *self = user;
    assert_string_equal(progress->phase, "tasks");
    assert_string_equal(progress->unit, "item");
    assert_true(progress->done >= self->done - 1e-9);
    assert_true(progress->done <= progress->total);
    self->done = progress->done;
    self->total = progress->total;
    self->reports++;
}

static void test_progress_rises_to_the_end(void **state) {
    (void)state;
    recorder seen = {0, 0, 0};
    mq_context *context = new_context(1, (mq_sink){&seen, NULL, record}, NULL);
    mq_model *model = open_model("gemma3");
    mq_task_set set = ragged_set(4);
    score(&set, model, 40, 1, context);
    assert_true(seen.reports > 10);
    assert_true(seen.total == (double)set.item_count && seen.done == seen.total);
    mq_task_set_free(&set);
    mq_model_free(model);
    mq_context_free(context);
}

static void test_interrupt(void **state) {
    (void)state;
    static volatile sig_atomic_t flag = 1;
    mq_context *context = new_context(1, (mq_sink){0}, &flag);
    mq_model *model = open_model("llama");
    mq_task_set set = ragged_set(5);
    size_t rows;
    assert_int_equal(mq_task_score(&set, &rows, model, 40, 1, context, NULL), MQ_ERR_INTERRUPTED);
    mq_task_set_free(&set);
    mq_model_free(model);
    mq_context_free(context);
}

static void test_lack_of_memory(void **state) {
    (void)state;
    mq_model *model = open_model("llama");
    mq_task_set set = ragged_set(6);
    size_t failures = 0;
    for (size_t countdown = 1;; countdown++, failures++) {
        mq_eval_result result = {0};
        size_t rows;
        mq_alloc_fail_after(countdown);
        mq_status status = mq_task_score(&set, &rows, model, 200, NO_LIMIT, NULL, NULL);
        status = status ? status : mq_task_summarize(&result, &set, NULL);
        mq_alloc_fail_after(0);
        mq_eval_result_free(&result);
        if (status == MQ_OK) {
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
    }
    assert_true(failures >= 8);
    mq_task_set_free(&set);
    mq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_each_sequence_alone),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_groups_and_threads_do_not_show),
        cmocka_unit_test(test_progress_rises_to_the_end),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
