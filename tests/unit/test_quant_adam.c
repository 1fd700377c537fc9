/* layer: quant */
/* Adam's epsilon: what it is beside gradients, and how it goes with a model's size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quant/distill.h"
#include "quant/recipe.h"
#include "refit_fixture.h"

/* Adam's usual one, as a step has it. */
static const float usual = 1e-8f;

static float blocks(size_t hidden_size, double tokens) {
    return (float)mq_adam_blocks_epsilon(hidden_size, tokens);
}

/* Exact where the ratios are: at the sizes that it was found at it is the number that it was found
 * to be. */
static void that_of_blocks_falls_as_their_gradients_do(void **state) {
    (void)state;
    assert_true(blocks(576, 1024.0) == usual);
    assert_true(blocks(4 * 576, 1024.0) == usual / 8.0f);
    assert_true(blocks(576 / 4, 1024.0) == usual * 8.0f);
    assert_true(blocks(576, 4096.0) == usual / 2.0f);
    assert_true(blocks(576, 256.0) == usual * 2.0f);
    assert_true(blocks(16 * 576, 64.0) == usual / 16.0f);
}

/* A step has as many sequences as --batch says, or all; recipe paper's is PyTorch's. */
static void that_of_a_recipe(void **state) {
    (void)state;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    assert_true((float)mq_recipe_epsilon(&options, 576) == usual);
    options.batch = 8;
    assert_true((float)mq_recipe_epsilon(&options, 576) == usual / 2.0f);
    options.samples = 2;
    assert_true((float)mq_recipe_epsilon(&options, 576) == usual);
    options.seq_len = 128;
    assert_true((float)mq_recipe_epsilon(&options, 4 * 576) == usual / 4.0f);
    options.slice_rule = MQ_SLICE_ROUND;
    options.zero_point = MQ_ZERO_SYMMETRIC;
    assert_true((float)mq_recipe_epsilon(&options, 4 * 576) == usual / 4.0f);
    options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    assert_true((float)mq_recipe_epsilon(&options, 4 * 576) == usual);
}

/* 30 blocks of 3,538,944 weights in groups of 64. */
#define SMOLLM2_GROUPS 1658880u

static void that_of_pairs_falls_beyond_smollm2(void **state) {
    (void)state;
    assert_true((float)mq_adam_pairs_epsilon(1) == usual);
    assert_true((float)mq_adam_pairs_epsilon(SMOLLM2_GROUPS) == usual);
    assert_true((float)mq_adam_pairs_epsilon(2 * SMOLLM2_GROUPS) == usual / 2.0f);
    assert_true((float)mq_adam_pairs_epsilon(64 * SMOLLM2_GROUPS) == usual / 64.0f);
}

/* The fixture's selection, each of its groups so many. */
static mq_distill distill_of(fixture *f, size_t times) {
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        f->selection.groups[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT] *= times;
    }
    const mq_refit_setup setup = setup_of(f, 1, 1e-3);
    return mq_distill_for(&setup, 1, f->context);
}

/* All groups of all linears that are quantized count, and every step is by it, in the warm-up and
 * after. */
static void the_refit_counts_groups(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 1);
    size_t groups = 0;
    for (size_t i = 0; i < f.selection.layers * MQ_LINEAR_COUNT; i++) {
        const stored *linear = &f.linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        groups += linear->out * linear->groups;
    }
    assert_int_equal(mq_selection_groups(&f.selection, &f.model->config), groups);
    mq_distill distill = distill_of(&f, 1);
    assert_true(mq_distill_adam(&distill, 1e-3, 0.0, 0, 100).epsilon == usual);
    const size_t times = 8 * SMOLLM2_GROUPS / groups;
    const float expected = (float)(1e-8 * SMOLLM2_GROUPS / (double)(groups * times));
    distill = distill_of(&f, times);
    for (size_t step = 0; step < 20; step += 19) {
        const mq_adam adam = mq_distill_adam(&distill, 1e-3, 0.0, step, 100);
        assert_true(fabsf(adam.epsilon / expected - 1.0f) < 1e-6f);
        assert_true(adam.rate_group < 1e-3f);
    }
    assert_true(expected < usual / 7.0f);
    free_fixture(&f);
}

/* Of a first step the root of the second moment is the gradient: beside an epsilon as large it goes
 * half as far. */
static void a_step_is_shorter_by_it(void **state) {
    (void)state;
    const float gradient = 0x1p-30f;
    for (int shift = 0; shift < 2; shift++) {
        const mq_adam adam =
            mq_adam_at(MQ_ADAM_BETA1, (double)(gradient * (float)shift), 0.5f, 0.0f, 0, 1);
        float m = 0.0f, v = 0.0f;
        const float moved = 1.0f - mq_adam_update(&m, &v, &adam, adam.rate_group, 1.0f, gradient);
        assert_true(fabsf(moved - (shift == 0 ? 0.5f : 0.25f)) < 1e-5f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(that_of_blocks_falls_as_their_gradients_do),
        cmocka_unit_test(that_of_a_recipe),
        cmocka_unit_test(that_of_pairs_falls_beyond_smollm2),
        cmocka_unit_test(the_refit_counts_groups),
        cmocka_unit_test(a_step_is_shorter_by_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
