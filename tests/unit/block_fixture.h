/* A block with random parameters, its activations and gradients, for tests of mq_block_forward and
 * mq_block_backward. */
#ifndef MQ_TESTS_BLOCK_FIXTURE_H
#define MQ_TESTS_BLOCK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "double_block.h"

/* A block with its parameters, activations and gradients. */
typedef struct fixture {
    mq_config config;
    bool local[1];
    mq_block_shape shape;
    mq_context *context;
    double_params layout;
    mq_slab slab;
    mq_activations *activations;
    float *values, *grads; /* [layout.count] */
    float *y, *dy, *cos_table, *sin_table;
} fixture;

static inline size_t fixture_tokens(const fixture *f) {
    return f->shape.sequences * f->shape.length;
}

static inline void carve_fixture(fixture *f, bool backward) {
    const size_t tokens = fixture_tokens(f), size = sizeof(float);
    mq_slab *slab = &f->slab;
    const mq_activations_use use = {.config = &f->config,
                                    .sequences = f->shape.sequences,
                                    .length = f->shape.length,
                                    .f32 = backward ? MQ_PASS_BACKWARD : MQ_PASS_FORWARD};
    f->activations = mq_activations_carve(slab, &use, f->context);
    f->values = mq_carve(slab, f->layout.count, size);
    f->grads = mq_carve(slab, f->layout.count, size);
    f->y = mq_carve(slab, tokens * f->config.hidden_size, size);
    f->dy = mq_carve(slab, tokens * f->config.hidden_size, size);
    f->cos_table = mq_carve(slab, f->shape.length * mq_config_rotary_dim(&f->config) / 2, size);
    f->sin_table = mq_carve(slab, f->shape.length * mq_config_rotary_dim(&f->config) / 2, size);
}

static inline void randomize(float *out, size_t count, float centre, float width,
                             mq_random *random) {
    for (size_t i = 0; i < count; i++) {
        out[i] = centre + width * (float)(2.0 * mq_random_unit(random) - 1.0);
    }
}

static inline void fill_fixture(fixture *f) {
    mq_random random;
    mq_random_seed(&random, 7, 0);
    randomize(f->values, f->layout.count, 0.0F, 0.5F, &random);
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        randomize(f->values + f->layout.norm[n], f->layout.norm_size[n], 1.0F, 0.5F, &random);
    }
    randomize(f->values + f->layout.input, f->layout.input_size, 0.0F, 2.0F, &random);
    randomize(f->dy, f->layout.input_size, 0.0F, 1.0F, &random);
    memset(f->grads, 0, f->layout.count * sizeof *f->grads); /* biases have none */
    const size_t half = mq_config_rotary_dim(&f->config) / 2;
    for (size_t i = 0; i < f->shape.length * half; i++) {
        const double angle = (double)(i / half) * pow(10000.0, -(double)(i % half) / (double)half);
        f->cos_table[i] = (float)cos(angle);
        f->sin_table[i] = (float)sin(angle);
    }
    const bool rotates = !f->config.arch->no_rope; /* where some layers do not, this one does not */
    f->shape.cos_table = rotates ? f->cos_table : NULL;
    f->shape.sin_table = rotates ? f->sin_table : NULL;
    f->shape.config = &f->config;
}

/* f->config and f->shape's sizes are given. */
static inline void open_fixture(fixture *f, size_t threads, bool biases, bool backward) {
    const mq_context_options options = {.threads = threads};
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
    f->config.layer_is_local = f->local;
    f->config.num_hidden_layers = 1;
    f->local[0] = f->config.sliding_window > 0;
    f->shape.layer = 0;
    f->layout = double_layout(&f->config, fixture_tokens(f), biases);
    f->slab = (mq_slab){0};
    carve_fixture(f, backward);
    assert_int_equal(mq_slab_allocate(&f->slab, "the test", NULL), MQ_OK);
    carve_fixture(f, backward);
    assert_false(f->slab.overflow);
    assert_int_equal(f->slab.used, f->slab.size);
    fill_fixture(f);
}

static inline void close_fixture(fixture *f) {
    mq_slab_free(&f->slab);
    mq_context_free(f->context);
}

static inline mq_block_weights fixture_weights(const fixture *f) {
    mq_block_weights w = {0};
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        w.linear[l] = f->values + f->layout.linear[l];
        w.bias[l] = f->layout.bias_size[l] > 0 ? f->values + f->layout.bias[l] : NULL;
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        w.norm[n] = f->layout.norm_size[n] > 0 ? f->values + f->layout.norm[n] : NULL;
    }
    return w;
}

static inline mq_block_grads all_grads(const fixture *f) {
    mq_block_grads g = {.input = f->grads + f->layout.input};
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        g.linear[l] = f->grads + f->layout.linear[l];
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        g.norm[n] = f->layout.norm_size[n] > 0 ? f->grads + f->layout.norm[n] : NULL;
    }
    return g;
}

/* Forward, then backward for the wanted gradients; dy survives. */
static inline void run_fixture(fixture *f, mq_block_grads *grads) {
    const mq_block_weights weights = fixture_weights(f);
    const float *x = f->values + f->layout.input;
    float *dy = mq_alloc(f->layout.input_size, sizeof *dy);
    assert_non_null(dy);
    memcpy(dy, f->dy, f->layout.input_size * sizeof *dy);
    mq_block_forward(f->y, x, &weights, &f->shape, f->activations, f->context);
    mq_block_backward(grads, dy, x, &weights, &f->shape, f->activations, f->context);
    mq_free(dy);
}

/* max |a - b| / max |b| over count. */
static inline double relative_error(const float *a, const float *b, size_t count) {
    double error = 0.0, largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        error = fmax(error, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return count == 0 ? 0.0 : error / largest;
}

static inline void check_close(const char *what, const float *a, const float *b, size_t count,
                               double tolerance) {
    const double error = relative_error(a, b, count);
    if (!(error <= tolerance)) {
        fail_msg("%s: relative error %.2g", what, error);
    }
}

/* Calls check_close for every part of a and b, laid out as f->layout, but for biases, which have no
 * gradients. */
static inline void check_parts(const fixture *f, const float *a, const float *b, double tolerance) {
    static const char *const linear[] = {"q", "k", "v", "o", "gate", "up", "down"};
    static const char *const norm[] = {
        "input norm", "post attention norm", "pre ffn norm", "post ffn norm", "q norm", "k norm"};
    const double_params *p = &f->layout;
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        check_close(linear[l], a + p->linear[l], b + p->linear[l], p->linear_size[l], tolerance);
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        check_close(norm[n], a + p->norm[n], b + p->norm[n], p->norm_size[n], tolerance);
    }
    check_close("input", a + p->input, b + p->input, p->input_size, tolerance);
}

/* More than one tile of a product's rows, tile of queries and piece of a weight; no size a multiple
 * of anything. */
static inline fixture large_fixture(const char *architecture) {
    return (fixture){.config = {.arch = mq_arch_find(architecture),
                                .hidden_size = 100,
                                .intermediate_size = 803,
                                .num_attention_heads = 6,
                                .num_key_value_heads = 2,
                                .head_dim = 22,
                                .rms_norm_eps = 1e-5,
                                .attention_scale = 0.2,
                                .residual_multiplier = 1.0,
                                .sliding_window = 150,
                                .activation = MQ_SILU},
                     .shape = {.sequences = 3, .length = 275}};
}

#endif
