/* layer: model */
/* config.json: what is read, what defaults to what, and what is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "config_text.h"
#include "temporary.h"

static void test_llama_defaults(void **state) {
    (void)state;
    accepted(LLAMA, "",
             "architecture LlamaForCausalLM|num_key_value_heads 4|head_dim 8|"
             "max_position_embeddings 2048|tie_word_embeddings 0|attention_bias 0|mlp_bias 0|"
             "activation silu|rms_norm_eps 1e-6|attention_scale 0.35355339059327373|"
             "sliding_window 0|rope_type default|rope_theta 1e4|local.rope_theta 1e4|"
             "layer_is_local gggg");
}

static void test_gemma_defaults(void **state) {
    (void)state;
    accepted(GEMMA, "",
             "num_key_value_heads 4|head_dim 256|max_position_embeddings 131072|"
             "tie_word_embeddings 1|activation gelu_pytorch_tanh|attention_scale 0.0625|"
             "sliding_window 4096|rope_theta 1e6|local.rope_theta 1e4|attn_logit_softcapping 0|"
             "final_logit_softcapping 0");
    accepted(GEMMA,
             "\"sliding_window_pattern\":2,\"sliding_window\":7,\"query_pre_attn_scalar\":64,"
             "\"final_logit_softcapping\":30.0,\"attn_logit_softcapping\":50,"
             "\"_sliding_window_pattern\":2",
             "layer_is_local lglg|sliding_window 7|attention_scale 0.125|"
             "final_logit_softcapping 30|attn_logit_softcapping 50");
}

static void test_layer_types(void **state) {
    (void)state;
    /* transformers writes its default pattern even when layer_types says something else: the list
     * decides. */
    accepted(GEMMA,
             "\"_sliding_window_pattern\":6,\"layer_types\":[\"full_attention\","
             "\"sliding_attention\",\"full_attention\",\"full_attention\"]",
             "layer_is_local glgg");
    accepted(GEMMA,
             "\"sliding_window\":null,\"layer_types\":[\"full_attention\",\"full_attention\","
             "\"full_attention\",\"full_attention\"]",
             "sliding_window 0");

    refused(GEMMA, "\"layer_types\":[\"full_attention\"]", "layer_types|num_hidden_layers (4)");
    refused(GEMMA, "\"layer_types\":[\"full_attention\",1,\"full_attention\",\"full_attention\"]",
            "layer_types[1]");
    refused(GEMMA,
            "\"layer_types\":[\"full_attention\",\"chunked_attention\",\"full_attention\","
            "\"full_attention\"]",
            "layer_types[1]|chunked_attention");
    refused(GEMMA, "\"sliding_window\":null", "sliding_window is null");
    refused(GEMMA, "\"sliding_window\":0", "sliding_window is 0");
    refused(GEMMA, "\"sliding_window_pattern\":0", "sliding_window_pattern is 0");
    refused(GEMMA, "\"_sliding_window_pattern\":4", "_sliding_window_pattern 4 contradicts");
    refused(LLAMA, "\"sliding_window\":5", "\"sliding_window\" is not supported");
}

/* Every family may say that its layers have no windows, if they have none. */
static void test_no_windows(void **state) {
    (void)state;
#define FULL "\"full_attention\","
#define ALL_FULL "\"layer_types\":[" FULL FULL FULL "\"full_attention\"]"
#define ONE_LOCAL "\"layer_types\":[" FULL FULL FULL "\"sliding_attention\"]"
#define MISTRAL "\"model_type\":\"mistral\",\"num_key_value_heads\":2," SIZES
#define NONE "sliding_window 0|layer_is_local gggg"
    accepted(LLAMA, ALL_FULL, NONE);
    accepted(LLAMA, "\"max_window_layers\":2", NONE);
    accepted(MISTRAL, "\"sliding_window\":null,\"max_window_layers\":2," ALL_FULL, NONE);
    accepted(GEMMA, "\"max_window_layers\":2," ALL_FULL, NONE);
    /* The field says nothing of them but in Qwen's. */
    accepted(MISTRAL, "\"max_window_layers\":4", "sliding_window 4096|layer_is_local llll");
    accepted(GEMMA, "\"max_window_layers\":4", "sliding_window 4096|layer_is_local llll");
    refused(LLAMA, "\"layer_types\":[\"full_attention\"]", "layer_types|num_hidden_layers (4)");
    refused(LLAMA, ONE_LOCAL, "sliding_attention|not supported for LlamaForCausalLM");
    refused(MISTRAL, ONE_LOCAL, "sliding_attention|not supported for MistralForCausalLM");
    refused(MISTRAL, "\"sliding_window\":null," ONE_LOCAL, "sliding_attention");
    refused(MISTRAL, ALL_FULL,
            "only full_attention|MistralForCausalLM goes by sliding_window (4096 if absent)");
    refused(MISTRAL, "\"sliding_window\":7," ALL_FULL, "set it to null if there are no windows");
#undef NONE
#undef MISTRAL
#undef ONE_LOCAL
#undef ALL_FULL
#undef FULL
}

