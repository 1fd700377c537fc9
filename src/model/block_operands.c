/* Where the operands and results of a block's products are, and how they are rounded. */
#include <assert.h>
#include <omp.h>

#include "model/activations.h"

bool mq_block_passes_on(const mq_block_pass *pass, mq_linear linear) {
    switch (linear) {
    case MQ_DOWN:
        return pass->through_ffn;
    case MQ_GATE:
    case MQ_UP:
        return pass->through_o || pass->grads->norm[MQ_NORM_PRE_FFN] != NULL;
    case MQ_O:
        return pass->through_attention;
    case MQ_Q:
    case MQ_K:
    case MQ_V:
    case MQ_LINEAR_COUNT:
        break;
    }
    return pass->through_input;
}

float *mq_block_output(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    float *const kept[MQ_LINEAR_COUNT] = {[MQ_Q] = a->q_raw,
                                          [MQ_K] = a->k_raw,
                                          [MQ_V] = a->v,
                                          [MQ_O] = a->o,
                                          [MQ_GATE] = pass->bf16 ? NULL : a->gate,
                                          [MQ_UP] = pass->bf16 ? NULL : a->up,
                                          [MQ_DOWN] = a->down};
    float *const scratch[MQ_LINEAR_COUNT] = {[MQ_O] = pass->slab_hidden,
                                             [MQ_GATE] = pass->slab_ffn[0],
                                             [MQ_UP] = pass->slab_ffn[1],
                                             [MQ_DOWN] = pass->slab_hidden};
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    return kept[linear] ? kept[linear] + rows->first * out
                        : scratch[linear] + (rows->first - rows->slab) * out;
}

float *mq_block_input_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    if (linear == MQ_O) {
        return a->d_attn + rows->first * in;
    }
    return (linear == MQ_DOWN ? pass->slab_ffn[0] : pass->slab_hidden) +
           (rows->first - rows->slab) * in;
}

float *mq_block_rounding_rows(const mq_activations *a) {
    return a->rounding + (size_t)omp_get_thread_num() * MQ_ROW_CHUNK * a->rounding_width;
}

float *mq_block_input_rows(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows) {
    const mq_activations *a = pass->activations;
    if (pass->bf16) {
        return mq_block_rounding_rows(a);
    }
    const size_t n = pass->config->hidden_size, ffn = pass->config->intermediate_size;
    return linear == MQ_DOWN ? a->act + rows->first * ffn
                             : (linear == MQ_Q ? a->attn_in : a->ffn_in) + rows->first * n;
}

/* Rows of x[rows, columns] into panels of all tokens. */
static void round_rows(mq_bf16 *y, const mq_block_pass *pass, const mq_rows *rows, size_t columns,
                       const float *x) {
    const mq_panels panels = mq_panels_of(columns);
    for (size_t j = 0; j < panels.count; j++) {
        const size_t width = mq_panel_width(&panels, j);
        mq_bf16 *panel = y + mq_panel_at(&panels, j, mq_block_tokens(pass), rows->first);
        if (panels.count == 1) {
            pass->kernels->to_bf16(panel, x, rows->count * width);
            return;
        }
        for (size_t r = 0; r < rows->count; r++) {
            pass->kernels->to_bf16(panel + r * width, x + r * columns + j * panels.width, width);
        }
    }
}

void mq_block_round_input(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                          const float *x) {
    if (pass->bf16) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, pass->config, linear);
        round_rows(pass->activations->input_bf16[linear], pass, rows, in, x);
    }
}

const float *mq_block_gradient_rows(const mq_block_pass *pass, mq_linear linear,
                                    const mq_rows *rows) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    return pass->d_linear[linear] + rows->first * out;
}

/* d[rows, columns], the gradient by a linear's outputs from `first` on, turned into panels of
 * tokens. */
static void round_turned(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                         size_t first, size_t columns, const float *d) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const mq_panels panels = mq_panels_of(mq_block_tokens(pass));
    for (size_t begin = 0; begin < rows->count; begin += MQ_ROW_CHUNK) { /* within a panel */
        const size_t row = rows->first + begin, j = row / panels.width;
        assert(row % MQ_ROW_CHUNK == 0);
        pass->kernels->to_bf16_turned(pass->activations->d_turned[linear] +
                                          mq_panel_at(&panels, j, out, first) +
                                          (row - j * panels.width),
                                      mq_panel_width(&panels, j), d + begin * columns,
                                      mq_smaller(MQ_ROW_CHUNK, rows->count - begin), columns);
    }
}

void mq_block_round_gradient(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                             const float *d) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    if (pass->bf16 && mq_block_passes_on(pass, linear)) {
        round_rows(pass->activations->d_bf16[linear], pass, rows, out, d);
    }
    if (pass->bf16 && pass->grads->linear[linear]) {
        round_turned(pass, linear, rows, 0, out, d);
    }
}

void mq_block_round_gradient_panel(const mq_block_pass *pass, mq_linear linear, const mq_rows *rows,
                                   size_t j, const float *d) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const mq_panels panels = mq_panels_of(out);
    const size_t width = mq_panel_width(&panels, j);
    if (mq_block_passes_on(pass, linear)) {
        pass->kernels->to_bf16(pass->activations->d_bf16[linear] +
                                   mq_panel_at(&panels, j, mq_block_tokens(pass), rows->first),
                               d, rows->count * width);
    }
    if (pass->grads->linear[linear]) {
        round_turned(pass, linear, rows, j * panels.width, width, d);
    }
}
