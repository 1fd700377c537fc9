/* The part of a block after attention: output projection, residual, and the feed-forward part. */
#include "model/activations.h"

/* --- forward ---------------------------------------------------------------------------------- */

static void round_attention(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_config *config = pass->config;
    const size_t n = config->num_attention_heads * config->head_dim;
    mq_block_round_input(pass, MQ_O, rows, pass->activations->attn + rows->first * n);
}

/* The residual stream between attention and the feed-forward part. */
static float *middle(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    return (a->h ? a->h : pass->y) + rows->first * pass->config->hidden_size;
}

/* residual_multiplier times rows of a linear's output, or of the gradient by it. */
static void multiply(float *rows, const mq_block_pass *pass, size_t count) {
    const float factor = (float)pass->config->residual_multiplier;
    if (factor != 1.0F) {
        pass->kernels->scale(rows, factor, count);
    }
}

/* h = x + n_post_attn(r·o), ffn_in = n_pre_ffn(h). */
static void after_attention(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    const size_t n = pass->config->hidden_size;
    const float *x = pass->x + rows->first * n;
    float *o = mq_block_output(pass, MQ_O, rows);
    float *h = middle(pass, rows), *ffn_in = mq_block_input_rows(pass, MQ_GATE, rows);
    multiply(o, pass, rows->count * n);
    if (pass->weights->norm[MQ_NORM_PRE_FFN] && !pass->weights->norm[MQ_NORM_POST_ATTN]) {
        pass->kernels->add_rmsnorm(h, ffn_in, a->inv_rms[MQ_NORM_PRE_FFN] + rows->first, x, o,
                                   pass->weights->norm[MQ_NORM_PRE_FFN], rows->count, n,
                                   (float)pass->config->rms_norm_eps);
    } else {
        mq_block_norm_add(h, x, o, pass, MQ_NORM_POST_ATTN, rows);
        mq_block_norm(ffn_in, h, pass, MQ_NORM_PRE_FFN, rows);
    }
    mq_block_round_input(pass, MQ_GATE, rows, ffn_in);
}

static void gated_input(const mq_block_pass *pass, const mq_rows *rows) {
    const size_t n = pass->config->intermediate_size, at = rows->first * n;
    pass->kernels->glu[pass->config->activation](
        pass->activations->act + at, mq_block_output(pass, MQ_GATE, rows),
        mq_block_output(pass, MQ_UP, rows), rows->count * n);
}

/* act(gate)·up of the input of both. */
static void gated(const mq_block_pass *pass, const mq_rows *slab) {
    if (pass->bf16) {
        mq_block_gated_bf16(pass, slab);
    } else {
        mq_block_linears(pass, &mq_block_gate_up, slab);
        mq_block_for_rows(gated_input, pass, slab);
    }
}

/* y = h + n_post_ffn(r·down). */
static void after_ffn(const mq_block_pass *pass, const mq_rows *rows) {
    const size_t n = pass->config->hidden_size;
    const float *h = middle(pass, rows);
    float *down = mq_block_output(pass, MQ_DOWN, rows), *y = pass->y + rows->first * n;
    multiply(down, pass, rows->count * n);
    mq_block_norm_add(y, h, down, pass, MQ_NORM_POST_FFN, rows);
}

void mq_block_ffn_forward(const mq_block_pass *pass, const mq_rows *slab) {
    if (pass->bf16) {
        mq_block_for_rows(round_attention, pass, slab);
    }
    mq_block_linears(pass, &mq_block_o, slab);
    mq_block_for_rows(after_attention, pass, slab);
    gated(pass, slab);
    mq_block_linears(pass, &mq_block_down, slab);
    mq_block_for_rows(after_ffn, pass, slab);
}

/* --- backward --------------------------------------------------------------------------------- */

/* d_out[T, H], the gradient by a linear's output, of d[rows, H], that by what is added: through the
 * norm of out[T, H], where there is one. */
static void added_backward(float *d_out, const float *d, const float *out,
                           const mq_block_pass *pass, mq_norm norm, const mq_rows *rows) {
    const size_t n = pass->config->hidden_size, at = rows->first * n;
    mq_block_norm_backward(d_out + at, NULL, d, out ? out + at : NULL, pass, norm, rows);
    multiply(d_out + at, pass, rows->count * n);
}

static void after_ffn_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    if (a->d_down) {
        added_backward(a->d_down, pass->dy + rows->first * pass->config->hidden_size, a->down, pass,
                       MQ_NORM_POST_FFN, rows);
    }
    mq_block_round_gradient(pass, MQ_DOWN, rows, mq_block_gradient_rows(pass, MQ_DOWN, rows));
}

/* Gradients of gate and up in place of themselves. */
static void gated_input_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    const size_t n = pass->config->intermediate_size, at = rows->first * n;
    float *gate = a->gate + at, *up = a->up + at;
    pass->kernels->glu_backward[pass->config->activation](
        gate, up, mq_block_input_gradient(pass, MQ_DOWN, rows), gate, up, rows->count * n);
}

static void gated_backward(const mq_block_pass *pass, const mq_rows *slab) {
    if (pass->bf16) {
        mq_block_gated_backward_bf16(pass, slab);
    } else {
        mq_block_linears_backward(pass, &mq_block_down, slab);
        mq_block_for_rows(gated_input_backward, pass, slab);
    }
}

/* d_h, then d_o where it is wanted. */
static void after_attention_backward(const mq_block_pass *pass, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    const size_t at = rows->first * pass->config->hidden_size;
    float *d_h = pass->through_o ? a->d_h + at : NULL;
    mq_block_norm_backward(d_h, pass->dy + at, mq_block_input_gradient(pass, MQ_GATE, rows),
                           a->h + at, pass, MQ_NORM_PRE_FFN, rows);
    if (pass->through_o) {
        if (a->d_o) {
            added_backward(a->d_o, d_h, a->o, pass, MQ_NORM_POST_ATTN, rows);
        }
        mq_block_round_gradient(pass, MQ_O, rows, mq_block_gradient_rows(pass, MQ_O, rows));
    }
}

void mq_block_ffn_backward(const mq_block_pass *pass, const mq_rows *slab) {
    mq_block_for_rows(after_ffn_backward, pass, slab);
    if (!pass->through_ffn) {
        return;
    }
    gated_backward(pass, slab);
    if (!pass->through_o && !pass->grads->norm[MQ_NORM_PRE_FFN]) {
        return;
    }
    mq_block_linears_backward(pass, &mq_block_gate_up, slab);
    mq_block_for_rows(after_attention_backward, pass, slab);
    if (pass->through_attention) {
        mq_block_linears_backward(pass, &mq_block_o, slab);
    }
}
