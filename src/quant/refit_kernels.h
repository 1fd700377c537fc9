/* The refit's passes over the weights of a group: those that its codes mean, and the sums of their
 * gradients that its pair takes. Loops compiled for several instruction sets; the same bits with
 * each (no products are fused, and sums have a fixed number of lanes). */
#ifndef MQ_QUANT_REFIT_KERNELS_H
#define MQ_QUANT_REFIT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "matquant/format.h"
#include "tensor/bf16.h"

typedef struct mq_refit_kernels {
    const char *name;
    /* values[count] = scale·s + bias, where s are the slices of codes[count] (mq_slice_code), or
     * rounded[count], these rounded to bfloat16: one of the two is NULL. */
    void (*weights)(float *values, mq_bf16 *rounded, const uint8_t *codes, size_t count,
                    float scale, float bias, unsigned width, mq_slice_rule rule);
    /* *sum = Σ gradient, *sum_s = Σ gradient·(s - centre), over a group of `count`. */
    void (*sums)(float *sum, float *sum_s, const float *gradient, const uint8_t *codes,
                 size_t count, float centre, unsigned width, mq_slice_rule rule);
} mq_refit_kernels;

/* By instruction set (base/machine.h); base is the reference for the others. */
extern const mq_refit_kernels mq_refit_kernels_base, mq_refit_kernels_avx2, mq_refit_kernels_avx512;
/* The fastest that this processor runs; and all of them, slowest first, until NULL. */
const mq_refit_kernels *mq_refit_kernels_best(void);
const mq_refit_kernels *mq_refit_kernels_at(size_t index);

#endif
