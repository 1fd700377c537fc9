#include "eval/perplexity.h"

#include <math.h>

double mq_mean(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    return sum / (double)count;
}

mq_estimate mq_estimate_of(const double *windows, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += windows[i];
    }
    double n = (double)count;
    double mean = sum / n;
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        double d = windows[i] - mean;
        squares += d * d;
    }
    double std_error = count > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    return (mq_estimate){mean, std_error};
}
