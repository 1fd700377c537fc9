/* layer: eval */
/* Scores of windows against the logits of transformers (tests/golden/models) and against plain sums
 * over full logits; and that neither the size of the groups nor that of the batches shows in the
 * result. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/perplexity.h"
#include "eval/score.h"

#define MODELS MATQUANT_GOLDEN_DIR "/models/"
#define NO_LIMIT ((size_t)1 << 40)

static mq_model *open_model(const char *name) {
    char folder[512];
    mq_error err = {0};
    mq_model *model = NULL;
    snprintf(folder, sizeof folder, MODELS "%s", name);
    if (mq_model_open_plain(&model, folder, &err) != MQ_OK) {
        fail_msg("%s: %s", folder, err.message);
    }
    return model;
}

/* --- plain sums over full logits -------------------------------------------------------------- */

/* out[n] = log softmax of logits[n]. */
static void log_softmax(double *out, const float *logits, size_t n) {
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, (double)logits[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - largest);
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)logits[i] - largest - log(sum);
    }
}

/* Mean over the predictions of one window: ids[length], logits[length, n]. */
static double plain_nll(const float *logits, const int32_t *ids, size_t length, size_t n) {
    double sum = 0;
    double *p = malloc(n * sizeof *p);
    for (size_t t = 0; t + 1 < length; t++) {
        log_softmax(p, logits + t * n, n);
        sum -= p[ids[t + 1]];
    }
    free(p);
    return sum / (double)(length - 1);
}

static size_t largest(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static void plain_divergence(double *kl, double *agreement, const float *reference,
                             const float *logits, size_t length, size_t n) {
    double *p = malloc(n * sizeof *p), *q = malloc(n * sizeof *q);
    *kl = *agreement = 0;
    for (size_t t = 0; t + 1 < length; t++) {
        log_softmax(p, reference + t * n, n);
        log_softmax(q, logits + t * n, n);
        for (size_t i = 0; i < n; i++) {
            *kl += exp(p[i]) * (p[i] - q[i]);
        }
        *agreement += largest(reference + t * n, n) == largest(logits + t * n, n);
    }
    *kl /= (double)(length - 1);
    *agreement /= (double)(length - 1);
    free(p);
    free(q);
}

/* All logits [windows·length, vocab_size] of a model. */
static float *all_logits(const mq_model *model, const mq_sequences *windows) {
    size_t rows = windows->count * windows->length;
    float *hidden = malloc(rows * model->config.hidden_size * sizeof *hidden);
    float *logits = malloc(rows * model->config.vocab_size * sizeof *logits);
    mq_context *context = NULL;
    assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
    const mq_forward_run run = {.model = model,
                                .ids = windows->ids,
                                .sequences = windows->count,
                                .length = windows->length,
                                .batch = windows->count,
                                .phase = "test"};
    assert_int_equal(mq_model_forward(hidden, &run, context, NULL), MQ_OK);
    assert_int_equal(mq_head_logits(logits, model, hidden, rows, context, NULL), MQ_OK);
    mq_context_free(context);
    free(hidden);
    return logits;
}

/* --- windows and scores ----------------------------------------------------------------------- */

static mq_sequences random_windows(size_t count, size_t length, size_t vocab_size) {
    mq_sequences windows = {
        .ids = mq_alloc(count * length, sizeof(int32_t)), .count = count, .length = length};
    mq_random random;
    mq_random_seed(&random, 7, 0);
    for (size_t i = 0; i < count * length; i++) {
        windows.ids[i] = (int32_t)mq_random_below(&random, vocab_size);
    }
    return windows;
}

typedef struct scores {
    double nll[16], kl[16], agreement[16], reference_nll[16];
} scores;

static scores score(const mq_model *model, const mq_model *reference, const mq_sequences *windows,
                    size_t batch, size_t hidden_bytes) {
    scores out;
    memset(&out, 0, sizeof out);
    assert_true(windows->count <= 16);
    mq_window_scores to = {out.nll, out.kl, out.agreement, out.reference_nll};
    if (!reference) {
        to.kl = to.agreement = to.reference_nll = NULL;
    }
    mq_error err = {0};
    const mq_scored scored = {(const mq_model *const[]){model}, 1, reference};
    if (mq_score_windows(&to, &scored, windows, batch, hidden_bytes, NULL, &err) != MQ_OK) {
        fail_msg("%s", err.message);
    }
    return out;
}

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%.9g is not within %g of %.9g", value, tolerance, expected);
    }
}

