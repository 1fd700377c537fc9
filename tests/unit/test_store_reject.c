/* layer: store */
#include "store_fixture.h"

/* --- what the reader refuses ------------------------------------------------------------------ */

static void expect_rejected(const char *folder, const char *file, const char *tensor,
                            const char *words) {
    mq_error err = {.status = MQ_OK};
    mq_master *master = NULL;
    expect_error(mq_master_open(&master, folder, &err), MQ_ERR_INPUT, &err, file, tensor, words);
    assert_null(master);
}

static void reader_rejects_configurations(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *words;
    } cases[] = {
        {"quant_method", "\"awq\"", "quant_method is \"awq\""},
        {"quant_method", NULL, "quant_method"},
        {"quant_method", "3", "quant_method"},
        {"format_version", "2", "format_version is 2"},
        {"format_version", "0", "format_version is 0"},
        {"format_version", "1.5", "format_version"},
        {"format_version", NULL, "format_version"},
        {"slice_rule", "\"middle\"", "slice_rule is \"middle\""},
        {"slice_rule", NULL, "slice_rule"},
        {"group_size", "-32", "group_size"},
        {"group_size", "\"32\"", "group_size"},
        {"group_size", NULL, "group_size"},
        {"widths", "[9, 8]", "widths"},
        {"widths", "[8, 1]", "widths"},
        {"widths", "[4, 8]", "widths"},
        {"widths", "[8, 8]", "widths"},
        {"widths", "[4.5]", "widths"},
        {"widths", "[\"8\"]", "widths"},
        {"widths", "[]", "widths"},
        {"widths", "8", "widths"},
        {"widths", NULL, "widths"},
        {"ignored", "3", "ignored"},
        {"ignored", "[3]", "ignored"},
    };
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *good = fixture_master(plain, &options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = fixture_rewrite(good, NULL, 0);
        fixture_set_json(folder, "config.json", "quantization_config", cases[i].key,
                         cases[i].value);
        expect_rejected(folder, "config.json", "", cases[i].words);
        mq_free(folder);
    }
    fixture_set_json(good, "config.json", "quantization_config", "later",
                     "{\"a\": 1}"); /* unknown members are ignored */
    fixture_set_json(good, "config.json", "quantization_config", "ignored", NULL);
    fixture_set_json(good, "matquant.json", NULL, "later", "[1]");
    mq_error err;
    mq_master *master = NULL;
    must(mq_master_open(&master, good, &err), &err);
    mq_master_close(master);
    expect_rejected(plain, "config.json", "", "not a master");
    mq_free(good);
    mq_free(plain);
}

static void reader_rejects_tensors(void **state) {
    (void)state;
#define Q "model.layers.0.self_attn.q_proj"
    static const struct {
        fixture_edit edit;
        const char *tensor, *words;
    } cases[] = {
        {{Q ".codes", false, MQ_I8, 2, {64, 64}, 0}, Q ".codes", "codes are U8"},
        {{Q ".codes", false, MQ_U8, 1, {4096, 0}, 0}, Q ".codes", "two dimensions"},
        {{Q ".codes", false, MQ_U8, 2, {0, 64}, 0}, Q ".codes", "codes are U8"},
        {{Q ".codes", true, MQ_U8, 0, {0, 0}, 0}, Q ".scales.w8", "no codes"},
        {{Q ".codes", false, MQ_U8, 2, {32, 64}, 0}, Q ".scales.w8", "must be F16 [32, groups]"},
        {{Q ".scales.w4", true, MQ_F16, 0, {0, 0}, 0}, Q ".scales.w4", "missing"},
        {{Q ".biases.w2", true, MQ_F16, 0, {0, 0}, 0}, Q ".biases.w2", "missing"},
        {{Q ".scales.w4", false, MQ_BF16, 2, {64, 2}, 0}, Q ".scales.w4", "is BF16 [64, 2]"},
        {{Q ".scales.w4", false, MQ_F16, 1, {128, 0}, 0}, Q ".scales.w4", "must be F16"},
        {{Q ".scales.w8", false, MQ_F16, 2, {64, 3}, 0}, Q ".scales.w8", "groups dividing 64"},
        {{Q ".biases.w5", false, MQ_F16, 2, {64, 4}, 0}, Q ".biases.w5", "4 groups a row"},
        {{Q ".weight", false, MQ_BF16, 2, {64, 64}, 0}, Q ".weight", "stands beside"},
        {{"model.norm.scales.w4", false, MQ_F16, 2, {64, 1}, 0},
         "model.norm.scales.w4",
         "no codes"},
        {{"model.norm.biases.w4", false, MQ_F16, 2, {64, 1}, 0},
         "model.norm.biases.w4",
         "no codes"},
        {{"model.norm.weight.w4", false, MQ_BF16, 1, {32, 0}, 0},
         "model.norm.weight.w4",
         "dtype and shape"},
        {{"model.norm.weight.w4", false, MQ_F16, 1, {64, 0}, 0},
         "model.norm.weight.w4",
         "dtype and shape"},
    };
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *good = fixture_master(plain, &options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = fixture_rewrite(good, &cases[i].edit, 1);
        expect_rejected(folder, "model.safetensors", cases[i].tensor, cases[i].words);
        mq_free(folder);
    }
    fixture_set_json(good, "config.json", "quantization_config", "widths", "[8, 7, 6, 5, 4, 2]");
    expect_rejected(good, "model.safetensors", Q ".scales.w3", "does not say are served");
    mq_free(good);
    mq_free(plain);
#undef Q
}

static void reader_rejects_broken_files(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    char *tensors = fixture_file(folder, "model.safetensors"),
         *json = fixture_file(folder, "matquant.json");
    char *config = fixture_file(folder, "config.json");
    size_t size = 0;
    mq_error err;
    must(mq_file_size(&size, tensors, &err), &err);
    assert_int_equal(truncate(tensors, (off_t)size - 1), 0);
    mq_master *master = NULL;
    mq_status status = mq_master_open(&master, folder, &err);
    assert_int_equal(status, MQ_ERR_INPUT);
    assert_non_null(strstr(err.file, "model.safetensors"));
    assert_int_equal(truncate(json, 10), 0);
    expect_rejected(folder, "matquant.json", "", "");
    assert_int_equal(truncate(config, 10), 0);
    expect_rejected(folder, "config.json", "", "");
    assert_int_equal(unlink(config), 0);
    expect_rejected(folder, "config.json", "", "");
    mq_free(tensors);
    mq_free(json);
    mq_free(config);
    mq_free(folder);
    mq_free(plain);
}

static void lack_of_memory_is_an_error(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    for (size_t at = 1; status != MQ_OK; at++) {
        mq_master *master = NULL;
        size_t before = mq_alloc_current();
        mq_alloc_fail_after(at);
        status = mq_master_open(&master, folder, &err);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            mq_master_close(master);
        } else {
            assert_int_equal(status, MQ_ERR_MACHINE);
        }
        assert_int_equal(mq_alloc_current(), before);
        tried = at;
    }
    assert_true(tried > 20);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reader_rejects_configurations),
        cmocka_unit_test(reader_rejects_tensors),
        cmocka_unit_test(reader_rejects_broken_files),
        cmocka_unit_test(lack_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
