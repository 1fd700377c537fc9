/* Means over windows of text, with their standard errors. */
#ifndef MQ_EVAL_PERPLEXITY_H
#define MQ_EVAL_PERPLEXITY_H

#include <stddef.h>

typedef struct mq_estimate {
    double mean;
    double std_error; /* of the mean; NaN for a single window, which says nothing about its own
                         spread */
} mq_estimate;

/* Mean of values[count] (count > 0) in double, in order; a NaN among them makes the mean NaN. */
double mq_mean(const float *values, size_t count);

/* Estimate from the means of windows[count] of equal length, count > 0. Tokens of one window depend
 * on one another, so the windows are the sample: std_error = sqrt(Σ (x - mean)² / (count - 1) /
 * count). */
mq_estimate mq_estimate_of(const double *windows, size_t count);

#endif
