/* layer: store */
#include "store_fixture.h"

#include "matquant/version.h"
#include "store/readers.h"

/* --- writing and reading back ----------------------------------------------------------------- */

static void everything_is_read_back(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_master *master = NULL;
    mq_tensors *source = NULL;
    must(mq_master_open(&master, folder, &err), &err);
    must(mq_tensors_open(&source, plain, &err), &err);
    unsigned widths[7];
    assert_int_equal(mq_master_widths(widths, master), 7);
    assert_int_equal(widths[0], 8);
    assert_int_equal(widths[6], 2);
    assert_int_equal(mq_master_group_size(master), 32);
    assert_int_equal(mq_master_slice_rule(master), MQ_SLICE_TOP);
    assert_int_equal(mq_master_linear_count(master), LINEARS);
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    fixture_layout(&layout, linears, plain, &options);
    for (size_t i = 0; i < LINEARS; i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        assert_string_equal(view->prefix, linears[i].prefix);
        assert_ptr_equal(mq_master_find(master, linears[i].prefix), view);
        assert_int_equal(view->groups, linears[i].in / 32);
        mq_quantized wanted;
        fixture_quantized(&wanted, &linears[i], (uint32_t)i);
        assert_memory_equal(view->codes->data, wanted.codes, view->out * view->in);
        for (unsigned width = 2; width <= 8; width++) {
            assert_memory_equal(view->scales[width]->data, wanted.scales[width],
                                view->out * view->groups * 2);
            assert_memory_equal(view->biases[width]->data, wanted.biases[width],
                                view->out * view->groups * 2);
        }
        fixture_quantized_free(&wanted);
    }
    assert_null(mq_master_find(master, "model.norm"));
    const mq_tensors *tensors = mq_master_tensors(master);
    size_t plain_tensors = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        if (mq_master_role(NULL, master, info) == MQ_ROLE_PLAIN) {
            const mq_tensor_info *theirs = mq_tensors_find(source, info->name);
            assert_non_null(theirs);
            assert_int_equal(info->bytes, theirs->bytes);
            assert_memory_equal(info->data, theirs->data, info->bytes);
            plain_tensors++;
        }
    }
    assert_int_equal(plain_tensors, mq_tensors_count(source) - LINEARS);
    mq_tensors_close(source);
    mq_master_close(master);
    mq_free(plain);
    mq_free(folder);
}

