/* layer: model */
/* A block's forward and backward: against a plain block in double and its finite differences,
 * against PyTorch, and against itself with other threads, other wishes and other activations. */
#include <stdio.h>

#include "block_fixture.h"
#include "tensor/safetensors.h"

/* --- against a block in double ---------------------------------------------------------------- */

/* Σ dy·y of the double block. */
static double double_loss(double *y, const fixture *f, const double *values,
                          const mq_attention_shape *attention) {
    double_block(y, values, &f->layout, &f->shape, attention);
    double sum = 0.0;
    for (size_t i = 0; i < f->layout.input_size; i++) {
        sum += y[i] * (double)f->dy[i];
    }
    return sum;
}

/* Every coordinate of every gradient by central differences. With third derivatives of order 1 to
 * 100 the step's own error is below 1e-8, rounding's below 1e-9: what is left is float32's. */
static void check_differences(fixture *f) {
    const double step = 1e-5;
    const mq_attention_shape attention = {.sequences = f->shape.sequences,
                                          .length = f->shape.length,
                                          .heads = f->config.num_attention_heads,
                                          .kv_heads = f->config.num_key_value_heads,
                                          .head_dim = f->config.head_dim,
                                          .window = f->config.sliding_window,
                                          .scale = (float)f->config.attention_scale,
                                          .softcap = (float)f->config.attn_logit_softcapping};
    double *values = new_doubles(f->layout.count), *y = new_doubles(f->layout.input_size);
    float *expected = mq_alloc(f->layout.count, sizeof *expected);
    assert_non_null(expected);
    for (size_t i = 0; i < f->layout.count; i++) {
        values[i] = (double)f->values[i];
    }
    mq_block_grads grads = all_grads(f);
    run_fixture(f, &grads);
    double_loss(y, f, values, &attention);
    for (size_t i = 0; i < f->layout.input_size; i++) {
        expected[i] = (float)y[i];
    }
    check_close("output", f->y, expected, f->layout.input_size, 2e-6);
    for (size_t i = 0; i < f->layout.count; i++) {
        const double middle = values[i];
        values[i] = middle + step;
        const double above = double_loss(y, f, values, &attention);
        values[i] = middle - step;
        expected[i] = (float)((above - double_loss(y, f, values, &attention)) / (2.0 * step));
        values[i] = middle;
    }
    check_parts(f, f->grads, expected, 1e-5);
    mq_free(expected);
    free(values);
    free(y);
}

static fixture small_fixture(const char *architecture) {
    return (fixture){.config = {.arch = mq_arch_find(architecture),
                                .hidden_size = 10,
                                .intermediate_size = 12,
                                .num_attention_heads = 4,
                                .num_key_value_heads = 2,
                                .head_dim = 6,
                                .rms_norm_eps = 1e-5,
                                .attention_scale = 0.7,
                                .residual_multiplier = 1.0},
                     .shape = {.sequences = 2, .length = 7}};
}

/* Llama's layer; SmolLM3's, which is the same but for its rotation, without one; Granite's,
 * whose parts are multiplied before they are added; OLMo 2's, whose norms are behind its parts, and
 * of all heads at once; and Phi-3's, where a part of each head rotates. */
static void test_llama_differences(void **state) {
    (void)state;
    static const char *const architectures[] = {"LlamaForCausalLM", "SmolLM3ForCausalLM",
                                                "GraniteForCausalLM", "Olmo2ForCausalLM",
                                                "Phi3ForCausalLM"};
    for (size_t i = 0; i < 10; i++) {
        fixture f = small_fixture(architectures[i / 2]);
        f.config.activation = MQ_SILU;
        f.config.residual_multiplier = f.config.arch->multipliers ? 0.3 : 1.0;
        f.config.unrotated_dim = f.config.arch->partial_rotary ? 2 : 0;
        open_fixture(&f, 2, i % 2 == 1, true);
        check_differences(&f);
        close_fixture(&f);
    }
}

