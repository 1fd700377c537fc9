/* kernels.h for AVX-512 (F, BW, DQ, VL). */
#include "model/kernels.h"

#define MQ_KERNEL_SYMBOL mq_kernels_avx512
#define MQ_KERNEL_NAME "avx512"
#include "model/kernels_body.h"
