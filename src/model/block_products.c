/* The matrix products of a block's linear layers, of float32 or of bfloat16 operands: forward and
 * input gradient for a run of tokens, weight gradient over all tokens in pieces. */
#include <assert.h>
#include <omp.h>

#include "model/activations.h"
#include "tensor/gemm.h"

static bool all_bf16(const mq_block_weights *weights) {
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        if (!weights->linear_bf16[linear]) {
            return false;
        }
    }
    return true;
}

bool mq_block_is_bf16(const mq_block_weights *weights, const mq_activations *activations) {
    const bool bf16 = weights->linear_bf16[0] != NULL;
    assert(!bf16 || (activations->gemm && all_bf16(weights)));
    return bf16;
}

/* --- the shapes of products of bfloat16 ------------------------------------------------------- */

static mq_gemm_shape forward_shape(const mq_config *config, mq_linear linear, size_t rows) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){
        .m = rows, .n = out, .k = in, .lda = in, .ldb = in, .ldc = out, .trans_b = true};
}

/* Linears with the same input: the first one's input gradient is set, the others' added. */
static bool accumulates(mq_linear linear) {
    return linear == MQ_K || linear == MQ_V || linear == MQ_UP;
}

static mq_gemm_shape backward_shape(const mq_config *config, mq_linear linear, size_t rows) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){.m = rows,
                           .n = in,
                           .k = out,
                           .lda = out,
                           .ldb = in,
                           .ldc = in,
                           .accumulate = accumulates(linear)};
}

/* Pieces of weight gradients are at most so many rows or columns. Of less than that their products
 * are slower, and of more there would be too few pieces for the threads. */
#define PIECE 768

size_t mq_block_pieces(const mq_config *config, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return ((out > in ? out : in) + PIECE - 1) / PIECE;
}

/* dw[rows, columns] of a piece begins at its `row` and `column`. */
typedef struct piece_view {
    size_t row, column;
    mq_gemm_shape shape;
} piece_view;

static piece_view piece_of(const mq_config *config, mq_linear linear, size_t piece, size_t tokens) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const size_t longer = out > in ? out : in, pieces = mq_block_pieces(config, linear);
    const size_t begin = longer * piece / pieces, count = longer * (piece + 1) / pieces - begin;
    piece_view view = {.row = out > in ? begin : 0, .column = out > in ? 0 : begin};
    view.shape = (mq_gemm_shape){.m = out > in ? count : out,
                                 .n = out > in ? in : count,
                                 .k = tokens,
                                 .lda = out,
                                 .ldb = in,
                                 .ldc = in,
                                 .trans_a = true};
    return view;
}

static mq_status prepare_run(mq_gemm_bf16 *gemm, const mq_config *config, size_t rows,
                             bool backward, mq_error *err) {
    mq_status status = MQ_OK;
    for (mq_linear linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        const mq_gemm_shape shapes[] = {forward_shape(config, linear, rows),
                                        backward_shape(config, linear, rows)};
        for (size_t i = 0; status == MQ_OK && i < (backward ? 2u : 1u); i++) {
            status = mq_gemm_bf16_prepare(gemm, &shapes[i], err);
        }
    }
    return status;
}

mq_status mq_block_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                           bool backward, mq_error *err) {
    const size_t run = mq_block_run(tokens), rest = tokens % run;
    mq_status status = MQ_OK;
    if (tokens >= run) {
        status = prepare_run(gemm, config, run, backward, err);
    }
    if (status == MQ_OK && rest > 0) {
        status = prepare_run(gemm, config, rest, backward, err);
    }
    for (mq_linear linear = 0; backward && linear < MQ_LINEAR_COUNT; linear++) {
        for (size_t i = 0; status == MQ_OK && i < mq_block_pieces(config, linear); i++) {
            const piece_view view = piece_of(config, linear, i, tokens);
            status = mq_gemm_bf16_prepare(gemm, &view.shape, err);
        }
    }
    return status;
}

static void run_bf16(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                     const mq_activations *activations) {
    mq_gemm_bf16_run(activations->gemm, c, a, b, shape,
                     activations->gemm_scratch +
                         (size_t)omp_get_thread_num() * activations->gemm_scratch_size);
}

/* --- operands --------------------------------------------------------------------------------- */

float *mq_block_input_rows(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                           size_t r) {
    if (pass->bf16) {
        return rows->rounding;
    }
    const mq_activations *a = pass->activations;
    const size_t n = pass->config->hidden_size, ffn = pass->config->intermediate_size;
    const size_t at = rows->first + r;
    return linear == MQ_DOWN ? a->act + at * ffn
                             : (linear == MQ_Q ? a->attn_in : a->ffn_in) + at * n;
}

void mq_block_round_input(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                          size_t r, size_t n, const float *x) {
    if (pass->bf16) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, pass->config, linear);
        pass->kernels->to_bf16(pass->activations->input_bf16[linear] + (rows->first + r) * in, x,
                               n * in);
    }
}

void mq_block_round_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                             size_t r, size_t n) {
    if (pass->bf16) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, pass->config, linear);
        const size_t at = (rows->first + r) * out;
        pass->kernels->to_bf16(pass->activations->d_bf16[linear] + at, pass->d_linear[linear] + at,
                               n * out);
    }
}

/* --- products --------------------------------------------------------------------------------- */

void mq_block_linear(float *y, const mq_block_pass *pass, mq_linear linear, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    if (pass->bf16) {
        const mq_gemm_shape shape = forward_shape(pass->config, linear, rows->count);
        run_bf16(y, a->input_bf16[linear] + rows->first * in, pass->weights->linear_bf16[linear],
                 &shape, a);
    } else {
        mq_gemm_forward(y, mq_activations_input(a, linear) + rows->first * in,
                        pass->weights->linear[linear], rows->count, out, in, 0.0F);
    }
    if (pass->weights->bias[linear]) {
        pass->kernels->add_bias(y, pass->weights->bias[linear], rows->count, out);
    }
}

void mq_block_linear_backward(float *dx, const mq_block_pass *pass, mq_linear linear,
                              const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    if (pass->bf16) {
        const mq_gemm_shape shape = backward_shape(pass->config, linear, rows->count);
        run_bf16(dx, a->d_bf16[linear] + rows->first * out, pass->weights->linear_bf16[linear],
                 &shape, a);
    } else {
        mq_gemm_input_grad(dx, pass->d_linear[linear] + rows->first * out,
                           pass->weights->linear[linear], rows->count, out, in,
                           accumulates(linear) ? 1.0F : 0.0F);
    }
}

void mq_block_weight_gradient(const mq_block_pass *pass, mq_linear linear, size_t piece) {
    const mq_activations *a = pass->activations;
    const piece_view view =
        piece_of(pass->config, linear, piece, pass->shape->sequences * pass->shape->length);
    const mq_gemm_shape *s = &view.shape;
    float *dw = pass->grads->linear[linear] + view.row * s->ldc + view.column;
    if (pass->bf16) {
        run_bf16(dw, a->d_bf16[linear] + view.row, a->input_bf16[linear] + view.column, s, a);
    } else {
        mq_gemm(dw, s->ldc, pass->d_linear[linear] + view.row, s->lda, true,
                mq_activations_input(a, linear) + view.column, s->ldb, false, s->m, s->n, s->k,
                1.0F, 0.0F);
    }
}
