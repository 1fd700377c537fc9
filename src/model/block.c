/* One transformer block: which part runs when, over which tokens, and the weights' gradients.
 *
 * Forward is three parallel regions: runs of tokens up to attention, heads, runs of tokens from
 * there on; backward is the same in reverse and then one over pieces of all weight gradients.
 * Inside, every thread makes its own single-threaded products, and does all else on rows that it
 * has just made: threads meet four times a block, and what is not a product finds its data in
 * cache. */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "model/activations.h"
#include "tensor/gemm.h"

mq_attention_shape mq_block_attention_shape(const mq_config *config, const mq_block_shape *shape) {
    const bool local = config->sliding_window > 0 && config->layer_is_local &&
                       config->layer_is_local[shape->layer];
    return (mq_attention_shape){.sequences = shape->sequences,
                                .length = shape->length,
                                .heads = config->num_attention_heads,
                                .kv_heads = config->num_key_value_heads,
                                .head_dim = config->head_dim,
                                .window = local ? config->sliding_window : 0,
                                .scale = (float)config->attention_scale,
                                .softcap = (float)config->attn_logit_softcapping};
}

/* --- what the parts share --------------------------------------------------------------------- */

void mq_block_norm_backward(float *dx, const float *base, const float *dy, const float *x,
                            const mq_block_pass *pass, mq_norm norm, const mq_rows *rows,
                            size_t heads) {
    const size_t n = mq_config_norm_size(pass->config, norm);
    const float *inv_rms = pass->activations->inv_rms[norm] + rows->first * heads;
    for (size_t r = 0; r < rows->count; r += MQ_ROW_CHUNK) {
        const size_t count = rows->count - r < MQ_ROW_CHUNK ? rows->count - r : MQ_ROW_CHUNK;
        const size_t at = r * heads * n;
        float *sum = NULL;
        if (pass->grads->norm[norm]) {
            sum = pass->activations->norm_sums[norm] + (rows->first + r) / MQ_ROW_CHUNK * n;
            memset(sum, 0, n * sizeof *sum);
        }
        pass->kernels->rmsnorm_backward(dx ? dx + at : NULL, sum, base ? base + at : NULL, dy + at,
                                        x + at, inv_rms + r * heads, pass->weights->norm[norm],
                                        count * heads, n);
    }
}

/* part for all runs of tokens. */
static void for_runs(void (*part)(const mq_block_pass *, const mq_rows *),
                     const mq_block_pass *pass, const mq_context *context) {
    const size_t tokens = pass->shape->sequences * pass->shape->length;
    const size_t run = mq_block_run(tokens);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(context))
    for (size_t first = 0; first < tokens; first += run) {
        const mq_activations *a = pass->activations;
        float *scratch = a->scratch + (size_t)omp_get_thread_num() * a->thread_scratch;
        const mq_rows rows = {.first = first,
                              .count = tokens - first < run ? tokens - first : run,
                              .scratch = scratch,
                              .rounding = scratch + a->rounding_at};
        part(pass, &rows);
    }
    mq_gemm_leave_single(context);
}

/* --- forward ---------------------------------------------------------------------------------- */

void mq_block_forward(float *y, const float *x, const mq_block_weights *weights,
                      const mq_block_shape *shape, mq_activations *activations,
                      const mq_context *context) {
    assert(shape->sequences * shape->length <= activations->max_tokens);
    const mq_block_pass pass = {.kernels = mq_kernels_get(),
                                .config = shape->config,
                                .weights = weights,
                                .bf16 = mq_block_is_bf16(weights, activations),
                                .shape = shape,
                                .activations = activations,
                                .x = x,
                                .y = y};
    const mq_attention_shape attention = mq_block_attention_shape(shape->config, shape);
    for_runs(mq_block_qkv_forward, &pass, context);
    if (shape->packed) {
        mq_attention_forward_packed(activations->attn, activations->q, activations->k,
                                    activations->v, shape->packed, &attention, activations->scratch,
                                    context);
    } else {
        mq_attention_forward(activations->attn, activations->lse, activations->q, activations->k,
                             activations->v, &attention, activations->scratch, context);
    }
    for_runs(mq_block_ffn_forward, &pass, context);
}

/* --- backward --------------------------------------------------------------------------------- */

static bool wants_linear(const mq_block_grads *grads, mq_linear linear) {
    return grads->linear[linear] || grads->bias[linear];
}

