/* Carving a block's activations from one slab. */
#include "model/activations.h"
#include "base/alloc.h"

/* Sizes of a token's arrays, in floats. */
typedef struct widths {
    size_t tokens, hidden, q, kv, ffn;
} widths;

static bool has_backward(const mq_activations *a) {
    return a->f32 == MQ_PASS_BACKWARD || a->bf16 == MQ_PASS_BACKWARD;
}

/* Operands that products of float32 read. */
static void carve_inputs_f32(mq_activations *a, mq_slab *slab, const widths *w) {
    a->attn_in = mq_carve(slab, w->tokens * w->hidden, sizeof(float));
    a->ffn_in = mq_carve(slab, w->tokens * w->hidden, sizeof(float));
    a->act = mq_carve(slab, w->tokens * w->ffn, sizeof(float));
}

static void carve_forward(mq_activations *a, mq_slab *slab, const mq_config *config,
                          const widths *w) {
    const size_t size = sizeof(float);
    a->q = mq_carve(slab, w->tokens * w->q, size);
    a->k = mq_carve(slab, w->tokens * w->kv, size);
    a->v = mq_carve(slab, w->tokens * w->kv, size);
    a->attn = mq_carve(slab, w->tokens * w->q, size);
    a->lse = mq_carve(slab, w->tokens * config->num_attention_heads, size);
    a->q_raw = a->q;
    a->k_raw = a->k;
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        if (mq_config_norm_size(config, norm) > 0) {
            const size_t rows = mq_config_norm_rows(config, norm);
            a->inv_rms[norm] = mq_carve(slab, w->tokens * rows, size);
        }
    }
}

/* What a forward keeps for its backward alone. */
static void carve_kept(mq_activations *a, mq_slab *slab, const mq_config *config, const widths *w) {
    const size_t size = sizeof(float);
    a->h = mq_carve(slab, w->tokens * w->hidden, size);
    if (a->f32 == MQ_PASS_BACKWARD) {
        a->gate = mq_carve(slab, w->tokens * w->ffn, size);
        a->up = mq_carve(slab, w->tokens * w->ffn, size);
    }
    if (a->bf16 == MQ_PASS_BACKWARD) {
        a->gate_bf16 = mq_carve(slab, w->tokens * w->ffn, sizeof(mq_bf16));
        a->up_bf16 = mq_carve(slab, w->tokens * w->ffn, sizeof(mq_bf16));
    }
    if (mq_config_norm_size(config, MQ_NORM_Q) > 0) {
        a->q_raw = mq_carve(slab, w->tokens * w->q, size);
    }
    if (mq_config_norm_size(config, MQ_NORM_K) > 0) {
        a->k_raw = mq_carve(slab, w->tokens * w->kv, size);
    }
    if (mq_config_norm_size(config, MQ_NORM_POST_ATTN) > 0) {
        a->o = mq_carve(slab, w->tokens * w->hidden, size);
    }
    if (mq_config_norm_size(config, MQ_NORM_POST_FFN) > 0) {
        a->down = mq_carve(slab, w->tokens * w->hidden, size);
    }
}

/* Whether a norm or residual_multiplier is between a linear's output and the residual stream. */
static bool changes_output(const mq_config *config, mq_norm post) {
    return mq_config_norm_size(config, post) > 0 || config->residual_multiplier != 1.0;
}

static void carve_gradients(mq_activations *a, mq_slab *slab, const mq_config *config,
                            const widths *w) {
    const size_t size = sizeof(float);
    a->d_h = mq_carve(slab, w->tokens * w->hidden, size);
    a->d_attn = mq_carve(slab, w->tokens * w->q, size);
    a->d_q = mq_carve(slab, w->tokens * w->q, size);
    a->d_k = mq_carve(slab, w->tokens * w->kv, size);
    a->d_v = mq_carve(slab, w->tokens * w->kv, size);
    if (changes_output(config, MQ_NORM_POST_ATTN)) {
        a->d_o = mq_carve(slab, w->tokens * w->hidden, size);
    }
    if (changes_output(config, MQ_NORM_POST_FFN)) {
        a->d_down = mq_carve(slab, w->tokens * w->hidden, size);
    }
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        a->norm_sums[norm] =
            mq_carve(slab, mq_rmsnorm_chunks(w->tokens) * mq_config_norm_size(config, norm), size);
    }
}