/* Qwen's windows are off, whatever else of them stands there; Mistral's are of all layers. */
static void test_other_families(void **state) {
    (void)state;
#define KEYS ",\"num_key_value_heads\":2"
#define FULL "\"full_attention\","
    mq_config config = parse_good("{\"model_type\":\"qwen2\"," SIZES KEYS
                                  ",\"use_sliding_window\":false,\"sliding_window\":7,"
                                  "\"max_window_layers\":1,\"use_mrope\":false}");
    assert_int_equal(config.sliding_window, 0);
    assert_false(config.layer_is_local[3] || config.attention_bias);
    assert_true(mq_config_has_bias(&config, MQ_Q) && mq_config_has_bias(&config, MQ_V));
    assert_false(mq_config_has_bias(&config, MQ_O) || mq_config_has_bias(&config, MQ_UP));
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_Q), 0);
    mq_config_free(&config);

    config = parse_good("{\"model_type\":\"qwen3\"," SIZES KEYS ",\"layer_types\":[" FULL FULL FULL
                        "\"full_attention\"]}");
    assert_int_equal(config.head_dim, 128);
    assert_false(mq_config_has_bias(&config, MQ_Q));
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_K), 128);
    mq_config_free(&config);

    accepted("\"model_type\":\"mistral\"," SIZES KEYS, "",
             "sliding_window 4096|layer_is_local llll|local.rope_theta 1e4");
    accepted("\"model_type\":\"mistral\"," SIZES KEYS, "\"sliding_window\":null",
             "sliding_window 0|layer_is_local gggg");
    accepted("\"model_type\":\"qwen3\"," SIZES, "\"num_key_value_heads\":null",
             "num_key_value_heads 4"); /* not 32 */

    refused("\"model_type\":\"qwen2\"," SIZES KEYS, "\"use_sliding_window\":true",
            "use_sliding_window|only false");
    refused("\"model_type\":\"qwen2\"," SIZES KEYS, "\"attention_bias\":true",
            "attention_bias|Qwen2ForCausalLM");
    refused("\"model_type\":\"qwen3\"," SIZES KEYS,
            "\"layer_types\":[" FULL FULL FULL "\"sliding_attention\"]",
            "sliding_attention|Qwen3ForCausalLM");
    refused("\"model_type\":\"qwen3\"," SIZES, "",
            "num_attention_heads 4 is not a multiple of num_key_value_heads 32");
    refused("\"model_type\":\"mistral\"," SIZES KEYS, "\"mlp_bias\":true", "mlp_bias");
#undef FULL
#undef KEYS
}

