/* layer: store */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "reference_pack.h"

static const mq_slice_rule rules[] = {MQ_SLICE_TOP, MQ_SLICE_ROUND, MQ_SLICE_ROUND_EXTRA};

static uint8_t *all_codes_shuffled(size_t count) {
    uint8_t *codes = mq_alloc(count, 1);
    assert_non_null(codes);
    uint32_t state = 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        codes[i] = i < 256 ? (uint8_t)(i * 77) : (uint8_t)(state >> 24);
    }
    return codes;
}

static void slices_follow_the_rule(void **state) {
    (void)state;
    uint8_t codes[256], slices[256];
    for (size_t i = 0; i < 256; i++) {
        codes[i] = (uint8_t)i;
    }
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        for (size_t r = 0; r < 3; r++) {
            mq_slice_codes(slices, codes, 256, width, rules[r]);
            for (unsigned q = 0; q < 256; q++) {
                assert_int_equal(slices[q], mq_slice_code(q, width, rules[r]));
            }
        }
    }
    /* By hand: the paper's rounding sends 95 = 0b01011111 to 1 and 96 to 2 at two bits, 255
     * saturates at 3. */
    assert_int_equal(mq_slice_code(95, 2, MQ_SLICE_ROUND), 1);
    assert_int_equal(mq_slice_code(96, 2, MQ_SLICE_ROUND), 2);
    assert_int_equal(mq_slice_code(255, 2, MQ_SLICE_ROUND), 3);
    assert_int_equal(mq_slice_code(127, 2, MQ_SLICE_TOP), 1);
    /* Without the clamp 224 = 256 - 32 is the first code of a fifth level, which takes a third bit.
     */
    assert_int_equal(mq_slice_code(223, 2, MQ_SLICE_ROUND_EXTRA), 3);
    assert_int_equal(mq_slice_code(224, 2, MQ_SLICE_ROUND_EXTRA), 4);
    assert_int_equal(mq_slice_bits(2, MQ_SLICE_ROUND_EXTRA), 3);
    assert_int_equal(mq_slice_bits(2, MQ_SLICE_ROUND), 2);
    for (unsigned width = MQ_MIN_WIDTH; width < MQ_MAX_WIDTH; width++) {
        bool seen[256] = {false};
        size_t levels = 0;
        for (unsigned q = 0; q < 256; q++) {
            const unsigned s = mq_slice_code(q, width, MQ_SLICE_ROUND_EXTRA);
            assert_int_equal(s, (unsigned)floor((double)q / (double)(1u << (8 - width)) + 0.5));
            levels += !seen[s];
            seen[s] = true;
        }
        assert_int_equal(levels, (1u << width) + 1);
    }
    for (unsigned q = 0; q < 256; q++) {
        assert_int_equal(mq_slice_code(q, 8, MQ_SLICE_ROUND_EXTRA), q);
    }
    assert_int_equal(mq_slice_bits(8, MQ_SLICE_ROUND_EXTRA), 8);
}

static void packs_like_the_reference(void **state) {
    (void)state;
    static const size_t counts[] = {32, 64, 96, 256, 4064, 4096, 4128, 8224, 20000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t count = counts[c];
        uint8_t *codes = all_codes_shuffled(count), *slices = mq_alloc(count, 1),
                *again = mq_alloc(count, 1);
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            uint32_t *fast = mq_alloc(count / 4 + 1, 4), *slow = mq_alloc(count / 4 + 1, 4);
            for (size_t r = 0; r < 3; r++) {
                const unsigned bits = mq_slice_bits(width, rules[r]);
                const size_t words = count * bits / 32;
                fast[words] = slow[words] = 0xdeadbeef; /* nothing is written past the row */
                mq_pack_row(fast, codes, count, width, rules[r]);
                pack_row_reference(slow, codes, count, width, rules[r]);
                assert_memory_equal(fast, slow, (words + 1) * 4);
                mq_unpack_row(slices, fast, count, bits);
                unpack_row_reference(again, fast, count, bits);
                assert_memory_equal(slices, again, count);
                memset(fast, 0x55, words * 4);
                mq_pack_slices(fast, slices, count, bits);
                assert_memory_equal(fast, slow, (words + 1) * 4);
                for (size_t i = 0; i < count; i++) {
                    assert_int_equal(slices[i], mq_slice_code(codes[i], width, rules[r]));
                }
            }
            mq_free(fast);
            mq_free(slow);
        }
        mq_free(codes);
        mq_free(slices);
        mq_free(again);
    }
}

static void first_words_by_hand(void **state) {
    (void)state;
    /* Slices 1, 2, 3, 0, ... of three bits: 001, 010, 011 from the least significant bit up =
     * 0b011010001. */
    uint8_t codes[32] = {1 << 5, 2 << 5, 3 << 5};
    uint32_t words[3];
    mq_pack_row(words, codes, 32, 3, MQ_SLICE_TOP);
    assert_int_equal(words[0], 0xd1);
    assert_int_equal(words[1], 0);
    codes[10] = 7 << 5; /* bits 30 ... 32: across the first two words */
    mq_pack_row(words, codes, 32, 3, MQ_SLICE_TOP);
    assert_int_equal(words[0], 0xc00000d1);
    assert_int_equal(words[1], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_follow_the_rule),
        cmocka_unit_test(packs_like_the_reference),
        cmocka_unit_test(first_words_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
