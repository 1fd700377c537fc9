/* Searches for the nearest grid of a format that cannot hold the slice's own grid. There is an
 * implementation for each kind of processor, and all give the same results: products and sums are
 * not fused, and sums have a fixed number of lanes. */
#ifndef MQ_EXPORT_FIT_H
#define MQ_EXPORT_FIT_H

#include "tensor/dtype.h"

enum {
    MQ_FIT_BLOCK = 32, /* weights of a block of Q8_0 */
    MQ_FIT_SUBS = 16,  /* sub-blocks of a super-block of Q2_K, Q3_K, Q6_K */
    MQ_FIT_SUB = 16,   /* weights of a sub-block */
    MQ_FIT_LEVELS = 256
};

/* What is fitted to a super-block of Q2_K. Its sub-blocks have a few numbers each, or one for each
 * weight. */
typedef struct mq_fit_subs {
    size_t count;                          /* of the numbers of a sub-block, at most MQ_FIT_SUB */
    float values[MQ_FIT_SUB][MQ_FIT_SUBS]; /* [count]: number i of sub-block j at [i][j] */
    const uint8_t *numbers;                /* [256]: which of them a weight is, less than count */
    /* Scale and minimum, both at least 0, that each sub-block would take if it could. */
    float wish_scale[MQ_FIT_SUBS], wish_minimum[MQ_FIT_SUBS];
} mq_fit_subs;

/* A super-block of Q2_K: w = scale·scales[j]·q - minimum·minima[j]; scale and minimum are float16s.
 */
typedef struct mq_fit_super {
    double error; /* Σ (w - value)² */
    float scale, minimum;
    uint8_t scales[MQ_FIT_SUBS], minima[MQ_FIT_SUBS], codes[MQ_FIT_SUBS * MQ_FIT_SUB];
} mq_fit_super;

/* A super-block of Q3_K or Q6_K, of codes q of 3 or 6 bits: w = scale·scales[j]·(q - 4) or
 * scale·scales[j]·(q - 32); scale is a float16, scales are whole numbers of 6 or 8 bits. Either may
 * be negative. */
typedef struct mq_fit_centred {
    float scale;
    int8_t scales[MQ_FIT_SUBS];
    uint8_t codes[MQ_FIT_SUBS * MQ_FIT_SUB];
} mq_fit_centred;

/* Groups of a slice, one after the other, that are fitted to w = scale·(code - zero) in place. */
typedef struct mq_fit_groups {
    size_t count, size;  /* groups, and weights of each */
    unsigned width;      /* of the codes, 2 to 8 */
    mq_dtype dtype;      /* what scales are rounded to, before codes are chosen */
    uint8_t *codes;      /* [count, size]: the slice's, then the grid's */
    float *scales;       /* [count]: the slice's, then the grid's */
    const float *biases; /* [count]: the slice's, scale·code + bias */
    uint8_t *zeros;      /* [count] */
    double error, power; /* Σ (w - slice's w)², Σ (slice's w)²: added to */
} mq_fit_groups;

typedef struct mq_fit_kernels {
    const char *name;
    /* Q8_0, count blocks of values[count, 32]: scales[count], float16 numbers, whole codes[count,
     * 32] -127 … 127, and errors[count]: Σ (w - value)² of each. steps[count]: the slice's own,
     * which are exact where its zero point is a whole number and in reach. */
    void (*symmetric)(float *scales, int8_t *codes, float *errors, const float *values,
                      const float *steps, size_t count);
    /* Q2_K. */
    void (*super)(mq_fit_super *out, const mq_fit_subs *of);
    /* Q3_K, Q6_K, by bits: values[256]; steps: the slice's own in each sub-block, which are tried,
     * too, for they are exact where its zero point is in the middle. */
    void (*centred)(mq_fit_centred *out, const float *values, const float steps[MQ_FIT_SUBS],
                    unsigned bits);
    /* A whole zero point. Each group is fitted as if it were alone. */
    void (*integer)(mq_fit_groups *groups);
} mq_fit_kernels;

/* By instruction set (base/machine.h); base is the reference for the others. */
extern const mq_fit_kernels mq_fit_kernels_base, mq_fit_kernels_avx2, mq_fit_kernels_avx512;
/* The fastest that this processor runs; and all of them, slowest first, until NULL. */
const mq_fit_kernels *mq_fit_kernels_best(void);
const mq_fit_kernels *mq_fit_kernels_at(size_t index);

#endif
