/* Sums over a group's weights in a fixed number of lanes: compilers turn them into vectors of any
 * length, and the result is the same for each. */
#ifndef MQ_QUANT_LANES_H
#define MQ_QUANT_LANES_H

#include <assert.h>
#include <stddef.h>

#define MQ_LANES 16
/* Groups are worked on in chunks of at most this many weights, a multiple of MQ_LANES, that stay in
 * the nearest cache. */
#define MQ_CHUNK 128

static_assert(MQ_CHUNK % MQ_LANES == 0, "element i of any chunk goes to lane i mod MQ_LANES");

typedef struct mq_lanes {
    float lane[MQ_LANES];
} mq_lanes;

static inline float mq_lanes_sum(const mq_lanes *lanes) {
    float sum[MQ_LANES];
    for (size_t i = 0; i < MQ_LANES; i++) {
        sum[i] = lanes->lane[i];
    }
    for (size_t width = MQ_LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            sum[i] += sum[i + width];
        }
    }
    return sum[0];
}

/* lanes += a[count], and lanes += a[count]·b[count]; element i goes to lane i mod MQ_LANES. */
static inline void mq_lanes_add(mq_lanes *lanes, const float *a, size_t count) {
    size_t i = 0;
    for (; i + MQ_LANES <= count; i += MQ_LANES) {
        for (size_t l = 0; l < MQ_LANES; l++) {
            lanes->lane[l] += a[i + l];
        }
    }
    for (size_t l = 0; i < count; i++, l++) {
        lanes->lane[l] += a[i];
    }
}

static inline void mq_lanes_add_product(mq_lanes *lanes, const float *a, const float *b,
                                        size_t count) {
    size_t i = 0;
    for (; i + MQ_LANES <= count; i += MQ_LANES) {
        for (size_t l = 0; l < MQ_LANES; l++) {
            lanes->lane[l] += a[i + l] * b[i + l];
        }
    }
    for (size_t l = 0; i < count; i++, l++) {
        lanes->lane[l] += a[i] * b[i];
    }
}

#endif
