/* layer: quant */
/* Co-distillation: its terms' gradients by hand and by finite differences, and what learning with
 * them does to a narrow width. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "learner_fixture.h"
#include "quant/recipe.h"

#define WIDE 1 /* of 8, 4, 2: int4 */
#define NARROW 2

/* Recipe paper at 8, 4, 2, with 8>2 and 4>2 if so much weight is given to them. */
static mq_quantize_options options_with(double own, double from8, double from4) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    options.lambda[NARROW] = own;
    if (from8 > 0.0) {
        options.codistill[options.codistill_count++] = (mq_codistill){8, 2, from8};
    }
    if (from4 > 0.0) {
        options.codistill[options.codistill_count++] = (mq_codistill){4, 2, from4};
    }
    return options;
}

static double mean_square(const float *a, const float *b, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += pow((double)a[i] - (double)b[i], 2);
    }
    return sum / (double)count;
}

static float *floats(size_t count) {
    float *values = mq_calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

/* Everything about the narrow width before its first step, and the gradient that the step used. */
typedef struct case_ {
    learner_fixture f;
    float *y[3];                   /* outputs at the start, by width */
    float *start[MQ_LINEAR_COUNT]; /* the narrow width's values at the start */
    size_t count;
} case_;

static void open_case(case_ *c, const mq_quantize_options *options) {
    *c = (case_){.count = 0};
    open_learner(&c->f, "llama", options, 1);
    c->count = learner_floats(&c->f);
    for (size_t k = 0; k < 3; k++) {
        c->y[k] = floats(c->count);
        learner_forward(c->y[k], &c->f, k);
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_grid *grid = &c->f.learner.grid[i];
        c->start[i] = floats(grid->out * grid->in);
        memcpy(c->start[i], c->f.learner.values[i][NARROW].f32,
               grid->out * grid->in * sizeof(float));
    }
    /* One batch and one epoch: one step, whose gradients stay. */
    assert_int_equal(mq_learner_train(&c->f.learner, 0, 0.0, NULL), MQ_OK);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_grid *grid = &c->f.learner.grid[i];
        memcpy(c->f.learner.values[i][NARROW].f32, c->start[i],
               grid->out * grid->in * sizeof(float));
    }
}

static void close_case(case_ *c) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        mq_free(c->start[i]);
    }
    for (size_t k = 0; k < 3; k++) {
        mq_free(c->y[k]);
    }
    close_learner(&c->f);
}

static double loss_of(case_ *c, float *y, double own, double from8, double from4) {
    learner_forward(y, &c->f, NARROW);
    return own * mean_square(y, c->f.learner.chains.target, c->count) +
           from8 * mean_square(y, c->y[0], c->count) + from4 * mean_square(y, c->y[WIDE], c->count);
}

static void gradients_are_those_by_hand(void **state) {
    (void)state;
    const mq_quantize_options options = options_with(1.0, 0.7, 0.4);
    case_ c;
    open_case(&c, &options);
    float *dy = floats(c.count);
    float *gradient[MQ_LINEAR_COUNT];
    mq_block_weights weights;
    mq_block_shape shape;
    mq_block_grads grads = {0};
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        gradient[i] = floats(c.f.learner.grid[i].out * c.f.learner.grid[i].in);
        grads.linear[i] = gradient[i];
    }
    learner_forward(dy, &c.f, NARROW);
    for (size_t i = 0; i < c.count; i++) {
        const double y = (double)dy[i];
        dy[i] = (float)(2.0 / (double)c.count *
                        ((y - (double)c.f.learner.chains.target[i]) +
                         0.7 * (y - (double)c.y[0][i]) + 0.4 * (y - (double)c.y[WIDE][i])));
    }
    learner_block(&weights, &shape, &c.f, NARROW);
    mq_block_backward(&grads, dy, c.f.learner.chains.student[NARROW], &weights, &shape,
                      c.f.learner.activations, c.f.context);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const size_t count = c.f.learner.grid[i].out * c.f.learner.grid[i].in;
        double largest = 0.0, difference = 0.0;
        for (size_t j = 0; j < count; j++) {
            const double learned = (double)c.f.learner.gradients[i][NARROW][j];
            largest = fmax(largest, fabs(learned));
            difference = fmax(difference, fabs(learned - (double)gradient[i][j]));
        }
        assert_true(largest > 0.0);
        if (difference > 2e-5 * largest) {
            fail_msg("linear %d: off by %g of %g", i, difference, largest);
        }
        mq_free(gradient[i]);
    }
    mq_free(dy);
    close_case(&c);
}

