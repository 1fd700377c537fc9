/* Super-blocks of K-quants. Where their 256 weights share a scale and a bias that the type can
 * hold, the slice's codes as they are, every sub-block's own number 1; else of 2, 3 and 6 bits the
 * nearest that a search finds (fit.h). */
#include "export/gguf_blocks.h"

#include <string.h>

#include "export/fit.h"
#include "export/gguf_put.h"

enum { SUB = MQ_FIT_SUB, SUBS = MQ_FIT_SUBS, SUPER = SUBS * SUB };

/* --- bytes ------------------------------------------------------------------------------------ */

/* The two low bits of 256 codes in 64 bytes: weights l, l + 32, l + 64, l + 96 of 128 in byte l. */
static void put_low_bits(unsigned char *out, const uint8_t *codes) {
    for (size_t half = 0; half < 2; half++) {
        const uint8_t *from = codes + half * 128;
        for (size_t l = 0; l < 32; l++) {
            out[half * 32 + l] =
                (unsigned char)((from[l] & 3u) | (from[l + 32] & 3u) << 2 |
                                (from[l + 64] & 3u) << 4 | (from[l + 96] & 3u) << 6);
        }
    }
}

/* Bit `bit` of 256 codes in 32 bytes: of weight i in bit i / 32 of byte i % 32. */
static void put_bit(unsigned char *out, const uint8_t *codes, unsigned bit) {
    memset(out, 0, SUPER / 8);
    for (size_t i = 0; i < SUPER; i++) {
        out[i % 32] |= (unsigned char)((codes[i] >> bit & 1u) << i / 32);
    }
}

static void put_q2(unsigned char *out, const mq_fit_super *block) {
    for (size_t j = 0; j < SUBS; j++) {
        out[j] = (unsigned char)(block->scales[j] | block->minima[j] << 4);
    }
    put_low_bits(out + SUBS, block->codes);
    mq_put_half(out + 80, (double)block->scale);
    mq_put_half(out + 82, (double)block->minimum);
}

/* w = d·(scale - 32)·(code - 4): scales of 6 bits, their low halves before their high bits. */
static void put_q3(unsigned char *out, const mq_fit_centred *block) {
    put_bit(out, block->codes, 2);
    put_low_bits(out + 32, block->codes);
    memset(out + 96, 0, 12);
    for (size_t j = 0; j < SUBS; j++) {
        const unsigned scale = (unsigned)(block->scales[j] + 32);
        out[96 + j % 8] |= (unsigned char)((scale & 15u) << j / 8 * 4);
        out[104 + j % 4] |= (unsigned char)(scale >> 4 << j / 4 * 2);
    }
    mq_put_half(out + 108, (double)block->scale);
}

/* w = d·scale·(code - 32): the four low bits, weights l and l + 64 of 128 in the halves of byte l;
 * the two high ones as put_low_bits; scales of 8 bits. */
static void put_q6(unsigned char *out, const mq_fit_centred *block) {
    uint8_t high[SUPER];
    for (size_t i = 0; i < SUPER / 2; i++) {
        const uint8_t *pair = block->codes + i / 64 * 128 + i % 64;
        out[i] = (unsigned char)((pair[0] & 15u) | (pair[64] & 15u) << 4);
    }
    for (size_t i = 0; i < SUPER; i++) {
        high[i] = block->codes[i] >> 4;
    }
    put_low_bits(out + 128, high);
    memcpy(out + 192, block->scales, SUBS);
    mq_put_half(out + 208, (double)block->scale);
}

/* Q4_K; with the fifth bits before the others Q5_K. d and dmin, then scales and minima of 6 bits,
 * all 1: four scales, four minima, and the low halves of the four others' together. Of the codes,
 * weights l and l + 32 of 64 in the halves of byte l. */
static void put_q4_or_q5(unsigned char *out, const uint8_t *codes, float scale, float bias,
                         bool fifth) {
    mq_put_half(out, (double)scale);
    mq_put_half(out + 2, -(double)bias);
    memset(out + 4, 1, 8);
    memset(out + 12, 0x11, 4);
    out += 16;
    if (fifth) {
        put_bit(out, codes, 4);
        out += SUPER / 8;
    }
    for (size_t i = 0; i < SUPER / 2; i++) {
        const uint8_t *pair = codes + i / 32 * 64 + i % 32;
        out[i] = (unsigned char)((pair[0] & 15u) | (pair[32] & 15u) << 4);
    }
}

/* --- the slice's own codes -------------------------------------------------------------------- */

static void put_own_q2(unsigned char *out, const uint8_t *codes, float scale, float bias) {
    mq_fit_super block = {.scale = scale, .minimum = -bias};
    memset(block.scales, 1, SUBS);
    memset(block.minima, 1, SUBS);
    memcpy(block.codes, codes, SUPER);
    put_q2(out, &block);
}

/* Q3_K and Q6_K count from the middle of their codes: narrower slices move there. */
static void put_own_centred(unsigned char *out, const uint8_t *codes, float scale, unsigned width,
                            mq_ggml_type type) {
    const unsigned middle = type == MQ_GGML_Q3_K ? 4 : 32, shift = middle - (1u << (width - 1));
    mq_fit_centred block = {.scale = scale};
    memset(block.scales, 1, SUBS);
    for (size_t i = 0; i < SUPER; i++) {
        block.codes[i] = (uint8_t)(codes[i] + shift);
    }
    (type == MQ_GGML_Q3_K ? put_q3 : put_q6)(out, &block);
}

