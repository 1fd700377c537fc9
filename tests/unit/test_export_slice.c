/* layer: export */
#include "export_fixture.h"

#include "matquant/verify.h"

/* --- what is written -------------------------------------------------------------------------- */

static void slices_are_the_masters_models(void **state) {
    (void)state;
    /* 128 for down_proj and 64 for the rest; one group a row; groups of 64 that MLX has; the
     * paper's rule. */
    const fixture_master_options cases[] = {
        {.group_size = 32},
        {.group_size = 64, .rule = MQ_SLICE_ROUND},
        {.group_size = 64, .rule = MQ_SLICE_ROUND_EXTRA},
        {.group_size = 0},
        {.group_size = 64, .down_group_size = 128, .max_shard_size = 60000},
    };
    char *plain = fixture_plain();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char *master = good_master(plain, &cases[c]);
        for (unsigned width = 2; width <= 8; width += c == 0 ? 1 : 2) {
            char *cut = slice(master, width, MQ_SLICE_FORMAT_MATQUANT);
            expect_same_model(master, width, cut, 0);
            mq_free(cut);
            if (mq_slice_bits(width, cases[c].rule) != 7) {
                cut = slice(master, width, MQ_SLICE_FORMAT_MLX);
                expect_same_model(master, width, cut, width);
                if (c == 0 || width == 3) {
                    expect_same_model(master, width, cut, 0);
                }
                mq_free(cut);
            }
        }
        mq_free(master);
    }
    mq_free(plain);
}

/* Groups of 128·k are written as k groups of 128 with the same pair. */
static void pairs_are_repeated(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 0, .no_private = true};
    char *plain = fixture_plain(), *master = fixture_master(plain, &options),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX);
    mq_error err;
    mq_tensors *ours = NULL, *theirs = NULL;
    must(mq_tensors_open(&ours, master, &err), &err);
    must(mq_tensors_open(&theirs, cut, &err), &err);
    /* One group a row: of 64 for most, of 128 for down_proj, which is the exception that
     * config.json names. */
    const mq_tensor_info *info = mq_tensors_find(theirs, "model.layers.0.mlp.down_proj.scales");
    const mq_tensor_info *from = mq_tensors_find(ours, "model.layers.0.mlp.down_proj.scales.w4");
    assert_int_equal(info->shape[1], 1);
    assert_memory_equal(info->data, from->data, from->bytes);
    mq_tensors_close(ours);
    mq_tensors_close(theirs);

    cJSON *config = NULL;
    char *path = fixture_file(cut, "config.json");
    must(mq_json_read(&config, path, &err), &err);
    cJSON *wanted =
        cJSON_Parse("{\"group_size\": 64, \"bits\": 4, "
                    "\"model.layers.0.mlp.down_proj\": {\"group_size\": 128, \"bits\": 4}, "
                    "\"model.layers.1.mlp.down_proj\": {\"group_size\": 128, \"bits\": 4}}");
    assert_true(cJSON_Compare(cJSON_GetObjectItem(config, "quantization"), wanted, true));
    assert_true(cJSON_Compare(cJSON_GetObjectItem(config, "quantization_config"), wanted, true));
    cJSON_DeleteItemFromObject(config, "quantization");
    cJSON_DeleteItemFromObject(config, "quantization_config");
    /* Beside these: all that the source has, and what it leaves to a default by value. */
    cJSON *source = cJSON_Parse(fixture_config), *item = NULL;
    cJSON_ArrayForEach(item, source) {
        assert_true(cJSON_Compare(item, cJSON_GetObjectItem(config, item->string), true));
    }
    mq_config ours_parsed, theirs_parsed;
    must(mq_config_parse(&ours_parsed, source, "", &err), &err);
    must(mq_config_parse(&theirs_parsed, config, "", &err), &err);
    assert_true(mq_config_same(&ours_parsed, &theirs_parsed));
    mq_config_free(&ours_parsed);
    mq_config_free(&theirs_parsed);
    cJSON_Delete(source);
    cJSON_Delete(wanted);
    cJSON_Delete(config);
    mq_free(path);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

static size_t tensor_bytes(const char *folder) {
    mq_error err;
    mq_tensors *tensors = NULL;
    size_t total = 0;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        total += mq_tensors_at(tensors, i)->bytes;
    }
    mq_tensors_close(tensors);
    return total;
}

