/* The fits of slices, compiled for AVX-512 (flags and choice of files: cmake/MatquantFlags.cmake).
 */
#define MQ_KERNEL_NAME "avx512"
#define MQ_KERNEL_SYMBOL mq_fit_kernels_avx512
#include "export/fit_kernel.h"