static void test_gemma_differences(void **state) {
    (void)state;
    for (int variant = 0; variant < 8; variant++) {
        fixture f = small_fixture(variant < 4 ? "Gemma3ForCausalLM" : "Gemma2ForCausalLM");
        f.config.activation = MQ_GELU_TANH;
        f.config.sliding_window = variant & 1 ? 3 : 0;
        f.config.attn_logit_softcapping = variant & 2 ? 1.5 : 0.0;
        f.config.num_key_value_heads = variant % 4 == 3 ? 1 : 2;
        open_fixture(&f, 2, false, true);
        check_differences(&f);
        close_fixture(&f);
    }
}

/* --- against PyTorch -------------------------------------------------------------------------- */

static const mq_tensor_info *golden_tensor(const mq_tensors *tensors, const char *prefix,
                                           const char *name) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const mq_tensor_info *info = mq_tensors_find(tensors, full);
    if (info == NULL) {
        fail_msg("the golden has no %s", full);
    }
    return info;
}

/* The rows of a linear in the tensor that has them. */
static void read_linear(float *out, const fixture *f, mq_linear linear, const mq_tensors *tensors,
                        const char *prefix) {
    char name[96];
    snprintf(name, sizeof name, "%s.weight", f->config.arch->linear[linear]);
    const mq_tensor_info *info = golden_tensor(tensors, prefix, name);
    const mq_linear_place place = mq_config_linear_place(&f->config, linear);
    size_t rows, columns;
    mq_config_linear_shape(&rows, &columns, &f->config, linear);
    assert_int_equal(f->layout.linear_size[linear], rows * columns);
    assert_int_equal(info->elements, place.rows * columns);
    assert_int_equal(mq_tensor_read_f32(out, info, place.first * columns, rows * columns, NULL),
                     MQ_OK);
}

static void read_golden(float *out, size_t count, const mq_tensors *tensors, const char *prefix,
                        const char *name) {
    const mq_tensor_info *info = golden_tensor(tensors, prefix, name);
    assert_int_equal(info->elements, count);
    assert_int_equal(mq_tensor_read_f32(out, info, 0, count, NULL), MQ_OK);
}

/* The parameters (prefix "weight.") or gradients ("grad.") of a golden, laid out as f->layout. */
static void read_parameters(float *out, const fixture *f, const mq_tensors *tensors,
                            const char *prefix) {
    const mq_arch *arch = f->config.arch;
    char name[96];
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        read_linear(out + f->layout.linear[l], f, l, tensors, prefix);
        if (f->layout.bias_size[l] > 0) {
            snprintf(name, sizeof name, "%s.bias", arch->linear[l]);
            read_golden(out + f->layout.bias[l], f->layout.bias_size[l], tensors, prefix, name);
        }
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        if (arch->norm[n] != NULL) {
            snprintf(name, sizeof name, "%s.weight", arch->norm[n]);
            read_golden(out + f->layout.norm[n], f->layout.norm_size[n], tensors, prefix, name);
        }
    }
}

/* The fixture of a golden's `config`; the order is that of scripts/make-block-goldens.py, and where
 * there is no multiplier it is 1. */
static fixture golden_fixture(const mq_tensors *tensors, const char *architecture) {
    double numbers[12] = {[11] = 1.0};
    const mq_tensor_info *info = golden_tensor(tensors, "", "config");
    assert_true(info->bytes == sizeof numbers || info->bytes == sizeof numbers - sizeof *numbers);
    memcpy(numbers, info->data, info->bytes);
    const mq_arch *arch = mq_arch_find(architecture);
    const size_t rotary_dim = 2 * golden_tensor(tensors, "", "cos")->shape[1];
    return (fixture){.config = {.arch = arch,
                                .hidden_size = (size_t)numbers[0],
                                .intermediate_size = (size_t)numbers[1],
                                .num_attention_heads = (size_t)numbers[2],
                                .num_key_value_heads = (size_t)numbers[3],
                                .head_dim = (size_t)numbers[4],
                                .unrotated_dim = (size_t)numbers[4] - rotary_dim,
                                .rms_norm_eps = numbers[5],
                                .attention_scale = numbers[6],
                                .residual_multiplier = numbers[11],
                                .attn_logit_softcapping = numbers[7],
                                .sliding_window = (size_t)numbers[8],
                                .activation = arch->default_activation},
                     .shape = {.sequences = (size_t)numbers[9], .length = (size_t)numbers[10]}};
}

