/* One transformer block: which part runs when, over which tokens, and the weights' gradients.
 *
 * Tokens pass in slabs: a slab's products are cut into tiles by rows and by columns, which threads
 * make one by one, each with a library of one thread; what lies between is done on a few rows at a
 * time. That a thread keeps some tokens and makes all columns of them is slower with OpenBLAS,
 * which packs all weights anew for each run of tokens, and no more threads have work than there are
 * runs. With bfloat16 products, whose weights are packed once for all, it is faster where the model
 * is small: what lies between products is in the cache then (mq_block_in_runs). */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "model/activations.h"
#include "tensor/gemm.h"

mq_attention_shape mq_block_attention_shape(const mq_config *config, const mq_block_shape *shape) {
    return (mq_attention_shape){.sequences = shape->sequences,
                                .length = shape->length,
                                .heads = config->num_attention_heads,
                                .kv_heads = config->num_key_value_heads,
                                .head_dim = config->head_dim,
                                .window = mq_config_window(config, shape->layer),
                                .scale = (float)config->attention_scale,
                                .softcap = (float)config->attn_logit_softcapping};
}

/* --- what the parts share --------------------------------------------------------------------- */

static float *inv_rms_of(const mq_block_pass *pass, mq_norm norm, const mq_rows *rows) {
    return pass->activations->inv_rms[norm] + rows->first * mq_config_norm_rows(pass->config, norm);
}

/* Of the residual stream: what is normed where there is no norm. */
static size_t stream_floats(const mq_block_pass *pass, const mq_rows *rows) {
    return rows->count * pass->config->hidden_size;
}

void mq_block_norm(float *y, const float *x, const mq_block_pass *pass, mq_norm norm,
                   const mq_rows *rows) {
    const size_t n = mq_config_norm_size(pass->config, norm);
    if (n > 0) {
        pass->kernels->rmsnorm(y, inv_rms_of(pass, norm, rows), x, pass->weights->norm[norm],
                               rows->count * mq_config_norm_rows(pass->config, norm), n,
                               (float)pass->config->rms_norm_eps);
    } else if (y != x) {
        memcpy(y, x, stream_floats(pass, rows) * sizeof *y);
    }
}

void mq_block_norm_add(float *sum, const float *base, const float *x, const mq_block_pass *pass,
                       mq_norm norm, const mq_rows *rows) {
    const size_t n = mq_config_norm_size(pass->config, norm);
    if (n > 0) {
        pass->kernels->rmsnorm_add(sum, inv_rms_of(pass, norm, rows), base, x,
                                   pass->weights->norm[norm], rows->count, n,
                                   (float)pass->config->rms_norm_eps);
    } else {
        pass->kernels->add(sum, base, x, stream_floats(pass, rows));
    }
}

/* The same without a norm. */
static void pass_back(float *dx, const float *base, const float *dy, const mq_block_pass *pass,
                      const mq_rows *rows) {
    if (base) {
        pass->kernels->add(dx, base, dy, stream_floats(pass, rows));
    } else if (dx != dy) {
        memcpy(dx, dy, stream_floats(pass, rows) * sizeof *dx);
    }
}

void mq_block_norm_backward(float *dx, const float *base, const float *dy, const float *x,
                            const mq_block_pass *pass, mq_norm norm, const mq_rows *rows) {
    assert(rows->count <= MQ_ROW_CHUNK && rows->first % MQ_ROW_CHUNK == 0);
    const size_t n = mq_config_norm_size(pass->config, norm);
    float *sum = NULL;
    if (n == 0) {
        if (dx) {
            pass_back(dx, base, dy, pass, rows);
        }
        return;
    }
    if (pass->grads->norm[norm]) {
        sum = pass->activations->norm_sums[norm] + rows->first / MQ_ROW_CHUNK * n;
        memset(sum, 0, n * sizeof *sum);
    }
    pass->kernels->rmsnorm_backward(dx, sum, base, dy, x, inv_rms_of(pass, norm, rows),
                                    pass->weights->norm[norm],
                                    rows->count * mq_config_norm_rows(pass->config, norm), n);
}