/* The golden's own ids and logits: nothing of ours takes part in what is expected. */
static void check_golden(const char *name) {
    char path[512];
    mq_error err = {0};
    mq_tensors *tensors = NULL;
    snprintf(path, sizeof path, MODELS "%s/expected.safetensors", name);
    assert_int_equal(mq_tensors_open_file(&tensors, path, &err), MQ_OK);
    const mq_tensor_info *ids = mq_tensors_find(tensors, "ids");
    const mq_tensor_info *logits = mq_tensors_find(tensors, "logits");
    assert_non_null(ids);
    assert_non_null(logits);
    size_t count = ids->shape[0], length = ids->shape[1], n = logits->shape[1];
    float *golden = malloc(logits->bytes);
    assert_int_equal(mq_tensor_read_f32(golden, logits, 0, logits->elements, &err), MQ_OK);
    mq_sequences windows = {
        .ids = mq_alloc(count * length, sizeof(int32_t)), .count = count, .length = length};
    memcpy(windows.ids, ids->data, ids->bytes);

    mq_model *model = open_model(name);
    scores found = score(model, NULL, &windows, 1, NO_LIMIT);
    for (size_t w = 0; w < count; w++) {
        assert_near(found.nll[w],
                    plain_nll(golden + w * length * n, windows.ids + w * length, length, n), 2e-4);
    }
    mq_model_free(model);
    mq_sequences_free(&windows);
    free(golden);
    mq_tensors_close(tensors);
}

static void test_against_transformers(void **state) {
    (void)state;
    check_golden("llama");
    check_golden("gemma3");
    check_golden("llama-biases");
    check_golden("gemma2");
    check_golden("phi4-mini");
}

static void test_against_plain_sums(void **state) {
    (void)state;
    mq_model *model = open_model("llama"), *reference = open_model("rope-yarn");
    size_t n = model->config.vocab_size, length = 9;
    assert_int_equal(reference->config.vocab_size, n);
    mq_sequences windows = random_windows(5, length, n);
    float *logits = all_logits(model, &windows), *expected = all_logits(reference, &windows);
    scores alone = score(model, NULL, &windows, 2, NO_LIMIT);
    scores found = score(model, reference, &windows, 2, NO_LIMIT);
    for (size_t w = 0; w < windows.count; w++) {
        size_t at = w * length * n;
        const int32_t *ids = windows.ids + w * length;
        double kl, agreement;
        plain_divergence(&kl, &agreement, expected + at, logits + at, length, n);
        assert_near(alone.nll[w], plain_nll(logits + at, ids, length, n), 1e-5);
        assert_near(found.nll[w], plain_nll(logits + at, ids, length, n), 1e-5);
        assert_near(found.reference_nll[w], plain_nll(expected + at, ids, length, n), 1e-5);
        assert_near(found.kl[w], kl, 1e-5);
        assert_true(kl > 1e-3); /* the two do differ */
        assert_near(found.agreement[w], agreement, 1e-12);
    }
    free(logits);
    free(expected);
    mq_sequences_free(&windows);
    mq_model_free(model);
    mq_model_free(reference);
}

static void test_a_model_agrees_with_itself(void **state) {
    (void)state;
    mq_model *model = open_model("gemma3");
    mq_sequences windows = random_windows(3, 12, model->config.vocab_size);
    scores found = score(model, model, &windows, 4, NO_LIMIT);
    for (size_t w = 0; w < windows.count; w++) {
        assert_near(found.kl[w], 0, 1e-6);
        assert_true(found.agreement[w] == 1);
        assert_near(found.nll[w], found.reference_nll[w], 1e-6);
    }
    mq_sequences_free(&windows);
    mq_model_free(model);
}

static void test_groups_do_not_show(void **state) {
    (void)state;
    mq_model *model = open_model("llama"), *reference = open_model("rope-yarn");
    mq_sequences windows = random_windows(11, 10, model->config.vocab_size);
    size_t window =
        10 * sizeof(float) * (model->config.hidden_size + reference->config.hidden_size);
    scores whole = score(model, reference, &windows, 2, NO_LIMIT);
    /* One batch at a time; two; three and a bit: the same to the last bit. */
    size_t limits[] = {0, 1, 4 * window + 1, 7 * window};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        scores parts = score(model, reference, &windows, 2, limits[i]);
        assert_memory_equal(&parts, &whole, sizeof whole);
    }
    /* Batches of another size may round differently, but no more than that. */
    scores wide = score(model, reference, &windows, 16, NO_LIMIT);
    for (size_t w = 0; w < windows.count; w++) {
        assert_near(wide.nll[w], whole.nll[w], 1e-5);
        assert_near(wide.kl[w], whole.kl[w], 1e-5);
    }
    mq_sequences_free(&windows);
    mq_model_free(model);
    mq_model_free(reference);
}

