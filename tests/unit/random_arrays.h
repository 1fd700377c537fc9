/* Arrays of random numbers, and how far two of them are apart: what tests of the block's operations
 * share. */
#ifndef MQ_TESTS_RANDOM_ARRAYS_H
#define MQ_TESTS_RANDOM_ARRAYS_H

#include "base/alloc.h"
#include "base/random.h"
#include "double_block.h"

static mq_random generator;

static inline float *new_floats(size_t count) {
    float *out = mq_calloc(count, sizeof *out);
    assert_non_null(out);
    return out;
}

/* count numbers in [-width, width]. */
static inline float *random_floats(size_t count, double width) {
    float *out = new_floats(count);
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(width * (2.0 * mq_random_unit(&generator) - 1.0));
    }
    return out;
}

static inline float *copy_floats(const float *x, size_t count) {
    float *out = new_floats(count);
    memcpy(out, x, count * sizeof *out);
    return out;
}

static inline double *to_doubles(const float *x, size_t count) {
    double *out = new_doubles(count);
    for (size_t i = 0; i < count; i++) {
        out[i] = (double)x[i];
    }
    return out;
}

static inline void free_all(float **arrays, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mq_free(arrays[i]);
    }
}

/* |a - b| <= tolerance · max(least, max |b|) for all. */
static inline void check_within(const char *what, const float *a, const float *b, size_t count,
                                double tolerance, double least) {
    double largest = least;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)b[i]));
    }
    for (size_t i = 0; i < count; i++) {
        const double error = fabs((double)a[i] - (double)b[i]);
        if (!(error <= tolerance * largest)) {
            fail_msg("%s[%zu]: %.9g, expected %.9g (largest %.3g)", what, i, (double)a[i],
                     (double)b[i], largest);
        }
    }
}

static inline void check_close(const char *what, const float *a, const float *b, size_t count,
                               double tolerance) {
    check_within(what, a, b, count, tolerance, 0.0);
}

/* Central difference of Σ weight·f(x) by x[at], where f writes count numbers into out. */
typedef void (*double_function)(double *out, void *user);

static inline double difference(double_function f, void *user, double *x, const float *weight,
                                double *out, size_t count) {
    const double step = 1e-5, middle = *x;
    double sums[2] = {0.0, 0.0};
    for (int side = 0; side < 2; side++) {
        *x = middle + (side == 0 ? step : -step);
        f(out, user);
        for (size_t i = 0; i < count; i++) {
            sums[side] += (double)weight[i] * out[i];
        }
    }
    *x = middle;
    return (sums[0] - sums[1]) / (2.0 * step);
}

#endif
