/* kernels.h for AVX2 and FMA. */
#include "model/kernels.h"

#define MQ_KERNEL_SYMBOL mq_kernels_avx2
#define MQ_KERNEL_NAME "avx2"
#include "model/kernels_body.h"
