/* layer: model */
/* config.json of Granite: its multipliers, which other families have not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

static void test_defaults(void **state) {
    (void)state;
    accepted(GRANITE, "",
             "architecture GraniteForCausalLM|num_key_value_heads 4|head_dim 8|"
             "max_position_embeddings 2048|tie_word_embeddings 0|activation silu|"
             "rms_norm_eps 1e-6|rope_theta 1e4|embedding_multiplier 1|attention_scale 1|"
             "residual_multiplier 1|logits_scaling 1|attention_bias 0|mlp_bias 0|sliding_window 0");
    accepted(LLAMA, "", "embedding_multiplier 1|residual_multiplier 1|logits_scaling 1");
    accepted(GEMMA2, "", "embedding_multiplier 5.6568542494923806|residual_multiplier 1");
}

/* As Granite 3's 2B has it. */
static void test_published(void **state) {
    (void)state;
    mq_config config = parse_good(
        "{\"architectures\":[\"GraniteForCausalLM\"],\"attention_bias\":false,"
        "\"attention_dropout\":0.1,\"attention_multiplier\":0.015625,\"bos_token_id\":0,"
        "\"embedding_multiplier\":12.0,\"eos_token_id\":0,\"hidden_act\":\"silu\","
        "\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":8192,"
        "\"logits_scaling\":8.0,\"max_position_embeddings\":131072,\"mlp_bias\":false,"
        "\"model_type\":\"granite\",\"num_attention_heads\":32,\"num_hidden_layers\":40,"
        "\"num_key_value_heads\":8,\"pad_token_id\":0,\"residual_multiplier\":0.22,"
        "\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"rope_theta\":5000000.0,"
        "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\","
        "\"transformers_version\":\"4.46.0.dev0\",\"use_cache\":true,\"vocab_size\":49155}");
    has_fields(&config,
               "head_dim 64|embedding_multiplier 12|attention_scale 0.015625|"
               "residual_multiplier 0.22|logits_scaling 8|rope_theta 5e6|tie_word_embeddings 1",
               "2B");
    mq_config_free(&config);
}

static void test_refused(void **state) {
    (void)state;
    static const char *const names[] = {"embedding_multiplier", "attention_multiplier",
                                        "residual_multiplier", "logits_scaling"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char field[64], words[128];
        snprintf(field, sizeof field, "\"%s\":0", names[i]);
        snprintf(words, sizeof words, "%s is 0, which is out of range", names[i]);
        refused(GRANITE, field, words);
        snprintf(field, sizeof field, "\"%s\":-2", names[i]);
        refused(GRANITE, field, names[i]);
        snprintf(field, sizeof field, "\"%s\":1e-40", names[i]);
        refused(GRANITE, field, "out of range");
        snprintf(field, sizeof field, "\"%s\":1e39", names[i]);
        refused(GRANITE, field, "out of range");
        snprintf(field, sizeof field, "\"%s\":\"1\"", names[i]);
        refused(GRANITE, field, names[i]);
        snprintf(field, sizeof field, "\"%s\":1", names[i]);
        snprintf(words, sizeof words, "\"%s\" is not supported for LlamaForCausalLM", names[i]);
        refused(LLAMA, field, words);
    }
    refused(GRANITE, "\"hidden_act\":\"gelu\"", "hidden_act \"gelu\"");
    refused(GRANITE, "\"sliding_window\":7", "\"sliding_window\" is not supported");
    refused(GRANITE, "\"query_pre_attn_scalar\":7", "\"query_pre_attn_scalar\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
