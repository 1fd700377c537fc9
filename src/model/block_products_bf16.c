/* The matrix products of a block's linear layers of bfloat16 operands, in panels: forward and input
 * gradient of MQ_RUN_ROWS tokens at a time and from packed weights, weight gradient over all tokens
 * from packed inputs. */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "model/activations.h"

/* --- operands --------------------------------------------------------------------------------- */

/* A linear's weights [out, in] as the b of y = x·wᵀ, or of dx = dy·w. */
static mq_panelled weight_of(const mq_config *config, mq_linear linear, bool backward) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const mq_panels of_out = mq_panels_of(out), of_in = mq_panels_of(in);
    return backward ? (mq_panelled){.k = of_out, .n = of_in}
                    : (mq_panelled){.k = of_in, .n = of_out, .trans_b = true};
}

mq_panelled mq_block_input_panelled(const mq_config *config, mq_linear linear, size_t tokens) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_panelled){.k = mq_panels_of(tokens), .n = mq_panels_of(in), .in_panels = true};
}

/* Rows of a piece of a weight gradient: fewer read the packed input more often, more leave fewer
 * pieces for the threads. */
#define PIECE 256
#define PIECE_STEP 16

size_t mq_block_piece_rows(size_t out) {
    const size_t pieces = (out + PIECE - 1) / PIECE, even = (out + pieces - 1) / pieces;
    return (even + PIECE_STEP - 1) / PIECE_STEP * PIECE_STEP;
}

size_t mq_block_pieces_bf16(const mq_config *config, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (out + mq_block_piece_rows(out) - 1) / mq_block_piece_rows(out);
}

size_t mq_block_piece_floats(const mq_config *config) {
    size_t most = 0;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        most = mq_larger(most, mq_smaller(mq_block_piece_rows(out), out) * in);
    }
    return most;
}

/* --- making ready ----------------------------------------------------------------------------- */

/* The products of so many rows. */
static mq_status prepare_rows(mq_gemm_bf16 *gemm, const mq_config *config, size_t rows,
                              bool backward, mq_error *err) {
    mq_status status = MQ_OK;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        for (int back = 0; status == MQ_OK && back <= (backward ? 1 : 0); back++) {
            const mq_panelled b = weight_of(config, linear, back == 1);
            status = mq_panelled_prepare(gemm, &b, rows, err);
        }
    }
    return status;
}

/* Those of `size` rows in pieces. */
static mq_status prepare_pieces_of(mq_gemm_bf16 *gemm, const mq_panelled *b, size_t size,
                                   mq_error *err) {
    const size_t rows = mq_block_piece_rows(size);
    mq_status status = size >= rows ? mq_panelled_prepare(gemm, b, rows, err) : MQ_OK;
    if (status == MQ_OK && size % rows > 0) {
        status = mq_panelled_prepare(gemm, b, size % rows, err);
    }
    return status;
}

/* Weight gradients, and Gram matrices of the inputs. */
static mq_status prepare_pieces(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                                mq_error *err) {
    mq_status status = MQ_OK;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        const mq_panelled b = mq_block_input_panelled(config, linear, tokens);
        if (status == MQ_OK) {
            status = prepare_pieces_of(gemm, &b, out, err);
        }
        if (status == MQ_OK && mq_block_input_owner(linear) == linear) {
            status = prepare_pieces_of(gemm, &b, in, err);
        }
    }
    return status;
}

/* Attention's of layers that see everything and of those with windows. */
static mq_status prepare_attention(mq_gemm_bf16 *gemm, const mq_config *config, size_t length,
                                   bool backward, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        const mq_block_shape block = {
            .config = config, .sequences = 1, .length = length, .layer = layer};
        const mq_attention_shape shape = mq_block_attention_shape(config, &block);
        status = mq_attention_prepare(gemm, &shape, backward, err);
    }
    return status;
}

