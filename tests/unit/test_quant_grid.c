/* layer: quant */
/* The grids against their statement in PyTorch (scripts/make-quant-goldens.py): start, values,
 * gradients, codes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "grid_fixture.h"

static void close_to(const char *what, const float *actual, const float *expected, size_t count,
                     double tolerance) {
    double largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
    }
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)actual[i] - (double)expected[i]) <= tolerance * largest)) {
            fail_msg("%s[%zu]: %g where %g is expected (largest %g)", what, i, (double)actual[i],
                     (double)expected[i], largest);
        }
    }
}

/* Writes one golden array of [out, groups] into every stride-th float of params from first on. */
static void set_params(fixture *f, float *params, size_t stride, const char *name) {
    size_t count;
    float *values = golden(f, name, &count);
    assert_int_equal(count, f->out * f->groups);
    for (size_t i = 0; i < count; i++) {
        params[i * stride] = values[i];
    }
    mq_free(values);
}

static void params_close(fixture *f, const float *params, size_t stride, const char *name,
                         double factor, double tolerance) {
    size_t count;
    float *expected = golden(f, name, &count);
    float *actual = mq_alloc(count, sizeof(float));
    assert_non_null(actual);
    for (size_t i = 0; i < count; i++) {
        actual[i] = (float)((double)params[i * stride] * factor);
    }
    close_to(name, actual, expected, count, tolerance);
    mq_free(actual);
    mq_free(expected);
}

static const mq_adam first_step = {.rate_group = 0.0f,
                                   .rate_rounding = 0.0f,
                                   .beta1 = 0.9f,
                                   .beta2 = 0.95f,
                                   .epsilon = 1e-8f,
                                   .correction1 = 10.0f,
                                   .correction2 = 20.0f};

/* After one step from m = 0, m is a tenth of the gradient. */
#define M_TO_GRADIENT 10.0

/* Position among the levels 2, 4, 8 of a width. */
static size_t level_of(unsigned width) { return width == 2 ? 0 : width == 4 ? 1 : 2; }

static void check_start(fixture *f) {
    mq_nested *nested = f->grid.state;
    params_close(f, nested->lo0, 1, "lo0", 1.0, 1e-6);
    params_close(f, nested->hi0, 1, "hi0", 1.0, 1e-6);
    f->grid.class_->values(f->values, &f->grid);
    for (size_t k = 0; k < 3; k++) {
        char name[32];
        float *params = nested->params + 2 + 2 * level_of(widths[k]);
        snprintf(name, sizeof name, "start_rho.%u", widths[k]);
        params_close(f, params, nested->param_count, name, 1.0, 2e-4);
        snprintf(name, sizeof name, "start_delta.%u", widths[k]);
        params_close(f, params + 1, nested->param_count, name, 1.0, 1e-3);
        float *expected = golden_of(f, "start_value", widths[k]);
        close_to("start_value", f->values[k].f32, expected, f->out * f->in, 1e-4);
        mq_free(expected);
    }
}

static void set_middle_of_training(fixture *f) {
    mq_nested *nested = f->grid.state;
    set_params(f, nested->params, nested->param_count, "dlo");
    set_params(f, nested->params + 1, nested->param_count, "dhi");
    for (size_t k = 0; k < 3; k++) {
        char name[32];
        float *params = nested->params + 2 + 2 * level_of(widths[k]);
        snprintf(name, sizeof name, "rho.%u", widths[k]);
        set_params(f, params, nested->param_count, name);
        snprintf(name, sizeof name, "delta.%u", widths[k]);
        set_params(f, params + 1, nested->param_count, name);
        if (widths[k] != 8) {
            float *offset = golden_of(f, "offset", widths[k]);
            memcpy(nested->offset[level_of(widths[k])], offset, f->out * f->in * sizeof(float));
            mq_free(offset);
        }
    }
}

