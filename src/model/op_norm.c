/* RMSNorm, forward and backward. */
#include "model/kernels.h"
#include "model/ops.h"

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
