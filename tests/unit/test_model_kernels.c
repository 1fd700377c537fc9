/* layer: model */
/* Every instruction set's kernels of a block that this processor has, against plain definitions in
 * double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel_tables.h"
#include "model/kernels.h"
#include "random_arrays.h"
#include "reference_ops.h"
#include "tensor/dtype.h"

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
    rmsnorm_forward_reference(expected, inv2, sum, weight, ROWS, N, EPS);
    check_close("add_rmsnorm", y, expected, COUNT, 5e-7);
    check_close("add_rmsnorm inv", inv, inv2, ROWS, 5e-7);
    kernels->rmsnorm_add(sum, inv, a, b, weight, ROWS, N, EPS);
    rmsnorm_forward_reference(normed, inv2, b, weight, ROWS, N, EPS);
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

enum { COUNT = 1003 };

/* What it does with rounded numbers, against the reference with the same numbers: kept ones are
 * those of mq_bf16_round; h is rounded to 8 bits, and off by what glu may be off by. */
static void check_glu_bf16(const mq_kernels *kernels, mq_activation activation, const float *gate,
                           const float *up, const float *dh) {
    mq_bf16 h[COUNT], unkept[COUNT], kept[2][COUNT];
    float values[COUNT], rounded[2][COUNT], dgate[COUNT], dup[COUNT], dup2[COUNT];
    const float *const given[2] = {gate, up};
    kernels->glu_bf16[activation](unkept, NULL, NULL, gate, up, COUNT);
    kernels->glu_bf16[activation](h, kept[0], kept[1], gate, up, COUNT);
    assert_memory_equal(h, unkept, sizeof h);
    glu_forward_reference(values, gate, up, COUNT, activation);
    for (size_t i = 0; i < COUNT; i++) {
        const double error = fabs((double)mq_bf16_value(h[i]) - (double)values[i]);
        assert_true(error <= 0x1.01p-8 * fabs((double)values[i]) + 4e-6);
        for (size_t which = 0; which < 2; which++) {
            assert_int_equal(kept[which][i], mq_bf16_round(given[which][i]));
            rounded[which][i] = mq_bf16_value(kept[which][i]);
        }
    }
    memcpy(dgate, dh, sizeof dgate); /* in place, as it is used */
    kernels->glu_backward_bf16[activation](dgate, dup, dgate, kept[0], kept[1], COUNT);
    glu_backward_reference(values, dup2, dh, rounded[0], rounded[1], COUNT, activation);
    check_close("dgate of rounded numbers", dgate, values, COUNT, 2e-6);
    check_close("dup of rounded numbers", dup, dup2, COUNT, 3e-7);
}

static void check_kernels(const mq_kernels *kernels) {
    float *gate = random_floats(COUNT, 12.0), *up = random_floats(COUNT, 1.0),
          *dh = random_floats(COUNT, 1.0);
    float *h = new_floats(COUNT), *h2 = new_floats(COUNT), *dup = new_floats(COUNT),
          *dup2 = new_floats(COUNT);
    for (mq_activation activation = MQ_SILU; activation <= MQ_GELU_TANH; activation++) {
        kernels->glu[activation](h, gate, up, COUNT);
        glu_forward_reference(h2, gate, up, COUNT, activation);
        check_close("glu", h, h2, COUNT, 3e-7);
        kernels->glu_backward[activation](h, dup, dh, gate, up, COUNT);
        glu_backward_reference(h2, dup2, dh, gate, up, COUNT, activation);
        check_close("dgate", h, h2, COUNT, 2e-6);
        check_close("dup", dup, dup2, COUNT, 3e-7);
        check_glu_bf16(kernels, activation, gate, up, dh);
    }
    double exact = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
        exact += (double)gate[i] * (double)up[i];
    }
    assert_true(fabs((double)kernels->dot(gate, up, COUNT) - exact) < 1e-3);
    memcpy(h, gate, sizeof *h * COUNT);
    rope_forward_reference(h, 1000, up, dh, 1, 1, 5, 200, 100);
    kernels->rope(gate, up, dh, 5, 200, 100, false);
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
    EXPECT_TABLE(mq_kernels);
    for (size_t i = 0; mq_kernels_at(i); i++) {
        check_kernels(mq_kernels_at(i));
    }
}