/* Which layers rotate, and by which base. */
static void test_rotations(void **state) {
    (void)state;
#define SMOLLM3 "\"model_type\":\"smollm3\"," SIZES
    accepted(SMOLLM3, "",
             "architecture SmolLM3ForCausalLM|rope_theta 2e6|rms_norm_eps 1e-6|"
             "max_position_embeddings 32768|num_key_value_heads 4|head_dim 8|"
             "tie_word_embeddings 1|sliding_window 0|layer_rotation ggg-");
    accepted(LLAMA, "", "layer_rotation gggg");
    accepted(GEMMA, "\"sliding_window_pattern\":2", "layer_rotation lglg");
    accepted("\"model_type\":\"mistral\",\"num_key_value_heads\":2," SIZES, "",
             "layer_rotation gggg");
    accepted(SMOLLM3, "\"no_rope_layers\":null,\"no_rope_layer_interval\":2",
             "layer_rotation g-g-");
    accepted(SMOLLM3, "\"no_rope_layer_interval\":1", "layer_rotation ----");
    accepted(SMOLLM3, "\"no_rope_layer_interval\":5", "layer_rotation gggg");
    accepted(SMOLLM3, "\"no_rope_layers\":[0,1,1,0]", "layer_rotation -gg-");
    accepted(SMOLLM3,
             "\"no_rope_layers\":[1,1,1,1],\"no_rope_layer_interval\":4,"
             "\"use_sliding_window\":false,\"sliding_window\":5,\"mlp_bias\":true,"
             "\"attention_bias\":true,\"max_window_layers\":28",
             "layer_rotation gggg");

    static const char *const lists[] = {"[1,1,1]", "[1,1,1,0,1]", "[]", "4", "true"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char field[64];
        snprintf(field, sizeof field, "\"no_rope_layers\":%s", lists[i]);
        refused(SMOLLM3, field, "no_rope_layers is not a list of num_hidden_layers (4) numbers");
    }
    static const char *const numbers[] = {"2", "-1", "0.5", "true", "null", "\"1\""};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char field[64];
        snprintf(field, sizeof field, "\"no_rope_layers\":[1,0,%s,1]", numbers[i]);
        refused(SMOLLM3, field, "no_rope_layers[2] is neither 1 nor 0");
    }
    refused(SMOLLM3, "\"no_rope_layer_interval\":0", "no_rope_layer_interval is 0");
    refused(SMOLLM3, "\"no_rope_layer_interval\":-4", "no_rope_layer_interval");
    refused(SMOLLM3, "\"no_rope_layer_interval\":2.5", "no_rope_layer_interval");
    refused(SMOLLM3, "\"use_sliding_window\":true", "use_sliding_window|only false");
    refused(SMOLLM3,
            "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\","
            "\"sliding_attention\"]",
            "layer_types|sliding_attention|not supported for SmolLM3ForCausalLM");
    refused(LLAMA, "\"no_rope_layers\":[1,1,1,0]",
            "\"no_rope_layers\" is not supported for LlamaForCausalLM");
#undef SMOLLM3
}

static void test_architecture(void **state) {
    (void)state;
    refused("\"architectures\":[\"MambaForCausalLM\"]," SIZES, "",
            "unknown architecture \"MambaForCausalLM\"|LlamaForCausalLM, Gemma3ForCausalLM");
    /* Models with images or sound; encoders with decoders have the same kind of name. */
#define IMAGES                                                                                     \
    "of other models with images or sound only the language model can be read|if it is one of"
    refused("\"architectures\":[\"LlavaForConditionalGeneration\"],\"text_config\":{}", "",
            "\"LlavaForConditionalGeneration\" (known: LlamaForCausalLM|" IMAGES);
    mq_config other;
    mq_error said = {0};
    assert_int_equal(parse(&other,
                           "{\"architectures\":[\"T5ForConditionalGeneration\"],"
                           "\"is_encoder_decoder\":true}",
                           &said),
                     MQ_ERR_INPUT);
    assert_null(strstr(said.message, "images"));
#undef IMAGES
    refused("\"model_type\":\"gpt2\"," SIZES, "", "unknown architecture \"gpt2\"|LlamaForCausalLM");
    refused("\"architectures\":[]," SIZES, "", "architectures");
    refused("\"architectures\":\"LlamaForCausalLM\"," SIZES, "", "architectures");
    refused("\"architectures\":[7]," SIZES, "", "architectures");
    refused("\"architectures\":[\"LlamaForCausalLM\",\"X\"]," SIZES, "", "architectures");
    refused("\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"qwen2\"," SIZES, "",
            "model_type \"qwen2\" contradicts|llama");
    refused(SIZES, "", "model_type");
    accepted("\"architectures\":null,\"model_type\":\"gemma3_text\"," SIZES, "",
             "architecture Gemma3ForCausalLM");

    mq_config config;
    cJSON *list = cJSON_Parse("[1]");
    mq_error err = {0};
    assert_int_equal(mq_config_parse(&config, list, "config.json", &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "not a JSON object"));
    cJSON_Delete(list);
}

