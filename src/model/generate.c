/* Sampling with a cache of keys and values. All weights are in memory for this one job, since a
 * token a step would otherwise read the checkpoint once a step. Products are cut in pieces of fixed
 * size, one thread each, and each sequence has its own random numbers: what is sampled does not
 * depend on the number of threads. */
#include "model/generate.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "model/head_kernels.h"
#include "model/kernels.h"
#include "model/ops.h"
#include "tensor/gemm.h"

enum {
    PIECE_ROWS = 64,     /* rows of a weight that one product works on */
    SAMPLE_CHUNK = 4096, /* logits whose exponentials are summed in one go */
    MAX_BATCH = 64,      /* sequences */
    REPORT_EVERY = 16,   /* tokens of each sequence */
};
static const size_t max_cache_bytes = (size_t)768 << 20;

/* What is resident: weights for all batches, the rest for one batch of sequences. */
typedef struct generator {
    const mq_model *model;
    size_t batch, length;
    mq_block_params *params; /* [num_hidden_layers] */
    float *head, *final_norm;
    float *cos_table[2], *sin_table[2];
    float *keys, *values; /* [num_hidden_layers, batch, num_key_value_heads, length, head_dim] */
    float *x, *normed, *projected,
        *inv_rms;                /* [batch, hidden_size] each; [batch·num_attention_heads] */
    float *q, *k, *v, *attended; /* [batch, heads·head_dim] */
    float *gate, *up;            /* [batch, intermediate_size] */
    float *scores;               /* [threads, heads a key head, length] */
    float *logits;               /* [batch, vocab_size] */
    float *chunk_sums;           /* [batch, chunks of the vocabulary] */
    mq_random *random;           /* [batch] */
    int32_t *tokens;             /* [batch] */
    const mq_kernels *kernels;
    const mq_head_kernels *head_kernels;
    mq_slab memory;
} generator;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t vocab_chunks(const mq_config *config) {
    return (config->vocab_size + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
}

/* --- memory
 * --------------------------------------------------------------------------------------------------
 */

/* Carves a·b·c floats. */
static float *carve_floats(mq_slab *slab, size_t a, size_t b, size_t c) {
    size_t count = 0;
    if (!mq_mul3_size(&count, a, b, c)) {
        slab->overflow = true;
    }
    return mq_carve(slab, count, sizeof(float));
}

static void carve_weights(generator *g, mq_slab *slab, const mq_config *config) {
    g->params = mq_carve(slab, config->num_hidden_layers, sizeof *g->params);
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        mq_block_params measured;
        mq_block_params_carve(g->params != NULL ? &g->params[layer] : &measured, slab, config);
    }
    g->head = carve_floats(slab, config->vocab_size, config->hidden_size, 1);
    g->final_norm = carve_floats(slab, config->hidden_size, 1, 1);
    for (size_t i = 0; i < 2; i++) {
        g->cos_table[i] = carve_floats(slab, g->length, config->head_dim / 2, 1);
        g->sin_table[i] = carve_floats(slab, g->length, config->head_dim / 2, 1);
    }
}

static void carve_batch(generator *g, mq_slab *slab, const mq_config *config) {
    const size_t queries = config->num_attention_heads * config->head_dim;
    const size_t keys = config->num_key_value_heads * config->head_dim;
    const size_t group = config->num_attention_heads / config->num_key_value_heads;
    size_t layers = 0;
    if (!mq_mul3_size(&layers, config->num_hidden_layers, g->batch, keys)) {
        slab->overflow = true;
    }
    g->keys = carve_floats(slab, layers, g->length, 1);
    g->values = carve_floats(slab, layers, g->length, 1);
    g->x = carve_floats(slab, g->batch, config->hidden_size, 1);
    g->normed = carve_floats(slab, g->batch, config->hidden_size, 1);
    g->projected = carve_floats(slab, g->batch, config->hidden_size, 1);
    g->inv_rms = carve_floats(slab, g->batch, config->num_attention_heads, 1);
    g->q = carve_floats(slab, g->batch, queries, 1);
    g->k = carve_floats(slab, g->batch, keys, 1);
    g->v = carve_floats(slab, g->batch, keys, 1);
    g->attended = carve_floats(slab, g->batch, queries, 1);
    g->gate = carve_floats(slab, g->batch, config->intermediate_size, 1);
    g->up = carve_floats(slab, g->batch, config->intermediate_size, 1);
    g->scores = carve_floats(slab, (size_t)omp_get_max_threads(), group, g->length);
    g->logits = carve_floats(slab, g->batch, config->vocab_size, 1);
    g->chunk_sums = carve_floats(slab, g->batch, vocab_chunks(config), 1);
    g->random = mq_carve(slab, g->batch, sizeof *g->random);
    g->tokens = mq_carve(slab, g->batch, sizeof *g->tokens);
}