static void config_and_provenance(void **state) {
    (void)state;
    const fixture_master_options options = {
        .group_size = 0, .rule = MQ_SLICE_ROUND, .no_private = true};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_master *master = NULL;
    must(mq_master_open(&master, folder, &err), &err);
    assert_int_equal(mq_master_slice_rule(master), MQ_SLICE_ROUND);
    assert_int_equal(mq_master_group_size(master), 0);
    cJSON *config = cJSON_Duplicate(mq_master_config(master), true);
    cJSON *added = cJSON_DetachItemFromObjectCaseSensitive(config, "quantization_config");
    cJSON *wanted = cJSON_Parse(
        "{\"quant_method\": \"matquant\", \"format_version\": 1, \"slice_rule\": \"round\", "
        "\"group_size\": 0, \"widths\": [8, 7, 6, 5, 4, 3, 2], "
        "\"ignored\": [\"model.layers.9.nothing\"]}");
    cJSON *source = cJSON_Parse(fixture_config);
    assert_true(cJSON_Compare(added, wanted, true));
    assert_true(cJSON_Compare(config, source, true));

    const cJSON *provenance = mq_master_provenance(master);
    assert_string_equal(cJSON_GetObjectItem(provenance, "tool")->valuestring,
                        "matquant " MQ_VERSION);
    assert_int_equal(cJSON_GetObjectItem(provenance, "format_version")->valueint, 1);
    assert_string_equal(cJSON_GetObjectItem(provenance, "source")->valuestring, "tiny");
    const cJSON *listed = cJSON_GetObjectItem(provenance, "tensors");
    const mq_tensors *tensors = mq_master_tensors(master);
    assert_int_equal(cJSON_GetArraySize(listed), mq_tensors_count(tensors));
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(listed, info->name);
        char digits[9];
        snprintf(digits, sizeof digits, "%08x", (unsigned)mq_crc32(0, info->data, info->bytes));
        assert_string_equal(cJSON_GetObjectItem(entry, "crc32")->valuestring, digits);
        assert_string_equal(cJSON_GetObjectItem(entry, "dtype")->valuestring,
                            mq_dtype_name(info->dtype));
        const cJSON *shape = cJSON_GetObjectItem(entry, "shape");
        assert_int_equal(cJSON_GetArraySize(shape), info->dims);
        for (size_t d = 0; d < info->dims; d++) {
            assert_int_equal(cJSON_GetArrayItem(shape, (int)d)->valueint, info->shape[d]);
        }
    }
    /* Small files are copied; README and other containers of the weights are not. */
    char **names = NULL;
    size_t count = 0;
    must(mq_list_folder(&names, &count, folder, &err), &err);
    assert_int_equal(count, 4);
    assert_string_equal(names[0], "config.json");
    assert_string_equal(names[1], "matquant.json");
    assert_string_equal(names[2], "model.safetensors");
    assert_string_equal(names[3], "tokenizer.json");
    mq_free_list(names, count);
    cJSON_Delete(config);
    cJSON_Delete(added);
    cJSON_Delete(wanted);
    cJSON_Delete(source);
    mq_master_close(master);
    mq_free(plain);
    mq_free(folder);
}

static size_t folder_bytes(const char *folder) {
    mq_error err;
    char **names = NULL;
    size_t count = 0, total = 0;
    must(mq_list_folder(&names, &count, folder, &err), &err);
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        char *path = fixture_file(folder, names[i]);
        must(mq_file_size(&size, path, &err), &err);
        total += size;
        mq_free(path);
    }
    mq_free_list(names, count);
    return total;
}

static void predicted_size_holds(void **state) {
    (void)state;
    char *plain = fixture_plain();
    for (size_t shard = 0; shard <= 65536; shard += 65536) {
        const fixture_master_options options = {
            .group_size = 64, .no_private = true, .max_shard_size = shard};
        char *folder = fixture_master(plain, &options);
        mq_master_linear linears[LINEARS];
        mq_master_layout layout;
        fixture_layout(&layout, linears, plain, &options);
        mq_error err;
        mq_tensors *source = NULL;
        size_t predicted = 0, actual = folder_bytes(folder);
        must(mq_tensors_open(&source, plain, &err), &err);
        must(mq_master_size(&predicted, &layout, source, &err), &err);
        mq_tensors_close(source);
        /* A bound, and no further from the truth than what a tensor's description may take. */
        assert_true(predicted >= actual);
        assert_true(predicted - actual < (size_t)4096 + LINEARS * 15 * 512 + 64 * 512);
        mq_free(folder);
    }
    mq_free(plain);
}

static void same_bytes_twice_and_with_shards(void **state) {
    (void)state;
    char *plain = fixture_plain(), *sharded_plain = fixture_plain_sharded(50000);
    const fixture_master_options one = {.group_size = 64, .no_private = true};
    const fixture_master_options shards = {
        .group_size = 64, .no_private = true, .max_shard_size = 40000};
    char *a = fixture_master(plain, &one), *b = fixture_master(plain, &one);
    char *c = fixture_master(sharded_plain, &shards);
    expect_same_folders(a, b);
    mq_error err;
    mq_master *first = NULL, *third = NULL;
    must(mq_master_open(&first, a, &err), &err);
    must(mq_master_open(&third, c, &err), &err);
    assert_true(mq_tensors_file_count(mq_master_tensors(third)) > 2);
    assert_int_equal(mq_tensors_count(mq_master_tensors(first)),
                     mq_tensors_count(mq_master_tensors(third)));
    for (size_t i = 0; i < mq_tensors_count(mq_master_tensors(first)); i++) {
        const mq_tensor_info *left = mq_tensors_at(mq_master_tensors(first), i);
        const mq_tensor_info *right = mq_tensors_find(mq_master_tensors(third), left->name);
        assert_non_null(right);
        assert_int_equal(left->bytes, right->bytes);
        assert_memory_equal(left->data, right->data, left->bytes);
    }
    mq_master_close(first);
    mq_master_close(third);
    mq_free(a);
    mq_free(b);
    mq_free(c);
    mq_free(plain);
    mq_free(sharded_plain);
}

