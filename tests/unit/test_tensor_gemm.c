/* layer: tensor */
#include <math.h>
#include <omp.h>
#include <sched.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/random.h"
#include "temporary.h"
#include "tensor/gemm.h"

static float *random_numbers(size_t count, uint64_t seed) {
    float *numbers = malloc((count + 1) * sizeof *numbers);
    assert_non_null(numbers);
    mq_random random;
    mq_random_seed(&random, seed, 0);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = (float)(mq_random_unit(&random) - 0.5);
    }
    return numbers;
}

/* Largest error against the reference, in units of the bound k·2^-24·Σ|a·b| <= k·2^-24·k/4 of a
 * float32 sum of k. */
static void assert_close(const float *c, const float *expected, size_t count, size_t k) {
    double bound = 0x1p-24 * (double)(k + 2) * ((double)k / 4 + 1);
    for (size_t i = 0; i < count; i++) {
        assert_true(fabs((double)c[i] - expected[i]) <= bound);
    }
}

/* The shape, whose m, n, k and forms are set, without room between rows. */
static mq_gemm_shape dense(mq_gemm_shape shape) {
    shape.lda = shape.trans_a ? shape.m : shape.k;
    shape.ldb = shape.trans_b ? shape.k : shape.n;
    shape.ldc = shape.n;
    return shape;
}

static const struct {
    size_t m, n, k;
} sizes[] = {{1, 1, 1},    {1, 7, 5},     {3, 1, 9},     {5, 4, 1},    {17, 33, 65},
             {64, 64, 64}, {100, 77, 33}, {1, 256, 300}, {130, 3, 257}};

static void all_forms_agree_with_the_reference(void **state) {
    (void)state;
    const float alphas[] = {1, -0.5f, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (unsigned form = 0; form < 24; form++) {
            mq_gemm_shape s = dense((mq_gemm_shape){.m = sizes[i].m,
                                                    .n = sizes[i].n,
                                                    .k = sizes[i].k,
                                                    .trans_a = form & 1,
                                                    .trans_b = form & 2,
                                                    .accumulate = form & 4});
            s.lda += form % 3; /* strided, too */
            s.ldb += form % 2;
            s.ldc += form % 5;
            float *a = random_numbers((s.trans_a ? s.k : s.m) * s.lda, form);
            float *b = random_numbers((s.trans_b ? s.n : s.k) * s.ldb, form + 100);
            float *c = random_numbers(s.m * s.ldc, form + 200);
            float *expected = random_numbers(s.m * s.ldc, form + 200);
            mq_gemm(c, a, b, &s, alphas[form / 8]);
            mq_gemm_reference(expected, a, b, &s, alphas[form / 8]);
            assert_close(c, expected, s.m * s.ldc, s.k);
            for (size_t r = 0; r < s.m; r++) { /* what is between the rows is nobody's */
                assert_memory_equal(c + r * s.ldc + s.n, expected + r * s.ldc + s.n,
                                    (s.ldc - s.n) * sizeof *c);
            }
            free(a);
            free(b);
            free(c);
            free(expected);
        }
    }
}

