/* The embedding matrix and the head as a stage of the job: quantized before the first block, since
 * every width's student begins with its own rows, and read back from the master's writer. */
#include <string.h>

#include "job/job.h"
#include "quant/embedding.h"
#include "quant/recipe.h"
#include "store/pack.h"
#include "store/quantized_weights.h"

/* --- what there is ---------------------------------------------------------------------------- */

static void add_matrix(mq_quantize_plan *plan, const char *name) {
    const mq_config *config = &plan->model->config;
    const size_t index = plan->selection.tensors + plan->embedding_count++;
    mq_master_linear *entry = &plan->linears[index];
    *entry = (mq_master_linear){.out = config->vocab_size,
                                .in = config->hidden_size,
                                .groups = plan->selection.embedding_groups,
                                .min_width = mq_recipe_embedding_min_width(plan->options)};
    memcpy(entry->prefix, name, strlen(name) - strlen(".weight"));
}

/* A head that stands beside tied embeddings is the same once more, and stays so. */
void mq_quantize_embedding_layout(mq_quantize_plan *plan) {
    const mq_layout *layout = mq_config_layout(&plan->model->config);
    if (plan->options->embeddings != MQ_EMBEDDINGS_KEEP) {
        add_matrix(plan, layout->embedding);
        if (mq_tensors_find(plan->source, layout->head) != NULL) {
            add_matrix(plan, layout->head);
        }
    }
}

/* --- quantizing ------------------------------------------------------------------------------- */

typedef struct target {
    mq_master_writer *writer;
    size_t index;
} target;

static mq_status put_rows(void *user, const mq_quantized *quantized, size_t first, mq_error *err) {
    const target *self = user;
    return mq_master_writer_put_rows(self->writer, self->index, quantized, first, err);
}

mq_status mq_quantize_embeddings(const mq_quantize_plan *plan, mq_master_writer *writer,
                                 mq_error *err) {
    const mq_layout *layout = mq_config_layout(&plan->model->config);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < plan->embedding_count; i++) {
        target self = {writer, plan->selection.tensors + i};
        status = mq_embedding_quantize(
            plan->options, plan->model, i == 0 ? layout->embedding : layout->head,
            plan->selection.embedding_groups, put_rows, &self, plan->context, err);
    }
    return status;
}

/* --- the model's weights with a width's embeddings -------------------------------------------- */

#define ROWS_AT_ONCE 64

typedef struct embedded {
    mq_weights weights;
    const mq_quantize_plan *plan;
    const mq_master_writer *writer;
    unsigned width; /* of the slices */
} embedded;

/* What reading needs; every reader its own. */
typedef struct scratch {
    uint8_t *codes;
    uint16_t *halves[2];
    float *pairs[2];
    mq_slab slab;
} scratch;

static void carve(scratch *self, const mq_master_linear *linear) {
    self->codes = mq_carve(&self->slab, ROWS_AT_ONCE, linear->in);
    for (size_t i = 0; i < 2; i++) {
        self->halves[i] = mq_carve(&self->slab, ROWS_AT_ONCE, linear->groups * sizeof(uint16_t));
        self->pairs[i] = mq_carve(&self->slab, linear->groups, sizeof(float));
    }
}

size_t mq_quantize_embedding_memory(const mq_quantize_plan *plan) {
    if (plan->embedding_count == 0) {
        return 0;
    }
    scratch self = {0};
    carve(&self, &plan->linears[plan->selection.tensors]);
    return self.slab.used * mq_context_threads(plan->context) + MQ_MAX_WIDTHS * sizeof(embedded);
}

static const embedded *of(const mq_weights *self) { return (const embedded *)(const void *)self; }

/* Its number among the layout's linears, or that of all. */
static size_t index_of(const mq_quantize_plan *plan, const char *name) {
    const mq_layout *layout = mq_config_layout(&plan->model->config);
    const size_t first = plan->selection.tensors;
    return strcmp(name, layout->embedding) == 0 ? first
           : plan->embedding_count > 1 && strcmp(name, layout->head) == 0
               ? first + 1
               : first + plan->embedding_count;
}