static void check_gradients(fixture *f) {
    mq_nested *nested = f->grid.state;
    const float *cotangents[3] = {f->cotangent[0], f->cotangent[1], f->cotangent[2]};
    f->grid.class_->step(&f->grid, cotangents, f->values, &first_step);
    params_close(f, nested->m, nested->param_count, "grad.dlo", M_TO_GRADIENT, 2e-4);
    params_close(f, nested->m + 1, nested->param_count, "grad.dhi", M_TO_GRADIENT, 2e-4);
    for (size_t k = 0; k < 3; k++) {
        char name[32];
        const size_t j = level_of(widths[k]);
        snprintf(name, sizeof name, "grad.rho.%u", widths[k]);
        params_close(f, nested->m + 2 + 2 * j, nested->param_count, name, M_TO_GRADIENT, 1e-4);
        snprintf(name, sizeof name, "grad.delta.%u", widths[k]);
        params_close(f, nested->m + 3 + 2 * j, nested->param_count, name, M_TO_GRADIENT, 1e-4);
        if (widths[k] != 8) {
            size_t count;
            snprintf(name, sizeof name, "grad.offset.%u", widths[k]);
            float *expected = golden(f, name, &count);
            for (size_t i = 0; i < count; i++) {
                expected[i] /= (float)M_TO_GRADIENT;
            }
            close_to(name, nested->offset_m[j], expected, count, 1e-4);
            mq_free(expected);
        }
    }
}

static void check_values_and_codes(fixture *f) {
    const size_t count = f->out * f->in;
    const mq_tensor_info *info = mq_tensors_find(f->golden, "codes");
    uint8_t *codes = mq_alloc(count, 1);
    float *scale[3], *middle[3];
    assert_non_null(codes);
    f->grid.class_->values(f->values, &f->grid);
    for (size_t k = 0; k < 3; k++) {
        float *expected = golden_of(f, "value", widths[k]);
        close_to("value", f->values[k].f32, expected, count, 1e-5);
        mq_free(expected);
        scale[k] = mq_alloc(f->out * f->groups, sizeof(float));
        middle[k] = mq_alloc(f->out * f->groups, sizeof(float));
    }
    f->grid.class_->finish(codes, scale, middle, &f->grid);
    assert_memory_equal(codes, info->data, count);
    for (size_t k = 0; k < 3; k++) { /* what is finished is what was learned */
        const size_t group = f->in / f->groups;
        for (size_t i = 0; i < count; i++) {
            const unsigned s = mq_slice_code(codes[i], widths[k], f->options.slice_rule);
            const float level = (float)s + 0.5f - (float)(1u << (widths[k] - 1));
            const float value = scale[k][i / group] * level + middle[k][i / group];
            assert_true(fabsf(value - f->values[k].f32[i]) <= 1e-5f);
        }
        mq_free(scale[k]);
        mq_free(middle[k]);
    }
    mq_free(codes);
}

static void nested_matches(const char *file, size_t group) {
    fixture f;
    open_fixture(&f, file, &mq_nested_grid, group);
    check_start(&f);
    set_middle_of_training(&f);
    check_values_and_codes(&f);
    check_gradients(&f);
    close_fixture(&f);
}

static void nested_groups_of_64(void **state) {
    (void)state;
    nested_matches("nested-64.safetensors", 64);
}

static void nested_one_group_a_row(void **state) {
    (void)state;
    nested_matches("nested-row.safetensors", 0);
}

static void clip_matches(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, "clip-64.safetensors", &mq_clip_grid, 64);
    mq_clip *clip = f.grid.state;
    set_params(&f, clip->params, 2, "beta");
    set_params(&f, clip->params + 1, 2, "gamma");
    check_values_and_codes(&f);
    const float *cotangents[3] = {f.cotangent[0], f.cotangent[1], f.cotangent[2]};
    f.grid.class_->step(&f.grid, cotangents, f.values, &first_step);
    params_close(&f, clip->m, 2, "grad.beta", M_TO_GRADIENT, 2e-4);
    params_close(&f, clip->m + 1, 2, "grad.gamma", M_TO_GRADIENT, 2e-4);
    close_fixture(&f);
}

/* Widths that do not end at 8 bits, one alone and all seven: slices of the codes are what values
 * says they are. */
