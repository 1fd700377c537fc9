/* layer: tensor */
#include <math.h>

#include "temporary.h"
#include "tensor/dtype.h"
#include "tensor/dtype_f16.h"

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void names_and_sizes_agree(void **state) {
    (void)state;
    static const struct {
        const char *name;
        mq_dtype dtype;
        size_t size;
    } known[] = {
        {"F32", MQ_F32, 4},   {"F16", MQ_F16, 2},         {"BF16", MQ_BF16, 2},
        {"F64", MQ_F64, 8},   {"I64", MQ_I64, 8},         {"I32", MQ_I32, 4},
        {"I16", MQ_I16, 2},   {"I8", MQ_I8, 1},           {"U64", MQ_U64, 8},
        {"U32", MQ_U32, 4},   {"U16", MQ_U16, 2},         {"U8", MQ_U8, 1},
        {"BOOL", MQ_BOOL, 1}, {"F8_E4M3", MQ_F8_E4M3, 1}, {"F8_E5M2", MQ_F8_E5M2, 1},
    };
    assert_int_equal(sizeof known / sizeof *known, MQ_DTYPE_COUNT);
    for (size_t i = 0; i < MQ_DTYPE_COUNT; i++) {
        mq_dtype parsed = MQ_DTYPE_COUNT;
        assert_true(mq_dtype_parse(&parsed, known[i].name));
        assert_int_equal(parsed, known[i].dtype);
        assert_string_equal(mq_dtype_name(parsed), known[i].name);
        assert_int_equal(mq_dtype_size(parsed), known[i].size);
        assert_int_equal(mq_dtype_is_weight(parsed), i < 3);
    }
    mq_dtype untouched = MQ_U8;
    assert_false(mq_dtype_parse(&untouched, "f32"));
    assert_false(mq_dtype_parse(&untouched, ""));
    assert_int_equal(untouched, MQ_U8);
}

