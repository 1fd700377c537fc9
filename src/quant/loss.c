#include "quant/loss.h"

#include <assert.h>

/* A token whose target is this small in square counts as if it were this large: nothing is divided
 * by zero. */
#define SMALLEST_NORM 1e-20

/* Tokens are summed in fixed chunks, the chunks in order, whatever the threads. */
#define TOKENS_PER_CHUNK 64
#define MAX_CHUNKS 64

static double token_norm(const float *target, size_t hidden_size) {
    double norm = 0.0;
#pragma omp simd reduction(+ : norm)
    for (size_t i = 0; i < hidden_size; i++) {
        norm += (double)target[i] * (double)target[i];
    }
    return norm < SMALLEST_NORM ? SMALLEST_NORM : norm;
}

static double token_error(const float *y, const float *target, size_t hidden_size) {
    double error = 0.0;
#pragma omp simd reduction(+ : error)
    for (size_t i = 0; i < hidden_size; i++) {
        const double difference = (double)y[i] - (double)target[i];
        error += difference * difference;
    }
    return error;
}

double mq_block_loss_value(const float *y, const float *target, size_t tokens, size_t hidden_size,
                           mq_loss loss) {
    double total = 0.0;
    for (size_t begin = 0; begin < tokens; begin += (size_t)TOKENS_PER_CHUNK * MAX_CHUNKS) {
        double sum[MAX_CHUNKS] = {0};
        const size_t left = (tokens - begin + TOKENS_PER_CHUNK - 1) / TOKENS_PER_CHUNK;
        const size_t chunks = left < MAX_CHUNKS ? left : MAX_CHUNKS;
#pragma omp parallel for
        for (size_t chunk = 0; chunk < chunks; chunk++) {
            const size_t first = begin + chunk * TOKENS_PER_CHUNK;
            for (size_t t = first; t < first + TOKENS_PER_CHUNK && t < tokens; t++) {
                const float *goal = target + t * hidden_size;
                sum[chunk] += token_error(y + t * hidden_size, goal, hidden_size) /
                              (loss == MQ_LOSS_RELATIVE ? token_norm(goal, hidden_size)
                                                        : (double)hidden_size);
            }
        }
        for (size_t chunk = 0; chunk < MAX_CHUNKS; chunk++) {
            total += sum[chunk];
        }
    }
    return total / (double)tokens;
}

/* The slope of a goal at one token is this times (y - target). */
static float slope_factor(const mq_goal *goal, size_t t, size_t tokens, size_t hidden_size,
                          mq_loss loss) {
    const double norm = loss == MQ_LOSS_RELATIVE
                            ? token_norm(goal->target + t * hidden_size, hidden_size)
                            : (double)hidden_size;
    return (float)(2.0 * goal->weight / (norm * (double)tokens));
}

void mq_block_loss_gradient(float *y, const mq_goal goals[], size_t count, size_t tokens,
                            size_t hidden_size, mq_loss loss) {
    assert(count >= 1 && count <= MQ_MAX_GOALS);
#pragma omp parallel for
    for (size_t t = 0; t < tokens; t++) {
        float *row = y + t * hidden_size;
        float factor[MQ_MAX_GOALS];
        for (size_t g = 0; g < count; g++) {
            factor[g] = slope_factor(&goals[g], t, tokens, hidden_size, loss);
        }
        for (size_t i = 0; i < hidden_size; i++) {
            float slope = factor[0] * (row[i] - goals[0].target[t * hidden_size + i]);
            for (size_t g = 1; g < count; g++) {
                slope += factor[g] * (row[i] - goals[g].target[t * hidden_size + i]);
            }
            row[i] = slope;
        }
    }
}
