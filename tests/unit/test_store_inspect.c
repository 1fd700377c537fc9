/* layer: store */
/* What inspect says of a plain checkpoint and of a master. */
#include "matquant/verify.h"
#include "store_fixture.h"

static void inspect_counts(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    mq_error err;
    mq_inspection found;
    size_t size = 0;
    char *tensors = fixture_file(plain, "model.safetensors");
    must(mq_file_size(&size, tensors, &err), &err);
    const size_t linear = (64 * 64 + 32 * 64 + 32 * 64 + 64 * 64 + 3 * 128 * 64) * LAYERS;
    const size_t all = linear + VOCAB * HIDDEN + HIDDEN * (2 * LAYERS + 1);
    must(mq_inspect(&found, plain, &err), &err);
    assert_int_equal(found.kind, MQ_KIND_PLAIN);
    assert_string_equal(found.architecture, "LlamaForCausalLM");
    assert_int_equal(found.num_hidden_layers, LAYERS);
    assert_int_equal(found.hidden_size, HIDDEN);
    assert_int_equal(found.vocab_size, VOCAB);
    assert_int_equal(found.tensors, TENSORS);
    assert_int_equal(found.quantized_tensors, 0);
    assert_int_equal(found.weights, all);
    assert_int_equal(found.bytes, size);
    assert_int_equal(found.width_count, 0);
    assert_null(found.provenance);
    mq_inspection_free(&found);

    must(mq_inspect(&found, folder, &err), &err);
    assert_int_equal(found.kind, MQ_KIND_MASTER);
    assert_int_equal(found.tensors, TENSORS);
    assert_int_equal(found.quantized_tensors, LINEARS);
    assert_int_equal(found.weights, all);
    assert_int_equal(found.quantized_weights, linear);
    assert_int_equal(found.group_size, 32);
    assert_int_equal(found.width_count, 7);
    for (size_t i = 0; i < 7; i++) {
        unsigned width = 8 - (unsigned)i;
        /* Groups of 32 cost a bit; seven bits are written a byte each. */
        size_t bits = (width == 7 ? 8 : width) + 1;
        assert_int_equal(found.widths[i].width, width);
        assert_int_equal(found.widths[i].trained, width == 8 || width == 4 || width == 2);
        assert_true(found.widths[i].bits_per_weight == (double)bits);
        assert_int_equal(found.widths[i].bytes, linear * bits / 8 + 2 * (all - linear));
    }
    assert_non_null(strstr(found.provenance, "\"recipe\""));
    assert_null(strstr(found.provenance, "crc32"));
    assert_null(strstr(found.provenance, "blocks"));
    mq_inspection_free(&found);
    mq_free(tensors);
    mq_free(folder);
    mq_free(plain);
}

/* Trained are the recipe's widths whose loss has a weight, and students of co-distillation. */
static void weights_say_what_was_trained(void **state) {
    (void)state;
    static const struct {
        const char *lambda, *codistill; /* NULL: absent */
        bool trained[MQ_MAX_WIDTH + 1];
    } cases[] = {
        {NULL, NULL, {[8] = true, [4] = true, [2] = true}},
        {"[10, 3, 1]", NULL, {[8] = true, [4] = true, [2] = true}},
        {"[10, 3, 0]", NULL, {[8] = true, [4] = true}},
        {"[0, 0, 1]", NULL, {[2] = true}},
        {"[1, 0, 0]",
         "[{\"teacher\": 8, \"student\": 2, \"lambda\": 1}]",
         {[8] = true, [2] = true}},
        {"[0]", NULL, {[4] = true, [2] = true}},
    };
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_set_json(folder, "matquant.json", "recipe", "lambda", cases[i].lambda);
        fixture_set_json(folder, "matquant.json", "recipe", "codistill", cases[i].codistill);
        mq_error err;
        mq_inspection found;
        must(mq_inspect(&found, folder, &err), &err);
        assert_int_equal(found.width_count, MQ_MAX_WIDTHS);
        for (size_t k = 0; k < found.width_count; k++) {
            assert_int_equal(found.widths[k].trained, cases[i].trained[found.widths[k].width]);
        }
        mq_inspection_free(&found);
    }
    mq_free(folder);
    mq_free(plain);
}

/* Damage that headers and config.json show, without a weight being read. */
static void damaged_folders_are_refused(void **state) {
    (void)state;
    static const fixture_edit no_norm = {"model.norm.weight", true, MQ_BF16, 0, {0, 0}, 0};
    static const char *const parts[] = {"codes",     "scales.w8", "biases.w8", "scales.w7",
                                        "biases.w7", "scales.w6", "biases.w6", "scales.w5",
                                        "biases.w5", "scales.w4", "biases.w4", "scales.w3",
                                        "biases.w3", "scales.w2", "biases.w2"};
    enum { PARTS = sizeof parts / sizeof *parts };
    char *plain = fixture_plain(), *master = good_master(plain, &group32), names[PARTS][64];
    fixture_edit no_linear[PARTS];
    for (size_t i = 0; i < PARTS; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.1.mlp.up_proj.%s", parts[i]);
        no_linear[i] = (fixture_edit){.name = names[i], .drop = true};
    }
    const struct {
        const char *from;
        const fixture_edit *edits;
        size_t count;
        const char *vocabulary; /* in config.json; NULL: as it is */
        const char *tensor, *words;
    } cases[] = {
        {plain, &no_norm, 1, NULL, "model.norm.weight", "missing"},
        {master, &no_norm, 1, NULL, "model.norm.weight", "missing"},
        {master, no_linear, PARTS, NULL, "model.layers.1.mlp.up_proj.weight", "missing"},
        {plain, NULL, 0, "97", "model.embed_tokens.weight", "contradicts config.json"},
        {master, NULL, 0, "97", "model.embed_tokens.weight", "contradicts config.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = fixture_rewrite(cases[i].from, cases[i].edits, cases[i].count);
        if (cases[i].vocabulary != NULL) {
            fixture_set_json(folder, "config.json", NULL, "vocab_size", cases[i].vocabulary);
        }
        mq_error err;
        mq_inspection found;
        expect_error(mq_inspect(&found, folder, &err), MQ_ERR_INPUT, &err, "model.safetensors",
                     cases[i].tensor, cases[i].words);
        mq_free(folder);
    }
    mq_free(master);
    mq_free(plain);
}

/* Of a program that calls the library. */
static void no_folder_is_a_wrong_call(void **state) {
    (void)state;
    mq_error err;
    mq_inspection found;
    mq_verify_report report;
    assert_int_equal(mq_inspect(&found, NULL, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "a folder is needed");
    assert_int_equal(mq_verify(&report, NULL, NULL, NULL, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "a folder is needed");
}

static void inspect_without_memory(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    for (size_t at = 1; status != MQ_OK; at++) {
        mq_inspection found;
        size_t before = mq_alloc_current();
        mq_alloc_fail_after(at);
        status = mq_inspect(&found, folder, &err);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            mq_inspection_free(&found);
        }
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), before);
    }
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inspect_counts),
        cmocka_unit_test(weights_say_what_was_trained),
        cmocka_unit_test(damaged_folders_are_refused),
        cmocka_unit_test(no_folder_is_a_wrong_call),
        cmocka_unit_test(inspect_without_memory),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
