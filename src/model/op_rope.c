/* Rotary position embedding, forward and backward: the reference (kernels.h has the fast one). */
#include "model/ops.h"

static void rotate_reference(float *x, size_t stride, const float *cos_table,
                             const float *sin_table, size_t sequences, size_t length, size_t heads,
                             size_t head_dim, size_t half, double direction) {
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

void mq_rope_forward_reference(float *x, size_t stride, const float *cos_table,
                               const float *sin_table, size_t sequences, size_t length,
                               size_t heads, size_t head_dim, size_t half) {
    rotate_reference(x, stride, cos_table, sin_table, sequences, length, heads, head_dim, half,
                     1.0);
}

void mq_rope_backward_reference(float *dx, size_t stride, const float *cos_table,
                                const float *sin_table, size_t sequences, size_t length,
                                size_t heads, size_t head_dim, size_t half) {
    rotate_reference(dx, stride, cos_table, sin_table, sequences, length, heads, head_dim, half,
                     -1.0);
}
