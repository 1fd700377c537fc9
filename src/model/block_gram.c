/* What a block's linears read, squared: for searches that weigh errors by inputs, and for codes
 * that make up for one another's errors. Beside the forward's products these take as many
 * operations again, so they are made of the operands that the forward had, bfloat16 ones if it had
 * those. */
#include <omp.h>
#include <string.h>

#include "model/activations.h"
#include "tensor/gemm.h"

/* Tokens whose squares are added up in float32. */
#define FLOAT_TOKENS 256

/* sum[columns] += the squares of x[tokens, columns], in the order of the tokens. */
static void add_squares(double *sum, const float *x, size_t ld, size_t tokens, size_t columns) {
    float part[MQ_GRAM_COLUMNS] = {0};
    for (size_t t = 0; t < tokens; t++) {
        const float *row = x + t * ld;
        for (size_t c = 0; c < columns; c++) {
            part[c] += row[c] * row[c];
        }
        if ((t + 1) % FLOAT_TOKENS == 0 || t + 1 == tokens) {
            for (size_t c = 0; c < columns; c++) {
                sum[c] += (double)part[c];
                part[c] = 0.0F;
            }
        }
    }
}

static void squares_f32(double *squares, const float *x, size_t tokens, size_t in,
                        const mq_context *context) {
#pragma omp parallel for num_threads((int)mq_context_threads(context))
    for (size_t begin = 0; begin < in; begin += MQ_GRAM_COLUMNS) {
        add_squares(squares + begin, x + begin, in, tokens,
                    mq_smaller(MQ_GRAM_COLUMNS, in - begin));
    }
}

/* --- of bfloat16 operands --------------------------------------------------------------------- */

/* The input that a Gram matrix is made of. */
typedef struct gram_input {
    mq_activations *activations;
    const mq_kernels *kernels;
    mq_linear linear;
    mq_panelled panelled;
    mq_bf16 *turned; /* [in, tokens] */
} gram_input;

/* Where backward has the turned gradient of a linear that has as many outputs. */
static mq_bf16 *room_for_turned(const mq_activations *a, mq_linear linear) {
    static const mq_linear as_wide[MQ_LINEAR_COUNT] = {
        [MQ_Q] = MQ_O, [MQ_O] = MQ_Q, [MQ_GATE] = MQ_DOWN, [MQ_DOWN] = MQ_GATE};
    return a->d_turned[as_wide[linear]];
}

/* Columns [first, first + columns) squared, and turned if there is room. */
static void columns_bf16(double *squares, const gram_input *input, size_t first, size_t columns) {
    const mq_panels *tokens = &input->panelled.k, *in = &input->panelled.n;
    const size_t j = first / in->width, ld = mq_panel_width(in, j);
    const mq_bf16 *x = input->activations->input_bf16[input->linear] +
                       mq_panel_at(in, j, tokens->size, 0) + (first - j * in->width);
    float *rows = mq_block_rounding_rows(input->activations);
    for (size_t t = 0; t < tokens->size; t += MQ_ROW_CHUNK) {
        const size_t count = mq_smaller(MQ_ROW_CHUNK, tokens->size - t), i = t / tokens->width;
        for (size_t r = 0; r < count; r++) {
            mq_to_f32(rows + r * columns, x + (t + r) * ld, MQ_BF16, columns);
        }
        add_squares(squares + first, rows, columns, count, columns);
        if (input->turned) {
            input->kernels->to_bf16_turned(input->turned + mq_panel_at(tokens, i, in->size, first) +
                                               (t - i * tokens->width),
                                           mq_panel_width(tokens, i), rows, count, columns);
        }
    }
}

/* matrix += rows of a piece by panel j, from the diagonal on. */
static void piece_bf16(float *matrix, const gram_input *input, size_t row, size_t rows, size_t j) {
    const mq_panels *in = &input->panelled.n;
    const size_t first = j * in->width, width = mq_panel_width(in, j);
    float *tile = mq_block_own_tiles(input->activations);
    mq_panelled_product(tile, input->turned, in->size, row, rows,
                        input->activations->input_packed[input->linear], &input->panelled, j, false,
                        &input->activations->products);
    for (size_t r = 0; r < rows; r++) {
        const size_t skip = row + r > first ? mq_smaller(row + r - first, width) : 0;
        float *to = matrix + (row + r) * in->size + first + skip;
        input->kernels->add(to, to, tile + r * width + skip, width - skip);
    }
}

static void matrix_bf16(float *matrix, const gram_input *input, const mq_context *context) {
    mq_activations *a = input->activations;
    const mq_panels *in = &input->panelled.n;
    const size_t rows = mq_block_piece_rows(in->size), pieces = (in->size + rows - 1) / rows;
#pragma omp parallel num_threads((int)mq_context_threads(context))
    {
#pragma omp for schedule(dynamic, 1)
        for (size_t j = 0; j < in->count; j++) {
            mq_panelled_pack(a->input_packed[input->linear], a->input_bf16[input->linear],
                             &input->panelled, j, mq_smaller(rows, in->size), &a->products);
        }
#pragma omp for schedule(dynamic, 1)
        for (size_t task = 0; task < pieces * in->count; task++) {
            const size_t row = task / in->count * rows, j = task % in->count;
            if (j * in->width + mq_panel_width(in, j) > row) { /* else it is below the diagonal */
                piece_bf16(matrix, input, row, mq_smaller(rows, in->size - row), j);
            }
        }
    }
}

static void add_bf16(double *squares, float *matrix, mq_linear linear, size_t tokens,
                     const mq_config *config, mq_activations *a, const mq_context *context) {
    const gram_input input = {.activations = a,
                              .kernels = mq_kernels_best(),
                              .linear = linear,
                              .panelled = mq_block_input_panelled(config, linear, tokens),
                              .turned = matrix ? room_for_turned(a, linear) : NULL};
    const size_t in = input.panelled.n.size;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t first = 0; first < in; first += MQ_GRAM_COLUMNS) {
        columns_bf16(squares, &input, first, mq_smaller(MQ_GRAM_COLUMNS, in - first));
    }
    if (matrix) {
        matrix_bf16(matrix, &input, context);
    }
}

void mq_block_gram_add(double *squares, float *matrix, mq_linear linear,
                       const mq_block_weights *weights, const mq_block_shape *shape,
                       mq_activations *activations, const mq_context *context) {
    const mq_linear owner = mq_block_input_owner(linear);
    const size_t tokens = shape->sequences * shape->length;
    if (mq_block_bf16(weights, activations)) {
        add_bf16(squares, matrix, owner, tokens, shape->config, activations, context);
        return;
    }
    size_t out, in;
    mq_config_linear_shape(&out, &in, shape->config, owner);
    const float *x = mq_activations_input(activations, owner);
    squares_f32(squares, x, tokens, in, context);
    if (matrix) {
        mq_gram_add(matrix, x, tokens, in, context);
    }
}
