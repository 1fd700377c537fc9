/* layer: model */
/* Every instruction set's kernels of a block that this processor has, against plain definitions in
 * double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/kernels.h"
#include "model/ops.h"
#include "random_arrays.h"

#define EPS 1e-3F

static void check_fused_norms(const mq_kernels *kernels) {
    enum { ROWS = 5, N = 83, COUNT = ROWS * N };
    float *a = random_floats(COUNT, 1.0), *b = random_floats(COUNT, 1.0),
          *weight = random_floats(N, 1.0);
    float *sum = new_floats(COUNT), *y = new_floats(COUNT), *expected = new_floats(COUNT),
          *inv = new_floats(ROWS);
    float *normed = new_floats(COUNT), *inv2 = new_floats(ROWS);
    kernels->add_rmsnorm(sum, y, inv, a, b, weight, ROWS, N, EPS);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(sum[i] == a[i] + b[i]);
    }
    mq_rmsnorm_forward_reference(expected, inv2, sum, weight, ROWS, N, EPS);
    check_close("add_rmsnorm", y, expected, COUNT, 5e-7);
    check_close("add_rmsnorm inv", inv, inv2, ROWS, 5e-7);
    kernels->rmsnorm_add(sum, inv, a, b, weight, ROWS, N, EPS);
    mq_rmsnorm_forward_reference(normed, inv2, b, weight, ROWS, N, EPS);
    for (size_t i = 0; i < COUNT; i++) {
        expected[i] = a[i] + normed[i];
    }
    check_close("rmsnorm_add", sum, expected, COUNT, 5e-7);
    memset(sum, 0, N * sizeof *sum);
    kernels->column_sum(sum, a, ROWS, N);
    memcpy(y, a, COUNT * sizeof *y);
    kernels->add_bias(y, weight, ROWS, N);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(y[i] == a[i] + weight[i % N]);
    }
    for (size_t i = 0; i < N; i++) {
        assert_true(sum[i] == (((a[i] + a[i + N]) + a[i + 2 * N]) + a[i + 3 * N]) + a[i + 4 * N]);
    }
    float *all[] = {a, b, weight, sum, y, expected, inv, normed, inv2};
    free_all(all, sizeof all / sizeof *all);
}

static void check_softmax(const mq_kernels *kernels, size_t count, float softcap) {
    float *s = random_floats(count, 6.0), *p = copy_floats(s, count), *expected = new_floats(count);
    float *ds = random_floats(count, 1.0), *ds2 = copy_floats(ds, count), max, sum;
    double exact_sum = 0.0, largest = -INFINITY;
    const double c = (double)softcap;
    for (size_t i = 0; i < count; i++) {
        const double capped = softcap > 0.0F ? c * tanh((double)s[i] / c) : (double)s[i];
        largest = fmax(largest, capped);
    }
    kernels->softmax(p, &max, &sum, count, softcap);
    assert_true(fabs((double)max - largest) < 2e-6);
    for (size_t i = 0; i < count; i++) {
        const double capped = softcap > 0.0F ? c * tanh((double)s[i] / c) : (double)s[i];
        expected[i] = (float)exp(capped - (double)max);
        exact_sum += (double)expected[i];
    }
    check_close("softmax", p, expected, count, 3e-6);
    assert_true(fabs((double)sum - exact_sum) < 3e-6 * exact_sum);
    const double lse = (double)max + log(exact_sum);
    for (size_t i = 0; i < count; i++) {
        const double t = softcap > 0.0F ? tanh((double)s[i] / c) : 0.0;
        const double probability = exp((softcap > 0.0F ? c * t : (double)s[i]) - lse);
        ds2[i] = (float)(0.3 * probability * ((double)ds[i] - 0.1) * (1.0 - t * t));
        expected[i] = (float)probability;
    }
    kernels->softmax_backward(s, ds, count, (float)lse, 0.1F, 0.3F, softcap);
    check_close("p", s, expected, count, 5e-6);
    check_within("ds", ds, ds2, count, 5e-6, 0.1); /* where the cap is flat, 1 - t² cancels */
    float *all[] = {s, p, expected, ds, ds2};
    free_all(all, sizeof all / sizeof *all);
}

static void check_kernels(const mq_kernels *kernels) {
    enum { COUNT = 1003 };
    float *gate = random_floats(COUNT, 12.0), *up = random_floats(COUNT, 1.0),
          *dh = random_floats(COUNT, 1.0);
    float *h = new_floats(COUNT), *h2 = new_floats(COUNT), *dup = new_floats(COUNT),
          *dup2 = new_floats(COUNT);
    for (mq_activation activation = MQ_SILU; activation <= MQ_GELU_TANH; activation++) {
        kernels->glu[activation](h, gate, up, COUNT);
        mq_glu_forward_reference(h2, gate, up, COUNT, activation);
        check_close("glu", h, h2, COUNT, 3e-7);
        kernels->glu_backward[activation](h, dup, dh, gate, up, COUNT);
        mq_glu_backward_reference(h2, dup2, dh, gate, up, COUNT, activation);
        check_close("dgate", h, h2, COUNT, 2e-6);
        check_close("dup", dup, dup2, COUNT, 3e-7);
    }
    double exact = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
        exact += (double)gate[i] * (double)up[i];
    }
    assert_true(fabs((double)kernels->dot(gate, up, COUNT) - exact) < 1e-3);
    kernels->scale(gate, 0.5F, COUNT);
    memcpy(h, gate, sizeof *h * COUNT);
    mq_rope_forward_reference(h, 1000, up, dh, 1, 1, 5, 200);
    kernels->rope(gate, up, dh, 5, 100, false);
    check_close("rope", gate, h, COUNT, 3e-7);
    for (size_t count = 1; count < 70; count++) {
        check_softmax(kernels, count, 0.0F);
        check_softmax(kernels, count, 2.0F);
    }
    check_fused_norms(kernels);
    float *all[] = {gate, up, dh, h, h2, dup, dup2};
    free_all(all, sizeof all / sizeof *all);
}

static void test_kernels(void **state) {
    (void)state;
    const mq_kernels *last = NULL;
    for (size_t i = 0; mq_kernels_at(i); i++) {
        last = mq_kernels_at(i);
        check_kernels(last);
    }
    assert_non_null(last);
    assert_ptr_equal(mq_kernels_get(), last);
}

int main(void) {
    mq_random_seed(&generator, 3, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
