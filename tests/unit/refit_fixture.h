/* A small golden model with rounded linears as the refit's store, in memory. */
#ifndef REFIT_FIXTURE_H
#define REFIT_FIXTURE_H

#include <math.h>

#include "base/random.h"
#include "model/head_gradient.h"
#include "model_test.h"
#include "quant/refit_student.h"

#define GROUP 8
#define WIDTH 3u
#define LENGTH 12
#define TRAIN 4
#define VALIDATION 10 /* wide widths are measured on the first MEASURED_WIDE */
#define MEASURED_WIDE 8

/* A quantized linear in memory, rounded plainly; one width's pairs. */
typedef struct stored {
    size_t out, in, groups;
    uint8_t *codes;
    uint16_t *scales, *biases;
} stored;

typedef struct fixture {
    mq_model *model;
    mq_tensors *source;
    mq_selection selection;
    stored (*linears)[MQ_LINEAR_COUNT];
    int32_t ids[(TRAIN + VALIDATION) * LENGTH];
    size_t norms_put, pairs_put;
    bool codes_fail;
    unsigned width;
    size_t batch, kept_bytes;
    mq_slice_rule rule;
    mq_gemm_bf16 *gemm;
    mq_weights *embeddings; /* of the student; NULL: the model's */
    float norms[32][64];    /* as put, in that order */
    char norm_names[32][MQ_NAME_SIZE];
    mq_context *context;
    mq_refit_store store; /* user is set when the fixture has its place */
} fixture;

static inline void round_linear(stored *s, const float *w, unsigned width) {
    for (size_t g = 0; g < s->out * s->groups; g++) {
        float lo = w[g * GROUP], hi = lo;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            lo = fminf(lo, w[i]);
            hi = fmaxf(hi, w[i]);
        }
        const float step = (hi - lo) / 256.0f;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            s->codes[i] = (uint8_t)fminf(255.0f, (w[i] - lo) / step);
        }
        const float wide = (hi - lo) / (float)(1u << width);
        s->scales[g] = mq_f32_to_f16(wide);
        s->biases[g] = mq_f32_to_f16(lo + 0.5f * wide);
    }
}

static inline void make_linear(fixture *f, size_t layer, mq_linear linear) {
    stored *s = &f->linears[layer][linear];
    mq_config_linear_shape(&s->out, &s->in, &f->model->config, linear);
    s->groups = s->in / GROUP;
    s->codes = mq_alloc(s->out, s->in);
    s->scales = mq_alloc(s->out, s->groups * sizeof(uint16_t));
    s->biases = mq_alloc(s->out, s->groups * sizeof(uint16_t));
    float *w = mq_alloc(s->out, s->in * sizeof(float));
    assert_true(s->codes && s->scales && s->biases && w);
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &f->model->config, layer, linear, "weight");
    assert_int_equal(f->model->weights->class_->read(w, f->model->weights, name, 0, s->out, NULL),
                     MQ_OK);
    round_linear(s, w, f->width);
    mq_free(w);
    f->selection.groups[layer][linear] = s->groups;
}

static inline fixture make_wide_fixture(const char *name, size_t threads, unsigned width) {
    fixture f = {.model = open_golden(name), .width = width, .batch = TRAIN};
    char *folder = golden_path(name, "");
    assert_int_equal(mq_tensors_open(&f.source, folder, NULL), MQ_OK);
    mq_free(folder);
    const size_t layers = f.model->config.num_hidden_layers;
    f.selection.layers = layers;
    f.selection.groups = mq_calloc(layers, sizeof *f.selection.groups);
    f.linears = mq_calloc(layers, sizeof *f.linears);
    assert_true(f.selection.groups != NULL && f.linears != NULL);
    for (size_t layer = 0; layer < layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            if (layer != 1 || i != MQ_V) { /* one that stays as it is */
                make_linear(&f, layer, (mq_linear)i);
            }
        }
    }
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t i = 0; i < sizeof f.ids / sizeof f.ids[0]; i++) {
        f.ids[i] = (int32_t)mq_random_below(&random, f.model->config.vocab_size);
    }
    const mq_context_options options = {.threads = threads};
    assert_int_equal(mq_context_new(&f.context, &options, NULL), MQ_OK);
    return f;
}

