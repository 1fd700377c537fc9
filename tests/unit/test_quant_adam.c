/* layer: quant */
/* The numbers that learning depends on, as docs/method.md states them: Adam, its rates and their
 * schedules; its epsilon, what it is beside gradients, and how it goes with a model's size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "learner_fixture.h"
#include "quant/distill.h"
#include "quant/recipe.h"
#include "refit_fixture.h"

/* off: by which the number may be another. */
static void assert_near(const char *what, double actual, double expected, double off) {
    if (!(fabs(actual - expected) <= off)) {
        fail_msg("%s is %.9g, not %.9g", what, actual, expected);
    }
}

/* --- a step ----------------------------------------------------------------------------------- */

static double cosine(size_t step, size_t steps) {
    return 0.5 * (1.0 + cos(acos(-1.0) * (double)step / (double)steps));
}

/* Kingma & Ba, algorithm 1, in double, with gradients of several sizes and either sign. */
static void check_steps(double beta1, double epsilon) {
    enum { STEPS = 12 };
    const double beta2 = 0.95, rate = 3e-3;
    double m = 0.0, v = 0.0, parameter = 0.0;
    float m_f32 = 0.0f, v_f32 = 0.0f, parameter_f32 = 0.0f;
    for (size_t step = 0; step < STEPS; step++) {
        const double g = ldexp(step % 3 == 2 ? -1.0 : 1.0, (int)(step * 7 % 5));
        const double t = (double)step + 1.0, now = rate * cosine(step, STEPS);
        m = beta1 * m + (1.0 - beta1) * g;
        v = beta2 * v + (1.0 - beta2) * g * g;
        parameter -=
            now * (m / (1.0 - pow(beta1, t))) / (sqrt(v / (1.0 - pow(beta2, t))) + epsilon);
        const mq_adam adam = mq_adam_at(beta1, epsilon, rate, 2.0 * rate, step, STEPS);
        parameter_f32 =
            mq_adam_update(&m_f32, &v_f32, &adam, adam.rate_group, parameter_f32, (float)g);
        assert_near("the first moment", (double)m_f32, m, 1e-5);
        assert_near("the second moment", (double)v_f32, v, 1e-4);
        assert_near("the parameter", (double)parameter_f32, parameter, 1e-5 * rate);
        assert_near("the other rate", (double)adam.rate_rounding, 2.0 * now, 1e-6 * rate);
    }
    assert_true(fabs(parameter) > rate);
}

static void steps_are_those_of_the_algorithm(void **state) {
    (void)state;
    check_steps(0.5, 1e-8);
    check_steps(0.9, 1e-8);
    check_steps(0.9, 0.5);
}

/* --- rates and their schedules ---------------------------------------------------------------- */

/* What the first linear's grid of a learner was given, and the grids that it would have stepped. */
#define BLOCK_STEPS 6
static struct {
    const mq_grid_class *grids;
    const mq_grid *first;
    size_t count;
    mq_adam adam[BLOCK_STEPS];
} seen;

static void see_step(mq_grid *grid, const float *const gradients[], const mq_values values[],
                     const mq_adam *adam) {
    if (grid == seen.first) {
        assert_true(seen.count < BLOCK_STEPS);
        seen.adam[seen.count++] = *adam;
    }
    seen.grids->step(grid, gradients, values, adam);
}

/* The steps of a block, of which an epoch has one; factor: --rate. */
static void check_block(mq_recipe recipe, double factor, double rate_group, double rate_rounding,
                        double beta1) {
    mq_quantize_options options = mq_quantize_defaults(recipe);
    options.rate *= factor;
    learner_fixture f;
    open_learner(&f, "llama", &options, BLOCK_STEPS);
    mq_grid_class class_ = *f.learner.grid_class;
    class_.step = see_step;
    seen.grids = f.learner.grid_class;
    seen.first = &f.learner.grid[0];
    seen.count = 0;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        f.learner.grid[i].class_ = &class_;
    }
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    assert_int_equal(seen.count, BLOCK_STEPS);
    for (size_t step = 0; step < BLOCK_STEPS; step++) {
        const mq_adam *adam = &seen.adam[step];
        const double schedule = factor * cosine(step, BLOCK_STEPS);
        assert_near("the groups' rate", (double)adam->rate_group, rate_group * schedule, 1e-8);
        assert_near("V's rate", (double)adam->rate_rounding, rate_rounding * schedule, 1e-8);
        assert_near("beta 1", (double)adam->beta1, beta1, 1e-6);
        assert_near("beta 2", (double)adam->beta2, 0.95, 1e-6);
    }
    close_learner(&f);
}

