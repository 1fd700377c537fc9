/* layer: export */
/* Blocks of GGUF's types: exact where they can be, close where not. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "export/gguf_blocks.h"
#include "export/integer_grid.h"
#include "fit_test.h"
#include "reference_pack.h"

enum { IN = 512 };

typedef struct sample {
    uint8_t slices[IN];
    float scales[IN], biases[IN], values[IN];
} sample;

/* A row of groups with steps about 0.1 and minima about -half of the range; offset moves them all.
 */
static mq_row make_row(sample *s, unsigned width, size_t groups, float offset) {
    uint32_t state = width * 7 + (uint32_t)groups;
    const size_t size = IN / groups;
    for (size_t g = 0; g < groups; g++) {
        s->scales[g] = half(0.05f + 0.1f * (float)(next_random(&state) % 1000) / 1000);
        s->biases[g] =
            half(offset - s->scales[g] * (float)((1u << width) - 1) *
                              (0.4f + 0.2f * (float)(next_random(&state) % 1000) / 1000));
        for (size_t i = g * size; i < (g + 1) * size; i++) {
            s->slices[i] = (uint8_t)(next_random(&state) % (1u << width));
            s->values[i] = s->scales[g] * (float)s->slices[i] + s->biases[g];
        }
    }
    return (mq_row){IN, groups, width, s->slices, s->scales, s->biases, s->values};
}

static float half_at(const unsigned char *at) {
    return mq_f16_to_f32((uint16_t)(at[0] | at[1] << 8));
}

/* Number j of the 6-bit numbers of Q4_K and Q5_K: 4 scales, 4 minima, then the low halves of the
 * other 4 of both, whose high bits are the highest of the first. */
static float six_bits(const unsigned char *at, size_t j, bool minimum) {
    const unsigned high = at[(j & 3u) + (minimum ? 4 : 0)];
    const unsigned low = minimum ? at[8 + (j & 3u)] >> 4 : at[8 + (j & 3u)] & 15u;
    return (float)(j < 4 ? high & 63u : low | (high >> 6) << 4);
}

static unsigned bits_at(const unsigned char *b, size_t at, size_t shift, unsigned mask) {
    const unsigned byte = b[at];
    return byte >> shift & mask;
}

static float decode_k(const unsigned char *b, mq_ggml_type type, size_t i) {
    const size_t shift = i % 128 / 32 * 2, quarter = i / 128 * 32 + i % 32;
    if (type == MQ_GGML_Q3_K) {
        const size_t j = i / 16;
        const unsigned low = bits_at(b, 96 + j % 8, 4 * (j / 8), 15);
        const unsigned high = bits_at(b, 104 + j % 4, 2 * (j / 4), 3);
        const unsigned code = bits_at(b, 32 + quarter, shift, 3) | bits_at(b, i % 32, i / 32, 1)
                                                                       << 2;
        return half_at(b + 108) * ((float)(low | high << 4) - 32) * ((float)code - 4);
    }
    if (type == MQ_GGML_Q6_K) {
        const unsigned code = bits_at(b, i / 128 * 64 + i % 64, i % 128 / 64 * 4, 15) |
                              bits_at(b, 128 + quarter, shift, 3) << 4;
        return half_at(b + 208) * (float)(int8_t)b[192 + i / 16] * ((float)code - 32);
    }
    const bool fifth = type == MQ_GGML_Q5_K;
    unsigned code = bits_at(b, (fifth ? 48u : 16u) + i / 64 * 32 + i % 32, i % 64 / 32 * 4, 15);
    if (fifth) {
        code |= bits_at(b, 16 + i % 32, i / 32, 1) << 4;
    }
    return half_at(b) * six_bits(b + 4, i / 32, false) * (float)code -
           half_at(b + 2) * six_bits(b + 4, i / 32, true);
}

