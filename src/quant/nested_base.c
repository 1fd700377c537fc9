/* The nested grid's loops for any machine; the reference for the others. */
#define MQ_KERNEL_NAME "base"
#define MQ_KERNEL_SYMBOL mq_nested_kernels_base
#include "quant/nested_kernel.h"
