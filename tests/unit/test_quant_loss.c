/* layer: quant */
/* The block loss against its definition, and its gradient against finite differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <omp.h>

#include "quant/loss.h"

enum { TOKENS = 150, HIDDEN = 33 };

static float y[TOKENS * HIDDEN], target[TOKENS * HIDDEN];

static int fill(void **state) {
    (void)state;
    for (size_t i = 0; i < (size_t)TOKENS * HIDDEN; i++) {
        const float size =
            i / HIDDEN % 7 == 3 ? 300.0f : 1.0f; /* some tokens are far larger than the others */
        target[i] = size * sinf(0.37f * (float)i);
        y[i] = target[i] + 0.1f * size * cosf(0.91f * (float)i);
    }
    return 0;
}

static double definition(mq_loss loss) {
    double sum = 0.0;
    for (size_t t = 0; t < TOKENS; t++) {
        double error = 0.0, norm = 0.0;
        for (size_t i = t * HIDDEN; i < (t + 1) * HIDDEN; i++) {
            error += pow((double)y[i] - (double)target[i], 2);
            norm += pow((double)target[i], 2);
        }
        sum += loss == MQ_LOSS_RELATIVE ? error / norm : error / HIDDEN;
    }
    return sum / TOKENS;
}

static void value_is_its_definition(void **state) {
    (void)state;
    for (int loss = 0; loss < 2; loss++) {
        const double value = mq_block_loss_value(y, target, TOKENS, HIDDEN, (mq_loss)loss);
        assert_true(fabs(value - definition((mq_loss)loss)) < 1e-12 * value);
    }
}

static void large_tokens_count_no_more_than_others(void **state) {
    (void)state;
    const double before = mq_block_loss_value(y, target, TOKENS, HIDDEN, MQ_LOSS_RELATIVE);
    for (size_t i = 5 * HIDDEN; i < 6 * (size_t)HIDDEN; i++) {
        y[i] *= 1024.0f;
        target[i] *= 1024.0f;
    }
    const double after = mq_block_loss_value(y, target, TOKENS, HIDDEN, MQ_LOSS_RELATIVE);
    assert_true(fabs(after - before) < 1e-9 * before);
}

static void gradient_is_the_slope(void **state) {
    (void)state;
    static float gradient[TOKENS * HIDDEN];
    for (int loss = 0; loss < 2; loss++) {
        memcpy(gradient, y, sizeof gradient);
        mq_block_loss_gradient(gradient, &(mq_goal){target, 2.5}, 1, TOKENS, HIDDEN, (mq_loss)loss);
        for (size_t i = 0; i < (size_t)TOKENS * HIDDEN; i += 101) {
            const float kept = y[i];
            const float step = fmaxf(fabsf(kept), 1.0f) * 0.0078125f;
            y[i] = kept + step;
            const double up = definition((mq_loss)loss);
            const double above = (double)y[i];
            y[i] = kept - step;
            const double slope = 2.5 * (up - definition((mq_loss)loss)) / (above - (double)y[i]);
            y[i] = kept;
            assert_true(fabs((double)gradient[i] - slope) <= 1e-5 * fabs(slope) + 1e-12);
        }
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    omp_set_num_threads(1);
    const double one = mq_block_loss_value(y, target, TOKENS, HIDDEN, MQ_LOSS_RELATIVE);
    omp_set_num_threads(3);
    const double three = mq_block_loss_value(y, target, TOKENS, HIDDEN, MQ_LOSS_RELATIVE);
    assert_memory_equal(&one, &three, sizeof one);
}

static void a_token_of_zeros_divides_by_nothing(void **state) {
    (void)state;
    memset(target, 0, HIDDEN * sizeof(float));
    memset(y, 0, HIDDEN * sizeof(float));
    assert_true(isfinite(mq_block_loss_value(y, target, TOKENS, HIDDEN, MQ_LOSS_RELATIVE)));
    mq_block_loss_gradient(y, &(mq_goal){target, 1.0}, 1, TOKENS, HIDDEN, MQ_LOSS_RELATIVE);
    for (size_t i = 0; i < (size_t)TOKENS * HIDDEN; i++) {
        assert_true(isfinite(y[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(value_is_its_definition, fill),
        cmocka_unit_test_setup(large_tokens_count_no_more_than_others, fill),
        cmocka_unit_test_setup(gradient_is_the_slope, fill),
        cmocka_unit_test_setup(threads_change_nothing, fill),
        cmocka_unit_test_setup(a_token_of_zeros_divides_by_nothing, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
