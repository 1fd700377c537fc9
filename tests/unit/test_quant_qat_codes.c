/* layer: quant */
/* Codes that move: what moves one layer's, and what they may become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/random.h"
#include "quant/qat_codes.h"

enum { OUT = 3, IN = 320, GROUPS = 2, COUNT = IN / GROUPS };

static const unsigned three[] = {8, 4, 2}, two[] = {5, 3};
static const double lambdas[] = {10.0, 3.0, 1.0};

typedef struct layer {
    mq_qat_rule rule;
    mq_qat_codes codes;
    float *gradient[MQ_MAX_WIDTHS], *scale[MQ_MAX_WIDTHS];
    mq_slab slab;
    mq_random random;
} layer;

static void carve_layer(layer *l) {
    mq_qat_codes_carve(&l->codes, &l->rule, OUT, IN, GROUPS, &l->slab);
    for (size_t k = 0; k < l->rule.width_count; k++) {
        l->gradient[k] = mq_carve(&l->slab, OUT, IN * sizeof(float));
        l->scale[k] = mq_carve(&l->slab, OUT, GROUPS * sizeof(float));
    }
}

static void fill_gradients(layer *l) {
    for (size_t k = 0; k < l->rule.width_count; k++) {
        for (size_t i = 0; i < OUT * IN; i++) {
            l->gradient[k][i] = (float)(mq_random_unit(&l->random) - 0.5);
        }
        for (size_t g = 0; g < OUT * GROUPS; g++) {
            const double unit = 256.0 / (double)(1u << l->rule.widths[k]);
            l->scale[k][g] = (float)(unit * (0.01 + 0.01 * mq_random_unit(&l->random)));
        }
    }
}

/* Offsets of up to `spread` steps. */
static void make_layer(layer *l, const unsigned *widths, size_t count, mq_slice_rule rule,
                       mq_zero_point zero_point, double spread) {
    *l = (layer){.rule = mq_qat_rule_of(widths, lambdas, count, rule, zero_point)};
    mq_random_seed(&l->random, 11, count);
    carve_layer(l);
    assert_int_equal(mq_slab_allocate(&l->slab, "a layer", NULL), MQ_OK);
    carve_layer(l);
    for (size_t i = 0; i < OUT * IN; i++) {
        l->codes.start[i] = (uint8_t)(1 + mq_random_below(&l->random, 255));
    }
    mq_qat_codes_begin(&l->codes);
    assert_memory_equal(l->codes.now, l->codes.start, OUT * IN);
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        for (size_t i = 0; i < OUT * IN; i++) {
            l->codes.offset[j][i] = (float)(spread * (2.0 * mq_random_unit(&l->random) - 1.0));
        }
    }
    fill_gradients(l);
}

/* The soft path of one weight in double, the floors' remainders held (straight through): what each
 * width's slice is, before its scale. remainder[j] is set, or, if `held`, taken. level 8 is last.
 */
static void soft_path(double soft[MQ_MAX_WIDTH + 1], double remainder[MQ_MAX_WIDTHS + 1], bool held,
                      const mq_qat_rule *rule, const double offset[], unsigned start) {
    double parent = 0.0;
    unsigned parent_width = 0;
    for (size_t j = 0; j <= rule->offset_count; j++) {
        const bool last = j == rule->offset_count;
        const unsigned width = last ? 8 : rule->widths[rule->width_count - 1 - j];
        const double levels = (double)(1u << width), room = levels / (double)(1u << parent_width);
        const double begin = parent * room, end = begin + room;
        const double u = ((double)start + 0.5) / 256.0 * levels + (last ? 0.0 : offset[j]);
        /* The clamp's ends move with the parent; those of the narrowest level do not stop it. */
        double s = j > 0 && u < begin ? begin : j > 0 && u > end ? end : u;
        if (!held) {
            const double inner = fmin(fmax(s, begin), end - 1e-9);
            remainder[j] = s - fmin(floor(inner), nearbyint(end) - 1.0);
        }
        s -= remainder[j];
        soft[width] = s;
        parent = s;
        parent_width = width;
    }
}

