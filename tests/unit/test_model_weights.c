/* layer: model */
/* Opening a plain checkpoint: what is refused, and that every failed allocation is survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model/block.h"
#include "model_test.h"

/* A copy of the golden case `llama` with one change in config.json and one in model.safetensors
 * (NULL: none). */
static char *altered(const char *config_from, const char *config_to, const char *tensor_from,
                     const char *tensor_to) {
    char *folder = make_folder();
    copy_changed(folder, "llama", "config.json", config_from, config_to);
    copy_changed(folder, "llama", "model.safetensors", tensor_from, tensor_to);
    return folder;
}

/* Opening the folder is refused; the error's line has every one of the words. Removes the folder.
 */
static void refused(char *folder, const char *words) {
    mq_model *model = NULL;
    mq_error err = {0};
    char line[1400], word[256];
    const size_t before = mq_alloc_current();
    assert_int_equal(mq_model_open_plain(&model, folder, &err), MQ_ERR_INPUT);
    assert_null(model);
    assert_int_equal(mq_alloc_current(), before);
    mq_error_format(line, sizeof line, &err);
    assert_non_null(strstr(line, folder));
    for (const char *at = words; *at != '\0'; at += strcspn(at, "|"), at += *at == '|') {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, "|"), at);
        if (strstr(line, word) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", line, word);
        }
    }
    remove_folder(folder);
}

static void test_missing_tensor(void **state) {
    (void)state;
    refused(altered(NULL, NULL, "model.layers.1.mlp.up_proj.weight",
                    "model.layers.1.mlp.ap_proj.weight"),
            "tensor model.layers.1.mlp.up_proj.weight|missing");
    refused(altered(NULL, NULL, "model.norm.weight", "model.narm.weight"),
            "model.norm.weight|missing");
    refused(altered(NULL, NULL, "model.layers.0.input_layernorm.weight",
                    "model.layers.0.imput_layernorm.weight"),
            "model.layers.0.input_layernorm.weight|missing");
    refused(altered(NULL, NULL, "lm_head.weight", "im_head.weight"), "lm_head.weight|missing");
    refused(altered("\"attention_bias\": false", "\"attention_bias\":  true", NULL, NULL),
            "model.layers.0.self_attn.q_proj.bias|missing");
    refused(altered("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", NULL, NULL),
            "model.layers.2.self_attn.q_proj.weight|missing");
}

static void test_contradicting_shapes(void **state) {
    (void)state;
    refused(altered("\"intermediate_size\": 40", "\"intermediate_size\": 48", NULL, NULL),
            "model.layers.0.mlp.gate_proj.weight|[40, 32]|[48, 32]|config.json");
    refused(altered("\"vocab_size\": 64", "\"vocab_size\": 63", NULL, NULL),
            "model.embed_tokens.weight|[64, 32]");
    refused(altered("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 2", NULL, NULL),
            "model.layers.0.self_attn.k_proj.weight|[16, 32]");
    refused(altered("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", NULL, NULL),
            "model.layers.1.self_attn.q_proj.weight|1 blocks");
    /* The head is there and random, but config.json says that it is the embedding. */
    refused(altered("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true ", NULL, NULL),
            "lm_head.weight|differs from model.embed_tokens.weight");
}

static void test_surplus_bias(void **state) {
    (void)state;
    char *folder = make_folder();
    copy_changed(folder, "llama-biases", "config.json", "\"mlp_bias\": true", "\"mlp_bias\":false");
    copy_changed(folder, "llama-biases", "model.safetensors", NULL, NULL);
    refused(folder, "model.layers.0.mlp.gate_proj.bias|no such bias");
}

static void test_dtype(void **state) {
    (void)state;
    /* The first tensor's F32 becomes I32: the same size, but no weight. */
    refused(altered(NULL, NULL, "\"dtype\":\"F32\"", "\"dtype\":\"I32\""), "I32|F32, F16 and BF16");
}

/* What is stored as bfloat16 can be had where it lies; what is not, cannot. */
static void test_stored_bf16(void **state) {
    (void)state;
    const char *embedding = "model.embed_tokens.weight";
    mq_model *model = open_golden("llama-biases");
    const mq_weights *weights = model->weights;
    const size_t width = model->config.hidden_size, first = 3, count = 5;
    const mq_bf16 *stored = weights->class_->stored_bf16(weights, embedding, first);
    float *read = mq_alloc(count * width, sizeof *read);
    assert_true(stored != NULL && read != NULL);
    assert_int_equal(weights->class_->read(read, weights, embedding, first, count, NULL), MQ_OK);
    for (size_t i = 0; i < count * width; i++) {
        assert_true(mq_bf16_value(stored[i]) == read[i]);
    }
    assert_null(weights->class_->stored_bf16(weights, "model.none.weight", 0));
    mq_free(read);
    mq_model_free(model);
    model = open_golden("gemma3"); /* float32 */
    assert_null(model->weights->class_->stored_bf16(model->weights, embedding, 0));
    mq_model_free(model);
}

static void test_configuration(void **state) {
    (void)state;
    refused(altered("\"LlamaForCausalLM\"", "\"OtherForCausalLM\"", NULL, NULL),
            "config.json|OtherForCausalLM|LlamaForCausalLM, Gemma3ForCausalLM");
    refused(altered("\"use_cache\"", "\"use_magic\"", NULL, NULL), "config.json|use_magic");
    refused(altered("{", "x", NULL, NULL), "config.json");
    refused(make_folder(), "config.json");
    char *folder = make_folder();
    copy_changed(folder, "llama", "config.json", NULL, NULL);
    refused(folder, "model.safetensors");
}