mq_status mq_block_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t sequences,
                           size_t length, bool backward, mq_error *err) {
    const size_t tokens = sequences * length, rest = tokens % MQ_RUN_ROWS;
    mq_status status = prepare_attention(gemm, config, length, backward, err);
    if (status == MQ_OK && tokens >= MQ_RUN_ROWS) {
        status = prepare_rows(gemm, config, MQ_RUN_ROWS, backward, err);
    }
    if (status == MQ_OK && rest > 0) {
        status = prepare_rows(gemm, config, rest, backward, err);
    }
    return status == MQ_OK && backward ? prepare_pieces(gemm, config, tokens, err) : status;
}

/* --- packing ---------------------------------------------------------------------------------- */

size_t mq_block_packed_size(const mq_gemm_bf16 *gemm, const mq_config *config, mq_linear linear,
                            bool backward) {
    const mq_panelled b = weight_of(config, linear, false);
    const size_t size = mq_panelled_size(gemm, &b);
    if (!backward) {
        return size;
    }
    const mq_panelled back = weight_of(config, linear, true);
    return mq_larger(size, mq_panelled_size(gemm, &back));
}

size_t mq_block_packed_input_size(const mq_gemm_bf16 *gemm, const mq_config *config,
                                  mq_linear linear, size_t tokens) {
    const mq_panelled b = mq_block_input_panelled(config, linear, tokens);
    return mq_panelled_size(gemm, &b);
}

/* Some number of rows that was prepared. */
static size_t any_rows(const mq_block_pass *pass) {
    return mq_smaller(mq_block_tokens(pass), MQ_RUN_ROWS);
}

/* Panels of different linears one after the other, as tasks. */
typedef struct panel_list {
    size_t ends[MQ_LINEAR_COUNT], count;
} panel_list;

static mq_linear panel_at(size_t *j, const panel_list *list, size_t task) {
    mq_linear linear = 0;
    while (task >= list->ends[linear]) {
        linear++;
    }
    *j = task - (linear > 0 ? list->ends[linear - 1] : 0);
    return linear;
}

void mq_block_pack_weights(const mq_block_pass *pass) {
    const bool backward = pass->grads != NULL;
    panel_list list = {.count = 0};
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        const mq_panelled b = weight_of(pass->config, linear, backward);
        list.count += !backward || mq_block_passes_on(pass, linear) ? b.n.count : 0;
        list.ends[linear] = list.count;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (size_t task = 0; task < list.count; task++) {
        size_t j;
        const mq_linear linear = panel_at(&j, &list, task);
        const mq_panelled b = weight_of(pass->config, linear, backward);
        mq_panelled_pack(pass->activations->packed[linear], pass->weights->linear_bf16[linear], &b,
                         j, any_rows(pass), pass->bf16);
    }
}

void mq_block_pack_inputs(const mq_block_pass *pass) {
    const mq_activations *a = pass->activations;
    const size_t tokens = mq_block_tokens(pass);
    bool wanted[MQ_LINEAR_COUNT] = {false};
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        wanted[mq_block_input_owner(linear)] |= pass->grads->linear[linear] != NULL;
    }
    panel_list list = {.count = 0};
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        list.count +=
            wanted[linear] ? mq_block_input_panelled(pass->config, linear, tokens).n.count : 0;
        list.ends[linear] = list.count;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (size_t task = 0; task < list.count; task++) {
        size_t j, out, in;
        const mq_linear linear = panel_at(&j, &list, task);
        mq_config_linear_shape(&out, &in, pass->config, linear);
        const mq_panelled b = mq_block_input_panelled(pass->config, linear, tokens);
        mq_panelled_pack(a->input_packed[linear], a->input_bf16[linear], &b, j,
                         mq_smaller(mq_block_piece_rows(out), out), pass->bf16);
    }
}

/* --- tasks ------------------------------------------------------------------------------------ */

/* Panel j of what a group's linears make of a run of tokens. */
typedef void panel_work(const mq_block_pass *, const mq_together *, const mq_rows *, size_t j);

/* All panels of all runs of a slab: of a run that one thread has to itself by this one, else by all
 * threads, which then read the same weights at the same time. */
