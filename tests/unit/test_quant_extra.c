/* layer: quant */
/* Extra precision: the clip grid under slice rule round-extra against its definition, in double,
 * and the stored slices' 2^r + 1 levels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "quant/clip.h"
#include "quant/recipe.h"
#include "tensor/dtype.h"

enum { ROWS = 6, IN = 64, GROUPS = 2, COUNT = IN / GROUPS, WEIGHTS = ROWS * IN, WIDTHS = 3 };
static const unsigned widths[WIDTHS] = {8, 4, 2};

typedef struct fixture {
    mq_grid_options options;
    mq_grid grid;
    mq_slab slab;
    mq_quantized quantized;
    mq_finish_scratch scratch;
    float weight[WEIGHTS], ones[IN], value[WIDTHS][WEIGHTS], gradient[WIDTHS][WEIGHTS];
    mq_values values[WIDTHS];
} fixture;

static fixture f;

static void carve(void) {
    mq_grid_carve(&f.grid, &mq_clip_grid, &f.options, ROWS, IN, GROUPS, &f.slab);
    mq_quantized_carve(&f.quantized, ROWS, IN, GROUPS, &f.slab);
    mq_finish_scratch_carve(&f.scratch, &f.options, ROWS, GROUPS, &f.slab);
}

static int open_fixture(void **state) {
    (void)state;
    f = (fixture){.options = {.width_count = WIDTHS,
                              .lambda = {0.1, 0.1, 1.0},
                              .slice_rule = MQ_SLICE_ROUND_EXTRA}};
    memcpy(f.options.widths, widths, sizeof widths);
    carve();
    if (mq_slab_allocate(&f.slab, "the test's grid", NULL) != MQ_OK) {
        return -1;
    }
    carve();
    mq_random random;
    mq_random_seed(&random, 3, 0);
    for (size_t i = 0; i < WEIGHTS; i++) {
        f.weight[i] = (float)(2.0 * mq_random_unit(&random) - 0.9);
        f.ones[i % IN] = 1.0f;
        for (size_t k = 0; k < WIDTHS; k++) {
            f.gradient[k][i] = (float)(2.0 * mq_random_unit(&random) - 1.0);
        }
    }
    for (size_t k = 0; k < WIDTHS; k++) {
        f.values[k].f32 = f.value[k];
    }
    f.grid.class_->start(&f.grid, f.weight, f.ones);
    return 0;
}

static int close_fixture(void **state) {
    (void)state;
    mq_slab_free(&f.slab);
    return 0;
}

/* A group's clip and step from its logits, in double. */
typedef struct group_clip {
    double lo, alpha, dlo, dhi;
} group_clip;

static group_clip clip_of(size_t group) {
    const mq_clip *clip = f.grid.state;
    double smallest = INFINITY, largest = -INFINITY;
    for (size_t i = group * COUNT; i < (group + 1) * COUNT; i++) {
        smallest = fmin(smallest, (double)f.weight[i]);
        largest = fmax(largest, (double)f.weight[i]);
    }
    const double low = 1.0 / (1.0 + exp(-(double)clip->params[2 * group]));
    const double high = 1.0 / (1.0 + exp(-(double)clip->params[2 * group + 1]));
    return (group_clip){.lo = low * smallest,
                        .alpha = (high * largest - low * smallest) / 255.0,
                        .dlo = low * (1.0 - low) * smallest,
                        .dhi = high * (1.0 - high) * largest};
}

static double code_of(group_clip clip, size_t i) {
    return fmin(255.0, fmax(0.0, floor(((double)f.weight[i] - clip.lo) / clip.alpha + 0.5)));
}

static double slice_of(double code, unsigned width) {
    return width == 8 ? code : floor(code / pow(2.0, 8.0 - width) + 0.5);
}

static void values_have_the_extra_level(void **state) {
    (void)state;
    f.grid.class_->values(f.values, &f.grid);
    size_t top_level = 0;
    for (size_t k = 0; k < WIDTHS; k++) {
        for (size_t i = 0; i < WEIGHTS; i++) {
            const group_clip clip = clip_of(i / COUNT);
            const double s = slice_of(code_of(clip, i), widths[k]);
            const double expected = clip.alpha * pow(2.0, 8.0 - widths[k]) * s + clip.lo;
            assert_true(fabs((double)f.value[k][i] - expected) < 1e-5);
            top_level += widths[k] == 2 && s > 3.5;
        }
    }
    assert_true(top_level >= ROWS * GROUPS); /* the largest weight of each group at least */
}

/* With c = 2^(8-r), t = (w - lo)/alpha and free where the code's clamp does not bind: the slope by
 * alpha is c·s - [free]·t, by lo 1 - [free]; no slice stops it. */
