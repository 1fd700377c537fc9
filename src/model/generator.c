/* What sampling holds: the whole model, since a token a step would otherwise read the checkpoint
 * once a step, and the arrays and the cache of one batch. */
#include "model/generator.h"

#include <assert.h>
#include <omp.h>

#include "base/error.h"

enum {
    LEAST_SEQUENCES = 8,            /* fewer make slow products, whatever their cache takes */
    CACHE_FLOATS = (768 << 20) / 4, /* that a batch's cache takes at most, else */
};

/* Sequences of a batch: what the cache has room for, and of several batches all alike. */
static size_t batch_of(const mq_generate_setup *setup) {
    const mq_config *config = &setup->model->config;
    size_t row = 0, cache = 0;
    const bool known = mq_mul3_size(&row, config->num_hidden_layers, config->num_key_value_heads,
                                    config->head_dim) &&
                       mq_mul3_size(&cache, row, setup->length, 2) && cache > 0;
    const size_t room = known ? CACHE_FLOATS / cache : 0;
    const size_t most = mq_larger(mq_smaller(room, MQ_GENERATOR_SEQUENCES), LEAST_SEQUENCES);
    const size_t batches = (setup->sequences + most - 1) / most;
    return batches > 0 ? (setup->sequences + batches - 1) / batches : 0;
}

mq_status mq_generate_prepare(const mq_generate_setup *setup, mq_error *err) {
    const size_t batch = batch_of(setup);
    if (setup->gemm == NULL || batch == 0) {
        return MQ_OK;
    }
    const mq_config *config = &setup->model->config;
    const size_t last = setup->sequences % batch;
    mq_status status = mq_generator_prepare_step(setup->gemm, config, batch, err);
    if (status == MQ_OK && last != 0) {
        status = mq_generator_prepare_step(setup->gemm, config, last, err);
    }
    return status;
}

/* --- memory ---------------------------------------------------------------------------------- */

/* Carves a·b elements. */
static void *carve(mq_slab *slab, size_t a, size_t b, size_t size) {
    size_t count = 0;
    if (!mq_mul_size(&count, a, b)) {
        slab->overflow = true;
    }
    return mq_carve(slab, count, size);
}

static float *carve_floats(mq_slab *slab, size_t a, size_t b) {
    return carve(slab, a, b, sizeof(float));
}

static mq_generator_matrix carve_matrix(const mq_generator *g, mq_slab *slab, size_t rows,
                                        size_t columns) {
    return g->products.gemm != NULL
               ? (mq_generator_matrix){.rounded = carve(slab, rows, columns, sizeof(mq_bf16))}
               : (mq_generator_matrix){.values = carve_floats(slab, rows, columns)};
}

static void carve_layer(mq_generator *g, mq_slab *slab, const mq_config *config, size_t layer) {
    mq_block_params measured;
    mq_block_params_carve_rest(g->params != NULL ? &g->params[layer] : &measured, slab, config);
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        const mq_generator_matrix matrix = carve_matrix(g, slab, out, in);
        if (g->linears != NULL) {
            g->linears[layer][i] = matrix;
        }
    }
}

/* The longest row that a product reads. */
static size_t longest_row(const mq_config *config) {
    return mq_larger(mq_larger(config->hidden_size, config->intermediate_size),
                     config->num_attention_heads * config->head_dim);
}

static void carve_model(mq_generator *g, mq_slab *slab, const mq_config *config) {
    g->params = mq_carve(slab, config->num_hidden_layers, sizeof *g->params);
    g->linears = mq_carve(slab, config->num_hidden_layers, sizeof *g->linears);
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        carve_layer(g, slab, config, layer);
    }
    g->head = carve_matrix(g, slab, config->vocab_size, config->hidden_size);
    g->final_norm = carve_floats(slab, config->hidden_size, 1);
    mq_rotations_carve(&g->rotations, slab, config, g->length);
}

