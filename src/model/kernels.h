/* The loops of a block that are not matrix products, for one thread and a few rows, compiled once
 * for every instruction set (kernels_body.h) and chosen at run time. ops.h and block.c split them
 * over threads. Arrays are float32 unless their type says otherwise;
 * results depend on the instruction set, never on how rows are distributed over calls (but
 * rmsnorm_backward's and column_sum's sums, which their callers make over fixed runs). */
#ifndef MQ_MODEL_KERNELS_H
#define MQ_MODEL_KERNELS_H

#include <stddef.h>

#include "model/arch.h"
#include "tensor/bf16.h"

/* Rows that a thread works on in one go. Partial sums over tokens are over runs of this many rows
 * that begin at multiples of it, whatever the number of threads. */
#define MQ_ROW_CHUNK 32

typedef struct mq_kernels {
    const char *name;

    /* y[rows, n] = x · inv_rms · weight[n]; inv_rms[rows] = 1/sqrt(mean(x²) + eps). y may be x. */
    void (*rmsnorm)(float *y, float *inv_rms, const float *x, const float *weight, size_t rows,
                    size_t n, float eps);
    /* sum[rows, n] = a + b, y = rmsnorm(sum). sum may be a or b. */
    void (*add_rmsnorm)(float *sum, float *y, float *inv_rms, const float *a, const float *b,
                        const float *weight, size_t rows, size_t n, float eps);
    /* sum[rows, n] = a + rmsnorm(x). sum may be a. */
    void (*rmsnorm_add)(float *sum, float *inv_rms, const float *a, const float *x,
                        const float *weight, size_t rows, size_t n, float eps);
    /* dx[rows, n] = (base ? base : 0) + gradient through the norm; dx NULL: not wanted, and it may
     * be dy or base. dweight[n] += its gradient; NULL: not wanted. */
    void (*rmsnorm_backward)(float *dx, float *dweight, const float *base, const float *dy,
                             const float *x, const float *inv_rms, const float *weight, size_t rows,
                             size_t n);

    /* y[count] = a + b; y may be either. */
    void (*add)(float *y, const float *a, const float *b, size_t count);
    /* y[rows, n] += bias[n]. */
    void (*add_bias)(float *y, const float *bias, size_t rows, size_t n);
    /* sum[n] += Σ over rows of x[rows, n]. */
    void (*column_sum)(float *sum, const float *x, size_t rows, size_t n);
    /* Σ a·b over count. */
    float (*dot)(const float *a, const float *b, size_t count);
    /* y[count] *= factor. */
    void (*scale)(float *y, float factor, size_t count);

    /* y[count] = x rounded to bfloat16, the same with every instruction set. */
    void (*to_bf16)(mq_bf16 *y, const float *x, size_t count);

    /* The same of x[rows, n], turned: y[n, rows], of which a row begins every ld. */
    void (*to_bf16_turned)(mq_bf16 *y, size_t ld, const float *x, size_t rows, size_t n);

    /* Rotary embedding (Su et al. 2021, the halves layout of transformers) of one token's heads,
     * x[heads, head_dim] in place: (x1, x2) <- (x1·cos - x2·sin, x2·cos + x1·sin), or, with
     * inverse, the rotation back, which is its gradient, too. x1 and x2 are the first and the
     * second `half` of a head's numbers; the rest of them stay. cos_row and sin_row [half]. */
    void (*rope)(float *x, const float *cos_row, const float *sin_row, size_t heads,
                 size_t head_dim, size_t half, bool inverse);

    /* By mq_activation: h[count] = act(gate)·up; and its gradient. h may be gate or up; dgate may
     * be gate or dh, dup may be up. */
    void (*glu[2])(float *h, const float *gate, const float *up, size_t count);
    void (*glu_backward[2])(float *dgate, float *dup, const float *dh, const float *gate,
                            const float *up, size_t count);
    /* The same of rounded numbers. h, and gate_kept and up_kept unless they are NULL, become h,
     * gate and up rounded; the gradient is that at what was kept. Only dgate may be another array,
     * dh. */
    void (*glu_bf16[2])(mq_bf16 *h, mq_bf16 *gate_kept, mq_bf16 *up_kept, const float *gate,
                        const float *up, size_t count);
    void (*glu_backward_bf16[2])(float *dgate, float *dup, const float *dh, const mq_bf16 *gate,
                                 const mq_bf16 *up, size_t count);

    /* In place on scores s[count]: s <- exp(s' - max), with s' = softcap·tanh(s/softcap) if softcap
     * > 0. *max and *sum (of the exponentials) are given out; the caller divides. */
    void (*softmax)(float *s, float *max, float *sum, size_t count, float softcap);
    /* s[count] <- p = exp(s' - lse); ds[count] <- scale·p·(ds - delta)·ds'/ds, where ds held dL/dp.
     */
    void (*softmax_backward)(float *s, float *ds, size_t count, float lse, float delta, float scale,
                             float softcap);
} mq_kernels;

/* x[rows, columns], rounded, into rows [first, first + rows) of y[y_rows, columns], in panels
 * (tensor/panels.h). */
void mq_round_panels(mq_bf16 *y, size_t y_rows, size_t first, const float *x, size_t rows,
                     size_t columns);

/* By instruction set (base/machine.h). */
extern const mq_kernels mq_kernels_base, mq_kernels_avx2, mq_kernels_avx512;
/* The fastest that this processor runs; and all of them, slowest first, until NULL. */
const mq_kernels *mq_kernels_best(void);
const mq_kernels *mq_kernels_at(size_t index);

#endif
