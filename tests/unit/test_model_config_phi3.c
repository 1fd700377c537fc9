/* layer: model */
/* config.json of Phi-3: what is there by default, heads that rotate in part, longrope, linears that
 * are rows of one tensor, and what stands in published files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

#define PHI3 "\"architectures\":[\"Phi3ForCausalLM\"],\"model_type\":\"phi3\"," SIZES

static void test_defaults(void **state) {
    (void)state;
    accepted(PHI3, "",
             "architecture Phi3ForCausalLM|num_key_value_heads 4|head_dim 8|unrotated_dim 0|"
             "max_position_embeddings 4096|tie_word_embeddings 0|activation silu|rms_norm_eps 1e-5|"
             "rope_type default|rope_theta 1e4|sliding_window 0|layer_is_local gggg|"
             "layer_rotation gggg");
    accepted(PHI3, "\"sliding_window\":2047", "sliding_window 2047|layer_is_local llll");
    accepted(PHI3, "\"sliding_window\":null", "sliding_window 0|layer_is_local gggg");
    accepted("\"model_type\":\"phi3\",\"hidden_size\":64,\"intermediate_size\":40,"
             "\"num_hidden_layers\":1",
             "", "vocab_size 32064|num_attention_heads 32|num_key_value_heads 32");
}

/* Several linears are rows of one tensor, which has a name and the shape of all of them. */
static void test_places(void **state) {
    (void)state;
    mq_config config = parse_good("{" PHI3 ",\"num_key_value_heads\":2}");
    static const struct {
        const char *name;
        size_t first, rows;
    } expected[MQ_LINEAR_COUNT] = {
        [MQ_Q] = {"self_attn.qkv_proj", 0, 64},  [MQ_K] = {"self_attn.qkv_proj", 32, 64},
        [MQ_V] = {"self_attn.qkv_proj", 48, 64}, [MQ_O] = {"self_attn.o_proj", 0, 32},
        [MQ_GATE] = {"mlp.gate_up_proj", 0, 80}, [MQ_UP] = {"mlp.gate_up_proj", 40, 80},
        [MQ_DOWN] = {"mlp.down_proj", 0, 32},
    };
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        const mq_linear_place place = mq_config_linear_place(&config, linear);
        char name[MQ_NAME_SIZE], wanted[MQ_NAME_SIZE];
        mq_config_linear_name(name, &config, 3, linear, "weight");
        snprintf(wanted, sizeof wanted, "model.layers.3.%s.weight", expected[linear].name);
        assert_string_equal(name, wanted);
        assert_int_equal(place.first, expected[linear].first);
        assert_int_equal(place.rows, expected[linear].rows);
        assert_true(mq_config_has_tensor(&config, name));
    }
    assert_false(mq_config_has_tensor(&config, "model.layers.3.self_attn.q_proj.weight"));
    mq_config_free(&config);

    config = parse_good("{" LLAMA "}");
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        const mq_linear_place place = mq_config_linear_place(&config, linear);
        size_t out, in;
        mq_config_linear_shape(&out, &in, &config, linear);
        assert_int_equal(place.first, 0);
        assert_int_equal(place.rows, out);
    }
    mq_config_free(&config);
}

static void test_partial_rotation(void **state) {
    (void)state;
    accepted(PHI3, "\"partial_rotary_factor\":0.75", "head_dim 8|unrotated_dim 2");
    accepted(PHI3, "\"partial_rotary_factor\":1", "unrotated_dim 0");
    accepted(PHI3, "\"partial_rotary_factor\":null", "unrotated_dim 0");
    accepted(PHI3, "\"rope_parameters\":{\"partial_rotary_factor\":0.5}", "unrotated_dim 4");
    accepted(PHI3, "\"head_dim\":128,\"partial_rotary_factor\":0.75", "unrotated_dim 32");
    accepted(PHI3,
             "\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"partial_rotary_factor\":0.5},"
             "\"rope_parameters\":{\"partial_rotary_factor\":0.5}",
             "unrotated_dim 4");
    refused(PHI3,
            "\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"partial_rotary_factor\":0.75}",
            "partial_rotary_factor is there twice, as 0.5 and as 0.75");
    refused(PHI3, "\"partial_rotary_factor\":0.4", "partial_rotary_factor 0.4 of head_dim 8 is 3");
    refused(PHI3, "\"partial_rotary_factor\":0.1", "is 0");
    static const char *const numbers[] = {"0", "-0.5", "1.25", "true", "\"1\"", "1e999"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char field[64];
        snprintf(field, sizeof field, "\"partial_rotary_factor\":%s", numbers[i]);
        refused(PHI3, field, "partial_rotary_factor is no number above 0");
        snprintf(field, sizeof field, "\"rope_scaling\":{\"partial_rotary_factor\":%s}",
                 numbers[i]);
        refused(PHI3, field, "partial_rotary_factor is no number above 0");
    }
}

