/* layer: tensor */
/* oneDNN's products of bfloat16 against the plain triple loops; skipped where the program or the
 * processor has none. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "tensor/dtype.h"
#include "tensor/gemm.h"
#include "tensor/gemm_bf16.h"

#define THREADS 4

/* Before anything is allocated: what is skipped frees nothing. */
static void skip_unless_usable(void) {
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
}

static mq_gemm_bf16 *open_gemm(size_t threads) {
    skip_unless_usable();
    mq_gemm_bf16 *gemm;
    assert_int_equal(mq_gemm_bf16_new(&gemm, threads, NULL), MQ_OK);
    return gemm;
}

/* --- rounding --------------------------------------------------------------------------------- */

static void rounding_is_to_nearest_even(void **state) {
    (void)state;
    const float values[] = {0.0F,      -0.0F,     1.0F,  0x1.01p0F, 0x1.03p0F,    0x1.010002p0F,
                            -0x1.01p0, 0x1p-140F, NAN,   INFINITY,  -INFINITY,    0x1.fffffep127F,
                            3.14159F,  -1e-30F,   1e30F, 0x1.02p0F, 0x1.00fffep0F};
    enum { COUNT = sizeof values / sizeof *values };
    mq_bf16 rounded[COUNT];
    mq_bf16_round_all(rounded, values, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(rounded[i], mq_f32_to_bf16(values[i]));
    }
    assert_int_equal(rounded[3], 0x3f80); /* a tie goes to the even neighbour, down */
    assert_int_equal(rounded[4], 0x3f82); /* and up */
    mq_random random;
    mq_random_seed(&random, 3, 0);
    for (size_t i = 0; i < 100000; i++) {
        const float value =
            (float)((mq_random_unit(&random) - 0.5) * exp2((double)(i % 200) - 100));
        assert_int_equal(mq_bf16_round(value), mq_f32_to_bf16(value));
        assert_true(fabsf(mq_bf16_to_f32(mq_bf16_round(value)) - value) <= 0x1p-8F * fabsf(value));
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* One operand: the numbers, their magnitudes, the numbers rounded and what these are in float32. */
typedef struct operand {
    float *exact, *magnitude, *rounded;
    mq_bf16 *bf16;
} operand;

static operand new_operand(size_t count, uint64_t seed) {
    operand o = {malloc(count * sizeof(float)), malloc(count * sizeof(float)),
                 malloc(count * sizeof(float)), malloc(count * sizeof(mq_bf16))};
    assert_true(o.exact && o.magnitude && o.rounded && o.bf16);
    mq_random random;
    mq_random_seed(&random, seed, 0);
    for (size_t i = 0; i < count; i++) {
        o.exact[i] = (float)(mq_random_unit(&random) - 0.5);
        o.magnitude[i] = fabsf(o.exact[i]);
        o.bf16[i] = mq_bf16_round(o.exact[i]);
        o.rounded[i] = mq_bf16_to_f32(o.bf16[i]);
    }
    return o;
}

static void free_operand(operand *o) {
    free(o->exact);
    free(o->magnitude);
    free(o->rounded);
    free(o->bf16);
}

static void *scratch_for(const mq_gemm_bf16 *gemm) {
    void *scratch = mq_alloc(mq_gemm_bf16_scratch(gemm), 1);
    assert_non_null(scratch);
    return scratch;
}

/* b as the shape's products read it; nothing is written behind its end. */
static mq_bf16 *pack(const mq_gemm_bf16 *gemm, const mq_bf16 *b, const mq_gemm_shape *s,
                     void *scratch) {
    enum { BEYOND = 64 };
    const size_t size = mq_gemm_bf16_packed_size(gemm, s->k, s->n);
    assert_true(size >= s->n * s->k * sizeof *b);
    unsigned char *packed = mq_alloc(size + BEYOND, 1);
    assert_non_null(packed);
    memset(packed + size, 0x3c, BEYOND);
    mq_gemm_bf16_pack((mq_bf16 *)(void *)packed, b, s, gemm, scratch);
    for (size_t i = 0; i < BEYOND; i++) {
        assert_int_equal(packed[size + i], 0x3c);
    }
    return (mq_bf16 *)(void *)packed;
}

/* With Σ the sum of the magnitudes of all products and of what c held: of the rounded operands'
 * product, k roundings of float32 (twice, since the instructions may round a pair's sum on the
 * way); of the exact operands', 2^-8 for either operand (8 significant bits) and 2^-16 for both
 * besides. */
static void check_product(mq_gemm_bf16 *gemm, const mq_gemm_shape *s) {
    const size_t rows_a = s->trans_a ? s->k : s->m, rows_b = s->trans_b ? s->n : s->k;
    const size_t count = s->m * s->ldc;
    operand a = new_operand(rows_a * s->lda, 1), b = new_operand(rows_b * s->ldb, 2);
    operand before = new_operand(count, 3), c = new_operand(count, 3),
            exact = new_operand(count, 3), rounded = new_operand(count, 3);
    assert_int_equal(mq_gemm_bf16_prepare(gemm, s, NULL), MQ_OK);
    void *scratch = scratch_for(gemm);
    mq_bf16 *packed = s->packed_b ? pack(gemm, b.bf16, s, scratch) : NULL;
    mq_gemm_bf16_run(c.exact, a.bf16, packed != NULL ? packed : b.bf16, s, gemm, scratch);
    assert_int_equal(mq_gemm_bf16_check(gemm, NULL), MQ_OK);
    mq_free(packed);
    mq_free(scratch);
    mq_gemm_reference(exact.exact, a.exact, b.exact, s, 1.0F);
    mq_gemm_reference(rounded.exact, a.rounded, b.rounded, s, 1.0F);
    mq_gemm_reference(before.magnitude, a.magnitude, b.magnitude, s, 1.0F);
    for (size_t i = 0; i < count; i++) {
        if (i % s->ldc >= s->n) { /* what is between the rows is nobody's */
            assert_true(c.exact[i] == before.exact[i]);
            continue;
        }
        const double sum = (double)before.magnitude[i];
        const double of_sum = 2.0 * (double)(s->k + 2) * 0x1p-24 * 1.01 * sum;
        const double of_rounding = (0x1p-7 + 0x1p-16) * sum;
        assert_true(fabs((double)c.exact[i] - (double)rounded.exact[i]) <= of_sum);
        assert_true(fabs((double)c.exact[i] - (double)exact.exact[i]) <= of_sum + of_rounding);
    }
    operand *all[] = {&a, &b, &before, &c, &exact, &rounded};
    for (size_t i = 0; i < 6; i++) {
        free_operand(all[i]);
    }
}

static const size_t sizes[][3] = {{1, 1, 1},     {1, 7, 5},    {3, 1, 9},     {5, 4, 1},
                                  {17, 33, 65},  {64, 64, 64}, {100, 77, 33}, {1, 256, 300},
                                  {130, 3, 257}, {31, 48, 2},  {2, 2, 513}};

/* Forward (b transposed), input gradient, weight gradient (a transposed), with and without room
 * between rows, set and added to, from b as it is and packed. */
static void products_agree_with_the_reference(void **state) {
    (void)state;
    mq_gemm_bf16 *gemm = open_gemm(1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t form = 0; form < 24; form++) {
            mq_gemm_shape s = {.m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2]};
            s.trans_b = form % 3 == 0;
            s.trans_a = form % 3 == 2;
            s.accumulate = form / 3 % 2 == 1;
            s.packed_b = form >= 12;
            const size_t gap = form / 6 % 2 * 3;
            s.lda = (s.trans_a ? s.m : s.k) + gap;
            s.ldb = (s.trans_b ? s.k : s.n) + gap;
            s.ldc = s.n + gap;
            check_product(gemm, &s);
        }
    }
    mq_gemm_bf16_free(gemm);
}

