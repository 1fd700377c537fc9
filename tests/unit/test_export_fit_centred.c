/* layer: export */
/* The fits to Q3_K and Q6_K: near what a plain search of everything finds, exact where they can be,
 * harmless where there is nothing to fit, and of all processors the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fit_test.h"

enum { SUB = MQ_FIT_SUB, SUBS = MQ_FIT_SUBS, SUPER = SUBS * SUB };

static int scales_of(unsigned bits) { return bits == 3 ? 32 : 128; }
static int codes_of(unsigned bits) { return bits == 3 ? 4 : 32; }

/* Of the block as fit.h defines it: Σ (w - value)², divided by Σ value². Everything in its range.
 */
static double error_of(const mq_fit_centred *block, const float *values, unsigned bits) {
    double error = 0, power = 0;
    assert_true(isfinite(block->scale) && block->scale == half(block->scale));
    for (size_t i = 0; i < SUPER; i++) {
        const int scale = block->scales[i / SUB], code = block->codes[i];
        assert_in_range(scale + scales_of(bits), 0, 2 * scales_of(bits) - 1);
        assert_in_range(code, 0, 2 * codes_of(bits) - 1);
        const double off =
            (double)block->scale * scale * (code - codes_of(bits)) - (double)values[i];
        error += off * off;
        power += (double)values[i] * (double)values[i];
    }
    return power > 0 ? error / power : error;
}

static double fit(const float *values, const float *steps, unsigned bits) {
    mq_fit_centred block;
    memset(&block, 0xff, sizeof block);
    mq_fit_kernels_best()->centred(&block, values, steps, bits);
    return error_of(&block, values, bits);
}

/* Levels of the slice as a default master has them: steps and offsets of groups, codes that are
 * more often in the middle than at the ends. */
static void make_block(float *values, float *steps, uint32_t *state, unsigned width, size_t group) {
    const float last = (float)((1u << width) - 1);
    for (size_t first = 0; first < SUPER; first += group) {
        const float step = half(random_between(state, 0.01f, 0.02f) * 7 / last);
        const float offset = half(-step * last * random_between(state, 0.4f, 0.6f));
        for (size_t i = first; i < first + group; i++) {
            const float code = (random_between(state, 0, last) + random_between(state, 0, last) +
                                random_between(state, 0, last)) /
                               3;
            values[i] = step * nearbyintf(code) + offset;
            steps[i / SUB] = step;
        }
    }
}

/* --- beside a plain search -------------------------------------------------------------------- */

/* A sub-block's least error with this d: all scales, the nearest code for each weight. */
static double least_of_sub(const float *values, float d, unsigned bits) {
    double least = INFINITY;
    for (int scale = -scales_of(bits); scale < scales_of(bits); scale++) {
        const float part = d * (float)scale;
        double error = 0;
        for (size_t i = 0; i < SUB; i++) {
            float code = part != 0 ? nearbyintf(values[i] / part) : 0;
            code = fmaxf(fminf(code, (float)(codes_of(bits) - 1)), (float)-codes_of(bits));
            error += (double)((part * code - values[i]) * (part * code - values[i]));
        }
        least = error < least ? error : least;
    }
    return least;
}

/* Every d of a fine row of them, every scale: the reference, a thousand times as slow. */
static double plain_search(const float *values, unsigned bits, size_t tries) {
    float far = 0;
    double least = INFINITY, power = 0;
    for (size_t i = 0; i < SUPER; i++) {
        far = fmaxf(far, fabsf(values[i]));
        power += (double)values[i] * (double)values[i];
    }
    for (size_t k = 0; k < tries; k++) { /* from too small for the farthest weight to too large */
        const float at = 0.7f + 0.8f * (float)k / (float)tries;
        const float d = half(at * far / (float)(codes_of(bits) * scales_of(bits)));
        double error = 0;
        for (size_t j = 0; j < SUBS && error < least; j++) {
            error += least_of_sub(values + j * SUB, d, bits);
        }
        least = error < least ? error : least;
    }
    return least / power;
}

static void fits_are_near_a_plain_search(void **state) {
    (void)state;
    static const struct {
        unsigned bits;
        size_t blocks, tries;
        double times, ceiling; /* of the plain search's error; of all */
    } cases[] = {{3, 12, 60, 1.02, 2e-2}, {6, 4, 20, 1.25, 4e-4}};
    uint32_t random = 3;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const unsigned bits = cases[c].bits;
        double ours = 0, plain = 0;
        for (size_t k = 0; k < cases[c].blocks; k++) {
            float values[SUPER], steps[SUBS];
            make_block(values, steps, &random, bits, (size_t)32 << k % 4);
            const double error = fit(values, steps, bits);
            assert_true(error < 2 * cases[c].ceiling);
            ours += error;
            plain += plain_search(values, bits, cases[c].tries);
        }
        print_message("%u bits: %.4g, plain search %.4g\n", bits, ours / (double)cases[c].blocks,
                      plain / (double)cases[c].blocks);
        assert_true(ours <= cases[c].times * plain);
        assert_true(ours <= cases[c].ceiling * (double)cases[c].blocks);
    }
}

/* --- exact ------------------------------------------------------------------------------------ */

