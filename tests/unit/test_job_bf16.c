/* layer: job */
/* Whole jobs whose products are of bfloat16; skipped where the program or the processor has none.
 */
#include "quantize_job.h"

/* Losses that fall, memory as predicted, and two runs, on one thread and on two, with the same
 * bytes; layers that are not quantized included. */
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

/* Recipe paper's, whose grid rounds to bfloat16 in a pass of its own: the same bytes on one thread
 * and on two, and others than in float32. */
static void bf16_products_of_recipe_paper(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    static const struct {
        bool let;
        mq_slice_rule rule;
    } settings[] = {{false, MQ_SLICE_ROUND}, {true, MQ_SLICE_ROUND}, {false, MQ_SLICE_ROUND_EXTRA}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        mq_quantize_options options = small(MQ_RECIPE_PAPER);
        options.let = settings[i].let;
        options.slice_rule = settings[i].rule;
        mq_quantize_report report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        made in_float = take_made();
        made first = {0};
        options.gemm = MQ_GEMM_ONEDNN_BF16;
        for (size_t threads = 1; threads <= 2; threads++) {
            report = quantize(&options, threads);
            assert_true(report.memory_peak <= report.memory_predicted);
            assert_true((double)report.memory_predicted <= 1.05 * (double)report.memory_peak);
            mq_quantize_report_free(&report);
            if (threads == 1) {
                first = take_made();
            }
        }
        assert_made_the_same(&first);
        assert_true(first.size[0] != in_float.size[0] ||
                    memcmp(first.content[0], in_float.content[0], first.size[0]) != 0);
        free_made(&first);
        free_made(&in_float);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(bf16_products_learn_too),
        TEST(bf16_products_of_recipe_paper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