static mq_status read_rows(float *out, scratch *memory, const embedded *self, size_t index,
                           size_t first, size_t count, mq_error *err) {
    const mq_master_linear *linear = &self->plan->linears[index];
    mq_status status =
        mq_master_writer_get_codes(memory->codes, self->writer, index, first, count, err);
    if (status == MQ_OK) {
        status = mq_master_writer_get_pairs(memory->halves[0], memory->halves[1], self->writer,
                                            index, self->width, first, count, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    mq_slice_codes(memory->codes, memory->codes, count * linear->in, self->width,
                   self->plan->options->slice_rule);
    for (size_t row = 0; row < count; row++) {
        for (size_t i = 0; i < 2; i++) {
            mq_to_f32(memory->pairs[i], memory->halves[i] + row * linear->groups, MQ_F16,
                      linear->groups);
        }
        mq_dequantize_row(out + row * linear->in, memory->codes + row * linear->in,
                          memory->pairs[0], memory->pairs[1], linear->in, linear->groups);
    }
    return MQ_OK;
}

static mq_status embedded_read(float *out, const mq_weights *base, const char *name, size_t first,
                               size_t count, mq_error *err) {
    const embedded *self = of(base);
    const mq_weights *model = self->plan->model->weights;
    const size_t index = index_of(self->plan, name);
    if (index == self->plan->selection.tensors + self->plan->embedding_count) {
        return model->class_->read(out, model, name, first, count, err);
    }
    const mq_master_linear *linear = &self->plan->linears[index];
    scratch memory = {0};
    carve(&memory, linear);
    mq_status status = mq_slab_allocate(&memory.slab, "rows of the embeddings", err);
    if (status != MQ_OK) {
        return status;
    }
    carve(&memory, linear);
    for (size_t done = 0; status == MQ_OK && done < count; done += ROWS_AT_ONCE) {
        const size_t rows = count - done < ROWS_AT_ONCE ? count - done : ROWS_AT_ONCE;
        status = read_rows(out + done * linear->in, &memory, self, index, first + done, rows, err);
    }
    mq_slab_free(&memory.slab);
    return status;
}

static bool embedded_has(const mq_weights *base, const char *name) {
    const mq_weights *model = of(base)->plan->model->weights;
    return model->class_->has(model, name);
}

static mq_status embedded_shape(size_t *rows, size_t *columns, const mq_weights *base,
                                const char *name, mq_error *err) {
    const mq_weights *model = of(base)->plan->model->weights;
    return model->class_->shape(rows, columns, model, name, err);
}

static const char *embedded_where(const mq_weights *base, const char *name) {
    const mq_weights *model = of(base)->plan->model->weights;
    return model->class_->where(model, name);
}

static void embedded_free(mq_weights *base) { mq_free(base); }

static const mq_weights_class embedded_class = {embedded_has,   embedded_shape, embedded_read,
                                                embedded_where, embedded_free,  NULL};

mq_status mq_quantize_embedded(mq_weights *out[MQ_MAX_WIDTH + 1], const mq_quantize_plan *plan,
                               const mq_master_writer *writer, mq_error *err) {
    const unsigned least = mq_recipe_embedding_min_width(plan->options);
    mq_status status = MQ_OK;
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        out[width] = NULL;
    }
    for (unsigned width = MQ_MIN_WIDTH;
         status == MQ_OK && plan->embedding_count > 0 && width <= MQ_MAX_WIDTH; width++) {
        embedded *made = NULL;
        status = mq_new(&made, 1, sizeof *made, "the embeddings", err);
        if (status == MQ_OK) {
            *made = (embedded){.weights.class_ = &embedded_class,
                               .plan = plan,
                               .writer = writer,
                               .width = width > least ? width : least};
            out[width] = &made->weights;
        }
    }
    return status;
}
