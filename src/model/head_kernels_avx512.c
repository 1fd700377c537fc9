/* head_kernels.h with AVX-512 (F, BW, DQ, VL); compiled for them, called only where the processor
 * has them. */
#include "model/head_kernels.h"

#define MQ_KERNEL_SYMBOL mq_head_kernels_avx512
#define MQ_KERNEL_NAME "avx512"
#include "model/head_kernels_body.h"