static mq_rows chunk_at(size_t first, const mq_rows *slab) {
    const size_t rest = slab->first + slab->count - first;
    return (mq_rows){
        .first = first, .count = rest < MQ_ROW_CHUNK ? rest : MQ_ROW_CHUNK, .slab = slab->first};
}

void mq_block_for_rows(void (*work)(const mq_block_pass *, const mq_rows *),
                       const mq_block_pass *pass, const mq_rows *slab) {
    const size_t end = slab->first + slab->count;
    if (pass->alone) {
        for (size_t first = slab->first; first < end; first += MQ_ROW_CHUNK) {
            const mq_rows rows = chunk_at(first, slab);
            work(pass, &rows);
        }
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (size_t first = slab->first; first < end; first += MQ_ROW_CHUNK) {
        const mq_rows rows = chunk_at(first, slab);
        work(pass, &rows);
    }
}

typedef void block_part(const mq_block_pass *, const mq_rows *);

/* part for all runs of tokens, each by one thread. */
static void for_runs(block_part *part, const mq_block_pass *pass) {
    const size_t tokens = mq_block_tokens(pass);
    const size_t floats = mq_block_slab_floats(pass->config, MQ_RUN_ROWS, true);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (size_t first = 0; first < tokens; first += MQ_RUN_ROWS) {
        const size_t rest = tokens - first;
        const mq_rows rows = {
            .first = first, .count = rest < MQ_RUN_ROWS ? rest : MQ_RUN_ROWS, .slab = first};
        mq_block_pass own = *pass;
        own.alone = true;
        mq_block_place_slab(
            &own, pass->activations->scratch + (size_t)omp_get_thread_num() * floats, MQ_RUN_ROWS);
        part(&own, &rows);
    }
}

/* part for all slabs of tokens. */
static void for_slabs(block_part *part, const mq_block_pass *pass) {
    const size_t tokens = mq_block_tokens(pass);
    const size_t slab = mq_block_slab(pass->config, tokens);
    mq_block_pass own = *pass;
    mq_block_place_slab(&own, pass->activations->scratch, slab);
    for (size_t first = 0; first < tokens; first += slab) {
        const mq_rows rows = {
            .first = first, .count = tokens - first < slab ? tokens - first : slab, .slab = first};
        part(&own, &rows);
    }
}

static void for_tokens(block_part *part, const mq_block_pass *pass) {
    if (mq_block_pass_in_runs(pass)) {
        for_runs(part, pass);
    } else {
        for_slabs(part, pass);
    }
}

static mq_attention_inputs attention_inputs(const mq_activations *a) {
    return (mq_attention_inputs){.q = a->q, .k = {a->k, a->k_bf16}, .v = {a->v, a->v_bf16}};
}

static mq_attention_run attention_run(const mq_block_pass *pass, const mq_attention_shape *shape) {
    return (mq_attention_run){.shape = shape,
                              .scratch = pass->activations->scratch,
                              .bf16 = pass->bf16 ? &pass->activations->attention : NULL,
                              .context = pass->context};
}

/* --- forward ---------------------------------------------------------------------------------- */

void mq_block_forward(float *y, const float *x, const mq_block_weights *weights,
                      const mq_block_shape *shape, mq_activations *activations,
                      const mq_context *context) {
    assert(shape->sequences * shape->length <= activations->max_tokens);
    const mq_block_pass pass = {.kernels = mq_kernels_best(),
                                .config = shape->config,
                                .weights = weights,
                                .bf16 = mq_block_bf16(weights, activations),
                                .shape = shape,
                                .activations = activations,
                                .x = x,
                                .y = y,
                                .context = context};
    assert((pass.bf16 ? activations->bf16 : activations->f32) != MQ_PASS_NONE);
    const mq_attention_shape attention = mq_block_attention_shape(shape->config, shape);
    const mq_attention_inputs inputs = attention_inputs(activations);
    const mq_attention_run run = attention_run(&pass, &attention);
    if (pass.bf16) {
        mq_block_pack_weights(&pass);
    }
    for_tokens(mq_block_qkv_forward, &pass);
    if (shape->packed) {
        mq_attention_forward_packed(activations->attn, &inputs, shape->packed, &run);
    } else {
        mq_attention_forward(activations->attn, activations->lse, &inputs, &run);
    }
    for_tokens(mq_block_ffn_forward, &pass);
}

/* --- backward --------------------------------------------------------------------------------- */

/* From the input upwards: a part is passed through if it, or anything before it, is wanted. */
static void find_wanted(mq_block_pass *pass) {
    const mq_block_grads *grads = pass->grads;
    pass->through_input = grads->input || grads->norm[MQ_NORM_INPUT];
    pass->through_attention = pass->through_input || grads->norm[MQ_NORM_Q] ||
                              grads->norm[MQ_NORM_K] || grads->linear[MQ_Q] ||
                              grads->linear[MQ_K] || grads->linear[MQ_V];
    pass->through_o =
        pass->through_attention || grads->linear[MQ_O] || grads->norm[MQ_NORM_POST_ATTN];
    pass->through_ffn = pass->through_o || grads->norm[MQ_NORM_PRE_FFN] || grads->linear[MQ_GATE] ||
                        grads->linear[MQ_UP];
}

static size_t piece_count(const mq_block_pass *pass, mq_linear linear) {
    return pass->grads->linear[linear] ? mq_block_pieces(pass, linear) : 0;
}

static void norm_gradients(const mq_block_pass *pass) {
    const size_t chunks = mq_rmsnorm_chunks(mq_block_tokens(pass));
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        const size_t n = mq_config_norm_size(pass->config, norm);
        if (pass->grads->norm[norm] && n > 0) {
            memset(pass->grads->norm[norm], 0, n * sizeof(float));
            pass->kernels->column_sum(pass->grads->norm[norm], pass->activations->norm_sums[norm],
                                      chunks, n);
        }
    }
}