static inline fixture make_fixture(const char *name, size_t threads) {
    return make_wide_fixture(name, threads, WIDTH);
}

static inline void free_fixture(fixture *f) {
    for (size_t layer = 0; layer < f->selection.layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            mq_free(f->linears[layer][i].codes);
            mq_free(f->linears[layer][i].scales);
            mq_free(f->linears[layer][i].biases);
        }
    }
    mq_free(f->linears);
    mq_selection_free(&f->selection);
    mq_tensors_close(f->source);
    mq_model_free(f->model);
    mq_context_free(f->context);
}

/* --- the store -------------------------------------------------------------------------------- */

static inline mq_status codes(void *user, uint8_t *out, size_t layer, mq_linear linear,
                              size_t first, size_t count, mq_error *err) {
    const fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    if (f->codes_fail && layer == 1) {
        return mq_fail(err, MQ_ERR_MACHINE, "the disk is gone");
    }
    memcpy(out, s->codes + first * s->in, count * s->in);
    return MQ_OK;
}

static inline mq_status pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                              mq_linear linear, unsigned width, mq_error *err) {
    (void)err;
    const fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    assert_int_equal(width, f->width);
    memcpy(scales, s->scales, s->out * s->groups * sizeof *scales);
    memcpy(biases, s->biases, s->out * s->groups * sizeof *biases);
    return MQ_OK;
}

static inline mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                                  const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    (void)err;
    fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    assert_int_equal(width, f->width);
    memcpy(s->scales, scales, s->out * s->groups * sizeof *scales);
    memcpy(s->biases, biases, s->out * s->groups * sizeof *biases);
    f->pairs_put++;
    return MQ_OK;
}

static inline mq_status put_norm(void *user, const char *name, unsigned width, const float *values,
                                 size_t size, mq_error *err) {
    (void)err;
    fixture *f = user;
    const mq_tensor_info *info = mq_tensors_find(f->source, name);
    assert_non_null(info);
    assert_int_equal(width, f->width);
    assert_int_equal(info->elements, size);
    for (size_t i = 0; i < size; i++) { /* in the type of the source's tensor */
        unsigned char bytes[4];
        float back;
        mq_from_f32(bytes, info->dtype, &values[i], 1);
        mq_to_f32(&back, bytes, info->dtype, 1);
        assert_true(back == values[i]);
    }
    assert_true(f->norms_put < 32 && size <= 64);
    memcpy(f->norms[f->norms_put], values, size * sizeof *values);
    snprintf(f->norm_names[f->norms_put], MQ_NAME_SIZE, "%s", name);
    f->norms_put++;
    return MQ_OK;
}

static inline mq_refit_setup setup_of(const fixture *f, size_t epochs, double rate) {
    mq_refit_setup setup = {.model = f->model,
                            .source = f->source,
                            .selection = &f->selection,
                            .slice_rule = f->rule,
                            .gemm = f->gemm,
                            .ids = f->ids,
                            .train = TRAIN,
                            .validation = VALIDATION,
                            .length = LENGTH,
                            .batch = f->batch,
                            .pass_batch = f->batch,
                            .kept_bytes = f->kept_bytes,
                            .epochs = epochs,
                            .rate = rate};
    setup.embeddings[f->width] = f->embeddings;
    return setup;
}

static inline mq_refit *refit(mq_refit_result *result, fixture *f, size_t epochs, double rate) {
    const mq_refit_setup setup = setup_of(f, epochs, rate);
    f->store = (mq_refit_store){f, codes, pairs, put_pairs, put_norm, NULL};
    mq_refit *out;
    mq_error err;
    assert_int_equal(mq_refit_prepare(&setup, &err), MQ_OK);
    assert_int_equal(mq_refit_open(&out, &setup, f->context, &err), MQ_OK);
    if (mq_refit_width(result, out, f->width, &f->store, 0, 0, &err) != MQ_OK) {
        fail_with("refit", &err);
    }
    return out;
}

