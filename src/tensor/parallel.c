#include "tensor/parallel.h"

#include <omp.h>
#include <stdbool.h>

/* Chunks whose sums are held at once: 1 MiB of numbers of work between two joins. */
#define CHUNKS_AT_ONCE 256

static double sum_of_chunk(const float *values, size_t count, bool squares) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double value = values[i];
        sum += squares ? value * value : value;
    }
    return sum;
}

static double sum_of_chunks(const float *values, size_t count, bool squares) {
    double partial[CHUNKS_AT_ONCE];
    double total = 0;
    size_t chunks = count / MQ_SUM_CHUNK + (count % MQ_SUM_CHUNK != 0);
    for (size_t first = 0; first < chunks; first += CHUNKS_AT_ONCE) {
        size_t now = chunks - first < CHUNKS_AT_ONCE ? chunks - first : CHUNKS_AT_ONCE;
#pragma omp parallel for schedule(static) if (now >= 16 && !omp_in_parallel())
        for (size_t i = 0; i < now; i++) {
            size_t begin = (first + i) * MQ_SUM_CHUNK;
            size_t length = count - begin < MQ_SUM_CHUNK ? count - begin : MQ_SUM_CHUNK;
            partial[i] = sum_of_chunk(values + begin, length, squares);
        }
        for (size_t i = 0; i < now; i++) {
            total += partial[i];
        }
    }
    return total;
}

double mq_sum(const float *values, size_t count) { return sum_of_chunks(values, count, false); }

double mq_sum_squares(const float *values, size_t count) {
    return sum_of_chunks(values, count, true);
}
