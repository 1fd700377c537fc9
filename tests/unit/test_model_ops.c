/* layer: model */
/* The operations of a block: the fastest kernels against their plain references, and the
 * references' gradients against central differences of losses in double. Every instruction set's
 * kernels are in test_model_kernels.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/kernels.h"
#include "random_arrays.h"
#include "reference_ops.h"
#include "tensor/vexp.h"

/* --- exp -------------------------------------------------------------------------------------- */

static void test_exp(void **state) {
    (void)state;
    double worst = 0.0;
    for (uint32_t i = 0; i < 4000000; i++) {
        const float x = -87.33F + (float)i * (175.7F / 4000000.0F);
        const double exact = exp((double)x);
        const double unit = ldexp(1.0, ilogb(exact) - 23);
        worst = fmax(worst, fabs((double)mq_exp_inline(x) - exact) / unit);
    }
    if (worst > 2.0) {
        fail_msg("%.3f units in the last place", worst);
    }
    assert_true(mq_exp_inline(0.0F) == 1.0F);
    assert_true(mq_exp_inline(-88.0F) == 0.0F && mq_exp_inline(-INFINITY) == 0.0F);
    assert_true(isinf(mq_exp_inline(89.0F)) && isinf(mq_exp_inline(INFINITY)));
    assert_true(isnan(mq_exp_inline(NAN)));
    for (float x = -20.0F; x < 20.0F; x += 0.01F) {
        assert_true(fabs((double)mq_tanh_inline(x) - tanh((double)x)) <= ldexp(1.0, -22));
        const double sigmoid = 1.0 / (1.0 + exp(-(double)x));
        assert_true(fabs((double)mq_sigmoid_inline(x) - sigmoid) <= 5e-7 * sigmoid);
    }
}

/* --- RMSNorm ---------------------------------------------------------------------------------- */

enum { NORM_ROWS = 300, NORM_WIDTH = 77 };
#define NORM_EPS 1e-3F

typedef struct norm_case {
    float *x, *weight, *dy, *y, *inv, *dx, *dweight, *y2, *inv2, *dx2, *dweight2, *scratch;
} norm_case;

static norm_case new_norm_case(void) {
    const size_t count = (size_t)NORM_ROWS * NORM_WIDTH;
    return (norm_case){
        random_floats(count, 2.0), random_floats(NORM_WIDTH, 2.0),
        random_floats(count, 1.0), new_floats(count),
        new_floats(NORM_ROWS),     random_floats(count, 1.0),
        new_floats(NORM_WIDTH),    new_floats(count),
        new_floats(NORM_ROWS),     new_floats(count),
        new_floats(NORM_WIDTH),    new_floats(mq_rmsnorm_chunks(NORM_ROWS) * NORM_WIDTH)};
}

static void free_norm_case(norm_case *c) { free_all((float **)c, sizeof *c / sizeof(float *)); }

static void test_rmsnorm(void **state) {
    (void)state;
    const size_t count = (size_t)NORM_ROWS * NORM_WIDTH;
    norm_case c = new_norm_case();
    rmsnorm_forward_reference(c.y2, c.inv2, c.x, c.weight, NORM_ROWS, NORM_WIDTH, NORM_EPS);
    mq_rmsnorm_forward(c.y, c.inv, c.x, c.weight, NORM_ROWS, NORM_WIDTH, NORM_EPS);
    check_close("y", c.y, c.y2, count, 5e-7);
    check_close("inv_rms", c.inv, c.inv2, NORM_ROWS, 5e-7);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        memcpy(c.dx2, c.dx, count * sizeof *c.dx);
        rmsnorm_backward_reference(c.dx2, c.dweight2, c.dy, c.x, c.inv, c.weight, NORM_ROWS,
                                   NORM_WIDTH, accumulate == 1);
        mq_rmsnorm_backward(c.dx, c.dweight, c.dy, c.x, c.inv, c.weight, NORM_ROWS, NORM_WIDTH,
                            accumulate == 1, c.scratch);
        check_close("dx", c.dx, c.dx2, count, 1e-6);
        check_close("dweight", c.dweight, c.dweight2, NORM_WIDTH, 2e-6);
    }
    memset(c.dweight, 0, NORM_WIDTH * sizeof(float));
    mq_rmsnorm_backward(NULL, c.dweight, c.dy, c.x, c.inv, c.weight, NORM_ROWS, NORM_WIDTH, false,
                        c.scratch);
    check_close("dweight alone", c.dweight, c.dweight2, NORM_WIDTH, 2e-6);
    rmsnorm_backward_reference(c.dx2, NULL, c.dy, c.x, c.inv, c.weight, NORM_ROWS, NORM_WIDTH,
                               false);
    mq_rmsnorm_backward(c.dy, NULL, c.dy, c.x, c.inv, c.weight, NORM_ROWS, NORM_WIDTH, false, NULL);
    check_close("dx in place", c.dy, c.dx2, count, 1e-6);
    free_norm_case(&c);
}

