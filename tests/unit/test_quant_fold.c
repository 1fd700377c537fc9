/* layer: quant */
/* Equivalent scales between neighbouring layers: equivalent, of the inputs' sizes, confined to
 * quantized layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "learner_fixture.h"

static float *floats(size_t count) {
    float *values = mq_calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

static bool same_weights(const learner_fixture *a, const learner_fixture *b, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &a->model->config, linear);
    return memcmp(a->learner.params.linear[linear], b->learner.params.linear[linear],
                  out * in * sizeof(float)) == 0;
}

static mq_quantize_options fold_options(bool fold) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.fold = fold;
    options.refit = false;
    return options;
}

/* Only the pairs' weights change, and where the producer has a bias not even those. */
static void the_block_stays_what_it_was(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "llama-biases", "gemma3",
                                         "qwen2", "granite",      "olmo2"};
    static const bool biases[][2] = {{false, false}, {true, true},   {false, false},
                                     {true, false},  {false, false}, {false, false}};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        const mq_quantize_options with = fold_options(true), without = fold_options(false);
        learner_fixture folded, plain;
        open_learner(&folded, models[m], &with, 1);
        open_learner(&plain, models[m], &without, 1);
        const mq_config *config = &folded.model->config;
        assert_true(learner_off_target(&folded) < 1e-5);
        static const mq_linear producers[] = {MQ_V, MQ_UP}, consumers[] = {MQ_O, MQ_DOWN};
        for (size_t p = 0; p < 2; p++) {
            const bool bias = mq_config_has_bias(config, producers[p]);
            assert_int_equal(bias, biases[m][p]);
            assert_int_equal(same_weights(&folded, &plain, producers[p]), bias);
            assert_int_equal(same_weights(&folded, &plain, consumers[p]), bias);
        }
        static const mq_linear others[] = {MQ_Q, MQ_K, MQ_GATE};
        for (size_t i = 0; i < 3; i++) {
            assert_true(same_weights(&folded, &plain, others[i]));
        }
        close_learner(&folded);
        close_learner(&plain);
    }
}

/* The Gram matrices are those of the inputs that the folded block has. */
static void gram_matrices_follow(void **state) {
    (void)state;
    const mq_quantize_options options = fold_options(true);
    learner_fixture f;
    open_learner(&f, "llama", &options, 1);
    static const mq_linear consumers[] = {MQ_O, MQ_DOWN};
    float *expected[2], *diagonal[2];
    size_t in[2];
    for (size_t i = 0; i < 2; i++) {
        size_t out;
        mq_config_linear_shape(&out, &in[i], &f.model->config, consumers[i]);
        expected[i] = floats(in[i] * in[i]);
        diagonal[i] = floats(in[i]);
        memcpy(expected[i], f.learner.gram_matrix[consumers[i]], in[i] * in[i] * sizeof(float));
        memcpy(diagonal[i], f.learner.gram[consumers[i]], in[i] * sizeof(float));
    }
    assert_int_equal(mq_learner_teach(&f.learner, 0, NULL), MQ_OK); /* of the folded weights */
    for (size_t i = 0; i < 2; i++) {
        const float *matrix = f.learner.gram_matrix[consumers[i]];
        for (size_t r = 0; r < in[i]; r++) {
            assert_float_equal(f.learner.gram[consumers[i]][r], diagonal[i][r],
                               1e-4f * diagonal[i][r]);
            for (size_t c = r; c < in[i]; c++) { /* the upper triangle is all that is kept */
                const float size = sqrtf(matrix[r * in[i] + r] * matrix[c * in[i] + c]);
                assert_float_equal(matrix[r * in[i] + c], expected[i][r * in[i] + c], 1e-4f * size);
            }
        }
        mq_free(expected[i]);
        mq_free(diagonal[i]);
    }
    close_learner(&f);
}

/* Two heads of two channels, each read by two query heads: a scale is of all that read the row. */
static void a_head_has_one_scale_for_its_group(void **state) {
    (void)state;
    float producer[4] = {1, 1, 1, 1}, consumer[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float gram[8] = {1, 16, 31, 240, 3, 2, 1, 6}, scale[8];
    const mq_fold_pair pair = {.heads = 2,
                               .copies = 2,
                               .width = 2,
                               .producer = producer,
                               .producer_in = 1,
                               .consumer = consumer,
                               .consumer_out = 1,
                               .gram = gram};
    mq_fold(scale, &pair);
    static const float squares[4] = {16, 128, 2, 4}; /* means over the query heads of a group */
    const float mean = powf(16.0f * 128.0f * 2.0f * 4.0f, 0.0625f);
    for (size_t row = 0; row < 4; row++) {
        const float s = powf(squares[row], 0.25f) / mean;
        const size_t first = row / 2 * 4 + row % 2;
        assert_float_equal(producer[row], 1.0f / s, 1e-5f);
        assert_float_equal(consumer[first], s, 1e-5f);
        assert_float_equal(consumer[first + 2], s, 1e-5f);
    }
    assert_float_equal(gram[2], 31.0f / (scale[2] * scale[2]), 1e-4f);
}

/* A layer that is left out keeps its weights, and so does its partner. */
static void pairs_are_folded_whole(void **state) {
    (void)state;
    static const char *const exclude[] = {"down_proj$"};
    mq_quantize_options with = fold_options(true), without = fold_options(false);
    with.exclude = without.exclude = exclude;
    with.exclude_count = without.exclude_count = 1;
    learner_fixture folded, plain;
    open_learner(&folded, "llama", &with, 1);
    open_learner(&plain, "llama", &without, 1);
    assert_true(same_weights(&folded, &plain, MQ_UP));
    assert_true(same_weights(&folded, &plain, MQ_DOWN));
    assert_false(same_weights(&folded, &plain, MQ_V));
    assert_false(same_weights(&folded, &plain, MQ_O));
    close_learner(&folded);
    close_learner(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_stays_what_it_was),
        cmocka_unit_test(gram_matrices_follow),
        cmocka_unit_test(a_head_has_one_scale_for_its_group),
        cmocka_unit_test(pairs_are_folded_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
