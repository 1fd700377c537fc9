/* A whole model, block by block: one block's weights in memory, all sequences pass through it. */
#include "base/error.h"
#include "model/block.h"

typedef struct forward {
    const mq_gemm_bf16 *gemm; /* NULL: float32 products */
    mq_block_params params;
    mq_activations *activations;
    mq_rotations rotations;
    mq_slab memory;
} forward;

/* What goes through a block at once, and the positions that it has. */
typedef struct forward_size {
    size_t sequences, length, positions;
} forward_size;

static void forward_carve(forward *f, mq_slab *slab, const mq_config *config,
                          const forward_size *size, const mq_context *context) {
    mq_block_params_carve(&f->params, slab, config);
    if (f->gemm != NULL) {
        mq_block_params_carve_rounded(&f->params, slab, config, NULL);
    }
    mq_rotations_carve(&f->rotations, slab, config, size->positions);
    const mq_activations_use use = {.config = config,
                                    .sequences = size->sequences,
                                    .length = size->length,
                                    .f32 = f->gemm ? MQ_PASS_NONE : MQ_PASS_FORWARD,
                                    .bf16 = f->gemm ? MQ_PASS_FORWARD : MQ_PASS_NONE,
                                    .gemm = f->gemm};
    f->activations = mq_activations_carve(slab, &use, context);
}

static mq_status forward_open(forward *f, const mq_config *config, const forward_size *size,
                              const mq_context *context, mq_error *err) {
    mq_status status = mq_config_check_length(config, size->positions, err);
    if (status != MQ_OK) {
        return status;
    }
    forward_carve(f, &f->memory, config, size, context);
    status = mq_slab_allocate(&f->memory, "a block and its activations", err);
    if (status != MQ_OK) {
        return status;
    }
    forward_carve(f, &f->memory, config, size, context);
    mq_rotations_fill(&f->rotations, config, size->positions);
    return MQ_OK;
}

static void report(const char *phase, double done, size_t layers, double begin,
                   const mq_context *context) {
    const mq_progress progress = {
        .phase = phase,
        .unit = "block",
        .done = done,
        .total = (double)layers,
        .elapsed_seconds = mq_seconds() - begin,
    };
    mq_report(context, &progress);
}

/* --- sequences of one length ------------------------------------------------------------------ */

static size_t batch_of(const mq_forward_run *run) { return run->batch == 0 ? 1 : run->batch; }

static forward_size equal_size(const mq_forward_run *run) {
    return (forward_size){mq_smaller(batch_of(run), run->sequences), run->length, run->length};
}

size_t mq_model_forward_memory(const mq_forward_run *run, const mq_context *context) {
    forward f = {.gemm = run->gemm};
    mq_slab slab = {0};
    const forward_size size = equal_size(run);
    forward_carve(&f, &slab, &run->model->config, &size, context);
    return slab.overflow ? SIZE_MAX : slab.used;
}

static mq_status forward_block(float *hidden, forward *f, const mq_forward_run *run, size_t layer,
                               const mq_context *context, mq_error *err) {
    const mq_config *config = &run->model->config;
    const size_t stride = run->length * config->hidden_size, batch = batch_of(run);
    mq_status status = mq_block_params_load(&f->params, run->model, layer, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_block_params_round(&f->params, config, NULL);
    const mq_block_weights weights = mq_block_params_view_bf16(&f->params);
    for (size_t first = 0; status == MQ_OK && first < run->sequences; first += batch) {
        status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            const size_t count = mq_smaller(run->sequences - first, batch);
            const mq_block_shape shape =
                mq_block_shape_of(config, layer, &f->rotations, count, run->length);
            float *rows = hidden + first * stride;
            mq_block_forward(rows, rows, &weights, &shape, f->activations, context);
        }
    }
    return status;
}