/* --- at every length -------------------------------------------------------------------------- */

/* `scale`: the sum of the magnitudes that the number is made of. */
static void check_number(const char *what, float got, double expected, double scale) {
    if (!(fabs((double)got - expected) <= 1e-6 * scale)) {
        fail_msg("%s: %.9g, expected %.9g (made of %.3g)", what, (double)got, expected, scale);
    }
}

static void check_rmsnorm(const mq_kernels *kernels, size_t n) {
    enum { ROWS = 3 };
    float *x = random_floats(ROWS * n, 2.0), *weight = random_floats(n, 2.0);
    float *y = new_floats(ROWS * n), *in_place = copy_floats(x, ROWS * n), inv[ROWS], again[ROWS];
    kernels->rmsnorm(y, inv, x, weight, ROWS, n, EPS);
    for (size_t r = 0; r < ROWS; r++) {
        double squares = 0.0;
        for (size_t i = 0; i < n; i++) {
            squares += (double)x[r * n + i] * (double)x[r * n + i];
        }
        const double exact = 1.0 / sqrt(squares / (double)n + (double)EPS);
        check_number("rmsnorm's inverse", inv[r], exact, exact);
        for (size_t i = 0; i < n; i++) {
            const double expected = (double)x[r * n + i] * exact * (double)weight[i];
            check_number("rmsnorm", y[r * n + i], expected, fabs(expected));
        }
    }
    kernels->rmsnorm(in_place, again, in_place, weight, ROWS, n, EPS);
    assert_memory_equal(in_place, y, ROWS * n * sizeof *y);
    assert_memory_equal(again, inv, sizeof inv);
    float *all[] = {x, weight, y, in_place};
    free_all(all, sizeof all / sizeof *all);
}

/* y_i = x_i·inv·w_i, where inv falls by inv³·x_i/n with x_i. */
typedef struct norm_case {
    size_t rows, n;
    float *x, *weight, *dy, *base, *before, *inv, *dx, *dweight;
} norm_case;

static void check_dx(const norm_case *c, const float *base) {
    for (size_t r = 0; r < c->rows; r++) {
        const float *x = c->x + r * c->n, *dy = c->dy + r * c->n;
        const double inv = (double)c->inv[r], share = pow(inv, 3.0) / (double)c->n;
        double dot = 0.0, dots = 0.0;
        for (size_t i = 0; i < c->n; i++) {
            const double product = (double)dy[i] * (double)c->weight[i] * (double)x[i];
            dot += product;
            dots += fabs(product);
        }
        for (size_t i = 0; i < c->n; i++) {
            const double before = base != NULL ? (double)base[r * c->n + i] : 0.0;
            const double through = inv * (double)dy[i] * (double)c->weight[i];
            const double along = share * (double)x[i];
            check_number("rmsnorm's dx", c->dx[r * c->n + i], before + through - along * dot,
                         fabs(before) + fabs(through) + fabs(along) * dots);
        }
    }
}

static void check_dweight(const norm_case *c) {
    for (size_t i = 0; i < c->n; i++) {
        double sum = (double)c->before[i], scale = fabs(sum);
        for (size_t r = 0; r < c->rows; r++) {
            const size_t at = r * c->n + i;
            const double part = (double)c->dy[at] * (double)c->x[at] * (double)c->inv[r];
            sum += part;
            scale += fabs(part);
        }
        check_number("rmsnorm's dweight", c->dweight[i], sum, scale);
    }
}

