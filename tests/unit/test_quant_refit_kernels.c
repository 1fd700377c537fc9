/* layer: quant */
/* The refit's passes over a group, for each instruction set that the processor has, beside what
 * they are by definition: the same bits as each other, and sums to rounding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "kernel_tables.h"
#include "quant/refit_kernels.h"
#include "tensor/dtype.h"

enum { MOST = 1000 };

static const size_t counts[] = {1, 7, 16, 31, 32, 64, 100, 128, 129, 576, MOST};

typedef struct group {
    uint8_t codes[MOST];
    float gradient[MOST];
} group;

static group make_group(void) {
    group g;
    mq_random random;
    mq_random_seed(&random, 11, 0);
    for (size_t i = 0; i < MOST; i++) {
        g.codes[i] = (uint8_t)(167 * i % 256); /* all of them, in no order */
        g.gradient[i] = (float)(4.0 * mq_random_unit(&random) - 2.0);
    }
    return g;
}

static void check_weights(const mq_refit_kernels *kernels, const group *g, size_t count,
                          unsigned width, mq_slice_rule rule) {
    const float scale = 0.0371f, bias = -1.7f;
    float values[MOST + 1];
    mq_bf16 rounded[MOST + 1];
    values[count] = 5.0f;
    rounded[count] = 5;
    kernels->weights(values, NULL, g->codes, count, scale, bias, width, rule);
    kernels->weights(NULL, rounded, g->codes, count, scale, bias, width, rule);
    for (size_t i = 0; i < count; i++) {
        const float value = scale * (float)mq_slice_code(g->codes[i], width, rule) + bias;
        assert_memory_equal(&values[i], &value, sizeof value);
        assert_int_equal(rounded[i], mq_f32_to_bf16(value));
    }
    assert_true(values[count] == 5.0f);
    assert_int_equal(rounded[count], 5);
}

static void check_sums(const mq_refit_kernels *kernels, const group *g, size_t count,
                       unsigned width, mq_slice_rule rule) {
    const float centre = 0.5f * (float)((1u << width) - 1u);
    float sum, sum_s, base, base_s;
    kernels->sums(&sum, &sum_s, g->gradient, g->codes, count, centre, width, rule);
    mq_refit_kernels_base.sums(&base, &base_s, g->gradient, g->codes, count, centre, width, rule);
    assert_memory_equal(&sum, &base, sizeof sum);
    assert_memory_equal(&sum_s, &base_s, sizeof sum_s);
    double exact = 0.0, exact_s = 0.0, size = 0.0, size_s = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double gradient = (double)g->gradient[i];
        const double product =
            gradient * ((double)mq_slice_code(g->codes[i], width, rule) - (double)centre);
        exact += gradient;
        exact_s += product;
        size += gradient < 0.0 ? -gradient : gradient;
        size_s += product < 0.0 ? -product : product;
    }
    /* A lane adds up at most a sixteenth of the numbers, one after the other. */
    const double units = ((double)count / 16.0 + 8.0) * 6e-8;
    assert_true(fabs((double)sum - exact) <= units * size);
    assert_true(fabs((double)sum_s - exact_s) <= units * size_s);
}

static void kernels_agree(void **state) {
    (void)state;
    static const mq_slice_rule rules[] = {MQ_SLICE_TOP, MQ_SLICE_ROUND, MQ_SLICE_ROUND_EXTRA};
    const group g = make_group();
    EXPECT_TABLE(mq_refit_kernels);
    for (size_t k = 0; mq_refit_kernels_at(k) != NULL; k++) {
        const mq_refit_kernels *kernels = mq_refit_kernels_at(k);
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            for (size_t rule = 0; rule < 3; rule++) {
                for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                    check_weights(kernels, &g, counts[i], width, rules[rule]);
                    check_sums(kernels, &g, counts[i], width, rules[rule]);
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