typedef struct norm_user {
    double *x, *weight;
} norm_user;

static void norm_function(double *out, void *user) {
    const norm_user *u = user;
    double_rmsnorm(out, u->x, u->weight, 3, NORM_WIDTH, (double)NORM_EPS);
}

static void test_rmsnorm_differences(void **state) {
    (void)state;
    enum { ROWS = 3, COUNT = ROWS * NORM_WIDTH };
    norm_case c = new_norm_case();
    norm_user user = {to_doubles(c.x, COUNT), to_doubles(c.weight, NORM_WIDTH)};
    double *out = new_doubles(COUNT);
    rmsnorm_forward_reference(c.y, c.inv, c.x, c.weight, ROWS, NORM_WIDTH, NORM_EPS);
    rmsnorm_backward_reference(c.dx, c.dweight, c.dy, c.x, c.inv, c.weight, ROWS, NORM_WIDTH,
                               false);
    for (size_t i = 0; i < COUNT; i++) {
        c.dx2[i] = (float)difference(norm_function, &user, &user.x[i], c.dy, out, COUNT);
    }
    for (size_t i = 0; i < NORM_WIDTH; i++) {
        c.dweight2[i] = (float)difference(norm_function, &user, &user.weight[i], c.dy, out, COUNT);
    }
    check_close("dx", c.dx, c.dx2, COUNT, 1e-6);
    check_close("dweight", c.dweight, c.dweight2, NORM_WIDTH, 1e-6);
    free(user.x);
    free(user.weight);
    free(out);
    free_norm_case(&c);
}

/* --- rotary embedding ------------------------------------------------------------------------- */

/* Three numbers of each head do not rotate. */
enum { SEQUENCES = 2, LENGTH = 70, HEADS = 3, DIM = 13, HALF = 5, STRIDE = HEADS * DIM + 7 };

/* Token by token, as the block does it. */
static void rotate(float *x, const float *cos_table, const float *sin_table, bool inverse) {
    for (size_t t = 0; t < (size_t)SEQUENCES * LENGTH; t++) {
        const size_t at = t % LENGTH * HALF;
        mq_kernels_best()->rope(x + t * STRIDE, cos_table + at, sin_table + at, HEADS, DIM, HALF,
                                inverse);
    }
}