/* With and without a base, each gradient alone, and over dy and over the base. */
static void check_rmsnorm_backward(const mq_kernels *kernels, size_t n) {
    enum { ROWS = 3 };
    const size_t count = ROWS * n;
    const norm_case c = {
        ROWS,
        n,
        random_floats(count, 2.0),
        random_floats(n, 2.0),
        random_floats(count, 1.0),
        random_floats(count, 1.0),
        random_floats(n, 1.0),
        random_floats(ROWS, 2.0),
        new_floats(count),
        new_floats(n),
    };
    float *dy = copy_floats(c.dy, count), *base = copy_floats(c.base, count);
    memcpy(c.dweight, c.before, n * sizeof *c.dweight);
    kernels->rmsnorm_backward(c.dx, c.dweight, c.base, c.dy, c.x, c.inv, c.weight, ROWS, n);
    check_dx(&c, c.base);
    check_dweight(&c);
    kernels->rmsnorm_backward(base, NULL, base, c.dy, c.x, c.inv, c.weight, ROWS, n);
    assert_memory_equal(base, c.dx, count * sizeof *base);
    memcpy(c.dweight, c.before, n * sizeof *c.dweight);
    kernels->rmsnorm_backward(NULL, c.dweight, NULL, c.dy, c.x, c.inv, c.weight, ROWS, n);
    check_dweight(&c);
    kernels->rmsnorm_backward(c.dx, NULL, NULL, c.dy, c.x, c.inv, c.weight, ROWS, n);
    check_dx(&c, NULL);
    kernels->rmsnorm_backward(dy, NULL, NULL, dy, c.x, c.inv, c.weight, ROWS, n);
    assert_memory_equal(dy, c.dx, count * sizeof *dy);
    float *all[] = {c.x, c.weight, c.dy, c.base, c.before, c.inv, c.dx, c.dweight, dy, base};
    free_all(all, sizeof all / sizeof *all);
}

/* One rounding each: these are exact. What lies behind the last number stays. */
static void check_add_and_scale(const mq_kernels *kernels, size_t n) {
    const float factor = 0.3F;
    float *a = random_floats(n, 1.0), *b = random_floats(n, 1.0), *y = new_floats(n + 1);
    float *over_a = copy_floats(a, n), *over_b = copy_floats(b, n), *scaled = new_floats(n + 1);
    memcpy(scaled, a, n * sizeof *a);
    y[n] = scaled[n] = 7.0F;
    kernels->add(y, a, b, n);
    kernels->add(over_a, over_a, b, n);
    kernels->add(over_b, a, over_b, n);
    kernels->scale(scaled, factor, n);
    for (size_t i = 0; i < n; i++) {
        const float sum = a[i] + b[i], product = a[i] * factor;
        assert_true(y[i] == sum && over_a[i] == sum && over_b[i] == sum);
        assert_true(scaled[i] == product);
    }
    assert_true(y[n] == 7.0F && scaled[n] == 7.0F);
    float *all[] = {a, b, y, over_a, over_b, scaled};
    free_all(all, sizeof all / sizeof *all);
}

/* rest: the last numbers of a head, which stay as they are. */
static void check_rope(const mq_kernels *kernels, size_t half, size_t rest, bool inverse) {
    enum { HEADS = 3 };
    const size_t head_dim = 2 * half + rest, count = HEADS * head_dim;
    float *x = random_floats(count, 1.0), *turned = copy_floats(x, count);
    float *cosines = random_floats(half, 1.0), *sines = random_floats(half, 1.0);
    kernels->rope(turned, cosines, sines, HEADS, head_dim, half, inverse);
    for (size_t i = 0; i < HEADS * rest; i++) {
        const size_t at = i / rest * head_dim + 2 * half + i % rest;
        assert_true(turned[at] == x[at]);
    }
    for (size_t i = 0; i < HEADS * half; i++) {
        const size_t first = i / half * head_dim + i % half, second = first + half;
        const double a = (double)x[first], b = (double)x[second], c = (double)cosines[i % half];
        const double s = inverse ? -(double)sines[i % half] : (double)sines[i % half];
        check_number("rope's first", turned[first], a * c - b * s, fabs(a * c) + fabs(b * s));
        check_number("rope's second", turned[second], b * c + a * s, fabs(b * c) + fabs(a * s));
    }
    float *all[] = {x, turned, cosines, sines};
    free_all(all, sizeof all / sizeof *all);
}

