/* layer: eval */
/* mq_evaluate from folders and files to the result, and what it refuses. */
#include "matquant/eval.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "eval/score.h"

#define LLAMA MATQUANT_GOLDEN_DIR "/models/llama"
#define YARN MATQUANT_GOLDEN_DIR "/models/rope-yarn"
#define DEMO MATQUANT_DATA_DIR "/demo-model"

static char folder[256];

static int make_folder(void **state) {
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/matquant-eval.XXXXXX", parent ? parent : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static char text_path[512];

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

/* ids[count] as a one-dimensional .npy of int32 (format version 1.0). */
static const char *write_npy(const int32_t *ids, size_t count) {
    snprintf(text_path, sizeof text_path, "%s/ids.npy", folder);
    FILE *file = fopen(text_path, "wb");
    assert_non_null(file);
    char header[128] = {0};
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    int used = snprintf(header + 10, sizeof header - 10,
                        "{'descr': '<i4', 'fortran_order': False, 'shape': (%zu,), }", count);
    memset(header + 10 + used, ' ', sizeof header - 10 - (size_t)used);
    header[sizeof header - 1] = '\n';
    assert_int_equal(fwrite(header, 1, sizeof header, file), sizeof header);
    assert_int_equal(fwrite(ids, sizeof *ids, count, file), count);
    assert_int_equal(fclose(file), 0);
    return text_path;
}

static void fill(int32_t *ids, size_t count, size_t vocab_size) {
    mq_random random;
    mq_random_seed(&random, 11, 0);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)mq_random_below(&random, vocab_size);
    }
}

/* The mean of what mq_score_windows (tested by itself) says of the same windows. */
static void test_summary(void **state) {
    (void)state;
    int32_t ids[7 * 8 + 3]; /* the last 3 tokens fill no window */
    fill(ids, 7 * 8 + 3, 64);
    mq_eval_options options = mq_eval_defaults();
    options.model = LLAMA;
    options.reference = YARN;
    options.text = write_npy(ids, 7 * 8 + 3);
    options.seq_len = 8;
    mq_eval_result result;
    mq_error err = {0};
    if (mq_evaluate(&result, &options, NULL, &err) != MQ_OK) {
        fail_msg("%s: %s", err.file, err.message);
    }
    assert_int_equal(result.windows, 7);
    assert_int_equal(result.tokens, 7 * 7);

    mq_model *model = NULL, *reference = NULL;
    assert_int_equal(mq_model_open_plain(&model, LLAMA, NULL), MQ_OK);
    assert_int_equal(mq_model_open_plain(&reference, YARN, NULL), MQ_OK);
    mq_sequences windows = {.ids = ids, .count = 7, .length = 8};
    double scores[4][7], sums[4] = {0}, squares[2] = {0};
    mq_window_scores to = {scores[0], scores[1], scores[2], scores[3]};
    const mq_model *const models[] = {model};
    const mq_scored scored = {models, 1, reference};
    assert_int_equal(
        mq_score_windows(&to, &scored, &windows, options.batch, (size_t)1 << 30, NULL, NULL),
        MQ_OK);
    for (int k = 0; k < 4; k++) {
        for (int w = 0; w < 7; w++) {
            sums[k] += scores[k][w] / 7;
        }
    }
    for (int k = 0; k < 2; k++) {
        for (int w = 0; w < 7; w++) {
            squares[k] += (scores[k][w] - sums[k]) * (scores[k][w] - sums[k]);
        }
    }
    assert_true(fabs(result.nll - sums[0]) < 1e-12);
    assert_true(fabs(result.nll_stderr - sqrt(squares[0] / 42)) < 1e-12);
    assert_true(fabs(result.perplexity - exp(sums[0])) < 1e-9);
    assert_true(result.has_reference);
    assert_true(fabs(result.kl - sums[1]) < 1e-12);
    assert_true(fabs(result.kl_stderr - sqrt(squares[1] / 42)) < 1e-12);
    assert_true(fabs(result.top1_agreement - sums[2]) < 1e-12);
    assert_true(fabs(result.reference_perplexity - exp(sums[3])) < 1e-9);
    mq_model_free(model);
    mq_model_free(reference);

    /* Fewer windows, without a reference: the first ones. */
    options.windows = 2;
    options.reference = NULL;
    assert_int_equal(mq_evaluate(&result, &options, NULL, &err), MQ_OK);
    assert_int_equal(result.windows, 2);
    assert_false(result.has_reference);
    assert_true(fabs(result.nll - (scores[0][0] + scores[0][1]) / 2) < 1e-6);
    unlink(text_path);
}