/* The wider widths' outputs are held fixed: the slope is the one without a gradient through them.
 */
static void gradients_are_the_slope(void **state) {
    (void)state;
    const mq_quantize_options options = options_with(0.0, 0.0, 1.0); /* 8,4,4>2 */
    case_ c;
    open_case(&c, &options);
    float *y = floats(c.count);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const size_t count = c.f.learner.grid[i].out * c.f.learner.grid[i].in;
        const float *gradient = c.f.learner.gradients[i][NARROW];
        size_t steepest = 0;
        for (size_t j = 0; j < count; j++) {
            steepest = fabsf(gradient[j]) > fabsf(gradient[steepest]) ? j : steepest;
        }
        float *value = &c.f.learner.values[i][NARROW].f32[steepest];
        const float kept = *value;
        *value = kept + 0.015625f;
        const double up = loss_of(&c, y, 0.0, 0.0, 1.0);
        *value = kept - 0.015625f;
        const double slope = (up - loss_of(&c, y, 0.0, 0.0, 1.0)) / 0.03125;
        *value = kept;
        if (fabs(slope - (double)gradient[steepest]) > 0.01 * fabs(slope)) {
            fail_msg("linear %d: %g where the slope is %g", i, (double)gradient[steepest], slope);
        }
    }
    mq_free(y);
    close_case(&c);
}

/* Mean square between the outputs of int2 and int4, at the start or when the block has been
 * learned: fast, since only where learning ends up counts here. */
static double distance(const char *name, const mq_quantize_options *options, mq_recipe recipe,
                       bool learn, uint64_t text) {
    learner_fixture f;
    mq_quantize_options own = mq_quantize_defaults(recipe);
    memcpy(own.lambda, options->lambda, sizeof own.lambda);
    memcpy(own.codistill, options->codistill, sizeof own.codistill);
    own.codistill_count = options->codistill_count;
    own.loss = MQ_LOSS_L2;
    own.rate = 4.0;
    open_learner_on(&f, name, &own, 120, (learner_text){text, 4});
    if (learn) {
        assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    }
    const size_t count = learner_floats(&f);
    float *wide = floats(count), *narrow = floats(count);
    learner_forward(wide, &f, WIDE);
    learner_forward(narrow, &f, NARROW);
    const double result = mean_square(wide, narrow, count);
    mq_free(wide);
    mq_free(narrow);
    close_learner(&f);
    return result;
}

static const char *const names[] = {"llama", "llama-biases", "gemma3", "qwen2"};
#define MODELS 4
#define FIRST_TEXT 11

/* int4 alone teaches int2: learning leaves 0.08 of their distance with recipe best, 0.74 with
 * recipe paper (means over the models), which can only move clips. Required is half of either gain,
 * and that less is left than where nothing teaches int2 while the others learn. */
static void a_narrow_width_comes_to_its_only_teacher(void **state) {
    (void)state;
    static const double most[] = {[MQ_RECIPE_BEST] = 0.54, [MQ_RECIPE_PAPER] = 0.87};
    const mq_quantize_options alone = options_with(0.0, 0.0, 1.0);
    const mq_quantize_options untaught = options_with(0.0, 0.0, 0.0);
    for (int recipe = MQ_RECIPE_BEST; recipe <= MQ_RECIPE_PAPER; recipe++) {
        const mq_recipe which = (mq_recipe)recipe;
        double left = 0.0;
        for (size_t i = 0; i < MODELS; i++) {
            const double taught = distance(names[i], &alone, which, true, FIRST_TEXT);
            left += taught / distance(names[i], &alone, which, false, FIRST_TEXT) / MODELS;
            assert_true(taught < distance(names[i], &untaught, which, true, FIRST_TEXT));
        }
        if (left >= most[recipe]) {
            fail_msg("recipe %d: %.3f of the distance is left", recipe, left);
        }
    }
}