static void check_golden(const char *name, const char *architecture, bool biases) {
    char path[512];
    snprintf(path, sizeof path, "%s/block/%s.safetensors", MATQUANT_GOLDEN_DIR, name);
    mq_tensors *tensors;
    assert_int_equal(mq_tensors_open_file(&tensors, path, NULL), MQ_OK);
    fixture f = golden_fixture(tensors, architecture);
    open_fixture(&f, 2, biases, true);
    const size_t table = f.shape.length * mq_config_rotary_dim(&f.config) / 2;
    float *expected = mq_alloc(f.layout.count, sizeof *expected);
    assert_non_null(expected);
    read_parameters(f.values, &f, tensors, "weight.");
    read_golden(f.values + f.layout.input, f.layout.input_size, tensors, "", "x");
    read_golden(f.dy, f.layout.input_size, tensors, "", "dy");
    read_golden(f.cos_table, table, tensors, "", "cos");
    read_golden(f.sin_table, table, tensors, "", "sin");
    mq_block_grads grads = all_grads(&f);
    run_fixture(&f, &grads);
    read_golden(expected, f.layout.input_size, tensors, "", "y");
    check_close("output", f.y, expected, f.layout.input_size, 5e-6);
    read_parameters(expected, &f, tensors, "grad.");
    read_golden(expected + f.layout.input, f.layout.input_size, tensors, "", "dx");
    check_parts(&f, f.grads, expected, 1e-5);
    mq_free(expected);
    close_fixture(&f);
    mq_tensors_close(tensors);
}

static void test_llama_golden(void **state) {
    (void)state;
    check_golden("llama", "LlamaForCausalLM", true);
}

/* Of a layer that does not rotate. */
static void test_smollm3_golden(void **state) {
    (void)state;
    check_golden("smollm3", "SmolLM3ForCausalLM", false);
}

static void test_granite_golden(void **state) {
    (void)state;
    check_golden("granite", "GraniteForCausalLM", true);
}

static void test_olmo2_golden(void **state) {
    (void)state;
    check_golden("olmo2", "Olmo2ForCausalLM", false);
}

/* Of a layer with fused projections, whose heads rotate in part. */
static void test_phi3_golden(void **state) {
    (void)state;
    check_golden("phi3", "Phi3ForCausalLM", false);
}

static void test_gemma_goldens(void **state) {
    (void)state;
    check_golden("gemma3-local", "Gemma3ForCausalLM", false);
    check_golden("gemma3-global", "Gemma3ForCausalLM", false);
    check_golden("gemma2", "Gemma2ForCausalLM", false);
}

/* --- against itself --------------------------------------------------------------------------- */

static void test_threads(void **state) {
    (void)state;
    static const char *const architectures[] = {"LlamaForCausalLM", "Gemma3ForCausalLM"};
    for (size_t i = 0; i < 2; i++) {
        fixture one = large_fixture(architectures[i]);
        open_fixture(&one, 1, true, true);
        mq_block_grads grads = all_grads(&one);
        run_fixture(&one, &grads);
        for (size_t threads = 2; threads <= 5; threads += 3) {
            fixture many = large_fixture(architectures[i]);
            open_fixture(&many, threads, true, true);
            grads = all_grads(&many);
            run_fixture(&many, &grads);
            assert_memory_equal(one.y, many.y, one.layout.input_size * sizeof(float));
            assert_memory_equal(one.grads, many.grads, one.layout.count * sizeof(float));
            close_fixture(&many);
        }
        close_fixture(&one);
    }
}

