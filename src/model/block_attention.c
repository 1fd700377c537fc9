/* The part of a block before attention: input norm, queries, keys and values, their norms and
 * rotation. */
#include "model/activations.h"

/* The rotation of some tokens, x[rows, heads, head_dim], if the layer has one. */
static void rotate(float *x, const mq_block_pass *pass, const mq_rows *rows, size_t heads,
                   bool inverse) {
    const size_t d = pass->config->head_dim, half = mq_config_rotary_dim(pass->config) / 2;
    const mq_packed *packed = pass->shape->packed;
    if (pass->shape->cos_table == NULL) {
        return;
    }
    for (size_t r = 0; r < rows->count; r++) {
        const size_t row = rows->first + r;
        const size_t position = packed ? packed->positions[row] : row % pass->shape->length;
        pass->kernels->rope(x + r * heads * d, pass->shape->cos_table + position * half,
                            pass->shape->sin_table + position * half, heads, d, half, inverse);
    }
}

/* What follows the product of queries or keys: norm, rotation. raw and rotated are the whole
 * arrays, and may be the same. */
static void place(float *rotated, const float *raw, const mq_block_pass *pass, const mq_rows *rows,
                  mq_norm norm, size_t heads) {
    const size_t at = rows->first * heads * pass->config->head_dim;
    if (pass->weights->norm[norm]) {
        mq_block_norm(rotated + at, raw + at, pass, norm, rows);
    }
    rotate(rotated + at, pass, rows, heads, false);
}

static void place_both(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    place(a->q, a->q_raw, pass, rows, MQ_NORM_Q, pass->config->num_attention_heads);
    place(a->k, a->k_raw, pass, rows, MQ_NORM_K, pass->config->num_key_value_heads);
    if (pass->bf16) {
        const mq_attention_shape shape = mq_block_attention_shape(pass->config, pass->shape);
        mq_attention_round_keys(a->k_bf16, a->k, rows->first, rows->count, &shape);
        mq_attention_round_keys(a->v_bf16, a->v, rows->first, rows->count, &shape);
    }
}

static void input_norm(const mq_block_pass *pass, const mq_rows *rows) {
    float *attn_in = mq_block_input_rows(pass, MQ_Q, rows);
    mq_block_norm(attn_in, pass->x + rows->first * pass->config->hidden_size, pass, MQ_NORM_INPUT,
                  rows);
    mq_block_round_input(pass, MQ_Q, rows, attn_in);
}

void mq_block_qkv_forward(const mq_block_pass *pass, const mq_rows *slab) {
    mq_block_for_rows(input_norm, pass, slab);
    mq_block_linears(pass, &mq_block_qkv, slab);
    mq_block_for_rows(place_both, pass, slab);
}

/* Backward of place: d[rows, heads, head_dim] becomes the gradient by the linear's output. */
static void place_backward(float *d, const float *raw, const mq_block_pass *pass,
                           const mq_rows *rows, mq_norm norm, size_t heads) {
    const size_t at = rows->first * heads * pass->config->head_dim;
    rotate(d + at, pass, rows, heads, true);
    if (pass->weights->norm[norm]) {
        mq_block_norm_backward(d + at, NULL, d + at, raw + at, pass, norm, rows);
    }
}

static void place_both_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    place_backward(a->d_q, a->q_raw, pass, rows, MQ_NORM_Q, pass->config->num_attention_heads);
    place_backward(a->d_k, a->k_raw, pass, rows, MQ_NORM_K, pass->config->num_key_value_heads);
    for (size_t i = 0; i < mq_block_qkv.count; i++) {
        const mq_linear linear = mq_block_qkv.linears[i];
        mq_block_round_gradient(pass, linear, rows, mq_block_gradient_rows(pass, linear, rows));
    }
}

static void input_norm_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const size_t at = rows->first * pass->config->hidden_size;
    float *dx = pass->grads->input ? pass->grads->input + at : NULL;
    mq_block_norm_backward(dx, pass->activations->d_h + at,
                           mq_block_input_gradient(pass, MQ_Q, rows), pass->x + at, pass,
                           MQ_NORM_INPUT, rows);
}

void mq_block_qkv_backward(const mq_block_pass *pass, const mq_rows *slab) {
    mq_block_for_rows(place_both_backward, pass, slab);
    if (pass->through_input) {
        mq_block_linears_backward(pass, &mq_block_qkv, slab);
        mq_block_for_rows(input_norm_backward, pass, slab);
    }
}
