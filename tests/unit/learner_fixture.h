/* A learner at the first block of a small model, as mq_run would have it before training. */
#ifndef LEARNER_FIXTURE_H
#define LEARNER_FIXTURE_H

#include <math.h>

#include "base/random.h"
#include "model_test.h"
#include "quant/backend.h"
#include "quant/learner.h"

typedef struct learner_fixture {
    mq_quantize_options options;
    mq_model *model;
    mq_selection selection;
    mq_context *context;
    mq_backend backend;
    mq_slab slab;
    mq_learner learner;
} learner_fixture;

/* How much there is to learn from. */
typedef struct learner_size {
    size_t samples, batch, length;
    uint64_t seed; /* of the random text */
} learner_size;

/* ids of random text through the embedding, for the teacher and every student. */
static inline void fill_chains(learner_fixture *f, uint64_t seed) {
    const mq_chains *chains = &f->learner.chains;
    const size_t tokens = chains->sequences * chains->length;
    int32_t *ids = mq_alloc(tokens, sizeof *ids);
    assert_non_null(ids);
    mq_random random;
    mq_random_seed(&random, seed, 0);
    for (size_t i = 0; i < tokens; i++) {
        ids[i] = (int32_t)mq_random_below(&random, f->model->config.vocab_size);
    }
    assert_int_equal(mq_model_embed(chains->teacher, f->model, ids, tokens, NULL), MQ_OK);
    for (size_t k = 0; k < f->options.width_count; k++) {
        memcpy(chains->student[k], chains->teacher,
               tokens * f->model->config.hidden_size * sizeof(float));
    }
    mq_free(ids);
}

/* model becomes the fixture's. Products are of float32, unless the options name others. */
static inline void open_learner_of(learner_fixture *f, mq_model *model,
                                   const mq_quantize_options *options, const learner_size *size,
                                   size_t epochs) {
    *f = (learner_fixture){.options = *options, .model = model};
    f->options.group_size = 8;
    f->options.samples = size->samples;
    f->options.batch = size->batch;
    f->options.seq_len = size->length;
    f->options.epochs = epochs;
    f->options.calib = "none";
    const mq_context_options one = {.threads = 1}; /* too little work to share */
    mq_error err = {0};
    if (mq_select(&f->selection, &f->options, &f->model->config, &err) != MQ_OK ||
        mq_context_new(&f->context, &one, &err) != MQ_OK) {
        fail_with(model->folder, &err);
    }
    if (options->gemm == MQ_GEMM_ONEDNN_BF16 &&
        mq_backend_open(&f->backend, &f->options, &f->model->config, f->context, &err) != MQ_OK) {
        fail_with(model->folder, &err);
    }
    f->learner = (mq_learner){.options = &f->options,
                              .model = f->model,
                              .selection = &f->selection,
                              .context = f->context,
                              .gemm = f->backend.bf16};
    mq_learner_carve(&f->learner, &f->slab, f->options.samples, f->options.seq_len);
    assert_false(f->slab.overflow);
    assert_int_equal(mq_slab_allocate(&f->slab, "the test's learner", &err), MQ_OK);
    mq_learner_carve(&f->learner, &f->slab, f->options.samples, f->options.seq_len);
    assert_int_equal(mq_learner_load(&f->learner, 0, &err), MQ_OK);
    fill_chains(f, size->seed);
    assert_int_equal(mq_learner_teach(&f->learner, 0, &err), MQ_OK);
    mq_learner_start(&f->learner, 0);
}

/* Which random text, and how many of its four sequences a step sees. */
typedef struct learner_text {
    uint64_t seed;
    size_t batch;
} learner_text;

/* options: its numbers for the loop are replaced by small ones. `name`: of a golden model. */
static inline void open_learner_on(learner_fixture *f, const char *name,
                                   const mq_quantize_options *options, size_t epochs,
                                   learner_text text) {
    const learner_size small = {.samples = 4, .batch = text.batch, .length = 12, .seed = text.seed};
    open_learner_of(f, open_golden(name), options, &small, epochs);
}

/* All of the text in one batch. */
static inline void open_learner(learner_fixture *f, const char *name,
                                const mq_quantize_options *options, size_t epochs) {
    open_learner_on(f, name, options, epochs, (learner_text){11, 4});
}

static inline void close_learner(learner_fixture *f) {
    mq_slab_free(&f->slab);
    mq_backend_close(&f->backend);
    mq_selection_free(&f->selection);
    mq_model_free(f->model);
    mq_context_free(f->context);
}

static inline size_t learner_floats(const learner_fixture *f) {
    return f->learner.chains.sequences * f->learner.chains.length * f->model->config.hidden_size;
}

/* The block at trained width k with the values as they are; what weights and shape point at lives
 * as long as the fixture. */
static inline void learner_block(mq_block_weights *weights, mq_block_shape *shape,
                                 const learner_fixture *f, size_t k) {
    *weights = mq_block_params_view(&f->learner.params);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (f->learner.grid[i].groups > 0) {
            weights->linear[i] = f->learner.values[i][k].f32;
        }
    }
    *shape = mq_block_shape_of(&f->model->config, 0, &f->learner.rotations,
                               f->learner.chains.sequences, f->learner.chains.length);
}

/* y: the block's output at trained width k. */
static inline void learner_forward(float *y, learner_fixture *f, size_t k) {
    mq_block_weights weights;
    mq_block_shape shape;
    learner_block(&weights, &shape, f, k);
    mq_block_forward(y, f->learner.chains.student[k], &weights, &shape, f->learner.activations,
                     f->context);
}

/* How far the block, at full precision with the learner's weights as they are now, is from the
 * target: the largest difference as a share of the largest number. */
static inline double learner_off_target(learner_fixture *f) {
    mq_block_weights weights;
    mq_block_shape shape;
    learner_block(&weights, &shape, f, 0);
    weights = mq_block_params_view(&f->learner.params);
    const size_t count = learner_floats(f);
    float *y = mq_calloc(count, sizeof *y);
    assert_non_null(y);
    mq_block_forward(y, f->learner.chains.teacher, &weights, &shape, f->learner.activations,
                     f->context);
    double largest = 0.0, off = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double target = (double)f->learner.chains.target[i];
        largest = fmax(largest, fabs(target));
        off = fmax(off, fabs((double)y[i] - target));
    }
    mq_free(y);
    return off / largest;
}

#endif
