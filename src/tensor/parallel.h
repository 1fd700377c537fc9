/* Splitting work over threads so that results do not depend on how many there are. */
#ifndef MQ_TENSOR_PARALLEL_H
#define MQ_TENSOR_PARALLEL_H

#include <stddef.h>

/* Sums of many numbers are taken over fixed chunks of this many elements, each in order, then over
 * the chunks in order: whichever thread computes a chunk, the result is the same. */
#define MQ_SUM_CHUNK 4096

/* Σ values[i] in double, by chunks. */
double mq_sum(const float *values, size_t count);
double mq_sum_squares(const float *values, size_t count);

#endif
