/* The loops over one token's logits, compiled for each instruction set (head_kernels_body.h) and
 * chosen at run time. */
#ifndef MQ_MODEL_HEAD_KERNELS_H
#define MQ_MODEL_HEAD_KERNELS_H

#include <stddef.h>

typedef struct mq_head_kernels {
    const char *name;
    /* What the head's products are made into logits[n] by, in place: l = scale·logits and, if cap >
     * 0, cap·tanh(l/cap). */
    void (*finish)(float *logits, size_t n, float scale, float cap);
    /* The largest of logits[n]. */
    float (*largest)(const float *logits, size_t n);
    /* *max = the largest of logits[n], *sum = Σ exp(logits - *max). */
    void (*log_sum)(float *max, float *sum, const float *logits, size_t n);
    /* Σ exp(reference - max)·(reference - logits) over [n], max the largest of reference. */
    float (*cross)(const float *logits, const float *reference, size_t n, float max);
    /* One token's share of KL(reference ‖ model) and its gradient by the logits before their cap:
     * with p = exp(reference - reference_lse), s <- weight·(exp(s - lse) - p)·(softcap > 0 ? 1 -
     * (s/softcap)² : 1); returns Σ p·(reference - s), to which the caller adds lse - reference_lse
     * once for all of a token's logits. */
    float (*kl_gradient)(float *s, const float *reference, size_t n, float lse, float reference_lse,
                         float weight, float softcap);
    /* The lowest index of a logit that equals max; 0 when there is none (a NaN among them). */
    size_t (*find)(const float *logits, size_t n, float max);
    /* p[n] = exp((logits - max)·inverse_temperature); returns their sum. */
    float (*exponentials)(float *p, const float *logits, size_t n, float max,
                          float inverse_temperature);
} mq_head_kernels;

/* By instruction set (base/machine.h). */
extern const mq_head_kernels mq_head_kernels_base, mq_head_kernels_avx2, mq_head_kernels_avx512;
/* The fastest that this processor runs; and all of them, slowest first, until NULL. */
const mq_head_kernels *mq_head_kernels_best(void);
const mq_head_kernels *mq_head_kernels_at(size_t index);

#endif
