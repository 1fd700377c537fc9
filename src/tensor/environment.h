/* What the libraries below read of the environment when they are loaded, of which
 * matquant/context.h declares what programs call: which kernel the BLAS should take. */
#ifndef MQ_TENSOR_ENVIRONMENT_H
#define MQ_TENSOR_ENVIRONMENT_H

#include <stdbool.h>

/* What the processor and the operating system offer of the instructions that OpenBLAS has kernels
 * for. */
typedef struct mq_vector_support {
    bool avx2;   /* with FMA */
    bool avx512; /* F, CD, BW, DQ and VL */
} mq_vector_support;

/* The kernel that suits `support`, by its name for OPENBLAS_CORETYPE, where `chosen`, the one that
 * OpenBLAS took, is from before AVX2; NULL where `chosen` is none of these. Static text.
 * (OpenBLAS knows processors by their model number and takes Prescott, its oldest kernel of 64
 * bits, for those that are newer than it: Debian 12's 0.3.21 does on Emerald Rapids. A kernel with
 * AVX2 on a processor with AVX-512 is a choice, and left alone.) */
const char *mq_blas_kernel_for(const char *chosen, mq_vector_support support);

#endif
