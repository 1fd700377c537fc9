/* The refit's loops compiled for AVX2 (flags and choice of files: cmake/MatquantFlags.cmake). */
#define MQ_KERNEL_NAME "avx2"
#define MQ_KERNEL_SYMBOL mq_refit_kernels_avx2
#include "quant/refit_kernels_body.h"