/* The definitions of gguf_blocks.h, weight by weight. */
static float decode(const unsigned char *row, mq_ggml_type type, size_t index) {
    const size_t block = mq_ggml_block(type), i = index % block;
    const unsigned char *b = row + index / block * mq_ggml_row_bytes(type, block);
    if (type == MQ_GGML_Q4_1 || type == MQ_GGML_Q5_1) {
        const unsigned char *codes = b + (type == MQ_GGML_Q5_1 ? 8 : 4);
        unsigned code = i < 16 ? codes[i] & 15u : codes[i - 16] >> 4;
        if (type == MQ_GGML_Q5_1) {
            code |= (b[4 + i / 8] >> i % 8 & 1u) << 4;
        }
        return half_at(b) * (float)code + half_at(b + 2);
    }
    if (type == MQ_GGML_Q8_0) {
        return half_at(b) * (float)(int8_t)b[2 + i];
    }
    if (type == MQ_GGML_F16) {
        return half_at(b);
    }
    if (type == MQ_GGML_Q3_K || type == MQ_GGML_Q4_K || type == MQ_GGML_Q5_K ||
        type == MQ_GGML_Q6_K) {
        return decode_k(b, type, i);
    }
    const unsigned code = b[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3u;
    return half_at(b + 80) * (float)(b[i / 16] & 15) * (float)code -
           half_at(b + 82) * (float)(b[i / 16] >> 4);
}

/* Relative squared error of what was encoded; what encode says of it must be that. */
static double encoded_error(const mq_row *row, mq_ggml_type type) {
    unsigned char out[IN * 2];
    double said = 0, error = 0, power = 0;
    mq_ggml_encode(out, &said, row, type);
    for (size_t i = 0; i < IN; i++) {
        const double d = (double)decode(out, type, i) - (double)row->values[i];
        error += d * d;
        power += (double)row->values[i] * (double)row->values[i];
    }
    assert_true(fabs(said - error) <= 1e-5 * error + 1e-12);
    return error / power;
}

static void an_offset_is_exact(void **state) {
    (void)state;
    sample s;
    for (size_t groups = 1; groups <= IN / 32; groups *= 2) {
        for (unsigned width = 2; width <= 5; width++) {
            const mq_row row = make_row(&s, width, groups, 0.3f);
            if (width <= 4) {
                assert_true(encoded_error(&row, MQ_GGML_Q4_1) == 0);
            }
            assert_true(encoded_error(&row, MQ_GGML_Q5_1) == 0);
        }
    }
}

/* Super-blocks that lie in one group hold its codes as they are, with the zero point in the middle
 * where the type has no offset. */
static void whole_super_blocks_are_exact(void **state) {
    (void)state;
    static const struct {
        mq_ggml_type type;
        unsigned bits;
        bool symmetric;
    } cases[] = {{MQ_GGML_Q2_K, 2, false},
                 {MQ_GGML_Q3_K, 3, true},
                 {MQ_GGML_Q4_K, 4, false},
                 {MQ_GGML_Q5_K, 5, false},
                 {MQ_GGML_Q6_K, 6, true}};
    sample s;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        for (size_t groups = 1; groups <= IN / 256; groups++) {
            for (unsigned width = 2; width <= cases[k].bits; width++) {
                mq_row row = make_row(&s, width, groups, 0.3f);
                for (size_t i = 0; cases[k].symmetric && i < IN; i++) {
                    const size_t g = i * groups / IN;
                    s.biases[g] = -s.scales[g] * (float)(1u << (width - 1));
                    s.values[i] = s.scales[g] * (float)s.slices[i] + s.biases[g];
                }
                row.values = NULL; /* the codes are enough */
                unsigned char out[IN * 2];
                double error = 0;
                mq_ggml_encode(out, &error, &row, cases[k].type);
                assert_true(error == 0);
                for (size_t i = 0; i < IN; i++) {
                    assert_true(decode(out, cases[k].type, i) == s.values[i]);
                }
            }
        }
    }
}

/* Uniform levels over a range R have an error of R²/12 of (levels - 1)²; a fit must come near what
 * the type's step allows. */
