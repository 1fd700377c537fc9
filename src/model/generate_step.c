/* One token of each sequence of a batch through the whole model, by all threads: each takes columns
 * of a layer's product, or sequences. Functions with loops of OpenMP are called by each thread of a
 * parallel region, for `rows` sequences; such a loop ends with a barrier. */
#include <omp.h>
#include <string.h>

#include "model/generator.h"
#include "model/ops.h"

#define COLUMNS 96 /* of a product that a thread makes at once */

/* A product y[rows, out] = x[rows, in]·w[out, in]ᵀ + bias[out]. */
typedef struct product {
    float *y;
    mq_operand w;
    const float *bias; /* NULL: none */
    size_t out;
} product;

static mq_gemm_shape shape_of(size_t rows, size_t columns, size_t out, size_t in) {
    return (mq_gemm_shape){
        .m = rows, .n = columns, .k = in, .lda = in, .ldb = in, .ldc = out, .trans_b = true};
}

static mq_status prepare_product(mq_gemm_bf16 *gemm, size_t rows, size_t out, size_t in,
                                 mq_error *err) {
    const mq_gemm_shape most = shape_of(rows, mq_smaller(COLUMNS, out), out, in);
    const mq_gemm_shape last = shape_of(rows, (out - 1) % COLUMNS + 1, out, in);
    const mq_status status = mq_gemm_bf16_prepare(gemm, &most, err);
    return status == MQ_OK ? mq_gemm_bf16_prepare(gemm, &last, err) : status;
}

mq_status mq_generator_prepare_step(mq_gemm_bf16 *gemm, const mq_config *config, size_t rows,
                                    mq_error *err) {
    mq_status status = prepare_product(gemm, rows, config->vocab_size, config->hidden_size, err);
    for (mq_linear linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        status = prepare_product(gemm, rows, out, in, err);
    }
    return status;
}

/* With products of bfloat16: x[count] as part of what the next one reads, from element `at` on. */
static void round_operand(const mq_generator *g, const float *x, size_t at, size_t count) {
    if (g->products.gemm != NULL) {
        g->kernels->to_bf16(g->operand + at, x, count);
    }
}

static void columns_of(const mq_generator *g, const product *p, const float *x, size_t in,
                       size_t rows, size_t first) {
    const size_t count = mq_smaller(COLUMNS, p->out - first);
    const mq_gemm_shape shape = shape_of(rows, count, p->out, in);
    mq_product(p->y + first, (mq_operand){x, g->operand}, mq_operand_at(p->w, first * in), &shape,
               &g->products);
    for (size_t row = 0; p->bias != NULL && row < rows; row++) {
        g->kernels->add_bias(p->y + row * p->out + first, p->bias + first, 1, count);
    }
}

static size_t pieces_of(const product *p) { return (p->out + COLUMNS - 1) / COLUMNS; }

/* Several products of the same x, which round_operand has had. */
static void products(const mq_generator *g, const product *list, size_t count, const float *x,
                     size_t in, size_t rows) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += pieces_of(&list[i]);
    }
#pragma omp for schedule(dynamic, 1)
    for (size_t piece = 0; piece < total; piece++) {
        size_t i = 0, at = piece;
        while (at >= pieces_of(&list[i])) {
            at -= pieces_of(&list[i++]);
        }
        columns_of(g, &list[i], x, in, rows, at * COLUMNS);
    }
}

static mq_operand operand_of(const mq_generator_matrix *matrix) {
    return (mq_operand){matrix->values, matrix->rounded};
}

static product linear(const mq_generator *g, size_t layer, mq_linear which, float *y) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &g->model->config, which);
    return (product){y, operand_of(&g->linears[layer][which]), g->params[layer].bias[which], out};
}

/* The norm's scratch for one sequence, for as many rows as it has heads. */
static float *inv_rms_of(const mq_generator *g, size_t b) {
    return g->inv_rms + b * g->model->config.num_attention_heads;
}

/* weight NULL: there is no such norm, and y is x. */
static void norm_row(const mq_generator *g, float *y, const float *x, const float *weight,
                     size_t b) {
    const size_t width = g->model->config.hidden_size;
    if (weight != NULL) {
        g->kernels->rmsnorm(y + b * width, inv_rms_of(g, b), x + b * width, weight, 1, width,
                            (float)g->model->config.rms_norm_eps);
    } else if (y != x) {
        memcpy(y + b * width, x + b * width, width * sizeof *y);
    }
}