/* inspect's sizes of a master are what slice writes, and what inspect says of the slice. */
static void inspect_predicts_slices(void **state) {
    (void)state;
    char *plain = fixture_plain();
    const fixture_master_options cases[] = {{.group_size = 32},
                                            {.group_size = 0},
                                            {.group_size = 16},
                                            {.group_size = 32, .rule = MQ_SLICE_ROUND_EXTRA}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char *master = good_master(plain, &cases[c]);
        mq_error err;
        mq_inspection found, sliced;
        must(mq_inspect(&found, master, &err), &err);
        for (size_t i = 0; i < found.width_count; i++) {
            unsigned width = found.widths[i].width;
            const unsigned bits = mq_slice_bits(width, cases[c].rule);
            const bool mlx = bits != 7 && cases[c].group_size != 16;
            mq_slice_report report;
            char *cut = fixture_path("sized");
            must(try_slice(&report, master, cut, width,
                           mlx ? MQ_SLICE_FORMAT_MLX : MQ_SLICE_FORMAT_MATQUANT, &err),
                 &err);
            assert_int_equal(tensor_bytes(cut), found.widths[i].bytes);
            assert_true(report.bits_per_weight == found.widths[i].bits_per_weight);
            must(mq_inspect(&sliced, cut, &err), &err);
            assert_int_equal(sliced.kind, mlx ? MQ_KIND_SLICE : MQ_KIND_MASTER);
            assert_int_equal(sliced.width_count, 1);
            assert_int_equal(sliced.widths[0].width, width);
            assert_int_equal(sliced.widths[0].bytes, found.widths[i].bytes);
            assert_true(sliced.widths[0].bits_per_weight == found.widths[i].bits_per_weight);
            assert_int_equal(sliced.weights, found.weights);
            assert_int_equal(sliced.quantized_weights, found.quantized_weights);
            assert_int_equal(sliced.tensors, found.tensors);
            assert_non_null(strstr(sliced.provenance, "master_sha256"));
            mq_inspection_free(&sliced);
            char command[700];
            snprintf(command, sizeof command, "test \"$(cat '%s'/* | wc -c)\" = %zu", cut,
                     report.bytes_written);
            assert_int_equal(system(command), 0);
            assert_int_equal(report.tensors, LINEARS * 3 + 1 + LAYERS * 2 + 1);
            mq_free(cut);
        }
        mq_inspection_free(&found);
        mq_free(master);
    }
    mq_free(plain);
}

static void slices_verify(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32);
    static const mq_slice_format formats[] = {MQ_SLICE_FORMAT_MLX, MQ_SLICE_FORMAT_MATQUANT};
    for (size_t f = 0; f < 2; f++) {
        for (unsigned width = 2; width <= 4; width += 2) {
            char *cut = slice(master, width, formats[f]);
            mq_error err;
            mq_verify_report report;
            must(mq_verify(&report, cut, NULL, NULL, &err), &err);
            /* Each width has one norm of its own here; all others are the source's. */
            if (f == 0) {
                must(mq_verify(&report, cut, plain, NULL, &err), &err);
                assert_int_equal(report.compared, 2 + LAYERS * 2 - 1);
            }
            mq_tensors *tensors = NULL;
            must(mq_tensors_open(&tensors, cut, &err), &err);
            const mq_tensor_info *last = mq_tensors_at(tensors, mq_tensors_count(tensors) - 1);
            fixture_flip(last->file, last->file_offset + last->bytes - 1);
            assert_int_equal(mq_verify(&report, cut, NULL, NULL, &err), MQ_ERR_CHECK);
            assert_string_equal(err.tensor, last->name);
            mq_tensors_close(tensors);
            mq_free(cut);
        }
    }
    mq_free(master);
    mq_free(plain);
}

/* A layer without its biases is one problem, also beside the source, which has neither these parts
 * of it nor such a weight. */
