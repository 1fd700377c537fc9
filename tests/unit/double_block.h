/* A transformer block in double, in plain loops that owe nothing to src/model: what the tests of
 * operations and of the block take losses from, so that finite differences are limited by the step
 * and not by rounding. */
#ifndef MQ_TESTS_DOUBLE_BLOCK_H
#define MQ_TESTS_DOUBLE_BLOCK_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/block.h"
#include "model/ops.h"

static inline double *new_doubles(size_t count) {
    double *out = calloc(count > 0 ? count : 1, sizeof *out);
    if (out == NULL) {
        abort();
    }
    return out;
}

static inline void double_rmsnorm(double *y, const double *x, const double *weight, size_t rows,
                                  size_t n, double eps) {
    for (size_t r = 0; r < rows; r++) {
        double sum = 0.0;
        for (size_t i = 0; i < n; i++) {
            sum += x[r * n + i] * x[r * n + i];
        }
        const double inv = 1.0 / sqrt(sum / (double)n + eps);
        for (size_t i = 0; i < n; i++) {
            y[r * n + i] = x[r * n + i] * inv * weight[i];
        }
    }
}

/* cos_table NULL: no rotation. */
static inline void double_rope(double *x, const float *cos_table, const float *sin_table,
                               size_t tokens, size_t length, size_t heads, size_t head_dim,
                               size_t half) {
    for (size_t t = 0; cos_table != NULL && t < tokens; t++) {
        for (size_t h = 0; h < heads; h++) {
            double *head = x + (t * heads + h) * head_dim;
            for (size_t i = 0; i < half; i++) {
                const double c = (double)cos_table[t % length * half + i],
                             s = (double)sin_table[t % length * half + i];
                const double a = head[i], b = head[half + i];
                head[i] = a * c - b * s;
                head[half + i] = b * c + a * s;
            }
        }
    }
}

static inline void double_glu(double *h, const double *gate, const double *up, size_t count,
                              mq_activation activation) {
    for (size_t i = 0; i < count; i++) {
        const double x = gate[i];
        const double act =
            activation == MQ_SILU
                ? x / (1.0 + exp(-x))
                : 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
        h[i] = act * up[i];
    }
}

static inline void double_attention(double *out, const double *q, const double *k, const double *v,
                                    const mq_attention_shape *shape) {
    const size_t d = shape->head_dim, group = shape->heads / shape->kv_heads;
    double *p = new_doubles(shape->length);
    for (size_t row = 0; row < shape->sequences * shape->length * shape->heads; row++) {
        const size_t token = row / shape->heads, position = token % shape->length,
                     start = token - position;
        const size_t kv_head = row % shape->heads / group;
        double max = -INFINITY, sum = 0.0;
        for (size_t j = 0; j <= position; j++) {
            const double *key = k + ((start + j) * shape->kv_heads + kv_head) * d;
            double s = 0.0;
            for (size_t i = 0; i < d; i++) {
                s += q[row * d + i] * key[i];
            }
            s *= (double)shape->scale;
            s = shape->softcap > 0.0F ? (double)shape->softcap * tanh(s / (double)shape->softcap)
                                      : s;
            p[j] = shape->window > 0 && position - j >= shape->window ? -INFINITY : s;
            max = fmax(max, p[j]);
        }
        for (size_t j = 0; j <= position; j++) {
            sum += p[j] = exp(p[j] - max);
        }
        for (size_t i = 0; i < d; i++) {
            out[row * d + i] = 0.0;
            for (size_t j = 0; j <= position; j++) {
                out[row * d + i] +=
                    p[j] / sum * v[((start + j) * shape->kv_heads + kv_head) * d + i];
            }
        }
    }
    free(p);
}

/* All parameters of a block in one array: linear weights, biases, norms, in this order; then the
 * input. */
typedef struct double_params {
    size_t linear[MQ_LINEAR_COUNT], bias[MQ_LINEAR_COUNT], norm[MQ_NORM_COUNT],
        input; /* where they begin */
    size_t linear_size[MQ_LINEAR_COUNT], bias_size[MQ_LINEAR_COUNT], norm_size[MQ_NORM_COUNT],
        input_size;
    size_t count;
} double_params;

