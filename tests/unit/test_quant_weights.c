/* layer: quant */
/* How recipe paper's weights make one loss of the widths': added up, left out, or drawn. The first
 * step of Adam leaves a tenth of the gradient in its first moment, so that gradients can be read
 * off there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "learner_fixture.h"
#include "quant/clip.h"
#include "quant/recipe.h"

#define WIDTHS 3
#define MOST_PARAMS 8192

typedef struct moments {
    float of[MOST_PARAMS];
    size_t count;
} moments;

static mq_quantize_options paper_with(const double lambda[WIDTHS]) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
    for (size_t k = 0; k < WIDTHS; k++) {
        options.lambda[k] = lambda[k];
    }
    return options;
}

static void train(learner_fixture *f) {
    assert_int_equal(mq_learner_train(&f->learner, 0, 0.0, NULL), MQ_OK);
}

static void read_moments(moments *out, const learner_fixture *f) {
    out->count = 0;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_grid *grid = &f->learner.grid[i];
        const size_t count = grid->groups > 0 ? 2 * grid->out * grid->groups : 0;
        assert_true(out->count + count <= MOST_PARAMS);
        if (count > 0) {
            memcpy(out->of + out->count, ((const mq_clip *)grid->state)->m, count * sizeof(float));
        }
        out->count += count;
    }
    assert_true(out->count > 0);
}

static void first_step(moments *out, const mq_quantize_options *options) {
    learner_fixture f;
    open_learner(&f, "llama", options, 1);
    train(&f);
    read_moments(out, &f);
    close_learner(&f);
}

/* Of one width alone. */
static void first_step_of(moments *out, size_t k, double weight) {
    double lambda[WIDTHS] = {0.0};
    lambda[k] = weight;
    const mq_quantize_options options = paper_with(lambda);
    first_step(out, &options);
}

static double distance(const moments *a, const moments *b, double factor) {
    double off = 0.0, largest = 0.0;
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        off = fmax(off, fabs((double)a->of[i] - factor * (double)b->of[i]));
        largest = fmax(largest, fabs((double)a->of[i]));
    }
    assert_true(largest > 0.0);
    return off / largest;
}

/* The paper's full weights: the gradient of the sum is the sum of the widths', each times its own,
 * fractions too. */
static void gradients_add_up_by_weight(void **state) {
    (void)state;
    static const double lambda[WIDTHS] = {0.1, 0.35, 1.0};
    const mq_quantize_options options = paper_with(lambda);
    static moments all, one, sum;
    first_step(&all, &options);
    sum = (moments){.count = all.count};
    for (size_t k = 0; k < WIDTHS; k++) {
        first_step_of(&one, k, 1.0);
        assert_true(distance(&all, &one, lambda[k]) > 0.01); /* none is the sum alone */
        for (size_t i = 0; i < sum.count; i++) {
            sum.of[i] += (float)lambda[k] * one.of[i];
        }
    }
    assert_true(distance(&all, &sum, 1.0) < 1e-5);
}

/* Single precision (0, 0, 1): nothing of the other widths reaches what is learned, be it no number
 * at all. */
static void single_precision_hears_one_width(void **state) {
    (void)state;
    static const double lambda[WIDTHS] = {0.0, 0.0, 1.0};
    const mq_quantize_options options = paper_with(lambda);
    learner_fixture sound, spoilt;
    open_learner(&sound, "llama", &options, 3);
    open_learner(&spoilt, "llama", &options, 3);
    for (size_t k = 0; k + 1 < WIDTHS; k++) {
        for (size_t i = 0; i < learner_floats(&spoilt); i++) {
            spoilt.learner.chains.student[k][i] = NAN;
        }
    }
    train(&sound);
    train(&spoilt);
    static moments a, b, start;
    read_moments(&a, &sound);
    read_moments(&b, &spoilt);
    assert_memory_equal(a.of, b.of, a.count * sizeof(float));
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_grid *grid = &sound.learner.grid[i];
        assert_memory_equal(sound.learner.values[i][0].f32, spoilt.learner.values[i][0].f32,
                            grid->out * grid->in * sizeof(float));
    }
    static const double both[WIDTHS] = {0.0, 1.0, 1.0};
    const mq_quantize_options others = paper_with(both);
    first_step(&start, &others);
    first_step_of(&b, 2, 1.0);
    assert_true(distance(&start, &b, 1.0) > 0.01); /* a width that has a weight is heard */
    close_learner(&sound);
    close_learner(&spoilt);
}

