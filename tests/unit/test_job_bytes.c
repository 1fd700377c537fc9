/* layer: job */
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

static void check_threads(const mq_quantize_options *options) {
    mq_quantize_report report = quantize(options, 1);
    mq_quantize_report_free(&report);
    made first = take_made();
    report = quantize(options, 2);
    mq_quantize_report_free(&report);
    assert_made_the_same(&first);
    free_made(&first);
}

/* A block's products run on one thread each, so the tensors are the same bytes whatever the number
 * of threads; so are recipe paper's, whose grid and equivalent transformation have loops of their
 * own. */
static void threads_change_no_tensor(void **state) {
    (void)state;
    mq_quantize_options best = small(MQ_RECIPE_BEST), paper = small(MQ_RECIPE_PAPER);
    best.embeddings = MQ_EMBEDDINGS_NESTED;
    check_threads(&best);
    check_threads(&paper);
    paper.let = true;
    check_threads(&paper);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(two_runs_give_the_same_bytes),
        TEST(threads_change_no_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
