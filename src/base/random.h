/* Random numbers that are the same on every machine: xoshiro256** seeded by splitmix64. */
#ifndef MQ_BASE_RANDOM_H
#define MQ_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct mq_random {
    uint64_t state[4];
} mq_random;

/* Streams of the user's seed. Each use that says "+" has as many from here on, so that no two uses
 * of one run draw the same numbers: layers are at most 100000 (model/config.c), sequences fewer
 * than 2^40 (quant/recipe_check.c). Their values decide what is learned (STATE_VERSION,
 * job/state_job.c). */
#define MQ_STREAM_ORDER UINT64_C(1)               /* + layer: of a block's batches */
#define MQ_STREAM_QAT UINT64_C(0x716174)          /* "qat": the order of its sequences */
#define MQ_STREAM_DRAWS UINT64_C(0x6472617773)    /* "draws" + layer: of widths */
#define MQ_STREAM_REFIT UINT64_C(0x7265666974)    /* "refit" + width: order, of sequences */
#define MQ_STREAM_CORPUS UINT64_C(0x636f72707573) /* "corpus": which rows of the text */
#define MQ_STREAM_SAMPLE UINT64_C(0x73616d706c65) /* "sample" + sequence that is written */
/* How written sequences begin, in one of two ways: a token each, or pieces of the text. */
#define MQ_STREAM_FIRST(sequence) (UINT64_MAX - (sequence))
#define MQ_STREAM_PIECES UINT64_MAX

/* stream separates independent uses of one seed (shuffling, sampling). */
void mq_random_seed(mq_random *random, uint64_t seed, uint64_t stream);
uint64_t mq_random_next(mq_random *random);
uint64_t mq_random_below(mq_random *random,
                         uint64_t bound); /* uniform in [0, bound), no bias; bound > 0 */
double mq_random_unit(mq_random *random); /* uniform in [0, 1), 53 bits */
void mq_random_shuffle(mq_random *random, size_t *items, size_t count); /* Fisher-Yates */

#endif
