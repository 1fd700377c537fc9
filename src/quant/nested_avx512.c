/* The nested grid's loops compiled for AVX-512 (flags and choice of files:
 * cmake/MatquantFlags.cmake). */
#define MQ_KERNEL_NAME "avx512"
#define MQ_KERNEL_SYMBOL mq_nested_kernels_avx512
#include "quant/nested_kernel.h"