/* --- longrope --------------------------------------------------------------------------------- */

#define SHORT "\"short_factor\":[1,1.5,2,2.5]"
#define LONG "\"long_factor\":[1,2,4,8]"
#define LONGROPE(more) "{\"type\":\"longrope\"," SHORT "," LONG more "}"
#define ORIGINAL "\"original_max_position_embeddings\":512"

static void test_longrope(void **state) {
    (void)state;
    accepted(PHI3, "\"max_position_embeddings\":131072,\"rope_scaling\":" LONGROPE(""),
             "rope_type longrope|factor 32|original_max_position_embeddings 4096|"
             "attention_factor -1");
    accepted(PHI3, ORIGINAL ",\"rope_scaling\":" LONGROPE(",\"factor\":2,\"attention_factor\":1.5"),
             "factor 2|original_max_position_embeddings 512|attention_factor 1.5");
    accepted(PHI3, ORIGINAL ",\"rope_parameters\":" LONGROPE("," ORIGINAL ",\"rope_theta\":7"),
             "factor 8|original_max_position_embeddings 512|rope_theta 7");
    accepted(PHI3, "\"rope_scaling\":{\"type\":\"su\"," SHORT "," LONG "}", "rope_type longrope");
    accepted(PHI3, ORIGINAL, "rope_type default|original_max_position_embeddings 0");
    accepted(PHI3, "\"rope_scaling\":" LONGROPE("") ",\"rope_parameters\":" LONGROPE(""),
             "rope_type longrope");

    mq_config config =
        parse_good("{" PHI3 "," ORIGINAL ",\"rope_scaling\":" LONGROPE(",\"factor\":4") "}");
    assert_int_equal(config.rope[0].factor_count, 4);
    assert_true(config.rope[0].short_factor[3] == 2.5 && config.rope[0].long_factor[3] == 8.0);
    const double factor = mq_rope_attention_factor(&config.rope[0]);
    assert_true(factor * factor > 1.2222 && factor * factor < 1.2223); /* 1 + ln 4 / ln 512 */
    assert_int_equal(mq_config_longest(&config), 512);
    mq_error err = {0};
    assert_int_equal(mq_config_check_length(&config, 512, &err), MQ_OK);
    assert_int_equal(mq_config_check_length(&config, 513, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "513 tokens are longer than the 512"));
    assert_non_null(strstr(err.message, "long_factor"));
    mq_config_free(&config);

    config = parse_good("{" PHI3 ",\"max_position_embeddings\":100}");
    assert_int_equal(mq_config_longest(&config), 100);
    assert_int_equal(mq_config_check_length(&config, 1000, &err), MQ_OK);
    mq_config_free(&config);
}

static void test_longrope_refused(void **state) {
    (void)state;
    refused(PHI3, "\"rope_scaling\":{\"type\":\"longrope\"," SHORT "}",
            "rope_scaling.long_factor is not a list of 4 positive numbers");
    refused(PHI3, "\"rope_scaling\":{\"type\":\"longrope\"," LONG "}",
            "rope_scaling.short_factor is not a list of 4 positive numbers");
    static const char *const lists[] = {"[1,2,3]", "[1,2,3,4,5]",   "[1,2,3,0]", "[1,2,3,-4]",
                                        "4",       "[1,2,3,\"4\"]", "{}",        "[1,2,1e999,4]"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char field[128];
        snprintf(field, sizeof field,
                 "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":%s," LONG "}", lists[i]);
        refused(PHI3, field, "short_factor is not a list of 4 positive numbers");
    }
    refused(PHI3, "\"partial_rotary_factor\":0.5,\"rope_scaling\":" LONGROPE(""),
            "short_factor is not a list of 2 positive numbers");
    refused(PHI3, "\"rope_scaling\":" LONGROPE(",\"attention_factor\":-1"), "attention_factor");
    refused(PHI3, "\"rope_scaling\":" LONGROPE(",\"factor\":0.5"), "factor must be at least 1");
    refused(PHI3, "\"rope_scaling\":" LONGROPE(",\"beta_fast\":1"), "beta_fast|longrope");
    refused(PHI3, "\"rope_scaling\":" LONGROPE("," ORIGINAL),
            "rope_scaling.original_max_position_embeddings 512 contradicts|which is 4096");
    refused(PHI3, "\"original_max_position_embeddings\":1,\"rope_scaling\":" LONGROPE(""),
            "original_max_position_embeddings must be between 2");
    refused(PHI3, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2}",
            "rope_type \"linear\" is not supported (default and longrope are)");
    refused(PHI3, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}",
            "short_factor is not a list of 4 positive numbers");
    refused(PHI3, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"beta_fast\":32}",
            "beta_fast|longrope");
    refused(PHI3, "\"rope_scaling\":{\"rope_type\":\"su\",\"type\":\"default\"}",
            "type contradicts rope_type");
    refused(LLAMA, "\"rope_scaling\":{\"type\":\"su\",\"factor\":2}", "su|yarn are");
    refused(LLAMA, "\"rope_scaling\":" LONGROPE(""), "longrope|yarn are");
    refused(PHI3,
            "\"rope_scaling\":" LONGROPE("") ",\"rope_parameters\":{\"type\":\"longrope\"," LONG
                                             ",\"short_factor\":[1,1,1,1]}",
            "rope_scaling and rope_parameters contradict each other");
}

