/* The part of a block after attention: output projection, residual, and the feed-forward part. */
#include "model/activations.h"

/* h = x + n_post_attn(o·attn), ffn_in = n_pre_ffn(h). Returns the run's h. */
static float *attention_output(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t n = config->hidden_size, at = rows->first * n;
    const size_t attention_size = config->num_attention_heads * config->head_dim;
    const float eps = (float)config->rms_norm_eps;
    float *o = a->o ? a->o + at : rows->scratch;
    float *h = (a->h ? a->h : pass->y) + at;
    const float *ffn_norm = pass->weights->norm[MQ_NORM_PRE_FFN];
    const float *attn = mq_activations_input(a, MQ_O);
    mq_block_round_input(pass, MQ_O, rows, 0, rows->count, attn + rows->first * attention_size);
    mq_block_linear(o, pass, MQ_O, rows);
    for (size_t r = 0; r < rows->count; r += MQ_ROUND_ROWS) {
        const size_t count = rows->count - r < MQ_ROUND_ROWS ? rows->count - r : MQ_ROUND_ROWS;
        const float *x_rows = pass->x + at + r * n, *o_rows = o + r * n;
        float *h_rows = h + r * n, *ffn_in = mq_block_input_rows(pass, MQ_GATE, rows, r);
        float *ffn_inv_rms = a->inv_rms[MQ_NORM_PRE_FFN] + rows->first + r;
        if (pass->weights->norm[MQ_NORM_POST_ATTN]) {
            pass->kernels->rmsnorm_add(h_rows, a->inv_rms[MQ_NORM_POST_ATTN] + rows->first + r,
                                       x_rows, o_rows, pass->weights->norm[MQ_NORM_POST_ATTN],
                                       count, n, eps);
            pass->kernels->rmsnorm(ffn_in, ffn_inv_rms, h_rows, ffn_norm, count, n, eps);
        } else {
            pass->kernels->add_rmsnorm(h_rows, ffn_in, ffn_inv_rms, x_rows, o_rows, ffn_norm, count,
                                       n, eps);
        }
        mq_block_round_input(pass, MQ_GATE, rows, r, count, ffn_in);
    }
    return h;
}

static void gated_input(const mq_block_pass *pass, const mq_rows *rows, const float *gate,
                        const float *up) {
    const size_t ffn = pass->config->intermediate_size;
    for (size_t r = 0; r < rows->count; r += MQ_ROUND_ROWS) {
        const size_t count = rows->count - r < MQ_ROUND_ROWS ? rows->count - r : MQ_ROUND_ROWS;
        float *act = mq_block_input_rows(pass, MQ_DOWN, rows, r);
        pass->kernels->glu[pass->config->activation](act, gate + r * ffn, up + r * ffn,
                                                     count * ffn);
        mq_block_round_input(pass, MQ_DOWN, rows, r, count, act);
    }
}

void mq_block_ffn_forward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t n = config->hidden_size, ffn = config->intermediate_size, at = rows->first * n;
    const float *h = attention_output(pass, rows);
    float *gate = a->gate ? a->gate + rows->first * ffn : rows->scratch + rows->count * n;
    float *up = a->up ? a->up + rows->first * ffn : gate + rows->count * ffn;
    mq_block_linear(gate, pass, MQ_GATE, rows);
    mq_block_linear(up, pass, MQ_UP, rows);
    gated_input(pass, rows, gate, up);
    float *down = a->down ? a->down + at : rows->scratch;
    mq_block_linear(down, pass, MQ_DOWN, rows);
    if (pass->weights->norm[MQ_NORM_POST_FFN]) {
        pass->kernels->rmsnorm_add(pass->y + at, a->inv_rms[MQ_NORM_POST_FFN] + rows->first, h,
                                   down, pass->weights->norm[MQ_NORM_POST_FFN], rows->count, n,
                                   (float)config->rms_norm_eps);
    } else {
        pass->kernels->add(pass->y + at, h, down, rows->count * n);
    }
}

/* d_h, then d_o and, where wanted, d_attn, from d_ffn_in[rows, hidden_size]. */
static void attention_output_backward(const float *d_ffn_in, const mq_block_pass *pass,
                                      const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t at = rows->first * config->hidden_size;
    float *d_h = pass->through_o ? a->d_h + at : NULL;
    mq_block_norm_backward(d_h, pass->dy + at, d_ffn_in, a->h + at, pass, MQ_NORM_PRE_FFN, rows, 1);
    if (!pass->through_o) {
        return;
    }
    if (a->d_o) {
        mq_block_norm_backward(a->d_o + at, NULL, d_h, a->o + at, pass, MQ_NORM_POST_ATTN, rows, 1);
    }
    mq_block_round_gradient(pass, MQ_O, rows, 0, rows->count);
    if (pass->through_attention) {
        const size_t q = config->num_attention_heads * config->head_dim;
        mq_block_linear_backward(a->d_attn + rows->first * q, pass, MQ_O, rows);
    }
}

void mq_block_ffn_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t n = config->hidden_size, ffn = config->intermediate_size, at = rows->first * n;
    if (a->d_down) {
        mq_block_norm_backward(a->d_down + at, NULL, pass->dy + at, a->down + at, pass,
                               MQ_NORM_POST_FFN, rows, 1);
    }
    mq_block_round_gradient(pass, MQ_DOWN, rows, 0, rows->count);
    if (!pass->through_ffn) {
        return;
    }
    float *d_act = rows->scratch, *d_ffn_in = rows->scratch + rows->count * ffn;
    float *gate = a->gate + rows->first * ffn, *up = a->up + rows->first * ffn;
    mq_block_linear_backward(d_act, pass, MQ_DOWN, rows);
    for (size_t r = 0; r < rows->count; r += MQ_ROUND_ROWS) {
        const size_t count = rows->count - r < MQ_ROUND_ROWS ? rows->count - r : MQ_ROUND_ROWS;
        float *g = gate + r * ffn, *u = up + r * ffn;
        pass->kernels->glu_backward[config->activation](g, u, d_act + r * ffn, g, u, count * ffn);
        mq_block_round_gradient(pass, MQ_GATE, rows, r, count);
        mq_block_round_gradient(pass, MQ_UP, rows, r, count);
    }
    if (!pass->through_o && !pass->grads->norm[MQ_NORM_PRE_FFN]) {
        return;
    }
    mq_block_linear_backward(d_ffn_in, pass, MQ_GATE, rows);
    mq_block_linear_backward(d_ffn_in, pass, MQ_UP, rows);
    attention_output_backward(d_ffn_in, pass, rows);
}