/* Norms one sequence's queries or keys, where the architecture does. */
static void norm_heads(const mq_generator *g, float *x, const float *weight, mq_norm norm,
                       size_t b) {
    const mq_config *config = &g->model->config;
    if (weight != NULL) {
        const size_t n = mq_config_norm_size(config, norm);
        const size_t rows = mq_config_norm_rows(config, norm);
        float *own = x + b * rows * n;
        g->kernels->rmsnorm(own, inv_rms_of(g, b), own, weight, rows, n,
                            (float)config->rms_norm_eps);
    }
}

/* normed = the norm of one sequence's x, for a product. */
static void norm_for_product(const mq_generator *g, const float *weight, size_t b) {
    const size_t at = b * g->model->config.hidden_size;
    norm_row(g, g->normed, g->x, weight, b);
    round_operand(g, g->normed + at, at, g->model->config.hidden_size);
}

/* Rotates heads of one sequence's query or key, x[heads, head_dim], at a position. */
static void turn_heads(const mq_generator *g, float *x, size_t heads, mq_rotation rotation,
                       size_t position) {
    const float *cos_table = g->rotations.cos_table[rotation];
    const float *sin_table = g->rotations.sin_table[rotation];
    const mq_config *config = &g->model->config;
    const size_t dim = config->head_dim, half = mq_config_rotary_dim(config) / 2;
    if (cos_table != NULL) {
        g->kernels->rope(x, cos_table + position * half, sin_table + position * half, heads, dim,
                         half, false);
    }
}

/* Where the cache has a sequence's keys or values for a key head, in floats. */
static size_t cache_at(const mq_generator *g, size_t layer, size_t b, size_t head) {
    const mq_config *config = &g->model->config;
    return ((layer * g->batch + b) * config->num_key_value_heads + head) * g->length *
           config->head_dim;
}

/* One key head's key and value of a position, key[head_dim] and value[head_dim], into its cache. */
static void remember(const mq_generator *g, size_t cache, const float *key, const float *value,
                     size_t position) {
    const size_t dim = g->model->config.head_dim;
    for (size_t i = 0; i < dim; i++) {
        g->keys[cache + i * g->length + position] = key[i];
    }
    memcpy(g->values + cache + position * dim, value, dim * sizeof *value);
}

/* The queries q[shared, head_dim] of one sequence that share a key head, over cached tokens
 * [first, position]: into y, alike. */
static void look_back(const mq_generator *g, float *y, const float *q, size_t cache, size_t shared,
                      size_t first, size_t position) {
    const mq_config *config = &g->model->config;
    const size_t dim = config->head_dim, count = position + 1 - first;
    float *scores = g->scores + (size_t)omp_get_thread_num() * shared * g->length;
    const mq_gemm_shape over_dim = {
        .m = shared, .n = count, .k = dim, .lda = dim, .ldb = g->length, .ldc = count};
    const mq_gemm_shape over_tokens = {
        .m = shared, .n = dim, .k = count, .lda = count, .ldb = dim, .ldc = dim};
    mq_gemm(scores, q, g->keys + cache + first, &over_dim, (float)config->attention_scale);
    for (size_t i = 0; i < shared; i++) {
        float max, sum, *row = scores + i * count;
        g->kernels->softmax(row, &max, &sum, count, (float)config->attn_logit_softcapping);
        g->kernels->scale(row, 1.0F / sum, count);
    }
    mq_gemm(y, scores, g->values + cache + first * dim, &over_tokens, 1.0F);
}

/* One sequence's attention by a key head and the queries that share it, which nobody else touches.
 */
static void attend(const mq_generator *g, size_t layer, size_t b, size_t head, size_t position) {
    const mq_config *config = &g->model->config;
    const mq_rotation rotation = config->layer_rotation[layer];
    const size_t first = mq_first_visible(position, mq_config_window(config, layer));
    const size_t dim = config->head_dim;
    const size_t shared = config->num_attention_heads / config->num_key_value_heads;
    const size_t key = (b * config->num_key_value_heads + head) * dim;
    const size_t query = b * config->num_attention_heads + head * shared; /* of all heads */
    const size_t cache = cache_at(g, layer, b, head);
    turn_heads(g, g->q + query * dim, shared, rotation, position);
    turn_heads(g, g->k + key, 1, rotation, position);
    remember(g, cache, g->k + key, g->v + key, position);
    look_back(g, g->attended + query * dim, g->q + query * dim, cache, shared, first, position);
    round_operand(g, g->attended + query * dim, query * dim, shared * dim);
}

