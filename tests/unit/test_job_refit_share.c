/* layer: job */
/* How much of the calibration text the refit trains and measures on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "job/job.h"

typedef struct expected {
    size_t samples, refit_tokens, available; /* 0: as many as it likes */
    bool extend;
    size_t wanted, train, validation, epochs, written;
    size_t before; /* what is measured on */
} expected;

static void text_is_shared_out(void **state) {
    (void)state;
    static const expected cases[] = {
        {64, 0, 0, false, 476, 448, 28, 1, 0, 448},   /* seven times the blocks', and a sixteenth */
        {64, 0, 476, true, 476, 448, 28, 1, 0, 448},  /* as many are there */
        {64, 0, 400, false, 476, 372, 28, 1, 0, 372}, /* fewer: an eighth at most is measured on */
        {64, 0, 64, false, 476, 56, 8, 4, 0, 56},  /* few: each is visited until it is 3 times 64 */
        {64, 0, 2, false, 476, 1, 1, 192, 0, 1},   /* the least that there can be */
        {64, 2048, 0, false, 65, 4, 1, 48, 0, 64}, /* as asked for; the blocks want more */
        {64, 2048, 65, true, 65, 4, 1, 48, 0, 64}, /* what is measured on comes behind theirs */
        {64, 2048, 64, false, 65, 4, 1, 48, 0, 4}, /* or is among theirs, where there is no more */
        {2, 51200, 0, true, 106, 100, 6, 1, 0, 100},
        /* The model writes what is missing, and it is trained on alone. */
        {64, 0, 400, true, 476, 448, 28, 1, 448 - 372, 448},
        {64, 0, 64, true, 476, 448, 8, 2, 448 - 56, 448}, /* most of it: visited twice */
        {64, 0, 2, true, 476, 448, 1, 2, 447, 448},
        {64, 32768, 64, true, 68, 64, 4, 3, 4, 64},
        {4, 0, 9, true, 29, 28, 1, 2, 20, 28},      /* the blocks learn from others */
        {64, 30720, 64, true, 67, 60, 3, 4, 0, 60}, /* enough to train on: nothing is missing */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const expected *c = &cases[i];
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.samples = c->samples;
        options.seq_len = 512;
        options.refit_tokens = c->refit_tokens;
        options.extend = c->extend;
        mq_quantize_plan plan = {.options = &options, .refit_width_count = 1};
        size_t wanted = 0;
        mq_quantize_refit_share(&wanted, &plan, c->available);
        assert_int_equal(wanted, c->wanted);
        assert_int_equal(plan.refit_train, c->train);
        assert_int_equal(plan.validation, c->validation);
        assert_int_equal(plan.refit_epochs, c->epochs);
        assert_int_equal(plan.written, c->written);
        assert_int_equal(plan.train, c->before);
    }
}

/* A shorter stage trains on the last sequences: what was read, before what is measured on. */
static void qat_has_its_own_share(void **state) {
    (void)state;
    for (int extend = 0; extend < 2; extend++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.qat = true;
        options.extend = extend;
        int32_t ids = 0;
        mq_quantize_plan plan = {.options = &options,
                                 .refit_width_count = 1,
                                 .calibration = {.ids = &ids, .count = 1, .length = 1}};
        size_t wanted;
        mq_quantize_refit_share(&wanted, &plan, extend ? 64 : 476);
        assert_int_equal(plan.refit_train, 448);
        assert_int_equal(plan.qat_train, 192);
        assert_int_equal(plan.qat_epochs, 1);
        const mq_refit_setup qat = mq_quantize_end_to_end(&plan, plan.qat_train);
        const mq_refit_setup refit = mq_quantize_end_to_end(&plan, plan.refit_train);
        const size_t row = options.seq_len;
        assert_ptr_equal(refit.ids, &ids);
        assert_ptr_equal(qat.ids, &ids + (448 - 192) * row);
        assert_int_equal(plan.written, extend ? 448 - 56 : 0);
    }
}

static void without_a_refit_the_blocks_decide(void **state) {
    (void)state;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.refit = false;
    mq_quantize_plan plan = {.options = &options};
    size_t wanted = 0;
    mq_quantize_refit_share(&wanted, &plan, 0);
    assert_int_equal(wanted, options.samples);
    assert_int_equal(plan.validation, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_shared_out),
        cmocka_unit_test(qat_has_its_own_share),
        cmocka_unit_test(without_a_refit_the_blocks_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
