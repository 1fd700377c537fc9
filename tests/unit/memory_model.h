/* A head with weights in memory, and what it should compute, in double. */
#ifndef MEMORY_MODEL_H
#define MEMORY_MODEL_H

#include <math.h>

#include "base/random.h"
#include "model_test.h"

/* Weights in memory, which may be told to fail from one row of the head on. */
typedef struct memory_weights {
    mq_weights weights;
    size_t vocab, width, broken_row;
    float *head, *norm;
    mq_bf16 *stored; /* the head as bfloat16, or NULL */
} memory_weights;

static inline const memory_weights *of(const mq_weights *self) {
    return (const memory_weights *)(const void *)self;
}

static inline bool memory_has(const mq_weights *self, const char *name) {
    (void)self;
    (void)name;
    return true;
}

static inline mq_status memory_shape(size_t *rows, size_t *columns, const mq_weights *self,
                                     const char *name, mq_error *err) {
    (void)err;
    *rows = strcmp(name, "lm_head.weight") == 0 ? of(self)->vocab : 1;
    *columns = of(self)->width;
    return MQ_OK;
}

static inline mq_status memory_read(float *out, const mq_weights *self, const char *name,
                                    size_t first, size_t count, mq_error *err) {
    const memory_weights *w = of(self);
    if (strcmp(name, "lm_head.weight") != 0) {
        memcpy(out, w->norm, w->width * sizeof *out);
        return MQ_OK;
    }
    if (first + count > w->broken_row) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, "", name, "row %zu is broken", w->broken_row);
    }
    memcpy(out, w->head + first * w->width, count * w->width * sizeof *out);
    return MQ_OK;
}

static inline const char *memory_where(const mq_weights *self, const char *name) {
    (void)self;
    (void)name;
    return "memory";
}

static inline const mq_bf16 *memory_stored_bf16(const mq_weights *self, const char *name,
                                                size_t first) {
    const memory_weights *w = of(self);
    const bool there = w->stored != NULL && strcmp(name, "lm_head.weight") == 0;
    return there ? w->stored + first * w->width : NULL;
}

static inline void memory_free(mq_weights *self) {
    mq_free(of(self)->head);
    mq_free(of(self)->norm);
    mq_free(of(self)->stored);
    mq_free(self);
}

static const mq_weights_class memory_class = {memory_has,   memory_shape, memory_read,
                                              memory_where, memory_free,  memory_stored_bf16};

static inline float *random_floats(size_t count, double scale, uint64_t seed) {
    mq_random random;
    mq_random_seed(&random, seed, 0);
    float *values = mq_alloc(count, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(scale * (2.0 * mq_random_unit(&random) - 1.0));
    }
    return values;
}

static inline mq_model *make_model(size_t vocab, size_t width, double softcap, uint64_t seed) {
    mq_model *model = mq_calloc(1, sizeof *model);
    memory_weights *weights = mq_alloc(1, sizeof *weights);
    assert_true(model != NULL && weights != NULL);
    *weights = (memory_weights){{&memory_class},
                                vocab,
                                width,
                                SIZE_MAX,
                                random_floats(vocab * width, 2.0, seed),
                                random_floats(width, 1.5, seed + 1),
                                NULL};
    model->config = (mq_config){.arch = mq_arch_find("LlamaForCausalLM"),
                                .hidden_size = width,
                                .vocab_size = vocab,
                                .rms_norm_eps = 1e-6,
                                .logits_scaling = 1.0,
                                .final_logit_softcapping = softcap};
    model->weights = &weights->weights;
    model->folder = mq_strdup("memory");
    return model;
}

/* Logits of one token in double. */
static inline void plain_logits(double *out, const mq_model *model, const float *hidden) {
    const memory_weights *w = of(model->weights);
    double squares = 0.0;
    for (size_t i = 0; i < w->width; i++) {
        squares += (double)hidden[i] * (double)hidden[i];
    }
    const double inverse = 1.0 / sqrt(squares / (double)w->width + model->config.rms_norm_eps);
    const double cap = model->config.final_logit_softcapping;
    for (size_t v = 0; v < w->vocab; v++) {
        double sum = 0.0;
        for (size_t i = 0; i < w->width; i++) {
            sum += (double)hidden[i] * inverse * (double)w->norm[i] *
                   (double)w->head[v * w->width + i];
        }
        sum /= model->config.logits_scaling;
        out[v] = cap > 0.0 ? cap * tanh(sum / cap) : sum;
    }
}

static inline double plain_lse(const double *logits, size_t vocab) {
    double max = logits[0], sum = 0.0;
    for (size_t v = 0; v < vocab; v++) {
        max = fmax(max, logits[v]);
    }
    for (size_t v = 0; v < vocab; v++) {
        sum += exp(logits[v] - max);
    }
    return max + log(sum);
}

#endif