static void any_widths(void **state) {
    (void)state;
    const unsigned lists[][MQ_MAX_WIDTHS] = {{2}, {4, 2}, {8}, {6, 3}, {8, 7, 6, 5, 4, 3, 2}};
    const size_t counts[] = {1, 2, 1, 2, 7};
    enum { OUT = 3, IN = 100, GROUPS = 2 };
    float weight[OUT * IN], gram[IN], gradient[OUT * IN];
    for (size_t i = 0; i < (size_t)OUT * IN; i++) {
        weight[i] = sinf((float)(i * i % 977));
        gradient[i] = cosf((float)(i * 7 % 613));
    }
    for (size_t i = 0; i < IN; i++) {
        gram[i] = 1.0f + (float)(i % 5);
    }
    for (size_t list = 0; list < sizeof counts / sizeof counts[0]; list++) {
        mq_grid_options options = {.width_count = counts[list]};
        mq_grid grid;
        mq_slab slab = {0};
        mq_quantized quantized;
        mq_finish_scratch scratch;
        float values[MQ_MAX_WIDTHS][OUT * IN];
        mq_values value_list[MQ_MAX_WIDTHS];
        const float *gradients[MQ_MAX_WIDTHS];
        for (size_t k = 0; k < counts[list]; k++) {
            options.widths[k] = lists[list][k];
            options.lambda[k] = 1.0;
            value_list[k] = (mq_values){.f32 = values[k]};
            gradients[k] = gradient;
        }
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1) {
                assert_int_equal(mq_slab_allocate(&slab, "a grid", NULL), MQ_OK);
            }
            mq_grid_carve(&grid, &mq_nested_grid, &options, OUT, IN, GROUPS, &slab);
            mq_quantized_carve(&quantized, OUT, IN, GROUPS, &slab);
            mq_finish_scratch_carve(&scratch, &options, OUT, GROUPS, &slab);
        }
        assert_false(slab.overflow);
        grid.class_->start(&grid, weight, gram);
        for (size_t step = 0; step < 4; step++) {
            const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, step, 4);
            grid.class_->step(&grid, gradients, value_list, &adam);
        }
        assert_true(mq_grid_finish(&quantized, &grid, gram, MQ_SLICE_TOP, &scratch));
        for (size_t k = 0; k < counts[list]; k++) {
            float stored[OUT * IN];
            mq_quantized_values(&(mq_values){.f32 = stored}, &quantized, lists[list][k],
                                MQ_SLICE_TOP);
            close_to("stored value", stored, values[k], (size_t)OUT * IN, 2e-3);
        }
        double before = INFINITY; /* more bits are never worse, trained or not */
        for (unsigned width = 2; width <= 8 && counts[list] == 1 && lists[list][0] == 8; width++) {
            float stored[OUT * IN];
            double error = 0.0;
            mq_quantized_values(&(mq_values){.f32 = stored}, &quantized, width, MQ_SLICE_TOP);
            for (size_t i = 0; i < (size_t)OUT * IN; i++) {
                error += pow((double)stored[i] - (double)weight[i], 2);
            }
            assert_true(error < before);
            before = error;
        }
        mq_slab_free(&slab);
    }
}

/* Groups without spread, of zeros, of one value, with one outlier: finite and exact where they can
 * be. */