/* Nor do they depend on how many threads there were when the product was made ready. */
static void threads_give_the_same_bytes(void **state) {
    (void)state;
    enum { JOBS = 12 };
    const mq_gemm_shape s = {
        .m = 96, .n = 80, .k = 515, .lda = 96, .ldb = 80, .ldc = 80, .trans_a = true};
    skip_unless_usable();
    operand a = new_operand(s.k * s.lda, 1), b = new_operand(s.k * s.ldb, 2);
    const size_t count = s.m * s.ldc;
    float *results = malloc(2 * JOBS * count * sizeof *results);
    assert_non_null(results);
    const int before = omp_get_max_threads();
    for (int round = 0; round < 2; round++) {
        const int threads = round == 0 ? 1 : THREADS;
        omp_set_num_threads(threads);
        mq_gemm_bf16 *gemm = open_gemm((size_t)threads);
        assert_int_equal(mq_gemm_bf16_prepare(gemm, &s, NULL), MQ_OK);
        assert_int_equal(omp_get_max_threads(), threads);
        const size_t size = mq_gemm_bf16_scratch(gemm);
        unsigned char *scratch = mq_alloc((size_t)threads, size);
        assert_non_null(scratch);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int job = 0; job < JOBS; job++) {
            mq_gemm_bf16_run(results + (size_t)(round * JOBS + job) * count, a.bf16, b.bf16, &s,
                             gemm, scratch + (size_t)omp_get_thread_num() * size);
        }
        assert_int_equal(mq_gemm_bf16_check(gemm, NULL), MQ_OK);
        mq_free(scratch);
        mq_gemm_bf16_free(gemm);
    }
    omp_set_num_threads(before);
    for (size_t job = 1; job < 2 * (size_t)JOBS; job++) {
        assert_memory_equal(results + job * count, results, count * sizeof *results);
    }
    free(results);
    free_operand(&a);
    free_operand(&b);
}

static void what_is_missing_is_said(void **state) {
    (void)state;
    mq_gemm_bf16 *gemm = NULL;
    mq_error err;
    if (mq_gemm_bf16_usable()) {
        assert_true(mq_gemm_bf16_built());
        char name[64];
        unsigned major, minor, patch;
        char isa[32];
        mq_gemm_bf16_describe(name, sizeof name);
        assert_int_equal(sscanf(name, "oneDNN %u.%u.%u %31s", &major, &minor, &patch, isa), 4);
        return;
    }
    const mq_status expected = mq_gemm_bf16_built() ? MQ_ERR_MACHINE : MQ_ERR_USAGE;
    assert_int_equal(mq_gemm_bf16_new(&gemm, 1, &err), expected);
    assert_null(gemm);
}

/* Our own allocations; the library's are its own affair. */
static void allocations_may_fail(void **state) {
    (void)state;
    const mq_gemm_shape s = {.m = 8, .n = 8, .k = 8, .lda = 8, .ldb = 8, .ldc = 8};
    mq_gemm_bf16_free(open_gemm(1));
    mq_gemm_bf16_free(NULL);
    mq_status status = MQ_ERR_MACHINE;
    for (size_t countdown = 1; status != MQ_OK; countdown++) {
        mq_gemm_bf16 *gemm;
        mq_alloc_fail_after(countdown);
        status = mq_gemm_bf16_new(&gemm, 2, NULL);
        if (status == MQ_OK) {
            status = mq_gemm_bf16_prepare(gemm, &s, NULL);
        }
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        mq_gemm_bf16_free(gemm);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(products_agree_with_the_reference),
        cmocka_unit_test(threads_give_the_same_bytes),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