static void test_the_demo_model_has_learned(void **state) {
    (void)state;
    mq_eval_options options = mq_eval_defaults();
    options.model = DEMO;
    options.text = MATQUANT_DATA_DIR "/demo-eval.txt";
    options.seq_len = 256;
    options.windows = 8;
    mq_eval_result with_bos, without;
    mq_error err = {0};
    if (mq_evaluate(&with_bos, &options, NULL, &err) != MQ_OK) {
        fail_msg("%s: %s", err.file, err.message);
    }
    /* It has a vocabulary of 1024: one that knew nothing would be at about that. */
    assert_true(with_bos.perplexity > 1 && with_bos.perplexity < 100);
    options.bos = false;
    assert_int_equal(mq_evaluate(&without, &options, NULL, &err), MQ_OK);
    assert_int_equal(without.tokens, with_bos.tokens);
}

static void refuses(const mq_eval_options *options, mq_status status, const char *message,
                    const char *file) {
    mq_eval_result result;
    mq_error err = {0};
    assert_int_equal(mq_evaluate(&result, options, NULL, &err), status);
    if (!strstr(err.message, message) || !strstr(err.file, file)) {
        fail_msg("'%s' in '%s', expected '%s' in '%s'", err.message, err.file, message, file);
    }
}

static void test_what_is_refused(void **state) {
    (void)state;
    int32_t ids[64];
    fill(ids, 64, 64);
    mq_eval_options good = mq_eval_defaults();
    good.model = LLAMA;
    good.text = write_npy(ids, 64);
    good.seq_len = 8;
    mq_eval_options bad = good;
    bad.seq_len = 1;
    refuses(&bad, MQ_ERR_USAGE, "at least 2", "");
    bad = good;
    bad.batch = 0;
    refuses(&bad, MQ_ERR_USAGE, "batch", "");
    bad = good;
    bad.text = NULL;
    refuses(&bad, MQ_ERR_USAGE, "text", "");
    bad = good;
    bad.seq_len = 65;
    refuses(&bad, MQ_ERR_INPUT, "65", "ids.npy");
    bad = good;
    const unsigned four = 4; /* a plain model has one width only */
    bad.widths = &four;
    bad.width_count = 1;
    refuses(&bad, MQ_ERR_USAGE, "", "");
    bad = good;
    bad.text = "no-such-file.npy";
    refuses(&bad, MQ_ERR_INPUT, "", "no-such-file.npy");
    bad = good;
    bad.model = "no-such-folder";
    refuses(&bad, MQ_ERR_INPUT, "", "no-such-folder");
    bad = good;
    bad.record = true; /* nor has it a provenance */
    refuses(&bad, MQ_ERR_USAGE, "no master", "llama");
    bad = good;
    bad.reference = DEMO;
    refuses(&bad, MQ_ERR_INPUT, "vocabulary of 1024", "demo-model");
    bad = good;
    bad.text = MATQUANT_DATA_DIR "/demo-eval.txt"; /* the golden has no tokenizer */
    refuses(&bad, MQ_ERR_INPUT, "", "tokenizer.json");
    ids[13] = 64;
    good.text = write_npy(ids, 64);
    refuses(&good, MQ_ERR_INPUT, "64", "ids.npy");
    unlink(text_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_the_demo_model_has_learned),
        cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
