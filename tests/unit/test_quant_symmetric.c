/* layer: quant */
/* Symmetric zero points: what is learned, stored and coded is one thing, in both grids; gradients
 * by finite differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "quant/clip.h"
#include "quant/nested.h"
#include "tensor/dtype.h"

enum { OUT = 3, IN = 96, GROUPS = 3, COUNT = OUT * IN, GROUP = IN / GROUPS };

typedef struct fixture {
    mq_grid_options options;
    mq_grid grid;
    mq_slab slab;
    mq_quantized quantized;
    mq_finish_scratch scratch;
    float weight[COUNT], gradient[COUNT], gram[IN];
    float value[3][COUNT];
} fixture;

/* Random weights, of one sign in the first group of each row. */
static void open_fixture(fixture *f, const mq_grid_class *class_, const unsigned *widths,
                         size_t width_count) {
    *f = (fixture){.options = {.width_count = width_count,
                               .slice_rule = MQ_SLICE_ROUND,
                               .zero_point = MQ_ZERO_SYMMETRIC}};
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t i = 0; i < COUNT; i++) {
        f->weight[i] = (float)(mq_random_unit(&random) - 0.5) + (i % IN < GROUP ? 1.0f : 0.0f);
        f->gradient[i] = (float)(mq_random_unit(&random) - 0.5);
    }
    for (size_t i = 0; i < IN; i++) {
        f->gram[i] = 1.0f + (float)(i % 5);
    }
    for (size_t k = 0; k < width_count; k++) {
        f->options.widths[k] = widths[k];
        f->options.lambda[k] = (double)widths[k];
    }
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            assert_int_equal(mq_slab_allocate(&f->slab, "a grid", NULL), MQ_OK);
        }
        mq_grid_carve(&f->grid, class_, &f->options, OUT, IN, GROUPS, &f->slab);
        mq_quantized_carve(&f->quantized, OUT, IN, GROUPS, &f->slab);
        mq_finish_scratch_carve(&f->scratch, &f->options, OUT, GROUPS, &f->slab);
    }
    class_->start(&f->grid, f->weight, f->gram);
}

static void step(fixture *f, const mq_adam *adam) {
    mq_values values[3];
    const float *gradients[3];
    for (size_t k = 0; k < f->options.width_count; k++) {
        values[k] = (mq_values){f->value[k], NULL};
        gradients[k] = f->gradient;
    }
    f->grid.class_->step(&f->grid, gradients, values, adam);
}

/* --- what is stored --------------------------------------------------------------------------- */

/* The learned values of a width, but for a scale of 8 significant bits: half a unit of the last is
 * 2^-8. */
static void check_learned(const fixture *f, const float *stored, unsigned width) {
    for (size_t k = 0; k < f->options.width_count; k++) {
        for (size_t i = 0; i < COUNT && f->options.widths[k] == width; i++) {
            const float learned = f->value[k][i];
            assert_true(fabsf(stored[i] - learned) <= 0x1.1p-8f * fabsf(learned) + 1e-6f);
        }
    }
}

static void check_stored(const fixture *f, unsigned width) {
    const float half = (float)(1u << (width - 1));
    float stored[COUNT];
    const mq_values into = {stored, NULL};
    mq_quantized_values(&into, &f->quantized, width, MQ_SLICE_ROUND);
    for (size_t i = 0; i < COUNT; i++) {
        const float scale = mq_f16_to_f32(f->quantized.scales[width][i / GROUP]);
        const unsigned s = mq_slice_code(f->quantized.codes[i], width, MQ_SLICE_ROUND);
        assert_true(mq_f16_to_f32(f->quantized.biases[width][i / GROUP]) == -half * scale);
        assert_true(mq_bf16_to_f32(mq_f32_to_bf16(scale)) == scale);
        assert_true(stored[i] == scale * ((float)s - half));
    }
    check_learned(f, stored, width);
}

static void zero_is_half_of_the_codes_at_every_width(void **state) {
    (void)state;
    static const unsigned widths[3] = {8, 4, 2};
    const mq_grid_class *classes[2] = {&mq_nested_grid, &mq_clip_grid};
    for (size_t c = 0; c < 2; c++) {
        fixture f;
        open_fixture(&f, classes[c], widths, 3);
        for (size_t at = 0; at < 6; at++) {
            const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, at, 6);
            step(&f, &adam);
        }
        assert_true(mq_grid_finish(&f.quantized, &f.grid, f.gram, MQ_SLICE_ROUND, &f.scratch));
        for (size_t i = 0; i < COUNT; i++) {
            assert_true(f.quantized.codes[i] > 0);
        }
        for (unsigned width = 2; width <= 8; width++) {
            check_stored(&f, width);
        }
        mq_slab_free(&f.slab);
    }
}

