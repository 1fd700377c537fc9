/* layer: tensor */
/* Products in panels against the plain triple loops; skipped where the program or the processor has
 * no products of bfloat16. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "tensor/panels.h"

/* --- how a matrix is cut ---------------------------------------------------------------------- */

static void panels_cover_any_size(void **state) {
    (void)state;
    for (size_t size = 1; size < 30000; size++) {
        const mq_panels p = mq_panels_of(size);
        size_t covered = 0;
        for (size_t i = 0; i < p.count; i++) {
            assert_true(mq_panel_width(&p, i) > 0 && mq_panel_width(&p, i) <= MQ_PANEL);
            assert_true(i + 1 == p.count || mq_panel_width(&p, i) == p.width);
            assert_int_equal(mq_panel_at(&p, i, 3, 0), 3 * covered);
            covered += mq_panel_width(&p, i);
        }
        assert_int_equal(covered, size);
        assert_int_equal(p.width % MQ_PANEL_STEP, 0);
        assert_int_equal(p.count, (size + MQ_PANEL - 1) / MQ_PANEL);
    }
    assert_int_equal(mq_panels_of(576).count, 1);
    assert_int_equal(mq_panels_of(1536).width, 512);
    assert_int_equal(mq_panels_of(4096).width, 512);
}

/* What is packed for so many tokens has room for fewer: arrays are carved for the most. */
static void fewer_need_no_more(void **state) {
    (void)state;
    size_t most = 0;
    for (size_t size = 1; size < 30000; size++) {
        const mq_panels p = mq_panels_of(size);
        const size_t packed = p.count * (p.count > 1 ? p.width : size);
        assert_true(packed >= most);
        most = packed;
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* A product's operands, plain and in float32, and where they are in panels. */
typedef struct trial {
    size_t rows, a_rows, first, k, n;
    bool trans_b, in_panels, accumulate;
} trial;

enum { BEYOND = 16 };

static void *memory(size_t count, size_t size) {
    void *out = mq_calloc(count, size);
    assert_non_null(out);
    return out;
}

static float *random_floats(size_t count, uint64_t seed) {
    float *x = memory(count, sizeof *x);
    mq_random random;
    mq_random_seed(&random, seed, 0);
    for (size_t i = 0; i < count; i++) {
        x[i] = (float)(mq_random_unit(&random) - 0.5);
    }
    return x;
}

/* x[rows, columns] rounded, in panels or as it is; x becomes what was rounded. */
static mq_bf16 *rounded(float *x, size_t rows, size_t columns, bool in_panels) {
    mq_bf16 *out = memory(rows * columns, sizeof *out);
    const mq_panels p = mq_panels_of(columns);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            const size_t i = c / p.width;
            const size_t at =
                in_panels ? mq_panel_at(&p, i, rows, r) + (c - i * p.width) : r * columns + c;
            out[at] = mq_bf16_round(x[r * columns + c]);
            x[r * columns + c] = mq_bf16_value(out[at]);
        }
    }
    return out;
}

static mq_bf16 *packed_of(const mq_bf16 *plain, const mq_panelled *b, size_t rows,
                          const mq_products *products) {
    const size_t size = mq_panelled_size(products->gemm, b);
    mq_bf16 *packed = memory(size + BEYOND, sizeof *packed);
    for (size_t i = 0; i < BEYOND; i++) {
        packed[size + i] = 0x3c3c;
    }
    for (size_t j = 0; j < b->n.count; j++) {
        mq_panelled_pack(packed, plain, b, j, rows, products);
    }
    for (size_t i = 0; i < BEYOND; i++) {
        assert_int_equal(packed[size + i], 0x3c3c);
    }
    return packed;
}

/* The sum of the magnitudes is k/4 at most, and float32 rounds it k times (twice: the instructions
 * may round a pair's sum on the way). */