static void test_rope(void **state) {
    (void)state;
    const size_t count = (size_t)SEQUENCES * LENGTH * STRIDE;
    float *x = random_floats(count, 1.0), *fast = copy_floats(x, count),
          *plain = copy_floats(x, count);
    float *cos_table = random_floats(LENGTH * HALF, 1.0),
          *sin_table = random_floats(LENGTH * HALF, 1.0);
    double *wide = new_doubles((size_t)LENGTH * DIM);
    rotate(fast, cos_table, sin_table, false);
    rope_forward_reference(plain, STRIDE, cos_table, sin_table, SEQUENCES, LENGTH, HEADS, DIM,
                           HALF);
    check_close("rope", fast, plain, count, 3e-7);
    /* one head against the double of the block tests */
    for (size_t t = 0; t < LENGTH; t++) {
        for (size_t i = 0; i < DIM; i++) {
            wide[t * DIM + i] = (double)x[t * STRIDE + i];
        }
    }
    double_rope(wide, cos_table, sin_table, LENGTH, LENGTH, 1, DIM, HALF);
    for (size_t i = 0; i < (size_t)LENGTH * DIM; i++) {
        assert_true(fabs(wide[i] - (double)plain[i / DIM * STRIDE + i % DIM]) < 3e-7);
    }
    /* a linear map's gradient is its transpose: <a, R·x> = <Rᵀ·a, x>; the columns between tokens
     * stay as they are */
    float *a = random_floats(count, 1.0), *turned = copy_floats(a, count),
          *back = copy_floats(a, count);
    rotate(turned, cos_table, sin_table, true);
    rope_backward_reference(back, STRIDE, cos_table, sin_table, SEQUENCES, LENGTH, HEADS, DIM,
                            HALF);
    check_close("rope backward", turned, back, count, 3e-7);
    double left = 0.0, right = 0.0;
    for (size_t i = 0; i < count; i++) {
        left += (double)a[i] * (double)plain[i];
        right += (double)back[i] * (double)x[i];
    }
    assert_true(fabs(left - right) < 1e-4);
    free(wide);
    float *all[] = {x, fast, plain, cos_table, sin_table, a, turned, back};
    free_all(all, sizeof all / sizeof *all);
}

/* --- gated activation ------------------------------------------------------------------------- */

static void check_glu(mq_activation activation) {
    enum { COUNT = 40003 };
    float *gate = random_floats(COUNT, 12.0), *up = random_floats(COUNT, 1.0),
          *dh = random_floats(COUNT, 1.0);
    float *h = new_floats(COUNT), *h2 = new_floats(COUNT), *dgate = new_floats(COUNT),
          *dup = new_floats(COUNT);
    gate[0] = -200.0F;
    gate[1] = 200.0F;
    gate[2] = 0.0F;
    mq_kernels_best()->glu[activation](h, gate, up, COUNT);
    glu_forward_reference(h2, gate, up, COUNT, activation);
    check_close("h", h, h2, COUNT, 3e-7);
    glu_backward_reference(dgate, dup, dh, gate, up, COUNT, activation);
    for (size_t i = 3; i < 2000;
         i++) { /* a function of one gate and one up: differences one by one */
        const double step = 1e-5, g = (double)gate[i], u = (double)up[i];
        const double gates[2] = {g + step, g - step}, ups[2] = {u, u};
        double out[2];
        double_glu(out, gates, ups, 2, activation);
        assert_true(fabs((out[0] - out[1]) / (2.0 * step) * (double)dh[i] - (double)dgate[i]) <
                    1e-6);
        double_glu(out, &g, (const double[]){1.0}, 1, activation);
        assert_true(fabs(out[0] * (double)dh[i] - (double)dup[i]) < 2e-6);
    }
    /* fast, and over its own inputs as the block does it */
    float *fast_gate = copy_floats(gate, COUNT), *fast_up = copy_floats(up, COUNT);
    mq_kernels_best()->glu_backward[activation](fast_gate, fast_up, dh, fast_gate, fast_up, COUNT);
    /* 1 - sigmoid, rounded to 2^-24, is multiplied by gates of up to 12 */
    check_close("dgate", fast_gate, dgate, COUNT, 2e-6);
    check_close("dup", fast_up, dup, COUNT, 3e-7);
    float *all[] = {gate, up, dh, h, h2, dgate, dup, fast_gate, fast_up};
    free_all(all, sizeof all / sizeof *all);
}

static void test_glu(void **state) {
    (void)state;
    check_glu(MQ_SILU);
    check_glu(MQ_GELU_TANH);
}

int main(void) {
    mq_random_seed(&generator, 3, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),  cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope), cmocka_unit_test(test_rmsnorm_differences),
        cmocka_unit_test(test_glu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