/* x += r·projected, through its norm where the architecture has one; then normed = next's norm of
 * x, for a product. */
static void add_projected(const mq_generator *g, const float *norm, const float *next,
                          size_t rows) {
    const size_t width = g->model->config.hidden_size;
    const float multiplier = (float)g->model->config.residual_multiplier;
#pragma omp for schedule(static)
    for (size_t b = 0; b < rows; b++) {
        if (multiplier != 1.0F) {
            g->kernels->scale(g->projected + b * width, multiplier, width);
        }
        if (norm != NULL) {
            norm_row(g, g->projected, g->projected, norm, b);
        }
        g->kernels->add(g->x + b * width, g->x + b * width, g->projected + b * width, width);
        norm_for_product(g, next, b);
    }
}

static void norm_queries_and_keys(const mq_generator *g, const mq_block_params *params,
                                  size_t rows) {
    const float *of_queries = params->norm[MQ_NORM_Q], *of_keys = params->norm[MQ_NORM_K];
    if (of_queries == NULL && of_keys == NULL) {
        return;
    }
#pragma omp for schedule(static)
    for (size_t b = 0; b < rows; b++) {
        norm_heads(g, g->q, of_queries, MQ_NORM_Q, b);
        norm_heads(g, g->k, of_keys, MQ_NORM_K, b);
    }
}

/* From normed, the input's norm of x, to that before the feed-forward network. */
static void attention_step(const mq_generator *g, size_t layer, size_t position, size_t rows) {
    const mq_config *config = &g->model->config;
    const mq_block_params *params = &g->params[layer];
    const size_t heads = config->num_key_value_heads;
    const product qkv[] = {linear(g, layer, MQ_Q, g->q), linear(g, layer, MQ_K, g->k),
                           linear(g, layer, MQ_V, g->v)};
    const product o = linear(g, layer, MQ_O, g->projected);
    products(g, qkv, 3, g->normed, config->hidden_size, rows);
    norm_queries_and_keys(g, params, rows);
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < rows * heads; i++) {
        attend(g, layer, i / heads, i % heads, position);
    }
    products(g, &o, 1, g->attended, config->num_attention_heads * config->head_dim, rows);
    add_projected(g, params->norm[MQ_NORM_POST_ATTN], params->norm[MQ_NORM_PRE_FFN], rows);
}

/* From there to the norm of the next layer's input, or the last. */
static void ffn_step(const mq_generator *g, size_t layer, size_t rows) {
    const mq_config *config = &g->model->config;
    const bool last = layer + 1 == config->num_hidden_layers;
    const float *next = last ? g->final_norm : g->params[layer + 1].norm[MQ_NORM_INPUT];
    const product gate_up[] = {linear(g, layer, MQ_GATE, g->gate), linear(g, layer, MQ_UP, g->up)};
    const product down = linear(g, layer, MQ_DOWN, g->projected);
    products(g, gate_up, 2, g->normed, config->hidden_size, rows);
#pragma omp for schedule(static)
    for (size_t b = 0; b < rows; b++) {
        const size_t width = config->intermediate_size;
        float *gate = g->gate + b * width;
        g->kernels->glu[config->activation](gate, gate, g->up + b * width, width);
        round_operand(g, gate, b * width, width);
    }
    products(g, &down, 1, g->gate, config->intermediate_size, rows);
    add_projected(g, g->params[layer].norm[MQ_NORM_POST_FFN], next, rows);
}

mq_status mq_generator_step(mq_generator *g, size_t position, size_t rows, bool want_logits,
                            mq_error *err) {
    const mq_config *config = &g->model->config;
    mq_status status = mq_model_embed(g->x, g->model, g->tokens, rows, err);
    if (status != MQ_OK) {
        return status;
    }
#pragma omp parallel num_threads((int)g->threads)
    {
#pragma omp for schedule(static)
        for (size_t b = 0; b < rows; b++) {
            norm_for_product(g, g->params[0].norm[MQ_NORM_INPUT], b);
        }
        for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
            attention_step(g, layer, position, rows);
            ffn_step(g, layer, rows);
        }
        if (want_logits) {
            const product logits = {g->logits, operand_of(&g->head), NULL, config->vocab_size};
            products(g, &logits, 1, g->normed, config->hidden_size, rows);
        }
    }
    return MQ_OK;
}
