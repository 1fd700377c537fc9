/* layer: export */
/* Grids with a whole zero point: the same on all processors, close to the best there is, and exact
 * where they can be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fit_test.h"

enum { GROUPS = 37, SIZE_MOST = 300 };

/* Groups of a slice: fitted, and as they were. */
typedef struct groups {
    mq_fit_groups fitted;
    uint8_t codes[GROUPS * SIZE_MOST], slices[GROUPS * SIZE_MOST], zeros[GROUPS];
    float scales[GROUPS], own[GROUPS], biases[GROUPS];
} groups;

static void fit_with(const mq_fit_kernels *kernels, groups *g, size_t first, size_t count) {
    const size_t size = g->fitted.size;
    memcpy(g->codes, g->slices, sizeof g->codes);
    memcpy(g->scales, g->own, sizeof g->scales);
    memset(g->zeros, 0, sizeof g->zeros);
    g->fitted.codes = g->codes + first * size;
    g->fitted.scales = g->scales + first;
    g->fitted.biases = g->biases + first;
    g->fitted.zeros = g->zeros + first;
    g->fitted.count = count;
    g->fitted.error = g->fitted.power = 0;
    kernels->integer(&g->fitted);
}

/* Random ones about 0, now and then beyond it, with scales below 0 or of 0. */
static void make_groups(groups *g, uint32_t *state, unsigned width, size_t size, mq_dtype dtype) {
    memset(g, 0, sizeof *g);
    g->fitted = (mq_fit_groups){.size = size, .width = width, .dtype = dtype};
    const float last = (float)((1u << width) - 1);
    const float unit = powf(10, random_between(state, -4, 1));
    for (size_t i = 0; i < GROUPS; i++) {
        const float sign = i % 5 == 4 ? -1.0f : 1.0f;
        const float at = i % 7 == 6 ? random_between(state, -1.2f, 2) : random_between(state, 0, 1);
        g->own[i] = i % 19 == 18 ? 0 : half(sign * unit * random_between(state, 0.5f, 2));
        g->biases[i] = half(-at * last * (i % 19 == 18 ? unit : g->own[i]));
        for (size_t k = 0; k < size; k++) {
            g->slices[i * size + k] = (uint8_t)(next_random(state) % (1u << width));
        }
    }
}

static double value_of(const groups *g, size_t i, size_t k) {
    const float level = (float)g->slices[i * g->fitted.size + k];
    return (double)(g->own[i] * level + g->biases[i]);
}

/* Of the group as it was fitted. */
static double cost_of(const groups *g, size_t i) {
    double sum = 0;
    for (size_t k = 0; k < g->fitted.size; k++) {
        const double code = (double)g->codes[i * g->fitted.size + k] - (double)g->zeros[i];
        const double off = (double)g->scales[i] * code - value_of(g, i, k);
        sum += off * off;
    }
    return sum;
}

/* Of the group in nearest codes: its squared error, and the best scale for these. */
static double plain_cost(double *better, const groups *g, size_t i, double scale, double zero) {
    const double last = (1u << g->fitted.width) - 1;
    double error = 0, squares = 0, products = 0;
    for (size_t k = 0; k < g->fitted.size; k++) {
        const double value = value_of(g, i, k), near = scale > 0 ? nearbyint(value / scale) : 0;
        const double code = fmin(fmax(near, -zero), last - zero), off = scale * code - value;
        error += off * off;
        squares += code * code;
        products += code * value;
    }
    *better = squares > 0 ? products / squares : 0;
    return error;
}

/* The least cost of all zero points and of a raster of scales, each improved twice. */
static double least_cost(const groups *g, size_t i) {
    double least = INFINITY;
    for (unsigned zero = 0; zero < 1u << g->fitted.width; zero++) {
        for (double ratio = 0.4; ratio < 1.6; ratio += 0.01) {
            double scale = ratio * fabs((double)g->own[i]);
            for (unsigned turn = 0; turn < 3; turn++) {
                double better;
                least = fmin(least, plain_cost(&better, g, i, scale, zero));
                scale = better;
            }
        }
    }
    return least;
}