static void test_unknown_fields(void **state) {
    (void)state;
    refused(LLAMA, "\"num_experts\":8",
            "\"num_experts\" is not supported for LlamaForCausalLM; it may be removed from "
            "config.json if it does not change what the model computes");
    refused(LLAMA, "\"auto_map\":{\"AutoConfig\":\"configuration_x.X\"}",
            "auto_map|(only empty is); it may be removed from config.json");
    refused(LLAMA, "\"query_pre_attn_scalar\":8", "\"query_pre_attn_scalar\"");
    refused(LLAMA, "\"original_max_position_embeddings\":8", "original_max_position_embeddings");
    refused(GEMMA, "\"mlp_bias\":true", "\"mlp_bias\"|Gemma3ForCausalLM");
    refused(GEMMA, "\"hidden_act\":\"silu\"", "\"hidden_act\"");
    refused(GEMMA, "\"use_bidirectional_attention\":true",
            "use_bidirectional_attention|only false");
    refused(LLAMA, "\"partial_rotary_factor\":0.5", "partial_rotary_factor|only 1");
    refused(LLAMA, "\"rope_interleaved\":true", "rope_interleaved|only false");
    refused(LLAMA, "\"is_encoder_decoder\":true", "is_encoder_decoder|only false");
    refused(LLAMA, "\"pruned_heads\":{\"0\":[1]}", "pruned_heads|only empty");
    refused(LLAMA, "\"hidden_size\":32", "\"hidden_size\" is there twice");

    accepted(LLAMA,
             "\"num_experts\":null,\"use_bidirectional_attention\":null,\"pretraining_tp\":2,"
             "\"torch_dtype\":\"bfloat16\",\"eos_token_id\":[1,2],\"initializer_range\":0.5,"
             "\"use_cache\":true,\"transformers_version\":\"5.0\",\"rope_interleaved\":false,"
             "\"is_llama_config\":true,\"unsloth_fixed\":true,\"max_sequence_length\":2048,"
             "\"transformers.js_config\":{\"dtype\":\"q4\"},\"pruned_heads\":{},\"auto_map\":{},"
             "\"partial_rotary_factor\":1.0,\"quantization_config\":{\"bits\":4}",
             "architecture LlamaForCausalLM");
}

/* Falcon 3's files name the gated network beside what is read of it. */
static void test_activation_beside(void **state) {
    (void)state;
    accepted(LLAMA, "\"activation\":\"swiglu\"", "activation silu");
    accepted(LLAMA, "\"activation\":\"swiglu\",\"hidden_act\":\"silu\"", "activation silu");
    accepted(LLAMA, "\"activation\":\"silu\"", "activation silu");
    accepted(LLAMA, "\"activation\":null,\"hidden_act\":\"gelu_pytorch_tanh\"",
             "activation gelu_pytorch_tanh");
    refused(LLAMA, "\"activation\":\"swiglu\",\"hidden_act\":\"gelu_pytorch_tanh\"",
            "activation contradicts hidden_act, which LlamaForCausalLM goes by");
    refused(LLAMA, "\"activation\":\"gelu_pytorch_tanh\"", "activation contradicts hidden_act");
    refused(LLAMA, "\"activation\":\"relu\"", "activation \"relu\" is not supported");
    refused(LLAMA, "\"activation\":1", "activation");
    /* Nothing that reads hidden_act knows that name. */
    refused(LLAMA, "\"hidden_act\":\"swiglu\"", "hidden_act \"swiglu\" is not supported");
    refused("\"model_type\":\"qwen2\",\"num_key_value_heads\":2," SIZES,
            "\"activation\":\"swiglu\"", "\"activation\" is not supported for Qwen2ForCausalLM");
}