/* Against a sum written out here, so that the reference itself is held to something. */
static void a_linear_layer_and_its_gradients(void **state) {
    (void)state;
    enum { ROWS = 13, OUT = 9, IN = 21 };
    float *x = random_numbers(ROWS * IN, 1), *w = random_numbers(OUT * IN, 2),
          *dy = random_numbers(ROWS * OUT, 3);
    for (int beta = 0; beta <= 1; beta++) {
        float *y = random_numbers(ROWS * OUT, 4), *dx = random_numbers(ROWS * IN, 5),
              *dw = random_numbers(OUT * IN, 6);
        float *y0 = random_numbers(ROWS * OUT, 4), *dx0 = random_numbers(ROWS * IN, 5),
              *dw0 = random_numbers(OUT * IN, 6);
        const mq_gemm_shape of_y = dense(
            (mq_gemm_shape){.m = ROWS, .n = OUT, .k = IN, .trans_b = true, .accumulate = beta});
        const mq_gemm_shape of_dx =
            dense((mq_gemm_shape){.m = ROWS, .n = IN, .k = OUT, .accumulate = beta});
        const mq_gemm_shape of_dw = dense(
            (mq_gemm_shape){.m = OUT, .n = IN, .k = ROWS, .trans_a = true, .accumulate = beta});
        mq_gemm(y, x, w, &of_y, 1);
        mq_gemm(dx, dy, w, &of_dx, 1);
        mq_gemm(dw, dy, x, &of_dw, 1);
        for (size_t r = 0; r < ROWS; r++) {
            for (size_t o = 0; o < OUT; o++) {
                double sum = beta * (double)y0[r * OUT + o];
                for (size_t i = 0; i < IN; i++) {
                    sum += (double)x[r * IN + i] * w[o * IN + i];
                }
                assert_true(fabs(y[r * OUT + o] - sum) < 1e-5);
            }
            for (size_t i = 0; i < IN; i++) {
                double sum = beta * (double)dx0[r * IN + i];
                for (size_t o = 0; o < OUT; o++) {
                    sum += (double)dy[r * OUT + o] * w[o * IN + i];
                }
                assert_true(fabs(dx[r * IN + i] - sum) < 1e-5);
            }
        }
        for (size_t o = 0; o < OUT; o++) {
            for (size_t i = 0; i < IN; i++) {
                double sum = beta * (double)dw0[o * IN + i];
                for (size_t r = 0; r < ROWS; r++) {
                    sum += (double)dy[r * OUT + o] * x[r * IN + i];
                }
                assert_true(fabs(dw[o * IN + i] - sum) < 1e-5);
            }
        }
        float *all[] = {y, dx, dw, y0, dx0, dw0};
        for (size_t i = 0; i < 6; i++) {
            free(all[i]);
        }
    }
    free(x);
    free(w);
    free(dy);
}

static void what_is_not_added_to_is_not_read(void **state) {
    (void)state;
    float a[4] = {1, 2, 3, 4};
    float c[4] = {NAN, INFINITY, NAN, NAN};
    float r[4] = {NAN, INFINITY, NAN, NAN};
    const float expected[4] = {7, 10, 15, 22};
    const mq_gemm_shape square = dense((mq_gemm_shape){.m = 2, .n = 2, .k = 2});
    mq_gemm(c, a, a, &square, 1);
    mq_gemm_reference(r, a, a, &square, 1);
    assert_memory_equal(c, expected, sizeof c);
    assert_memory_equal(r, expected, sizeof r);
}

static void empty_products(void **state) {
    (void)state;
    float c[4] = {1, 2, NAN, 4};
    mq_gemm_shape shape = dense((mq_gemm_shape){.m = 0, .n = 2, .k = 3});
    mq_gemm(c, NULL, NULL, &shape, 1);
    shape = dense((mq_gemm_shape){.m = 2, .n = 0, .k = 3});
    mq_gemm(c, NULL, NULL, &shape, 1);
    shape = dense((mq_gemm_shape){.m = 2, .n = 2, .k = 0, .accumulate = true});
    mq_gemm(c, NULL, NULL, &shape, 1);
    assert_true(c[0] == 1 && c[1] == 2 && isnan(c[2]) && c[3] == 4);
    shape.accumulate = false;
    mq_gemm(c, NULL, NULL, &shape, 1);
    assert_true(c[0] == 0 && c[1] == 0 && c[2] == 0 && c[3] == 0);
}

/* One row needs no second, so that its leading dimension can be anything: more than the BLAS can
 * count. */
static void sizes_beyond_the_blas_still_give_the_product(void **state) {
    (void)state;
    const size_t huge = (size_t)1 << 33;
    const mq_gemm_shape shape = {
        .m = 1, .n = 1, .k = 3, .lda = huge, .ldb = huge, .ldc = huge, .trans_b = true};
    float a[3] = {1, 2, 3}, b[3] = {4, 5, 6}, c = 0;
    mq_gemm(&c, a, b, &shape, 1);
    assert_true(c == 32);
}

