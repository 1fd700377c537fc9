/* The matrix products of a block's linear layers: forward and input gradient for a run of tokens,
 * weight gradient over all tokens in pieces. */
#include "model/activations.h"
#include "tensor/gemm.h"

void mq_block_linear(float *y, const mq_block_pass *pass, mq_linear linear, const mq_rows *rows) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    mq_gemm_forward(y, mq_activations_input(pass->activations, linear) + rows->first * in,
                    pass->weights->linear[linear], rows->count, out, in, 0.0F);
    if (pass->weights->bias[linear]) {
        pass->kernels->add_bias(y, pass->weights->bias[linear], rows->count, out);
    }
}

void mq_block_linear_backward(float *dx, const mq_block_pass *pass, mq_linear linear,
                              const mq_rows *rows, float beta) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    mq_gemm_input_grad(dx, pass->d_linear[linear] + rows->first * out,
                       pass->weights->linear[linear], rows->count, out, in, beta);
}

/* Pieces of weight gradients are about this many rows or columns. */
#define PIECE 512

size_t mq_block_pieces(const mq_config *config, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return ((out > in ? out : in) + PIECE - 1) / PIECE;
}

void mq_block_weight_gradient(const mq_block_pass *pass, mq_linear linear, size_t piece) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const size_t longer = out > in ? out : in, pieces = mq_block_pieces(pass->config, linear);
    const size_t begin = longer * piece / pieces, count = longer * (piece + 1) / pieces - begin;
    const float *dy = pass->d_linear[linear], *x = mq_activations_input(pass->activations, linear);
    float *dw = pass->grads->linear[linear];
    const size_t tokens = pass->shape->sequences * pass->shape->length;
    if (out > in) {
        mq_gemm(dw + begin * in, in, dy + begin, out, true, x, in, false, count, in, tokens, 1.0F,
                0.0F);
    } else {
        mq_gemm(dw + begin, in, dy, out, true, x + begin, in, false, out, count, tokens, 1.0F,
                0.0F);
    }
}