/* --- gradients -------------------------------------------------------------------------------- */

/* The loss gradient·values of a group of one width, with the range's end hi and scale = 2·hi/2^r ·
 * factor, where the rounding of every weight at hi_now is kept as a constant and those that are
 * clamped at hi_now stay so: what straight-through gradients are the slope of. */
static double straight_through(const fixture *f, size_t group, double hi_now, double hi,
                               double factor) {
    const unsigned width = f->options.widths[0];
    const double levels = (double)(1u << width), half = levels / 2.0;
    const double least = width == MQ_MAX_WIDTH ? 1.0 : 0.0;
    double loss = 0.0;
    for (size_t i = group * GROUP; i < (group + 1) * GROUP; i++) {
        const double w = (double)f->weight[i];
        const double now = levels * (w / hi_now + 1.0) / 2.0 + 0.5;
        const double u = levels * (w / hi + 1.0) / 2.0 + 0.5;
        double s = floor(now);
        if (now > least && now < levels) {
            s += u - now;
        } else {
            s = now <= least ? least : levels - 1.0;
        }
        loss += (double)f->gradient[i] * (2.0 * hi / levels * factor) * (s - half);
    }
    return loss;
}

/* Of one width alone, by the end of the range and by the logarithm of the scale's factor. */
static void check_gradients(unsigned width) {
    fixture f;
    open_fixture(&f, &mq_nested_grid, &width, 1);
    const mq_adam still = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 0.0f, 0.0f, 0, 1);
    step(&f, &still);
    const mq_nested *nested = f.grid.state;
    size_t level = 0;
    while (nested->level[level] != width) {
        level++;
    }
    for (size_t group = 0; group < OUT * GROUPS; group++) {
        const float *params = nested->params + group * nested->param_count;
        const float *moment = nested->m + group * nested->param_count;
        const double hi = (double)nested->hi0[group], h = 1e-6;
        const double factor = exp((double)params[2 + 2 * level]);
        const double by_hi = (straight_through(&f, group, hi, hi * (1.0 + 2.0 * h), factor) -
                              straight_through(&f, group, hi, hi * (1.0 - 2.0 * h), factor)) /
                             (2.0 * h);
        const double by_log = (straight_through(&f, group, hi, hi, factor * exp(h)) -
                               straight_through(&f, group, hi, hi, factor * exp(-h))) /
                              (2.0 * h);
        /* Adam's first moment after one step is a tenth of the gradient. */
        assert_true(fabs(10.0 * (double)moment[1] - by_hi) < 1e-4 * (1.0 + fabs(by_hi)));
        assert_true(fabs(10.0 * (double)moment[2 + 2 * level] - by_log) <
                    1e-4 * (1.0 + fabs(by_log)));
        assert_true(moment[0] == 0.0f &&
                    moment[3 + 2 * level] == 0.0f); /* tied: nothing to learn */
    }
    mq_slab_free(&f.slab);
}

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

/* Recipe paper's grid at 8 bits: hi is 128·α, α = sigmoid(γ)·max|w|/127. */
static void check_clip_gradients(void) {
    const unsigned width = 8;
    fixture f;
    open_fixture(&f, &mq_clip_grid, &width, 1);
    const mq_clip *clip = f.grid.state;
    double gamma[OUT * GROUPS];
    for (size_t group = 0; group < OUT * GROUPS; group++) {
        gamma[group] = (double)clip->params[2 * group + 1];
    }
    const mq_adam still = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 0.0f, 0.0f, 0, 1);
    step(&f, &still);
    for (size_t group = 0; group < OUT * GROUPS; group++) {
        const double most = 128.0 / 127.0 * (double)clip->largest[group], h = 1e-5;
        const double now = most * sigmoid(gamma[group]);
        const double slope =
            (straight_through(&f, group, now, most * sigmoid(gamma[group] + h), 1.0) -
             straight_through(&f, group, now, most * sigmoid(gamma[group] - h), 1.0)) /
            (2.0 * h);
        assert_true(fabs(10.0 * (double)clip->m[2 * group + 1] - slope) <
                    1e-4 * (0.01 + fabs(slope)));
        assert_true(clip->m[2 * group] == 0.0f);
    }
    mq_slab_free(&f.slab);
}

static void gradients_are_those_of_finite_differences(void **state) {
    (void)state;
    check_gradients(8);
    check_gradients(4);
    check_gradients(2);
    check_clip_gradients();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_is_half_of_the_codes_at_every_width),
        cmocka_unit_test(gradients_are_those_of_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