static void for_panels(panel_work *work, const mq_block_pass *pass, const mq_together *group,
                       const mq_rows *slab, size_t panels) {
    if (pass->alone) {
        for (size_t j = 0; j < panels; j++) {
            work(pass, group, slab, j);
        }
        return;
    }
    const size_t runs = (slab->count + MQ_RUN_ROWS - 1) / MQ_RUN_ROWS;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (size_t task = 0; task < runs * panels; task++) {
        const size_t begin = task % runs * MQ_RUN_ROWS;
        const mq_rows run = {.first = slab->first + begin,
                             .count = mq_smaller(slab->count - begin, MQ_RUN_ROWS),
                             .slab = slab->slab};
        work(pass, group, &run, task / runs);
    }
}

float *mq_block_own_tiles(const mq_activations *activations) {
    return activations->tiles + (size_t)omp_get_thread_num() * MQ_BLOCK_TILE;
}

/* A panel's place in y[rows, columns]: a tile's unless it is all of it. */
static float *begin_panel(const mq_block_pass *pass, const mq_panels *columns, float *y) {
    return columns->count == 1 ? y : mq_block_own_tiles(pass->activations);
}

static void end_panel(float *y, const mq_panels *columns, size_t j, size_t rows,
                      const float *tile) {
    const size_t width = mq_panel_width(columns, j);
    for (size_t r = 0; y != tile && r < rows; r++) {
        memcpy(y + r * columns->size + j * columns->width, tile + r * width, width * sizeof *y);
    }
}

/* --- forward ---------------------------------------------------------------------------------- */

/* c[rows, width of panel j] of y = x·wᵀ + bias. */
static void forward_product(float *c, const mq_block_pass *pass, mq_linear linear,
                            const mq_rows *run, size_t j) {
    const mq_activations *a = pass->activations;
    const mq_panelled w = weight_of(pass->config, linear, false);
    mq_panelled_product(c, a->input_bf16[linear], mq_block_tokens(pass), run->first, run->count,
                        a->packed[linear], &w, j, false, pass->bf16);
    const float *bias = pass->weights->bias[linear];
    if (bias) {
        pass->kernels->add_bias(c, bias + j * w.n.width, run->count, mq_panel_width(&w.n, j));
    }
}

static size_t outputs_of(const mq_block_pass *pass, mq_linear linear) {
    return weight_of(pass->config, linear, false).n.count;
}

static void forward_panel(const mq_block_pass *pass, const mq_together *group, const mq_rows *run,
                          size_t j) {
    size_t i = 0;
    while (j >= outputs_of(pass, group->linears[i])) {
        j -= outputs_of(pass, group->linears[i++]);
    }
    const mq_linear linear = group->linears[i];
    const mq_panels columns = weight_of(pass->config, linear, false).n;
    float *y = mq_block_output(pass, linear, run), *c = begin_panel(pass, &columns, y);
    forward_product(c, pass, linear, run, j);
    end_panel(y, &columns, j, run->count, c);
}

void mq_block_linears_bf16(const mq_block_pass *pass, const mq_together *group,
                           const mq_rows *slab) {
    size_t panels = 0;
    for (size_t i = 0; i < group->count; i++) {
        panels += outputs_of(pass, group->linears[i]);
    }
    for_panels(forward_panel, pass, group, slab, panels);
}

static void gated_panel(const mq_block_pass *pass, const mq_together *group, const mq_rows *run,
                        size_t j) {
    (void)group;
    const mq_activations *a = pass->activations;
    const mq_panels ffn = mq_panels_of(pass->config->intermediate_size);
    float *gate = mq_block_own_tiles(a), *up = gate + MQ_BLOCK_TILE / 2;
    forward_product(gate, pass, MQ_GATE, run, j);
    forward_product(up, pass, MQ_UP, run, j);
    const size_t at = mq_panel_at(&ffn, j, mq_block_tokens(pass), run->first);
    const bool keep = a->bf16 == MQ_PASS_BACKWARD;
    pass->kernels->glu_bf16[pass->config->activation](
        a->input_bf16[MQ_DOWN] + at, keep ? a->gate_bf16 + at : NULL, keep ? a->up_bf16 + at : NULL,
        gate, up, run->count * mq_panel_width(&ffn, j));
}

