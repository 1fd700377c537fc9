/* The searches for the nearest grid of a format that cannot hold the slice's own, by processor. Of
 * all processors the same results: products and sums are not fused, sums have fixed lanes. */
#ifndef MQ_EXPORT_FIT_H
#define MQ_EXPORT_FIT_H

#include "tensor/dtype.h"

enum {
    MQ_FIT_BLOCK = 32, /* weights of a block of Q8_0 */
    MQ_FIT_SUBS = 16,  /* sub-blocks of a super-block of Q2_K, Q3_K, Q6_K */
    MQ_FIT_SUB = 16,   /* weights of a sub-block */
    MQ_FIT_LEVELS = 256,
    MQ_FIT_GROUPS = 4 /* that are fitted at once, at most */
};

/* A super-block of Q2_K: w = scale·scales[j]·q - minimum·minima[j]; scale and minimum are float16s.
 */
typedef struct mq_fit_super {
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

/* The levels of the slice that occur in a group, with how often. */
typedef struct mq_fit_levels {
    size_t count, padded; /* the next multiple of 16: such levels are 0 and occur 0 times */
    float values[MQ_FIT_LEVELS], times[MQ_FIT_LEVELS];
    uint8_t slices[MQ_FIT_LEVELS];
    double low, high; /* of all levels of the grid, and 0 */
    double step;
    unsigned last; /* the largest code */
} mq_fit_levels;

/* w = scale·(code - zero), a code for each of the levels. */
typedef struct mq_fit_grid {
    float scale;
    unsigned zero;
    float codes[MQ_FIT_LEVELS];
} mq_fit_grid;

typedef struct mq_fit_kernels {
    const char *name;
    /* Q8_0, count blocks: scales[count], float16 numbers, and whole codes[count, 32] -127 … 127 of
     * values[count, 32]; steps[count]: the slice's own, which are exact where its zero point is a
     * whole number and in reach. */
    void (*symmetric)(float *scales, float *codes, const float *values, const float *steps,
                      size_t count);
    /* Q2_K: values[256]; wishes: scale and minimum, both at least 0, that each sub-block would take
     * if it could. */
    void (*super)(mq_fit_super *out, const float *values, const float wish_scale[MQ_FIT_SUBS],
                  const float wish_minimum[MQ_FIT_SUBS]);
    /* Q3_K, Q6_K, by bits: values[256]; steps: the slice's own in each sub-block, which are tried,
     * too, for they are exact where its zero point is in the middle. */
    void (*centred)(mq_fit_centred *out, const float *values, const float steps[MQ_FIT_SUBS],
                    unsigned bits);
    /* A whole zero point, count groups whose grids are of one size; scales are rounded to dtype
     * before codes are chosen. count: 1 to MQ_FIT_GROUPS, several take less time each. */
    void (*integer)(mq_fit_grid *out, const mq_fit_levels *levels, size_t count, mq_dtype dtype);
} mq_fit_kernels;

/* For this processor. */
const mq_fit_kernels *mq_fit_kernels_best(void);

extern const mq_fit_kernels mq_fit_kernels_base; /* any processor: the reference of the tests */
#if defined(__x86_64__)
extern const mq_fit_kernels mq_fit_kernels_avx2;
extern const mq_fit_kernels mq_fit_kernels_avx512;
#endif

#endif
