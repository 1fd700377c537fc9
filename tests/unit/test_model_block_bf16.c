/* layer: model */
/* A block with products of bfloat16 against the same block in float32, and against itself with
 * other threads; skipped where the program or the processor has no such products. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "model/activations.h"
#include "model/ops.h"

/* No multiple of anything, and with whole runs of tokens and a rest (mq_block_in_runs). */
enum { SEQUENCES = 3, LENGTH = 150, TOKENS = SEQUENCES * LENGTH };
/* Of the feed-forward part: of a model that goes in runs, and of one that goes in slabs, whose
 * operands all have more than one panel. */
enum { IN_RUNS = 200, IN_SLABS = 4100 };
/* The same where attention's output is wider than everything else. */
enum { NARROW = 24 };

typedef struct fixture {
    mq_config config;
    bool local[1];
    mq_block_shape shape;
    mq_context *context;
    mq_gemm_bf16 *gemm;
    mq_slab slab;
    mq_block_params params, grads;
    mq_activations *activations;
    float *x, *y, *dy, *dx, *cos_table, *sin_table;
} fixture;

static void carve(fixture *f) {
    const size_t size = sizeof(float), hidden = TOKENS * f->config.hidden_size;
    const size_t angles = LENGTH * mq_config_rotary_dim(&f->config) / 2;
    mq_block_params_carve(&f->params, &f->slab, &f->config);
    mq_block_params_carve_rounded(&f->params, &f->slab, &f->config, NULL);
    mq_block_params_carve(&f->grads, &f->slab, &f->config);
    const mq_activations_use use = {.config = &f->config,
                                    .sequences = SEQUENCES,
                                    .length = LENGTH,
                                    .f32 = MQ_PASS_BACKWARD,
                                    .bf16 = MQ_PASS_BACKWARD,
                                    .gemm = f->gemm};
    f->activations = mq_activations_carve(&f->slab, &use, f->context);
    float **arrays[] = {&f->x, &f->y, &f->dy, &f->dx, &f->cos_table, &f->sin_table};
    for (size_t i = 0; i < 6; i++) {
        *arrays[i] = mq_carve(&f->slab, i < 4 ? hidden : angles, size);
    }
}

static void randomize(float *out, size_t count, float centre, float width, mq_random *random) {
    for (size_t i = 0; i < count; i++) {
        out[i] = centre + width * (float)(2.0 * mq_random_unit(random) - 1.0);
    }
}

static void fill(fixture *f) {
    mq_random random;
    mq_random_seed(&random, 7, 0);
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &f->config, l);
        /* so wide that outputs are about as large as inputs, as in a trained model */
        randomize(f->params.linear[l], out * in, 0.0F, sqrtf(3.0F / (float)in), &random);
    }
    mq_block_params_round(&f->params, &f->config, NULL);
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        randomize(f->params.norm[n], mq_config_norm_size(&f->config, n), 1.0F, 0.5F, &random);
    }
    randomize(f->x, TOKENS * f->config.hidden_size, 0.0F, 2.0F, &random);
    mq_rope_tables(f->cos_table, f->sin_table, &f->config.rope[0], &f->config, LENGTH);
    const bool rotates = !f->config.arch->no_rope; /* where some layers do not, this one does not */
    f->shape = (mq_block_shape){.config = &f->config,
                                .sequences = SEQUENCES,
                                .length = LENGTH,
                                .cos_table = rotates ? f->cos_table : NULL,
                                .sin_table = rotates ? f->sin_table : NULL};
}

