/* Random numbers that are the same on every machine: xoshiro256** seeded by splitmix64. */
#ifndef MQ_BASE_RANDOM_H
#define MQ_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct mq_random {
    uint64_t state[4];
} mq_random;

/* stream separates independent uses of one seed (shuffling, sampling). */
void mq_random_seed(mq_random *random, uint64_t seed, uint64_t stream);
uint64_t mq_random_next(mq_random *random);
uint64_t mq_random_below(mq_random *random,
                         uint64_t bound); /* uniform in [0, bound), no bias; bound > 0 */
double mq_random_unit(mq_random *random); /* uniform in [0, 1), 53 bits */
void mq_random_shuffle(mq_random *random, size_t *items, size_t count); /* Fisher-Yates */

#endif
