/* layer: quant */
/* Error-compensating rounding: the factor, the codes against a plain reference, and what they are
 * worth. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "quant/nested.h"
#include "tensor/gemm.h"

enum { OUT = 40, IN = 96, GROUPS = 3, TOKENS = 300, COUNT = OUT * IN };

typedef struct fixture {
    size_t out; /* OUT, unless the test is about more */
    mq_grid_options options;
    mq_grid grid;
    mq_slab slab;
    mq_quantized quantized;
    mq_finish_scratch scratch;
    mq_compensation compensation;
    mq_compensation_work work;
    mq_context *context;
    float *x, *gram, *weight; /* [TOKENS, IN], [IN, IN], [out, IN] */
    float diagonal[IN];
} fixture;

/* Inputs that go together, some more active than others. */
static void fill(fixture *f) {
    mq_random random;
    mq_random_seed(&random, 11, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        float common = 0.0f;
        for (size_t i = 0; i < IN; i++) {
            common = 0.7f * common + (float)(mq_random_unit(&random) - 0.5);
            f->x[t * IN + i] = common * (1.0f + (float)(i * 7 % 13));
        }
    }
    for (size_t i = 0; i < f->out * IN; i++) {
        f->weight[i] = (float)(mq_random_unit(&random) + mq_random_unit(&random) - 1.0);
    }
    memset(f->gram, 0, IN * IN * sizeof(float));
    mq_gram_add(f->gram, f->x, TOKENS, IN, f->context);
    for (size_t i = 0; i < IN; i++) {
        f->diagonal[i] = f->gram[i * IN + i];
    }
}

static void open_rows(fixture *f, size_t out, mq_zero_point zero_point, size_t threads) {
    const bool symmetric = zero_point == MQ_ZERO_SYMMETRIC;
    *f = (fixture){.out = out,
                   .options = {.width_count = 3,
                               .widths = {8, 4, 2},
                               .lambda = {10, 3, 1},
                               .slice_rule = symmetric ? MQ_SLICE_ROUND : MQ_SLICE_TOP,
                               .zero_point = zero_point}};
    const mq_context_options options = {.threads = threads};
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
    f->work = (mq_compensation_work){.bytes = mq_nested_compensate_bytes(out, IN, GROUPS),
                                     .threads = threads};
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            assert_int_equal(mq_slab_allocate(&f->slab, "a grid", NULL), MQ_OK);
        }
        mq_grid_carve(&f->grid, &mq_nested_grid, &f->options, out, IN, GROUPS, &f->slab);
        mq_quantized_carve(&f->quantized, out, IN, GROUPS, &f->slab);
        mq_finish_scratch_carve(&f->scratch, &f->options, out, GROUPS, &f->slab);
        mq_compensation_carve(&f->compensation, IN, &f->slab);
        f->work.memory = mq_carve(&f->slab, threads, f->work.bytes);
        f->x = mq_carve(&f->slab, TOKENS, IN * sizeof(float));
        f->gram = mq_carve(&f->slab, IN, IN * sizeof(float));
        f->weight = mq_carve(&f->slab, out, IN * sizeof(float));
    }
    fill(f);
    assert_true(mq_compensation_set(&f->compensation, f->gram, f->context));
    mq_nested_grid.start(&f->grid, f->weight, f->diagonal);
    /* As if learned: narrow widths that have left their natural buckets. */
    mq_random random;
    mq_random_seed(&random, 12, 0);
    mq_nested *nested = f->grid.state;
    for (size_t j = 0; j + 1 < nested->level_count; j++) {
        for (size_t i = 0; i < out * IN; i++) {
            nested->offset[j][i] = 0.3f * (float)(mq_random_unit(&random) - 0.5);
        }
    }
}

static void open_fixture(fixture *f, mq_zero_point zero_point, size_t threads) {
    open_rows(f, OUT, zero_point, threads);
}

static void close_fixture(fixture *f) {
    mq_slab_free(&f->slab);
    mq_context_free(f->context);
}