/* --- what the writer refuses ------------------------------------------------------------------ */

static mq_status open_writer(const char *plain, mq_master_layout *layout, mq_error *err) {
    char *folder = fixture_path("refused");
    mq_error ignored;
    mq_tensors *source = NULL;
    mq_output *output = NULL;
    mq_master_writer *writer = NULL;
    must(mq_tensors_open(&source, plain, &ignored), &ignored);
    must(mq_output_begin(&output, folder, false, &ignored), &ignored);
    mq_status status = mq_master_writer_open(&writer, layout, source, output, err);
    if (status == MQ_OK) {
        mq_master_writer_abandon(writer);
    }
    mq_output_discard(output);
    expect_nothing_left(folder);
    mq_tensors_close(source);
    mq_free(folder);
    return status;
}

static void writer_refuses(void **state) {
    (void)state;
    char *plain = fixture_plain();
    const fixture_master_options options = {.group_size = 32};
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    mq_error err;
    fixture_layout(&layout, linears, plain, &options);
    must(open_writer(plain, &layout, &err), &err);

    snprintf(linears[3].prefix, sizeof linears[3].prefix, "model.layers.0.self_attn.nothing");
    expect_error(open_writer(plain, &layout, &err), MQ_ERR_INPUT, &err, "plain",
                 "model.layers.0.self_attn.nothing.weight", "missing");

    fixture_layout(&layout, linears, plain, &options);
    linears[4].in = 96;
    linears[4].groups = 3;
    expect_error(open_writer(plain, &layout, &err), MQ_ERR_INPUT, &err, "model.safetensors",
                 "model.layers.0.mlp.gate_proj.weight", "[128, 64] instead of [128, 96]");

    fixture_layout(&layout, linears, plain, &options);
    linears[4].groups = 5;
    expect_error(open_writer(plain, &layout, &err), MQ_ERR_INPUT, &err, "model.safetensors",
                 "model.layers.0.mlp.gate_proj.weight", "5 groups do not divide");

    fixture_layout(&layout, linears, plain, &options);
    fixture_set_json(plain, "config.json", NULL, "quantization_config",
                     "{\"quant_method\": \"gptq\"}");
    expect_error(open_writer(plain, &layout, &err), MQ_ERR_INPUT, &err, "plain", "",
                 "already quantized");
    fixture_set_json(plain, "config.json", NULL, "quantization_config", "null");
    must(open_writer(plain, &layout, &err), &err);

    static const fixture_edit clashes[] = {
        {"model.layers.5.x.codes", false, MQ_U8, 2, {2, 2}, 0},
        {"x.scales.w4", false, MQ_F16, 2, {2, 2}, 0},
        {"model.norm.weight.w3", false, MQ_F16, 2, {2, 2}, 0},
    };
    for (size_t i = 0; i < 3; i++) {
        char *clashing = fixture_rewrite(plain, &clashes[i], 1);
        fixture_layout(&layout, linears, clashing, &options);
        expect_error(open_writer(clashing, &layout, &err), MQ_ERR_INPUT, &err, "model.safetensors",
                     clashes[i].name, "a master checkpoint uses itself");
        mq_free(clashing);
    }
    mq_free(plain);
}

