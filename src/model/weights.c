#include "model/weights.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

/* --- a plain checkpoint ----------------------------------------------------------------------- */

typedef struct plain_weights {
    mq_weights weights;
    const mq_tensors *tensors;
} plain_weights;

static const mq_tensors *plain_tensors(const mq_weights *self) {
    return ((const plain_weights *)(const void *)self)->tensors;
}

static bool plain_has(const mq_weights *self, const char *name) {
    return mq_tensors_find(plain_tensors(self), name) != NULL;
}

static mq_status plain_find(const mq_tensor_info **out, size_t *rows, size_t *columns,
                            const mq_weights *self, const char *name, mq_error *err) {
    const mq_tensor_info *info = mq_tensors_find(plain_tensors(self), name);
    if (info == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, mq_tensors_where(plain_tensors(self), name), name,
                              "missing");
    }
    if (!mq_dtype_is_weight(info->dtype)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, info->file, name,
                              "its type %s is none of F32, F16 and BF16",
                              mq_dtype_name(info->dtype));
    }
    if (info->dims != 1 && info->dims != 2) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, info->file, name, "has %zu dimensions, not 1 or 2",
                              info->dims);
    }
    *rows = info->dims == 1 ? 1 : info->shape[0];
    *columns = info->shape[info->dims - 1];
    *out = info;
    return MQ_OK;
}

static mq_status plain_shape(size_t *rows, size_t *columns, const mq_weights *self,
                             const char *name, mq_error *err) {
    const mq_tensor_info *info;
    return plain_find(&info, rows, columns, self, name, err);
}

static mq_status plain_read(float *out, const mq_weights *self, const char *name, size_t first,
                            size_t count, mq_error *err) {
    const mq_tensor_info *info = NULL;
    size_t rows = 0, columns = 0;
    mq_status status = plain_find(&info, &rows, &columns, self, name, err);
    return status == MQ_OK ? mq_tensor_read_f32(out, info, first * columns, count * columns, err)
                           : status;
}

static const char *plain_where(const mq_weights *self, const char *name) {
    return mq_tensors_where(plain_tensors(self), name);
}

static void plain_free(mq_weights *self) { mq_free(self); }

/* A file's tensors may begin anywhere. */
static const mq_bf16 *plain_stored_bf16(const mq_weights *self, const char *name, size_t first) {
    const mq_tensor_info *info = mq_tensors_find(plain_tensors(self), name);
    if (info == NULL || info->dtype != MQ_BF16 || (uintptr_t)info->data % alignof(mq_bf16) != 0) {
        return NULL;
    }
    const mq_bf16 *all = (const void *)info->data;
    return all + first * info->shape[info->dims - 1];
}

static const mq_weights_class plain_class = {plain_has,   plain_shape, plain_read,
                                             plain_where, plain_free,  plain_stored_bf16};

mq_status mq_plain_weights(mq_weights **out, const mq_tensors *tensors, mq_error *err) {
    plain_weights *plain;
    mq_status status = mq_new(&plain, 1, sizeof *plain, "the weights", err);
    if (status != MQ_OK) {
        return status;
    }
    *plain = (plain_weights){.weights.class_ = &plain_class, .tensors = tensors};
    *out = &plain->weights;
    return MQ_OK;
}

void mq_weights_free(mq_weights *weights) {
    if (weights != NULL) {
        weights->class_->free(weights);
    }
}

/* --- checking against the configuration ------------------------------------------------------- */

static const char *where(const mq_model *model, const char *name) {
    return model->weights->class_->where(model->weights, name);
}

static mq_status check_shape(const mq_model *model, const char *name, size_t rows, size_t columns,
                             mq_error *err) {
    size_t actual_rows, actual_columns;
    if (!model->weights->class_->has(model->weights, name)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, where(model, name), name, "missing");
    }
    mq_status status =
        model->weights->class_->shape(&actual_rows, &actual_columns, model->weights, name, err);
    if (status == MQ_OK && (actual_rows != rows || actual_columns != columns)) {
        status = mq_fail_tensor(
            err, MQ_ERR_INPUT, where(model, name), name,
            "its shape [%zu, %zu] contradicts config.json, which makes it [%zu, %zu]", actual_rows,
            actual_columns, rows, columns);
    }
    return status;
}

/* Where peft has put an adapter on a layer, the layer's own weight is called otherwise. */
static mq_status refuse_adapter(const mq_model *model, size_t layer, mq_linear linear,
                                mq_error *err) {
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &model->config, layer, linear, "weight");
    if (model->weights->class_->has(model->weights, name)) {
        return MQ_OK;
    }
    mq_config_linear_name(name, &model->config, layer, linear, "base_layer.weight");
    return model->weights->class_->has(model->weights, name)
               ? mq_fail_tensor(err, MQ_ERR_INPUT, where(model, name), name,
                                "belongs to an adapter that was not merged; merge it into the "
                                "weights first")
               : MQ_OK;
}