static void open_fixture(fixture *f, const char *architecture, size_t intermediate_size,
                         size_t threads) {
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    const mq_context_options options = {.threads = threads};
    const bool large = intermediate_size == IN_SLABS;
    *f = (fixture){.config = {.arch = mq_arch_find(architecture),
                              .hidden_size = large                         ? 640
                                             : intermediate_size == NARROW ? 40
                                                                           : 72,
                              .intermediate_size = intermediate_size,
                              .num_attention_heads = 6,
                              .num_key_value_heads = 2,
                              .head_dim = large ? 128 : 16,
                              .num_hidden_layers = 1,
                              .rms_norm_eps = 1e-5,
                              .attention_scale = large ? 0.088 : 0.25,
                              .residual_multiplier = 1.0}};
    if (f->config.arch->multipliers) {
        f->config.residual_multiplier = 0.5;
    }
    f->config.activation = f->config.arch->default_activation;
    f->config.rope[0].rope_theta = 10000.0;
    f->config.unrotated_dim = f->config.arch->partial_rotary ? 4 : 0;
    f->config.layer_is_local = f->local;
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
    assert_int_equal(mq_gemm_bf16_new(&f->gemm, threads, NULL), MQ_OK);
    assert_int_equal(mq_block_prepare(f->gemm, &f->config, SEQUENCES, LENGTH, true, NULL), MQ_OK);
    carve(f);
    assert_int_equal(mq_slab_allocate(&f->slab, "the test", NULL), MQ_OK);
    carve(f);
    assert_false(f->slab.overflow);
    fill(f);
}

static void close_fixture(fixture *f) {
    mq_slab_free(&f->slab);
    mq_gemm_bf16_free(f->gemm);
    mq_context_free(f->context);
}

/* Forward and the gradients of everything, for one dy; the linears' to `take` if it is not NULL. */
static void run_taken(fixture *f, bool bf16,
                      void (*take)(void *, mq_linear, size_t, size_t, const float *), void *user) {
    mq_block_weights weights =
        bf16 ? mq_block_params_view_bf16(&f->params) : mq_block_params_view(&f->params);
    mq_block_grads grads = {.input = f->dx, .take = take, .user = user};
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        weights.linear[l] = bf16 ? NULL : weights.linear[l];
        grads.linear[l] = f->grads.linear[l];
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        grads.norm[n] = mq_config_norm_size(&f->config, n) > 0 ? f->grads.norm[n] : NULL;
    }
    mq_random random;
    mq_random_seed(&random, 8, 0);
    randomize(f->dy, TOKENS * f->config.hidden_size, 0.0F, 1.0F, &random);
    mq_block_forward(f->y, f->x, &weights, &f->shape, f->activations, f->context);
    mq_block_backward(&grads, f->dy, f->x, &weights, &f->shape, f->activations, f->context);
    assert_int_equal(mq_gemm_bf16_check(f->gemm, NULL), MQ_OK);
}

static void run(fixture *f, bool bf16) { run_taken(f, bf16, NULL, NULL); }

/* Copies of all results: the output, the input's gradient, then those of linears and norms. */
enum { RESULTS = 2 + MQ_LINEAR_COUNT + MQ_NORM_COUNT };

static void results_of(const float *result[RESULTS], size_t count[RESULTS], const fixture *f) {
    size_t i = 0;
    result[i] = f->y;
    count[i++] = TOKENS * f->config.hidden_size;
    result[i] = f->dx;
    count[i++] = TOKENS * f->config.hidden_size;
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &f->config, l);
        result[i] = f->grads.linear[l];
        count[i++] = out * in;
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        result[i] = f->grads.norm[n];
        count[i++] = mq_config_norm_size(&f->config, n);
    }
}

static float *keep(const float *values, size_t count) {
    float *copy = mq_alloc(count, sizeof *copy);
    assert_non_null(copy);
    if (count > 0) { /* else the architecture has no such norm, and values is NULL */
        memcpy(copy, values, count * sizeof *copy);
    }
    return copy;
}

/* ‖a - b‖ / ‖b - base‖; base NULL: 0. */
static double distance(const float *a, const float *b, const float *base, size_t count) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < count; i++) {
        difference += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i] - (base ? (double)base[i] : 0.0), 2);
    }
    return sqrt(difference / size);
}

/* A rounded operand is off by 2^-8 of itself at most, by 2^-8/√6 in the mean of squares (its error
 * is anywhere within half a unit of the last of 8 bits, its size anywhere between two powers of 2).
 * Twelve operands lie on the longest way through a forward (two of them in attention), some
 * twenty-six on that through forward and backward: independent errors add up to √12·2^-8/√6 and
 * √26·2^-8/√6 of what passes, and softmax, norms and activations may enlarge them, for which a
 * factor of 2.7 is allowed. That is 2^-6 of what the block adds to its input, and 2^-5.5 of each
 * gradient. (Float32's own error is 2^-20.) */