/* kl[tokens] with products of bfloat16 at the head. */
static inline void rounded_kl(float *kl, mq_gemm_bf16 *gemm, const fixture *f,
                              const mq_student *student, const float *mine, const float *theirs,
                              size_t tokens) {
    const mq_config *config = &f->model->config;
    float norm[64];
    mq_slab slab = {0};
    assert_true(config->hidden_size <= 64);
    assert_int_equal(mq_model_norm(norm, &student->model, mq_config_layout(config)->final_norm,
                                   config->hidden_size, NULL),
                     MQ_OK);
    assert_int_equal(mq_head_gradient_prepare(gemm, config, tokens, NULL), MQ_OK);
    mq_head_gradient_carve(&slab, config, tokens, gemm, f->context);
    assert_int_equal(mq_slab_allocate(&slab, "the test", NULL), MQ_OK);
    const mq_head_kl of = {.model = {&student->model, mine},
                           .reference = {f->model, theirs},
                           .norm = norm,
                           .count = tokens,
                           .bf16 = true,
                           .kl = kl};
    mq_head_gradient *memory = mq_head_gradient_carve(&slab, config, tokens, gemm, f->context);
    assert_int_equal(mq_head_kl_gradient(&of, memory, NULL), MQ_OK);
    mq_slab_free(&slab);
}

/* hidden[count, LENGTH, hidden_size] of sequences from `first` on: the output of the last block. */
static inline void forward_of(float *hidden, const mq_model *model, mq_gemm_bf16 *gemm,
                              const fixture *f, size_t first, size_t count) {
    const mq_forward_run run = {.model = model,
                                .ids = f->ids + first * LENGTH,
                                .sequences = count,
                                .length = LENGTH,
                                .batch = count > 0 ? count : 1,
                                .gemm = gemm,
                                .phase = "test"};
    if (gemm != NULL) {
        assert_int_equal(mq_model_forward_prepare(gemm, &run, NULL), MQ_OK);
    }
    assert_int_equal(mq_model_forward(hidden, &run, f->context, NULL), MQ_OK);
}

/* Mean KL of sequences [first, first + count) with the student's numbers as they are; gemm: of its
 * products, of the head's, and of full precision's behind what wide widths are measured on (NULL:
 * float32). */
static inline double kl_with(mq_gemm_bf16 *gemm, const fixture *f, const mq_student *student,
                             size_t first, size_t count) {
    const size_t tokens = count * LENGTH, width = f->model->config.hidden_size;
    const size_t exact = gemm != NULL && count > MEASURED_WIDE ? MEASURED_WIDE : count;
    float *mine = mq_alloc(tokens, width * sizeof(float));
    float *theirs = mq_alloc(tokens, width * sizeof(float));
    float *kl = mq_alloc(tokens, sizeof(float));
    assert_true(mine && theirs && kl);
    forward_of(mine, &student->model, gemm, f, first, count);
    forward_of(theirs, f->model, NULL, f, first, exact);
    forward_of(theirs + exact * LENGTH * width, f->model, gemm, f, first + exact, count - exact);
    const mq_head_side model = {&student->model, mine}, reference = {f->model, theirs};
    const mq_head_scores scores = {.kl = kl};
    if (gemm != NULL) {
        rounded_kl(kl, gemm, f, student, mine, theirs, tokens);
    } else {
        assert_int_equal(mq_head_score(&scores, &model, &reference, NULL, tokens, f->context, NULL),
                         MQ_OK);
    }
    double sum = 0.0;
    for (size_t t = 0; t < tokens; t++) {
        sum += (double)kl[t];
    }
    mq_free(mine);
    mq_free(theirs);
    mq_free(kl);
    return sum / (double)tokens;
}

static inline double kl_of(const fixture *f, const mq_student *student, size_t first,
                           size_t count) {
    return kl_with(NULL, f, student, first, count);
}

static inline void check_same_pairs(const fixture *f, const fixture *g) {
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        const stored *a = &f->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        const stored *b = &g->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        if (a->codes != NULL) {
            const size_t bytes = a->out * a->groups * sizeof(uint16_t);
            assert_memory_equal(a->scales, b->scales, bytes);
            assert_memory_equal(a->biases, b->biases, bytes);
        }
    }
}

#endif