static mq_status check_linear(const mq_model *model, size_t layer, mq_linear linear,
                              mq_error *err) {
    char name[MQ_NAME_SIZE];
    size_t rows, columns;
    const mq_linear_place place = mq_config_linear_place(&model->config, linear);
    if (place.first > 0) { /* its tensor was looked at with the first of it */
        return MQ_OK;
    }
    mq_config_linear_shape(&rows, &columns, &model->config, linear);
    mq_config_linear_name(name, &model->config, layer, linear, "weight");
    mq_status status = refuse_adapter(model, layer, linear, err);
    if (status == MQ_OK) {
        status = check_shape(model, name, place.rows, columns, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    mq_config_linear_name(name, &model->config, layer, linear, "bias");
    if (mq_config_has_bias(&model->config, linear)) {
        return check_shape(model, name, 1, rows, err);
    }
    if (model->weights->class_->has(model->weights, name)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, where(model, name), name,
                              "config.json says that there is no such bias");
    }
    return MQ_OK;
}

static mq_status check_block(const mq_model *model, size_t layer, mq_error *err) {
    mq_status status = MQ_OK;
    for (int linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        status = check_linear(model, layer, (mq_linear)linear, err);
    }
    for (int norm = 0; status == MQ_OK && norm < MQ_NORM_COUNT; norm++) {
        const size_t size = mq_config_norm_size(&model->config, (mq_norm)norm);
        if (size != 0) {
            char name[MQ_NAME_SIZE];
            mq_config_norm_name(name, &model->config, layer, (mq_norm)norm);
            status = check_shape(model, name, 1, size, err);
        }
    }
    return status;
}

/* A head beside tied embeddings is not used: it had better say the same. */
static mq_status check_tied_head(const mq_model *model, mq_error *err) {
    const mq_config *config = &model->config;
    const mq_layout *layout = mq_config_layout(config);
    const size_t width = config->hidden_size, slab = 1 + 65536 / width;
    const mq_weights *weights = model->weights;
    float *rows;
    mq_status status = mq_new(&rows, 2 * slab, width * sizeof *rows, "rows of the head", err);
    if (status != MQ_OK) {
        return status;
    }
    for (size_t first = 0; status == MQ_OK && first < config->vocab_size; first += slab) {
        const size_t count = config->vocab_size - first < slab ? config->vocab_size - first : slab;
        status = weights->class_->read(rows, weights, layout->head, first, count, err);
        if (status == MQ_OK) {
            status = weights->class_->read(rows + slab * width, weights, layout->embedding, first,
                                           count, err);
        }
        if (status == MQ_OK &&
            memcmp(rows, rows + slab * width, count * width * sizeof *rows) != 0) {
            status =
                mq_fail_tensor(err, MQ_ERR_INPUT, where(model, layout->head), layout->head,
                               "differs from %s, though config.json ties them", layout->embedding);
        }
    }
    mq_free(rows);
    return status;
}

static bool has_head(const mq_model *model) {
    return model->weights->class_->has(model->weights, mq_config_layout(&model->config)->head);
}

mq_status mq_model_check_shapes(const mq_model *model, mq_error *err) {
    const mq_config *config = &model->config;
    const mq_layout *layout = mq_config_layout(config);
    mq_status status =
        check_shape(model, layout->embedding, config->vocab_size, config->hidden_size, err);
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        status = check_block(model, layer, err);
    }
    if (status == MQ_OK) {
        status = check_shape(model, layout->final_norm, 1, config->hidden_size, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, config, config->num_hidden_layers, MQ_Q, "weight");
    if (model->weights->class_->has(model->weights, name)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, where(model, name), name,
                              "config.json says that there are %zu blocks only",
                              config->num_hidden_layers);
    }
    if (has_head(model)) {
        return check_shape(model, layout->head, config->vocab_size, config->hidden_size, err);
    }
    if (!config->tie_word_embeddings) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, where(model, layout->head), layout->head,
                              "missing; if head and embeddings are one matrix, "
                              "tie_word_embeddings must be true in config.json");
    }
    return MQ_OK;
}