/* By the threads of a team. */
static void give_rows(const mq_block_pass *pass, mq_linear linear) {
    const mq_block_grads *grads = pass->grads;
    if (!grads->linear[linear]) {
        return;
    }
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
#pragma omp for schedule(static) nowait
    for (size_t row = 0; row < out; row += MQ_ROW_CHUNK) {
        grads->take(grads->user, linear, row, mq_smaller(MQ_ROW_CHUNK, out - row),
                    grads->linear[linear] + row * in);
    }
}

/* All wanted gradients of weights and norms, in pieces for all threads, the largest first. */
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
        if (pass->grads->take && !pass->bf16) { /* some pieces are columns */
#pragma omp barrier
            for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
                give_rows(pass, order[i]);
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
    assert(!shape->packed && shape->sequences * shape->length <= a->max_tokens);
    mq_block_pass pass = {.kernels = mq_kernels_best(),
                          .config = shape->config,
                          .weights = weights,
                          .bf16 = mq_block_bf16(weights, a),
                          .shape = shape,
                          .activations = a,
                          .x = x,
                          .dy = dy,
                          .grads = grads,
                          .context = context,
                          .d_linear = {[MQ_Q] = a->d_q,
                                       [MQ_K] = a->d_k,
                                       [MQ_V] = a->d_v,
                                       [MQ_O] = a->d_o ? a->d_o : a->d_h,
                                       [MQ_GATE] = a->gate,
                                       [MQ_UP] = a->up,
                                       [MQ_DOWN] = a->d_down ? a->d_down : dy}};
    assert((pass.bf16 ? a->bf16 : a->f32) == MQ_PASS_BACKWARD);
    find_wanted(&pass);
    if (pass.bf16) {
        mq_block_pack_weights(&pass);
    }
    for_tokens(mq_block_ffn_backward, &pass);
    if (pass.through_attention) {
        const mq_attention_shape attention = mq_block_attention_shape(shape->config, shape);
        const mq_attention_inputs inputs = attention_inputs(a);
        const mq_attention_kept kept = {.out = a->attn, .lse = a->lse, .dout = a->d_attn};
        const mq_attention_grads by_inputs = {.dq = a->d_q, .dk = a->d_k, .dv = a->d_v};
        const mq_attention_run run = attention_run(&pass, &attention);
        mq_attention_backward(&by_inputs, &kept, &inputs, &run);
        for_tokens(mq_block_qkv_backward, &pass);
    }
    if (pass.bf16) {
        mq_block_pack_inputs(&pass);
    }
    weight_gradients(&pass, context);
}