/* Of the blocks that see everything, whose tiles are the largest. */
static mq_attention_shape attention_of(const mq_config *config, const mq_block_shape *largest) {
    mq_attention_shape attention = mq_block_attention_shape(config, largest);
    attention.window = 0;
    return attention;
}

/* Operands that products of bfloat16 read. */
static void carve_inputs_bf16(mq_activations *a, mq_slab *slab, const mq_config *config,
                              const widths *w) {
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        const mq_linear owner = mq_block_input_owner(linear);
        if (owner != linear) { /* which comes before it */
            a->input_bf16[linear] = a->input_bf16[owner];
        } else {
            a->input_bf16[linear] = mq_carve(slab, w->tokens * in, sizeof(mq_bf16));
        }
    }
    a->k_bf16 = mq_carve(slab, w->tokens * w->kv, sizeof(mq_bf16));
    a->v_bf16 = mq_carve(slab, w->tokens * w->kv, sizeof(mq_bf16));
}

static void carve_bf16(mq_activations *a, mq_slab *slab, const mq_config *config, const widths *w,
                       const mq_block_shape *largest, const mq_context *context) {
    const mq_attention_shape attention = attention_of(config, largest);
    const mq_gemm_bf16 *gemm = a->products.gemm;
    const bool backward = a->bf16 == MQ_PASS_BACKWARD;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        a->packed[linear] =
            mq_carve(slab, mq_block_packed_size(gemm, config, linear, backward), sizeof(mq_bf16));
        if (backward) {
            a->d_bf16[linear] = mq_carve(slab, w->tokens * out, sizeof(mq_bf16));
            a->d_turned[linear] = mq_carve(slab, w->tokens * out, sizeof(mq_bf16));
        }
        if (backward && linear == mq_block_input_owner(linear)) {
            a->input_packed[linear] = mq_carve(
                slab, mq_block_packed_input_size(gemm, config, linear, w->tokens), sizeof(mq_bf16));
        }
    }
    a->tiles = mq_carve(slab, mq_context_threads(context), MQ_BLOCK_TILE * sizeof *a->tiles);
    /* inputs of o, which may be wider than both, are unpacked a few columns at a time */
    a->rounding_width = mq_larger(mq_larger(w->hidden, w->ffn), mq_smaller(w->q, MQ_GRAM_COLUMNS));
    a->rounding = mq_carve(slab, mq_context_threads(context) * MQ_ROW_CHUNK,
                           a->rounding_width * sizeof(float));
    a->products = mq_products_carve(slab, a->products.gemm, mq_context_threads(context));
    a->attention.products = a->products;
    a->attention.scratch =
        mq_carve(slab, mq_context_threads(context),
                 mq_attention_bf16_scratch(&attention) * sizeof *a->attention.scratch);
    a->attention.product =
        mq_carve(slab, mq_context_threads(context),
                 mq_attention_bf16_product(&attention) * sizeof *a->attention.product);
}

/* Attention's tiles, what the other parts do not keep, and pieces of weight gradients that are
 * taken are never in use at the same time. */
