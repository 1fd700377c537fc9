/* Super-blocks of K-quants whose 256 weights share a scale and a bias: the slice's codes as they
 * are, every sub-block's own number 1. */
#include "export/gguf_blocks.h"

#include <string.h>

#include "export/gguf_put.h"

enum { SUPER = 256 };

/* The two low bits of 256 codes in 64 bytes: weights l, l + 32, l + 64, l + 96 of 128 in byte l. */
static void put_low_bits(unsigned char *out, const uint8_t *codes) {
    memset(out, 0, SUPER / 4);
    for (size_t i = 0; i < SUPER; i++) {
        out[i / 128 * 32 + i % 32] |= (unsigned char)((codes[i] & 3u) << i % 128 / 32 * 2);
    }
}

/* Bit `bit` of 256 codes in 32 bytes: of weight i in bit i / 32 of byte i % 32. */
static void put_bit(unsigned char *out, const uint8_t *codes, unsigned bit) {
    memset(out, 0, SUPER / 8);
    for (size_t i = 0; i < SUPER; i++) {
        out[i % 32] |= (unsigned char)((codes[i] >> bit & 1u) << i / 32);
    }
}

static void put_q2(unsigned char *out, const uint8_t *codes, float scale, float bias) {
    memset(out, 0x11, 16); /* scales and minima of 4 bits: 1 */
    put_low_bits(out + 16, codes);
    mq_put_half(out + 80, (double)scale);
    mq_put_half(out + 82, -(double)bias);
}

/* w = d·(scale - 32)·(code - 4): scales of 6 bits, 33, their low halves before their high bits. */
static void put_q3(unsigned char *out, const uint8_t *codes, float scale) {
    put_bit(out, codes, 2);
    put_low_bits(out + 32, codes);
    memset(out + 96, 0x11, 8);
    memset(out + 104, 0xaa, 4);
    mq_put_half(out + 108, (double)scale);
}

/* d and dmin, then scales and minima of 6 bits, all 1: four scales, four minima, and the low halves
 * of the four others' together. */
static void put_head(unsigned char *out, float scale, float bias) {
    mq_put_half(out, (double)scale);
    mq_put_half(out + 2, -(double)bias);
    memset(out + 4, 1, 8);
    memset(out + 12, 0x11, 4);
}

/* The four low bits: weights l and l + 32 of 64 in the halves of byte l. */
static void put_low_halves(unsigned char *out, const uint8_t *codes) {
    for (size_t i = 0; i < SUPER / 2; i++) {
        const uint8_t *pair = codes + i / 32 * 64 + i % 32;
        out[i] = (unsigned char)((pair[0] & 15u) | (pair[32] & 15u) << 4);
    }
}

/* w = d·scale·(code - 32): the four low bits, weights l and l + 64 of 128 in the halves of byte l;
 * the two high ones as put_low_bits; scales of 8 bits. */
static void put_q6(unsigned char *out, const uint8_t *codes, float scale) {
    uint8_t high[SUPER];
    for (size_t i = 0; i < SUPER / 2; i++) {
        const uint8_t *pair = codes + i / 64 * 128 + i % 64;
        out[i] = (unsigned char)((pair[0] & 15u) | (pair[64] & 15u) << 4);
    }
    for (size_t i = 0; i < SUPER; i++) {
        high[i] = codes[i] >> 4;
    }
    put_low_bits(out + 128, high);
    memset(out + 192, 1, 16);
    mq_put_half(out + 208, (double)scale);
}

void mq_ggml_encode_super(unsigned char *out, const mq_row *row, mq_ggml_type type) {
    const size_t group_size = row->in / row->groups, bytes = mq_ggml_row_bytes(type, SUPER);
    /* Types without an offset count from the middle of their codes: narrower slices move there. */
    const unsigned middle = type == MQ_GGML_Q3_K ? 4u : type == MQ_GGML_Q6_K ? 32u : 0u;
    const unsigned shift = middle == 0 ? 0 : middle - (1u << (row->width - 1));
    for (size_t first = 0; first < row->in; first += SUPER, out += bytes) {
        const float scale = row->scales[first / group_size], bias = row->biases[first / group_size];
        uint8_t codes[SUPER];
        for (size_t i = 0; i < SUPER; i++) {
            codes[i] = (uint8_t)(row->slices[first + i] + shift);
        }
        if (type == MQ_GGML_Q2_K) {
            put_q2(out, codes, scale, bias);
        } else if (type == MQ_GGML_Q3_K) {
            put_q3(out, codes, scale);
        } else if (type == MQ_GGML_Q6_K) {
            put_q6(out, codes, scale);
        } else {
            const size_t fifth = type == MQ_GGML_Q5_K ? SUPER / 8 : 0;
            put_head(out, scale, bias);
            if (fifth != 0) {
                put_bit(out + 16, codes, 4);
            }
            put_low_halves(out + 16 + fifth, codes);
        }
    }
}