static void writer_refuses_pairs_outside_float16(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = fixture_path("infinite");
    const fixture_master_options options = {.group_size = 32};
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    fixture_layout(&layout, linears, plain, &options);
    mq_error err;
    mq_tensors *source = NULL;
    mq_output *output = NULL;
    mq_master_writer *writer = NULL;
    must(mq_tensors_open(&source, plain, &err), &err);
    must(mq_output_begin(&output, folder, false, &err), &err);
    must(mq_master_writer_open(&writer, &layout, source, output, &err), &err);
    mq_quantized quantized;
    fixture_quantized(&quantized, &linears[0], 0);
    quantized.biases[4][2 * 5 + 1] = 0x7c00;
    expect_error(mq_master_writer_put_rows(writer, 0, &quantized, 0, &err), MQ_ERR_INPUT, &err, "",
                 "model.layers.0.self_attn.q_proj.biases.w4", "row 5, group 1");
    fixture_quantized_free(&quantized);
    mq_master_writer_abandon(writer);
    mq_output_discard(output);
    expect_nothing_left(folder);
    mq_tensors_close(source);
    mq_free(plain);
    mq_free(folder);
}

/* Not all layers put: finishing is an error, and nothing is left. */
static void writer_wants_all_layers(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = fixture_path("unfinished");
    const fixture_master_options options = {.group_size = 32};
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    fixture_layout(&layout, linears, plain, &options);
    mq_error err;
    mq_tensors *source = NULL;
    mq_output *output = NULL;
    mq_master_writer *writer = NULL;
    must(mq_tensors_open(&source, plain, &err), &err);
    must(mq_output_begin(&output, folder, false, &err), &err);
    must(mq_master_writer_open(&writer, &layout, source, output, &err), &err);
    assert_int_not_equal(mq_master_writer_finish(writer, NULL, NULL, &err), MQ_OK);
    mq_output_discard(output);
    expect_nothing_left(folder);
    mq_tensors_close(source);
    mq_free(plain);
    mq_free(folder);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void writer_without_memory(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = fixture_path("no-memory");
    const fixture_master_options options = {.group_size = 32};
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    fixture_layout(&layout, linears, plain, &options);
    layout.linear_count = 1;
    mq_quantized quantized;
    fixture_quantized(&quantized, &linears[0], 0);
    mq_error err;
    mq_tensors *source = NULL;
    must(mq_tensors_open(&source, plain, &err), &err);
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    for (size_t at = 1; status != MQ_OK; at++) {
        mq_output *output = NULL;
        mq_master_writer *writer = NULL;
        size_t before = mq_alloc_current();
        must(mq_output_begin(&output, folder, false, &err), &err);
        mq_alloc_fail_after(at);
        status = mq_master_writer_open(&writer, &layout, source, output, &err);
        if (status == MQ_OK) {
            status = mq_master_writer_put_rows(writer, 0, &quantized, 0, &err);
            if (status == MQ_OK) {
                status = mq_master_writer_finish(writer, NULL, NULL, &err);
            } else {
                mq_master_writer_abandon(writer);
            }
        }
        mq_alloc_fail_after(0);
        mq_output_discard(output);
        if (status != MQ_OK) {
            assert_int_equal(status, MQ_ERR_MACHINE);
        }
        assert_int_equal(mq_alloc_current(), before);
        expect_nothing_left(folder);
        tried = at;
    }
    assert_true(tried > 20);
    fixture_quantized_free(&quantized);
    mq_tensors_close(source);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read_back),
        cmocka_unit_test(config_and_provenance),
        cmocka_unit_test(predicted_size_holds),
        cmocka_unit_test(same_bytes_twice_and_with_shards),
        cmocka_unit_test(writer_refuses),
        cmocka_unit_test(writer_refuses_pairs_outside_float16),
        cmocka_unit_test(writer_wants_all_layers),
        cmocka_unit_test(writer_without_memory),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