static void generator_carve(generator *g) {
    carve_weights(g, &g->memory, &g->model->config);
    carve_batch(g, &g->memory, &g->model->config);
}

/* As many sequences at once as the cache's bound allows, in batches of nearly the same size. */
static size_t choose_batch(const mq_config *config, size_t sequences, size_t length) {
    size_t bytes = 0, most = MAX_BATCH;
    if (!mq_mul3_size(&bytes, config->num_hidden_layers,
                      config->num_key_value_heads * config->head_dim, 2 * sizeof(float)) ||
        !mq_mul_size(&bytes, bytes, length)) {
        most = 1;
    } else {
        most = smaller(most, max_cache_bytes / bytes);
    }
    most = most == 0 ? 1 : most;
    const size_t batches = (sequences + most - 1) / most;
    return (sequences + batches - 1) / batches;
}

static mq_status load_weights(generator *g, mq_error *err) {
    const mq_model *model = g->model;
    const mq_config *config = &model->config;
    const mq_weights *weights = model->weights;
    mq_status status = MQ_OK;
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        status = mq_block_params_load(&g->params[layer], model, layer, err);
    }
    if (status == MQ_OK) {
        const char *name =
            config->tie_word_embeddings ? config->arch->embedding : config->arch->head;
        status = weights->class_->read(g->head, weights, name, 0, config->vocab_size, err);
    }
    if (status == MQ_OK) {
        status = weights->class_->read(g->final_norm, weights, config->arch->final_norm, 0, 1, err);
    }
    for (size_t i = 0; status == MQ_OK && config->arch->norm_plus_one && i < config->hidden_size;
         i++) {
        g->final_norm[i] += 1.0F;
    }
    return status == MQ_OK ? MQ_OK : mq_error_in_file(err, status, model->folder);
}

static mq_status generator_open(generator *g, mq_error *err) {
    const mq_config *config = &g->model->config;
    g->kernels = mq_kernels_get();
    g->head_kernels = mq_head_kernels_get();
    generator_carve(g);
    mq_status status = mq_slab_allocate(&g->memory, "a whole model and its cache", err);
    if (status != MQ_OK) {
        return status;
    }
    generator_carve(g);
    for (size_t i = 0; i < 2; i++) {
        mq_rope_tables(g->cos_table[i], g->sin_table[i], &config->rope[i], config, g->length);
    }
    status = load_weights(g, err);
    if (status != MQ_OK) {
        mq_slab_free(&g->memory);
    }
    return status;
}

/* --- one step
 * ------------------------------------------------------------------------------------------------
 */

/* y[batch, out] = x[batch, in]·w[out, in]ᵀ + bias[out]. */
typedef struct product {
    float *y;
    const float *w, *bias;
    size_t out;
} product;

static void run_piece(const product *p, size_t piece, const float *x, size_t in, size_t batch) {
    const size_t first = piece * PIECE_ROWS, rows = smaller(PIECE_ROWS, p->out - first);
    mq_gemm(p->y + first, p->out, x, in, false, p->w + first * in, in, true, batch, rows, in, 1.0F,
            0.0F);
    for (size_t b = 0; p->bias != NULL && b < batch; b++) {
        for (size_t i = first; i < first + rows; i++) {
            p->y[b * p->out + i] += p->bias[i];
        }
    }
}