/* Beside a loss of its own, whose optimum is not far from the teacher, what a single tiny model
 * learns from a single text differs by more than this is about, and so it does from one compiler's
 * sums to another's: the mean over four models and six texts. With recipe best it is 0.86 times as
 * far away as without; required is half of that gain. With recipe paper it is 0.98 times, 0.96 to
 * 1.03 from text to text: too little for a test.
 * (The sanitizers see learning in other tests.) */
static void a_narrow_width_comes_closer_to_its_teacher(void **state) {
    (void)state;
    if (MATQUANT_SANITIZED) {
        skip();
    }
    enum { TEXTS = 6 };
    const mq_quantize_options without = options_with(1.0, 0.0, 0.0);
    const mq_quantize_options beside = options_with(1.0, 0.0, 16.0);
    double ratio = 0.0;
    for (size_t i = 0; i < MODELS * TEXTS; i++) {
        const char *name = names[i % MODELS];
        const uint64_t text = FIRST_TEXT + i / MODELS;
        ratio += distance(name, &beside, MQ_RECIPE_BEST, true, text) /
                 distance(name, &without, MQ_RECIPE_BEST, true, text) / (MODELS * TEXTS);
    }
    if (ratio >= 0.93) {
        fail_msg("%.3f times as far away", ratio);
    }
}

/* int8 on every fourth step only: int2 learns from its output on the others as well. */
static void a_teacher_that_is_passed_over_is_still_there(void **state) {
    (void)state;
    mq_quantize_options options = options_with(0.0, 1.0, 0.0);
    options.periods[0] = 4;
    case_ c;
    open_case(&c, &options);
    learner_fixture *f = &c.f;
    assert_memory_equal(f->learner.guide[0], c.y[0], c.count * sizeof(float));
    assert_null(f->learner.guide[WIDE]);
    double sum = 0.0;
    for (size_t j = 0; j < f->learner.grid[MQ_UP].out * f->learner.grid[MQ_UP].in; j++) {
        sum += fabs((double)f->learner.gradients[MQ_UP][NARROW][j]);
    }
    assert_true(sum > 0.0);
    close_case(&c);
}

static void senseless_terms_are_refused(void **state) {
    (void)state;
    static const struct {
        mq_codistill terms[2];
        size_t count;
        mq_recipe recipe;
        const char *message;
    } cases[] = {
        {{{2, 8, 1.0}}, 1, MQ_RECIPE_PAPER, "must be the wider"},
        {{{4, 4, 1.0}}, 1, MQ_RECIPE_PAPER, "must be the wider"},
        {{{6, 2, 1.0}}, 1, MQ_RECIPE_PAPER, "must be trained too"},
        {{{8, 2, 0.0}}, 1, MQ_RECIPE_PAPER, "must be positive"},
        {{{8, 2, 1.0}, {8, 2, 2.0}}, 2, MQ_RECIPE_PAPER, "8>2 once only"},
        {{{8, 2, 1.0}}, 1, MQ_RECIPE_RTN, "rtn learns nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_quantize_options options = mq_quantize_defaults(cases[i].recipe);
        options.calib = cases[i].recipe == MQ_RECIPE_RTN ? NULL : "none";
        mq_error err = {0};
        assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
        memcpy(options.codistill, cases[i].terms, sizeof cases[i].terms);
        options.codistill_count = cases[i].count;
        assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
        assert_non_null(strstr(err.message, cases[i].message));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_by_hand),
        cmocka_unit_test(gradients_are_the_slope),
        cmocka_unit_test(a_narrow_width_comes_to_its_only_teacher),
        cmocka_unit_test(a_narrow_width_comes_closer_to_its_teacher),
        cmocka_unit_test(a_teacher_that_is_passed_over_is_still_there),
        cmocka_unit_test(senseless_terms_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
