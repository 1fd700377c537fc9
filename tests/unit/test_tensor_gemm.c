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

typedef struct shape {
    size_t m, n, k;
} shape;

static const shape shapes[] = {{1, 1, 1},     {1, 7, 5},     {3, 1, 9},
                               {5, 4, 1},     {17, 33, 65},  {64, 64, 64},
                               {100, 77, 33}, {1, 256, 300}, {130, 3, 257}};

static void all_forms_agree_with_the_reference(void **state) {
    (void)state;
    const float factors[][2] = {{1, 0}, {1, 1}, {-0.5f, 0.25f}, {0, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s].m, n = shapes[s].n, k = shapes[s].k;
        for (unsigned form = 0; form < 16; form++) {
            bool trans_a = form & 1, trans_b = form & 2;
            const float *factor = factors[form / 4];
            size_t lda = (trans_a ? m : k) + form % 3; /* strided, too */
            size_t ldb = (trans_b ? k : n) + form % 2;
            size_t ldc = n + form % 5;
            float *a = random_numbers((trans_a ? k : m) * lda, form);
            float *b = random_numbers((trans_b ? n : k) * ldb, form + 100);
            float *c = random_numbers(m * ldc, form + 200);
            float *expected = random_numbers(m * ldc, form + 200);
            mq_gemm(c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, factor[0], factor[1]);
            mq_gemm_reference(expected, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, factor[0],
                              factor[1]);
            assert_close(c, expected, m * ldc, k);
            for (size_t i = 0; i < m; i++) { /* what is between the rows is nobody's */
                assert_memory_equal(c + i * ldc + n, expected + i * ldc + n, (ldc - n) * sizeof *c);
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
        const float kept = (float)beta;
        mq_gemm(y, OUT, x, IN, false, w, IN, true, ROWS, OUT, IN, 1, kept);
        mq_gemm(dx, IN, dy, OUT, false, w, IN, false, ROWS, IN, OUT, 1, kept);
        mq_gemm(dw, IN, dy, OUT, true, x, IN, false, OUT, IN, ROWS, 1, kept);
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

static void beta_zero_ignores_what_was_there(void **state) {
    (void)state;
    float a[4] = {1, 2, 3, 4};
    float c[4] = {NAN, INFINITY, NAN, NAN};
    float r[4] = {NAN, INFINITY, NAN, NAN};
    const float expected[4] = {7, 10, 15, 22};
    mq_gemm(c, 2, a, 2, false, a, 2, false, 2, 2, 2, 1, 0);
    mq_gemm_reference(r, 2, a, 2, false, a, 2, false, 2, 2, 2, 1, 0);
    assert_memory_equal(c, expected, sizeof c);
    assert_memory_equal(r, expected, sizeof r);
}

static void empty_products(void **state) {
    (void)state;
    float c[4] = {1, 2, NAN, 4};
    mq_gemm(c, 2, NULL, 0, false, NULL, 2, false, 0, 2, 3, 1, 0);
    mq_gemm(c, 0, NULL, 3, false, NULL, 0, false, 2, 0, 3, 1, 0);
    assert_true(c[0] == 1 && c[1] == 2 && isnan(c[2]) && c[3] == 4);
    mq_gemm(c, 2, NULL, 0, false, NULL, 2, false, 1, 2, 0, 1, 0.5f);
    assert_true(c[0] == 0.5f && c[1] == 1);
    mq_gemm(c, 2, NULL, 0, false, NULL, 2, false, 2, 2, 0, 1, 0);
    assert_true(c[0] == 0 && c[1] == 0 && c[2] == 0 && c[3] == 0);
}

/* One row needs no second, so that its leading dimension can be anything: more than the BLAS can
 * count. */
static void sizes_beyond_the_blas_still_give_the_product(void **state) {
    (void)state;
    const size_t huge = (size_t)1 << 33;
    float a[3] = {1, 2, 3}, b[3] = {4, 5, 6}, c = 0;
    mq_gemm(&c, huge, a, huge, false, b, huge, true, 1, 1, 3, 1, 0);
    assert_true(c == 32);
}

/* Upper triangles, and what is below them or between the rows is nobody's. */
static void gram_matrices_agree_with_the_reference(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t rows = shapes[s].m, n = shapes[s].k, ldx = n + s % 3, ldc = n + s % 4;
        float *x = random_numbers(rows * ldx, 7), *c = random_numbers(n * ldc, 8);
        float *before = random_numbers(n * ldc, 8), *expected = random_numbers(n * ldc, 8);
        mq_gemm_reference(expected, ldc, x, ldx, true, x, ldx, false, n, n, rows, 1, 1);
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
    mq_context *context = NULL;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 2}, NULL), MQ_OK);
    float *a = random_numbers(JOBS * SIZE * SIZE, 1), *b = random_numbers(JOBS * SIZE * SIZE, 2);
    float *alone = random_numbers(JOBS * SIZE * SIZE, 3),
          *together = random_numbers(JOBS * SIZE * SIZE, 4);
    mq_gemm_enter_single();
    for (size_t i = 0; i < JOBS; i++) {
        size_t at = i * SIZE * SIZE;
        mq_gemm(alone + at, SIZE, a + at, SIZE, false, b + at, SIZE, true, SIZE, SIZE, SIZE, 1, 0);
    }
    for (int repeat = 0; repeat < 20; repeat++) {
#pragma omp parallel for num_threads(4) schedule(dynamic, 1)
        for (size_t i = 0; i < JOBS; i++) {
            size_t at = i * SIZE * SIZE;
            mq_gemm(together + at, SIZE, a + at, SIZE, false, b + at, SIZE, true, SIZE, SIZE, SIZE,
                    1, 0);
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
        cmocka_unit_test(beta_zero_ignores_what_was_there),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(sizes_beyond_the_blas_still_give_the_product),
        cmocka_unit_test(gram_matrices_agree_with_the_reference),
        cmocka_unit_test(threads_on_their_own_give_the_same_products),
        cmocka_unit_test(a_context_has_threads_and_a_blas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
