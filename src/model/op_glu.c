/* The gated activation of the feed-forward part, forward and backward: the reference (kernels.h has
 * the fast one). */
#include <math.h>

#include "model/ops.h"

static const double gelu_factor = 0.79788456080286535588; /* sqrt(2/π) */
static const double gelu_cube = 0.044715;

static double activate(double x, mq_activation activation) {
    if (activation == MQ_SILU) {
        return x / (1.0 + exp(-x));
    }
    return 0.5 * x * (1.0 + tanh(gelu_factor * (x + gelu_cube * x * x * x)));
}

static double activation_slope(double x, mq_activation activation) {
    if (activation == MQ_SILU) {
        const double sigmoid = 1.0 / (1.0 + exp(-x));
        return sigmoid * (1.0 + x * (1.0 - sigmoid));
    }
    const double t = tanh(gelu_factor * (x + gelu_cube * x * x * x));
    return 0.5 * (1.0 + t) +
           0.5 * x * (1.0 - t * t) * gelu_factor * (1.0 + 3.0 * gelu_cube * x * x);
}

void mq_glu_forward_reference(float *h, const float *gate, const float *up, size_t count,
                              mq_activation activation) {
    for (size_t i = 0; i < count; i++) {
        h[i] = (float)(activate((double)gate[i], activation) * (double)up[i]);
    }
}

void mq_glu_backward_reference(float *dgate, float *dup, const float *dh, const float *gate,
                               const float *up, size_t count, mq_activation activation) {
    for (size_t i = 0; i < count; i++) {
        const double x = (double)gate[i], u = (double)up[i], d = (double)dh[i];
        dgate[i] = (float)(d * u * activation_slope(x, activation));
        dup[i] = (float)(d * activate(x, activation));
    }
}
