/* The fits of slices, compiled for AVX2 (flags and choice of files: cmake/MatquantFlags.cmake). */
#define MQ_KERNEL_NAME "avx2"
#define MQ_KERNEL_SYMBOL mq_fit_kernels_avx2
#include "export/fit_kernel.h"
