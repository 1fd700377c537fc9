/* layer: store */
#include "store_fixture.h"

#include "store/folder.h"
#include "store/pack.h"
#include "store/quantized_weights.h"

#include <math.h>

/* --- dequantization --------------------------------------------------------------------------- */

/* One weight as the format says it, without any of the fast paths. */
static float expected_weight(const mq_master_view *view, unsigned width, mq_slice_rule rule,
                             size_t row, size_t column) {
    size_t group = row * view->groups + column / (view->in / view->groups);
    uint16_t scale = 0, bias = 0;
    memcpy(&scale, view->scales[width]->data + 2 * group, 2);
    memcpy(&bias, view->biases[width]->data + 2 * group, 2);
    unsigned slice = mq_slice_code(view->codes->data[row * view->in + column], width, rule);
    volatile float product = mq_f16_to_f32(scale) * (float)slice; /* rounded before the sum */
    return product + mq_f16_to_f32(bias);
}

static void check_linear(const mq_weights *weights, const mq_master_view *view, unsigned width,
                         mq_slice_rule rule) {
    mq_error err;
    char *name = mq_asprintf("%s.weight", view->prefix);
    size_t rows = 0, columns = 0, first = 3, count = view->out - 5;
    assert_true(weights->class_->has(weights, name));
    must(weights->class_->shape(&rows, &columns, weights, name, &err), &err);
    assert_int_equal(rows, view->out);
    assert_int_equal(columns, view->in);
    float *values = mq_alloc(count * columns, sizeof *values);
    must(weights->class_->read(values, weights, name, first, count, &err), &err);
    for (size_t i = 0; i < count * columns; i++) {
        float wanted = expected_weight(view, width, rule, first + i / columns, i % columns);
        assert_memory_equal(&values[i], &wanted, sizeof wanted);
    }
    mq_free(values);
    mq_free(name);
}

/* All layers at one width; *mixture is to be freed after the weights. */
static mq_weights *open_weights(mq_mixture *mixture, const mq_master *master, unsigned width) {
    mq_error err;
    mq_weights *weights = NULL;
    must(mq_mixture_make(mixture, master, width, NULL, 0, &err), &err);
    must(mq_master_weights(&weights, mixture, &err), &err);
    return weights;
}

static void weights_are_what_the_format_says(void **state) {
    (void)state;
    char *plain = fixture_plain();
    const fixture_master_options cases[] = {{.group_size = 32},
                                            {.group_size = 0, .rule = MQ_SLICE_ROUND}};
    for (size_t c = 0; c < 2; c++) {
        char *folder = fixture_master(plain, &cases[c]);
        mq_error err;
        mq_master *master = NULL;
        must(mq_master_open(&master, folder, &err), &err);
        for (unsigned width = 2; width <= 8; width++) {
            mq_mixture mixture = {0};
            mq_weights *weights = open_weights(&mixture, master, width);
            for (size_t i = 0; i < mq_master_linear_count(master); i++) {
                check_linear(weights, mq_master_linear_at(master, i), width, cases[c].rule);
            }
            mq_weights_free(weights);
            mq_mixture_free(&mixture);
        }
        mq_master_close(master);
        mq_free(folder);
    }
    mq_free(plain);
}

static void private_norms_replace_the_shared(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_tensors *source = NULL;
    must(mq_tensors_open(&source, plain, &err), &err);
    static const struct {
        const char *name;
        unsigned width;
        uint16_t bits;
    } own[] = {{"model.layers.0.input_layernorm.weight", 4, 0x3e3e},
               {"model.norm.weight", 2, 0x3f3f}};
    mq_master *master = NULL;
    must(mq_master_open(&master, folder, &err), &err);
    for (unsigned width = 2; width <= 8; width++) {
        mq_mixture mixture = {0};
        mq_weights *weights = open_weights(&mixture, master, width);
        for (size_t i = 0; i < 2; i++) {
            float got[HIDDEN], shared[HIDDEN];
            must(weights->class_->read(got, weights, own[i].name, 0, 1, &err), &err);
            must(mq_tensor_read_f32(shared, mq_tensors_find(source, own[i].name), 0, HIDDEN, &err),
                 &err);
            for (size_t k = 0; k < HIDDEN; k++) {
                float wanted = width == own[i].width ? mq_bf16_to_f32(own[i].bits) : shared[k];
                assert_memory_equal(&got[k], &wanted, sizeof wanted);
            }
        }
        mq_weights_free(weights);
        mq_mixture_free(&mixture);
    }
    mq_master_close(master);
    mq_tensors_close(source);
    mq_free(folder);
    mq_free(plain);
}