static void test_every_length(void **state) {
    (void)state;
    for (size_t i = 0; mq_kernels_at(i); i++) {
        for (size_t n = 1; n < 300; n += n < 40 ? 1 : 43) {
            check_rmsnorm(mq_kernels_at(i), n);
            check_rmsnorm_backward(mq_kernels_at(i), n);
            check_add_and_scale(mq_kernels_at(i), n);
            check_rope(mq_kernels_at(i), n, 0, false);
            check_rope(mq_kernels_at(i), n, 0, true);
            check_rope(mq_kernels_at(i), n, 5, false);
            check_rope(mq_kernels_at(i), n, n, true);
        }
    }
}

/* --- bfloat16 --------------------------------------------------------------------------------- */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Every upper half: zeros, subnormals, infinities and NaN among them. The lower halves are a tie,
 * its neighbours, the ends, and what makes a NaN of an infinity. */
static void check_to_bf16(const mq_kernels *kernels) {
    enum { PATTERNS = 1 << 16 };
    static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    float *x = new_floats(PATTERNS);
    mq_bf16 *y = mq_calloc(PATTERNS, sizeof *y);
    assert_non_null(y);
    for (size_t l = 0; l < sizeof lower / sizeof *lower; l++) {
        for (uint32_t i = 0; i < PATTERNS; i++) {
            x[i] = float_of(i << 16 | lower[l]);
        }
        kernels->to_bf16(y, x, PATTERNS);
        for (uint32_t i = 0; i < PATTERNS; i++) {
            if (y[i] != mq_f32_to_bf16(x[i])) {
                fail_msg("%08x is rounded to %04x", i << 16 | lower[l], (unsigned)y[i]);
            }
        }
    }
    for (size_t n = 0; n < 70; n++) { /* x ends in NaNs, whose bits are not 0 */
        memset(y, 0, 100 * sizeof *y);
        kernels->to_bf16(y, x + PATTERNS - n, n);
        for (size_t i = 0; i < 100; i++) {
            assert_int_equal(y[i] != 0, i < n);
        }
    }
    mq_free(y);
    mq_free(x);
}

/* Sizes with and without rests of the squares that are turned at once; what lies between y's rows,
 * and before and after them, stays. */
static void check_to_bf16_turned(const mq_kernels *kernels) {
    static const size_t rows_of[] = {1, 2, 3, 31, 32, 33, 66, 96},
                        columns_of[] = {1, 15, 16, 17, 48, 83};
    enum { MOST_ROWS = 96, MOST_COLUMNS = 83, LD = MOST_ROWS + 5, KEPT = 0x1234 };
    static mq_bf16 y[LD * MOST_COLUMNS];
    float *x = random_floats((size_t)MOST_ROWS * MOST_COLUMNS, 3.0);
    for (size_t i = 0; i < 48; i++) {
        const size_t rows = rows_of[i % 8], columns = columns_of[i / 8], before = i % 5;
        for (size_t j = 0; j < (size_t)LD * MOST_COLUMNS; j++) {
            y[j] = KEPT;
        }
        kernels->to_bf16_turned(y + before, LD, x, rows, columns);
        for (size_t j = 0; j < (size_t)LD * MOST_COLUMNS; j++) {
            const size_t column = j / LD, row = j % LD - before; /* before: wraps to no row */
            const bool made = column < columns && row < rows;
            if (y[j] != (made ? mq_f32_to_bf16(x[row * columns + column]) : KEPT)) {
                fail_msg("%s: %zu x %zu, element %zu", kernels->name, rows, columns, j);
            }
        }
    }
    free_all(&x, 1);
}

static void test_to_bf16(void **state) {
    (void)state;
    for (size_t i = 0; mq_kernels_at(i); i++) {
        check_to_bf16(mq_kernels_at(i));
        check_to_bf16_turned(mq_kernels_at(i));
    }
}

int main(void) {
    mq_random_seed(&generator, 3, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_to_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