static void test_already_quantized(void **state) {
    (void)state;
    static const char *const configs[][2] = {
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}"
         "}",
         "already quantized|quant_method gptq"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"matquant\"}}",
         "quant_method matquant"},
        {"{\"model_type\":\"llama\",\"quantization\":{\"bits\":4,\"group_size\":64}}",
         "already quantized|quantization"},
        {"{\"model_type\":\"llama\",\"quantization_config\":7}",
         "already quantized|quantization_config"},
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        char *folder = make_folder();
        write_bytes(folder, "config.json", configs[i][0], strlen(configs[i][0]));
        refused(folder, configs[i][1]);
    }
}

/* A NaN in a weight is found when it is read, and said with tensor and offset. */
static void test_non_finite(void **state) {
    (void)state;
    mq_model *model = open_golden("llama");
    const mq_tensor_info *info =
        mq_tensors_find(model->keep, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(info);
    const size_t offset = info->file_offset + 4 * 100;
    mq_model_free(model);

    char *folder = altered(NULL, NULL, NULL, NULL),
         *path = mq_path_join(folder, "model.safetensors");
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(&(float){NAN}, sizeof(float), 1, file), 1);
    assert_int_equal(fclose(file), 0);

    assert_int_equal(mq_model_open_plain(&model, folder, NULL), MQ_OK);
    mq_slab slab = {0};
    mq_block_params params;
    mq_block_params_carve(&params, &slab, &model->config);
    assert_int_equal(mq_slab_allocate(&slab, "a block", NULL), MQ_OK);
    mq_block_params_carve(&params, &slab, &model->config);
    assert_false(slab.overflow);
    assert_int_equal(mq_block_params_load(&params, model, 0, NULL), MQ_OK);
    mq_error err = {0};
    assert_int_equal(mq_block_params_load(&params, model, 1, &err), MQ_ERR_INPUT);
    assert_string_equal(err.tensor, "model.layers.1.mlp.down_proj.weight");
    assert_string_equal(err.file, path);
    assert_true(err.has_offset);
    assert_int_equal(err.offset, offset);
    mq_slab_free(&slab);
    mq_model_free(model);
    mq_free(path);
    remove_folder(folder);
}

/* Norms come with their 1 added where the architecture says so; biases where config.json does. */
static void test_params(void **state) {
    (void)state;
    static const struct {
        const char *name;
        float plus;
    } cases[] = {{"llama-biases", 0.0F}, {"gemma3", 1.0F}};
    for (size_t i = 0; i < 2; i++) {
        mq_model *model = open_golden(cases[i].name);
        mq_slab slab = {0};
        mq_block_params params;
        mq_block_params_carve(&params, &slab, &model->config);
        assert_int_equal(mq_slab_allocate(&slab, "a block", NULL), MQ_OK);
        mq_block_params_carve(&params, &slab, &model->config);
        assert_int_equal(mq_block_params_load(&params, model, 1, NULL), MQ_OK);
        const mq_block_weights view = mq_block_params_view(&params);
        for (int l = 0; l < MQ_LINEAR_COUNT; l++) {
            assert_ptr_equal(view.linear[l], params.linear[l]);
            assert_int_equal(view.bias[l] != NULL, i == 0);
        }
        for (int n = 0; n < MQ_NORM_COUNT; n++) {
            const size_t size = mq_config_norm_size(&model->config, (mq_norm)n);
            assert_int_equal(view.norm[n] != NULL, size != 0);
            if (size != 0) {
                char name[MQ_NAME_SIZE];
                float stored;
                mq_config_norm_name(name, &model->config, 1, (mq_norm)n);
                const mq_tensor_info *info = mq_tensors_find(model->keep, name);
                assert_int_equal(mq_tensor_read_f32(&stored, info, size - 1, 1, NULL), MQ_OK);
                assert_true(view.norm[n][size - 1] == stored + cases[i].plus);
            }
        }
        mq_slab_free(&slab);
        mq_model_free(model);
    }
}

/* float32 keeps sqrt(hidden_size) as it is; bf16 would not: 32 has no exact root. */
static void test_embedding_scale(void **state) {
    (void)state;
    mq_model *model = open_golden("gemma3");
    float hidden[32], stored[32];
    const int32_t id = 17;
    assert_int_equal(mq_model_embed(hidden, model, &id, 1, NULL), MQ_OK);
    assert_int_equal(model->weights->class_->read(stored, model->weights,
                                                  "model.embed_tokens.weight", 17, 1, NULL),
                     MQ_OK);
    for (size_t i = 0; i < 32; i++) {
        assert_true(hidden[i] == stored[i] * (float)sqrt(32.0));
    }
    mq_model_free(model);
}

static void test_allocation_failures(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "llama-shards-f16", "gemma3"};
    for (size_t n = 0; n < 3; n++) {
        char *folder = golden_path(names[n], "");
        size_t countdown = 0;
        mq_status status;
        do {
            const size_t before = mq_alloc_current();
            mq_model *model = NULL;
            mq_error err = {0};
            mq_alloc_fail_after(++countdown);
            status = mq_model_open_plain(&model, folder, &err);
            mq_alloc_fail_after(0);
            if (status != MQ_OK) {
                assert_int_equal(status, MQ_ERR_MACHINE);
                assert_int_equal(err.status, MQ_ERR_MACHINE);
                assert_null(model);
            }
            mq_model_free(model);
            assert_int_equal(mq_alloc_current(), before);
        } while (status != MQ_OK);
        assert_true(countdown > 10);
        mq_free(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_tensor),
        cmocka_unit_test(test_contradicting_shapes),
        cmocka_unit_test(test_surplus_bias),
        cmocka_unit_test(test_dtype),
        cmocka_unit_test(test_stored_bf16),
        cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_already_quantized),
        cmocka_unit_test(test_non_finite),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_embedding_scale),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