/* H in the order of the inputs, damped as it is where the first try has a factor. */
static void damped(double h[IN][IN], const fixture *f) {
    double mean = 0.0;
    for (size_t i = 0; i < IN; i++) {
        mean += (double)f->gram[i * IN + i] / IN;
    }
    for (size_t i = 0; i < IN; i++) {
        for (size_t j = 0; j < IN; j++) {
            const size_t a = f->compensation.order[i], b = f->compensation.order[j];
            h[i][j] = (double)f->gram[a < b ? a * IN + b : b * IN + a];
        }
        h[i][i] += 0.01 * mean;
    }
}

/* --- the factor ------------------------------------------------------------------------------- */

static void test_gram(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, MQ_ZERO_FLOAT, 2);
    for (size_t i = 0; i < IN; i++) {
        for (size_t j = i; j < IN; j++) {
            double sum = 0.0, size = 0.0;
            for (size_t t = 0; t < TOKENS; t++) {
                sum += (double)f.x[t * IN + i] * (double)f.x[t * IN + j];
                size += fabs((double)f.x[t * IN + i] * (double)f.x[t * IN + j]);
            }
            assert_true(fabs((double)f.gram[i * IN + j] - sum) <= 1e-5 * size);
        }
    }
    close_fixture(&f);
}

/* So many inputs that the matrix is made in panels; summed up over two batches. */
static void test_gram_panels(void **state) {
    (void)state;
    enum { WIDE = 410, ROWS = 23 };
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 3}, NULL), MQ_OK);
    float *x = mq_alloc((size_t)ROWS * WIDE, sizeof *x);
    float *gram = mq_calloc((size_t)WIDE * WIDE, sizeof *gram);
    assert_true(x != NULL && gram != NULL);
    mq_random random;
    mq_random_seed(&random, 13, 0);
    for (size_t i = 0; i < (size_t)ROWS * WIDE; i++) {
        x[i] = (float)(mq_random_unit(&random) - 0.5);
    }
    mq_gram_add(gram, x, ROWS, WIDE, context);
    mq_gram_add(gram, x, ROWS, WIDE, context);
    for (size_t i = 0; i < WIDE; i++) {
        for (size_t j = i; j < WIDE; j++) {
            double sum = 0.0;
            for (size_t t = 0; t < ROWS; t++) {
                sum += 2.0 * (double)x[t * WIDE + i] * (double)x[t * WIDE + j];
            }
            assert_true(fabs((double)gram[i * WIDE + j] - sum) < 5e-6);
        }
    }
    mq_free(x);
    mq_free(gram);
    mq_context_free(context);
}

static void test_factor(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, MQ_ZERO_FLOAT, 2);
    static double h[IN][IN];
    damped(h, &f);
    for (size_t i = 1; i < IN; i++) {
        assert_true(h[i][i] <= h[i - 1][i - 1]);
    }
    const float *u = f.compensation.factor;
    for (size_t i = 0; i < IN; i++) { /* row i of UᵀU·H is that of the identity */
        double inverse[IN] = {0};
        for (size_t k = 0; k < IN; k++) {
            for (size_t l = 0; l <= i && l <= k; l++) {
                inverse[k] += (double)u[l * IN + i] * (double)u[l * IN + k];
            }
        }
        for (size_t j = 0; j < IN; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < IN; k++) {
                sum += inverse[k] * h[k][j];
            }
            assert_true(fabs(sum - (i == j ? 1.0 : 0.0)) < 1e-3);
        }
    }
    close_fixture(&f);
}

static void test_no_factor(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, MQ_ZERO_FLOAT, 1);
    f.gram[5 * IN + 5] = NAN;
    assert_false(mq_compensation_set(&f.compensation, f.gram, f.context));
    f.gram[5 * IN + 5] = INFINITY;
    assert_false(mq_compensation_set(&f.compensation, f.gram, f.context));
    memset(f.gram, 0, IN * IN * sizeof(float));
    assert_false(mq_compensation_set(&f.compensation, f.gram, f.context));
    close_fixture(&f);
}

