/* The operations of a block in plain loops and in double, forward and backward: what the tests hold
 * mq_kernels (model/kernels.h) and ops.h against. Arrays float32, row-major. */
#ifndef MQ_TEST_REFERENCE_OPS_H
#define MQ_TEST_REFERENCE_OPS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "model/arch.h"

/* --- RMSNorm: as mq_rmsnorm_forward and mq_rmsnorm_backward ----------------------------------- */

static inline void rmsnorm_forward_reference(float *y, float *inv_rms, const float *x,
                                             const float *weight, size_t rows, size_t n,
                                             float eps) {
    for (size_t r = 0; r < rows; r++) {
        double sum = 0.0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)x[r * n + i] * (double)x[r * n + i];
        }
        const double inv = 1.0 / sqrt(sum / (double)n + (double)eps);
        for (size_t i = 0; i < n; i++) {
            y[r * n + i] = (float)((double)x[r * n + i] * inv * (double)weight[i]);
        }
        inv_rms[r] = (float)inv;
    }
}

/* y_i = x_i·inv·w_i with inv = (Σx²/n + eps)^(-1/2), so that d inv/dx_j = -inv³·x_j/n. */
static inline void rmsnorm_backward_reference(float *dx, float *dweight, const float *dy,
                                              const float *x, const float *inv_rms,
                                              const float *weight, size_t rows, size_t n,
                                              bool accumulate) {
    for (size_t i = 0; dweight && i < n; i++) {
        double sum = 0.0;
        for (size_t r = 0; r < rows; r++) {
            sum += (double)dy[r * n + i] * (double)x[r * n + i] * (double)inv_rms[r];
        }
        dweight[i] = (float)sum;
    }
    for (size_t r = 0; dx && r < rows; r++) {
        const double inv = (double)inv_rms[r];
        double dot = 0.0;
        for (size_t i = 0; i < n; i++) {
            dot += (double)dy[r * n + i] * (double)weight[i] * (double)x[r * n + i];
        }
        for (size_t i = 0; i < n; i++) {
            const double through = inv * (double)dy[r * n + i] * (double)weight[i];
            const double along = inv * inv * inv * (double)x[r * n + i] * dot / (double)n;
            const double before = accumulate ? (double)dx[r * n + i] : 0.0;
            dx[r * n + i] = (float)(before + through - along);
        }
    }
}

/* --- rotary embedding ------------------------------------------------------------------------- */

static inline void rotate_reference(float *x, size_t stride, const float *cos_table,
                                    const float *sin_table, size_t sequences, size_t length,
                                    size_t heads, size_t head_dim, size_t half, double direction) {
    for (size_t t = 0; t < sequences * length; t++) {
        for (size_t h = 0; h < heads; h++) {
            float *head = x + t * stride + h * head_dim;
            for (size_t i = 0; i < half; i++) {
                const double c = (double)cos_table[t % length * half + i];
                const double s = direction * (double)sin_table[t % length * half + i];
                const double a = (double)head[i], b = (double)head[i + half];
                head[i] = (float)(a * c - b * s);
                head[i + half] = (float)(b * c + a * s);
            }
        }
    }
}

/* In place on x[sequences·length, heads, head_dim], row stride `stride` floats between tokens; of
 * each head the first 2·half numbers, by tables [length, half]. */
static inline void rope_forward_reference(float *x, size_t stride, const float *cos_table,
                                          const float *sin_table, size_t sequences, size_t length,
                                          size_t heads, size_t head_dim, size_t half) {
    rotate_reference(x, stride, cos_table, sin_table, sequences, length, heads, head_dim, half,
                     1.0);
}

/* By the negative angle, since a linear map's gradient is its transpose. */
static inline void rope_backward_reference(float *dx, size_t stride, const float *cos_table,
                                           const float *sin_table, size_t sequences, size_t length,
                                           size_t heads, size_t head_dim, size_t half) {
    rotate_reference(dx, stride, cos_table, sin_table, sequences, length, heads, head_dim, half,
                     -1.0);
}

/* --- gated activation: h[count] = act(gate)·up, and its gradient ------------------------------ */

#define GELU_FACTOR 0.79788456080286535588 /* sqrt(2/π) */
#define GELU_CUBE 0.044715

static inline double activate(double x, mq_activation activation) {
    if (activation == MQ_SILU) {
        return x / (1.0 + exp(-x));
    }
    return 0.5 * x * (1.0 + tanh(GELU_FACTOR * (x + GELU_CUBE * x * x * x)));
}

static inline double activation_slope(double x, mq_activation activation) {
    if (activation == MQ_SILU) {
        const double sigmoid = 1.0 / (1.0 + exp(-x));
        return sigmoid * (1.0 + x * (1.0 - sigmoid));
    }
    const double t = tanh(GELU_FACTOR * (x + GELU_CUBE * x * x * x));
    return 0.5 * (1.0 + t) +
           0.5 * x * (1.0 - t * t) * GELU_FACTOR * (1.0 + 3.0 * GELU_CUBE * x * x);
}

static inline void glu_forward_reference(float *h, const float *gate, const float *up, size_t count,
                                         mq_activation activation) {
    for (size_t i = 0; i < count; i++) {
        h[i] = (float)(activate((double)gate[i], activation) * (double)up[i]);
    }
}

static inline void glu_backward_reference(float *dgate, float *dup, const float *dh,
                                          const float *gate, const float *up, size_t count,
                                          mq_activation activation) {
    for (size_t i = 0; i < count; i++) {
        const double x = (double)gate[i], u = (double)up[i], d = (double)dh[i];
        dgate[i] = (float)(d * u * activation_slope(x, activation));
        dup[i] = (float)(d * activate(x, activation));
    }
}

#endif
