/* layer: store */
/* How much of the calibration text the refit trains and measures on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/quantize.h"

typedef struct expected {
    size_t samples, refit_tokens, available; /* 0: as many as it likes */
    size_t wanted, train, validation, epochs;
} expected;

static void text_is_shared_out(void **state) {
    (void)state;
    static const expected cases[] = {
        {64, 0, 0, 476, 448, 28, 1},   /* seven times the blocks' sequences, and a sixteenth */
        {64, 0, 476, 476, 448, 28, 1}, /* as many are there */
        {64, 0, 400, 476, 372, 28, 1}, /* fewer: an eighth at most is measured on */
        {64, 0, 64, 476, 56, 8, 4},    /* few: each is visited until it is worth three times 64 */
        {64, 0, 2, 476, 1, 1, 192},    /* the least that there can be */
        {64, 2048, 0, 64, 4, 1, 48},   /* as asked for; the blocks want more */
        {2, 51200, 0, 106, 100, 6, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const expected *c = &cases[i];
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.samples = c->samples;
        options.seq_len = 512;
        options.refit_tokens = c->refit_tokens;
        mq_quantize_plan plan = {.options = &options, .refit_width_count = 1};
        size_t wanted = 0;
        mq_quantize_refit_share(&plan, c->available, &wanted);
        assert_int_equal(wanted, c->wanted);
        assert_int_equal(plan.refit_train, c->train);
        assert_int_equal(plan.validation, c->validation);
        assert_int_equal(plan.refit_epochs, c->epochs);
    }
}

static void without_a_refit_the_blocks_decide(void **state) {
    (void)state;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.refit = false;
    mq_quantize_plan plan = {.options = &options};
    size_t wanted = 0;
    mq_quantize_refit_share(&plan, 0, &wanted);
    assert_int_equal(wanted, options.samples);
    assert_int_equal(plan.validation, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_shared_out),
        cmocka_unit_test(without_a_refit_the_blocks_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