static void carve_batch(mq_generator *g, mq_slab *slab, const mq_config *config) {
    const size_t queries = config->num_attention_heads * config->head_dim;
    const size_t keys = config->num_key_value_heads * config->head_dim;
    const size_t shared = config->num_attention_heads / config->num_key_value_heads;
    size_t rows = 0;
    if (!mq_mul3_size(&rows, config->num_hidden_layers, g->batch, g->length)) {
        slab->overflow = true;
    }
    g->keys = carve_floats(slab, rows, keys);
    g->values = carve_floats(slab, rows, keys);
    g->x = carve_floats(slab, g->batch, config->hidden_size);
    g->normed = carve_floats(slab, g->batch, config->hidden_size);
    g->projected = carve_floats(slab, g->batch, config->hidden_size);
    g->inv_rms = carve_floats(slab, g->batch, config->num_attention_heads);
    g->q = carve_floats(slab, g->batch, queries);
    g->k = carve_floats(slab, g->batch, keys);
    g->v = carve_floats(slab, g->batch, keys);
    g->attended = carve_floats(slab, g->batch, queries);
    g->gate = carve_floats(slab, g->batch, config->intermediate_size);
    g->up = carve_floats(slab, g->batch, config->intermediate_size);
    g->scores = carve_floats(slab, g->threads * shared, g->length);
    g->logits = carve_floats(slab, g->batch, config->vocab_size);
    g->chunk_sums = carve_floats(slab, g->batch, mq_generator_chunks(config));
    if (g->products.gemm != NULL) {
        g->operand = carve(slab, g->batch, longest_row(config), sizeof(mq_bf16));
        g->products = mq_products_carve(slab, g->products.gemm, g->threads);
        g->reading = carve_floats(slab, MQ_GENERATOR_ROWS, longest_row(config));
    }
}

static void generator_carve(mq_generator *g) {
    carve_model(g, &g->memory, &g->model->config);
    carve_batch(g, &g->memory, &g->model->config);
}

static mq_generator generator_of(const mq_generate_setup *setup) {
    return (mq_generator){
        .model = setup->model,
        .products = {.gemm = setup->gemm},
        .length = setup->length,
        .batch = batch_of(setup),
        .threads = (size_t)omp_get_max_threads(),
    };
}

size_t mq_generate_memory(const mq_generate_setup *setup) {
    mq_generator measuring = generator_of(setup);
    generator_carve(&measuring);
    return measuring.memory.overflow ? SIZE_MAX : measuring.memory.used;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Rows [first, first + rows) of a tensor. */
static mq_status read_matrix(const mq_generator *g, const mq_generator_matrix *to, const char *name,
                             size_t first, size_t rows, size_t columns, mq_error *err) {
    const mq_weights *weights = g->model->weights;
    if (g->products.gemm == NULL) {
        return weights->class_->read(to->values, weights, name, first, rows, err);
    }
    mq_status status = MQ_OK;
    for (size_t done = 0; status == MQ_OK && done < rows; done += MQ_GENERATOR_ROWS) {
        const size_t count = mq_smaller(MQ_GENERATOR_ROWS, rows - done);
        status = weights->class_->read(g->reading, weights, name, first + done, count, err);
        if (status == MQ_OK) {
            g->kernels->to_bf16(to->rounded + done * columns, g->reading, count * columns);
        }
    }
    return status;
}

static mq_status read_layer(mq_generator *g, size_t layer, mq_error *err) {
    const mq_config *config = &g->model->config;
    static const bool all[MQ_LINEAR_COUNT] = {true, true, true, true, true, true, true};
    static_assert(MQ_LINEAR_COUNT == 7, "one for each linear");
    mq_status status = mq_block_params_load_rest(&g->params[layer], g->model, layer, all, err);
    for (size_t i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        char name[MQ_NAME_SIZE];
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        mq_config_linear_name(name, config, layer, (mq_linear)i, "weight");
        const size_t first = mq_config_linear_place(config, (mq_linear)i).first;
        status = read_matrix(g, &g->linears[layer][i], name, first, out, in, err);
    }
    return status;
}

static mq_status read_model(mq_generator *g, mq_error *err) {
    const mq_config *config = &g->model->config;
    mq_status status = MQ_OK;
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        status = read_layer(g, layer, err);
    }
    if (status == MQ_OK) {
        status = read_matrix(g, &g->head, mq_config_head(config), 0, config->vocab_size,
                             config->hidden_size, err);
    }
    if (status == MQ_OK) {
        status = mq_model_norm(g->final_norm, g->model, mq_config_layout(config)->final_norm,
                               config->hidden_size, err);
    }
    return status == MQ_OK ? MQ_OK : mq_error_in_file(err, status, g->model->folder);
}

mq_status mq_generator_open(mq_generator *g, const mq_generate_setup *setup, mq_error *err) {
    const mq_config *config = &setup->model->config;
    *g = generator_of(setup);
    g->kernels = mq_kernels_best();
    g->head_kernels = mq_head_kernels_best();
    generator_carve(g);
    mq_status status = mq_slab_allocate(&g->memory, "a whole model and its cache", err);
    if (status != MQ_OK) {
        return status;
    }
    generator_carve(g);
    mq_rotations_fill(&g->rotations, config, g->length);
    status = read_model(g, err);
    if (status != MQ_OK) {
        mq_generator_close(g);
    }
    return status;
}

void mq_generator_close(mq_generator *g) { mq_slab_free(&g->memory); }