/* --- fields ----------------------------------------------------------------------------------- */

#define AUTO_MAP                                                                                   \
    "\"auto_map\":{\"AutoConfig\":\"configuration_phi3.Phi3Config\",\"AutoModelForCausalLM\":"     \
    "\"modeling_phi3.Phi3ForCausalLM\",\"AutoTokenizer\":\"Xenova/gpt-4o\"}"

#define SAVED_MAP(repository)                                                                      \
    "\"auto_map\":{\"AutoConfig\":\"" repository                                                   \
    "configuration_phi3.Phi3Config\",\"AutoModelForCausalLM\":\"" repository                       \
    "modeling_phi3.Phi3ForCausalLM\"}"

/* As Phi-4-mini's file has them; the code that it names is in transformers. */
static void test_published(void **state) {
    (void)state;
    accepted(PHI3,
             AUTO_MAP ",\"attention_bias\":false,\"attention_dropout\":0.0,\"embd_pdrop\":0.0,"
                      "\"full_attn_mod\":1,\"hidden_act\":\"silu\",\"interpolate_factor\":1,"
                      "\"lm_head_bias\":false,\"max_position_embeddings\":131072,"
                      "\"mlp_bias\":false,\"original_max_position_embeddings\":4096,"
                      "\"pad_token_id\":199999,\"resid_pdrop\":0.0,\"rms_norm_eps\":1e-05,"
                      "\"rope_theta\":10000.0,\"sliding_window\":262144,"
                      "\"tie_word_embeddings\":true",
             "sliding_window 262144|layer_is_local llll|tie_word_embeddings 1|mlp_bias 0");
    refused(PHI3, "\"auto_map\":{\"AutoModel\":\"modeling_phi3x.Phi3\"}", "auto_map");
    refused(PHI3, "\"auto_map\":{\"AutoModel\":\"other/phi3--modeling_phi3.Phi3\"}", "auto_map");
    refused(PHI3, "\"auto_map\":{\"AutoModel\":3}", "auto_map");
    /* As transformers 4 saves it: with the repository that the code is in. */
    accepted(PHI3, SAVED_MAP("microsoft/Phi-3.5-mini-instruct--"), "architecture Phi3ForCausalLM");
    static const char *const others[] = {
        SAVED_MAP("microsoftx/Phi-3.5-mini-instruct--"),      SAVED_MAP("microsoft--"),
        SAVED_MAP("me/microsoft/Phi-3.5-mini-instruct--"),    SAVED_MAP("microsoft/Phi-3.5/"),
        SAVED_MAP("microsoft/Phi-3.5-mini-instruct--other_"), SAVED_MAP("microsoft/a--b--")};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        refused(PHI3, others[i], "auto_map");
    }
    refused(PHI3, "\"auto_map\":[\"modeling_phi3.Phi3\"]", "auto_map");
    refused(LLAMA, AUTO_MAP, "auto_map");
}

static void test_refused(void **state) {
    (void)state;
    refused(PHI3, "\"mlp_bias\":true", "mlp_bias is true, which Phi3ForCausalLM does not read");
    refused(PHI3, "\"attention_bias\":true", "attention_bias is true|Phi3ForCausalLM");
    refused(PHI3, "\"full_attn_mod\":2", "full_attn_mod|only 1");
    refused(PHI3, "\"interpolate_factor\":2", "interpolate_factor|only 1");
    refused(PHI3, "\"lm_head_bias\":true", "lm_head_bias|only false");
    refused(PHI3, "\"hidden_act\":\"gelu\"", "hidden_act \"gelu\"");
    refused(PHI3, "\"no_rope_layers\":[1,1,1,1]", "no_rope_layers|Phi3ForCausalLM");
    refused(LLAMA, "\"resid_pdrop\":0.0", "resid_pdrop|LlamaForCausalLM");
    refused(LLAMA, ORIGINAL, "original_max_position_embeddings|LlamaForCausalLM");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_places),
        cmocka_unit_test(test_partial_rotation), cmocka_unit_test(test_longrope),
        cmocka_unit_test(test_longrope_refused), cmocka_unit_test(test_published),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
