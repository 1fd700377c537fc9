/* One block's parameters in memory. */
#include <string.h>

#include "base/error.h"
#include "model/block.h"

void mq_block_params_carve(mq_block_params *out, mq_slab *slab, const mq_config *config) {
    mq_block_params_carve_rest(out, slab, config);
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t rows, columns, elements = 0;
        mq_config_linear_shape(&rows, &columns, config, (mq_linear)i);
        if (!mq_mul_size(&elements, rows, columns)) {
            slab->overflow = true;
        }
        out->linear[i] = mq_carve(slab, elements, sizeof(float));
    }
}

void mq_block_params_carve_rest(mq_block_params *out, mq_slab *slab, const mq_config *config) {
    *out = (mq_block_params){0};
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t rows, columns;
        mq_config_linear_shape(&rows, &columns, config, (mq_linear)i);
        out->bias[i] =
            mq_config_has_bias(config, (mq_linear)i) ? mq_carve(slab, rows, sizeof(float)) : NULL;
    }
    for (size_t i = 0; i < MQ_NORM_COUNT; i++) {
        const size_t size = mq_config_norm_size(config, (mq_norm)i);
        out->norm[i] = size != 0 ? mq_carve(slab, size, sizeof(float)) : NULL;
    }
}

void mq_block_params_carve_rounded(mq_block_params *params, mq_slab *slab, const mq_config *config,
                                   const bool wanted[MQ_LINEAR_COUNT]) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        if (wanted == NULL || wanted[i]) {
            params->rounded[i] = mq_carve(slab, out, in * sizeof(mq_bf16));
        }
    }
}

static mq_status load_linear(mq_block_params *params, const mq_model *model, size_t layer,
                             size_t linear, bool skip_weight, mq_error *err) {
    const mq_weights *weights = model->weights;
    char name[MQ_NAME_SIZE];
    size_t rows, columns;
    mq_config_linear_shape(&rows, &columns, &model->config, (mq_linear)linear);
    mq_status status = MQ_OK;
    if (!skip_weight) {
        const mq_linear_place place = mq_config_linear_place(&model->config, (mq_linear)linear);
        mq_config_linear_name(name, &model->config, layer, (mq_linear)linear, "weight");
        status =
            weights->class_->read(params->linear[linear], weights, name, place.first, rows, err);
    }
    if (status == MQ_OK && params->bias[linear] != NULL) {
        mq_config_linear_name(name, &model->config, layer, (mq_linear)linear, "bias");
        status = weights->class_->read(params->bias[linear], weights, name, 0, 1, err);
    }
    return status;
}

static mq_status load_norm(mq_block_params *params, const mq_model *model, size_t layer,
                           size_t norm, mq_error *err) {
    char name[MQ_NAME_SIZE];
    mq_config_norm_name(name, &model->config, layer, (mq_norm)norm);
    return mq_model_norm(params->norm[norm], model, name,
                         mq_config_norm_size(&model->config, (mq_norm)norm), err);
}

mq_status mq_block_params_load(mq_block_params *params, const mq_model *model, size_t layer,
                               mq_error *err) {
    static const bool none[MQ_LINEAR_COUNT] = {false};
    return mq_block_params_load_rest(params, model, layer, none, err);
}

mq_status mq_block_params_load_rest(mq_block_params *params, const mq_model *model, size_t layer,
                                    const bool skip_weight[MQ_LINEAR_COUNT], mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        status = load_linear(params, model, layer, i, skip_weight[i], err);
    }
    for (size_t i = 0; status == MQ_OK && i < MQ_NORM_COUNT; i++) {
        if (params->norm[i] != NULL) {
            status = load_norm(params, model, layer, i, err);
        }
    }
    return status == MQ_OK ? MQ_OK : mq_error_in_file(err, status, model->folder);
}

static void round_linear(mq_bf16 *rounded, const float *weight, const mq_config *config,
                         mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < out; row++) {
        mq_bf16_round_all(rounded + row * in, weight + row * in, in);
    }
}

void mq_block_params_round(const mq_block_params *params, const mq_config *config,
                           const bool skip[MQ_LINEAR_COUNT]) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (params->rounded[i] != NULL && (skip == NULL || !skip[i])) {
            round_linear(params->rounded[i], params->linear[i], config, (mq_linear)i);
        }
    }
}

mq_block_weights mq_block_params_view(const mq_block_params *params) {
    mq_block_weights view = {0};
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        view.linear[i] = params->linear[i];
        view.bias[i] = params->bias[i];
    }
    for (size_t i = 0; i < MQ_NORM_COUNT; i++) {
        view.norm[i] = params->norm[i];
    }
    return view;
}

mq_block_weights mq_block_params_view_bf16(const mq_block_params *params) {
    mq_block_weights view = mq_block_params_view(params);
    memcpy(view.linear_bf16, params->rounded, sizeof params->rounded);
    return view;
}
