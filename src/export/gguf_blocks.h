/* Element types of GGUF that slices are stored in, with the layout of their blocks (ggml-common.h).
 *
 *   F32, F16, BF16   a number each
 *   Q4_0   32 weights: d (F16), 16 bytes as of Q4_1; w = d·(q - 8), q of 4 bits
 *   Q4_1   32 weights: d, m (F16), 16 bytes: weight i in the low, i + 16 in the high half of byte i
 *          w = d·q + m, q of 4 bits
 *   Q5_1   the same with q of 5 bits: the fifth bits of weights 0 ... 31 in a U32 after m
 *   Q5_0   32 weights: d, the fifth bits, 16 bytes; w = d·(q - 16), q of 5 bits
 *   Q8_0   32 weights: d (F16), 32 signed bytes; w = d·q
 *   Q2_K   256 weights, in 16 sub-blocks of 16: 16 bytes with a scale in the low and a minimum in
 *          the high half, 64 bytes of codes (2 bits: in 32 bytes, weights l, l + 32, l + 64, l + 96
 *          of 128 from the low bits on), d, dmin (F16); w = d·scale·q - dmin·minimum
 *   Q3_K   256 weights, 16 sub-blocks: 32 bytes with the third bits (bit i / 32 of byte i % 32), 64
 *          bytes with the others as in Q2_K, 12 bytes of scales of 6 bits, d;
 *          w = d·(scale - 32)·(q - 4)
 *   Q4_K   256 weights, 8 sub-blocks of 32: d, dmin, 12 bytes of scales and minima of 6 bits, 128
 *          bytes: weights l and l + 32 of 64 in the halves of a byte; w = d·scale·q - dmin·minimum
 *   Q5_K   the same, with the fifth bits before the others, placed as Q3_K's third
 *   Q6_K   256 weights, 16 sub-blocks: 128 bytes with the four low bits, weights l and l + 64 of
 *          128 in the halves of a byte, 64 bytes with the two high ones as in Q2_K, 16 signed bytes
 *          of scales, d; w = d·scale·(q - 32) */
#ifndef MQ_EXPORT_GGUF_BLOCKS_H
#define MQ_EXPORT_GGUF_BLOCKS_H

#include "export/rows.h"

typedef enum mq_ggml_type {
    MQ_GGML_F32 = 0,
    MQ_GGML_F16 = 1,
    MQ_GGML_Q4_0 = 2,
    MQ_GGML_Q4_1 = 3,
    MQ_GGML_Q5_0 = 6,
    MQ_GGML_Q5_1 = 7,
    MQ_GGML_Q8_0 = 8,
    MQ_GGML_Q2_K = 10,
    MQ_GGML_Q3_K = 11,
    MQ_GGML_Q4_K = 12,
    MQ_GGML_Q5_K = 13,
    MQ_GGML_Q6_K = 14,
    MQ_GGML_BF16 = 30
} mq_ggml_type;

const char *mq_ggml_name(mq_ggml_type type);
size_t mq_ggml_block(mq_ggml_type type);                   /* weights a block; 1: a number each */
size_t mq_ggml_row_bytes(mq_ggml_type type, size_t count); /* count: whole blocks */

/* The row in blocks of the type, whole blocks. Q4_1 and Q5_1 hold codes of so many bits and less
 * exactly, where a block lies in one group, and so do Q4_0, Q5_0 and Q8_0 where the group's zero
 * point is symmetric (Q4_0 and Q5_0 are for nothing else); K-quants do where a super-block lies in
 * one group, Q3_K and Q6_K with a symmetric zero point: such a row has no values, and is encoded
 * from its codes (Q4_K and Q5_K are for nothing else). Everything else is fitted so that the
 * squared error is small. A scale or an offset too large for float16 becomes infinite in what is
 * not fitted, and float16's largest number in Q8_0 and the fitted K-quants. */
void mq_ggml_encode(unsigned char *out, double *error, const mq_row *row, mq_ggml_type type);
/* The same of K-quants alone (gguf_super.c). */
void mq_ggml_encode_super(unsigned char *out, double *error, const mq_row *row, mq_ggml_type type);

#endif