static void degenerate_groups(void **state) {
    (void)state;
    enum { IN = 64, ROWS = 4 };
    float weight[ROWS * IN];
    for (size_t i = 0; i < IN; i++) {
        weight[i] = 0.0f;
        weight[IN + i] = 0.25f;
        weight[2 * IN + i] = i == 7 ? 100.0f : 1e-3f * (float)i;
        weight[3 * IN + i] = 1e-30f * (float)i;
    }
    const mq_grid_class *classes[3] = {&mq_nested_grid, &mq_clip_grid, &mq_nested_grid};
    for (size_t c = 0; c < 3; c++) {
        mq_grid_options options = {.width_count = 3, .widths = {8, 4, 2}, .lambda = {10, 3, 1}};
        options.slice_rule = c == 0 ? MQ_SLICE_TOP : MQ_SLICE_ROUND;
        options.zero_point = c == 2 ? MQ_ZERO_SYMMETRIC : MQ_ZERO_FLOAT;
        mq_grid grid;
        mq_slab slab = {0};
        mq_quantized quantized;
        mq_finish_scratch scratch;
        float ones[IN], values[3][ROWS * IN];
        const mq_values value_list[3] = {{values[0], NULL}, {values[1], NULL}, {values[2], NULL}};
        const float *gradients[3] = {weight, weight, weight};
        for (size_t i = 0; i < IN; i++) {
            ones[i] = 1.0f;
        }
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1) {
                assert_int_equal(mq_slab_allocate(&slab, "a grid", NULL), MQ_OK);
            }
            mq_grid_carve(&grid, classes[c], &options, ROWS, IN, 1, &slab);
            mq_quantized_carve(&quantized, ROWS, IN, 1, &slab);
            mq_finish_scratch_carve(&scratch, &options, ROWS, 1, &slab);
        }
        grid.class_->start(&grid, weight, ones);
        const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 2e-3f, 1e-2f, 0, 4);
        grid.class_->step(&grid, gradients, value_list, &adam);
        assert_true(mq_grid_finish(&quantized, &grid, ones, options.slice_rule, &scratch));
        for (unsigned width = 2; width <= 8; width++) {
            mq_quantized_values(&value_list[0], &quantized, width, options.slice_rule);
            for (size_t i = 0; i < (size_t)ROWS * IN; i++) {
                assert_true(isfinite(values[0][i]));
            }
            for (size_t i = 0; i < IN; i++) {
                assert_true(fabsf(values[0][i]) < 1e-6f);
                assert_true(fabsf(values[0][IN + i] - 0.25f) < 0.01f);
            }
        }
        mq_slab_free(&slab);
    }
}

/* Groups of equal weights, whose least squares are of nothing but rounding: the weight comes out
 * at every width, as the grid starts and as it is stored. */
static void constant_groups(void **state) {
    (void)state;
    enum { ROWS = 24, IN = 192 };
    const size_t groups[] = {6, 3, 1};
    float weight[ROWS * IN], gram[IN], values[3][ROWS * IN];
    const mq_values list[3] = {{values[0], NULL}, {values[1], NULL}, {values[2], NULL}};
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t i = 0; i < (size_t)ROWS * IN; i++) {
        weight[i] = (i / IN % 2 == 0 ? 0.1f : -0.0371f) * (float)(1 + i / IN);
    }
    for (size_t i = 0; i < IN; i++) {
        gram[i] = (float)exp(8.0 * mq_random_unit(&random) - 4.0);
    }
    for (size_t k = 0; k < 3; k++) {
        const mq_grid_options options = {
            .width_count = 3, .widths = {8, 4, 2}, .lambda = {10, 3, 1}};
        mq_grid grid;
        mq_slab slab = {0};
        mq_quantized quantized;
        mq_finish_scratch scratch;
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1) {
                assert_int_equal(mq_slab_allocate(&slab, "a grid", NULL), MQ_OK);
            }
            mq_grid_carve(&grid, &mq_nested_grid, &options, ROWS, IN, groups[k], &slab);
            mq_quantized_carve(&quantized, ROWS, IN, groups[k], &slab);
            mq_finish_scratch_carve(&scratch, &options, ROWS, groups[k], &slab);
        }
        grid.class_->start(&grid, weight, gram);
        grid.class_->values(list, &grid);
        assert_true(mq_grid_finish(&quantized, &grid, gram, MQ_SLICE_TOP, &scratch));
        for (size_t j = 0; j < 3; j++) {
            float stored[ROWS * IN];
            mq_quantized_values(&(mq_values){.f32 = stored}, &quantized, options.widths[j],
                                MQ_SLICE_TOP);
            for (size_t i = 0; i < (size_t)ROWS * IN; i++) {
                assert_true(fabsf(values[j][i] - weight[i]) <= fabsf(weight[i]) / 1024.0f);
                assert_true(fabsf(stored[i] - weight[i]) <= fabsf(weight[i]) / 1024.0f);
            }
        }
        mq_slab_free(&slab);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_groups_of_64), cmocka_unit_test(nested_one_group_a_row),
        cmocka_unit_test(clip_matches),

        cmocka_unit_test(any_widths),          cmocka_unit_test(degenerate_groups),
        cmocka_unit_test(constant_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
