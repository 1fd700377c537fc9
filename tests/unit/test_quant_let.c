/* layer: quant */
/* The equivalent transformation of the feed-forward part: equivalent, storable, with the gradients
 * that its definition has, and worth something. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "learner_fixture.h"
#include "quant/loss.h"
#include "quant/recipe.h"

static float *floats(size_t count) {
    float *values = mq_calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

static float *copy(const float *values, size_t count) {
    float *same = floats(count);
    memcpy(same, values, count * sizeof *values);
    return same;
}

static mq_quantize_options let_options(void) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    options.let = true;
    return options;
}

/* --- equivalence ------------------------------------------------------------------------------ */

static void the_block_stays_what_it_was(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "llama-biases", "gemma3", "qwen2", "olmo2"};
    for (size_t m = 0; m < 5; m++) {
        const mq_quantize_options options = let_options();
        learner_fixture f;
        open_learner(&f, models[m], &options, 40);
        const mq_let *let = &f.learner.let;
        const size_t hidden = let->hidden, inner = let->inner;
        const float *divided = f.learner.params.norm[MQ_NORM_PRE_FFN]; /* OLMo 2 has none */
        float *norm = divided != NULL ? copy(divided, hidden) : NULL;
        float *down = copy(f.learner.params.linear[MQ_DOWN], hidden * inner);
        assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
        assert_true(learner_off_target(&f) < 1e-5);
        assert_int_equal(mq_learner_finish(&f.learner, 0, NULL), MQ_OK);
        assert_true(learner_off_target(&f) < 1e-5);
        /* It did something, and where a bias is in the way of UP's scale, only the norm's. */
        assert_int_equal(let->scales_norm, m != 4);
        assert_int_equal(let->scales_up, m != 1);
        if (let->scales_norm) {
            assert_memory_not_equal(norm, divided, hidden * sizeof *norm);
        }
        const bool same =
            memcmp(down, f.learner.params.linear[MQ_DOWN], hidden * inner * sizeof *down) == 0;
        assert_int_equal(same, m == 1);
        mq_free(norm);
        mq_free(down);
        close_learner(&f);
    }
}

/* The norm as it is stored, weight or 1 + weight, is exactly what was learned with. */
static void the_norm_can_be_stored(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "gemma3"};
    for (size_t m = 0; m < 2; m++) {
        const mq_quantize_options options = let_options();
        learner_fixture f;
        open_learner(&f, models[m], &options, 40);
        assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
        assert_int_equal(mq_learner_finish(&f.learner, 0, NULL), MQ_OK);
        const float one = f.model->config.arch->norm_plus_one ? 1.0f : 0.0f;
        for (size_t c = 0; c < f.learner.let.hidden; c++) {
            const float norm = f.learner.params.norm[MQ_NORM_PRE_FFN][c];
            const float stored = mq_bf16_to_f32(mq_f32_to_bf16(norm - one));
            if (f.learner.let.s[c] != 0.0f) {
                assert_true(one + stored == norm);
            }
        }
        close_learner(&f);
    }
}

/* --- gradients -------------------------------------------------------------------------------- */

/* Sum of gradient · weight over all that s and t transform, in double, from the source's weights.
 */
static double functional(const mq_let *let, const float *const gradient[4]) {
    const size_t hidden = let->hidden, inner = let->inner;
    double sum = 0.0;
    for (size_t j = 0; j < inner; j++) {
        for (size_t c = 0; c < hidden; c++) {
            const size_t at = j * hidden + c;
            const double s = exp((double)let->s[c]), t = exp((double)let->t[j]);
            sum += (double)gradient[0][at] * (double)let->gate[at] * s;
            sum += (double)gradient[1][at] * (double)let->up[at] * s / t;
            sum += (double)gradient[2][c * inner + j] * (double)let->down[c * inner + j] * t;
        }
    }
    for (size_t c = 0; c < hidden; c++) {
        sum += (double)gradient[3][c] * (double)let->norm[c] / exp((double)let->s[c]);
    }
    return sum;
}

static void scales_have_the_slope_of_what_they_scale(void **state) {
    (void)state;
    const mq_quantize_options options = let_options();
    learner_fixture f;
    open_learner(&f, "llama", &options, 10);
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK); /* away from 0 */
    mq_let *let = &f.learner.let;
    const size_t matrix = let->hidden * let->inner;
    float *const left[4] = {let->gate_gradient, let->up_gradient, let->down_gradient,
                            let->norm_gradient};
    const float *gradient[4];
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t g = 0; g < 4; g++) {
        const size_t count = g == 3 ? let->hidden : matrix;
        for (size_t i = 0; i < count; i++) {
            left[g][i] = (float)(2.0 * mq_random_unit(&random) - 1.0);
        }
        gradient[g] = copy(left[g], count);
    }
    const mq_adam adam = {.beta1 = 0.0f,
                          .beta2 = 0.0f,
                          .epsilon = 1e-8f,
                          .correction1 = 1.0f,
                          .correction2 = 1.0f}; /* no rate: m is the gradient */
    mq_let_step(let, &adam);
    for (size_t i = 0; i < 10; i++) {
        float *value = i % 2 == 0 ? &let->s[i] : &let->t[i];
        const double learned = (double)(i % 2 == 0 ? let->s_m[i] : let->t_m[i]);
        const float kept = *value;
        *value = kept + 0.0009765625f;
        const double up = functional(let, gradient), above = (double)*value;
        *value = kept - 0.0009765625f;
        const double slope = (up - functional(let, gradient)) / (above - (double)*value);
        *value = kept;
        assert_true(fabs(slope - learned) < 1e-3 * fmax(fabs(slope), 0.1));
    }
    for (size_t g = 0; g < 4; g++) {
        mq_free((void *)(uintptr_t)gradient[g]);
    }
    close_learner(&f);
}