static void test_sizes(void **state) {
    (void)state;
#define WITHOUT(hidden, inter, layers, heads, vocab)                                               \
    "\"model_type\":\"llama\"" hidden inter layers heads vocab
#define H ",\"hidden_size\":32"
#define I ",\"intermediate_size\":40"
#define L ",\"num_hidden_layers\":4"
#define A ",\"num_attention_heads\":4"
#define V ",\"vocab_size\":64"
    refused(WITHOUT("", I, L, A, V), "", "hidden_size");
    refused(WITHOUT(H, "", L, A, V), "", "intermediate_size");
    refused(WITHOUT(H, I, "", A, V), "", "num_hidden_layers");
    refused(WITHOUT(H, I, L, "", V), "", "num_attention_heads");
    refused(WITHOUT(H, I, L, A, ""), "", "vocab_size");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":0", "hidden_size is 0");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":-32", "hidden_size");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":32.5", "hidden_size");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":\"32\"", "hidden_size");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":1e300", "hidden_size");
    refused(WITHOUT("", I, L, A, V), "\"hidden_size\":9007199254740992", "hidden_size");
    refused(WITHOUT(H, I, "", A, V), "\"num_hidden_layers\":2147483647", "num_hidden_layers");
    refused(WITHOUT(H, I, L, "", V), "\"num_attention_heads\":0", "num_attention_heads is 0");
    refused(WITHOUT(H, I, L, "", V), "\"num_attention_heads\":5",
            "hidden_size 32 is not a multiple of num_attention_heads 5");
    refused(WITHOUT("", "", L, "", ""),
            "\"hidden_size\":2147483647,\"vocab_size\":2147483647,\"intermediate_size\":1,"
            "\"num_attention_heads\":1,\"head_dim\":2",
            "vocab_size times hidden_size is too large");
    refused(WITHOUT("", "", L, "", V),
            "\"hidden_size\":2147483647,\"intermediate_size\":2147483647,"
            "\"num_attention_heads\":1,\"head_dim\":2",
            "mlp.gate_proj would have 2147483647 x 2147483647 weights");
    refused(LLAMA, "\"head_dim\":2147483646", "num_attention_heads times head_dim is too large");
    refused(LLAMA, "\"head_dim\":7", "head_dim 7 is odd");
    refused(LLAMA, "\"head_dim\":0", "head_dim is 0");
    refused(LLAMA, "\"num_key_value_heads\":3",
            "num_attention_heads 4 is not a multiple of num_key_value_heads 3");
    refused(LLAMA, "\"num_key_value_heads\":0", "num_key_value_heads is 0");
    refused(LLAMA, "\"max_position_embeddings\":0", "max_position_embeddings is 0");
    refused(LLAMA, "\"rms_norm_eps\":-1e-5", "rms_norm_eps");
    refused(LLAMA, "\"rms_norm_eps\":\"small\"", "rms_norm_eps");
    refused(LLAMA, "\"tie_word_embeddings\":1", "tie_word_embeddings");
    refused(LLAMA, "\"hidden_act\":\"relu\"", "hidden_act \"relu\"|silu");
    refused(GEMMA, "\"hidden_activation\":\"gelu\"",
            "hidden_activation \"gelu\"|gelu_pytorch_tanh");
    refused(GEMMA, "\"query_pre_attn_scalar\":0", "query_pre_attn_scalar");
    refused(GEMMA, "\"final_logit_softcapping\":0", "final_logit_softcapping");
    refused(GEMMA, "\"attn_logit_softcapping\":-3", "attn_logit_softcapping");

    mq_config config = parse_good("{" LLAMA ",\"head_dim\":10,\"num_key_value_heads\":2,"
                                  "\"attention_bias\":true,\"mlp_bias\":true,"
                                  "\"hidden_act\":\"gelu_pytorch_tanh\"}");
    static const size_t shapes[MQ_LINEAR_COUNT][2] = {{40, 32}, {20, 32}, {20, 32}, {32, 40},
                                                      {40, 32}, {40, 32}, {32, 40}};
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &config, (mq_linear)i);
        assert_int_equal(out, shapes[i][0]);
        assert_int_equal(in, shapes[i][1]);
        assert_true(mq_config_has_bias(&config, (mq_linear)i));
    }
    has_fields(&config, "activation gelu_pytorch_tanh|attention_scale 0.31622776601683794",
               "above");
    mq_config_free(&config);
}

