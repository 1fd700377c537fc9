/* The refit's loops compiled for AVX-512 (flags and choice of files: cmake/MatquantFlags.cmake). */
#define MQ_KERNEL_NAME "avx512"
#define MQ_KERNEL_SYMBOL mq_refit_kernels_avx512
#include "quant/refit_kernels_body.h"
