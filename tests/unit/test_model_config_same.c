/* layer: model */
/* When two configurations are of one computation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

static bool same(const char *a, const char *b) {
    mq_config of_a = parse_good(a), of_b = parse_good(b);
    const bool result = mq_config_same(&of_a, &of_b);
    assert_int_equal(mq_config_same(&of_b, &of_a), result);
    mq_config_free(&of_a);
    mq_config_free(&of_b);
    return result;
}

#define YARN "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2"
#define LLAMA3(low, high)                                                                          \
    "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":" #low            \
    ",\"high_freq_factor\":" #high ",\"original_max_position_embeddings\":16}"

/* The text with `size` in place of its %d. */
static void one_size(char *out, size_t room, const char *text, int size) {
    const char *at = strstr(text, "%d");
    assert_non_null(at);
    snprintf(out, room, "%.*s%d%s", (int)(at - text), text, size, at + 2);
}

/* A default and the same by name are one computation; every other value is another. */
static void test_same(void **state) {
    (void)state;
    assert_true(same("{" GEMMA "}",
                     "{" GEMMA ",\"head_dim\":256,\"num_key_value_heads\":4,\"rms_norm_eps\":1e-6,"
                     "\"tie_word_embeddings\":true,\"sliding_window_pattern\":6,"
                     "\"rope_theta\":1000000,\"rope_local_base_freq\":10000,"
                     "\"max_position_embeddings\":131072,\"attention_bias\":false}"));
    assert_false(same("{" GEMMA "}", "{" LLAMA "}"));
    static const char *const fields[] = {
        "\"head_dim\":128",
        "\"num_key_value_heads\":2",
        "\"rms_norm_eps\":1e-5",
        "\"tie_word_embeddings\":false",
        "\"sliding_window_pattern\":2",
        "\"rope_theta\":5000",
        "\"rope_local_base_freq\":5000",
        "\"max_position_embeddings\":1024",
        "\"attention_bias\":true",
        "\"query_pre_attn_scalar\":64",
        "\"attn_logit_softcapping\":30",
        "\"final_logit_softcapping\":30",
        "\"hidden_activation\":\"silu\"",
        "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2}",
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[1024];
        snprintf(text, sizeof text, "{" GEMMA ",%s}", fields[i]);
        assert_false(same("{" GEMMA "}", text));
    }
    static const char *const of_llama[] = {
        "\"mlp_bias\":true",
        "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}",
        YARN "}",
        YARN ",\"beta_fast\":16}",
        YARN ",\"beta_slow\":2}",
        YARN ",\"attention_factor\":0.5}",
        YARN ",\"mscale\":2}",
        YARN ",\"mscale_all_dim\":2}",
        YARN ",\"truncate\":false}",
        YARN ",\"original_max_position_embeddings\":16}",
        LLAMA3(1, 4),
        LLAMA3(2, 4),
        LLAMA3(1, 8),
    };
    const size_t count = sizeof of_llama / sizeof *of_llama;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            char a[1024], b[1024];
            snprintf(a, sizeof a, "{" LLAMA ",%s}", of_llama[i]);
            snprintf(b, sizeof b, "{" LLAMA ",%s}", of_llama[k]);
            assert_int_equal(same(a, b), i == k);
        }
        char text[1024];
        snprintf(text, sizeof text, "{" LLAMA ",%s}", of_llama[i]);
        assert_false(same("{" LLAMA "}", text));
    }
    static const char *const sizes[] = {
        "{\"model_type\":\"llama\",\"hidden_size\":%d,\"intermediate_size\":40,"
        "\"num_hidden_layers\":4,\"num_attention_heads\":4,\"head_dim\":8,\"vocab_size\":64}",
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":%d,"
        "\"num_hidden_layers\":4,\"num_attention_heads\":4,\"vocab_size\":64}",
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":40,"
        "\"num_hidden_layers\":%d,\"num_attention_heads\":4,\"vocab_size\":64}",
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":40,"
        "\"num_hidden_layers\":4,\"num_attention_heads\":%d,\"head_dim\":8,"
        "\"num_key_value_heads\":4,\"vocab_size\":64}",
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":40,"
        "\"num_hidden_layers\":4,\"num_attention_heads\":4,\"vocab_size\":%d}",
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char a[512], b[512];
        one_size(a, sizeof a, sizes[i], 32);
        one_size(b, sizeof b, sizes[i], 64);
        assert_false(same(a, b));
    }
    assert_false(same("{" GEMMA "}",
                      "{" GEMMA ",\"layer_types\":[\"sliding_attention\",\"full_attention\","
                      "\"sliding_attention\",\"sliding_attention\"]}"));
    assert_false(same("{" GEMMA ",\"sliding_window_pattern\":2}",
                      "{" GEMMA ",\"sliding_window_pattern\":2,\"sliding_window\":7}"));