static void test_names(void **state) {
    (void)state;
    char name[MQ_NAME_SIZE];
    mq_config config = parse_good("{" GEMMA "}");
    mq_config_linear_name(name, &config, 99999, MQ_GATE, "weight");
    assert_string_equal(name, "model.layers.99999.mlp.gate_proj.weight");
    mq_config_norm_name(name, &config, 3, MQ_NORM_PRE_FFN);
    assert_string_equal(name, "model.layers.3.pre_feedforward_layernorm.weight");
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_Q), 256);
    mq_config_free(&config);
    config = parse_good("{" LLAMA "}");
    mq_config_norm_name(name, &config, 3, MQ_NORM_PRE_FFN);
    assert_string_equal(name, "model.layers.3.post_attention_layernorm.weight");
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_Q), 0);
    assert_int_equal(mq_config_norm_size(&config, MQ_NORM_INPUT), 32);
    mq_config_free(&config);
}

static void test_tensors_of_a_model(void **state) {
    (void)state;
    mq_config config = parse_good("{" GEMMA "}");
    assert_true(mq_config_has_tensor(&config, "model.embed_tokens.weight"));
    assert_true(mq_config_has_tensor(&config, "model.norm.weight"));
    assert_true(mq_config_has_tensor(&config, "lm_head.weight")); /* which it does not use */
    assert_true(mq_config_has_tensor(&config, "model.layers.0.self_attn.q_proj.weight"));
    assert_true(mq_config_has_tensor(&config, "model.layers.0.self_attn.q_norm.weight"));
    assert_true(mq_config_has_tensor(&config, "model.layers.0.pre_feedforward_layernorm.weight"));
    static const char *const foreign[] = {"score.weight",
                                          "",
                                          "model.layers.",
                                          "model.layers.x.mlp.up_proj.weight",
                                          "model.layers.00.mlp.up_proj.weight",
                                          "model.layers.-1.mlp.up_proj.weight",
                                          "model.layers.+0.mlp.up_proj.weight",
                                          "model.layers.99.mlp.up_proj.weight",
                                          "model.layers.99999999999999999999.mlp.up_proj.weight",
                                          "model.layers.0.mlp.up_proj.weight.w4",
                                          "model.layers.0.mlp.up_proj.bias",
                                          "model.layers.0.mlp.up_proj.lora_A.weight",
                                          "base_model.model.layers.0.mlp.up_proj.weight"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (mq_config_has_tensor(&config, foreign[i])) {
            fail_msg("%s", foreign[i]);
        }
    }
    mq_config_free(&config);
    config = parse_good("{" LLAMA ", \"attention_bias\": true}");
    assert_true(mq_config_has_tensor(&config, "model.layers.0.self_attn.q_proj.bias"));
    assert_false(mq_config_has_tensor(&config, "model.layers.0.mlp.up_proj.bias"));
    assert_false(mq_config_has_tensor(&config, "model.layers.0.self_attn.q_norm.weight"));
    mq_config_free(&config);
}

static void test_missing_file(void **state) {
    (void)state;
    mq_config config;
    mq_error err = {0};
    assert_int_equal(mq_config_read(&config, "/nonexistent-folder", &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.file, "config.json"));
    assert_int_equal(mq_config_read(&config, MATQUANT_GOLDEN_DIR "/models/gemma3", &err), MQ_OK);
    assert_int_equal(config.sliding_window, 5);
    mq_config_free(&config);
}

/* cJSON would cut the string there, and the architecture be another one. */
static void test_escaped_nul(void **state) {
    temporary *folder = *state;
    static const char text[] = "{\"architectures\":[\"LlamaForCausalLM\\u0000b\"]}";
    temporary_write(folder, "config.json", text, strlen(text));
    mq_config config;
    mq_error err = {0};
    assert_int_equal(mq_config_read(&config, folder->path, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.file, "config.json"));
    assert_string_equal(err.message, "a string that holds the character U+0000 is not supported");
    assert_true(err.has_offset);
    assert_int_equal(err.offset, strstr(text, "\\u0000") - text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_defaults),
        cmocka_unit_test(test_gemma_defaults),
        cmocka_unit_test(test_layer_types),
        cmocka_unit_test(test_no_windows),
        cmocka_unit_test(test_other_families),
        cmocka_unit_test(test_rotations),
        cmocka_unit_test(test_architecture),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_activation_beside),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_tensors_of_a_model),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test_setup_teardown(test_escaped_nul, temporary_setup, temporary_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