/* On this processor and on any, and each group as if it were alone. */
static void compare_integer(const mq_fit_kernels *kernels, uint32_t *state, unsigned round) {
    static const size_t sizes[] = {64, 20, 7, 130, SIZE_MOST};
    static const mq_dtype dtypes[] = {MQ_F16, MQ_BF16, MQ_F32};
    static groups base, other;
    make_groups(&base, state, 2 + round % 7, sizes[round % 5], dtypes[round % 3]);
    other = base;
    const size_t size = base.fitted.size, count = GROUPS - round % 3;
    fit_with(&mq_fit_kernels_base, &base, 0, count);
    fit_with(kernels, &other, 0, count);
    assert_memory_equal(base.codes, other.codes, sizeof base.codes);
    assert_memory_equal(base.scales, other.scales, sizeof base.scales);
    assert_memory_equal(base.zeros, other.zeros, sizeof base.zeros);
    assert_true(base.fitted.error == other.fitted.error);
    assert_true(base.fitted.power == other.fitted.power);
    for (size_t i = 0; i < count; i += 5) {
        fit_with(kernels, &other, i, 1);
        assert_true(other.scales[i] == base.scales[i] && other.zeros[i] == base.zeros[i]);
        assert_memory_equal(other.codes + i * size, base.codes + i * size, size);
    }
}

static void compare_groups(const mq_fit_kernels *kernels) {
    uint32_t noise = 11;
    for (unsigned round = 0; round < 105; round++) { /* all widths, sizes and element types */
        compare_integer(kernels, &noise, round);
    }
}

static void all_processors_fit_alike(void **state) {
    (void)state;
    on_every_processor(compare_groups);
}

/* What it says of the cost is the cost; and that is close to the least there is. */
static void whole_zero_points_are_close(void **state) {
    (void)state;
    static groups g;
    uint32_t noise = 3;
    for (unsigned width = 2; width <= 8; width++) {
        make_groups(&g, &noise, width, 64, MQ_F32);
        double all = 0, sum = 0, least = 0;
        fit_with(mq_fit_kernels_best(), &g, 0, GROUPS);
        for (size_t i = 0; i < GROUPS; i++) {
            all += cost_of(&g, i);
            if (i % 7 != 6 && i % 19 != 18) { /* zero points that are in reach */
                sum += cost_of(&g, i);
                least += least_cost(&g, i);
            }
        }
        assert_true(fabs(g.fitted.error - all) <= 1e-4 * all);
        assert_true(sum <= (width < 5 ? 1.05 : 1.25) * least);
    }
}

/* Beyond the zero points that there are the whole range is clipped or stretched, not lost. */
static void far_zero_points_are_reached(void **state) {
    (void)state;
    static groups g;
    uint32_t noise = 4;
    for (unsigned width = 2; width <= 8; width++) {
        for (float at = -3; at <= 4; at += 1.75f) {
            make_groups(&g, &noise, width, 64, MQ_F32);
            const float last = (float)((1u << width) - 1);
            for (size_t i = 0; i < GROUPS; i++) {
                g.biases[i] = half(-at * last * g.own[i]);
            }
            fit_with(mq_fit_kernels_best(), &g, 0, GROUPS);
            /* the distance of neighbours is at most that of the farthest end over all codes */
            const double reach = fmax(fabs((double)at), fabs(1 - (double)at));
            for (size_t i = 0; i < GROUPS; i++) {
                const double step = fabs((double)g.own[i]) * fmax(1, reach);
                assert_true(cost_of(&g, i) <= 64 * step * step / 4);
            }
        }
    }
}

/* A zero point that is whole already costs nothing, in scales that the type holds. */
static void whole_zero_points_are_exact(void **state) {
    (void)state;
    static groups g;
    uint32_t noise = 6;
    for (unsigned width = 2; width <= 8; width++) {
        for (unsigned zero = 0; zero < 1u << width; zero += 1 + width / 5) {
            make_groups(&g, &noise, width, 64, MQ_F16);
            for (size_t i = 0; i < GROUPS; i++) {
                g.own[i] = half(g.own[i] * 256) / 256;
                g.biases[i] = -g.own[i] * (float)zero;
            }
            fit_with(mq_fit_kernels_best(), &g, 0, GROUPS);
            assert_true(g.fitted.error == 0);
        }
    }
}

/* The same of groups in which few levels occur, where other grids come near enough for rounding to
 * make them look better; in every type that holds the scale. */
