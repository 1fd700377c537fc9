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

/* Step number `step` (from 0) of `steps`, with the rates falling to zero along a cosine. */
static inline mq_adam mq_adam_at(double beta1, float rate_group, float rate_rounding, size_t step,
                                 size_t steps) {
    const double beta2 = 0.95;
    const double pi = 3.14159265358979323846;
    const double t = (double)step + 1.0;
    const double schedule = 0.5 * (1.0 + cos(pi * (double)step / (double)steps));
    mq_adam adam = {
        .rate_group = (float)(rate_group * schedule),
        .rate_rounding = (float)(rate_rounding * schedule),
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .epsilon = 1e-8f,
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