static void bf16_is_close_to_float32(void **state) {
    (void)state;
    static const struct {
        const char *architecture;
        size_t intermediate_size;
    } models[] = {{"LlamaForCausalLM", IN_RUNS},   {"Gemma3ForCausalLM", IN_RUNS},
                  {"SmolLM3ForCausalLM", IN_RUNS}, {"Gemma2ForCausalLM", IN_RUNS},
                  {"GraniteForCausalLM", IN_RUNS}, {"Olmo2ForCausalLM", IN_RUNS},
                  {"Phi3ForCausalLM", IN_RUNS},    {"LlamaForCausalLM", IN_SLABS}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        fixture f;
        const float *result[RESULTS];
        float *expected[RESULTS];
        size_t count[RESULTS];
        open_fixture(&f, models[i].architecture, models[i].intermediate_size, 2);
        assert_int_equal(mq_block_in_runs(&f.config), models[i].intermediate_size == IN_RUNS);
        run(&f, false);
        results_of(result, count, &f);
        for (size_t r = 0; r < RESULTS; r++) {
            expected[r] = keep(result[r], count[r]);
        }
        run(&f, true);
        for (size_t r = 0; r < RESULTS; r++) {
            if (count[r] > 0) {
                const double error =
                    distance(result[r], expected[r], r == 0 ? f.x : NULL, count[r]);
                const double bound = r == 0 ? 0x1p-6 : exp2(-5.5);
                if (!(error <= bound) || !(error > 0x1p-14)) { /* and it is bfloat16 */
                    fail_msg("%s, %zu, result %zu: off by %.2g", models[i].architecture,
                             models[i].intermediate_size, r, error);
                }
            }
            mq_free(expected[r]);
        }
        close_fixture(&f);
    }
}

static void check_threads(const char *architecture, size_t intermediate_size) {
    fixture f[2];
    const float *result[2][RESULTS];
    size_t count[RESULTS];
    for (size_t i = 0; i < 2; i++) {
        open_fixture(&f[i], architecture, intermediate_size, 1 + 2 * i);
        run(&f[i], true);
        results_of(result[i], count, &f[i]);
    }
    for (size_t r = 0; r < RESULTS; r++) {
        if (count[r] > 0) {
            assert_memory_equal(result[0][r], result[1][r], count[r] * sizeof(float));
        }
    }
    close_fixture(&f[0]);
    close_fixture(&f[1]);
}

static void threads_give_the_same_bytes(void **state) {
    (void)state;
    check_threads("Gemma3ForCausalLM", IN_RUNS);
    check_threads("LlamaForCausalLM", IN_SLABS);
}

/* Rows of the linears' gradients as they were given away, and how often each was. */
typedef struct taken {
    float *rows[MQ_LINEAR_COUNT];
    size_t in[MQ_LINEAR_COUNT];
    int *times[MQ_LINEAR_COUNT];
} taken;

static void take(void *user, mq_linear linear, size_t first, size_t count, const float *dw) {
    taken *self = user;
    const size_t in = self->in[linear];
    memcpy(self->rows[linear] + first * in, dw, count * in * sizeof *dw);
    for (size_t row = first; row < first + count; row++) {
        self->times[linear][row]++;
    }
}

static void check_taken(size_t intermediate_size, bool bf16) {
    fixture f;
    taken given;
    size_t out[MQ_LINEAR_COUNT];
    open_fixture(&f, "LlamaForCausalLM", intermediate_size, 3);
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        mq_config_linear_shape(&out[l], &given.in[l], &f.config, l);
        given.rows[l] = mq_calloc(out[l], given.in[l] * sizeof(float));
        given.times[l] = mq_calloc(out[l], sizeof(int));
        assert_true(given.rows[l] != NULL && given.times[l] != NULL);
    }
    run_taken(&f, bf16, take, &given);
    run(&f, bf16);
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        for (size_t row = 0; row < out[l]; row++) {
            assert_int_equal(given.times[l][row], 1);
        }
        assert_memory_equal(given.rows[l], f.grads.linear[l], out[l] * given.in[l] * sizeof(float));
        mq_free(given.rows[l]);
        mq_free(given.times[l]);
    }
    close_fixture(&f);
}