/* Weights that are some block's: with the lowest code in every sub-block, and the lowest scale. */
static void what_a_block_holds_is_found(void **state) {
    (void)state;
    uint32_t random = 5;
    const float steps[SUBS] = {0};
    for (unsigned bits = 3; bits <= 6; bits += 3) {
        const int codes = codes_of(bits), scales = scales_of(bits);
        for (unsigned round = 0; round < 50; round++) {
            const float d = half(random_between(&random, -0.01f, 0.01f));
            float values[SUPER];
            for (size_t i = 0, scale = 0; i < SUPER; i++) {
                if (i % SUB == 0) {
                    scale = i == 0 ? 0 : next_random(&random) % (unsigned)(2 * scales);
                }
                const int code = i % SUB == 5
                                     ? -codes
                                     : (int)(next_random(&random) % (unsigned)(2 * codes)) - codes;
                values[i] = d * (float)((int)scale - scales) * (float)code;
            }
            assert_true(fit(values, steps, bits) < 1e-12);
        }
    }
}

/* The slice's own step, where its zero point is in the middle, though the lowest code is rare. */
static void own_steps_are_exact(void **state) {
    (void)state;
    uint32_t random = 6;
    for (unsigned bits = 3; bits <= 6; bits += 3) {
        for (unsigned round = 0; round < 50; round++) {
            const float step = half(random_between(&random, 0.01f, 0.1f)) * (round % 2 ? 1 : -1);
            float values[SUPER], steps[SUBS];
            for (size_t i = 0; i < SUPER; i++) {
                const int size = 1 + (int)(i / SUB) % (codes_of(bits) - 1);
                values[i] =
                    step * (float)((int)(next_random(&random) % (unsigned)(2 * size)) - size);
                steps[i / SUB] = step;
            }
            assert_true(fit(values, steps, bits) == 0);
        }
    }
}

/* --- nothing to fit --------------------------------------------------------------------------- */

static void zeros_stay_zeros(void **state) {
    (void)state;
    float values[SUPER] = {0}, steps[SUBS] = {0};
    for (unsigned bits = 3; bits <= 6; bits += 3) {
        for (size_t k = 0; k < 2; k++) {
            mq_fit_centred block;
            mq_fit_kernels_best()->centred(&block, values, steps, bits);
            assert_true(block.scale == 0 && error_of(&block, values, bits) == 0);
            for (size_t j = 0; j < SUBS; j++) { /* the slice's step with nothing but its zero */
                steps[j] = 0.1f;
            }
        }
    }
}

/* 0.001 in Q6_K has a scale below float16's normal numbers. */
static void constants_are_close(void **state) {
    (void)state;
    static const float sizes[] = {65504.0f * 63, 65504, 1, 1e-3f, -1, -0.37f};
    float values[SUPER], steps[SUBS] = {0};
    for (unsigned bits = 3; bits <= 6; bits += 3) {
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            for (size_t i = 0; i < SUPER; i++) {
                values[i] = sizes[k];
            }
            assert_true(fit(values, steps, bits) < 1e-5);
            for (size_t i = SUB; i < SUPER; i++) { /* one sub-block, and nothing else */
                values[i] = 0;
            }
            assert_true(fit(values, steps, bits) < 1e-5);
        }
    }
}

/* Below float16's normal numbers precision goes, but nothing breaks. */
static void sizes_at_the_ends_are_fitted(void **state) {
    (void)state;
    uint32_t random = 7;
    float values[SUPER], steps[SUBS];
    for (unsigned bits = 3; bits <= 6; bits += 3) {
        const float tiny = 0x1p-24f, largest = 65504;
        for (size_t i = 0; i < SUPER; i++) {
            values[i] =
                tiny * (float)((int)(next_random(&random) % (unsigned)(2 * codes_of(bits))) -
                               codes_of(bits));
            steps[i / SUB] = tiny;
        }
        assert_true(fit(values, steps, bits) == 0);
        for (size_t i = 0; i < SUPER; i++) {
            values[i] *= 1e-12f;
            steps[i / SUB] = 0;
        }
        assert_true(fit(values, steps, bits) <= 1); /* zeros at worst */
        for (size_t i = 0; i < SUPER; i++) {
            values[i] = random_between(&random, -largest, largest) * (float)codes_of(bits);
        }
        assert_true(fit(values, steps, bits) < (bits == 3 ? 3e-2 : 1e-3));
        memset(values, 0, sizeof values);
        values[77] = largest;
        values[78] = values[200] = tiny; /* in its sub-block, and in another */
        assert_true(fit(values, steps, bits) < 1e-6);
    }
}

/* --- processors ------------------------------------------------------------------------------- */

static void compare(const mq_fit_kernels *kernels) {
    uint32_t random = 11;
    for (unsigned round = 0; round < 400; round++) {
        const unsigned bits = round % 2 == 0 ? 3 : 6;
        const float size = round % 20 == 19 ? 0 : powf(10, random_between(&random, -9, 6));
        float values[SUPER], steps[SUBS];
        for (size_t i = 0; i < SUPER; i++) {
            values[i] = round % 20 == 17 ? size : random_between(&random, -size, size);
            steps[i / SUB] = random_between(&random, -size, size) / 4;
        }
        mq_fit_centred blocks[2];
        mq_fit_kernels_base.centred(&blocks[0], values, steps, bits);
        kernels->centred(&blocks[1], values, steps, bits);
        assert_true(blocks[0].scale == blocks[1].scale);
        assert_memory_equal(blocks[0].scales, blocks[1].scales, sizeof blocks[0].scales);
        assert_memory_equal(blocks[0].codes, blocks[1].codes, sizeof blocks[0].codes);
    }
}

static void all_processors_fit_alike(void **state) {
    (void)state;
    on_every_processor(compare);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fits_are_near_a_plain_search),
        cmocka_unit_test(what_a_block_holds_is_found),
        cmocka_unit_test(own_steps_are_exact),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(constants_are_close),
        cmocka_unit_test(sizes_at_the_ends_are_fitted),
        cmocka_unit_test(all_processors_fit_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