static void few_levels_are_exact_too(void **state) {
    (void)state;
    static const mq_dtype dtypes[] = {MQ_F16, MQ_F32};
    static groups g;
    uint32_t noise = 7;
    for (unsigned round = 0; round < 420; round++) {
        const unsigned width = 2 + round % 7, levels = 1 + round % 3;
        make_groups(&g, &noise, width, 32, dtypes[round % 2]);
        for (size_t i = 0; i < GROUPS; i++) {
            const unsigned zero = next_random(&noise) % (1u << width);
            uint8_t occur[3];
            for (size_t l = 0; l < levels; l++) {
                occur[l] = (uint8_t)(next_random(&noise) % (1u << width));
            }
            g.own[i] = half(g.own[i] * 256) / 256;
            g.biases[i] = -g.own[i] * (float)zero;
            for (size_t k = 0; k < 32; k++) {
                g.slices[i * 32 + k] = occur[next_random(&noise) % levels];
            }
        }
        fit_with(mq_fit_kernels_best(), &g, 0, GROUPS);
        assert_true(g.fitted.error == 0);
    }
}

/* Q8_0 of whole multiples of a step that float16 has. */
static void whole_multiples_are_exact(void **state) {
    (void)state;
    enum { BLOCKS = 64 };
    static float values[BLOCKS * MQ_FIT_BLOCK], scales[BLOCKS], steps[BLOCKS], errors[BLOCKS];
    static int8_t codes[BLOCKS * MQ_FIT_BLOCK];
    uint32_t noise = 8;
    for (unsigned round = 0; round < 300; round++) {
        for (size_t b = 0; b < BLOCKS; b++) {
            const unsigned levels = 1 + round % 4;
            float occur[4];
            steps[b] = half(random_between(&noise, 0.001f, 0.01f));
            for (size_t l = 0; l < levels; l++) {
                occur[l] = steps[b] * (float)((int)(next_random(&noise) % 255u) - 127);
            }
            for (size_t k = 0; k < MQ_FIT_BLOCK; k++) {
                values[b * MQ_FIT_BLOCK + k] = occur[next_random(&noise) % levels];
            }
        }
        mq_fit_kernels_best()->symmetric(scales, codes, errors, values, steps, BLOCKS);
        for (size_t i = 0; i < BLOCKS * MQ_FIT_BLOCK; i++) {
            assert_true(scales[i / MQ_FIT_BLOCK] * (float)codes[i] == values[i]);
        }
    }
}

/* Q8_0 of weights that are nearly the same, in a group whose own step is next to nothing, or 0: no
 * farther off than half a step of 127 to the largest. */
static void nearly_equal_weights_are_close(void **state) {
    (void)state;
    enum { BLOCKS = 64 };
    static const float small[] = {0, 1e-7f, 1e-5f, -1e-6f, 1e-3f};
    static float values[BLOCKS * MQ_FIT_BLOCK], scales[BLOCKS], steps[BLOCKS], errors[BLOCKS];
    static int8_t codes[BLOCKS * MQ_FIT_BLOCK];
    uint32_t noise = 9;
    for (unsigned round = 0; round < 300; round++) {
        const float spread = round % 3 == 0 ? 0 : 1e-4f;
        float common[BLOCKS];
        for (size_t b = 0; b < BLOCKS; b++) {
            steps[b] = small[(b + round) % 5];
            common[b] = random_between(&noise, 0.25f, 2) * (b % 2 == 0 ? 1 : -1);
            for (size_t k = 0; k < MQ_FIT_BLOCK; k++) {
                values[b * MQ_FIT_BLOCK + k] =
                    common[b] * (1 + random_between(&noise, -spread, spread));
            }
        }
        mq_fit_kernels_best()->symmetric(scales, codes, errors, values, steps, BLOCKS);
        for (size_t b = 0; b < BLOCKS; b++) {
            /* and what rounding the scale to float16 does to 127 of it */
            const double most = (0.51 + 127 * 0x1p-11) * fabs((double)common[b]) / 127;
            double error = 0;
            for (size_t k = b * MQ_FIT_BLOCK; k < (b + 1) * MQ_FIT_BLOCK; k++) {
                const double off = (double)scales[b] * codes[k] - (double)values[k];
                assert_true(fabs(off) <= most);
                error += off * off;
            }
            assert_true(fabs(error - (double)errors[b]) <= 1e-3 * error + 1e-9);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_processors_fit_alike),
        cmocka_unit_test(whole_zero_points_are_close),
        cmocka_unit_test(far_zero_points_are_reached),
        cmocka_unit_test(whole_zero_points_are_exact),
        cmocka_unit_test(few_levels_are_exact_too),
        cmocka_unit_test(whole_multiples_are_exact),
        cmocka_unit_test(nearly_equal_weights_are_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