static void put_own(unsigned char *out, const mq_row *row, size_t first, mq_ggml_type type) {
    const size_t group = first / (row->in / row->groups);
    const uint8_t *codes = row->slices + first;
    const float scale = row->scales[group], bias = row->biases[group];
    if (type == MQ_GGML_Q2_K) {
        put_own_q2(out, codes, scale, bias);
    } else if (type == MQ_GGML_Q3_K || type == MQ_GGML_Q6_K) {
        put_own_centred(out, codes, scale, row->width, type);
    } else {
        put_q4_or_q5(out, codes, scale, bias, type == MQ_GGML_Q5_K);
    }
}

/* --- fitted, an offset: Q2_K ------------------------------------------------------------------ */

enum { LEVELS = 4 };
#define NO_GROUP SIZE_MAX

/* What a sub-block would take if it could: w ~ scale·q - minimum, both at least 0. */
typedef struct wish {
    double scale, minimum;
} wish;

static void range_of(double *low, double *high, const float *values) {
    *low = *high = values[0];
    for (size_t i = 1; i < SUB; i++) {
        *low = values[i] < *low ? values[i] : *low;
        *high = values[i] > *high ? values[i] : *high;
    }
}

/* group: the one that the sub-block lies in, or NO_GROUP. */
static wish wish_of(const mq_row *row, size_t first, size_t group) {
    double scale, bias, low, high;
    if (group != NO_GROUP) { /* its own grid, counted upwards */
        scale = row->scales[group];
        bias = row->biases[group];
        if (scale < 0) {
            bias += 3 * scale;
            scale = -scale;
        }
    } else {
        range_of(&low, &high, row->values + first);
        scale = (high - low) / 3;
        bias = low;
    }
    if (bias > 0) { /* no negative minimum: levels 0, h/3, 2h/3, h */
        range_of(&low, &high, row->values + first);
        scale = high / 3;
        bias = 0;
    }
    return (wish){scale, -bias};
}

/* The groups of the sub-blocks of a super-block, where each lies in one. */
static void groups_of(size_t groups[SUBS], const mq_row *row, size_t first) {
    const size_t size = row->in / row->groups;
    size_t group = first / size, end = (group + 1) * size;
    for (size_t j = 0; j < SUBS; j++) {
        if (first + j * SUB >= end) {
            group++;
            end += size;
        }
        groups[j] = size % SUB == 0 ? group : NO_GROUP;
    }
}

/* The numbers of sub-block j: the levels of its group, or its weights. */
static void read_sub(mq_fit_subs *out, const mq_row *row, size_t first, size_t j, size_t group) {
    if (out->count == SUB) {
        for (size_t i = 0; i < SUB; i++) {
            out->values[i][j] = row->values[first + j * SUB + i];
        }
        return;
    }
    for (size_t i = 0; i < LEVELS; i++) {
        out->values[i][j] = row->scales[group] * (float)i + row->biases[group];
    }
}

static double fit_q2(unsigned char *out, const mq_row *row, size_t first) {
    uint8_t each[SUPER];
    size_t groups[SUBS];
    mq_fit_subs subs;
    mq_fit_super block;
    groups_of(groups, row, first);
    const bool has_levels = groups[0] != NO_GROUP && row->width == 2;
    subs.count = has_levels ? LEVELS : SUB;
    subs.numbers = has_levels ? row->slices + first : each;
    for (size_t i = 0; !has_levels && i < SUPER; i++) {
        each[i] = (uint8_t)(i % SUB);
    }
    for (size_t j = 0; j < SUBS; j++) {
        const wish wanted = wish_of(row, first + j * SUB, groups[j]);
        subs.wish_scale[j] = (float)wanted.scale;
        subs.wish_minimum[j] = (float)wanted.minimum;
        read_sub(&subs, row, first, j, groups[j]);
    }
    mq_fit_kernels_best()->super(&block, &subs);
    put_q2(out, &block);
    return block.error;
}

/* --- fitted, no offset: Q3_K, Q6_K ------------------------------------------------------------ */

/* Σ (w - value)² of a sub-block. */
static double sub_error(const uint8_t *codes, const float *values, double scale, double offset) {
    double sum = 0;
    for (size_t i = 0; i < SUB; i++) {
        const double off = scale * codes[i] + offset - (double)values[i];
        sum += off * off;
    }
    return sum;
}

static double fit_centred(unsigned char *out, const mq_row *row, size_t first, mq_ggml_type type) {
    const size_t group_size = row->in / row->groups;
    const unsigned bits = type == MQ_GGML_Q3_K ? 3 : 6, middle = 1u << (bits - 1);
    mq_fit_centred block;
    float steps[SUBS];
    double error = 0;
    for (size_t j = 0; j < SUBS; j++) {
        steps[j] = row->scales[(first + j * SUB) / group_size];
    }
    mq_fit_kernels_best()->centred(&block, row->values + first, steps, bits);
    (bits == 3 ? put_q3 : put_q6)(out, &block);
    for (size_t j = 0; j < SUBS; j++) {
        const double scale = (double)block.scale * block.scales[j];
        error +=
            sub_error(block.codes + j * SUB, row->values + first + j * SUB, scale, -scale * middle);
    }
    return error;
}

void mq_ggml_encode_super(unsigned char *out, double *error, const mq_row *row, mq_ggml_type type) {
    const size_t bytes = mq_ggml_row_bytes(type, SUPER);
    for (size_t first = 0; first < row->in; first += SUPER, out += bytes) {
        if (row->values == NULL) {
            put_own(out, row, first, type);
        } else if (type == MQ_GGML_Q2_K) {
            *error += fit_q2(out, row, first);
        } else {
            *error += fit_centred(out, row, first, type);
        }
    }
}