/* Rounding is straight through, so a weight inside the clip has the sum of its values' gradients. A
 * group whose weights are all multiplied has its values multiplied, whatever the rounding: the sums
 * of gradient · weight and of gradient · value are the same. */
static void weights_have_the_gradient_of_their_values(void **state) {
    (void)state;
    const mq_quantize_options options = let_options();
    learner_fixture f;
    open_learner(&f, "llama", &options, 1);
    mq_grid *grid = &f.learner.grid[MQ_UP];
    const size_t count = grid->in / grid->groups, weights = grid->out * grid->in;
    const size_t widths = f.options.width_count;
    float *value[3], *gradient[3];
    mq_random random;
    mq_random_seed(&random, 6, 0);
    for (size_t k = 0; k < widths; k++) {
        value[k] = copy(f.learner.values[MQ_UP][k].f32, weights);
        gradient[k] = floats(weights);
        for (size_t i = 0; i < weights; i++) {
            gradient[k][i] = (float)(2.0 * mq_random_unit(&random) - 1.0);
        }
    }
    const float *const gradients[3] = {gradient[0], gradient[1], gradient[2]};
    const mq_adam still = {.epsilon = 1e-8f};
    grid->class_->step(grid, gradients, f.learner.values[MQ_UP], &still);
    size_t inside = 0;
    for (size_t group = 0; group < grid->out * grid->groups; group++) {
        double by_value = 0.0, by_weight = 0.0, size = 0.0, lo = INFINITY, hi = -INFINITY;
        for (size_t i = group * count; i < (group + 1) * count; i++) {
            lo = fmin(lo, (double)grid->weight[i]);
            hi = fmax(hi, (double)grid->weight[i]);
            by_weight += (double)grid->weight_gradient[i] * (double)grid->weight[i];
            for (size_t k = 0; k < widths; k++) {
                by_value += (double)gradient[k][i] * (double)value[k][i];
                size += fabs((double)gradient[k][i] * (double)value[k][i]);
            }
        }
        assert_true(fabs(by_value - by_weight) < 1e-4 * size);
        for (size_t i = group * count; i < (group + 1) * count; i++) {
            const double place = ((double)grid->weight[i] - lo) / (hi - lo);
            if (place > 0.1 && place < 0.8) { /* no clamp, the slices' included, is near */
                double sum = 0.0;
                for (size_t k = 0; k < widths; k++) {
                    sum += (double)gradient[k][i];
                }
                assert_true(fabs(sum - (double)grid->weight_gradient[i]) < 1e-5);
                inside++;
            }
        }
    }
    assert_true(inside > weights / 4);
    for (size_t k = 0; k < widths; k++) {
        mq_free(value[k]);
        mq_free(gradient[k]);
    }
    close_learner(&f);
}

/* --- what it is worth ------------------------------------------------------------------------- */

/* The weighted loss that is left when the block has been learned from random text, with the numbers
 * that are stored. */
static double loss_left(const char *name, bool let, uint64_t seed) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    options.let = let;
    learner_fixture f;
    double loss[MQ_MAX_WIDTHS], sum = 0.0;
    open_learner_on(&f, name, &options, 200, (learner_text){seed, 4});
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    assert_int_equal(mq_learner_finish(&f.learner, 0, NULL), MQ_OK);
    assert_int_equal(mq_learner_measure(loss, &f.learner, 0, NULL), MQ_OK);
    for (size_t k = 0; k < options.width_count; k++) {
        sum += options.lambda[k] * loss[k];
    }
    close_learner(&f);
    return sum;
}

/* Of a single tiny model and text more may be left, too (up to 1.02 times as much): the mean over
 * three models and eight texts each, where 0.954 times as much is left. Half of that gain is
 * required. (The sanitizers see learning in other tests.) */
static void less_loss_is_left(void **state) {
    (void)state;
    if (MATQUANT_SANITIZED) {
        skip();
    }
    enum { MODELS = 3, TEXTS = 8 };
    static const char *const models[MODELS] = {"llama", "gemma3", "qwen2"};
    double ratio = 0.0;
    for (size_t m = 0; m < MODELS; m++) {
        for (uint64_t text = 11; text < 11 + TEXTS; text++) {
            const double with = loss_left(models[m], true, text);
            ratio += with / loss_left(models[m], false, text) / (MODELS * TEXTS);
        }
    }
    if (!(ratio < 0.977)) {
        fail_msg("%.3f times the loss is left", ratio);
    }
}

static void it_is_the_papers_and_not_the_refits(void **state) {
    (void)state;
    mq_error err = {0};
    mq_quantize_options options = let_options();
    options.calib = "none";
    assert_int_equal(mq_recipe_check(&options, &err), MQ_OK);
    options.refit = true;
    assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "choose one"));
    options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.calib = "none";
    options.refit = false;
    options.let = true;
    assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "recipe paper's"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_stays_what_it_was),
        cmocka_unit_test(the_norm_can_be_stored),
        cmocka_unit_test(scales_have_the_slope_of_what_they_scale),
        cmocka_unit_test(weights_have_the_gradient_of_their_values),
        cmocka_unit_test(less_loss_is_left),
        cmocka_unit_test(it_is_the_papers_and_not_the_refits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
