/* layer: model */
/* Sampling: the cache gives what the whole forward pass gives, frequencies follow the distribution,
 * and neither threads nor batches show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model/generate.h"
#include "model_test.h"

static mq_context *make_context(size_t threads) {
    const mq_context_options options = {.threads = threads};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    return context;
}

static int32_t *generate(const mq_generate_setup *setup, int32_t first_id,
                         const mq_context *context) {
    int32_t *ids = mq_alloc(setup->sequences * setup->length, sizeof *ids);
    assert_non_null(ids);
    mq_error err = {0};
    if (mq_generate_prepare(setup, &err) != MQ_OK) {
        fail_with("prepare", &err);
    }
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    if (mq_generate_first(ids, setup, first_id, &err) != MQ_OK ||
        mq_generate(ids, setup, context, &err) != MQ_OK) {
        fail_with("generate", &err);
    }
    assert_int_equal(mq_alloc_peak() - before, mq_generate_memory(setup));
    return ids;
}

/* Logits of all tokens by the path that the goldens hold. */
static float *forward_logits(const mq_model *model, const int32_t *ids, size_t sequences,
                             size_t length, const mq_context *context) {
    const size_t tokens = sequences * length;
    float *hidden = mq_alloc(tokens * model->config.hidden_size, sizeof *hidden);
    float *logits = mq_alloc(tokens * model->config.vocab_size, sizeof *logits);
    assert_true(hidden != NULL && logits != NULL);
    const mq_forward_run run = {.model = model,
                                .ids = ids,
                                .sequences = sequences,
                                .length = length,
                                .batch = 4,
                                .phase = "test"};
    assert_int_equal(mq_model_forward(hidden, &run, context, NULL), MQ_OK);
    assert_int_equal(mq_head_logits(logits, model, hidden, tokens, context, NULL), MQ_OK);
    mq_free(hidden);
    return logits;
}

/* Cold sampling takes the largest logit that the forward pass over the finished sequence has at
 * each place; with products of bfloat16 one that is as large but for their rounding. */
static void check_cold_is_greedy(mq_gemm_bf16 *gemm) {
    const float tolerance = 0.03F; /* of the largest logit */
    static const char *const names[] = {"llama-biases",    "llama-head-dim",
                                        "rope-llama3",     "gemma3",
                                        "gemma3-v4-bf16",  "gemma3-attention-softcap",
                                        "gemma3-own-head", "qwen2",
                                        "qwen3",           "mistral",
                                        "smollm3-biases",  "gemma2",
                                        "granite",         "olmo2",
                                        "olmo2-biases",    "phi3",
                                        "phi4-mini"};
    enum { SEQUENCES = 3, LENGTH = 24 };
    mq_context *context = make_context(2);
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        mq_model *model = open_golden(names[n]);
        const size_t vocab = model->config.vocab_size;
        const mq_generate_setup setup = {.model = model,
                                         .sequences = SEQUENCES,
                                         .length = LENGTH,
                                         .given = 1,
                                         .temperature = 1e-5,
                                         .seed = 11,
                                         .gemm = gemm};
        int32_t *ids = generate(&setup, -1, context);
        float *logits = forward_logits(model, ids, SEQUENCES, LENGTH, context);
        for (size_t i = 0; i < SEQUENCES * LENGTH; i++) {
            if (i % LENGTH == LENGTH - 1) {
                continue;
            }
            const float *row = logits + i * vocab;
            float max = row[0], size = 0.0F;
            for (size_t v = 0; v < vocab; v++) {
                max = row[v] > max ? row[v] : max;
                size = fmaxf(size, fabsf(row[v]));
            }
            assert_in_range(ids[i + 1], 0, vocab - 1);
            assert_true(row[ids[i + 1]] > max - (gemm != NULL ? tolerance * size : 1e-3F));
        }
        mq_free(logits);
        mq_free(ids);
        mq_model_free(model);
    }
    mq_context_free(context);
}