/* Sampled weights: a step is one width's, as heavy as all together, and each comes as often as its
 * weight says. `of`: the widths' first steps, each alone with a weight of 1. */
static void check_draws(const double lambda[WIDTHS], const moments of[WIDTHS]) {
    static moments drawn;
    const double sum = lambda[0] + lambda[1] + lambda[2];
    size_t times[WIDTHS] = {0};
    enum { SEEDS = 400 };
    mq_quantize_options options = paper_with(lambda);
    options.sampled = true;
    for (options.seed = 0; options.seed < SEEDS; options.seed++) {
        first_step(&drawn, &options);
        size_t found = 0;
        for (size_t k = 0; k < WIDTHS; k++) {
            if (distance(&drawn, &of[k], sum) < 1e-5) {
                times[k]++;
                found++;
            }
        }
        assert_int_equal(found, 1);
    }
    for (size_t k = 0; k < WIDTHS; k++) { /* within four standard deviations */
        const double odds = lambda[k] / sum, spread = sqrt(SEEDS * odds * (1.0 - odds));
        assert_true(fabs((double)times[k] - SEEDS * odds) < 4.0 * spread);
    }
}

/* Weights that sum up to 1 would not tell that the sum is a factor, and the paper's own, 1.2 in
 * sum, not the first two widths apart. */
static void drawn_widths_stand_for_all(void **state) {
    (void)state;
    static const double lambdas[][WIDTHS] = {{0.1, 0.1, 1.0}, {0.1, 0.3, 0.6}};
    static moments of[WIDTHS];
    for (size_t k = 0; k < WIDTHS; k++) {
        first_step_of(&of[k], k, 1.0);
    }
    for (size_t i = 0; i < sizeof lambdas / sizeof lambdas[0]; i++) {
        check_draws(lambdas[i], of);
    }
}

/* One width alone is OmniQuant's quantizer for it: its last slice stands for the largest weight. */
static void a_dedicated_width_has_its_own_grid(void **state) {
    (void)state;
    for (unsigned width = 2; width <= 8; width++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
        options.width_count = 1;
        options.widths[0] = width;
        options.lambda[0] = 1.0;
        learner_fixture f;
        open_learner(&f, "llama", &options, 1);
        const mq_grid *grid = &f.learner.grid[MQ_UP];
        const mq_clip *clip = grid->state;
        const size_t count = grid->in / grid->groups;
        for (size_t g = 0; g < grid->out * grid->groups; g++) {
            const float *values = f.learner.values[MQ_UP][0].f32 + g * count;
            const float clipped = 1.0f / (1.0f + expf(-clip->params[2 * g]));
            const float lo = clipped * clip->smallest[g], hi = clipped * clip->largest[g];
            const float step = (hi - lo) / (float)((1u << width) - 1);
            float top = values[0];
            for (size_t i = 0; i < count; i++) {
                top = fmaxf(top, values[i]);
                const float level = (values[i] - lo) / step;
                assert_true(fabsf(level - roundf(level)) < 1e-3f);
                const float w = fminf(fmaxf(grid->weight[g * count + i], lo), hi);
                assert_true(fabsf(values[i] - w) <= 0.51f * step);
            }
            assert_true(fabsf(top - hi) <= 1e-4f * (hi - lo));
        }
        close_learner(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_add_up_by_weight),
        cmocka_unit_test(single_precision_hears_one_width),
        cmocka_unit_test(drawn_widths_stand_for_all),
        cmocka_unit_test(a_dedicated_width_has_its_own_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
