#include "quant/fold.h"

#include <math.h>

/* s of the producer's row h·width + c: of the mean over all that read it, since it has to be one
 * for all of them. Its logarithm. */
static double log_scale(const mq_fold_pair *pair, size_t h, size_t c) {
    double square = 0.0;
    for (size_t j = 0; j < pair->copies; j++) {
        square += (double)pair->gram[(h * pair->copies + j) * pair->width + c];
    }
    return MQ_FOLD_POWER * 0.5 * log(square / (double)pair->copies);
}

static void find_scales(float *scale, const mq_fold_pair *pair) {
    double mean = 0.0;
    for (size_t h = 0; h < pair->heads; h++) {
        for (size_t c = 0; c < pair->width; c++) {
            mean += log_scale(pair, h, c) / (double)(pair->heads * pair->width);
        }
    }
    for (size_t h = 0; h < pair->heads; h++) {
        for (size_t c = 0; c < pair->width; c++) {
            const float s = (float)exp(log_scale(pair, h, c) - mean);
            for (size_t j = 0; j < pair->copies; j++) {
                scale[(h * pair->copies + j) * pair->width + c] = s;
            }
        }
    }
}

static void divide_rows(const mq_fold_pair *pair, const float *scale) {
#pragma omp parallel for
    for (size_t row = 0; row < pair->heads * pair->width; row++) {
        const size_t h = row / pair->width, c = row % pair->width;
        const float factor = 1.0f / scale[h * pair->copies * pair->width + c];
        for (size_t i = 0; i < pair->producer_in; i++) {
            pair->producer[row * pair->producer_in + i] *= factor;
        }
    }
}

void mq_fold(float *scale, const mq_fold_pair *pair) {
    const size_t in = pair->heads * pair->copies * pair->width;
    find_scales(scale, pair);
    divide_rows(pair, scale);
#pragma omp parallel for
    for (size_t row = 0; row < pair->consumer_out; row++) {
        for (size_t i = 0; i < in; i++) {
            pair->consumer[row * in + i] *= scale[i];
        }
    }
    for (size_t i = 0; i < in; i++) {
        pair->gram[i] /= scale[i] * scale[i];
    }
    if (pair->gram_matrix == NULL) {
        return;
    }
#pragma omp parallel for
    for (size_t row = 0; row < in; row++) {
        for (size_t i = 0; i < in; i++) {
            pair->gram_matrix[row * in + i] /= scale[row] * scale[i];
        }
    }
}