static inline double_params double_layout(const mq_config *config, size_t tokens, bool biases) {
    double_params p = {0};
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, l);
        p.linear[l] = p.count;
        p.linear_size[l] = out * in;
        p.count += out * in;
        p.bias[l] = p.count;
        p.bias_size[l] = biases ? out : 0;
        p.count += p.bias_size[l];
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        p.norm[n] = p.count;
        p.norm_size[n] = mq_config_norm_size(config, n);
        p.count += p.norm_size[n];
    }
    p.input = p.count;
    p.input_size = tokens * config->hidden_size;
    p.count += p.input_size;
    return p;
}

static inline double *double_linear(const double *x, const double *values, const double_params *p,
                                    const mq_config *config, mq_linear linear, size_t rows) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    double *y = new_doubles(rows * out);
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < out; o++) {
            double sum = p->bias_size[linear] > 0 ? values[p->bias[linear] + o] : 0.0;
            for (size_t i = 0; i < in; i++) {
                sum += x[r * in + i] * values[p->linear[linear] + o * in + i];
            }
            y[r * out + o] = sum;
        }
    }
    return y;
}

/* x in place, if the block has this norm. */
static inline void double_norm(double *x, const double *values, const double_params *p,
                               const mq_config *config, mq_norm norm, size_t rows) {
    if (p->norm_size[norm] > 0) {
        double_rmsnorm(x, x, values + p->norm[norm], rows, p->norm_size[norm],
                       config->rms_norm_eps);
    }
}

/* What a linear made, x[count] in place, as it is added. */
static inline void double_multiply(double *x, const mq_config *config, size_t count) {
    for (size_t i = 0; i < count; i++) {
        x[i] *= config->residual_multiplier;
    }
}

/* y[tokens, hidden_size], as block.h defines it. */
static inline void double_block(double *y, const double *values, const double_params *p,
                                const mq_block_shape *shape, const mq_attention_shape *attention) {
    const mq_config *config = shape->config;
    const size_t tokens = shape->sequences * shape->length, n = tokens * config->hidden_size;
    const size_t d = config->head_dim, ffn = tokens * config->intermediate_size;
    const size_t half = mq_config_rotary_dim(config) / 2;
    double *normed = new_doubles(n), *heads = new_doubles(tokens * config->num_attention_heads * d);
    memcpy(normed, values + p->input, n * sizeof *normed);
    double_norm(normed, values, p, config, MQ_NORM_INPUT, tokens);
    double *q = double_linear(normed, values, p, config, MQ_Q, tokens);
    double *k = double_linear(normed, values, p, config, MQ_K, tokens);
    double *v = double_linear(normed, values, p, config, MQ_V, tokens);
    double_norm(q, values, p, config, MQ_NORM_Q, tokens * mq_config_norm_rows(config, MQ_NORM_Q));
    double_norm(k, values, p, config, MQ_NORM_K, tokens * mq_config_norm_rows(config, MQ_NORM_K));
    double_rope(q, shape->cos_table, shape->sin_table, tokens, shape->length,
                config->num_attention_heads, d, half);
    double_rope(k, shape->cos_table, shape->sin_table, tokens, shape->length,
                config->num_key_value_heads, d, half);
    double_attention(heads, q, k, v, attention);
    double *o = double_linear(heads, values, p, config, MQ_O, tokens);
    double_multiply(o, config, n);
    double_norm(o, values, p, config, MQ_NORM_POST_ATTN, tokens);
    for (size_t i = 0; i < n; i++) {
        y[i] = normed[i] = values[p->input + i] + o[i];
    }
    double_norm(normed, values, p, config, MQ_NORM_PRE_FFN, tokens);
    double *gate = double_linear(normed, values, p, config, MQ_GATE, tokens);
    double *up = double_linear(normed, values, p, config, MQ_UP, tokens);
    double_glu(gate, gate, up, ffn, config->activation);
    double *down = double_linear(gate, values, p, config, MQ_DOWN, tokens);
    double_multiply(down, config, n);
    double_norm(down, values, p, config, MQ_NORM_POST_FFN, tokens);
    for (size_t i = 0; i < n; i++) {
        y[i] += down[i];
    }
    double *const all[] = {normed, heads, q, k, v, o, gate, up, down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

/* Σ a·b. */
static inline double double_dot(const double *a, const double *b, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

#endif