void mq_block_gated_bf16(const mq_block_pass *pass, const mq_rows *slab) {
    for_panels(gated_panel, pass, &mq_block_gate_up, slab, outputs_of(pass, MQ_GATE));
}

/* --- backward --------------------------------------------------------------------------------- */

/* c[rows, width of panel j] of dx = Σ dy·w over the group. */
static void backward_product(float *c, const mq_block_pass *pass, const mq_together *group,
                             const mq_rows *run, size_t j) {
    const mq_activations *a = pass->activations;
    for (size_t i = 0; i < group->count; i++) {
        const mq_linear linear = group->linears[i];
        const mq_panelled w = weight_of(pass->config, linear, true);
        mq_panelled_product(c, a->d_bf16[linear], mq_block_tokens(pass), run->first, run->count,
                            a->packed[linear], &w, j, i > 0, pass->bf16);
    }
}

static size_t inputs_of(const mq_block_pass *pass, mq_linear linear) {
    return weight_of(pass->config, linear, true).n.count;
}

static void backward_panel(const mq_block_pass *pass, const mq_together *group, const mq_rows *run,
                           size_t j) {
    const mq_panels columns = weight_of(pass->config, group->linears[0], true).n;
    float *dx = mq_block_input_gradient(pass, group->linears[0], run);
    float *c = begin_panel(pass, &columns, dx);
    backward_product(c, pass, group, run, j);
    end_panel(dx, &columns, j, run->count, c);
}

void mq_block_linears_backward_bf16(const mq_block_pass *pass, const mq_together *group,
                                    const mq_rows *slab) {
    for_panels(backward_panel, pass, group, slab, inputs_of(pass, group->linears[0]));
}

static void gated_backward_panel(const mq_block_pass *pass, const mq_together *group,
                                 const mq_rows *run, size_t j) {
    const mq_activations *a = pass->activations;
    const mq_panels ffn = mq_panels_of(pass->config->intermediate_size);
    float *d = mq_block_own_tiles(a), *d_up = d + MQ_BLOCK_TILE / 2;
    backward_product(d, pass, group, run, j);
    const size_t at = mq_panel_at(&ffn, j, mq_block_tokens(pass), run->first);
    pass->kernels->glu_backward_bf16[pass->config->activation](
        d, d_up, d, a->gate_bf16 + at, a->up_bf16 + at, run->count * mq_panel_width(&ffn, j));
    mq_block_round_gradient_panel(pass, MQ_GATE, run, j, d);
    mq_block_round_gradient_panel(pass, MQ_UP, run, j, d_up);
}

void mq_block_gated_backward_bf16(const mq_block_pass *pass, const mq_rows *slab) {
    for_panels(gated_backward_panel, pass, &mq_block_down, slab, inputs_of(pass, MQ_DOWN));
}

void mq_block_weight_gradient_bf16(const mq_block_pass *pass, mq_linear linear, size_t piece) {
    const mq_activations *a = pass->activations;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const mq_panelled x = mq_block_input_panelled(pass->config, linear, mq_block_tokens(pass));
    const size_t row = piece * mq_block_piece_rows(out),
                 rows = mq_smaller(mq_block_piece_rows(out), out - row);
    float *dw = pass->grads->take ? a->scratch + (size_t)omp_get_thread_num() * a->piece_floats
                                  : pass->grads->linear[linear] + row * in;
    for (size_t j = 0; j < x.n.count; j++) {
        float *c = begin_panel(pass, &x.n, dw);
        mq_panelled_product(c, a->d_turned[linear], out, row, rows,
                            a->input_packed[mq_block_input_owner(linear)], &x, j, false,
                            pass->bf16);
        end_panel(dw, &x.n, j, rows, c);
    }
    if (pass->grads->take) {
        pass->grads->take(pass->grads->user, linear, row, rows, dw);
    }
}