mq_status mq_model_check(const mq_model *model, mq_error *err) {
    const mq_status status = mq_model_check_shapes(model, err);
    return status == MQ_OK && model->config.tie_word_embeddings && has_head(model)
               ? check_tied_head(model, err)
               : status;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Names what stands in the embeddings' place when all names begin otherwise: those of a model with
 * images or one that was compiled have another prefix, and those of a model without its head
 * none. */
static mq_status check_prefix(const mq_tensors *tensors, const mq_config *config, mq_error *err) {
    const char *name = mq_config_layout(config)->embedding, *end = strchr(name, '.') + 1;
    const size_t end_length = strlen(end);
    if (mq_tensors_find(tensors, name) != NULL) {
        return MQ_OK;
    }
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const char *other = mq_tensors_at(tensors, i)->name;
        const size_t length = strlen(other), before = length - end_length;
        if (length >= end_length && strcmp(other + before, end) == 0 &&
            (before == 0 || other[before - 1] == '.')) {
            return mq_fail_tensor(err, MQ_ERR_INPUT, mq_tensors_where(tensors, name), name,
                                  "missing; there is %.200s, but names with%s prefix are not read",
                                  other, before == 0 ? "out a" : " this");
        }
    }
    return MQ_OK;
}

mq_status mq_plain_check_shapes(const mq_config *config, const mq_tensors *tensors, mq_error *err) {
    mq_model model = {.config = *config};
    mq_status status = check_prefix(tensors, config, err);
    if (status == MQ_OK) {
        status = mq_plain_weights(&model.weights, tensors, err);
    }
    if (status == MQ_OK) {
        status = mq_model_check_shapes(&model, err);
    }
    mq_weights_free(model.weights);
    return status;
}

static void release_tensors(void *tensors) { mq_tensors_close(tensors); }

static mq_status open_plain(mq_model *model, const char *folder, mq_error *err) {
    model->folder = mq_strdup(folder);
    if (model->folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    mq_status status = mq_config_read_plain(&model->config, folder, err);
    mq_tensors *tensors = NULL;
    if (status == MQ_OK) {
        const char *heads[MQ_LAYOUT_COUNT + 1];
        status = mq_tensors_open_without(&tensors, folder,
                                         mq_config_unused_heads(heads, &model->config), err);
    }
    if (status != MQ_OK) {
        return status;
    }
    mq_config_find_layout(&model->config, tensors);
    model->keep = tensors;
    model->release_keep = release_tensors;
    status = mq_plain_weights(&model->weights, tensors, err);
    if (status == MQ_OK) {
        status = check_prefix(tensors, &model->config, err);
    }
    return status == MQ_OK ? mq_model_check(model, err) : status;
}

mq_status mq_model_open_plain(mq_model **out, const char *folder, mq_error *err) {
    mq_model *model = mq_calloc(1, sizeof *model);
    if (model == NULL) {
        return mq_fail_memory(err, "the model", sizeof *model);
    }
    mq_status status = open_plain(model, folder, err);
    if (status != MQ_OK) {
        mq_model_free(model);
        return status;
    }
    *out = model;
    return MQ_OK;
}

void mq_model_free(mq_model *model) {
    if (model == NULL) {
        return;
    }
    mq_weights_free(model->weights);
    if (model->release_keep != NULL) {
        model->release_keep(model->keep);
    }
    mq_config_free(&model->config);
    mq_free(model->folder);
    mq_free(model);
}

/* --- norms and embedding ---------------------------------------------------------------------- */

mq_status mq_model_norm(float *norm, const mq_model *model, const char *name, size_t size,
                        mq_error *err) {
    const mq_status status = model->weights->class_->read(norm, model->weights, name, 0, 1, err);
    for (size_t i = 0; status == MQ_OK && model->config.arch->norm_plus_one && i < size; i++) {
        norm[i] += 1.0F;
    }
    return status == MQ_OK ? MQ_OK : mq_error_in_file(err, status, model->folder);
}

mq_status mq_model_embed(float *hidden, const mq_model *model, const int32_t *ids, size_t count,
                         mq_error *err) {
    const mq_config *config = &model->config;
    const size_t width = config->hidden_size;
    /* transformers rounds this to the type it computes in: here float32. */
    const float scale = (float)config->embedding_multiplier;
    for (size_t i = 0; i < count; i++) {
        float *row = hidden + i * width;
        if (ids[i] < 0 || (size_t)ids[i] >= config->vocab_size) {
            return mq_fail_file(err, MQ_ERR_INPUT, model->folder,
                                "token %zu has id %d, but vocab_size is %zu", i, (int)ids[i],
                                config->vocab_size);
        }
        mq_status status = model->weights->class_->read(
            row, model->weights, mq_config_layout(config)->embedding, (size_t)ids[i], 1, err);
        if (status != MQ_OK) {
            return mq_error_in_file(err, status, model->folder);
        }
        for (size_t k = 0; k < width; k++) {
            row[k] *= scale;
        }
    }
    return MQ_OK;
}
