/* Sampling with a cache of keys and values. All weights are in memory for this one job, since a
 * token a step would otherwise read the checkpoint once a step.
 *
 * Sequences are taken in groups of fixed size. A group is one thread's from its first token to its
 * last, with its own cache and each sequence with its own random numbers: threads never wait for
 * each other, and what is sampled does not depend on how many there are. */
#include "model/generate.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "model/head_kernels.h"
#include "model/kernels.h"
#include "tensor/gemm.h"

enum {
    GROUP = 16,          /* sequences */
    SAMPLE_CHUNK = 4096, /* logits whose exponentials are summed in one go */
};

/* One thread's group of `batch` sequences. */
typedef struct group {
    size_t first, batch;
    float *keys, *values; /* [num_hidden_layers, GROUP, num_key_value_heads, length, head_dim] */
    float *x, *normed, *projected, *inv_rms; /* [batch, hidden_size]; [batch·num_attention_heads] */
    float *q, *k, *v, *attended;             /* [batch, heads·head_dim] */
    float *gate, *up;                        /* [batch, intermediate_size] */
    float *scores;                           /* [heads a key head, length] */
    float *logits;                           /* [batch, vocab_size] */
    float *chunk_sums;                       /* [chunks of the vocabulary] */
    mq_random random[GROUP];
    int32_t tokens[GROUP];
} group;

