/* layer: store */
/* The same bytes on every run, for any number of threads. */
#include "quantize_job.h"

static void two_runs_give_the_same_bytes(void **state) {
    (void)state;
    const mq_recipe recipes[] = {MQ_RECIPE_BEST, MQ_RECIPE_PAPER, MQ_RECIPE_RTN};
    for (size_t r = 0; r < 3; r++) {
        const mq_quantize_options options = small(recipes[r]);
        mq_quantize_report report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        made first = take_made();
        report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        assert_made_the_same(&first);
        free_made(&first);
    }
}

/* A block's products run on one thread each, so the tensors are the same bytes whatever the number
 * of threads. */
static void threads_change_no_tensor(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.embeddings = MQ_EMBEDDINGS_NESTED;
    mq_quantize_report report = quantize(&options, 1);
    mq_quantize_report_free(&report);
    made first = take_made();
    report = quantize(&options, 2);
    mq_quantize_report_free(&report);
    assert_made_the_same(&first);
    free_made(&first);
}

/* The same of bfloat16 products: losses that fall, memory as predicted, and two runs, on one thread
 * and on two, with the same bytes; layers that are not quantized included. */
static void bf16_products_learn_too(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    const char *const exclude[] = {"k_proj$"};
    made first = {0};
    options.gemm = MQ_GEMM_ONEDNN_BF16;
    options.exclude = exclude;
    options.exclude_count = 1;
    options.samples = 9; /* the last batch is not full */
    options.epochs = 3;
    for (size_t i = 0; i < 2; i++) {
        mq_quantize_report report = quantize(&options, i + 1);
        assert_non_null(strstr(report.gemm, "onednn-bf16 (oneDNN "));
        assert_true(report.memory_peak <= report.memory_predicted);
        assert_true((double)report.memory_predicted <= 1.05 * (double)report.memory_peak);
        double before = 0.0, after = 0.0;
        for (size_t layer = 0; layer < report.blocks; layer++) {
            before += report.block[layer].before[2];
            after += report.block[layer].after[2];
        }
        assert_true(after < before);
        mq_quantize_report_free(&report);
        if (i == 0) {
            first = take_made();
        }
    }
    assert_made_the_same(&first);
    free_made(&first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(two_runs_give_the_same_bytes),
        TEST(threads_change_no_tensor),
        TEST(bf16_products_learn_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