mq_status mq_model_forward_prepare(mq_gemm_bf16 *gemm, const mq_forward_run *run, mq_error *err) {
    const mq_config *config = &run->model->config;
    const size_t batch = batch_of(run), rest = run->sequences % batch;
    mq_status status = MQ_OK;
    if (run->sequences >= batch) {
        status = mq_block_prepare(gemm, config, batch, run->length, false, err);
    }
    if (status == MQ_OK && rest > 0) {
        status = mq_block_prepare(gemm, config, rest, run->length, false, err);
    }
    return status;
}

mq_status mq_model_forward(float *hidden, const mq_forward_run *run, const mq_context *context,
                           mq_error *err) {
    const mq_config *config = &run->model->config;
    const size_t layers = config->num_hidden_layers;
    const double begin = mq_seconds();
    if (run->sequences == 0 || run->length == 0) {
        return MQ_OK;
    }
    mq_status status =
        mq_model_embed(hidden, run->model, run->ids, run->sequences * run->length, err);
    forward f = {.gemm = run->gemm};
    if (status == MQ_OK) {
        const forward_size size = equal_size(run);
        status = forward_open(&f, config, &size, context, err);
    }
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = forward_block(hidden, &f, run, layer, context, err);
        if (status == MQ_OK) {
            report(run->phase, (double)(layer + 1), layers, begin, context);
        }
    }
    mq_slab_free(&f.memory);
    return status == MQ_OK && run->gemm != NULL ? mq_gemm_bf16_check(run->gemm, err) : status;
}

/* --- packed batches --------------------------------------------------------------------------- */

static mq_status packed_size(forward_size *out, size_t *rows, const mq_packed *batches,
                             size_t count, const mq_config *config, mq_error *err) {
    *out = (forward_size){.sequences = 1};
    *rows = 0;
    for (size_t i = 0; i < count; i++) {
        *rows += batches[i].rows;
        out->length = batches[i].rows > out->length ? batches[i].rows : out->length;
        out->positions = batches[i].longest > out->positions ? batches[i].longest : out->positions;
    }
    if (out->positions > config->max_position_embeddings) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "a sequence of %zu tokens is longer than the model's %zu positions",
                       out->positions, config->max_position_embeddings);
    }
    return MQ_OK;
}

static mq_status embed_packed(float *hidden, const mq_model *model, const mq_packed *batches,
                              size_t count, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_model_embed(hidden, model, batches[i].ids, batches[i].rows, err);
        hidden += batches[i].rows * model->config.hidden_size;
    }
    return status;
}

mq_status mq_packed_forward(float *hidden, const mq_model *model, const mq_packed *batches,
                            size_t count, const char *phase, const mq_context *context,
                            mq_error *err) {
    const size_t layers = model->config.num_hidden_layers;
    const double begin = mq_seconds();
    size_t total;
    forward_size size;
    forward f = {0};
    mq_status status = packed_size(&size, &total, batches, count, &model->config, err);
    if (status != MQ_OK || total == 0) {
        return status;
    }
    status = embed_packed(hidden, model, batches, count, err);
    if (status == MQ_OK) {
        status = forward_open(&f, &model->config, &size, context, err);
    }
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = mq_block_params_load(&f.params, model, layer, err);
        const mq_block_weights weights = mq_block_params_view(&f.params);
        size_t done = 0;
        for (size_t i = 0; status == MQ_OK && i < count; i++) {
            status = mq_check_interrupt(context, err);
            if (status == MQ_OK) {
                mq_block_shape shape =
                    mq_block_shape_of(&model->config, layer, &f.rotations, 1, batches[i].rows);
                shape.packed = &batches[i];
                float *rows = hidden + done * model->config.hidden_size;
                mq_block_forward(rows, rows, &weights, &shape, f.activations, context);
                done += batches[i].rows;
                report(phase, (double)layer + (double)done / (double)total, layers, begin, context);
            }
        }
    }
    mq_slab_free(&f.memory);
    return status;
}
