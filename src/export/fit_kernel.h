/* The searches of fit.h, compiled once for each instruction set: a file that defines MQ_KERNEL_NAME
 * includes this one. Fits are made in single precision, codes as floats, and sums in one order,
 * however many of them go side by side. */
#ifndef MQ_KERNEL_NAME
#error "define MQ_KERNEL_NAME before including fit_kernel.h"
#endif

#include "export/fit_centred.h"
#include "export/fit_integer.h"
#include "export/fit_super.h"
#include "export/fit_symmetric.h"

const mq_fit_kernels MQ_KERNEL_SYMBOL = {MQ_KERNEL_NAME, fit_symmetric, fit_super, fit_centred,
                                         fit_integer};
