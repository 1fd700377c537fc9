/* layer: model */
/* config.json of OLMo 2, and the norms that follow from it: none before a part of a block, and
 * those of queries and keys over all heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

static void test_defaults(void **state) {
    (void)state;
    accepted(OLMO2, "",
             "architecture Olmo2ForCausalLM|num_key_value_heads 4|head_dim 8|"
             "max_position_embeddings 2048|tie_word_embeddings 0|activation silu|"
             "rms_norm_eps 1e-5|rope_theta 1e4|attention_scale 0.35355339059327373|"
             "attention_bias 0|sliding_window 0|layer_rotation gggg");
}

/* Sizes of all norms, and the rows of a token that each takes by itself. */
static void check_norms(const char *text, const size_t sizes[MQ_NORM_COUNT],
                        const size_t rows[MQ_NORM_COUNT]) {
    mq_config config = parse_good(text);
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        assert_int_equal(mq_config_norm_size(&config, norm), sizes[norm]);
        if (sizes[norm] > 0) {
            assert_int_equal(mq_config_norm_rows(&config, norm), rows[norm]);
        }
    }
    mq_config_free(&config);
}

static void test_norms(void **state) {
    (void)state;
    static const size_t olmo2[] = {
        [MQ_NORM_POST_ATTN] = 32, [MQ_NORM_POST_FFN] = 32, [MQ_NORM_Q] = 48, [MQ_NORM_K] = 24};
    static const size_t gemma[] = {32, 32, 32, 32, 12, 12};
    check_norms("{" OLMO2 ",\"head_dim\":12,\"num_key_value_heads\":2}", olmo2,
                (const size_t[]){1, 1, 1, 1, 1, 1});
    check_norms("{" GEMMA ",\"head_dim\":12,\"num_key_value_heads\":2}", gemma,
                (const size_t[]){1, 1, 1, 1, 4, 2});
    mq_config config = parse_good("{" OLMO2 "}");
    char name[MQ_NAME_SIZE];
    mq_config_norm_name(name, &config, 3, MQ_NORM_POST_ATTN);
    assert_string_equal(name, "model.layers.3.post_attention_layernorm.weight");
    assert_true(mq_config_has_tensor(&config, name));
    assert_true(mq_config_has_tensor(&config, "model.layers.0.post_feedforward_layernorm.weight"));
    assert_false(mq_config_has_tensor(&config, "model.layers.0.input_layernorm.weight"));
    mq_config_free(&config);
}

/* As OLMo 2's 1B has it. */
static void test_published(void **state) {
    (void)state;
    mq_config config = parse_good(
        "{\"architectures\":[\"Olmo2ForCausalLM\"],\"attention_bias\":false,"
        "\"attention_dropout\":0.0,\"eos_token_id\":100257,\"hidden_act\":\"silu\","
        "\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":8192,"
        "\"max_position_embeddings\":4096,\"model_type\":\"olmo2\",\"num_attention_heads\":16,"
        "\"num_hidden_layers\":16,\"num_key_value_heads\":16,\"pad_token_id\":100277,"
        "\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":500000,"
        "\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\","
        "\"transformers_version\":\"4.47.0\",\"use_cache\":false,\"vocab_size\":100352}");
    has_fields(&config, "head_dim 128|rope_theta 5e5|rms_norm_eps 1e-6|vocab_size 100352", "1B");
    mq_config_free(&config);
}

static void test_refused(void **state) {
    (void)state;
    refused(OLMO2, "\"mlp_bias\":true", "\"mlp_bias\" is not supported for Olmo2ForCausalLM");
    refused(OLMO2, "\"clip_qkv\":8", "\"clip_qkv\"");
    refused(OLMO2, "\"sliding_window\":8", "\"sliding_window\"");
    refused(OLMO2,
            "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\","
            "\"sliding_attention\"]",
            "layer_types|sliding_attention|not supported for Olmo2ForCausalLM");
    refused(OLMO2, "\"hidden_act\":\"gelu\"", "hidden_act \"gelu\"");
    refused("\"architectures\":[\"Olmo3ForCausalLM\"]," SIZES, "",
            "unknown architecture \"Olmo3ForCausalLM\"|GraniteForCausalLM|Phi3ForCausalLM)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