/* Two inputs that are always the same have no factor but for the damping. */
static void test_singular(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, MQ_ZERO_FLOAT, 1);
    for (size_t i = 0; i < IN; i++) {
        for (size_t j = i; j < IN; j++) {
            f.gram[i * IN + j] = 4.0f;
        }
    }
    assert_true(mq_compensation_set(&f.compensation, f.gram, f.context));
    for (size_t i = 0; i < IN; i++) {
        assert_int_equal(f.compensation.order[i], i);
        assert_true(isfinite(f.compensation.factor[i * IN + i]));
        assert_true(f.compensation.factor[i * IN + i] > 0.0f);
    }
    close_fixture(&f);
}

/* --- the codes -------------------------------------------------------------------------------- */

/* One row by the formulas of optimal brain surgery, in double: the inverse of what is left of H is
 * made anew for each input. codes[IN] are the plain ones and become the compensated ones. */
static void reference_row(uint8_t *codes, const fixture *f, size_t row, double h[IN][IN]) {
    static double inverse[IN][IN];
    const mq_nested *nested = f->grid.state;
    const bool symmetric = nested->symmetric;
    const mq_slice_rule rule = f->options.slice_rule;
    memset(inverse, 0, sizeof inverse);
    static double left[IN][IN];
    memcpy(left, h, sizeof left);
    for (size_t i = 0; i < IN; i++) { /* Gauss and Jordan; H is positive definite */
        inverse[i][i] += 1.0;
        const double pivot = left[i][i];
        for (size_t j = 0; j < IN; j++) {
            left[i][j] /= pivot;
            inverse[i][j] /= pivot;
        }
        for (size_t k = 0; k < IN; k++) {
            const double factor = left[k][i];
            for (size_t j = 0; k != i && j < IN; j++) {
                left[k][j] -= factor * left[i][j];
                inverse[k][j] -= factor * inverse[i][j];
            }
        }
    }
    double w[IN];
    for (size_t i = 0; i < IN; i++) {
        w[i] = (double)f->weight[row * IN + f->compensation.order[i]];
    }
    for (size_t i = 0; i < IN; i++) {
        const size_t input = f->compensation.order[i];
        mq_nested_level levels[MQ_MAX_LEVELS];
        float lo, hi;
        mq_nested_group(&lo, &hi, levels, nested, row * GROUPS + input / (IN / GROUPS));
        const mq_nested_level *last = &levels[nested->level_count - 1];
        double best = INFINITY;
        uint8_t chosen = 0;
        for (unsigned code = symmetric ? 1 : 0; code < 256; code++) {
            bool same = true;
            for (unsigned width = 2; width <= 4; width += 2) {
                same = same && mq_slice_code((uint8_t)code, width, rule) ==
                                   mq_slice_code(codes[input], width, rule);
            }
            const double distance = fabs((double)last->scale * code + (double)last->bias - w[i]);
            if (same && distance < best) {
                best = distance;
                chosen = (uint8_t)code;
            }
        }
        codes[input] = chosen;
        const double error = w[i] - ((double)last->scale * chosen + (double)last->bias);
        for (size_t j = i + 1; j < IN; j++) {
            w[j] -= error * inverse[i][j] / inverse[i][i];
        }
        const double pivot = inverse[i][i];
        double line[IN];
        memcpy(line, inverse[i], sizeof line);
        for (size_t k = i + 1; k < IN; k++) {
            for (size_t j = i + 1; j < IN; j++) {
                inverse[k][j] -= line[k] * line[j] / pivot;
            }
        }
    }
}

/* Squared error of the layer's output over the tokens. */
static double output_error(const fixture *f) {
    static float value[COUNT];
    mq_quantized_values(&(mq_values){value, NULL}, &f->quantized, 8, f->options.slice_rule);
    double sum = 0.0;
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t row = 0; row < OUT; row++) {
            double error = 0.0;
            for (size_t i = 0; i < IN; i++) {
                error += (double)f->x[t * IN + i] *
                         ((double)value[row * IN + i] - (double)f->weight[row * IN + i]);
            }
            sum += error * error;
        }
    }
    return sum;
}

