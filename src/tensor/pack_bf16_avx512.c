#include "tensor/pack_bf16.h"

#include "tensor/turn.h"

/* gcc 12 would share one copy of what follows between sizes that it knows and those it does not. */
#define INLINE inline __attribute__((always_inline))

enum { WORDS = MQ_PACK_N / MQ_TURN, PAIRS = MQ_PACK_K / 2 };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Words `part` of a pair of a block's, each a pair along k (little endian). They go where they
 * belong at once: a block made on the stack and copied takes longer, the more so where b is not in
 * the cache. */
static INLINE void put(mq_bf16 *block, size_t pair, size_t part, mq_turn_row words) {
    memcpy(block + 2 * (pair * MQ_PACK_N + part * MQ_TURN), &words, sizeof words);
}

/* Of rows along k: MQ_TURN of them at a time are a square. columns, numbers: of b that are there.
 */
static INLINE void pack_turned(mq_bf16 *block, const mq_bf16 *b, size_t numbers, size_t columns,
                               size_t ldb) {
    for (size_t part = 0; part < WORDS; part++) {
        mq_turn_row square[MQ_TURN] = {0};
        for (size_t r = 0; r < MQ_TURN && part * MQ_TURN + r < columns; r++) {
            memcpy(&square[r], b + (part * MQ_TURN + r) * ldb, numbers * sizeof *b);
        }
        mq_turn_square(square);
        for (size_t pair = 0; pair < MQ_TURN; pair++) {
            put(block, pair, part, square[pair]);
        }
    }
}

typedef mq_bf16 numbers_row __attribute__((vector_size(2 * MQ_TURN * sizeof(mq_bf16))));

/* Of rows along n: a pair is one number of either row. */
static INLINE void pack_paired(mq_bf16 *block, const mq_bf16 *b, size_t numbers, size_t columns,
                               size_t ldb) {
    for (size_t pair = 0; pair < PAIRS; pair++) {
        numbers_row even[WORDS / 2], odd[WORDS / 2];
        if (columns < MQ_PACK_N || numbers < MQ_PACK_K) {
            memset(even, 0, sizeof even);
            memset(odd, 0, sizeof odd);
        }
        if (2 * pair < numbers) {
            memcpy(even, b + 2 * pair * ldb, columns * sizeof *b);
        }
        if (2 * pair + 1 < numbers) {
            memcpy(odd, b + (2 * pair + 1) * ldb, columns * sizeof *b);
        }
        for (size_t half = 0; half < WORDS / 2; half++) {
            const numbers_row low = MQ_PICK(numbers_row, even[half], odd[half], 0, 32, 1, 33, 2, 34,
                                            3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42,
                                            11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
            const numbers_row high = MQ_PICK(numbers_row, even[half], odd[half], 16, 48, 17, 49, 18,
                                             50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25,
                                             57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
            put(block, pair, 2 * half, (mq_turn_row)low);
            put(block, pair, 2 * half + 1, (mq_turn_row)high);
        }
    }
}

static INLINE void pack_block(mq_bf16 *block, const mq_bf16 *b, size_t numbers, size_t columns,
                              size_t ldb, bool trans_b) {
    if (trans_b) {
        pack_turned(block, b, numbers, columns, ldb);
    } else {
        pack_paired(block, b, numbers, columns, ldb);
    }
}

void mq_pack_bf16_avx512(mq_bf16 *packed, const mq_bf16 *b, size_t k, size_t n, size_t ldb,
                         bool trans_b) {
    for (size_t column = 0; column < n; column += MQ_PACK_N) {
        for (size_t number = 0; number < k; number += MQ_PACK_K) {
            const size_t columns = smaller(n - column, MQ_PACK_N);
            const size_t numbers = smaller(k - number, MQ_PACK_K);
            const mq_bf16 *from = b + (trans_b ? column * ldb + number : number * ldb + column);
            if (columns == MQ_PACK_N && numbers == MQ_PACK_K) { /* sizes that the compiler knows */
                pack_block(packed, from, MQ_PACK_K, MQ_PACK_N, ldb, trans_b);
            } else {
                pack_block(packed, from, numbers, columns, ldb, trans_b);
            }
            packed += MQ_PACK_K * MQ_PACK_N;
        }
    }
}
