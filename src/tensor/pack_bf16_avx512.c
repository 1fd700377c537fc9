#include "tensor/pack_bf16.h"

#include "tensor/turn.h"

/* A block's words, each a pair along k (little endian). */
typedef struct block {
    mq_turn_row word[MQ_PACK_K / 2][MQ_PACK_N / MQ_TURN];
} block;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Of rows along k: MQ_TURN of them at a time are a square. columns, numbers: of b that are there.
 */
static inline void pack_turned(block *out, const mq_bf16 *b, size_t numbers, size_t columns,
                               size_t ldb) {
    for (size_t part = 0; part < MQ_PACK_N / MQ_TURN; part++) {
        mq_turn_row square[MQ_TURN] = {0};
        for (size_t r = 0; r < MQ_TURN && part * MQ_TURN + r < columns; r++) {
            memcpy(&square[r], b + (part * MQ_TURN + r) * ldb, numbers * sizeof *b);
        }
        mq_turn_square(square);
        for (size_t pair = 0; pair < MQ_TURN; pair++) {
            out->word[pair][part] = square[pair];
        }
    }
}

/* Of rows along n: a pair is one number of either row. */
static inline void pack_paired(block *out, const mq_bf16 *b, size_t numbers, size_t columns,
                               size_t ldb) {
    for (size_t pair = 0; pair < MQ_PACK_K / 2; pair++) {
        mq_bf16 even[MQ_PACK_N] = {0}, odd[MQ_PACK_N] = {0};
        uint32_t words[MQ_PACK_N];
        if (2 * pair < numbers) {
            memcpy(even, b + 2 * pair * ldb, columns * sizeof *b);
        }
        if (2 * pair + 1 < numbers) {
            memcpy(odd, b + (2 * pair + 1) * ldb, columns * sizeof *b);
        }
        for (size_t c = 0; c < MQ_PACK_N; c++) {
            words[c] = (uint32_t)even[c] | (uint32_t)odd[c] << 16;
        }
        memcpy(out->word[pair], words, sizeof words);
    }
}

static inline void pack_block(block *out, const mq_bf16 *b, size_t numbers, size_t columns,
                              size_t ldb, bool trans_b) {
    if (trans_b) {
        pack_turned(out, b, numbers, columns, ldb);
    } else {
        pack_paired(out, b, numbers, columns, ldb);
    }
}

void mq_pack_bf16_avx512(mq_bf16 *packed, const mq_bf16 *b, size_t k, size_t n, size_t ldb,
                         bool trans_b) {
    for (size_t column = 0; column < n; column += MQ_PACK_N) {
        for (size_t number = 0; number < k; number += MQ_PACK_K) {
            const size_t columns = smaller(n - column, MQ_PACK_N);
            const size_t numbers = smaller(k - number, MQ_PACK_K);
            const mq_bf16 *from = b + (trans_b ? column * ldb + number : number * ldb + column);
            block made;
            if (columns == MQ_PACK_N && numbers == MQ_PACK_K) { /* sizes that the compiler knows */
                pack_block(&made, from, MQ_PACK_K, MQ_PACK_N, ldb, trans_b);
            } else {
                pack_block(&made, from, numbers, columns, ldb, trans_b);
            }
            memcpy(packed, &made, sizeof made);
            packed += sizeof made / sizeof *packed;
        }
    }
}
