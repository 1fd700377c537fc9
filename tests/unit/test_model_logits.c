/* layer: model */
/* Whole models against transformers: every golden case's logits to 1e-4 of the largest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/context.h"
#include "model/block.h"
#include "model_test.h"

typedef struct golden {
    mq_model *model;
    mq_tensors *tensors;
    int32_t *ids;
    float *logits, *hidden, *mine;
    size_t sequences, length, vocab, elements;
} golden;

static golden golden_open(const char *name) {
    golden g = {.model = open_golden(name), .tensors = open_expected(name)};
    g.ids = read_ids(g.tensors, &g.sequences, &g.length);
    g.logits = read_expected(g.tensors, "logits", &g.elements);
    g.vocab = g.model->config.vocab_size;
    assert_int_equal(g.elements, g.sequences * g.length * g.vocab);
    g.hidden = mq_alloc(g.sequences * g.length * g.model->config.hidden_size, sizeof(float));
    g.mine = mq_alloc(g.elements, sizeof(float));
    assert_true(g.hidden != NULL && g.mine != NULL);
    return g;
}

static void golden_close(golden *g) {
    mq_free(g->mine);
    mq_free(g->hidden);
    mq_free(g->logits);
    mq_free(g->ids);
    mq_tensors_close(g->tensors);
    mq_model_free(g->model);
}

static mq_forward_run pass_of(const golden *g, size_t batch) {
    return (mq_forward_run){.model = g->model,
                            .ids = g->ids,
                            .sequences = g->sequences,
                            .length = g->length,
                            .batch = batch,
                            .phase = "test"};
}

static void run(golden *g, size_t batch, const mq_context *context) {
    mq_error err = {0};
    const mq_forward_run pass = pass_of(g, batch);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    if (mq_model_forward(g->hidden, &pass, context, &err) != MQ_OK) {
        fail_with("forward", &err);
    }
    assert_true(mq_alloc_peak() - before <= mq_model_forward_memory(&pass, context));
    assert_int_equal(mq_alloc_current(), before);
    if (mq_head_logits(g->mine, g->model, g->hidden, g->sequences * g->length, context, &err) !=
        MQ_OK) {
        fail_with("logits", &err);
    }
}

static double largest_of(const float *values, size_t count) {
    double largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        assert_true(isfinite(values[i]));
        largest = fmax(largest, fabs((double)values[i]));
    }
    return largest;
}

static void compare(const char *name, const golden *g) {
    const double largest = largest_of(g->logits, g->elements);
    double worst = 0.0;
    for (size_t i = 0; i < g->elements; i++) {
        const double difference = fabs((double)g->mine[i] - (double)g->logits[i]);
        assert_true(isfinite(difference));
        worst = fmax(worst, difference);
    }
    print_message("%-28s largest logit %6.2f, difference %.1e of it\n", name, largest,
                  worst / largest);
    if (!(worst <= 1e-4 * largest)) {
        fail_msg("%s: off by %g of the largest logit", name, worst / largest);
    }
}

/* Scores of all tokens but each sequence's first, against the goldens' logits in double. */
static void check_scores(const golden *g, const mq_context *context) {
    const size_t count = g->sequences * g->length;
    float *nll = mq_alloc(count, sizeof *nll);
    int32_t *top = mq_alloc(count, sizeof *top), *targets = mq_calloc(count, sizeof *targets);
    assert_true(nll != NULL && top != NULL && targets != NULL);
    for (size_t i = 0; i + 1 < count; i++) {
        targets[i] = g->ids[i + 1];
    }
    const mq_head_side side = {g->model, g->hidden};
    const mq_head_scores scores = {.nll = nll, .top = top};
    assert_int_equal(mq_head_score(&scores, &side, NULL, targets, count, context, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        const float *row = g->logits + i * g->vocab;
        double sum = 0.0, second = -INFINITY;
        for (size_t v = 0; v < g->vocab; v++) {
            sum += exp((double)row[v]);
            if (v != (size_t)top[i]) {
                second = fmax(second, (double)row[v]);
            }
        }
        assert_true(fabs((double)nll[i] - (log(sum) - (double)row[targets[i]])) < 1e-3);
        assert_true((double)row[top[i]] > second - 1e-3);
    }
    mq_free(targets);
    mq_free(top);
    mq_free(nll);
}

static void test_golden(void **state) {
    const char *name = *state;
    mq_context *context;
    assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
    golden g = golden_open(name);
    for (size_t batch = 1; batch <= 3;
         batch += 2) { /* one sequence at a time; more than there are */
        run(&g, batch, context);
        compare(name, &g);
    }
    check_scores(&g, context);
    golden_close(&g);
    mq_context_free(context);
}

/* The same bytes with one thread and with four. */
static void test_threads(void **state) {
    (void)state;
    static const char *const names[] = {"llama-biases", "gemma3"};
    for (size_t n = 0; n < 2; n++) {
        float *first = NULL;
        for (size_t threads = 1; threads <= 4; threads += 3) {
            const mq_context_options options = {.threads = threads};
            mq_context *context;
            assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
            golden g = golden_open(names[n]);
            run(&g, 2, context);
            if (first == NULL) {
                first = mq_alloc(g.elements, sizeof *first);
                memcpy(first, g.mine, g.elements * sizeof *first);
            } else {
                assert_memory_equal(first, g.mine, g.elements * sizeof *first);
            }
            golden_close(&g);
            mq_context_free(context);
        }
        mq_free(first);
    }
}

static void test_bad_ids(void **state) {
    (void)state;
    golden g = golden_open("llama");
    mq_error err = {0};
    g.ids[5] = 64;
    assert_int_equal(mq_model_embed(g.hidden, g.model, g.ids, 8, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "token 5 has id 64"));
    g.ids[5] = -1;
    mq_context *context;
    assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
    const mq_forward_run pass = pass_of(&g, 1);
    assert_int_equal(mq_model_forward(g.hidden, &pass, context, &err), MQ_ERR_INPUT);
    mq_context_free(context);
    golden_close(&g);
}

typedef struct reports {
    size_t count;
    double last;
} reports;

static void count_reports(void *user, const mq_progress *progress) {
    reports *r = user;
    assert_string_equal(progress->phase, "test");
    assert_string_equal(progress->unit, "block");
    assert_true(progress->done > r->last && progress->done <= progress->total);
    r->last = progress->done;
    r->count++;
}

static void test_progress_and_interrupt(void **state) {
    (void)state;
    reports r = {0};
    volatile sig_atomic_t interrupted = 0;
    const mq_context_options options = {.sink = {.user = &r, .progress = count_reports},
                                        .interrupted = &interrupted};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    golden g = golden_open("gemma3");
    run(&g, 1, context);
    assert_int_equal(r.count, 3);
    interrupted = 1;
    const size_t before = mq_alloc_current();
    const mq_forward_run pass = pass_of(&g, 1);
    assert_int_equal(mq_model_forward(g.hidden, &pass, context, NULL), MQ_ERR_INTERRUPTED);
    assert_int_equal(mq_head_logits(g.mine, g.model, g.hidden, 2, context, NULL),
                     MQ_ERR_INTERRUPTED);
    assert_int_equal(mq_alloc_current(), before);
    golden_close(&g);
    mq_context_free(context);
}

int main(void) {
    static const char *const names[] = {
        "llama",
        "llama-tied-bf16",
        "llama-shards-f16",
        "llama-shards-bf16",
        "llama-biases",
        "llama-head-dim",
        "llama-gelu",
        "rope-default",
        "rope-linear",
        "rope-linear-v4",
        "rope-dynamic",
        "rope-llama3",
        "rope-llama3-v4",
        "rope-yarn",
        "rope-yarn-options",
        "rope-yarn-no-factor",
        "gemma3",
        "gemma3-v4-bf16",
        "gemma3-wide-window",
        "gemma3-dynamic",
        "gemma3-final-softcap",
        "gemma3-attention-softcap",
        "gemma3-own-head",
        "gemma3-images",
        "gemma3-images-v5",
        "qwen2",
        "qwen3",
        "qwen3-biases",
        "mistral",
        "mistral-no-window",
        "smollm3-all-rotate",
        "smollm3",
        "smollm3-interval",
        "smollm3-biases",
        "gemma2-no-caps",
        "gemma2",
        "gemma2-wide-window",
        "gemma2-published",
        "gemma2-attention-uncapped",
        "gemma2-logits-uncapped",
        "gemma2-own-head",
        "granite-plain",
        "granite",
        "granite-biases",
        "olmo2",
        "olmo2-biases",
        "phi3-no-window",
        "phi3",
        "phi4-mini-unscaled",
        "phi4-mini",
        "phi4-mini-factor",
        "phi4-mini-v5",
    };
    enum { CASES = sizeof names / sizeof names[0] };
    struct CMUnitTest tests[CASES + 3];
    for (size_t i = 0; i < CASES; i++) {
        const union { /* cmocka wants it without const, and does not write */
            const char *text;
            void *state;
        } name = {.text = names[i]};
        tests[i] = (struct CMUnitTest){names[i], test_golden, NULL, NULL, name.state};
    }
    tests[CASES] = (struct CMUnitTest)cmocka_unit_test(test_threads);
    tests[CASES + 1] = (struct CMUnitTest)cmocka_unit_test(test_bad_ids);
    tests[CASES + 2] = (struct CMUnitTest)cmocka_unit_test(test_progress_and_interrupt);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
