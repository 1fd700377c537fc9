/* layer: quant */
/* The pairs of widths that were not trained: each the least squares under the Gram diagonal, where
 * a few inputs weigh far more than the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/random.h"
#include "quant/grid.h"
#include "tensor/dtype.h"

enum { OUT = 6, IN = 64, GROUPS = 2, COUNT = IN / GROUPS };

typedef struct fixture {
    mq_grid_options options;
    const mq_grid_class *class_;
    mq_grid grid;
    mq_slab slab;
    mq_quantized quantized;
    mq_finish_scratch scratch;
    float weight[OUT * IN], gram[IN];
    double size; /* of the largest weights; 0: 1 */
} fixture;

/* Weights of the inputs from 1e-3 to 1e3, others in the second group than in the first. */
static void open_fixture(fixture *f) {
    mq_random random;
    mq_random_seed(&random, 21, 0);
    for (size_t i = 0; i < (size_t)OUT * IN; i++) {
        const double unit = 2.0 * mq_random_unit(&random) - 1.0;
        f->weight[i] = (float)(f->size > 0.0 ? f->size * unit : unit);
    }
    for (size_t i = 0; i < IN; i++) {
        f->gram[i] = (float)pow(10.0, 6.0 * mq_random_unit(&random) - 3.0);
    }
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            assert_int_equal(mq_slab_allocate(&f->slab, "a grid", NULL), MQ_OK);
        }
        mq_grid_carve(&f->grid, f->class_, &f->options, OUT, IN, GROUPS, &f->slab);
        mq_quantized_carve(&f->quantized, OUT, IN, GROUPS, &f->slab);
        mq_finish_scratch_carve(&f->scratch, &f->options, OUT, GROUPS, &f->slab);
    }
    assert_false(f->slab.overflow);
    f->grid.class_->start(&f->grid, f->weight, f->gram);
    assert_true(
        mq_grid_finish(&f->quantized, &f->grid, f->gram, f->options.slice_rule, &f->scratch));
}

/* The weighted error of a group with this pair. */
static double error_of(const fixture *f, size_t group, unsigned width, double scale, double bias) {
    const float *h = f->gram + group % GROUPS * COUNT, *w = f->weight + group * COUNT;
    const uint8_t *codes = f->quantized.codes + group * COUNT;
    double sum = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
        const double s = (double)mq_slice_code(codes[i], width, f->options.slice_rule);
        sum += (double)h[i] * pow(scale * s + bias - (double)w[i], 2);
    }
    return sum;
}

/* How far the best scale for the stored bias moves when the bias does: Σ h·s / Σ h·s². */
static double scale_by_bias(const fixture *f, size_t group, unsigned width) {
    const float *h = f->gram + group % GROUPS * COUNT;
    const uint8_t *codes = f->quantized.codes + group * COUNT;
    double first = 0.0, second = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
        const double s = (double)mq_slice_code(codes[i], width, f->options.slice_rule);
        first += (double)h[i] * s;
        second += (double)h[i] * s * s;
    }
    return first / second;
}

/* Stored numbers are off by up to `rounding` of themselves: whoever goes on from there by a little
 * more than twice that, either way, is farther from the best. A symmetric zero point leaves one
 * number to choose. */
static void check_group(const fixture *f, size_t group, unsigned width, double rounding) {
    const double scale = (double)mq_f16_to_f32(f->quantized.scales[width][group]);
    const double bias = (double)mq_f16_to_f32(f->quantized.biases[width][group]);
    const double stored = error_of(f, group, width, scale, bias), far = 2.1 * rounding;
    const double by_bias = far * bias;
    const double by_scale = far * scale + fabs(by_bias) * scale_by_bias(f, group, width);
    for (int sign = -1; sign <= 1; sign += 2) {
        if (f->options.zero_point == MQ_ZERO_SYMMETRIC) {
            const double by = 1.0 + sign * far;
            assert_true(error_of(f, group, width, scale * by, bias * by) > stored);
        } else {
            assert_true(error_of(f, group, width, scale + sign * by_scale, bias) > stored);
            assert_true(error_of(f, group, width, scale, bias + sign * by_bias) > stored);
        }
    }
}

static void check_width(const fixture *f, unsigned width, double rounding) {
    for (size_t group = 0; group < (size_t)OUT * GROUPS; group++) {
        check_group(f, group, width, rounding);
    }
}

static void close_fixture(fixture *f) { mq_slab_free(&f->slab); }

/* 7, 6, 5 and 3 bits, which are not in the list; 2 bits, whose loss weighs nothing. */
static void untrained_pairs_are_least_squares(void **state) {
    (void)state;
    static const struct {
        const mq_grid_class *class_;
        mq_slice_rule rule;
        mq_zero_point zero;
    } cases[] = {{&mq_nested_grid, MQ_SLICE_TOP, MQ_ZERO_FLOAT},
                 {&mq_clip_grid, MQ_SLICE_ROUND, MQ_ZERO_FLOAT},
                 {&mq_nested_grid, MQ_SLICE_ROUND, MQ_ZERO_SYMMETRIC}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        fixture f = {.class_ = cases[c].class_,
                     .options = {.width_count = 3,
                                 .widths = {8, 4, 2},
                                 .lambda = {1.0, 1.0, 0.0},
                                 .slice_rule = cases[c].rule,
                                 .zero_point = cases[c].zero}};
        open_fixture(&f);
        const bool symmetric = cases[c].zero == MQ_ZERO_SYMMETRIC;
        for (unsigned width = 2; width < 8; width++) {
            const bool made_for = width == 2 && f.class_ == &mq_clip_grid;
            if (width != 4 && !made_for) { /* the clip grid's 2 bits share 8 bits' clip */
                check_width(&f, width, symmetric ? 0x1p-8 : 0x1p-11);
            }
        }
        close_fixture(&f);
    }
}

/* An embedding's pairs have the digits that bfloat16 has. */
static void pairs_of_embeddings_are_least_squares(void **state) {
    (void)state;
    fixture f = {.class_ = &mq_nested_grid,
                 .options = {.width_count = 3,
                             .widths = {8, 4, 2},
                             .lambda = {1.0, 1.0, 1.0},
                             .start = MQ_START_SEARCH}};
    open_fixture(&f);
    for (unsigned width = 2; width < 8; width++) { /* after 8 bits' pair, codes are rounded again */
        check_width(&f, width, 0x1p-8);
    }
    close_fixture(&f);
}

/* Weights whose scales are among float16's last numbers are counted; others, and numbers that a
 * scale of nothing says, are not. */
static void small_weights_are_counted(void **state) {
    (void)state;
    static const double sizes[] = {1.0, 1e-3, 5e-5, 0.0};
    static const size_t coarse[] = {0, 0, (size_t)OUT * GROUPS, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fixture f = {.options = {.width_count = 3, .widths = {8, 4, 2}, .lambda = {10, 3, 1}},
                     .class_ = &mq_nested_grid,
                     .size = sizes[i] > 0.0 ? sizes[i] : 1e-30};
        open_fixture(&f);
        assert_int_equal(mq_quantized_coarse_groups(&f.quantized), coarse[i]);
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untrained_pairs_are_least_squares),
        cmocka_unit_test(pairs_of_embeddings_are_least_squares),
        cmocka_unit_test(small_weights_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
