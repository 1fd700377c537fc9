/* A whole model, block by block: one block's weights in memory, all sequences pass through it. */
#include "base/error.h"
#include "model/block.h"

typedef struct forward {
    mq_block_params params;
    mq_activations *activations;
    float *cos_table[2], *sin_table[2]; /* of global and of local layers */
    mq_slab memory;
} forward;

static void forward_carve(forward *f, mq_slab *slab, const mq_config *config, size_t sequences,
                          size_t length, size_t batch, const mq_context *context) {
    size_t angles = 0;
    if (!mq_mul_size(&angles, length, config->head_dim / 2)) {
        slab->overflow = true;
    }
    mq_block_params_carve(&f->params, slab, config);
    for (size_t i = 0; i < 2; i++) {
        const bool shared = i == 1 && !config->arch->sliding_window;
        f->cos_table[i] = shared ? f->cos_table[0] : mq_carve(slab, angles, sizeof(float));
        f->sin_table[i] = shared ? f->sin_table[0] : mq_carve(slab, angles, sizeof(float));
    }
    f->activations = mq_activations_carve(slab, config, batch < sequences ? batch : sequences,
                                          length, false, context);
}

size_t mq_model_forward_memory(const mq_config *config, size_t sequences, size_t length,
                               size_t batch, const mq_context *context) {
    forward f = {0};
    mq_slab slab = {0};
    forward_carve(&f, &slab, config, sequences, length, batch, context);
    return slab.overflow ? SIZE_MAX : slab.used;
}

static mq_status forward_open(forward *f, const mq_config *config, size_t sequences, size_t length,
                              size_t batch, const mq_context *context, mq_error *err) {
    forward_carve(f, &f->memory, config, sequences, length, batch, context);
    mq_status status = mq_slab_allocate(&f->memory, "a block and its activations", err);
    if (status != MQ_OK) {
        return status;
    }
    forward_carve(f, &f->memory, config, sequences, length, batch, context);
    for (size_t i = 0; i < (config->arch->sliding_window ? 2u : 1u); i++) {
        mq_rope_tables(f->cos_table[i], f->sin_table[i], &config->rope[i], config, length);
    }
    return MQ_OK;
}

static mq_status forward_block(float *hidden, forward *f, const mq_model *model, size_t layer,
                               size_t sequences, size_t length, size_t batch,
                               const mq_context *context, mq_error *err) {
    const size_t stride = length * model->config.hidden_size;
    mq_status status = mq_block_params_load(&f->params, model, layer, err);
    const mq_block_weights weights = mq_block_params_view(&f->params);
    for (size_t first = 0; status == MQ_OK && first < sequences; first += batch) {
        status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            const size_t local = model->config.layer_is_local[layer] ? 1 : 0;
            const mq_block_shape shape = {
                .config = &model->config,
                .layer = layer,
                .sequences = sequences - first < batch ? sequences - first : batch,
                .length = length,
                .cos_table = f->cos_table[local],
                .sin_table = f->sin_table[local],
            };
            float *rows = hidden + first * stride;
            mq_block_forward(rows, rows, &weights, &shape, f->activations, context);
        }
    }
    return status;
}

mq_status mq_model_forward(float *hidden, const mq_model *model, const int32_t *ids,
                           size_t sequences, size_t length, size_t batch, const char *phase,
                           const mq_context *context, mq_error *err) {
    const size_t layers = model->config.num_hidden_layers;
    const double begin = mq_seconds();
    if (sequences == 0 || length == 0) {
        return MQ_OK;
    }
    batch = batch == 0 ? 1 : batch;
    mq_status status = mq_model_embed(hidden, model, ids, sequences * length, err);
    forward f = {0};
    if (status == MQ_OK) {
        status = forward_open(&f, &model->config, sequences, length, batch, context, err);
    }
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = forward_block(hidden, &f, model, layer, sequences, length, batch, context, err);
        if (status == MQ_OK) {
            const mq_progress progress = {
                .phase = phase,
                .unit = "block",
                .done = (double)(layer + 1),
                .total = (double)layers,
                .elapsed_seconds = mq_seconds() - begin,
            };
            mq_report(context, &progress);
        }
    }
    mq_slab_free(&f.memory);
    return status;
}