static void a_scale_that_is_not_finite_stops_reading(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *good = fixture_master(plain, &options);
    const char *name = "model.layers.0.self_attn.q_proj.scales.w4";
    const fixture_edit edit = {name, false, MQ_F16, 2, {64, 2}, 0x7c};
    char *folder = fixture_rewrite(good, &edit, 1); /* 0x7c7c: NaN */
    mq_error err;
    mq_master *master = NULL;
    mq_mixture mixture = {0};
    float row[HIDDEN];
    must(mq_master_open(&master, folder, &err), &err);
    mq_weights *weights = open_weights(&mixture, master, 4);
    mq_status status =
        weights->class_->read(row, weights, "model.layers.0.self_attn.q_proj.weight", 0, 1, &err);
    expect_error(status, MQ_ERR_INPUT, &err, "model.safetensors", name, "");
    assert_true(err.has_offset);
    mq_weights_free(weights);
    mq_mixture_free(&mixture);
    mq_master_close(master);
    mq_free(folder);
    mq_free(good);
    mq_free(plain);
}

/* --- opening any kind of folder --------------------------------------------------------------- */

static void expect_kind(const char *folder, mq_kind wanted) {
    mq_error err;
    mq_kind kind = wanted == MQ_KIND_PLAIN ? MQ_KIND_SLICE : MQ_KIND_PLAIN;
    must(mq_folder_kind(&kind, folder, &err), &err);
    assert_int_equal(kind, wanted);
}

static void kinds_of_folders(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32, .no_private = true};
    char *plain = fixture_plain(), *master = fixture_master(plain, &options);
    mq_error err;
    mq_kind kind = MQ_KIND_PLAIN;
    expect_kind(plain, MQ_KIND_PLAIN);
    expect_kind(master, MQ_KIND_MASTER);
    fixture_set_json(plain, "config.json", NULL, "quantization_config", "null");
    expect_kind(plain, MQ_KIND_PLAIN);
    fixture_set_json(plain, "config.json", NULL, "quantization_config",
                     "{\"quant_method\": \"gptq\", \"bits\": 4}");
    expect_error(mq_folder_kind(&kind, plain, &err), MQ_ERR_INPUT, &err, "config.json", "",
                 "quant_method \"gptq\"");
    fixture_set_json(plain, "config.json", NULL, "quantization_config",
                     "{\"bits\": 4, \"group_size\": 64}");
    fixture_set_json(plain, "config.json", NULL, "quantization",
                     "{\"bits\": 4, \"group_size\": 64}");
    expect_kind(plain, MQ_KIND_SLICE);
    fixture_set_json(plain, "config.json", NULL, "quantization", "{\"bits\": 4}");
    expect_error(mq_folder_kind(&kind, plain, &err), MQ_ERR_INPUT, &err, "config.json", "",
                 "neither");
    expect_error(mq_folder_kind(&kind, "/nowhere/at/all", &err), MQ_ERR_INPUT, &err,
                 "/nowhere/at/all", "", "");
    mq_free(master);
    mq_free(plain);
}

/* A name that is just short enough for the folder and too long for what is in it: nobody can tell
 * whether config.json is there. (A folder that may not be searched is the usual case; nothing keeps
 * root, whom tests may run as, out of one.) */