static void other_types_are_close(void **state) {
    (void)state;
    sample s;
    mq_row row = make_row(&s, 8, 8, 0);
    assert_true(encoded_error(&row, MQ_GGML_Q8_0) < 5e-5);
    assert_true(encoded_error(&row, MQ_GGML_F16) < 1e-6);
    row = make_row(&s, 2, 8, 0);
    assert_true(encoded_error(&row, MQ_GGML_Q2_K) < 6e-3);
    row = make_row(&s, 2, 32, 0);
    assert_true(encoded_error(&row, MQ_GGML_Q2_K) < 1e-2);
    row = make_row(&s, 2, 8, 5); /* far from 0 on the side that has no minimum */
    assert_true(encoded_error(&row, MQ_GGML_Q2_K) < 2e-2);
    for (size_t groups = 8; groups <= 32; groups *= 4) {
        row = make_row(&s, 3, groups, 0);
        assert_true(encoded_error(&row, MQ_GGML_Q3_K) < 3e-2);
        row = make_row(&s, 6, groups, 0);
        assert_true(encoded_error(&row, MQ_GGML_Q6_K) < 4e-4);
    }
    row = make_row(&s, 3, 8, 5); /* all weights on one side of 0 */
    assert_true(encoded_error(&row, MQ_GGML_Q3_K) < 3e-3);
    row = make_row(&s, 4, 32, 0); /* two groups a block */
    assert_true(encoded_error(&row, MQ_GGML_Q4_1) < 6e-3);
    memset(s.values, 0, sizeof s.values);
    memset(s.scales, 0, sizeof s.scales);
    memset(s.biases, 0, sizeof s.biases);
    unsigned char out[IN * 2];
    double error = 0;
    const mq_ggml_type types[] = {MQ_GGML_Q8_0, MQ_GGML_Q2_K, MQ_GGML_Q3_K, MQ_GGML_Q6_K,
                                  MQ_GGML_Q4_1};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        mq_ggml_encode(out, &error, &row, types[t]);
        for (size_t i = 0; i < IN; i++) {
            assert_true(decode(out, types[t], i) == 0);
        }
    }
    assert_true(error == 0);
}

/* Blocks of Q8_0, as many as go side by side and some more, on both processors. */
static void compare_symmetric(const mq_fit_kernels *kernels, uint32_t *state, float size) {
    enum { BLOCKS = 37 };
    float values[BLOCKS * MQ_FIT_BLOCK], scales[2][BLOCKS], errors[2][BLOCKS], steps[BLOCKS];
    int8_t codes[2][BLOCKS * MQ_FIT_BLOCK];
    for (size_t i = 0; i < BLOCKS * MQ_FIT_BLOCK; i++) {
        values[i] = i / MQ_FIT_BLOCK % 20 == 18 ? size : random_between(state, -size, size);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        steps[i] = size / 127 * random_between(state, -2, 2);
    }
    mq_fit_kernels_base.symmetric(scales[0], codes[0], errors[0], values, steps, BLOCKS);
    kernels->symmetric(scales[1], codes[1], errors[1], values, steps, BLOCKS);
    assert_memory_equal(scales[0], scales[1], sizeof scales[0]);
    assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
    assert_memory_equal(errors[0], errors[1], sizeof errors[0]);
    for (size_t i = 0; i < BLOCKS; i++) { /* each is fitted as if it were alone */
        kernels->symmetric(scales[0], codes[0], errors[0], values + i * MQ_FIT_BLOCK, steps + i, 1);
        assert_true(scales[0][0] == scales[1][i] && errors[0][0] == errors[1][i]);
        assert_memory_equal(codes[0], codes[1] + i * MQ_FIT_BLOCK, MQ_FIT_BLOCK);
    }
}

/* Super-blocks of Q2_K on both processors: of 16 numbers, each of which is a weight, and of the
 * four levels that are wished for. */