static void gradients_given_away_are_the_same(void **state) {
    (void)state;
    check_taken(IN_RUNS, true);
    check_taken(600, true); /* in several pieces */
    check_taken(IN_SLABS, true);
    check_taken(IN_RUNS, false);
}

/* Element [t, c] of a linear's input as the products read it. */
static double operand(const fixture *f, mq_linear linear, size_t in, size_t t, size_t c) {
    const mq_panels panels = mq_panels_of(in);
    const size_t j = c / panels.width;
    return (double)mq_bf16_value(
        f->activations
            ->input_bf16[linear][mq_panel_at(&panels, j, TOKENS, t) + c - j * panels.width]);
}

/* Rows that are looked at: as many as matter to pieces and panels, and few enough to be quick. */
static void check_gram(const fixture *f, mq_linear linear, const double *squares,
                       const float *matrix) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &f->config, linear);
    for (size_t a = 0; a < in; a += a % 64 == 63 || in < 300 ? 1 : 31) {
        for (size_t b = 0; b < in; b++) {
            double sum = 0.0, size = 0.0;
            for (size_t t = 0; b >= a && t < TOKENS; t++) {
                const double product = operand(f, linear, in, t, a) * operand(f, linear, in, t, b);
                sum += product;
                size += fabs(product);
            }
            /* twice, since it was added twice; nothing below the diagonal */
            assert_true(fabs((double)matrix[a * in + b] - 2.0 * sum) <= 1e-5 * size);
            assert_true(a != b || fabs(squares[a] - 2.0 * sum) <= 1e-5 * size);
        }
    }
}

/* Of every linear's input, added to what is there; and again without the matrix, on other threads.
 */
static void check_grams(size_t intermediate_size) {
    fixture f, single;
    open_fixture(&f, "LlamaForCausalLM", intermediate_size, 3);
    open_fixture(&single, "LlamaForCausalLM", intermediate_size, 1);
    const mq_block_weights weights = mq_block_params_view_bf16(&f.params);
    run(&f, true);
    run(&single, true);
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &f.config, l);
        double *squares = mq_calloc(in, sizeof *squares), *alone = mq_calloc(in, sizeof *alone);
        float *matrix = mq_calloc(in * in, sizeof *matrix);
        float *again = mq_calloc(in * in, sizeof *again);
        assert_true(squares != NULL && alone != NULL && matrix != NULL && again != NULL);
        for (int time = 0; time < 2; time++) {
            mq_block_gram_add(squares, matrix, l, &weights, &f.shape, f.activations, f.context);
            mq_block_gram_add(alone, again, l, &weights, &single.shape, single.activations,
                              single.context);
        }
        if (l == MQ_Q || l == MQ_DOWN || intermediate_size == IN_RUNS) {
            check_gram(&f, mq_block_input_owner(l), squares, matrix);
        }
        assert_memory_equal(matrix, again, in * in * sizeof *matrix);
        assert_memory_equal(squares, alone, in * sizeof *squares);
        memset(alone, 0, in * sizeof *alone);
        for (int time = 0; time < 2; time++) {
            mq_block_gram_add(alone, NULL, l, &weights, &f.shape, f.activations, f.context);
        }
        assert_memory_equal(squares, alone, in * sizeof *squares);
        mq_free(squares);
        mq_free(alone);
        mq_free(matrix);
        mq_free(again);
    }
    close_fixture(&single);
    close_fixture(&f);
}

static void gram_matrices_are_of_the_operands(void **state) {
    (void)state;
    check_grams(IN_RUNS);
    check_grams(NARROW);
    check_grams(IN_SLABS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_is_close_to_float32),
        cmocka_unit_test(threads_give_the_same_bytes),
        cmocka_unit_test(gradients_given_away_are_the_same),
        cmocka_unit_test(gram_matrices_are_of_the_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
