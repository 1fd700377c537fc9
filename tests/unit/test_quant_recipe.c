/* layer: quant */
/* What the recipes and the presets weigh the widths' losses with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "quant/recipe.h"

/* The balanced preset's weights at 8, 4 and 2 bits, straight lines between them; the paper's own.
 */
static void weights_of_the_recipes(void **state) {
    (void)state;
    static const double best[] = {1.0, 2.0, 3.0, 4.75, 6.5, 8.25, 10.0};
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        const double expected = best[width - MQ_MIN_WIDTH];
        assert_true(mq_quantize_default_lambda(MQ_RECIPE_BEST, MQ_PRESET_NONE, width) == expected);
        assert_true(mq_quantize_default_lambda(MQ_RECIPE_BEST, MQ_PRESET_BALANCED, width) ==
                    expected);
        assert_true(mq_quantize_default_lambda(MQ_RECIPE_BEST, (mq_preset)99, width) == expected);
        assert_true(mq_quantize_default_lambda(MQ_RECIPE_PAPER, MQ_PRESET_NONE, width) ==
                    (width == 2 ? 1.0 : 0.1));
    }
}

/* What a preset promises: beside balanced, the share of the widths that it favours is larger, and
 * no width is left out. Weights rise with the width. */
static void presets_favour_what_they_say(void **state) {
    (void)state;
    static const mq_preset presets[] = {MQ_PRESET_NARROW, MQ_PRESET_BALANCED, MQ_PRESET_WIDE};
    double share[3]; /* of int8's weight in that of 8, 4, 2 */
    for (size_t i = 0; i < 3; i++) {
        double lambda[MQ_MAX_WIDTH + 1];
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            lambda[width] = mq_quantize_default_lambda(MQ_RECIPE_BEST, presets[i], width);
            assert_true(lambda[width] > 0.0);
            assert_true(width == MQ_MIN_WIDTH || lambda[width] >= lambda[width - 1]);
        }
        /* The middle of each straight line. */
        assert_true(lambda[3] == (lambda[2] + lambda[4]) / 2.0);
        assert_true(lambda[6] == (lambda[4] + lambda[8]) / 2.0);
        share[i] = lambda[8] / (lambda[8] + lambda[4] + lambda[2]);
    }
    assert_true(share[0] < share[1] && share[1] < share[2]);
}

/* A caller in C can put anything into an enum: it is refused by name, not looked up. */
static void enums_are_checked(void **state) {
    (void)state;
    static const char *const names[] = {"recipe",     "loss",   "scope",      "gemm",
                                        "embeddings", "preset", "slice_rule", "zero_point"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.calib = "text";
        options.recipe = i == 0 ? (mq_recipe)3 : options.recipe;
        options.loss = i == 1 ? (mq_loss)2 : options.loss;
        options.scope = i == 2 ? (mq_scope)2 : options.scope;
        options.gemm = i == 3 ? (mq_gemm_choice)3 : options.gemm;
        options.embeddings = i == 4 ? (mq_embeddings)3 : options.embeddings;
        options.preset = i == 5 ? (mq_preset)4 : options.preset;
        options.slice_rule = i == 6 ? (mq_slice_rule)3 : options.slice_rule;
        options.zero_point = i == 7 ? (mq_zero_point)2 : options.zero_point;
        mq_error err;
        char wanted[64];
        snprintf(wanted, sizeof wanted, "%s is %d, which is none of its values", names[i],
                 i == 1 || i == 2 || i == 7 ? 2
                 : i == 5                   ? 4
                                            : 3);
        assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
        assert_string_equal(err.message, wanted);
    }
}

