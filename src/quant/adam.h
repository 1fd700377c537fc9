/* Adam (Kingma & Ba 2015, algorithm 1), one parameter at a time. */
#ifndef MQ_QUANT_ADAM_H
#define MQ_QUANT_ADAM_H

#include <math.h>
#include <stddef.h>

/* The constants of one step; rates are already those of the schedule. */
typedef struct mq_adam {
    float rate_group;    /* clip, scale and offset of a group */
    float rate_rounding; /* rounding offset of a weight */
    float beta1, beta2, epsilon;
    float correction1, correction2; /* 1/(1 - beta^t) */
} mq_adam;

/* Of the end-to-end stages, and of recipe paper (the usual one). */
#define MQ_ADAM_BETA1 0.9

#define MQ_ADAM_EPSILON 1e-8 /* recipe paper's: PyTorch's */

/* Epsilon of recipe best's blocks, with steps of so many tokens. It is not small beside the
 * gradients of V, where it damps what hardly matters, and was found on SmolLM2 (hidden_size 576,
 * steps of 1,024 tokens). These gradients fall as a model grows: of a loss that is divided by a
 * token's norm one output is a hidden_size-th, V counts in steps of weights as small as
 * hidden_size^-1/2, and of tokens that do not agree the mean falls with up to their root. Beside
 * them an epsilon that stays would take ever more from larger models (tests/bench/RESULTS.md,
 * "Adam's epsilon and the size of a model"). */
static inline double mq_adam_blocks_epsilon(size_t hidden_size, double tokens) {
    return MQ_ADAM_EPSILON * pow(576.0 / (double)hidden_size, 1.5) * sqrt(1024.0 / tokens);
}

/* Epsilon of the end-to-end stages in a model of so many groups. KL's gradient by the numbers of
 * one group falls with the number of all. In SmolLM2 with groups of 64 the usual epsilon is a
 * thousandth of it or less and has no effect, nor has it in smaller models; that it has none in
 * larger ones, it falls as fast as the gradient may (RESULTS.md, as above). */
static inline double mq_adam_pairs_epsilon(size_t groups) {
    const double weights = 30.0 * 576.0 * (2.0 * 576.0 + 2.0 * 192.0 + 3.0 * 1536.0);
    const double share = weights / 64.0 / (double)groups;
    return MQ_ADAM_EPSILON * (share < 1.0 ? share : 1.0);
}

/* Step number `step` (from 0) of `steps`, with the rates falling to zero along a cosine. They are
 * doubles until the end: gcc 12 at -O3 leaves out a rounding to float on the way, or not, by what
 * it inlines this into, and a step would be another in its last bit. */
static inline mq_adam mq_adam_at(double beta1, double epsilon, double rate_group,
                                 double rate_rounding, size_t step, size_t steps) {
    const double beta2 = 0.95;
    const double pi = 3.14159265358979323846;
    const double t = (double)step + 1.0;
    const double schedule = 0.5 * (1.0 + cos(pi * (double)step / (double)steps));
    mq_adam adam = {
        .rate_group = (float)(rate_group * schedule),
        .rate_rounding = (float)(rate_rounding * schedule),
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .epsilon = (float)epsilon,
        .correction1 = (float)(1.0 / (1.0 - pow(beta1, t))),
        .correction2 = (float)(1.0 / (1.0 - pow(beta2, t))),
    };
    return adam;
}

/* The new parameter; m and v are its moments. */
static inline float mq_adam_update(float *m, float *v, const mq_adam *adam, float rate,
                                   float parameter, float gradient) {
    *m = adam->beta1 * *m + (1.0f - adam->beta1) * gradient;
    *v = adam->beta2 * *v + (1.0f - adam->beta2) * gradient * gradient;
    return parameter -
           rate * (*m * adam->correction1) / (sqrtf(*v * adam->correction2) + adam->epsilon);
}

#endif