static void finish(fixture *f, bool compensated) {
    if (compensated) {
        f->scratch.compensation = &f->compensation;
        f->scratch.work = &f->work;
        mq_gemm_enter_single();
    }
    assert_true(
        mq_grid_finish(&f->quantized, &f->grid, f->diagonal, f->options.slice_rule, &f->scratch));
    if (compensated) {
        mq_gemm_leave_single(f->context);
    }
}

static void check_codes(mq_zero_point zero_point) {
    fixture f;
    open_fixture(&f, zero_point, 3);
    finish(&f, false);
    static uint8_t plain[COUNT], expected[COUNT];
    memcpy(plain, f.quantized.codes, COUNT);
    memcpy(expected, plain, COUNT);
    const double error = output_error(&f);

    finish(&f, true);
    assert_true(output_error(&f) < 0.6 * error); /* the narrow widths' bits hold the rest */

    static double h[IN][IN];
    damped(h, &f);
    size_t moved = 0;
    for (size_t row = 0; row < OUT; row++) {
        reference_row(expected + row * IN, &f, row, h);
    }
    for (size_t i = 0; i < COUNT; i++) {
        const uint8_t code = f.quantized.codes[i];
        assert_int_equal(code, expected[i]);
        moved += code != plain[i];
        for (unsigned width = 2; width <= 4; width += 2) {
            assert_int_equal(mq_slice_code(code, width, f.options.slice_rule),
                             mq_slice_code(plain[i], width, f.options.slice_rule));
        }
    }
    assert_true(moved > COUNT / 4);
    close_fixture(&f);
}

static void test_codes(void **state) {
    (void)state;
    check_codes(MQ_ZERO_FLOAT);
}

static void test_symmetric_codes(void **state) {
    (void)state;
    check_codes(MQ_ZERO_SYMMETRIC);
}

/* From 2,048 rows on the pieces that threads work on are larger; the last one is not full. */
static void test_large_pieces(void **state) {
    (void)state;
    enum { ROWS = 2100 };
    static const size_t rows[] = {0, 127, 128, 2047, 2048, ROWS - 1};
    fixture f;
    open_rows(&f, ROWS, MQ_ZERO_FLOAT, 3);
    finish(&f, false);
    uint8_t *plain = mq_alloc(ROWS, IN);
    assert_non_null(plain);
    memcpy(plain, f.quantized.codes, (size_t)ROWS * IN);
    finish(&f, true);
    static double h[IN][IN];
    damped(h, &f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *expected = plain + rows[i] * IN;
        reference_row(expected, &f, rows[i], h);
        assert_memory_equal(f.quantized.codes + rows[i] * IN, expected, IN);
    }
    mq_free(plain);
    close_fixture(&f);
}

static void test_threads(void **state) {
    (void)state;
    static uint8_t codes[2][COUNT];
    static float factor[2][IN * IN];
    for (size_t i = 0; i < 2; i++) {
        fixture f;
        open_fixture(&f, MQ_ZERO_FLOAT, i == 0 ? 1 : 3);
        finish(&f, true);
        memcpy(codes[i], f.quantized.codes, COUNT);
        memcpy(factor[i], f.compensation.factor, sizeof factor[i]);
        close_fixture(&f);
    }
    assert_memory_equal(codes[0], codes[1], COUNT);
    for (size_t i = 0; i < IN; i++) {
        assert_memory_equal(factor[0] + i * IN + i, factor[1] + i * IN + i,
                            (IN - i) * sizeof(float));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gram),
        cmocka_unit_test(test_gram_panels),
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_no_factor),
        cmocka_unit_test(test_singular),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_symmetric_codes),
        cmocka_unit_test(test_large_pieces),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