#define SMOLLM3 "{\"model_type\":\"smollm3\"," SIZES
    assert_true(same(SMOLLM3 "}", SMOLLM3 ",\"no_rope_layers\":[1,1,1,0]}"));
    assert_true(same(SMOLLM3 ",\"no_rope_layer_interval\":2}",
                     SMOLLM3 ",\"no_rope_layers\":[1,0,1,0],\"no_rope_layer_interval\":4}"));
    assert_false(same(SMOLLM3 "}", SMOLLM3 ",\"no_rope_layers\":[1,1,1,1]}"));
#undef SMOLLM3
}

/* Each of the multipliers, and that 1 is what is there without. */
static void test_same_granite(void **state) {
    (void)state;
    static const char *const fields[] = {"embedding_multiplier", "attention_multiplier",
                                         "residual_multiplier", "logits_scaling"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[512];
        snprintf(text, sizeof text, "{" GRANITE ",\"%s\":1}", fields[i]);
        assert_true(same("{" GRANITE "}", text));
        snprintf(text, sizeof text, "{" GRANITE ",\"%s\":0.5}", fields[i]);
        assert_false(same("{" GRANITE "}", text));
    }
}

static void test_same_gemma2(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool same;
    } cases[] = {
        {"{" GEMMA2 ",\"attn_logit_softcapping\":50,\"final_logit_softcapping\":30}", true},
        {"{" GEMMA2 ",\"layer_types\":[\"sliding_attention\",\"full_attention\","
         "\"sliding_attention\",\"full_attention\"]}",
         true},
        {"{" GEMMA2 ",\"attn_logit_softcapping\":null}", false},
        {"{" GEMMA2 ",\"final_logit_softcapping\":null}", false},
        {"{" GEMMA ",\"sliding_window_pattern\":2}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(same("{" GEMMA2 "}", cases[i].text), cases[i].same);
    }
}

static void test_same_phi3(void **state) {
    (void)state;
#define PHI3 "{\"model_type\":\"phi3\"," SIZES ",\"partial_rotary_factor\":0.5"
#define NAMED(type, second) "{" type ",\"short_factor\":[1,2],\"long_factor\":[3," second "]}"
#define FACTORS(second) NAMED("\"type\":\"longrope\"", second)
    static const struct {
        const char *text;
        bool same;
    } cases[] = {
        {PHI3 ",\"rope_parameters\":" FACTORS("4") "}", true},
        {PHI3 ",\"rope_scaling\":" FACTORS("4.0") "}", true},
        {PHI3 ",\"rope_scaling\":" FACTORS("5") "}", false},
        {PHI3 "}", false},
        {"{\"model_type\":\"phi3\"," SIZES "}", false},
        /* As transformers renames types, and leaves the older name beside its own. */
        {PHI3 ",\"rope_scaling\":" NAMED("\"type\":\"su\"", "4") "}", true},
        {PHI3 ",\"rope_scaling\":" NAMED("\"type\":\"yarn\"", "4") "}", true},
        {PHI3 ",\"rope_parameters\":" NAMED("\"type\":\"su\",\"rope_type\":\"longrope\"", "4") "}",
         true},
        {PHI3 ",\"rope_scaling\":" NAMED("\"type\":\"su\"", "5") "}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(same(cases[0].text, cases[i].text), cases[i].same);
    }
    assert_false(same(cases[3].text, cases[4].text)); /* but for how much of a head rotates */
#undef FACTORS
#undef NAMED
#undef PHI3
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_same_gemma2),
        cmocka_unit_test(test_same_granite),
        cmocka_unit_test(test_same_phi3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
