/* layer: model */
/* config.json of a model of several parts: its language model's member is read as such a model's
 * own file is, and its tensors in either layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "config_text.h"
#include "model_test.h"

#define IMAGES "\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"model_type\":\"gemma3\","
#define TEXT "\"text_config\":{" SIZES
#define MEMBER IMAGES TEXT /* a text_config that is not closed: more of it, "}", more beside it */

/* What the published 4B says, all of the rest being transformers' defaults. */
static void test_published(void **state) {
    (void)state;
    mq_config config = parse_good(
        "{" IMAGES "\"boi_token_index\":255999,\"eoi_token_index\":256000,\"eos_token_id\":[1,106],"
        "\"image_token_index\":262144,\"initializer_range\":0.02,\"mm_tokens_per_image\":256,"
        "\"text_config\":{\"hidden_size\":2560,\"intermediate_size\":10240,\"model_type\":"
        "\"gemma3_text\",\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":"
        "\"linear\"},\"sliding_window\":1024},\"torch_dtype\":\"bfloat16\","
        "\"transformers_version\":\"4.50.0.dev0\",\"vision_config\":{\"hidden_size\":1152,"
        "\"no_such_field\":7,\"num_hidden_layers\":27}}");
    has_fields(&config,
               "architecture Gemma3ForConditionalGeneration|hidden_size 2560|"
               "num_hidden_layers 34|num_attention_heads 8|num_key_value_heads 4|head_dim 256|"
               "vocab_size 262208|max_position_embeddings 131072|sliding_window 1024|"
               "tie_word_embeddings 1|attention_scale 0.0625|activation gelu_pytorch_tanh|"
               "rope_type linear|factor 8|rope_theta 1e6|local.rope_type default|"
               "local.rope_theta 1e4|rms_norm_eps 1e-6|"
               "layer_is_local lllllglllllglllllglllllglllllgllll",
               "4B");
    mq_config_free(&config);
}

/* Of what describes the language model an error says so; and of what stands beside it, not. */
static void test_refused(void **state) {
    (void)state;
    refused(MEMBER, "\"hidden_size\":0}", "is there twice");
    refused(MEMBER, "\"rms_norm_eps\":-1}", "in text_config: rms_norm_eps is -1");
    refused(MEMBER, "\"rope_scaling\":{\"rope_type\":\"linear\"}}",
            "in text_config: rope_scaling.factor is missing");
    refused(MEMBER, "\"num_experts\":8}",
            "in text_config: the field \"num_experts\" is not supported for "
            "Gemma3ForConditionalGeneration");
    refused(MEMBER, "\"quantization_config\":{\"bits\":4}}",
            "in text_config: the field \"quantization_config\"");
    refused(MEMBER, "\"final_logit_softcapping\":30}",
            "in text_config: the field \"final_logit_softcapping\"|may be removed");
    refused(MEMBER, "\"use_bidirectional_attention\":true}", "in text_config|only false");
    refused(MEMBER, "\"model_type\":\"llama\"}",
            "in text_config: model_type is \"llama\", not \"gemma3_text\"");
    refused(IMAGES "\"text_config\":{\"hidden_size\":32,\"num_hidden_layers\":4}", "",
            "in text_config: \"intermediate_size\"");
    refused(IMAGES "\"text_config\":[]", "", "text_config|is not an object");
    refused(IMAGES SIZES, "", "text_config|is missing");
    static const struct {
        const char *beside, *words;
    } beside[] = {
        {"\"num_experts\":8", "the field \"num_experts\""},
        {"\"hidden_size\":32", "the field \"hidden_size\""},
        {"\"is_encoder_decoder\":true", "the field \"is_encoder_decoder\""},
        {"\"vocab_size\":65", "vocab_size is 65, but 64 in text_config"},
        {"\"tie_word_embeddings\":7", "tie_word_embeddings"},
    };
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        char text[512];
        snprintf(text, sizeof text, MEMBER "},%s", beside[i].beside);
        refused(text, "", beside[i].words);
        mq_config config;
        mq_error err = {0};
        char whole[600];
        snprintf(whole, sizeof whole, "{%s}", text);
        assert_int_equal(parse(&config, whole, &err), MQ_ERR_INPUT);
        assert_null(strstr(err.message, "in text_config:"));
    }
}

/* Whether the head is the embeddings stands in the file, in the member, or in both. */
static void test_tie(void **state) {
    (void)state;
    accepted(MEMBER "}", "", "tie_word_embeddings 1");
    accepted(MEMBER "}", "\"tie_word_embeddings\":false", "tie_word_embeddings 0");
    accepted(MEMBER, "\"tie_word_embeddings\":false}", "tie_word_embeddings 0");
    accepted(MEMBER, "\"tie_word_embeddings\":false},\"tie_word_embeddings\":false",
             "tie_word_embeddings 0");
    accepted(MEMBER, "\"tie_word_embeddings\":null},\"tie_word_embeddings\":false",
             "tie_word_embeddings 0");
    refused(MEMBER, "\"tie_word_embeddings\":true},\"tie_word_embeddings\":false",
            "tie_word_embeddings is false, but true in text_config");
    refused(MEMBER, "\"tie_word_embeddings\":false},\"tie_word_embeddings\":true",
            "tie_word_embeddings is true, but false in text_config");
}