/* Models side by side, in groups of any size: each is to the last bit what it is alone. */
static void test_others_do_not_show(void **state) {
    (void)state;
    mq_model *llama = open_model("llama"), *yarn = open_model("rope-yarn");
    mq_sequences windows = random_windows(5, 10, llama->config.vocab_size);
    const mq_model *const models[] = {llama, yarn, llama};
    const mq_scored scored = {models, 3, yarn};
    const size_t limits[] = {1, 6 * 10 * sizeof(float) * 4 * llama->config.hidden_size, NO_LIMIT};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        scores found[3];
        mq_window_scores to[3];
        mq_error err = {0};
        memset(found, 0, sizeof found);
        for (size_t k = 0; k < 3; k++) {
            to[k] = (mq_window_scores){found[k].nll, found[k].kl, found[k].agreement,
                                       found[k].reference_nll};
        }
        if (mq_score_windows(to, &scored, &windows, 2, limits[i], NULL, &err) != MQ_OK) {
            fail_msg("%s", err.message);
        }
        for (size_t k = 0; k < 3; k++) {
            const scores alone = score(models[k], yarn, &windows, 2, NO_LIMIT);
            assert_memory_equal(&found[k], &alone, sizeof alone);
        }
    }
    mq_sequences_free(&windows);
    mq_model_free(llama);
    mq_model_free(yarn);
}

static void test_estimate(void **state) {
    (void)state;
    const double one[] = {3};
    mq_estimate estimate = mq_estimate_of(one, 1);
    assert_true(estimate.mean == 3);
    assert_true(isnan(estimate.std_error));
    /* Deviations -3, -1, 1, 3: variance 20/3, of the mean 5/3. */
    const double four[] = {1, 3, 5, 7};
    estimate = mq_estimate_of(four, 4);
    assert_true(estimate.mean == 4);
    assert_near(estimate.std_error, sqrt(5.0 / 3), 1e-15);
    const double bad[] = {1, NAN, 2};
    estimate = mq_estimate_of(bad, 3);
    assert_true(isnan(estimate.mean));
    const float values[] = {1, 2, 6};
    assert_true(mq_mean(values, 3) == 3);
}

/* --- progress --------------------------------------------------------------------------------- */

typedef struct recorder {
    size_t reports;
    double done, total;
} recorder;

static void record(void *user, const mq_progress *progress) {
    recorder *self = user;
    assert_string_equal(progress->unit, "window");
    assert_true(progress->done >= self->done - 1e-9);
    assert_true(progress->done <= progress->total + 1e-9);
    self->done = progress->done;
    self->total = progress->total;
    self->reports++;
}

static void test_progress_rises_to_the_end(void **state) {
    (void)state;
    recorder seen = {0, 0, 0};
    mq_context *context = NULL;
    mq_context_options options = {.threads = 1, .sink = {&seen, NULL, record}};
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    mq_model *model = open_model("llama");
    mq_sequences windows = random_windows(7, 6, model->config.vocab_size);
    double memory[4][7];
    mq_window_scores to = {memory[0], memory[1], memory[2], memory[3]};
    const mq_scored scored = {(const mq_model *const[]){model}, 1, model};
    assert_int_equal(mq_score_windows(&to, &scored, &windows, 2, 1, context, NULL), MQ_OK);
    assert_true(seen.reports >= 7);
    assert_true(seen.done == 7 && seen.total == 7);
    mq_sequences_free(&windows);
    mq_model_free(model);
    mq_context_free(context);
}

static void test_interrupt(void **state) {
    (void)state;
    static volatile sig_atomic_t flag = 1;
    mq_context *context = NULL;
    mq_context_options options = {.threads = 1, .interrupted = &flag};
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    mq_model *model = open_model("llama");
    mq_sequences windows = random_windows(4, 6, model->config.vocab_size);
    double nll[4];
    mq_window_scores to = {nll, NULL, NULL, NULL};
    const mq_scored scored = {(const mq_model *const[]){model}, 1, NULL};
    assert_int_equal(mq_score_windows(&to, &scored, &windows, 2, 1, context, NULL),
                     MQ_ERR_INTERRUPTED);
    mq_sequences_free(&windows);
    mq_model_free(model);
    mq_context_free(context);
}

/* Every allocation on the way fails once: an error each time, and nothing leaks (the sanitizer
 * build sees it). */
static void test_lack_of_memory(void **state) {
    (void)state;
    mq_model *model = open_model("llama");
    mq_sequences windows = random_windows(4, 6, model->config.vocab_size);
    double memory[4][4];
    mq_window_scores to = {memory[0], memory[1], memory[2], memory[3]};
    const mq_scored scored = {(const mq_model *const[]){model}, 1, model};
    size_t failures = 0;
    for (size_t countdown = 1;; countdown++) {
        mq_alloc_fail_after(countdown);
        mq_status status = mq_score_windows(&to, &scored, &windows, 2, 1, NULL, NULL);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        failures++;
    }
    assert_true(failures >= 6);
    mq_sequences_free(&windows);
    mq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_transformers),
        cmocka_unit_test(test_against_plain_sums),
        cmocka_unit_test(test_a_model_agrees_with_itself),
        cmocka_unit_test(test_groups_do_not_show),
        cmocka_unit_test(test_others_do_not_show),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_progress_rises_to_the_end),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
