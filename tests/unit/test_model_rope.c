/* layer: model */
/* Rotation tables against those of transformers, for every scaling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model_test.h"

static double worst_difference(const float *a, const float *b, size_t count) {
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

static void check_table(const char *name, const mq_tensors *expected, const mq_config *config,
                        size_t which) {
    static const char *const keys[2][2] = {{"global.cos", "global.sin"},
                                           {"local.cos", "local.sin"}};
    size_t elements;
    float *cos_expected = read_expected(expected, keys[which][0], &elements);
    float *sin_expected = read_expected(expected, keys[which][1], &elements);
    const size_t half = mq_config_rotary_dim(config) / 2, length = elements / half;
    assert_int_equal(length * half, elements);
    float *cos_table = mq_alloc(elements, sizeof(float)),
          *sin_table = mq_alloc(elements, sizeof(float));
    assert_true(cos_table != NULL && sin_table != NULL);
    mq_rope_tables(cos_table, sin_table, &config->rope[which], config, length);
    const double worst = fmax(worst_difference(cos_table, cos_expected, elements),
                              worst_difference(sin_table, sin_expected, elements));
    if (!(worst < 4e-6)) {
        fail_msg("%s, rotary table %zu: off by %g", name, which, worst);
    }
    mq_free(sin_table);
    mq_free(cos_table);
    mq_free(sin_expected);
    mq_free(cos_expected);
}

static void test_goldens(void **state) {
    (void)state;
    static const char *const cases[] = {
        "llama",
        "llama-head-dim",
        "rope-default",
        "rope-linear",
        "rope-linear-v4",
        "rope-dynamic",
        "rope-llama3",
        "rope-llama3-v4",
        "rope-yarn",
        "rope-yarn-options",
        "rope-yarn-no-factor",
        "gemma3",
        "gemma3-v4-bf16",
        "gemma3-dynamic",
        "qwen3-biases",
        "mistral",
        "smollm3-biases",
        "gemma2-published",
        "gemma2-own-head",
        "granite-biases",
        "olmo2-biases",
        "phi3",
        "phi4-mini-unscaled",
        "phi4-mini",
        "phi4-mini-factor",
        "phi4-mini-v5",
    };
    const size_t count = sizeof cases / sizeof cases[0];
    for (size_t i = 0; i < count; i++) {
        char *folder = golden_path(cases[i], "");
        mq_tensors *expected = open_expected(cases[i]);
        mq_config config;
        mq_error err = {0};
        if (mq_config_read(&config, folder, &err) != MQ_OK) {
            fail_with(cases[i], &err);
        }
        check_table(cases[i], expected, &config, 0);
        if (config.arch->local_rope) {
            check_table(cases[i], expected, &config, 1);
        }
        mq_config_free(&config);
        mq_tensors_close(expected);
        mq_free(folder);
    }
}

/* Dynamic NTK changes nothing up to the trained length, and every position beyond it. */
static void test_dynamic_length(void **state) {
    (void)state;
    enum { TRAINED = 8, HALF = 4 };
    const mq_config config = {.head_dim = 2 * HALF, .max_position_embeddings = TRAINED};
    mq_rope plain = {.type = MQ_ROPE_NONE, .rope_theta = 100.0, .factor = 3.0};
    mq_rope dynamic = plain;
    dynamic.type = MQ_ROPE_DYNAMIC;
    float c[2][(TRAINED + 1) * HALF], s[2][(TRAINED + 1) * HALF];
    mq_rope_tables(c[0], s[0], &plain, &config, TRAINED);
    mq_rope_tables(c[1], s[1], &dynamic, &config, TRAINED);
    assert_memory_equal(c[0], c[1], TRAINED * HALF * sizeof(float));
    assert_memory_equal(s[0], s[1], TRAINED * HALF * sizeof(float));
    mq_rope_tables(c[1], s[1], &dynamic, &config, TRAINED + 1);
    for (size_t i = 0; i < TRAINED; i++) {
        const bool same = memcmp(s[0] + i * HALF, s[1] + i * HALF, HALF * sizeof(float)) == 0;
        assert_int_equal(same, i == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_dynamic_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