/* Σ λ·factor·scale·gradient·slice of one weight, for its finite differences by each offset. */
static double path_loss(const layer *l, const double offset[], double remainder[], size_t at,
                        const float gradient[], const double factor[]) {
    double soft[MQ_MAX_WIDTH + 1], sum = 0.0;
    soft_path(soft, remainder, true, &l->rule, offset, l->codes.start[at]);
    for (size_t k = 0; k < l->rule.width_count; k++) {
        sum += l->rule.lambda[k] * factor[k] * (double)l->scale[k][at / COUNT] *
               (double)gradient[k] * soft[l->rule.widths[k]];
    }
    return sum;
}

static void nested_slopes(double slope[MQ_MAX_WIDTHS], const layer *l, size_t at,
                          const float gradient[], const double factor[]) {
    double offset[MQ_MAX_WIDTHS] = {0}, soft[MQ_MAX_WIDTH + 1], remainder[MQ_MAX_WIDTHS + 1];
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        offset[j] = (double)l->codes.offset[j][at];
    }
    soft_path(soft, remainder, false, &l->rule, offset, l->codes.start[at]);
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        const double kept = offset[j], h = 1e-7;
        offset[j] = kept + h;
        const double above = path_loss(l, offset, remainder, at, gradient, factor);
        offset[j] = kept - h;
        slope[j] = (above - path_loss(l, offset, remainder, at, gradient, factor)) / (2.0 * h);
        offset[j] = kept;
    }
}

static void plain_slope(double slope[MQ_MAX_WIDTHS], const layer *l, size_t at,
                        const float gradient[], const double factor[]) {
    const unsigned narrowest = l->rule.widths[l->rule.width_count - 1];
    slope[0] = 0.0;
    for (size_t k = 0; k < l->rule.width_count; k++) {
        slope[0] += l->rule.lambda[k] * factor[k] * (double)l->scale[k][at / COUNT] *
                    (double)gradient[k] * (double)(1u << (l->rule.widths[k] - narrowest));
    }
}

/* The first step is rate times the gradient over its group's root mean square: all offsets of a
 * group then stand in the ratio of their gradients, which are known. */
static void check_step(const unsigned *widths, size_t count, mq_slice_rule rule, bool skip) {
    layer l;
    make_layer(&l, widths, count, rule, MQ_ZERO_FLOAT, 1.2);
    static double slope[MQ_MAX_WIDTHS][OUT * IN];
    static float before[MQ_MAX_WIDTHS][OUT * IN];
    const double factor[MQ_MAX_WIDTHS] = {skip ? 0.0 : 4.0, 1.0, 1.0};
    for (size_t at = 0; at < OUT * IN; at++) {
        float gradient[MQ_MAX_WIDTHS];
        double own[MQ_MAX_WIDTHS];
        for (size_t k = 0; k < count; k++) {
            gradient[k] = l.gradient[k][at];
        }
        (l.rule.nested ? nested_slopes : plain_slope)(own, &l, at, gradient, factor);
        for (size_t j = 0; j < l.rule.offset_count; j++) {
            slope[j][at] = own[j];
            before[j][at] = l.codes.offset[j][at];
        }
    }
    const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 0.0f, 1e-3f, 0, 100);
    if (skip) {
        l.gradient[0] = NULL;
    }
    mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
    for (size_t j = 0; j < l.rule.offset_count; j++) {
        for (size_t g = 0; g < OUT * GROUPS; g++) {
            double squares = 0.0;
            for (size_t at = g * COUNT; at < (g + 1) * COUNT; at++) {
                squares += slope[j][at] * slope[j][at];
            }
            const double rate = 1e-3 / sqrt(squares / COUNT);
            assert_true(squares > 0.0);
            for (size_t at = g * COUNT; at < (g + 1) * COUNT; at++) {
                const double unit = (double)(1u << (8 - widths[count - 1]));
                const double z = ((double)l.codes.start[at] + 0.5) / unit;
                double expected = (double)before[j][at] - rate * slope[j][at];
                if (j == 0) { /* inside the codes' ends */
                    expected = fmin(fmax(expected, -z), 256.0 / unit - z);
                }
                if (!(fabs((double)l.codes.offset[j][at] - expected) < 2e-6)) {
                    fail_msg("offset %zu of weight %zu: %.8f, not %.8f (it was %.8f)", j, at,
                             (double)l.codes.offset[j][at], expected, (double)before[j][at]);
                }
            }
        }
    }
    mq_slab_free(&l.slab);
}