static void a_rejected_layer_is_one_problem(void **state) {
    (void)state;
    static const fixture_edit edit = {
        "model.layers.1.mlp.up_proj.biases", true, MQ_F16, 0, {0, 0}, 0};
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX), *folder = fixture_rewrite(cut, &edit, 1);
    fixture_relist(folder);
    for (size_t i = 0; i < 2; i++) {
        mq_error err;
        mq_verify_report report;
        expect_error(mq_verify(&report, folder, i == 0 ? NULL : plain, NULL, &err), MQ_ERR_CHECK,
                     &err, "model.safetensors", edit.name, "is missing beside");
        assert_int_equal(report.problems, 1);
    }
    mq_free(folder);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

/* Plain weights that were cut from a master say so. */
static void inspect_finds_the_origin_of_plain_weights(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_SAFETENSORS);
    mq_error err;
    mq_inspection found;
    must(mq_inspect(&found, cut, &err), &err);
    assert_int_equal(found.kind, MQ_KIND_PLAIN);
    assert_non_null(found.provenance);
    assert_non_null(strstr(found.provenance, "master_sha256"));
    assert_null(strstr(found.provenance, "crc32"));
    mq_inspection_free(&found);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

/* Without its scales a layer is none that is packed, but what is there is no weight either. */
static void inspect_misses_scales(void **state) {
    (void)state;
    static const fixture_edit edit = {
        "model.layers.1.mlp.up_proj.scales", true, MQ_F16, 0, {0, 0}, 0};
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX), *folder = fixture_rewrite(cut, &edit, 1);
    mq_error err;
    mq_inspection found;
    expect_error(mq_inspect(&found, folder, &err), MQ_ERR_INPUT, &err, "model.safetensors",
                 "model.layers.1.mlp.up_proj.weight", "its type U32 is none of");
    mq_free(folder);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

/* Tensors that the source calls as MLX calls a packed layer's: MLX's slice has its own in their
 * place, and is the source's slice all the same. */
static void names_that_mlx_needs(void **state) {
    (void)state;
    const fixture_edit edits[] = {
        {"model.layers.0.mlp.up_proj.biases", false, MQ_F32, 1, {3, 0}, 0},
        {"model.layers.0.mlp.up_proj.scales", false, MQ_F32, 1, {3, 0}, 0}};
    char *plain = fixture_plain(), *source = fixture_rewrite(plain, edits, 2),
         *master = good_master(source, &group32), *usual = good_master(plain, &group32),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX), *own = slice(usual, 4, MQ_SLICE_FORMAT_MLX);
    expect_same_model(master, 4, cut, 4);
    assert_int_equal(tensor_bytes(cut), tensor_bytes(own));
    mq_error err;
    mq_verify_report report;
    must(mq_verify(&report, master, source, NULL, &err), &err);
    must(mq_verify(&report, cut, source, NULL, &err), &err);
    mq_inspection found;
    must(mq_inspect(&found, master, &err), &err);
    for (size_t i = 0; i < found.width_count; i++) {
        if (found.widths[i].width == 4) {
            assert_int_equal(found.widths[i].bytes, tensor_bytes(cut));
        }
    }
    mq_inspection_free(&found);
    mq_free(own);
    mq_free(cut);
    mq_free(usual);
    mq_free(master);
    mq_free(source);
    mq_free(plain);
}

static void same_bytes_whatever_the_threads(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32), *outputs[2];
    for (size_t i = 0; i < 2; i++) {
        mq_error err;
        mq_context *context = NULL;
        const mq_context_options options = {.threads = i == 0 ? 1 : 3};
        mq_slice_report report;
        outputs[i] = fixture_path("threads");
        must(mq_context_new(&context, &options, &err), &err);
        const mq_slice_options slice_options = options_of(master, outputs[i], 5);
        must(mq_slice(&report, &slice_options, context, &err), &err);
        mq_context_free(context);
    }
    expect_same_folders(outputs[0], outputs[1]);
    mq_free(outputs[0]);
    mq_free(outputs[1]);
    mq_free(master);
    mq_free(plain);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void expect_refused(const char *master, unsigned width, mq_slice_format format,
                           mq_status wanted, const char *file, const char *tensor,
                           const char *words) {
    mq_error err;
    mq_slice_report report;
    char *output = fixture_path("refused");
    expect_error(try_slice(&report, master, output, width, format, &err), wanted, &err, file,
                 tensor, words);
    expect_nothing_left(output);
    mq_free(output);
}

