/* xoshiro256** 1.0 and splitmix64, after the public-domain descriptions of Blackman and Vigna
 * ("Scrambled linear pseudorandom number generators", ACM TOMS 47, 2021). */
#include "base/random.h"

static uint64_t rotate_left(uint64_t value, unsigned bits) {
    return (value << bits) | (value >> (64 - bits));
}

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void mq_random_seed(mq_random *random, uint64_t seed, uint64_t stream) {
    /* Stream 0 is plain splitmix64 seeding; the others start at a scrambled distance from it. */
    uint64_t distance = stream;
    uint64_t state = stream == 0 ? seed : seed ^ splitmix64(&distance);
    for (int i = 0; i < 4; i++) {
        random->state[i] = splitmix64(&state);
    }
}

uint64_t mq_random_next(mq_random *random) {
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t mq_random_below(mq_random *random, uint64_t bound) {
    /* The first 2^64 mod bound numbers would favour small results: they are drawn again. */
    uint64_t reject = (UINT64_MAX - bound + 1) % bound;
    uint64_t number;
    do {
        number = mq_random_next(random);
    } while (number < reject);
    return number % bound;
}

double mq_random_unit(mq_random *random) {
    return (double)(mq_random_next(random) >> 11) * 0x1.0p-53;
}

void mq_random_shuffle(mq_random *random, size_t *items, size_t count) {
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)mq_random_below(random, i);
        size_t moved = items[i - 1];
        items[i - 1] = items[j];
        items[j] = moved;
    }
}
