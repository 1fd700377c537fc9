/* RMSNorm, forward and backward. */
#include <math.h>

#include "model/kernels.h"
#include "model/ops.h"

void mq_rmsnorm_forward_reference(float *y, float *inv_rms, const float *x, const float *weight,
                                  size_t rows, size_t n, float eps) {
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

void mq_rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *weight, size_t rows,
                        size_t n, float eps) {
    const mq_kernels *kernels = mq_kernels_best();
    const size_t chunks = mq_rmsnorm_chunks(rows);
#pragma omp parallel for schedule(static)
    for (size_t c = 0; c < chunks; c++) {
        const size_t first = c * MQ_ROW_CHUNK;
        const size_t count = rows - first < MQ_ROW_CHUNK ? rows - first : MQ_ROW_CHUNK;
        kernels->rmsnorm(y + first * n, inv_rms + first, x + first * n, weight, count, n, eps);
    }
}

/* y_i = x_i·inv·w_i with inv = (Σx²/n + eps)^(-1/2), so that d inv/dx_j = -inv³·x_j/n. */
void mq_rmsnorm_backward_reference(float *dx, float *dweight, const float *dy, const float *x,
                                   const float *inv_rms, const float *weight, size_t rows, size_t n,
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

void mq_rmsnorm_backward(float *dx, float *dweight, const float *dy, const float *x,
                         const float *inv_rms, const float *weight, size_t rows, size_t n,
                         bool accumulate, float *scratch) {
    const mq_kernels *kernels = mq_kernels_best();
    const size_t chunks = mq_rmsnorm_chunks(rows);
#pragma omp parallel for schedule(static)
    for (size_t c = 0; c < chunks; c++) {
        const size_t first = c * MQ_ROW_CHUNK;
        const size_t count = rows - first < MQ_ROW_CHUNK ? rows - first : MQ_ROW_CHUNK;
        float *dx_rows = dx ? dx + first * n : NULL;
        float *sum = dweight ? scratch + c * n : NULL;
        for (size_t i = 0; sum && i < n; i++) {
            sum[i] = 0.0F;
        }
        kernels->rmsnorm_backward(dx_rows, sum, accumulate ? dx_rows : NULL, dy + first * n,
                                  x + first * n, inv_rms + first, weight, count, n);
    }
    if (dweight) {
        for (size_t i = 0; i < n; i++) {
            dweight[i] = 0.0F;
        }
        kernels->column_sum(dweight, scratch, chunks, n);
    }
}

size_t mq_rmsnorm_chunks(size_t rows) { return (rows + MQ_ROW_CHUNK - 1) / MQ_ROW_CHUNK; }