static void what_a_format_cannot_hold(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32);
    expect_refused(master, 7, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "",
                   "compressed-tensors or matquant");
    expect_refused(master, 7, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "", "no 7 bits");
    expect_refused(master, 9, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "", "2 to 8 bits");
    expect_refused(master, 1, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "", "2 to 8 bits");
    expect_refused(plain, 4, MQ_SLICE_FORMAT_MLX, MQ_ERR_INPUT, "config.json", "", "not quantized");
    char *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX);
    expect_refused(cut, 4, MQ_SLICE_FORMAT_MLX, MQ_ERR_INPUT, "config.json", "", "a slice already");
    char *own = slice(master, 4, MQ_SLICE_FORMAT_MATQUANT);
    expect_refused(own, 8, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "", "which serves 4");
    const fixture_master_options small = {.group_size = 16};
    char *grouped = good_master(plain, &small);
    expect_refused(grouped, 4, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "model.safetensors",
                   "model.layers.0.self_attn.q_proj.codes",
                   "groups of 16 are no multiple of 32, 64 or 128, the only ones in MLX's format; "
                   "use --format safetensors or gguf");
    const fixture_master_options fallback = {.group_size = 32, .down_group_size = 8};
    char *mixed = good_master(plain, &fallback);
    expect_refused(mixed, 4, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "model.safetensors",
                   "model.layers.0.mlp.down_proj.codes", "groups of 8");
    const fixture_master_options extra_level = {.group_size = 32, .rule = MQ_SLICE_ROUND_EXTRA};
    char *extra = good_master(plain, &extra_level);
    expect_refused(extra, 6, MQ_SLICE_FORMAT_MLX, MQ_ERR_USAGE, "", "",
                   "slices of 6 with the extra level");
    static const mq_slice_format without[] = {MQ_SLICE_FORMAT_GGUF, MQ_SLICE_FORMAT_GPTQ,
                                              MQ_SLICE_FORMAT_COMPRESSED_TENSORS};
    for (size_t i = 0; i < 3; i++) {
        mq_error err;
        mq_slice_report report;
        char *output = mq_asprintf("%s/refused%s", fixture_root, i == 0 ? ".gguf" : "");
        expect_error(try_slice(&report, extra, output, 2, without[i], &err), MQ_ERR_USAGE, &err, "",
                     "", "no room for the extra level of slice rule round-extra; mlx (in 3 bits)");
        expect_nothing_left(output);
        mq_free(output);
    }
    mq_free(extra);
    mq_free(mixed);
    mq_free(grouped);
    mq_free(own);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

static void outputs_that_are_there(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *cut = slice(master, 4, MQ_SLICE_FORMAT_MLX);
    mq_error err;
    mq_slice_report report;
    expect_error(try_slice(&report, master, cut, 2, MQ_SLICE_FORMAT_MLX, &err), MQ_ERR_USAGE, &err,
                 "mlx", "", "exists");
    expect_same_model(master, 4, cut, 4);
    mq_slice_options forced = options_of(master, cut, 2);
    forced.force = true;
    must(mq_slice(&report, &forced, NULL, &err), &err);
    expect_same_model(master, 2, cut, 2);
    mq_slice_options itself = options_of(master, master, 2);
    itself.force = true;
    expect_error(mq_slice(&report, &itself, NULL, &err), MQ_ERR_USAGE, &err, "", "",
                 "is the master itself");
    must(mq_verify(&(mq_verify_report){0}, master, NULL, NULL, &err), &err);
    mq_free(cut);
    mq_free(master);
    mq_free(plain);
}

static void nothing_is_no_folder(void **state) {
    (void)state;
    const mq_slice_options none[] = {options_of(NULL, "out", 4), options_of("in", NULL, 4),
                                     options_of("in", "", 4)};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        mq_slice_report report;
        mq_error err;
        assert_int_equal(mq_slice(&report, &none[i], NULL, &err), MQ_ERR_USAGE);
        assert_string_equal(err.message, "a master and an output are needed");
    }
}