static void check_name(const mq_config *config, const char *from, mq_layout_kind layout,
                       const char *wanted) {
    char name[MQ_NAME_SIZE];
    assert_string_equal(mq_config_rename(name, config, from, layout), wanted);
}

static void test_names(void **state) {
    (void)state;
    static const char *const begins[] = {"language_model.model.", "model.language_model."};
    static const char *const heads[] = {"language_model.lm_head", "lm_head"};
    static const char *const towers[] = {"vision_tower.vision_model.head.probe",
                                         "model.vision_tower.head.probe"};
    mq_config config = parse_good("{" MEMBER "}}");
    for (int kind = 0; kind < MQ_LAYOUT_COUNT; kind++) {
        const mq_layout_kind other = (mq_layout_kind)!kind;
        config.layout = (mq_layout_kind)kind;
        static const char *const ends[] = {"layers.3.mlp.up_proj.weight",
                                           "layers.3.mlp.up_proj",
                                           "layers.12.q",
                                           "embed_tokens.weight",
                                           "embed_tokens",
                                           "embed_tokens.scales",
                                           "norm.weight"};
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            char name[MQ_NAME_SIZE], wanted[MQ_NAME_SIZE];
            snprintf(name, sizeof name, "%s%s", begins[kind], ends[i]);
            snprintf(wanted, sizeof wanted, "%s%s", begins[other], ends[i]);
            check_name(&config, name, other, wanted);
            check_name(&config, name, config.layout, name);
            check_name(&config, wanted, other, wanted);
        }
        check_name(&config, heads[kind], other, heads[other]);
        check_name(&config, towers[kind], other, towers[other]);
        check_name(&config, towers[other], other, towers[other]);
        check_name(&config, "norm.weight", other, "norm.weight");
        char name[MQ_NAME_SIZE];
        mq_config_norm_name(name, &config, 2, MQ_NORM_POST_FFN);
        assert_non_null(strstr(name, begins[kind]));
        assert_true(mq_config_has_tensor(&config, name));
        assert_true(mq_config_is_of_other_part(&config, towers[kind]));
        assert_false(mq_config_is_of_other_part(&config, name));
        assert_false(mq_config_has_tensor(&config, towers[kind]));
        assert_true(mq_config_is_unused_head(&config, heads[kind]));
        snprintf(name, sizeof name, "%slayers.0.mlp.up_proj.weight", begins[other]);
        assert_false(mq_config_has_tensor(&config, name));
    }
    config.layout = MQ_LAYOUT_PUBLISHED; /* as transformers 5 writes it */
    check_name(&config, "vision_tower.head.probe", MQ_LAYOUT_MODULES, towers[1]);
    check_name(&config, "multi_modal_projector.x", MQ_LAYOUT_MODULES,
               "model.multi_modal_projector.x");
    const char *names[MQ_LAYOUT_COUNT + 1];
    assert_ptr_equal(mq_config_unused_heads(names, &config), names);
    assert_string_equal(names[0], "language_model.lm_head.weight");
    assert_string_equal(names[1], "lm_head.weight");
    assert_null(names[2]);
    config.tie_word_embeddings = false;
    assert_null(mq_config_unused_heads(names, &config)[0]);
    mq_config_free(&config);

    /* Another family has one layout, and no other parts. */
    config = parse_good("{" GEMMA "}");
    check_name(&config, "model.norm.weight", MQ_LAYOUT_MODULES, "model.norm.weight");
    assert_false(mq_config_is_of_other_part(&config, "vision_tower.head.probe"));
    mq_config_free(&config);
}

/* A name that would be too long is left. */
static void test_long_names(void **state) {
    (void)state;
    mq_config config = parse_good("{" MEMBER "}}");
    char longest[2 * MQ_NAME_SIZE] = "language_model.model.layers.0.";
    memset(longest + strlen(longest), 'x', MQ_NAME_SIZE);
    check_name(&config, longest, MQ_LAYOUT_MODULES, longest);
    mq_config_free(&config);
}

static void test_layouts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        mq_layout_kind layout;
    } cases[] = {{"gemma3-images", MQ_LAYOUT_PUBLISHED},
                 {"gemma3-images-v5", MQ_LAYOUT_MODULES},
                 {"gemma3", MQ_LAYOUT_PUBLISHED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_model *model = open_golden(cases[i].name);
        assert_int_equal(model->config.layout, cases[i].layout);
        mq_model_free(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_tie),        cmocka_unit_test(test_names),
        cmocka_unit_test(test_long_names), cmocka_unit_test(test_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