static void steps_follow_the_soft_path(void **state) {
    (void)state;
    check_step(three, 3, MQ_SLICE_TOP, false);
    check_step(three, 3, MQ_SLICE_TOP, true);
    check_step(two, 2, MQ_SLICE_TOP, false);
    check_step(three, 3, MQ_SLICE_ROUND, false);
    check_step(three, 3, MQ_SLICE_ROUND, true);
}

/* Of a code that has moved, every width's slice is what its own level decided. */
static void slices_are_what_was_trained(void **state) {
    (void)state;
    layer l;
    make_layer(&l, three, 3, MQ_SLICE_TOP, MQ_ZERO_FLOAT, 1.5);
    const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 0.0f, 0.0f, 0,
                                    100); /* a step that makes codes alone */
    const double factor[] = {1.0, 1.0, 1.0};
    mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
    size_t moved = 0;
    for (size_t at = 0; at < OUT * IN; at++) {
        const unsigned start = l.codes.start[at], now = l.codes.now[at];
        const float z = ((float)start + 0.5f) / 256.0f;
        const float u2 = fminf(fmaxf(4.0f * z + l.codes.offset[0][at], 0.0f), 3.0f);
        const unsigned s2 = (unsigned)u2;
        const float begin4 = 4.0f * (float)s2;
        const float u4 = fminf(fmaxf(16.0f * z + l.codes.offset[1][at], begin4), begin4 + 3.0f);
        const unsigned s4 = (unsigned)u4;
        assert_int_equal(mq_slice_code(now, 2, MQ_SLICE_TOP), s2);
        assert_int_equal(mq_slice_code(now, 4, MQ_SLICE_TOP), s4);
        /* 8 bits: where they were, or at the nearer edge of what int4 has decided. */
        const unsigned first = 16 * s4, last = 16 * s4 + 15;
        assert_int_equal(now, start < first ? first : start > last ? last : start);
        moved += now != start;
    }
    assert_true(moved > OUT * IN / 2);
    mq_slab_free(&l.slab);
}

static void codes_stay_codes(void **state) {
    (void)state;
    layer l;
    for (size_t trial = 0; trial < 4; trial++) {
        const bool symmetric = trial == 3;
        make_layer(&l, trial == 1 ? two : three, trial == 1 ? 2 : 3,
                   trial < 2 ? MQ_SLICE_TOP : MQ_SLICE_ROUND,
                   symmetric ? MQ_ZERO_SYMMETRIC : MQ_ZERO_FLOAT, 0.0);
        const double factor[] = {1.0, 1.0, 1.0};
        size_t least = 255, most = 0;
        for (size_t step = 0; step < 50; step++) {
            const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 0.0f, 0.5f, step, 100);
            fill_gradients(&l); /* each weight its own way, all the time */
            for (size_t k = 0; k < l.rule.width_count; k++) {
                for (size_t i = 0; i < OUT * IN; i++) {
                    l.gradient[k][i] = copysignf(l.gradient[k][i], i % 2 == 0 ? 1.0f : -1.0f);
                }
            }
            mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
        }
        for (size_t i = 0; i < OUT * IN; i++) {
            least = l.codes.now[i] < least ? l.codes.now[i] : least;
            most = l.codes.now[i] > most ? l.codes.now[i] : most;
            /* Straight to its end, and not beyond it: back at once. */
            const float unit = (float)(1u << (8 - l.rule.widths[l.rule.width_count - 1]));
            const float u = ((float)l.codes.start[i] + 0.5f) / unit + l.codes.offset[0][i];
            assert_true(u > -1e-3f && u < 256.0f / unit + 1e-3f);
        }
        /* Where widths decide their own bits, 8 bits only follow to an edge. */
        const unsigned shift = l.rule.nested ? 8 - l.rule.widths[l.rule.width_count - 1] : 0;
        assert_int_equal(least >> shift, symmetric ? 1 : 0);
        assert_int_equal(most >> shift, 255 >> shift);
        mq_slab_free(&l.slab);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_the_soft_path),
        cmocka_unit_test(slices_are_what_was_trained),
        cmocka_unit_test(codes_stay_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
