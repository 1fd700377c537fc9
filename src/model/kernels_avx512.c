/* kernels.h for AVX-512 (F, BW, DQ, VL). */
#include "model/kernels.h"

extern const mq_kernels mq_kernels_avx512;
#define MQ_KERNELS_TABLE mq_kernels_avx512
#define MQ_KERNELS_NAME "avx512"
#include "model/kernels_body.h"
