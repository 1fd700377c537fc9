/* layer: model */
/* config.json of Gemma 2: what is there by default, and fields that stand there and are not read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

static void test_defaults(void **state) {
    (void)state;
    mq_config config = parse_good("{" GEMMA2 "}");
    has_fields(&config,
               "architecture Gemma2ForCausalLM|num_key_value_heads 4|head_dim 256|"
               "max_position_embeddings 8192|tie_word_embeddings 1|activation gelu_pytorch_tanh|"
               "rms_norm_eps 1e-6|attention_scale 0.0625|attn_logit_softcapping 50|"
               "final_logit_softcapping 30|rope_theta 1e4|local.rope_theta 1e4|"
               "sliding_window 4096|layer_is_local lglg|layer_rotation gggg",
               "Gemma 2");
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_Q), 0);
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_POST_FFN), 32);
    assert_false(mq_config_has_bias(&config, MQ_Q));
    mq_config_free(&config);

    accepted("\"model_type\":\"gemma2\",\"hidden_size\":32,\"intermediate_size\":40,"
             "\"num_hidden_layers\":1",
             "", "vocab_size 256000|num_attention_heads 8");
}

/* A field that is missing has its default, null is none, and any other number is itself. */
static void test_caps(void **state) {
    (void)state;
    accepted(GEMMA2, "\"attn_logit_softcapping\":null",
             "attn_logit_softcapping 0|final_logit_softcapping 30");
    accepted(GEMMA2, "\"final_logit_softcapping\":null",
             "attn_logit_softcapping 50|final_logit_softcapping 0");
    accepted(GEMMA2, "\"attn_logit_softcapping\":7,\"final_logit_softcapping\":2.5",
             "attn_logit_softcapping 7|final_logit_softcapping 2.5");
    refused(GEMMA2, "\"attn_logit_softcapping\":0", "attn_logit_softcapping is 0");
    refused(GEMMA2, "\"attn_logit_softcapping\":true", "attn_logit_softcapping");
    refused(GEMMA2, "\"final_logit_softcapping\":-30", "final_logit_softcapping is -30");
    refused(GEMMA2, "\"final_logit_softcapping\":\"30\"", "final_logit_softcapping");
}

/* As the published models have it. */
static void test_published(void **state) {
    (void)state;
    mq_config config = parse_good(
        "{\"architectures\":[\"Gemma2ForCausalLM\"],\"attention_bias\":false,"
        "\"attention_dropout\":0.0,\"attn_logit_softcapping\":50.0,\"bos_token_id\":2,"
        "\"cache_implementation\":\"hybrid\",\"eos_token_id\":1,\"final_logit_softcapping\":30.0,"
        "\"head_dim\":128,\"hidden_act\":\"gelu_pytorch_tanh\","
        "\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":4608,"
        "\"initializer_range\":0.02,\"intermediate_size\":36864,\"max_position_embeddings\":8192,"
        "\"model_type\":\"gemma2\",\"num_attention_heads\":32,\"num_hidden_layers\":46,"
        "\"num_key_value_heads\":16,\"pad_token_id\":0,\"query_pre_attn_scalar\":144,"
        "\"rms_norm_eps\":1e-06,\"rope_theta\":10000.0,\"sliding_window\":4096,"
        "\"sliding_window_size\":4096,\"torch_dtype\":\"float32\","
        "\"transformers_version\":\"4.42.0.dev0\",\"use_cache\":true,\"vocab_size\":256000,"
        "\"_attn_implementation\":\"eager\"}");
    has_fields(&config, "attention_scale 0.083333333333333329", "27B");
    assert_true(config.layer_is_local[44] && !config.layer_is_local[45]);
    mq_config_free(&config);
}

/* Fields that transformers does not read may not say something else than those that it reads; and
 * what it does not know is refused. */
static void test_refused(void **state) {
    (void)state;
    refused(GEMMA2, "\"hidden_act\":\"silu\"",
            "hidden_act contradicts hidden_activation|Gemma2ForCausalLM");
    refused(GEMMA2, "\"hidden_activation\":\"silu\",\"hidden_act\":\"gelu_pytorch_tanh\"",
            "hidden_act contradicts");
    refused(GEMMA2, "\"hidden_act\":\"gelu\"", "hidden_act \"gelu\"");
    refused(GEMMA2, "\"hidden_activation\":\"gelu\"", "hidden_activation \"gelu\"");
    refused(GEMMA2, "\"sliding_window\":32768,\"sliding_window_size\":4096",
            "sliding_window_size 4096 contradicts sliding_window 32768|Gemma2ForCausalLM");
    refused(GEMMA2, "\"sliding_window_size\":1024", "contradicts sliding_window 4096");
    refused(GEMMA2, "\"sliding_window\":null", "sliding_window is null");
    refused(GEMMA2, "\"sliding_window_pattern\":3",
            "\"sliding_window_pattern\" is not supported for Gemma2ForCausalLM");
    refused(GEMMA2, "\"rope_local_base_freq\":10000", "\"rope_local_base_freq\"");
    refused(GEMMA2, "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":10000}}",
            "rope_parameters.full_attention");
    refused(GEMMA2, "\"use_bidirectional_attention\":true", "use_bidirectional_attention");
    refused(GEMMA2, "\"mlp_bias\":true", "\"mlp_bias\"");
    refused(GEMMA, "\"sliding_window_size\":4096", "\"sliding_window_size\"|Gemma3ForCausalLM");

    mq_config config = parse_good("{" GEMMA2 ",\"hidden_activation\":\"silu\",\"hidden_act\":"
                                  "\"silu\",\"sliding_window\":7,\"sliding_window_size\":7,"
                                  "\"attention_bias\":true,\"tie_word_embeddings\":false}");
    has_fields(&config, "activation silu|sliding_window 7|tie_word_embeddings 0", "above");
    assert_true(mq_config_has_bias(&config, MQ_O) && !mq_config_has_bias(&config, MQ_UP));
    mq_config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