static void carve_scratch(mq_activations *a, mq_slab *slab, const mq_config *config,
                          const widths *w, const mq_block_shape *largest,
                          const mq_context *context) {
    const size_t tokens = mq_block_slab(config, w->tokens);
    const mq_attention_shape attention = attention_of(config, largest);
    const size_t for_attention = mq_attention_scratch(&attention, has_backward(a), context);
    size_t for_parts = mq_block_slab_floats(config, tokens, a->f32 == MQ_PASS_NONE);
    if (a->bf16 != MQ_PASS_NONE) {
        a->piece_floats = a->bf16 == MQ_PASS_BACKWARD ? mq_block_piece_floats(config) : 0;
        const size_t for_run =
            mq_block_in_runs(config) ? mq_block_slab_floats(config, MQ_RUN_ROWS, true) : 0;
        for_parts =
            mq_larger(for_parts, mq_context_threads(context) * mq_larger(a->piece_floats, for_run));
    }
    a->scratch =
        mq_carve(slab, for_parts > for_attention ? for_parts : for_attention, sizeof(float));
}

/* Whether the largest of the arrays can be counted in size_t with room to spare. */
static bool countable(const widths *w, const mq_context *context) {
    size_t widest, floats;
    return mq_add_size(&widest, w->hidden + w->q, 2 * w->ffn) &&
           mq_mul_size(&floats, w->tokens, widest) &&
           mq_mul3_size(&floats, floats, 64, mq_context_threads(context));
}

static bool count_widths(widths *w, const mq_activations_use *use, const mq_context *context) {
    const mq_config *config = use->config;
    *w = (widths){.hidden = config->hidden_size,
                  .q = config->num_attention_heads * config->head_dim,
                  .kv = config->num_key_value_heads * config->head_dim,
                  .ffn = config->intermediate_size};
    return mq_mul_size(&w->tokens, use->sequences, use->length) && countable(w, context);
}

/* What every block has of its own. */
static void carve_own(mq_activations *a, mq_slab *slab, const mq_config *config, const widths *w) {
    carve_forward(a, slab, config, w);
    if (a->f32 != MQ_PASS_NONE) {
        carve_inputs_f32(a, slab, w);
    }
    if (a->bf16 != MQ_PASS_NONE) {
        carve_inputs_bf16(a, slab, config, w);
    }
    if (has_backward(a)) {
        carve_kept(a, slab, config, w);
    }
}

mq_activations *mq_activations_carve(mq_slab *slab, const mq_activations_use *use,
                                     const mq_context *context) {
    const mq_config *config = use->config;
    widths w;
    if (!count_widths(&w, use, context)) {
        slab->overflow = true;
        return NULL;
    }
    mq_activations *out = mq_carve(slab, 1, sizeof *out);
    mq_activations a = {
        .max_tokens = w.tokens, .f32 = use->f32, .bf16 = use->bf16, .products.gemm = use->gemm};
    const mq_block_shape largest = {.sequences = use->sequences, .length = use->length};
    carve_own(&a, slab, config, &w);
    if (has_backward(&a)) {
        carve_gradients(&a, slab, config, &w);
    }
    if (a.bf16 != MQ_PASS_NONE) {
        carve_bf16(&a, slab, config, &w, &largest, context);
    }
    carve_scratch(&a, slab, config, &w, &largest, context);
    if (out) {
        *out = a;
    }
    return out;
}

mq_activations *mq_activations_carve_beside(mq_slab *slab, const mq_activations *first,
                                            const mq_activations_use *use,
                                            const mq_context *context) {
    widths w;
    if (!count_widths(&w, use, context)) {
        slab->overflow = true;
        return NULL;
    }
    mq_activations *out = mq_carve(slab, 1, sizeof *out);
    mq_activations a = first ? *first : (mq_activations){.f32 = use->f32, .bf16 = use->bf16};
    carve_own(&a, slab, use->config, &w);
    if (out) {
        *out = a;
    }
    return out;
}

const float *mq_activations_input(const mq_activations *activations, mq_linear linear) {
    switch (linear) {
    case MQ_Q:
    case MQ_K:
    case MQ_V:
        return activations->attn_in;
    case MQ_O:
        return activations->attn;
    case MQ_GATE:
    case MQ_UP:
        return activations->ffn_in;
    case MQ_DOWN:
        return activations->act;
    case MQ_LINEAR_COUNT:
        break;
    }
    return NULL;
}
