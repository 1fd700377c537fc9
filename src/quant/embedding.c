#include "quant/embedding.h"

#include "base/context.h"
#include "base/error.h"
#include "quant/recipe.h"

#define SLAB_ROWS 512 /* of the matrix at once: enough for all threads */

typedef struct slab {
    mq_grid_options options;
    mq_grid grid;
    mq_quantized quantized;
    mq_finish_scratch finish;
    float *weight; /* [SLAB_ROWS, hidden_size] */
    float *gram;   /* [hidden_size], all ones: every token weighs the same */
    mq_slab memory;
} slab;

static void carve(slab *self, const mq_grid_class *class_, const mq_config *config, size_t groups) {
    const size_t rows = config->vocab_size < SLAB_ROWS ? config->vocab_size : SLAB_ROWS;
    const size_t in = config->hidden_size;
    mq_slab *memory = &self->memory;
    mq_grid_carve(&self->grid, class_, &self->options, rows, in, groups, memory);
    mq_quantized_carve(&self->quantized, rows, in, groups, memory);
    mq_finish_scratch_carve(&self->finish, &self->options, rows, groups, memory);
    self->weight = mq_carve(memory, rows, in * sizeof(float));
    self->gram = mq_carve(memory, in, sizeof(float));
}

size_t mq_embedding_memory(const mq_quantize_options *options, const mq_config *config,
                           size_t groups) {
    slab self = {.options = mq_recipe_embedding_grid(options)};
    carve(&self, mq_recipe_embedding_class(options), config, groups);
    return self.memory.overflow ? SIZE_MAX : self.memory.used;
}

static mq_status quantize_rows(slab *self, const mq_quantize_options *options,
                               const mq_model *model, const char *name, size_t first, size_t count,
                               mq_error *err) {
    const mq_weights *weights = model->weights;
    self->grid.out = self->quantized.out = count;
    mq_status status = weights->class_->read(self->weight, weights, name, first, count, err);
    if (status != MQ_OK) {
        return mq_error_in_file(err, status, model->folder);
    }
    self->grid.class_->start(&self->grid, self->weight, self->gram);
    return mq_grid_finish(&self->quantized, &self->grid, self->gram, options->slice_rule,
                          &self->finish)
               ? MQ_OK
               : mq_fail_tensor(err, MQ_ERR_INPUT, model->folder, name,
                                "its weights are too large for scales and biases in float16");
}

static mq_status quantize_all(slab *self, const mq_quantize_options *options, const mq_model *model,
                              const char *name, mq_embedding_rows *rows, void *user,
                              const mq_context *context, mq_error *err) {
    const double started = mq_seconds();
    const size_t all = model->config.vocab_size;
    mq_status status = MQ_OK;
    for (size_t first = 0; status == MQ_OK && first < all; first += SLAB_ROWS) {
        const size_t count = all - first < SLAB_ROWS ? all - first : SLAB_ROWS;
        status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            status = quantize_rows(self, options, model, name, first, count, err);
        }
        if (status == MQ_OK) {
            status = rows(user, &self->quantized, first, err);
        }
        const mq_progress progress = {.phase = "embeddings",
                                      .unit = "row",
                                      .done = (double)(first + count),
                                      .total = (double)all,
                                      .elapsed_seconds = mq_seconds() - started,
                                      .detail = first + count == all ? name : NULL};
        mq_report(context, &progress);
    }
    return status;
}

mq_status mq_embedding_quantize(const mq_quantize_options *options, const mq_model *model,
                                const char *name, size_t groups, mq_embedding_rows *rows,
                                void *user, const mq_context *context, mq_error *err) {
    const mq_grid_class *class_ = mq_recipe_embedding_class(options);
    slab self = {.options = mq_recipe_embedding_grid(options)};
    carve(&self, class_, &model->config, groups);
    mq_status status = mq_slab_allocate(&self.memory, "rows of the embeddings", err);
    if (status != MQ_OK) {
        return status;
    }
    carve(&self, class_, &model->config, groups);
    for (size_t i = 0; i < model->config.hidden_size; i++) {
        self.gram[i] = 1.0f;
    }
    status = quantize_all(&self, options, model, name, rows, user, context, err);
    mq_slab_free(&self.memory);
    return status;
}
