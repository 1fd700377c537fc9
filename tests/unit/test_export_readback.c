/* layer: export */
#include "export_fixture.h"

/* --- an independent reader -------------------------------------------------------------------- */

/* Without python3 there is no independent reader, and the test says so. */
static bool have_python(void) {
    return system("python3 -c 'import json, struct' >/dev/null 2>&1") == 0;
}

static void expect_independent_reader_agrees(const char *master, const char *sliced,
                                             unsigned width) {
    char command[1500];
    snprintf(command, sizeof command,
             "python3 '%s/tests/tools/read_mlx.py' '%s' '%s' %u >/dev/null", MATQUANT_SOURCE_DIR,
             master, sliced, width);
    assert_int_equal(system(command), 0);
}

static void an_independent_reader_agrees(void **state) {
    (void)state;
    if (!have_python()) {
        print_message("python3 not found: the independent reader was not run\n");
        skip();
    }
    /* k_proj in the last case has two groups of 32 a row where MLX repeats one pair; down_proj's
     * own group size differs. */
    const fixture_master_options cases[] = {
        {.group_size = 32, .max_shard_size = 50000},
        {.group_size = 0, .rule = MQ_SLICE_ROUND},
        {.group_size = 64, .down_group_size = 32},
        {.group_size = 32, .rule = MQ_SLICE_ROUND_EXTRA},
    };
    static const unsigned widths[] = {2, 3, 4, 5, 6, 8};
    char *plain = fixture_plain();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char *master = good_master(plain, &cases[c]);
        const bool all = c == 0 || c == 3;
        for (size_t i = all ? 0 : c; i < 6; i += all ? 1 : 3) {
            if (mq_slice_bits(widths[i], cases[c].rule) == 7) {
                continue; /* which MLX has not */
            }
            char *cut = slice(master, widths[i], MQ_SLICE_FORMAT_MLX);
            expect_independent_reader_agrees(master, cut, widths[i]);
            /* It can fail: another width's model is not this one, nor is one with a byte changed.
             */
            char *tensors = fixture_file(cut, "model.safetensors");
            mq_error err;
            mq_tensors *opened = NULL;
            must(mq_tensors_open(&opened, cut, &err), &err);
            size_t at = mq_tensors_find(opened, "model.layers.1.mlp.up_proj.weight")->file_offset;
            mq_tensors_close(opened);
            fixture_flip(tensors, at + 5);
            char command[1500];
            snprintf(command, sizeof command,
                     "python3 '%s/tests/tools/read_mlx.py' '%s' '%s' %u >/dev/null 2>&1",
                     MATQUANT_SOURCE_DIR, master, cut, widths[i]);
            assert_int_not_equal(system(command), 0);
            mq_free(tensors);
            mq_free(cut);
        }
        mq_free(master);
    }
    mq_free(plain);
}

/* --- the reader of slices --------------------------------------------------------------------- */

static void expect_slice_rejected(const char *folder, const char *file, const char *tensor,
                                  const char *words) {
    mq_error err;
    mq_slice_reader *reader = NULL;
    expect_error(mq_slice_reader_open(&reader, folder, NULL, &err), MQ_ERR_INPUT, &err, file,
                 tensor, words);
}

static void slice_reader_rejects(void **state) {
    (void)state;
#define UP "model.layers.0.mlp.up_proj"
    static const struct {
        fixture_edit edit;
        const char *tensor, *words;
    } cases[] = {
        {{UP ".weight", true, MQ_U32, 0, {0, 0}, 0}, UP ".weight", "missing"},
        {{UP ".biases", true, MQ_U32, 0, {0, 0}, 0}, UP ".biases", "missing"},
        {{UP ".weight", false, MQ_I32, 2, {128, 8}, 0}, UP ".weight", "is I32 [128, 8]"},
        {{UP ".weight", false, MQ_U32, 1, {1024, 0}, 0}, UP ".weight", "two dimensions"},
        {{UP ".weight", false, MQ_U32, 2, {128, 7}, 0}, UP ".scales", "[128, 56] in groups of 32"},
        {{UP ".weight", false, MQ_U32, 2, {64, 8}, 0}, UP ".scales", "[64, 64]"},
        {{UP ".scales", false, MQ_U16, 2, {128, 2}, 0}, UP ".scales", "is U16"},
        {{UP ".scales", false, MQ_F16, 2, {128, 3}, 0}, UP ".scales", "must be F16 [128, 2]"},
        {{UP ".biases", false, MQ_F16, 2, {128, 3}, 0},
         UP ".biases",
         "must have the dtype and shape"},
        {{UP ".biases", false, MQ_BF16, 2, {128, 2}, 0},
         UP ".biases",
         "must have the dtype and shape"},
    };
#undef UP
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *master = good_master(plain, &options),
         *good = slice(master, 4, MQ_SLICE_FORMAT_MLX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = fixture_rewrite(good, &cases[i].edit, 1);
        expect_slice_rejected(folder, "model.safetensors", cases[i].tensor, cases[i].words);
        mq_free(folder);
    }
    static const struct {
        const char *key, *value, *words;
    } configs[] = {
        {"bits", "7", "bits are 7"},
        {"bits", "1", "bits are 1"},
        {"bits", "16", "bits are 16"},
        {"bits", "\"4\"", "bits"},
        {"group_size", "0", "group_size is 0"},
        {"mode", "\"mxfp4\"", "mode is \"mxfp4\""},
        {"model.layers.0.mlp.up_proj", "false", "is not quantized, but it has scales"},
        {"model.layers.0.mlp.up_proj", "{\"bits\": 9}", "bits are 9"},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        char *folder = fixture_rewrite(good, NULL, 0);
        fixture_set_json(folder, "config.json", "quantization", configs[i].key, configs[i].value);
        expect_slice_rejected(folder, "config.json", "", configs[i].words);
        mq_free(folder);
    }
    expect_slice_rejected(plain, "config.json", "", "not a slice");
    /* What mlx-lm writes besides is read: the mode, entries of layers that are not quantized. */
    fixture_set_json(good, "config.json", "quantization", "mode", "\"affine\"");
    fixture_set_json(good, "config.json", "quantization", "lm_head", "false");
    expect_same_model(master, 4, good, 4);
    mq_error err;
    mq_model *model = NULL;
    expect_error(mq_model_open_mixed(&model, good, 2, NULL, 0, &err), MQ_ERR_USAGE, &err, "mlx", "",
                 "a slice of 4 bits");
    mq_free(good);
    mq_free(master);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_independent_reader_agrees),
        cmocka_unit_test(slice_reader_rejects),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