/* docs/method.md, 2, 5 and 6. */
static void blocks_learn_at_their_rates(void **state) {
    (void)state;
    check_block(MQ_RECIPE_BEST, 1.0, 0.0016, 0.008, 0.5);
    check_block(MQ_RECIPE_BEST, 2.5, 0.0016, 0.008, 0.5);
    check_block(MQ_RECIPE_PAPER, 1.0, 0.01, 0.0, 0.9);
}

/* docs/method.md, 4: 10 steps of warm-up, on the way down the cosine. */
static void the_refit_warms_up(void **state) {
    (void)state;
    enum { STEPS = 30 };
    const mq_distill distill = {.epsilon = 1e-8};
    for (size_t step = 0; step < STEPS; step++) {
        const mq_adam adam = mq_distill_adam(&distill, 0.2, 0.6, step, STEPS);
        const double warmth = step < 10 ? (double)(step + 1) / 10.0 : 1.0;
        const double rate = warmth * cosine(step, STEPS);
        assert_near("the rate", (double)adam.rate_group, 0.2 * rate, 1e-7);
        assert_near("the codes' rate", (double)adam.rate_rounding, 0.6 * rate, 1e-7);
        assert_near("beta 1", (double)adam.beta1, 0.9, 1e-6);
        assert_near("beta 2", (double)adam.beta2, 0.95, 1e-6);
    }
}

/* The refit's final norm after one step, of all the text, at the rate of the setup (negative:
 * the width's own); value[size] is to be freed. */
static float *final_norm(double *unit, size_t *size, unsigned width, double rate) {
    fixture f = make_wide_fixture("llama", 1, width);
    mq_refit_result result;
    mq_refit *run = refit(&result, &f, 1, rate);
    const mq_student_norm *norm = &mq_refit_student(run)->final_norm;
    float *value = mq_alloc(norm->size, sizeof *value);
    assert_non_null(value);
    memcpy(value, norm->value, norm->size * sizeof *value);
    *unit = (double)norm->unit;
    *size = norm->size;
    mq_refit_close(run);
    free_fixture(&f);
    return value;
}

/* Adam's first step is its rate, whatever the gradient: of the warm-up a tenth of 0.006 / 2^r, or
 * of 0.0001, in units of the norm's size (docs/method.md, 4 and 6). */
static void the_refit_has_a_rate_for_each_width(void **state) {
    (void)state;
    static const double rates[] = {[2] = 0.0015, [3] = 0.00075, [4] = 0.000375, [5] = 0.0001875,
                                   [6] = 0.0001, [7] = 0.0001,  [8] = 0.0001};
    for (unsigned width = 2; width <= 8; width++) {
        assert_near("the rate", mq_refit_rate(width), rates[width], 1e-12);
        size_t size;
        double unit, most = 0.0;
        float *before = final_norm(&unit, &size, width, 0.0);
        float *after = final_norm(&unit, &size, width, -1.0);
        for (size_t i = 0; i < size; i++) {
            most = fmax(most, fabs((double)after[i] - (double)before[i]) / unit);
        }
        assert_near("the first step", most, 0.1 * rates[width], 2e-3 * rates[width]);
        mq_free(before);
        mq_free(after);
    }
}

/* --- epsilon ---------------------------------------------------------------------------------- */

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
        cmocka_unit_test(steps_are_those_of_the_algorithm),
        cmocka_unit_test(blocks_learn_at_their_rates),
        cmocka_unit_test(the_refit_warms_up),
        cmocka_unit_test(the_refit_has_a_rate_for_each_width),
        cmocka_unit_test(that_of_blocks_falls_as_their_gradients_do),
        cmocka_unit_test(that_of_a_recipe),
        cmocka_unit_test(that_of_pairs_falls_beyond_smollm2),
        cmocka_unit_test(the_refit_counts_groups),
        cmocka_unit_test(a_step_is_shorter_by_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