/* The value of a half by its definition (IEEE 754-2008, 3.4). */
static double half_value(unsigned half) {
    int exponent = (int)(half >> 10 & 31);
    double mantissa = half & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

static bool half_is_nan(unsigned half) { return (half & 0x7fff) > 0x7c00; }

static void every_half_widens_to_its_value(void **state) {
    (void)state;
    for (unsigned half = 0; half < 65536; half++) {
        float wide = mq_f16_to_f32((uint16_t)half);
        assert_int_equal(bits_of(wide) >> 31, half >> 15);
        if (half_is_nan(half)) {
            assert_true(isnan(wide));
        } else if ((half & 0x7fff) == 0x7c00) {
            assert_true(isinf(wide));
        } else {
            assert_true((double)wide == half_value(half));
        }
        if (!half_is_nan(half)) {
            assert_int_equal(mq_f32_to_f16(wide), half);
        } else {
            assert_true(half_is_nan(mq_f32_to_f16(wide)));
        }
    }
}

/* Around every boundary between two halves: just below, at, and just above the middle. */
static void floats_round_to_the_nearest_even_half(void **state) {
    (void)state;
    for (unsigned half = 0; half < 0x7c00; half++) {
        double next = half == 0x7bff ? 65536 : half_value(half + 1);
        float middle = (float)((half_value(half) + next) / 2); /* exact: one bit more */
        unsigned even = half % 2 == 0 ? half : half + 1;
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            float factor = sign == 0 ? 1 : -1;
            assert_int_equal(mq_f32_to_f16(factor * nextafterf(middle, 0)), half | sign);
            assert_int_equal(mq_f32_to_f16(factor * middle), even | sign);
            assert_int_equal(mq_f32_to_f16(factor * nextafterf(middle, INFINITY)),
                             (half + 1) | sign);
        }
    }
    assert_int_equal(mq_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(mq_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(mq_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(mq_f32_to_f16(0x1p-149f), 0);
}

static void the_processor_gives_the_same_halves(void **state) {
    (void)state;
#if defined(__x86_64__)
    if (!mq_has_f16c()) {
        skip();
    }
    enum { COUNT = 65536 };
    uint16_t *halves = malloc(COUNT * sizeof *halves + 1);
    float *expected = malloc(COUNT * sizeof *expected);
    float *wide = malloc(COUNT * sizeof *wide);
    uint16_t *narrow = malloc(COUNT * sizeof *narrow);
    uint16_t *narrow_expected = malloc(COUNT * sizeof *narrow_expected);
    assert_true(halves != NULL && expected != NULL && wide != NULL && narrow != NULL &&
                narrow_expected != NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        halves[i] = (uint16_t)i;
    }
    mq_f16_to_f32_reference(expected, halves, COUNT);
    mq_f16_to_f32_avx2(wide, halves, COUNT);
    assert_memory_equal(wide, expected, COUNT * sizeof *wide);
    for (unsigned low = 0; low < 65536;
         low += 4093) { /* every upper half of a float's bits, some lower ones */
        for (unsigned i = 0; i < COUNT; i++) {
            wide[i] = float_of(i << 16 | low);
        }
        mq_f32_to_f16_reference(narrow_expected, wide, COUNT);
        mq_f32_to_f16_avx2(narrow, wide, COUNT);
        assert_memory_equal(narrow, narrow_expected, COUNT * sizeof *narrow);
    }
    free(halves);
    free(expected);
    free(wide);
    free(narrow);
    free(narrow_expected);
#else
    skip();
#endif
}

static void bfloats_are_rounded_upper_halves(void **state) {
    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++) {
        float wide = mq_bf16_to_f32((uint16_t)bits);
        assert_int_equal(bits_of(wide), bits << 16);
        if (isnan(wide)) {
            assert_true(isnan(mq_bf16_to_f32(mq_f32_to_bf16(wide))));
            assert_true(isnan(mq_bf16_to_f32(mq_f32_to_bf16(float_of(bits << 16 | 0xffff)))));
            continue;
        }
        assert_int_equal(mq_f32_to_bf16(wide), bits);
        if (!isinf(wide)) {
            assert_int_equal(mq_f32_to_bf16(float_of(bits << 16 | 0x7fff)), bits);
            assert_int_equal(mq_f32_to_bf16(float_of(bits << 16 | 0x8000)), bits + (bits & 1));
            assert_int_equal(mq_f32_to_bf16(float_of(bits << 16 | 0x8001)), bits + 1);
        }
    }
    assert_true(isnan(mq_bf16_to_f32(mq_f32_to_bf16(float_of(0x7f800001))))); /* not infinity */
}

static void arrays_convert_at_any_length_and_alignment(void **state) {
    (void)state;
    const mq_dtype dtypes[] = {MQ_F32, MQ_F16, MQ_BF16};
    float values[40];
    float back[40];
    unsigned char bytes[4 * 40 + 8];
    for (int i = 0; i < 40; i++) {
        values[i] = (float)(i - 20) * 0.125f; /* exact in all three */
    }
    for (size_t d = 0; d < 3; d++) {
        for (size_t count = 0; count <= 40; count++) {
            for (size_t shift = 0; shift < 4; shift++) {
                size_t size = count * mq_dtype_size(dtypes[d]);
                memset(bytes, 0xaa, sizeof bytes);
                memset(back, 0, sizeof back);
                mq_from_f32(bytes + shift, dtypes[d], values, count);
                for (size_t i = 0; i < sizeof bytes; i++) {
                    assert_true((i >= shift && i < shift + size) || bytes[i] == 0xaa);
                }
                mq_to_f32(back, bytes + shift, dtypes[d], count);
                assert_memory_equal(back, values, count * sizeof *back);
            }
        }
    }
    mq_to_f32(back, NULL, MQ_F16, 0);
    mq_from_f32(NULL, MQ_BF16, values, 0);
}

static void the_first_non_finite_is_found(void **state) {
    (void)state;
    enum { COUNT = 10000 };
    static const struct {
        mq_dtype dtype;
        uint64_t large, infinite, nan;
    } kinds[] = {
        {MQ_F32, 0xff7fffff, 0xff800000, 0x7f800001},
        {MQ_F16, 0xfbff, 0x7c00, 0xfc01},
        {MQ_BF16, 0xff7f, 0xff80, 0x7f81},
        {MQ_F64, 0x7fefffffffffffff, 0x7ff0000000000000, 0xfff0000000000001},
    };
    const size_t places[] = {0, 1, 4095, 4096, 8191, COUNT - 1};
    unsigned char *data = malloc(8 * COUNT + 1);
    assert_non_null(data);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        size_t size = mq_dtype_size(kinds[k].dtype);
        unsigned char *start = data + 1;
        for (size_t i = 0; i < COUNT; i++) {
            memcpy(start + i * size, &kinds[k].large, size); /* little endian */
        }
        assert_int_equal(mq_first_non_finite(start, kinds[k].dtype, COUNT), COUNT);
        assert_int_equal(mq_first_non_finite(start, kinds[k].dtype, 0), 0);
        memcpy(start + (COUNT - 1) * size, &kinds[k].nan, size);
        for (size_t p = sizeof places / sizeof *places; p-- > 0;) {
            memcpy(start + places[p] * size, p % 2 ? &kinds[k].nan : &kinds[k].infinite, size);
            assert_int_equal(mq_first_non_finite(start, kinds[k].dtype, COUNT), places[p]);
        }
    }
    memset(data, 0xff, COUNT);
    assert_int_equal(mq_first_non_finite(data, MQ_U8, COUNT), COUNT);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_sizes_agree),
        cmocka_unit_test(every_half_widens_to_its_value),
        cmocka_unit_test(floats_round_to_the_nearest_even_half),
        cmocka_unit_test(the_processor_gives_the_same_halves),
        cmocka_unit_test(bfloats_are_rounded_upper_halves),
        cmocka_unit_test(arrays_convert_at_any_length_and_alignment),
        cmocka_unit_test(the_first_non_finite_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
