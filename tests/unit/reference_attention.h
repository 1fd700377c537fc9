/* Attention in plain loops over one query at a time, in double: what the tests hold op_attention.c
 * against. Arrays are those of mq_attention_forward and mq_attention_backward, all of float32. */
#ifndef MQ_TEST_REFERENCE_ATTENTION_H
#define MQ_TEST_REFERENCE_ATTENTION_H

#include <math.h>
#include <string.h>

#include "model/ops.h"

typedef struct query {
    size_t token, head, first_key,
        kv_head; /* token and first_key count from the start of the batch */
} query;

static inline query query_at(const mq_attention_shape *shape, size_t index) {
    query a = {.token = index / shape->heads, .head = index % shape->heads};
    const size_t position = a.token % shape->length;
    const size_t begin =
        shape->window > 0 && position + 1 > shape->window ? position + 1 - shape->window : 0;
    a.first_key = a.token - position + begin;
    a.kv_head = a.head / (shape->heads / shape->kv_heads);
    return a;
}

static inline size_t q_index(const mq_attention_shape *s, const query *a) {
    return (a->token * s->heads + a->head) * s->head_dim;
}

static inline size_t kv_index(const mq_attention_shape *s, const query *a, size_t key) {
    return (key * s->kv_heads + a->kv_head) * s->head_dim;
}

static inline double reference_dot(const float *a, const float *b, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* The capped score of one pair, and its derivative by the scaled product. */
static inline double score(double *slope, const float *q, const float *k,
                           const mq_attention_shape *shape) {
    const double s = (double)shape->scale * reference_dot(q, k, shape->head_dim);
    if (shape->softcap <= 0.0F) {
        *slope = 1.0;
        return s;
    }
    const double t = tanh(s / (double)shape->softcap);
    *slope = 1.0 - t * t;
    return (double)shape->softcap * t;
}

static inline double log_sum_exp(const query *a, const float *q, const float *k,
                                 const mq_attention_shape *shape) {
    double max = -INFINITY, sum = 0.0, slope;
    for (size_t key = a->first_key; key <= a->token; key++) {
        max = fmax(max, score(&slope, q + q_index(shape, a), k + kv_index(shape, a, key), shape));
    }
    for (size_t key = a->first_key; key <= a->token; key++) {
        sum += exp(score(&slope, q + q_index(shape, a), k + kv_index(shape, a, key), shape) - max);
    }
    return max + log(sum);
}

static inline void attention_forward_reference(float *out, float *lse,
                                               const mq_attention_inputs *in,
                                               const mq_attention_shape *shape) {
    const float *q = in->q, *k = in->k.f32, *v = in->v.f32;
    for (size_t index = 0; index < shape->sequences * shape->length * shape->heads; index++) {
        const query a = query_at(shape, index);
        const double normalizer = log_sum_exp(&a, q, k, shape);
        lse[index] = (float)normalizer;
        for (size_t i = 0; i < shape->head_dim; i++) {
            double sum = 0.0, slope;
            for (size_t key = a.first_key; key <= a.token; key++) {
                const double s =
                    score(&slope, q + q_index(shape, &a), k + kv_index(shape, &a, key), shape);
                sum += exp(s - normalizer) * (double)v[kv_index(shape, &a, key) + i];
            }
            out[q_index(shape, &a) + i] = (float)sum;
        }
    }
}

/* Adds what one query contributes. With p_j the probabilities and dp_j = do·v_j: ds_j = p_j·(dp_j -
 * Σ p·dp). */
static inline void backward_query(const mq_attention_grads *grads, const query *a,
                                  const float *dout, const mq_attention_inputs *in,
                                  const mq_attention_shape *shape) {
    const float *q = in->q, *k = in->k.f32, *v = in->v.f32;
    const size_t at = q_index(shape, a), d = shape->head_dim;
    const double normalizer = log_sum_exp(a, q, k, shape);
    double mean = 0.0, slope;
    for (size_t key = a->first_key; key <= a->token; key++) {
        const double p =
            exp(score(&slope, q + at, k + kv_index(shape, a, key), shape) - normalizer);
        mean += p * reference_dot(dout + at, v + kv_index(shape, a, key), d);
    }
    for (size_t key = a->first_key; key <= a->token; key++) {
        const size_t kv = kv_index(shape, a, key);
        const double p = exp(score(&slope, q + at, k + kv, shape) - normalizer);
        const double ds =
            p * (reference_dot(dout + at, v + kv, d) - mean) * slope * (double)shape->scale;
        for (size_t i = 0; i < d; i++) {
            grads->dq[at + i] += (float)(ds * (double)k[kv + i]);
            grads->dk[kv + i] += (float)(ds * (double)q[at + i]);
            grads->dv[kv + i] += (float)(p * (double)dout[at + i]);
        }
    }
}

static inline void attention_backward_reference(const mq_attention_grads *grads, const float *dout,
                                                const mq_attention_inputs *in,
                                                const mq_attention_shape *shape) {
    const size_t tokens = shape->sequences * shape->length;
    memset(grads->dq, 0, tokens * shape->heads * shape->head_dim * sizeof *grads->dq);
    memset(grads->dk, 0, tokens * shape->kv_heads * shape->head_dim * sizeof *grads->dk);
    memset(grads->dv, 0, tokens * shape->kv_heads * shape->head_dim * sizeof *grads->dv);
    for (size_t index = 0; index < tokens * shape->heads; index++) {
        const query a = query_at(shape, index);
        backward_query(grads, &a, dout, in, shape);
    }
}

#endif
