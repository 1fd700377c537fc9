/* layer: quant */
/* A step writes the values that the next one reads, and no others: what is learned is the same as
 * with all of them written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "learner_fixture.h"
#include "quant/visit.h"

#define STEPS 7
#define WIDTHS 3

/* The grid whose step writes everything; its learner, for cmocka's tests run one after another. */
static const mq_grid_class *plain;
static mq_learner *whole;

static size_t linear_of(const mq_grid *grid) {
    size_t i = 0;
    while (&whole->grid[i] != grid) {
        i++;
    }
    return i;
}

static void step_all_values(mq_grid *grid, const float *const gradients[], const mq_values values[],
                            const mq_adam *adam) {
    (void)values;
    plain->step(grid, gradients, whole->values[linear_of(grid)], adam);
}

static void set_variant(mq_quantize_options *options, size_t variant) {
    *options = mq_quantize_defaults(variant < 2 ? MQ_RECIPE_BEST : MQ_RECIPE_PAPER);
    options->periods[0] = variant == 0 ? 3 : 1;
    options->periods[1] = 1;
    options->sampled = variant == 1 || variant == 2 || variant == 4;
    options->let = variant == 2;
    if (variant == 3) { /* int8 teaches in steps that do not visit it */
        options->periods[0] = 4;
        options->codistill[0] = (mq_codistill){.teacher = 8, .student = 2, .lambda = 1.0};
        options->codistill_count = 1;
    }
}

#define VARIANTS 5

static void learn(learner_fixture *f, const mq_quantize_options *options, bool everything) {
    open_learner(f, "llama", options, STEPS);
    mq_grid_class class_ = *f->learner.grid_class;
    if (everything) {
        plain = f->learner.grid_class;
        whole = &f->learner;
        class_.step = step_all_values;
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        f->learner.grid[i].class_ = everything ? &class_ : f->learner.grid[i].class_;
    }
    assert_int_equal(mq_learner_train(&f->learner, 0, 0.0, NULL), MQ_OK);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        f->learner.grid[i].class_ = f->learner.grid_class;
    }
    assert_int_equal(mq_learner_finish(&f->learner, 0, NULL), MQ_OK);
}

static void values_that_nobody_reads_change_nothing(void **state) {
    (void)state;
    for (size_t variant = 0; variant < VARIANTS; variant++) {
        mq_quantize_options options;
        set_variant(&options, variant);
        learner_fixture some, all;
        learn(&some, &options, false);
        learn(&all, &options, true);
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            const mq_quantized *a = &some.learner.quantized[i], *b = &all.learner.quantized[i];
            const size_t pairs = a->out * a->groups * sizeof(uint16_t);
            assert_memory_equal(a->codes, b->codes, a->out * a->in);
            for (size_t k = 0; k < options.width_count; k++) {
                const unsigned width = options.widths[k];
                assert_memory_equal(a->scales[width], b->scales[width], pairs);
                assert_memory_equal(a->biases[width], b->biases[width], pairs);
            }
        }
        close_learner(&some);
        close_learner(&all);
    }
}

/* How many widths' values the steps of a block write, of STEPS times three. */
static size_t written(const mq_quantize_options *options) {
    learner_fixture f;
    open_learner(&f, "llama", options, STEPS);
    mq_random_seed(&f.learner.draws, 0, 0);
    size_t count = 0;
    for (size_t step = 0; step < STEPS; step++) {
        bool visited[MQ_MAX_WIDTHS] = {false}, wanted[MQ_MAX_WIDTHS];
        double factor[MQ_MAX_WIDTHS];
        mq_visit_widths(visited, factor, &f.learner, &f.learner.draws, step);
        mq_visit_next(wanted, &f.learner, step, STEPS);
        for (size_t k = 0; k < WIDTHS; k++) {
            count += wanted[k] ? 1 : 0;
        }
    }
    close_learner(&f);
    return count;
}

static void values_that_nobody_reads_are_not_written(void **state) {
    (void)state;
    mq_quantize_options options;
    set_variant(&options, 0);
    /* int8's before its steps, the third and the sixth, and with all others after the last */
    assert_int_equal(written(&options), STEPS * 2 + 3);
    set_variant(&options, 1);
    assert_int_equal(written(&options), (STEPS - 1) + 3);
    for (size_t variant = 2; variant <= 4; variant += 2) {
        set_variant(&options, variant);
        assert_int_equal(written(&options), (STEPS - 1) + 3);
    }
    set_variant(&options, 3); /* int8 is read in every step, by int2 */
    assert_int_equal(written(&options), STEPS * 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_nobody_reads_change_nothing),
        cmocka_unit_test(values_that_nobody_reads_are_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
