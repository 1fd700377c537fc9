/* The code behind head_kernels.h. Included by one .c file an instruction set, which defines
 * MQ_KERNEL_SYMBOL (the table) and MQ_KERNEL_NAME. */
#include <stdint.h>

#include "model/head_kernels.h"
#include "tensor/vexp.h"

static void finish(float *logits, size_t n, float scale, float cap) {
    if (cap > 0.0F) {
        const float inverse = scale / cap;
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            logits[i] = cap * mq_tanh_inline(logits[i] * inverse);
        }
    } else if (scale != 1.0F) {
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            logits[i] *= scale;
        }
    }
}

static float largest(const float *logits, size_t n) { return mq_largest_inline(logits, n); }

static void log_sum(float *max, float *sum, const float *logits, size_t n) {
    const float top = mq_largest_inline(logits, n);
    float total = 0.0F;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < n; i++) {
        total += mq_exp_inline(logits[i] - top);
    }
    *max = top;
    *sum = total;
}

static float cross(const float *logits, const float *reference, size_t n, float max) {
    float total = 0.0F;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < n; i++) {
        total += mq_exp_inline(reference[i] - max) * (reference[i] - logits[i]);
    }
    return total;
}

static float kl_gradient(float *s, const float *reference, size_t n, float lse, float reference_lse,
                         float weight, float softcap) {
    const float inverse = softcap > 0.0F ? 1.0F / softcap : 0.0F; /* 0: the slope is 1 */
    float total = 0.0F;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < n; i++) {
        const float logit = s[i], p = mq_exp_inline(reference[i] - reference_lse);
        const float capped = logit * inverse;
        total += p * (reference[i] - logit);
        s[i] = weight * (mq_exp_inline(logit - lse) - p) * (1.0F - capped * capped);
    }
    return total;
}

static size_t find(const float *logits, size_t n, float max) {
    uint32_t first = UINT32_MAX;
    const uint32_t count = (uint32_t)n; /* at most a chunk of the vocabulary */
#pragma omp simd reduction(min : first)
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t here = logits[i] == max ? i : UINT32_MAX;
        first = here < first ? here : first;
    }
    return first == UINT32_MAX ? 0 : first;
}

static float exponentials(float *p, const float *logits, size_t n, float max,
                          float inverse_temperature) {
    float total = 0.0F;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < n; i++) {
        const float e = mq_exp_inline((logits[i] - max) * inverse_temperature);
        p[i] = e;
        total += e;
    }
    return total;
}

const mq_head_kernels MQ_KERNEL_SYMBOL = {
    .name = MQ_KERNEL_NAME,
    .finish = finish,
    .largest = largest,
    .log_sum = log_sum,
    .cross = cross,
    .kl_gradient = kl_gradient,
    .find = find,
    .exponentials = exponentials,
};