static void check_panel(const float *c, const float *expected, const trial *t, const mq_panels *n,
                        size_t j) {
    const size_t width = mq_panel_width(n, j);
    const double bound = 2.0 * ((double)t->k + 2.0) * 0x1p-24 * ((double)t->k / 4.0 + 1.0);
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t i = 0; i < width; i++) {
            const double error =
                (double)c[r * width + i] - (double)expected[r * t->n + j * n->width + i];
            assert_true(fabs(error) <= bound);
        }
    }
    for (size_t i = 0; i < BEYOND; i++) {
        assert_true(c[t->rows * width + i] == 7.0F);
    }
}

static void check_product(mq_gemm_bf16 *gemm, const trial *t) {
    const mq_panelled b = {.k = mq_panels_of(t->k),
                           .n = mq_panels_of(t->n),
                           .trans_b = t->trans_b,
                           .in_panels = t->in_panels};
    assert_int_equal(mq_panelled_prepare(gemm, &b, t->rows, NULL), MQ_OK);
    mq_products products = {.gemm = gemm, .scratch_size = mq_gemm_bf16_scratch(gemm)};
    products.scratch = memory(products.scratch_size + 1, 1);
    float *a = random_floats(t->a_rows * t->k, 1), *w = random_floats(t->k * t->n, 2);
    float *expected = memory(t->rows * t->n, sizeof *expected);
    mq_bf16 *a16 = rounded(a, t->a_rows, t->k, true);
    mq_bf16 *w16 =
        t->trans_b ? rounded(w, t->n, t->k, false) : rounded(w, t->k, t->n, t->in_panels);
    mq_bf16 *packed = packed_of(w16, &b, t->rows, &products);
    for (size_t i = 0; i < t->rows * t->n; i++) {
        expected[i] = t->accumulate ? 1.0F : 0.0F;
    }
    const mq_gemm_shape whole = {.m = t->rows,
                                 .n = t->n,
                                 .k = t->k,
                                 .lda = t->k,
                                 .ldb = t->trans_b ? t->k : t->n,
                                 .ldc = t->n,
                                 .trans_b = t->trans_b,
                                 .accumulate = t->accumulate};
    mq_gemm_reference(expected, a + t->first * t->k, w, &whole, 1.0F);
    float *c = memory(t->rows * MQ_PANEL + BEYOND, sizeof *c);
    for (size_t j = 0; j < b.n.count; j++) {
        const size_t count = t->rows * mq_panel_width(&b.n, j);
        for (size_t i = 0; i < count + BEYOND; i++) {
            c[i] = i >= count ? 7.0F : t->accumulate ? 1.0F : NAN;
        }
        mq_panelled_product(c, a16, t->a_rows, t->first, t->rows, packed, &b, j, t->accumulate,
                            &products);
        check_panel(c, expected, t, &b.n, j);
    }
    assert_int_equal(mq_gemm_bf16_check(gemm, NULL), MQ_OK);
    void *all[] = {products.scratch, a, w, expected, a16, w16, packed, c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        mq_free(all[i]);
    }
}

/* One panel and several, whole and with a rest, from each of the three ways that b may lie. */
static void products_agree_with_the_reference(void **state) {
    (void)state;
    static const size_t sizes[][2] = {{72, 40}, {200, 577}, {700, 96}, {1153, 1300}, {576, 576}};
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    mq_gemm_bf16 *gemm;
    assert_int_equal(mq_gemm_bf16_new(&gemm, 1, NULL), MQ_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t form = 0; form < 12; form++) {
            const trial t = {.rows = form / 3 % 2 == 0 ? 32 : 5,
                             .a_rows = 41,
                             .first = 7,
                             .k = sizes[i][0],
                             .n = sizes[i][1],
                             .trans_b = form % 3 == 0,
                             .in_panels = form % 3 == 1,
                             .accumulate = form >= 6};
            check_product(gemm, &t);
        }
    }
    mq_gemm_bf16_free(gemm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_cover_any_size),
        cmocka_unit_test(fewer_need_no_more),
        cmocka_unit_test(products_agree_with_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
