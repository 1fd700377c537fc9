/* head_kernels.h with AVX2 and FMA; compiled for them, called only where the processor has them. */
#include "model/head_kernels.h"

#define MQ_KERNEL_SYMBOL mq_head_kernels_avx2
#define MQ_KERNEL_NAME "avx2"
#include "model/head_kernels_body.h"