static void gradients_pass_the_extra_level(void **state) {
    (void)state;
    const mq_adam adam = {.beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .epsilon = 1e-8f,
                          .correction1 = 10.0f,
                          .correction2 = 20.0f}; /* rates of 0: m is a tenth of the gradient */
    double expected[ROWS * GROUPS][2];
    memset(expected, 0, sizeof expected);
    for (size_t k = 0; k < WIDTHS; k++) {
        for (size_t i = 0; i < WEIGHTS; i++) {
            const group_clip clip = clip_of(i / COUNT);
            const double t = ((double)f.weight[i] - clip.lo) / clip.alpha;
            const double free_ = t >= -0.5 && t < 255.5 ? 1.0 : 0.0;
            const double s = slice_of(code_of(clip, i), widths[k]);
            const double by_alpha = pow(2.0, 8.0 - widths[k]) * s - free_ * t;
            const double g = (double)f.gradient[k][i];
            expected[i / COUNT][0] += g * (1.0 - free_ - by_alpha / 255.0) * clip.dlo;
            expected[i / COUNT][1] += g * by_alpha / 255.0 * clip.dhi;
        }
    }
    const float *const gradients[WIDTHS] = {f.gradient[0], f.gradient[1], f.gradient[2]};
    f.grid.class_->step(&f.grid, gradients, f.values, &adam);
    const mq_clip *clip = f.grid.state;
    for (size_t p = 0; p < ROWS * GROUPS * 2; p++) {
        const double actual = 10.0 * (double)clip->m[p];
        assert_true(fabs(actual - expected[p / 2][p % 2]) < 2e-5);
    }
}

/* Where the code's clamp binds, the value of the extra level is smooth in the logits. */
static void the_extra_levels_slope_is_that_of_its_value(void **state) {
    (void)state;
    mq_clip *clip = f.grid.state;
    size_t largest = 0; /* of the first group: it lies beyond the clip */
    for (size_t i = 1; i < COUNT; i++) {
        largest = f.weight[i] > f.weight[largest] ? i : largest;
    }
    memset(f.gradient, 0, sizeof f.gradient);
    f.gradient[2][largest] = 1.0f;
    const mq_adam adam = {.beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .epsilon = 1e-8f,
                          .correction1 = 10.0f,
                          .correction2 = 20.0f};
    const float *const gradients[WIDTHS] = {NULL, NULL, f.gradient[2]};
    f.grid.class_->step(&f.grid, gradients, f.values, &adam);
    for (size_t p = 0; p < 2; p++) {
        const float kept = clip->params[p];
        double ends[2];
        for (size_t end = 0; end < 2; end++) {
            clip->params[p] = kept + (end == 0 ? -0.25f : 0.25f);
            f.grid.class_->values(f.values, &f.grid);
            ends[end] = (double)f.value[2][largest];
        }
        clip->params[p] = kept;
        const double slope = (ends[1] - ends[0]) / 0.5;
        assert_true(fabs(slope) > 1e-5); /* of the low end: a 255th of its own */
        assert_true(fabs(10.0 * (double)clip->m[p] - slope) < 0.02 * fabs(slope));
    }
}

static void slices_have_all_levels(void **state) {
    (void)state;
    assert_true(mq_grid_finish(&f.quantized, &f.grid, f.ones, MQ_SLICE_ROUND_EXTRA, &f.scratch));
    for (unsigned width = 2; width <= 4; width++) { /* 3: not trained, its pair is fitted */
        float stored[WEIGHTS];
        bool seen[17] = {false};
        mq_quantized_values(&(mq_values){.f32 = stored}, &f.quantized, width, MQ_SLICE_ROUND_EXTRA);
        for (size_t i = 0; i < WEIGHTS; i++) {
            const size_t s = (size_t)slice_of((double)f.quantized.codes[i], width);
            seen[s] = true;
            const float scale = mq_f16_to_f32(f.quantized.scales[width][i / COUNT]);
            const float bias = mq_f16_to_f32(f.quantized.biases[width][i / COUNT]);
            const float product = scale * (float)s;
            const float expected = product + bias;
            assert_true(stored[i] == expected);
        }
        for (size_t s = 0; s <= (size_t)1 << width; s++) {
            assert_true(seen[s]);
        }
    }
}

static void the_recipe_takes_it(void **state) {
    (void)state;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    options.calib = "none";
    options.slice_rule = MQ_SLICE_ROUND_EXTRA;
    mq_error err = {0};
    assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
    assert_ptr_equal(mq_recipe_grid_class(&options), &mq_clip_grid);
    options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.calib = "none";
    options.slice_rule = MQ_SLICE_ROUND_EXTRA;
    assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "rounding slices are recipe paper's"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_have_the_extra_level, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(gradients_pass_the_extra_level, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(the_extra_levels_slope_is_that_of_its_value, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(slices_have_all_levels, open_fixture, close_fixture),
        cmocka_unit_test(the_recipe_takes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
