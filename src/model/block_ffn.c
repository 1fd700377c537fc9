/* The part of a block after attention: output projection, residual, and the feed-forward part. */
#include "model/activations.h"

/* h = x + n_post_attn(o·attn), ffn_in = n_pre_ffn(h). Returns the run's h. */
static float *attention_output(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t n = config->hidden_size, at = rows->first * n;
    const float eps = (float)config->rms_norm_eps;
    float *o = a->o ? a->o + at : rows->scratch;
    float *h = (a->h ? a->h : pass->y) + at;
    const float *ffn_norm = pass->weights->norm[MQ_NORM_PRE_FFN];
    float *ffn_inv_rms = a->inv_rms[MQ_NORM_PRE_FFN] + rows->first;
    mq_block_linear(o, pass, MQ_O, rows);
    if (pass->weights->norm[MQ_NORM_POST_ATTN]) {
        pass->kernels->rmsnorm_add(h, a->inv_rms[MQ_NORM_POST_ATTN] + rows->first, pass->x + at, o,
                                   pass->weights->norm[MQ_NORM_POST_ATTN], rows->count, n, eps);
        pass->kernels->rmsnorm(a->ffn_in + at, ffn_inv_rms, h, ffn_norm, rows->count, n, eps);
    } else {
        pass->kernels->add_rmsnorm(h, a->ffn_in + at, ffn_inv_rms, pass->x + at, o, ffn_norm,
                                   rows->count, n, eps);
    }
    return h;
}

void mq_block_ffn_forward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const mq_activations *a = pass->activations;
    const size_t n = config->hidden_size, ffn = config->intermediate_size, at = rows->first * n;
    const float *h = attention_output(pass, rows);
    float *gate = a->gate ? a->gate + rows->first * ffn : rows->scratch + rows->count * n;
    float *up = a->up ? a->up + rows->first * ffn : gate + rows->count * ffn;
    float *act = a->act + rows->first * ffn;
    mq_block_linear(gate, pass, MQ_GATE, rows);
    mq_block_linear(up, pass, MQ_UP, rows);
    pass->kernels->glu[config->activation](act, gate, up, rows->count * ffn);
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
    if (pass->through_attention) {
        const size_t q = config->num_attention_heads * config->head_dim;
        mq_block_linear_backward(a->d_attn + rows->first * q, pass, MQ_O, rows, 0.0F);
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
    if (!pass->through_ffn) {
        return;
    }
    float *d_act = rows->scratch, *d_ffn_in = rows->scratch + rows->count * ffn;
    float *gate = a->gate + rows->first * ffn, *up = a->up + rows->first * ffn;
    mq_block_linear_backward(d_act, pass, MQ_DOWN, rows, 0.0F);
    pass->kernels->glu_backward[config->activation](gate, up, d_act, gate, up, rows->count * ffn);
    if (!pass->through_o && !pass->grads->norm[MQ_NORM_PRE_FFN]) {
        return;
    }
    mq_block_linear_backward(d_ffn_in, pass, MQ_GATE, rows, 0.0F);
    mq_block_linear_backward(d_ffn_in, pass, MQ_UP, rows, 1.0F);
    attention_output_backward(d_ffn_in, pass, rows);
}