/* Upper triangles, and what is below them or between the rows is nobody's. */
static void gram_matrices_agree_with_the_reference(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const size_t rows = sizes[s].m, n = sizes[s].k, ldx = n + s % 3, ldc = n + s % 4;
        const mq_gemm_shape whole = {.m = n,
                                     .n = n,
                                     .k = rows,
                                     .lda = ldx,
                                     .ldb = ldx,
                                     .ldc = ldc,
                                     .trans_a = true,
                                     .accumulate = true};
        float *x = random_numbers(rows * ldx, 7), *c = random_numbers(n * ldc, 8);
        float *before = random_numbers(n * ldc, 8), *expected = random_numbers(n * ldc, 8);
        mq_gemm_reference(expected, x, x, &whole, 1);
        mq_gemm_gram(c, ldc, x, ldx, rows, n);
        for (size_t i = 0; i < n; i++) {
            assert_close(c + i * ldc + i, expected + i * ldc + i, n - i, rows);
            assert_memory_equal(c + i * ldc, before + i * ldc, i * sizeof *c);
            assert_memory_equal(c + i * ldc + n, before + i * ldc + n, (ldc - n) * sizeof *c);
        }
        free(x);
        free(c);
        free(before);
        free(expected);
    }
    float x[1] = {3}, c[1] = {1};
    mq_gemm_gram(c, (size_t)1 << 33, x, (size_t)1 << 33, 1, 1);
    assert_true(c[0] == 10);
    mq_gemm_gram(c, 1, NULL, 1, 0, 1);
    assert_true(c[0] == 10);
}

static void threads_on_their_own_give_the_same_products(void **state) {
    (void)state;
    enum { SIZE = 96, JOBS = 16 };
    const mq_gemm_shape shape =
        dense((mq_gemm_shape){.m = SIZE, .n = SIZE, .k = SIZE, .trans_b = true});
    mq_context *context = NULL;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 2}, NULL), MQ_OK);
    float *a = random_numbers(JOBS * SIZE * SIZE, 1), *b = random_numbers(JOBS * SIZE * SIZE, 2);
    float *alone = random_numbers(JOBS * SIZE * SIZE, 3),
          *together = random_numbers(JOBS * SIZE * SIZE, 4);
    mq_gemm_enter_single();
    for (size_t i = 0; i < JOBS; i++) {
        size_t at = i * SIZE * SIZE;
        mq_gemm(alone + at, a + at, b + at, &shape, 1);
    }
    for (int repeat = 0; repeat < 20; repeat++) {
#pragma omp parallel for num_threads(4) schedule(dynamic, 1)
        for (size_t i = 0; i < JOBS; i++) {
            size_t at = i * SIZE * SIZE;
            mq_gemm(together + at, a + at, b + at, &shape, 1);
        }
        assert_memory_equal(together, alone, JOBS * SIZE * SIZE * sizeof *alone);
    }
    mq_gemm_leave_single(context);
    free(a);
    free(b);
    free(alone);
    free(together);
    mq_context_free(context);
}

/* --- contexts and sums ------------------------------------------------------------------------ */

static void a_context_has_threads_and_a_blas(void **state) {
    (void)state;
    mq_error err;
    mq_context *context = NULL;
    assert_int_equal(mq_context_new(&context, NULL, &err), MQ_OK);
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(mq_context_threads(context), CPU_COUNT(&set));
    const char *blas = mq_context_blas(context);
    unsigned major, minor, patch;
    char core[32];
    assert_int_equal(sscanf(blas, "OpenBLAS %u.%u.%u %31s", &major, &minor, &patch, core), 4);
    mq_context_free(context);
    context = NULL;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 3}, &err), MQ_OK);
    assert_int_equal(mq_context_threads(context), 3);
    assert_int_equal(omp_get_max_threads(), 3);
    mq_context_free(context);
    context = NULL;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = SIZE_MAX}, &err),
                     MQ_ERR_USAGE);
    mq_alloc_fail_after(1);
    assert_int_equal(mq_context_new(&context, NULL, &err), MQ_ERR_MACHINE);
    mq_alloc_fail_after(0);
    assert_null(context);
    mq_context_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_agree_with_the_reference),
        cmocka_unit_test(a_linear_layer_and_its_gradients),
        cmocka_unit_test(what_is_not_added_to_is_not_read),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(sizes_beyond_the_blas_still_give_the_product),
        cmocka_unit_test(gram_matrices_agree_with_the_reference),
        cmocka_unit_test(threads_on_their_own_give_the_same_products),
        cmocka_unit_test(a_context_has_threads_and_a_blas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