/* What all groups share. */
typedef struct generator {
    const mq_model *model;
    size_t length, workers;
    mq_block_params *params; /* [num_hidden_layers] */
    float *head, *final_norm;
    float *cos_table[2], *sin_table[2];
    group *groups; /* [workers] */
    const mq_kernels *kernels;
    const mq_head_kernels *head_kernels;
    mq_slab memory;
} generator;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t vocab_chunks(const mq_config *config) {
    return (config->vocab_size + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
}

/* --- memory ---------------------------------------------------------------------------------- */

/* Carves a·b floats. */
static float *carve_floats(mq_slab *slab, size_t a, size_t b) {
    size_t count = 0;
    if (!mq_mul_size(&count, a, b)) {
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
    g->head = carve_floats(slab, config->vocab_size, config->hidden_size);
    g->final_norm = carve_floats(slab, config->hidden_size, 1);
    for (size_t i = 0; i < 2; i++) {
        g->cos_table[i] = carve_floats(slab, g->length, config->head_dim / 2);
        g->sin_table[i] = carve_floats(slab, g->length, config->head_dim / 2);
    }
}

static void carve_group(group *out, mq_slab *slab, const mq_config *config, size_t length) {
    const size_t queries = config->num_attention_heads * config->head_dim;
    const size_t keys = config->num_key_value_heads * config->head_dim;
    const size_t shared = config->num_attention_heads / config->num_key_value_heads;
    size_t rows = 0;
    if (!mq_mul3_size(&rows, config->num_hidden_layers, GROUP, length)) {
        slab->overflow = true;
    }
    out->keys = carve_floats(slab, rows, keys);
    out->values = carve_floats(slab, rows, keys);
    out->x = carve_floats(slab, GROUP, config->hidden_size);
    out->normed = carve_floats(slab, GROUP, config->hidden_size);
    out->projected = carve_floats(slab, GROUP, config->hidden_size);
    out->inv_rms = carve_floats(slab, GROUP, config->num_attention_heads);
    out->q = carve_floats(slab, GROUP, queries);
    out->k = carve_floats(slab, GROUP, keys);
    out->v = carve_floats(slab, GROUP, keys);
    out->attended = carve_floats(slab, GROUP, queries);
    out->gate = carve_floats(slab, GROUP, config->intermediate_size);
    out->up = carve_floats(slab, GROUP, config->intermediate_size);
    out->scores = carve_floats(slab, shared, length);
    out->logits = carve_floats(slab, GROUP, config->vocab_size);
    out->chunk_sums = carve_floats(slab, vocab_chunks(config), 1);
}

static void generator_carve(generator *g) {
    const mq_config *config = &g->model->config;
    carve_weights(g, &g->memory, config);
    g->groups = mq_carve(&g->memory, g->workers, sizeof *g->groups);
    for (size_t i = 0; i < g->workers; i++) {
        group measured;
        carve_group(g->groups != NULL ? &g->groups[i] : &measured, &g->memory, config, g->length);
    }
}

static size_t group_count(size_t sequences) { return (sequences + GROUP - 1) / GROUP; }

static size_t worker_count(size_t sequences) {
    return smaller((size_t)omp_get_max_threads(), group_count(sequences));
}

size_t mq_generate_memory(const mq_model *model, size_t sequences, size_t length) {
    generator measuring = {.model = model, .length = length, .workers = worker_count(sequences)};
    generator_carve(&measuring);
    return measuring.memory.overflow ? SIZE_MAX : measuring.memory.used;
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

/* --- one step -------------------------------------------------------------------------------- */

/* y[batch, out] = x[batch, in]·w[out, in]ᵀ + bias[out]. */
static void linear(float *y, const generator *g, const group *s, const mq_block_params *params,
                   mq_linear which, const float *x) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &g->model->config, which);
    mq_gemm_forward(y, x, params->linear[which], s->batch, out, in, 0.0F);
    if (params->bias[which] != NULL) {
        g->kernels->add_bias(y, params->bias[which], s->batch, out);
    }
}

static void norm_rows(const generator *g, group *s, float *y, const float *x, const float *weight,
                      size_t rows, size_t n) {
    g->kernels->rmsnorm(y, s->inv_rms, x, weight, rows, n, (float)g->model->config.rms_norm_eps);
}

/* Norms and rotates the heads of queries or keys, x[batch, heads, head_dim], at one position. */
static void turn_heads(const generator *g, group *s, float *x, size_t heads, const float *norm,
                       size_t table, size_t position) {
    const size_t dim = g->model->config.head_dim, half = dim / 2;
    if (norm != NULL) {
        norm_rows(g, s, x, x, norm, s->batch * heads, dim);
    }
    for (size_t b = 0; b < s->batch; b++) {
        g->kernels->rope(x + b * heads * dim, g->cos_table[table] + position * half,
                         g->sin_table[table] + position * half, heads, half, false);
    }
}

/* Where the cache has a sequence's token for a key head, in floats. */
static size_t cache_at(const generator *g, size_t layer, size_t b, size_t head, size_t position) {
    const mq_config *config = &g->model->config;
    return (((layer * GROUP + b) * config->num_key_value_heads + head) * g->length + position) *
           config->head_dim;
}

/* Keys and values of this position into the cache. */
static void remember(const generator *g, group *s, size_t layer, size_t position) {
    const size_t dim = g->model->config.head_dim, heads = g->model->config.num_key_value_heads;
    for (size_t i = 0; i < s->batch * heads; i++) {
        const size_t to = cache_at(g, layer, i / heads, i % heads, position);
        memcpy(s->keys + to, s->k + i * dim, dim * sizeof(float));
        memcpy(s->values + to, s->v + i * dim, dim * sizeof(float));
    }
}

/* The queries of one sequence that share a key head, over cached tokens [first, position]. */
static void attend(const generator *g, group *s, size_t layer, size_t b, size_t head, size_t first,
                   size_t position) {
    const mq_config *config = &g->model->config;
    const size_t dim = config->head_dim, count = position + 1 - first;
    const size_t shared = config->num_attention_heads / config->num_key_value_heads;
    const size_t cache = cache_at(g, layer, b, head, first);
    const size_t query = (b * config->num_attention_heads + head * shared) * dim;
    mq_gemm(s->scores, count, s->q + query, dim, false, s->keys + cache, dim, true, shared, count,
            dim, (float)config->attention_scale, 0.0F);
    for (size_t i = 0; i < shared; i++) {
        float max, sum, *row = s->scores + i * count;
        g->kernels->softmax(row, &max, &sum, count, (float)config->attn_logit_softcapping);
        g->kernels->scale(row, 1.0F / sum, count);
    }
    mq_gemm(s->attended + query, dim, s->scores, count, false, s->values + cache, dim, false,
            shared, dim, count, 1.0F, 0.0F);
}

/* x += projected, through its norm where the architecture has one. */
static void add_projected(const generator *g, group *s, const float *norm) {
    const size_t width = g->model->config.hidden_size;
    if (norm != NULL) {
        norm_rows(g, s, s->projected, s->projected, norm, s->batch, width);
    }
    g->kernels->add(s->x, s->x, s->projected, s->batch * width);
}

static void attention_step(const generator *g, group *s, size_t layer, size_t position) {
    const mq_config *config = &g->model->config;
    const mq_block_params *params = &g->params[layer];
    const size_t local = config->layer_is_local[layer] ? 1 : 0;
    const size_t window = local ? config->sliding_window : 0;
    const size_t first = window != 0 && position + 1 > window ? position + 1 - window : 0;
    norm_rows(g, s, s->normed, s->x, params->norm[MQ_NORM_INPUT], s->batch, config->hidden_size);
    linear(s->q, g, s, params, MQ_Q, s->normed);
    linear(s->k, g, s, params, MQ_K, s->normed);
    linear(s->v, g, s, params, MQ_V, s->normed);
    turn_heads(g, s, s->q, config->num_attention_heads, params->norm[MQ_NORM_Q], local, position);
    turn_heads(g, s, s->k, config->num_key_value_heads, params->norm[MQ_NORM_K], local, position);
    remember(g, s, layer, position);
    for (size_t b = 0; b < s->batch; b++) {
        for (size_t head = 0; head < config->num_key_value_heads; head++) {
            attend(g, s, layer, b, head, first, position);
        }
    }
    linear(s->projected, g, s, params, MQ_O, s->attended);
    add_projected(g, s, params->norm[MQ_NORM_POST_ATTN]);
}

static void ffn_step(const generator *g, group *s, size_t layer) {
    const mq_config *config = &g->model->config;
    const mq_block_params *params = &g->params[layer];
    norm_rows(g, s, s->normed, s->x, params->norm[MQ_NORM_PRE_FFN], s->batch, config->hidden_size);
    linear(s->gate, g, s, params, MQ_GATE, s->normed);
    linear(s->up, g, s, params, MQ_UP, s->normed);
    g->kernels->glu[config->activation](s->gate, s->gate, s->up,
                                        s->batch * config->intermediate_size);
    linear(s->projected, g, s, params, MQ_DOWN, s->gate);
    add_projected(g, s, params->norm[MQ_NORM_POST_FFN]);
}

/* logits[batch, vocab_size] after tokens[batch] at position. */
static mq_status step(const generator *g, group *s, size_t position, mq_error *err) {
    const mq_config *config = &g->model->config;
    mq_status status = mq_model_embed(s->x, g->model, s->tokens, s->batch, err);
    if (status != MQ_OK) {
        return status;
    }
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        attention_step(g, s, layer, position);
        ffn_step(g, s, layer);
    }
    norm_rows(g, s, s->normed, s->x, g->final_norm, s->batch, config->hidden_size);
    mq_gemm_forward(s->logits, s->normed, g->head, s->batch, config->vocab_size,
                    config->hidden_size, 0.0F);
    return MQ_OK;
}

