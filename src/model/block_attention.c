/* The part of a block before attention: input norm, queries, keys and values, their norms and
 * rotation. */
#include "model/activations.h"

/* The rotation of a run of tokens, x[rows, heads, head_dim]. */
static void rotate(float *x, const mq_block_pass *pass, const mq_rows *rows, size_t heads,
                   bool inverse) {
    const size_t half = pass->config->head_dim / 2;
    const mq_packed *packed = pass->shape->packed;
    for (size_t r = 0; r < rows->count; r++) {
        const size_t row = rows->first + r;
        const size_t position = packed ? packed->positions[row] : row % pass->shape->length;
        pass->kernels->rope(x + r * heads * 2 * half, pass->shape->cos_table + position * half,
                            pass->shape->sin_table + position * half, heads, half, inverse);
    }
}

/* Queries or keys: linear, norm, rotation. raw and rotated are the whole arrays, and may be the
 * same. */
static void project(float *rotated, float *raw, const mq_block_pass *pass, const mq_rows *rows,
                    mq_linear linear, mq_norm norm, size_t heads) {
    const mq_activations *a = pass->activations;
    const size_t d = pass->config->head_dim, at = rows->first * heads * d;
    mq_block_linear(raw + at, pass, linear, rows);
    if (pass->weights->norm[norm]) {
        pass->kernels->rmsnorm(rotated + at, a->inv_rms[norm] + rows->first * heads, raw + at,
                               pass->weights->norm[norm], rows->count * heads, d,
                               (float)pass->config->rms_norm_eps);
    }
    rotate(rotated + at, pass, rows, heads, false);
}

void mq_block_qkv_forward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t at = rows->first * config->hidden_size;
    for (size_t r = 0; r < rows->count; r += MQ_ROUND_ROWS) {
        const size_t n = rows->count - r < MQ_ROUND_ROWS ? rows->count - r : MQ_ROUND_ROWS;
        float *attn_in = mq_block_input_rows(pass, MQ_Q, rows, r);
        pass->kernels->rmsnorm(attn_in, a->inv_rms[MQ_NORM_INPUT] + rows->first + r,
                               pass->x + at + r * config->hidden_size,
                               pass->weights->norm[MQ_NORM_INPUT], n, config->hidden_size,
                               (float)config->rms_norm_eps);
        mq_block_round_input(pass, MQ_Q, rows, r, n, attn_in);
    }
    project(a->q, a->q_raw, pass, rows, MQ_Q, MQ_NORM_Q, config->num_attention_heads);
    project(a->k, a->k_raw, pass, rows, MQ_K, MQ_NORM_K, config->num_key_value_heads);
    mq_block_linear(a->v + rows->first * config->num_key_value_heads * config->head_dim, pass, MQ_V,
                    rows);
}

/* Backward of project: d[rows, heads, head_dim] becomes the gradient by the linear's output. */
static void project_backward(float *d, const float *raw, const mq_block_pass *pass,
                             const mq_rows *rows, mq_norm norm, size_t heads) {
    const size_t at = rows->first * heads * pass->config->head_dim;
    rotate(d + at, pass, rows, heads, true);
    if (pass->weights->norm[norm]) {
        mq_block_norm_backward(d + at, NULL, d + at, raw + at, pass, norm, rows, heads);
    }
}

void mq_block_qkv_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t at = rows->first * config->hidden_size;
    project_backward(a->d_q, a->q_raw, pass, rows, MQ_NORM_Q, config->num_attention_heads);
    project_backward(a->d_k, a->k_raw, pass, rows, MQ_NORM_K, config->num_key_value_heads);
    mq_block_round_gradient(pass, MQ_Q, rows, 0, rows->count);
    mq_block_round_gradient(pass, MQ_K, rows, 0, rows->count);
    mq_block_round_gradient(pass, MQ_V, rows, 0, rows->count);
    if (!pass->through_input) {
        return;
    }
    float *d_attn_in = rows->scratch; /* [rows, hidden_size] */
    mq_block_linear_backward(d_attn_in, pass, MQ_Q, rows);
    mq_block_linear_backward(d_attn_in, pass, MQ_K, rows);
    mq_block_linear_backward(d_attn_in, pass, MQ_V, rows);
    float *dx = pass->grads->input ? pass->grads->input + at : NULL;
    mq_block_norm_backward(dx, a->d_h + at, d_attn_in, pass->x + at, pass, MQ_NORM_INPUT, rows, 1);
}