/* Products with the same x[batch, in]. */
static void run_products(const product *products, size_t count, const float *x, size_t in,
                         size_t batch) {
    size_t pieces = 0;
    for (size_t i = 0; i < count; i++) {
        pieces += (products[i].out + PIECE_ROWS - 1) / PIECE_ROWS;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < pieces; i++) {
        const product *p = products;
        size_t piece = i;
        while (piece * PIECE_ROWS >= p->out) {
            piece -= (p->out + PIECE_ROWS - 1) / PIECE_ROWS;
            p++;
        }
        run_piece(p, piece, x, in, batch);
    }
}

/* attended[group, head_dim] of one sequence and key head over cached tokens [first, position]. */
static void attend(generator *g, size_t layer, size_t b, size_t head, size_t first,
                   size_t position) {
    const mq_config *config = &g->model->config;
    const size_t dim = config->head_dim, heads = config->num_key_value_heads;
    const size_t group = config->num_attention_heads / heads, count = position + 1 - first;
    const size_t cache = (((layer * g->batch + b) * heads + head) * g->length + first) * dim;
    const size_t query = (b * config->num_attention_heads + head * group) * dim;
    float *scores = g->scores + (size_t)omp_get_thread_num() * group * g->length;
    mq_gemm(scores, count, g->q + query, dim, false, g->keys + cache, dim, true, group, count, dim,
            (float)config->attention_scale, 0.0F);
    for (size_t i = 0; i < group; i++) {
        float max, sum;
        float *row = scores + i * count;
        g->kernels->softmax(row, &max, &sum, count, (float)config->attn_logit_softcapping);
        g->kernels->scale(row, 1.0F / sum, count);
    }
    mq_gemm(g->attended + query, dim, scores, count, false, g->values + cache, dim, false, group,
            dim, count, 1.0F, 0.0F);
}

/* Keys and values of this position into the cache. */
static void remember(generator *g, size_t layer, size_t batch, size_t position) {
    const size_t dim = g->model->config.head_dim, heads = g->model->config.num_key_value_heads;
    for (size_t b = 0; b < batch; b++) {
        for (size_t head = 0; head < heads; head++) {
            const size_t to =
                (((layer * g->batch + b) * heads + head) * g->length + position) * dim;
            const size_t from = (b * heads + head) * dim;
            memcpy(g->keys + to, g->k + from, dim * sizeof(float));
            memcpy(g->values + to, g->v + from, dim * sizeof(float));
        }
    }
}

static void norm_rows(generator *g, float *y, const float *x, const float *weight, size_t rows,
                      size_t n) {
    mq_rmsnorm_forward(y, g->inv_rms, x, weight, rows, n, (float)g->model->config.rms_norm_eps);
}

/* x += projected, through its norm where the architecture has one. */
static void add_projected(generator *g, const float *norm, size_t batch) {
    const size_t width = g->model->config.hidden_size;
    if (norm != NULL) {
        norm_rows(g, g->projected, g->projected, norm, batch, width);
    }
    g->kernels->add(g->x, g->x, g->projected, batch * width);
}

static void attention_step(generator *g, const mq_block_params *params, size_t layer, size_t batch,
                           size_t position) {
    const mq_config *config = &g->model->config;
    const size_t dim = config->head_dim, heads = config->num_attention_heads,
                 kv_heads = config->num_key_value_heads;
    const size_t local = config->layer_is_local[layer] ? 1 : 0, half = dim / 2;
    const float *cos_row = g->cos_table[local] + position * half,
                *sin_row = g->sin_table[local] + position * half;
    const product inputs[] = {
        {g->q, params->linear[MQ_Q], params->bias[MQ_Q], heads * dim},
        {g->k, params->linear[MQ_K], params->bias[MQ_K], kv_heads * dim},
        {g->v, params->linear[MQ_V], params->bias[MQ_V], kv_heads * dim},
    };
    norm_rows(g, g->normed, g->x, params->norm[MQ_NORM_INPUT], batch, config->hidden_size);
    run_products(inputs, 3, g->normed, config->hidden_size, batch);
    if (params->norm[MQ_NORM_Q] != NULL) {
        norm_rows(g, g->q, g->q, params->norm[MQ_NORM_Q], batch * heads, dim);
    }
    if (params->norm[MQ_NORM_K] != NULL) {
        norm_rows(g, g->k, g->k, params->norm[MQ_NORM_K], batch * kv_heads, dim);
    }
    mq_rope_forward(g->q, heads * dim, cos_row, sin_row, batch, 1, heads, dim);
    mq_rope_forward(g->k, kv_heads * dim, cos_row, sin_row, batch, 1, kv_heads, dim);
    remember(g, layer, batch, position);
    const size_t window = local ? config->sliding_window : 0;
    const size_t first = window != 0 && position + 1 > window ? position + 1 - window : 0;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < batch * kv_heads; i++) {
        attend(g, layer, i / kv_heads, i % kv_heads, first, position);
    }
    const product output = {g->projected, params->linear[MQ_O], params->bias[MQ_O],
                            config->hidden_size};
    run_products(&output, 1, g->attended, heads * dim, batch);
    add_projected(g, params->norm[MQ_NORM_POST_ATTN], batch);
}

