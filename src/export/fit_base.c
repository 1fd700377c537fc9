/* The fits of slices, compiled for any machine; the reference for the others. */
#define MQ_KERNEL_NAME "base"
#define MQ_KERNEL_SYMBOL mq_fit_kernels_base
#include "export/fit_kernel.h"