static void compare_super(const mq_fit_kernels *kernels, uint32_t *state, float size, size_t count,
                          bool same) {
    uint8_t numbers[MQ_FIT_SUBS * MQ_FIT_SUB];
    mq_fit_subs subs = {.count = count, .numbers = numbers};
    for (size_t i = 0; i < sizeof numbers; i++) {
        numbers[i] = (uint8_t)(count == MQ_FIT_SUB ? i % MQ_FIT_SUB : next_random(state) % count);
    }
    for (size_t j = 0; j < MQ_FIT_SUBS; j++) {
        subs.wish_scale[j] = random_between(state, 0, size);
        subs.wish_minimum[j] = subs.wish_scale[j] * random_between(state, 0, 3);
        for (size_t i = 0; i < count; i++) {
            const float level = subs.wish_scale[j] * (float)i - subs.wish_minimum[j];
            subs.values[i][j] = same         ? size
                                : count == 4 ? level
                                             : random_between(state, -size, size);
        }
    }
    mq_fit_super super[2];
    mq_fit_kernels_base.super(&super[0], &subs);
    kernels->super(&super[1], &subs);
    assert_memory_equal(&super[0], &super[1], sizeof super[0]);
    /* weights are fitted as their numbers are, up to the order of sums, and then in more turns */
    mq_fit_subs weights = {.count = MQ_FIT_SUB, .numbers = numbers};
    memcpy(weights.wish_scale, subs.wish_scale, sizeof subs.wish_scale);
    memcpy(weights.wish_minimum, subs.wish_minimum, sizeof subs.wish_minimum);
    double costs[2] = {0};
    for (size_t i = 0; i < sizeof numbers; i++) {
        weights.values[i % MQ_FIT_SUB][i / MQ_FIT_SUB] = subs.values[numbers[i]][i / MQ_FIT_SUB];
    }
    for (size_t i = 0; i < sizeof numbers; i++) {
        numbers[i] = (uint8_t)(i % MQ_FIT_SUB);
    }
    mq_fit_kernels_base.super(&super[1], &weights);
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof numbers; i++) {
            const size_t j = i / MQ_FIT_SUB;
            const double w = (double)super[k].scale * super[k].scales[j] * super[k].codes[i] -
                             (double)super[k].minimum * super[k].minima[j];
            const double off = w - (double)weights.values[i % MQ_FIT_SUB][j];
            costs[k] += off * off;
        }
    }
    for (size_t k = 0; k < 2; k++) { /* what it says of its cost */
        assert_true(fabs(super[k].error - costs[k]) <=
                    1e-4 * costs[k] + 1e-10 * (double)(size * size));
    }
    assert_true(costs[1] <= 1.001 * costs[0] + 1e-30 && costs[0] <= 1.25 * costs[1] + 1e-30);
}

/* Random values and wishes, now and then all the same or zero. */
static void compare_fits(const mq_fit_kernels *kernels) {
    uint32_t state = 11;
    for (unsigned round = 0; round < 200; round++) {
        const float size = round % 20 == 19 ? 0 : powf(10, random_between(&state, -4, 2));
        compare_symmetric(kernels, &state, size);
        compare_super(kernels, &state, size, round % 2 == 0 ? MQ_FIT_SUB : 4, round % 20 == 18);
    }
}

static void all_processors_fit_alike(void **state) {
    (void)state;
    on_every_processor(compare_fits);
}

static void strided_packing_is_the_row_packing(void **state) {
    (void)state;
    uint8_t codes[64], spread[64 * 3];
    uint32_t noise = 5;
    for (unsigned width = 2; width <= 8; width++) {
        for (size_t i = 0; i < 64; i++) {
            codes[i] = (uint8_t)(next_random(&noise) & 0xff);
            spread[3 * i] = (uint8_t)(codes[i] >> (8 - width));
        }
        uint32_t expected[16] = {0}, got[16] = {0};
        pack_row_reference(expected, codes, 64, width, MQ_SLICE_TOP);
        mq_pack_strided(got, spread, 3, 64, width);
        assert_memory_equal(got, expected, sizeof got);
        assert_int_equal(mq_packed_words(64, width), 2 * width);
    }
    assert_int_equal(mq_packed_words(33, 3), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offset_is_exact),
        cmocka_unit_test(whole_super_blocks_are_exact),
        cmocka_unit_test(other_types_are_close),
        cmocka_unit_test(all_processors_fit_alike),
        cmocka_unit_test(strided_packing_is_the_row_packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