/* Where only some gradients are wanted, these are the bits of the run that wants all. */
static void check_subset(fixture *f, const mq_block_grads *all, unsigned seed) {
    mq_random random;
    mq_random_seed(&random, seed, 1);
    float *subset = mq_calloc(f->layout.count, sizeof *subset);
    assert_non_null(subset);
    const float *const base = f->grads;
    mq_block_grads wanted = {0};
    for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
        wanted.linear[l] =
            mq_random_below(&random, 4) == 0 ? subset + (all->linear[l] - base) : NULL;
    }
    for (mq_norm n = 0; n < MQ_NORM_COUNT; n++) {
        wanted.norm[n] = all->norm[n] && mq_random_below(&random, 8) == 0
                             ? subset + (all->norm[n] - base)
                             : NULL;
    }
    wanted.input = mq_random_below(&random, 8) == 0 ? subset + (all->input - base) : NULL;
    run_fixture(f, &wanted);
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (wanted.linear[i]) {
            assert_memory_equal(wanted.linear[i], all->linear[i],
                                f->layout.linear_size[i] * sizeof(float));
        }
    }
    for (size_t i = 0; i < MQ_NORM_COUNT; i++) {
        if (wanted.norm[i]) {
            assert_memory_equal(wanted.norm[i], all->norm[i],
                                f->layout.norm_size[i] * sizeof(float));
        }
    }
    if (wanted.input) {
        assert_memory_equal(wanted.input, all->input, f->layout.input_size * sizeof(float));
    }
    mq_free(subset);
}

static void test_subsets(void **state) {
    (void)state;
    static const char *const architectures[] = {"LlamaForCausalLM", "Gemma3ForCausalLM"};
    for (unsigned i = 0; i < 2; i++) {
        fixture f = small_fixture(architectures[i]);
        open_fixture(&f, 2, true, true);
        const mq_block_grads all = all_grads(&f);
        mq_block_grads wanted = all;
        run_fixture(&f, &wanted);
        for (unsigned seed = 0; seed < 60; seed++) {
            check_subset(&f, &all, seed);
        }
        close_fixture(&f);
    }
}

/* Activations without backward are fewer, the output and the linears' inputs the same, also in
 * place. */
static void test_forward_only(void **state) {
    (void)state;
    static const char *const architectures[] = {"LlamaForCausalLM", "Gemma3ForCausalLM"};
    for (size_t i = 0; i < 2; i++) {
        fixture full = large_fixture(architectures[i]), lean = large_fixture(architectures[i]);
        open_fixture(&full, 2, true, true);
        open_fixture(&lean, 2, true, false);
        assert_true(lean.slab.size < full.slab.size);
        const mq_block_weights weights = fixture_weights(&full);
        float *x = lean.values + lean.layout.input;
        mq_block_forward(full.y, full.values + full.layout.input, &weights, &full.shape,
                         full.activations, full.context);
        mq_block_forward(lean.y, x, &weights, &lean.shape, lean.activations, lean.context);
        assert_memory_equal(full.y, lean.y, full.layout.input_size * sizeof(float));
        for (mq_linear l = 0; l < MQ_LINEAR_COUNT; l++) {
            size_t out, in;
            mq_config_linear_shape(&out, &in, &full.config, l);
            assert_memory_equal(mq_activations_input(full.activations, l),
                                mq_activations_input(lean.activations, l),
                                fixture_tokens(&full) * in * sizeof(float));
        }
        mq_block_forward(x, x, &weights, &lean.shape, lean.activations, lean.context);
        assert_memory_equal(full.y, x, full.layout.input_size * sizeof(float));
        close_fixture(&full);
        close_fixture(&lean);
    }
}

static void test_absurd_sizes(void **state) {
    (void)state;
    fixture f = small_fixture("LlamaForCausalLM");
    assert_int_equal(mq_context_new(&f.context, NULL, NULL), MQ_OK);
    mq_slab slab = {0};
    const mq_activations_use use = {
        .config = &f.config, .sequences = SIZE_MAX / 8, .length = 4, .f32 = MQ_PASS_BACKWARD};
    assert_null(mq_activations_carve(&slab, &use, f.context));
    assert_true(slab.overflow);
    mq_context_free(f.context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_differences), cmocka_unit_test(test_gemma_differences),
        cmocka_unit_test(test_llama_golden),      cmocka_unit_test(test_gemma_goldens),
        cmocka_unit_test(test_smollm3_golden),    cmocka_unit_test(test_granite_golden),
        cmocka_unit_test(test_olmo2_golden),      cmocka_unit_test(test_phi3_golden),
        cmocka_unit_test(test_threads),           cmocka_unit_test(test_subsets),
        cmocka_unit_test(test_forward_only),      cmocka_unit_test(test_absurd_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