static void what_cannot_be_looked_at_is_not_called_absent(void **state) {
    (void)state;
    char *plain = fixture_plain(), folder[PATH_MAX];
    size_t length = (size_t)snprintf(folder, sizeof folder, "%s", plain);
    while (length + strlen("/./config.json") < sizeof folder) {
        memcpy(folder + length, "/.", 3);
        length += 2;
    }
    memcpy(folder + length, "/.", 3);
    mq_error err;
    mq_kind kind = MQ_KIND_PLAIN;
    cJSON *json = NULL;
    assert_true(mq_is_folder(folder));
    expect_error(mq_folder_kind(&kind, folder, &err), MQ_ERR_INPUT, &err, "config.json", "",
                 "cannot open: File name too long");
    expect_error(mq_read_folder_json(&json, folder, "matquant.json", true, &err), MQ_ERR_INPUT,
                 &err, "matquant.json", "", "cannot open: File name too long");
    assert_null(json);
    mq_free(plain);
}

static mq_status try_open(const char *folder, unsigned width, mq_error *err) {
    mq_model *model = NULL;
    mq_status status = mq_model_open_mixed(&model, folder, width, NULL, 0, err);
    if (status == MQ_OK) {
        mq_model_free(model);
    }
    return status;
}

static void models_of_any_kind(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    must(try_open(plain, 0, &err), &err);
    expect_error(try_open(plain, 4, &err), MQ_ERR_USAGE, &err, "plain", "", "not quantized");
    for (unsigned width = 2; width <= 8; width++) {
        must(try_open(folder, width, &err), &err);
    }
    expect_error(try_open(folder, 9, &err), MQ_ERR_USAGE, &err, "edited", "", "9 bits");

    /* Width 0 is 8. */
    mq_model *whole = NULL, *eight = NULL;
    float a[HIDDEN], b[HIDDEN];
    const char *name = "model.layers.1.mlp.up_proj.weight";
    must(mq_model_open_mixed(&whole, folder, 0, NULL, 0, &err), &err);
    must(mq_model_open_mixed(&eight, folder, 8, NULL, 0, &err), &err);
    must(whole->weights->class_->read(a, whole->weights, name, 7, 1, &err), &err);
    must(eight->weights->class_->read(b, eight->weights, name, 7, 1, &err), &err);
    assert_memory_equal(a, b, sizeof a);
    mq_model_free(whole);
    mq_model_free(eight);

    /* A layer whose shape contradicts config.json. */
    fixture_set_json(folder, "config.json", NULL, "intermediate_size", "64");
    expect_error(try_open(folder, 8, &err), MQ_ERR_INPUT, &err, "edited",
                 "model.layers.0.mlp.gate_proj.weight", "config.json");
    fixture_set_json(folder, "config.json", NULL, "architectures", "[\"OtherForCausalLM\"]");
    assert_int_equal(try_open(folder, 8, &err), MQ_ERR_INPUT);
    mq_free(folder);
    mq_free(plain);
}

static void opening_without_memory(void **state) {
    (void)state;
    const fixture_master_options options = {.group_size = 32};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    float row[HIDDEN];
    for (size_t at = 1; status != MQ_OK; at++) {
        mq_model *model = NULL;
        size_t before = mq_alloc_current();
        mq_alloc_fail_after(at);
        status = mq_model_open_mixed(&model, folder, 4, NULL, 0, &err);
        if (status == MQ_OK) {
            status = model->weights->class_->read(row, model->weights,
                                                  "model.layers.0.mlp.up_proj.weight", 0, 1, &err);
        }
        mq_alloc_fail_after(0);
        mq_model_free(model);
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), before);
        tried = at;
    }
    assert_true(tried > 20);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_what_the_format_says),
        cmocka_unit_test(private_norms_replace_the_shared),
        cmocka_unit_test(a_scale_that_is_not_finite_stops_reading),
        cmocka_unit_test(kinds_of_folders),
        cmocka_unit_test(what_cannot_be_looked_at_is_not_called_absent),
        cmocka_unit_test(models_of_any_kind),
        cmocka_unit_test(opening_without_memory),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