/* From the input upwards: a part is passed through if it, or anything before it, is wanted. */
static void find_wanted(mq_block_pass *pass) {
    const mq_block_grads *grads = pass->grads;
    pass->through_input = grads->input || grads->norm[MQ_NORM_INPUT];
    pass->through_attention = pass->through_input || grads->norm[MQ_NORM_Q] ||
                              grads->norm[MQ_NORM_K] || wants_linear(grads, MQ_Q) ||
                              wants_linear(grads, MQ_K) || wants_linear(grads, MQ_V);
    pass->through_o =
        pass->through_attention || wants_linear(grads, MQ_O) || grads->norm[MQ_NORM_POST_ATTN];
    pass->through_ffn = pass->through_o || grads->norm[MQ_NORM_PRE_FFN] ||
                        wants_linear(grads, MQ_GATE) || wants_linear(grads, MQ_UP);
}

static size_t piece_count(const mq_block_pass *pass, mq_linear linear) {
    return pass->grads->linear[linear] ? mq_block_pieces(pass->config, linear) : 0;
}

static void bias_gradient(const mq_block_pass *pass, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    float *sum = pass->grads->bias[linear];
    memset(sum, 0, out * sizeof *sum);
    pass->kernels->column_sum(sum, pass->d_linear[linear],
                              pass->shape->sequences * pass->shape->length, out);
}

static void norm_gradients(const mq_block_pass *pass) {
    const size_t chunks = mq_rmsnorm_chunks(pass->shape->sequences * pass->shape->length);
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        const size_t n = mq_config_norm_size(pass->config, norm);
        if (pass->grads->norm[norm] && n > 0) {
            memset(pass->grads->norm[norm], 0, n * sizeof(float));
            pass->kernels->column_sum(pass->grads->norm[norm], pass->activations->norm_sums[norm],
                                      chunks, n);
        }
    }
}

/* All wanted gradients of weights, biases and norms, in pieces for all threads, the largest first.
 */
static void weight_gradients(const mq_block_pass *pass, const mq_context *context) {
    static const mq_linear order[MQ_LINEAR_COUNT] = {MQ_DOWN, MQ_GATE, MQ_UP, MQ_Q,
                                                     MQ_O,    MQ_K,    MQ_V};
    size_t ends[MQ_LINEAR_COUNT], total = 0;
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        ends[i] = total += piece_count(pass, order[i]);
    }
    mq_gemm_enter_single();
#pragma omp parallel num_threads((int)mq_context_threads(context))
    {
#pragma omp for schedule(dynamic, 1) nowait
        for (size_t task = 0; task < total; task++) {
            size_t i = 0;
            while (task >= ends[i]) {
                i++;
            }
            const size_t begin = ends[i] - piece_count(pass, order[i]);
            mq_block_weight_gradient(pass, order[i], task - begin);
        }
#pragma omp for schedule(dynamic, 1) nowait
        for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
            if (pass->grads->bias[order[i]]) {
                bias_gradient(pass, order[i]);
            }
        }
#pragma omp single
        norm_gradients(pass);
    }
    mq_gemm_leave_single(context);
}

void mq_block_backward(mq_block_grads *grads, float *dy, const float *x,
                       const mq_block_weights *weights, const mq_block_shape *shape,
                       mq_activations *activations, const mq_context *context) {
    mq_activations *a = activations;
    assert(a->backward && !shape->packed && shape->sequences * shape->length <= a->max_tokens);
    mq_block_pass pass = {.kernels = mq_kernels_get(),
                          .config = shape->config,
                          .weights = weights,
                          .bf16 = mq_block_is_bf16(weights, a),
                          .shape = shape,
                          .activations = a,
                          .x = x,
                          .dy = dy,
                          .grads = grads,
                          .d_linear = {[MQ_Q] = a->d_q,
                                       [MQ_K] = a->d_k,
                                       [MQ_V] = a->d_v,
                                       [MQ_O] = a->d_o ? a->d_o : a->d_h,
                                       [MQ_GATE] = a->gate,
                                       [MQ_UP] = a->up,
                                       [MQ_DOWN] = a->d_down ? a->d_down : dy}};
    find_wanted(&pass);
    for_runs(mq_block_ffn_backward, &pass, context);
    if (pass.through_attention) {
        const mq_attention_shape attention = mq_block_attention_shape(shape->config, shape);
        mq_attention_backward(a->d_q, a->d_k, a->d_v, a->d_attn, a->attn, a->lse, a->q, a->k, a->v,
                              &attention, a->scratch, context);
        for_runs(mq_block_qkv_backward, &pass, context);
    }
    weight_gradients(&pass, context);
}