static void ffn_step(generator *g, const mq_block_params *params, size_t batch) {
    const mq_config *config = &g->model->config;
    const product inputs[] = {
        {g->gate, params->linear[MQ_GATE], params->bias[MQ_GATE], config->intermediate_size},
        {g->up, params->linear[MQ_UP], params->bias[MQ_UP], config->intermediate_size},
    };
    const product output = {g->projected, params->linear[MQ_DOWN], params->bias[MQ_DOWN],
                            config->hidden_size};
    norm_rows(g, g->normed, g->x, params->norm[MQ_NORM_PRE_FFN], batch, config->hidden_size);
    run_products(inputs, 2, g->normed, config->hidden_size, batch);
    mq_glu_forward(g->gate, g->gate, g->up, batch * config->intermediate_size, config->activation);
    run_products(&output, 1, g->gate, config->intermediate_size, batch);
    add_projected(g, params->norm[MQ_NORM_POST_FFN], batch);
}

/* logits[batch, vocab_size] after tokens[batch] at position. */
static mq_status step(generator *g, size_t batch, size_t position, mq_error *err) {
    const mq_config *config = &g->model->config;
    mq_status status = mq_model_embed(g->x, g->model, g->tokens, batch, err);
    if (status != MQ_OK) {
        return status;
    }
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        attention_step(g, &g->params[layer], layer, batch, position);
        ffn_step(g, &g->params[layer], batch);
    }
    const product head = {g->logits, g->head, NULL, config->vocab_size};
    norm_rows(g, g->normed, g->x, g->final_norm, batch, config->hidden_size);
    run_products(&head, 1, g->normed, config->hidden_size, batch);
    return MQ_OK;
}

/* --- sampling
 * ------------------------------------------------------------------------------------------------
 */

static float largest(const float *values, size_t count) {
    float max = values[0];
#pragma omp simd reduction(max : max)
    for (size_t i = 0; i < count; i++) {
        max = values[i] > max ? values[i] : max;
    }
    return max;
}

/* The token whose interval of the cumulative distribution `point` (in 0 … Σ) falls in. p[vocab]. */
static size_t locate(const float *p, const float *chunk_sums, size_t vocab, double point) {
    size_t chunk = 0, chosen = 0;
    while ((chunk + 1) * SAMPLE_CHUNK < vocab && point >= (double)chunk_sums[chunk]) {
        point -= (double)chunk_sums[chunk++];
    }
    /* Where rounding leaves a rest beyond the chunk's end, its last token with any probability. */
    const size_t end = smaller(vocab, (chunk + 1) * SAMPLE_CHUNK);
    for (size_t i = chunk * SAMPLE_CHUNK; i < end; i++) {
        if (p[i] > 0.0F) {
            chosen = i;
            if (point < (double)p[i]) {
                break;
            }
            point -= (double)p[i];
        }
    }
    return chosen;
}