/* --- sampling -------------------------------------------------------------------------------- */

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

/* Draws the next token of the group's sequence b; false when the logits are no numbers. */
static bool sample(const generator *g, group *s, size_t b, float inverse_temperature) {
    const mq_config *config = &g->model->config;
    const size_t vocab = config->vocab_size;
    float *logits = s->logits + b * vocab;
    if (config->final_logit_softcapping > 0.0) {
        g->head_kernels->softcap(logits, vocab, (float)config->final_logit_softcapping);
    }
    const float max = g->head_kernels->largest(logits, vocab);
    double total = 0.0;
    for (size_t first = 0; first < vocab; first += SAMPLE_CHUNK) {
        float *p = logits + first;
        const float sum = g->head_kernels->exponentials(p, p, smaller(SAMPLE_CHUNK, vocab - first),
                                                        max, inverse_temperature);
        s->chunk_sums[first / SAMPLE_CHUNK] = sum;
        total += (double)sum;
    }
    if (!isfinite(total)) {
        return false;
    }
    const double point = mq_random_unit(&s->random[b]) * total;
    s->tokens[b] = (int32_t)locate(logits, s->chunk_sums, vocab, point);
    return true;
}

/* --- all sequences --------------------------------------------------------------------------- */

typedef struct job {
    size_t sequences, length;
    int32_t first_id;
    double temperature, begin;
    uint64_t seed;
    const mq_context *context;
    size_t done; /* tokens, of all threads */
    bool failed; /* one of them: the others give up */
} job;

static void report(const job *j, size_t done) {
    const mq_progress progress = {
        .phase = "generate",
        .unit = "token",
        .done = (double)done,
        .total = (double)j->sequences * (double)j->length,
        .elapsed_seconds = mq_seconds() - j->begin,
    };
    mq_report(j->context, &progress);
}