/* What would overflow where it is multiplied is refused by name, and no less than that. */
static void amounts_are_bounded(void **state) {
    (void)state;
    static const char *const messages[] = {
        "--samples is at most 100000000", "--seq-len is at most 2147483647",
        "--epochs is at most 1000000", "--refit-tokens is at most 1099511627776",
        "--qat-tokens is at most 1099511627776"};
    static const size_t most[] = {100000000, 2147483647, 1000000, (size_t)1 << 40, (size_t)1 << 40};
    for (size_t i = 0; i < 5; i++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.calib = "text";
        options.qat = true;
        size_t *const amounts[] = {&options.samples, &options.seq_len, &options.epochs,
                                   &options.refit_tokens, &options.qat_tokens};
        mq_error err;
        *amounts[i] = most[i];
        assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
        const size_t more[] = {most[i] + 1, (size_t)1 << 63, SIZE_MAX};
        for (size_t j = 0; j < sizeof more / sizeof *more; j++) {
            *amounts[i] = more[j];
            assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
            assert_string_equal(err.message, messages[i]);
        }
    }
}

/* Presets are recipe best's. */
static void presets_want_recipe_best(void **state) {
    (void)state;
    mq_error err;
    for (int recipe = MQ_RECIPE_BEST; recipe <= MQ_RECIPE_RTN; recipe++) {
        mq_quantize_options options = mq_quantize_defaults((mq_recipe)recipe);
        options.calib = recipe == MQ_RECIPE_RTN ? NULL : "text";
        assert_int_equal(options.preset, MQ_PRESET_NONE);
        assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
        options.preset = MQ_PRESET_WIDE;
        if (recipe == MQ_RECIPE_BEST) {
            assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
        } else {
            assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
            assert_non_null(strstr(err.message, "--preset"));
        }
    }
}

/* The widths that the refit is of, as one number: 8432 is 8, 4, 3 and 2. */
static unsigned refitted(const mq_quantize_options *options) {
    unsigned widths[MQ_MAX_WIDTHS], digits = 0;
    const size_t count = mq_recipe_refit_widths(widths, options);
    for (size_t i = 0; i < count; i++) {
        digits = 10 * digits + widths[i];
    }
    return digits;
}

static void narrow_widths_between_are_refitted(void **state) {
    (void)state;
    static const struct {
        unsigned widths[4], refit;
    } cases[] = {{{8, 4, 2}, 8432}, {{8, 2}, 8432}, {{8, 5}, 85}, {{8, 3}, 843},
                 {{4, 2}, 432},     {{2}, 2},       {{8}, 8},     {{8, 4, 3, 2}, 8432}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        for (options.width_count = 0;
             options.width_count < 4 && cases[i].widths[options.width_count] > 0;) {
            options.widths[options.width_count] = cases[i].widths[options.width_count];
            options.width_count++;
        }
        assert_int_equal(refitted(&options), cases[i].refit);
        options.refit_width_count = 2;
        options.refit_widths[0] = 6;
        options.refit_widths[1] = 2;
        assert_int_equal(refitted(&options), 62);
        options.refit = false;
        assert_int_equal(refitted(&options), 0);
    }
}

/* In a hurry the narrowest width alone is refitted, on sequences of the given length, and the
 * recipe is as good as before. */
static void in_a_hurry(void **state) {
    (void)state;
    mq_error err;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.calib = "text";
    options.width_count = 2; /* 8, 4 */
    options.seq_len = 64;
    mq_quantize_hurry(&options);
    assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
    assert_int_equal(refitted(&options), 4);
    assert_int_equal(options.refit_tokens % 64, 0);
    const mq_quantize_options best = mq_quantize_defaults(MQ_RECIPE_BEST);
    assert_true(options.samples * options.epochs < best.samples * best.epochs);
    assert_true(options.refit_tokens < best.samples * 64);
    assert_true(options.compensate && !options.fold && options.refit);
    assert_int_equal(options.preset, MQ_PRESET_WIDE);
    for (size_t i = 0; i < options.width_count; i++) {
        assert_true(options.lambda[i] ==
                    mq_quantize_default_lambda(MQ_RECIPE_BEST, MQ_PRESET_WIDE, options.widths[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enums_are_checked),
        cmocka_unit_test(amounts_are_bounded),
        cmocka_unit_test(weights_of_the_recipes),
        cmocka_unit_test(presets_favour_what_they_say),
        cmocka_unit_test(presets_want_recipe_best),
        cmocka_unit_test(narrow_widths_between_are_refitted),
        cmocka_unit_test(in_a_hurry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