static void test_cold_is_greedy(void **state) {
    (void)state;
    check_cold_is_greedy(NULL);
}

static void with_bf16(void (*check)(mq_gemm_bf16 *gemm)) {
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    mq_gemm_bf16 *gemm = NULL;
    assert_int_equal(mq_gemm_bf16_new(&gemm, 3, NULL), MQ_OK);
    check(gemm);
    mq_gemm_bf16_free(gemm);
}

static void test_cold_with_bf16(void **state) {
    (void)state;
    with_bf16(check_cold_is_greedy);
}

/* Frequencies of the second token after a given first, within five standard deviations of the
 * probabilities. */
static void check_frequencies(const mq_model *model, double temperature,
                              const mq_context *context) {
    enum { DRAWS = 4000, FIRST = 5 };
    const size_t vocab = model->config.vocab_size;
    const mq_generate_setup setup = {.model = model,
                                     .sequences = DRAWS,
                                     .length = 2,
                                     .given = 1,
                                     .temperature = temperature,
                                     .seed = 3};
    int32_t *ids = generate(&setup, FIRST, context);
    const int32_t first = FIRST;
    float *logits = forward_logits(model, &first, 1, 1, context);
    double sum = 0.0;
    for (size_t v = 0; v < vocab; v++) {
        sum += exp((double)logits[v] / temperature);
    }
    for (size_t v = 0; v < vocab; v++) {
        const double p = exp((double)logits[v] / temperature) / sum;
        size_t count = 0;
        for (size_t i = 0; i < DRAWS; i++) {
            assert_int_equal(ids[2 * i], FIRST);
            count += ids[2 * i + 1] == (int32_t)v;
        }
        const double expected = DRAWS * p, deviation = sqrt(DRAWS * p * (1.0 - p));
        assert_true(fabs((double)count - expected) < 5.0 * deviation + 1.0);
    }
    mq_free(logits);
    mq_free(ids);
}

static void test_frequencies(void **state) {
    (void)state;
    mq_context *context = make_context(2);
    mq_model *model = open_golden("llama");
    check_frequencies(model, 1.0, context);
    check_frequencies(model, 3.0, context);
    mq_model_free(model);
    model = open_golden("gemma3-final-softcap");
    check_frequencies(model, 0.7, context);
    mq_model_free(model);
    mq_context_free(context);
}

static void check_deterministic(mq_gemm_bf16 *gemm) {
    enum { SEQUENCES = 131, LENGTH = 9 }; /* batches of 44, 44 and 43 */
    mq_model *model = open_golden("gemma3");
    mq_generate_setup setup = {.model = model,
                               .sequences = SEQUENCES,
                               .length = LENGTH,
                               .given = 1,
                               .temperature = 1.0,
                               .seed = 43,
                               .gemm = gemm};
    mq_context *one = make_context(1);
    int32_t *other_seed = generate(&setup, -1, one);
    setup.seed = 42;
    int32_t *first = generate(&setup, -1, one);
    mq_context_free(one);
    mq_context *three = make_context(3);
    int32_t *again = generate(&setup, -1, three);
    assert_memory_equal(first, again, SEQUENCES * LENGTH * sizeof *first);
    assert_memory_not_equal(first, other_seed, SEQUENCES * LENGTH * sizeof *first);
    size_t same = 0; /* sequences differ from each other */
    for (size_t i = 1; i < SEQUENCES; i++) {
        same += memcmp(first, first + i * LENGTH, LENGTH * sizeof *first) == 0;
    }
    assert_int_equal(same, 0);
    mq_free(again);
    mq_free(other_seed);
    mq_free(first);
    mq_context_free(three);
    mq_model_free(model);
}

static void test_deterministic(void **state) {
    (void)state;
    check_deterministic(NULL);
}

static void test_deterministic_with_bf16(void **state) {
    (void)state;
    with_bf16(check_deterministic);
}

