/* The layout from which oneDNN 2.6 multiplies bfloat16 operands b, its format BA16a64b2a: blocks of
 * 32 numbers along k and 64 along n, those of a column of blocks one after the other; in a block,
 * pairs along k for 64 n, [16, 64, 2]. Behind the ends are zeros. */
#ifndef MQ_TENSOR_PACK_BF16_H
#define MQ_TENSOR_PACK_BF16_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor/bf16.h"

enum { MQ_PACK_K = 32, MQ_PACK_N = 64 };

/* packed[blocks along n, blocks along k, 16, 64, 2] of b[k, n], or, with trans_b, of the transpose
 * of b[n, k]; ldb numbers between its rows. oneDNN's own reorder gives the same bytes in five times
 * as long: it was a twentieth of the refit's time. For processors with AVX-512 (F, BW, DQ, VL). */
void mq_pack_bf16_avx512(mq_bf16 *packed, const mq_bf16 *b, size_t k, size_t n, size_t ldb,
                         bool trans_b);

#endif