/* Counts `tokens` more; the thread that called us says how far all are, if it is at work itself.
 * That all is done is said by mq_generate. */
static void advance(job *j, size_t tokens) {
    size_t done;
#pragma omp atomic capture
    done = j->done += tokens;
    if (omp_get_thread_num() == 0 && done < j->sequences * j->length) {
        report(j, done);
    }
}

static bool has_failed(const job *j) {
    bool failed;
#pragma omp atomic read
    failed = j->failed;
    return failed;
}

static void start_group(const generator *g, group *s, const job *j) {
    const size_t vocab = g->model->config.vocab_size;
    for (size_t b = 0; b < s->batch; b++) {
        mq_random_seed(&s->random[b], j->seed, s->first + b);
        s->tokens[b] =
            j->first_id >= 0 ? j->first_id : (int32_t)mq_random_below(&s->random[b], vocab);
    }
}

/* The next token of each sequence of a group. */
static mq_status next_tokens(const generator *g, group *s, const job *j, size_t position,
                             mq_error *err) {
    mq_status status = mq_check_interrupt(j->context, err);
    status = status == MQ_OK ? step(g, s, position, err) : status;
    for (size_t b = 0; status == MQ_OK && b < s->batch; b++) {
        if (!sample(g, s, b, (float)(1.0 / j->temperature))) {
            status = mq_fail_file(err, MQ_ERR_INPUT, g->model->folder,
                                  "the model's logits are not finite");
        }
    }
    return status;
}

/* ids[batch, length] of one group. */
static mq_status run_group(int32_t *ids, const generator *g, group *s, job *j, mq_error *err) {
    start_group(g, s, j);
    for (size_t position = 0; position < j->length && !has_failed(j); position++) {
        for (size_t b = 0; b < s->batch; b++) {
            ids[b * j->length + position] = s->tokens[b];
        }
        if (position + 1 < j->length) {
            mq_status status = next_tokens(g, s, j, position, err);
            if (status != MQ_OK) {
                return status;
            }
        }
        advance(j, s->batch);
    }
    return MQ_OK;
}

/* All groups; of several errors, any one. */
static mq_status run_groups(int32_t *ids, generator *g, job *j, size_t groups, mq_error *err) {
    const size_t batch = (j->sequences + groups - 1) / groups;
    mq_status result = MQ_OK;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)g->workers)
    for (size_t i = 0; i < groups; i++) {
        group *s = &g->groups[omp_get_thread_num()];
        mq_error error = {0};
        s->first = smaller(i * batch, j->sequences);
        s->batch = smaller(batch, j->sequences - s->first);
        mq_status status = run_group(ids + s->first * j->length, g, s, j, &error);
        if (status != MQ_OK) {
#pragma omp critical(mq_generate_error)
            {
                if (result == MQ_OK && err != NULL) {
                    *err = error;
                }
                result = result == MQ_OK ? status : result;
#pragma omp atomic write
                j->failed = true;
            }
        }
    }
    return result;
}

mq_status mq_generate(int32_t *ids, const mq_model *model, size_t sequences, size_t length,
                      int32_t first_id, double temperature, uint64_t seed,
                      const mq_context *context, mq_error *err) {
    const size_t vocab = model->config.vocab_size;
    if (!(temperature > 0.0) || !isfinite(temperature)) {
        return mq_fail(err, MQ_ERR_USAGE, "the temperature is %g, but must be positive",
                       temperature);
    }
    if (first_id >= 0 && (size_t)first_id >= vocab) {
        return mq_fail_file(err, MQ_ERR_INPUT, model->folder,
                            "token id %d is not below vocab_size %zu", (int)first_id, vocab);
    }
    if (sequences == 0 || length == 0) {
        return MQ_OK;
    }
    const size_t groups = group_count(sequences);
    generator g = {.model = model, .length = length, .workers = worker_count(sequences)};
    mq_status status = generator_open(&g, err);
    if (status != MQ_OK) {
        return status;
    }
    job j = {
        .sequences = sequences,
        .length = length,
        .first_id = first_id,
        .temperature = temperature,
        .begin = mq_seconds(),
        .seed = seed,
        .context = context,
    };
    mq_gemm_enter_single();
    status = run_groups(ids, &g, &j, groups, err);
    if (status == MQ_OK) {
        report(&j, j.done);
    }
    mq_gemm_set_threads((size_t)omp_get_max_threads());
    mq_slab_free(&g.memory);
    return status;
}