/* Draws sequence b's next token; false when the logits are no numbers. */
static bool sample(generator *g, size_t b, float inverse_temperature) {
    const mq_config *config = &g->model->config;
    const size_t vocab = config->vocab_size;
    float *logits = g->logits + b * vocab, *sums = g->chunk_sums + b * vocab_chunks(config);
    if (config->final_logit_softcapping > 0.0) {
        g->head_kernels->softcap(logits, vocab, (float)config->final_logit_softcapping);
    }
    const float max = largest(logits, vocab);
    double total = 0.0;
    for (size_t first = 0; first < vocab; first += SAMPLE_CHUNK) {
        float *p = logits + first;
        const float sum = g->head_kernels->exponentials(p, p, smaller(SAMPLE_CHUNK, vocab - first),
                                                        max, inverse_temperature);
        sums[first / SAMPLE_CHUNK] = sum;
        total += (double)sum;
    }
    if (!isfinite(total)) {
        return false;
    }
    g->tokens[b] = (int32_t)locate(logits, sums, vocab, mq_random_unit(&g->random[b]) * total);
    return true;
}

static mq_status sample_all(generator *g, size_t batch, double temperature, mq_error *err) {
    bool fine = true;
#pragma omp parallel for schedule(static) reduction(&& : fine)
    for (size_t b = 0; b < batch; b++) {
        fine = sample(g, b, (float)(1.0 / temperature)) && fine;
    }
    return fine ? MQ_OK
                : mq_fail_file(err, MQ_ERR_INPUT, g->model->folder,
                               "the model's logits are not finite");
}

/* --- all sequences
 * ------------------------------------------------------------------------------------------- */

typedef struct job {
    size_t sequences, length;
    int32_t first_id;
    double temperature, begin;
    uint64_t seed;
    const mq_context *context;
} job;

static void report(const job *j, double done) {
    const mq_progress progress = {
        .phase = "generate",
        .unit = "token",
        .done = done,
        .total = (double)j->sequences * (double)j->length,
        .elapsed_seconds = mq_seconds() - j->begin,
    };
    mq_report(j->context, &progress);
}

/* ids[batch, length] of sequences first, first + 1, ... */
static mq_status run_batch(int32_t *ids, generator *g, const job *j, size_t first, size_t batch,
                           mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t b = 0; b < batch; b++) {
        mq_random_seed(&g->random[b], j->seed, first + b);
        g->tokens[b] = j->first_id >= 0
                           ? j->first_id
                           : (int32_t)mq_random_below(&g->random[b], g->model->config.vocab_size);
    }
    for (size_t position = 0; position < j->length; position++) {
        for (size_t b = 0; b < batch; b++) {
            ids[b * j->length + position] = g->tokens[b];
        }
        if (position + 1 < j->length) {
            status = mq_check_interrupt(j->context, err);
            status = status == MQ_OK ? step(g, batch, position, err) : status;
            status = status == MQ_OK ? sample_all(g, batch, j->temperature, err) : status;
        }
        if (status != MQ_OK) {
            return status;
        }
        if ((position + 1) % REPORT_EVERY == 0 || position + 1 == j->length) {
            report(j, (double)(first * j->length + batch * (position + 1)));
        }
    }
    return MQ_OK;
}

mq_status mq_generate(int32_t *ids, const mq_model *model, size_t sequences, size_t length,
                      int32_t first_id, double temperature, uint64_t seed,
                      const mq_context *context, mq_error *err) {
    const job j = {sequences, length, first_id, temperature, mq_seconds(), seed, context};
    if (!(temperature > 0.0) || !isfinite(temperature)) {
        return mq_fail(err, MQ_ERR_USAGE, "the temperature is %g, but must be positive",
                       temperature);
    }
    if (first_id >= 0 && (size_t)first_id >= model->config.vocab_size) {
        return mq_fail_file(err, MQ_ERR_INPUT, model->folder,
                            "token id %d is not below vocab_size %zu", (int)first_id,
                            model->config.vocab_size);
    }
    if (sequences == 0 || length == 0) {
        return MQ_OK;
    }
    generator g = {
        .model = model, .batch = choose_batch(&model->config, sequences, length), .length = length};
    mq_status status = generator_open(&g, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_gemm_enter_single();
    for (size_t first = 0; status == MQ_OK && first < sequences; first += g.batch) {
        status = run_batch(ids + first * length, &g, &j, first, smaller(g.batch, sequences - first),
                           err);
    }
    mq_gemm_set_threads((size_t)omp_get_max_threads());
    mq_slab_free(&g.memory);
    return status;
}