/* Sequences go on from what is given, which stays, as they do where the model has written it. */
static void check_goes_on(mq_gemm_bf16 *gemm) {
    enum { SEQUENCES = 5, LENGTH = 16, GIVEN = 7 };
    mq_context *context = make_context(2);
    mq_model *model = open_golden("gemma3");
    mq_generate_setup setup = {.model = model,
                               .sequences = SEQUENCES,
                               .length = LENGTH,
                               .given = 1,
                               .temperature = 1e-5,
                               .seed = 4,
                               .gemm = gemm};
    int32_t *whole = generate(&setup, -1, context);
    int32_t *ids = mq_alloc(SEQUENCES * LENGTH, sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < SEQUENCES; i++) {
        memset(ids + i * LENGTH, 0xFF, LENGTH * sizeof *ids);
        memcpy(ids + i * LENGTH, whole + i * LENGTH, GIVEN * sizeof *ids);
    }
    setup.given = GIVEN;
    assert_int_equal(mq_generate(ids, &setup, context, NULL), MQ_OK);
    assert_memory_equal(ids, whole, SEQUENCES * LENGTH * sizeof *ids);
    setup.given = LENGTH; /* nothing is left to write */
    assert_int_equal(mq_generate(ids, &setup, context, NULL), MQ_OK);
    assert_memory_equal(ids, whole, SEQUENCES * LENGTH * sizeof *ids);
    mq_free(ids);
    mq_free(whole);
    mq_model_free(model);
    mq_context_free(context);
}

static void test_goes_on(void **state) {
    (void)state;
    check_goes_on(NULL);
}

static void test_goes_on_with_bf16(void **state) {
    (void)state;
    with_bf16(check_goes_on);
}

typedef struct progress {
    size_t count;
    double last;
} progress;

static void note(void *user, const mq_progress *p) {
    progress *seen = user;
    assert_string_equal(p->unit, "token");
    assert_true(p->done > seen->last && p->total == 70.0 * 20.0);
    seen->last = p->done;
    seen->count++;
}

static void test_progress_and_refusals(void **state) {
    (void)state;
    enum { SEQUENCES = 70, LENGTH = 20 };
    progress seen = {0};
    volatile sig_atomic_t interrupted = 0;
    const mq_context_options options = {.sink = {.user = &seen, .progress = note},
                                        .interrupted = &interrupted};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    mq_model *model = open_golden("llama");
    mq_error err = {0};
    mq_generate_setup setup = {.model = model,
                               .sequences = SEQUENCES,
                               .length = LENGTH,
                               .given = 1,
                               .temperature = 1.0,
                               .seed = 1};
    int32_t *ids = generate(&setup, 1, context);
    assert_true(seen.last == 70.0 * 20.0 && seen.count > 0);
    const size_t before = mq_alloc_current();
    setup.sequences = 2;
    assert_int_equal(mq_generate_first(ids, &setup, 64, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "token id 64"));
    for (size_t given = 0; given <= LENGTH + 1; given += LENGTH + 1) {
        setup.given = given;
        assert_int_equal(mq_generate(ids, &setup, context, &err), MQ_ERR_USAGE);
    }
    setup.given = 1;
    for (size_t i = 0; i < 2; i++) {
        setup.temperature = i == 0 ? 0.0 : (double)NAN;
        assert_int_equal(mq_generate(ids, &setup, context, &err), MQ_ERR_USAGE);
    }
    setup.temperature = 1.0;
    mq_alloc_fail_after(1);
    assert_int_equal(mq_generate(ids, &setup, context, &err), MQ_ERR_MACHINE);
    mq_alloc_fail_after(0);
    interrupted = 1;
    assert_int_equal(mq_generate(ids, &setup, context, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(mq_alloc_current(), before);
    mq_free(ids);
    mq_model_free(model);
    mq_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cold_is_greedy),
        cmocka_unit_test(test_cold_with_bf16),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_goes_on_with_bf16),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_deterministic_with_bf16),
        cmocka_unit_test(test_progress_and_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