/* Callers in C; the command line takes names only. */
static void values_that_are_none(void **state) {
    (void)state;
    mq_slice_options format = options_of("in", "out", 4), dtype = format;
    format.format = MQ_SLICE_FORMAT_MATQUANT + 1;
    dtype.dtype = MQ_SLICE_DTYPE_F32 + 1;
    mq_slice_report report;
    mq_error err;
    assert_int_equal(mq_slice(&report, &format, NULL, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "format is 6, which is none of its values");
    assert_int_equal(mq_slice(&report, &dtype, NULL, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "dtype is 4, which is none of its values");
}

/* A file's name is no folder's, in whatever case, and a format's own types are no option. */
static void options_that_contradict(void **state) {
    (void)state;
    const struct {
        const char *output;
        mq_slice_format format;
        mq_slice_dtype dtype;
        const char *words;
    } cases[] = {
        {"x.gguf", MQ_SLICE_FORMAT_MLX, MQ_SLICE_DTYPE_SOURCE, "use --format gguf"},
        {"x.GgUf", MQ_SLICE_FORMAT_GPTQ, MQ_SLICE_DTYPE_SOURCE, "use --format gguf"},
        {"x.gguf//", MQ_SLICE_FORMAT_MLX, MQ_SLICE_DTYPE_SOURCE, "use --format gguf"},
        {"x.gguf/.gguf", MQ_SLICE_FORMAT_GGUF, MQ_SLICE_DTYPE_SOURCE, "must end in .gguf"},
        {"xgguf", MQ_SLICE_FORMAT_GGUF, MQ_SLICE_DTYPE_SOURCE, "must end in .gguf"},
        {".GGUF", MQ_SLICE_FORMAT_GGUF, MQ_SLICE_DTYPE_SOURCE, "must end in .gguf"},
        {"x", MQ_SLICE_FORMAT_MATQUANT, MQ_SLICE_DTYPE_BF16,
         "--dtype is not for --format matquant"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_slice_options options = options_of("in", cases[i].output, 4);
        options.format = cases[i].format;
        options.dtype = cases[i].dtype;
        mq_slice_report report;
        mq_error err;
        assert_int_equal(mq_slice(&report, &options, NULL, &err), MQ_ERR_USAGE);
        assert_non_null(strstr(err.message, cases[i].words));
    }
}

static void names_say_the_format(void **state) {
    (void)state;
    static const char *const files[] = {"x.gguf", "x.GGUF", "a/x.gguf/", "x.Gguf//"};
    static const char *const folders[] = {"x", "", ".gguf", "x.gguf/y", "a/.gguf", "x.gguf2", "/"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_int_equal(mq_slice_format_of(files[i]), MQ_SLICE_FORMAT_GGUF);
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        assert_int_equal(mq_slice_format_of(folders[i]), MQ_SLICE_FORMAT_MLX);
    }
}

static void formats_are_listed(void **state) {
    (void)state;
    static const char *const names[] = {[MQ_SLICE_FORMAT_MLX] = "mlx",
                                        [MQ_SLICE_FORMAT_GGUF] = "gguf",
                                        [MQ_SLICE_FORMAT_COMPRESSED_TENSORS] = "compressed-tensors",
                                        [MQ_SLICE_FORMAT_GPTQ] = "gptq",
                                        [MQ_SLICE_FORMAT_SAFETENSORS] = "safetensors",
                                        [MQ_SLICE_FORMAT_MATQUANT] = "matquant"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_string_equal(mq_format_at(i)->name, names[i]);
        assert_true(strlen(mq_format_at(i)->summary) > 20);
    }
    assert_null(mq_format_at(sizeof names / sizeof *names));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_are_the_masters_models),
        cmocka_unit_test(pairs_are_repeated),
        cmocka_unit_test(inspect_predicts_slices),
        cmocka_unit_test(slices_verify),
        cmocka_unit_test(a_rejected_layer_is_one_problem),
        cmocka_unit_test(inspect_misses_scales),
        cmocka_unit_test(inspect_finds_the_origin_of_plain_weights),
        cmocka_unit_test(names_that_mlx_needs),
        cmocka_unit_test(same_bytes_whatever_the_threads),
        cmocka_unit_test(what_a_format_cannot_hold),
        cmocka_unit_test(outputs_that_are_there),
        cmocka_unit_test(nothing_is_no_folder),
        cmocka_unit_test(values_that_are_none),
        cmocka_unit_test(options_that_contradict),
        cmocka_unit_test(names_say_the_format),
        cmocka_unit_test(formats_are_listed),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
