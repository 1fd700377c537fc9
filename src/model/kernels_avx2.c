/* kernels.h for AVX2 and FMA. */
#include "model/kernels.h"

extern const mq_kernels mq_kernels_avx2;
#define MQ_KERNELS_TABLE mq_kernels_avx2
#define MQ_KERNELS_NAME "avx2"
#include "model/kernels_body.h"
