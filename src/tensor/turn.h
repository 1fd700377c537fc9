/* A square of words turned in registers: what transposing arrays of bfloat16 pairs is made of. */
#ifndef MQ_TENSOR_TURN_H
#define MQ_TENSOR_TURN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MQ_TURN = 16 };

typedef uint32_t mq_turn_row __attribute__((vector_size(MQ_TURN * sizeof(uint32_t))));

/* The elements of vectors a and b, of a type of unsigned numbers, whose indices follow: b's after
 * a's. gcc 11 has the older name only. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MQ_PICK(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef MQ_PICK
#define MQ_PICK(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

/* rows[r][c] <- rows[c][r]. Four times, rows i and i + 8 are interleaved into rows 2i and 2i + 1:
 * each time the bits of a word's place, row and column in one number, rotate by one. */
static inline void mq_turn_square(mq_turn_row rows[MQ_TURN]) {
    for (int time = 0; time < 4; time++) {
        mq_turn_row next[MQ_TURN];
        for (size_t i = 0; i < MQ_TURN / 2; i++) {
            const mq_turn_row a = rows[i], b = rows[i + MQ_TURN / 2];
            next[2 * i] =
                MQ_PICK(mq_turn_row, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = MQ_PICK(mq_turn_row, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                      29, 14, 30, 15, 31);
        }
        memcpy(rows, next, sizeof next);
    }
}

#endif
