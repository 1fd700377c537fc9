/* layer: export */
#include "export/gguf_types.h"
#include "matquant/verify.h"

#include "export_fixture.h"

/* Layers of 8 bits and one of 3. */
static const mq_layer_bits layer_bits[] = {{"self_attn", 9, 8}, {"0.mlp.up", 8, 3}};

static mq_slice_options mixed_options(const char *master, const char *output,
                                      mq_slice_format format) {
    mq_slice_options options = options_of(master, output, 2);
    options.format = format;
    options.layer_bits = layer_bits;
    options.layer_bits_count = 2;
    return options;
}

/* --- slices are the master's models ----------------------------------------------------------- */

/* The same weights as the mixed master's, and the norms of the slice's width. */
static void mixed_slices_are_mixed_masters(void **state) {
    (void)state;
    static const mq_slice_format formats[] = {MQ_SLICE_FORMAT_MLX, MQ_SLICE_FORMAT_SAFETENSORS};
    const fixture_master_options cases[] = {
        {.group_size = 32},
        {.group_size = 32, .rule = MQ_SLICE_ROUND},
        {.group_size = 32, .rule = MQ_SLICE_ROUND_EXTRA},
        {.group_size = 32, .linear_count = 7, .min_bits = 4},
    };
    char *plain = fixture_plain();
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        char *master = good_master(plain, &cases[i / 2]);
        char *output = fixture_path(mq_format_at(formats[i % 2])->name);
        mq_slice_options options = mixed_options(master, output, formats[i % 2]);
        options.dtype = i % 2 == 0 ? MQ_SLICE_DTYPE_SOURCE : MQ_SLICE_DTYPE_F32;
        mq_error err;
        mq_slice_report report;
        mq_model *whole = NULL, *cut = NULL;
        must(mq_slice(&report, &options, NULL, &err), &err);
        assert_int_equal(report.cost_count, 0);
        must(mq_model_open_mixed(&whole, master, 2, layer_bits, 2, &err), &err);
        must(mq_model_open_mixed(&cut, output, 0, NULL, 0, &err), &err);
        assert_memory_equal(&whole->widths, &report.widths, sizeof report.widths);
        if (i == 0) {
            assert_memory_equal(&whole->widths, &cut->widths, sizeof cut->widths);
            assert_int_equal(report.widths.layers[8], LAYERS * 4);
            assert_int_equal(report.widths.layers[3], 1);
            assert_int_equal(report.widths.layers[2], LAYERS * 3 - 1);
            must(mq_verify(&(mq_verify_report){0}, output, plain, NULL, &err), &err);
        }
        expect_same_weights(whole, cut);
        mq_slice_report_free(&report);
        mq_free(output);
        mq_free(master);
    }
    mq_free(plain);
}

/* Patterns that say what would be anyhow change nothing: not a byte, and no format minds. */
static void uniform_mixtures_are_slices(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32);
    for (mq_slice_format f = MQ_SLICE_FORMAT_MLX; mq_format_at(f) != NULL; f++) {
        if (f == MQ_SLICE_FORMAT_GGUF) {
            continue; /* chooses widths of itself */
        }
        const mq_layer_bits all = {".", 1, 4};
        char *output = fixture_path("uniform"), *wanted = slice(master, 4, f);
        mq_slice_options options = options_of(master, output, 4);
        options.format = f;
        options.layer_bits = &all;
        options.layer_bits_count = 1;
        mq_error err;
        mq_slice_report report;
        must(mq_slice(&report, &options, NULL, &err), &err);
        expect_same_folders(wanted, output);
        mq_slice_report_free(&report);
        mq_free(wanted);
        mq_free(output);
    }
    mq_free(master);
    mq_free(plain);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void expect_refused(const char *master, mq_slice_format format, const mq_layer_bits *one,
                           const char *tensor, const char *words) {
    char *output = fixture_path("refused");
    mq_slice_options options = mixed_options(master, output, format);
    if (one != NULL) {
        options.layer_bits = one;
        options.layer_bits_count = 1;
    }
    mq_error err;
    mq_slice_report report;
    expect_error(mq_slice(&report, &options, NULL, &err), MQ_ERR_USAGE, &err, "", tensor, words);
    expect_nothing_left(output);
    mq_slice_report_free(&report);
    mq_free(output);
}

static void mixtures_that_a_format_cannot_hold(void **state) {
    (void)state;
    const fixture_master_options extra_level = {.group_size = 32, .rule = MQ_SLICE_ROUND_EXTRA};
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *extra = good_master(plain, &extra_level);
    const mq_layer_bits seven = {"0.mlp.up", 8, 7}, six = {"0.mlp.up", 8, 6},
                        none = {"x_proj", 6, 3};
    static const char up[] = "model.layers.0.mlp.up_proj.codes";
    expect_refused(master, MQ_SLICE_FORMAT_COMPRESSED_TENSORS, NULL, "",
                   "--format compressed-tensors has one width for all layers; with --layer-bits "
                   "use one of mlx, gguf, gptq, safetensors");
    expect_refused(master, MQ_SLICE_FORMAT_MATQUANT, NULL, "", "--format matquant has one width");
    expect_refused(master, MQ_SLICE_FORMAT_MLX, &seven, up, "takes 7 bits, which MLX's format has");
    expect_refused(extra, MQ_SLICE_FORMAT_MLX, &six, up, "takes 6 bits, which MLX's format has");
    expect_refused(master, MQ_SLICE_FORMAT_GPTQ, &six, up, "takes 6 bits, which GPTQ has not");
    expect_refused(extra, MQ_SLICE_FORMAT_GPTQ, NULL, "", "has no room for the extra level");
    expect_refused(master, MQ_SLICE_FORMAT_MLX, &none, "",
                   "--layer-bits 'x_proj' matches no quantized layer, such as model.layers.");
    mq_free(extra);
    mq_free(master);
    mq_free(plain);
}

/* --- GGUF ------------------------------------------------------------------------------------- */

/* Rows of 64 and 128 fit none of the K-quants: 2, 3 and 6 bits fall back to types that hold more.
 */
static void gguf_widens_what_falls_back(void **state) {
    (void)state;
    const fixture_master_options options = {
        .group_size = 32, .no_private = true, .linear_count = 7, .min_bits = 3};
    static const struct {
        unsigned width, wanted, embedding;
        mq_slice_dtype dtype;
    } cases[] = {
        {2, 4, 4, MQ_SLICE_DTYPE_SOURCE}, {3, 4, 4, MQ_SLICE_DTYPE_SOURCE},
        {4, 4, 4, MQ_SLICE_DTYPE_SOURCE}, {5, 5, 5, MQ_SLICE_DTYPE_SOURCE},
        {6, 8, 8, MQ_SLICE_DTYPE_SOURCE}, {8, 8, 8, MQ_SLICE_DTYPE_SOURCE},
        {2, 2, 3, MQ_SLICE_DTYPE_F16},
    };
    const mq_layer_bits up = {"up_proj", 7, 2};
    char *plain = fixture_plain(), *folder = fixture_master(plain, &options);
    mq_error err;
    mq_master *master = NULL;
    must(mq_master_open(&master, folder, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_mixture mixture = {0};
        mq_slice_options slice_options = options_of(folder, "out.gguf", cases[i].width);
        slice_options.dtype = cases[i].dtype;
        must(mq_mixture_make(&mixture, master, cases[i].width, &up, 1, &err), &err);
        mq_gguf_choose_widths(&mixture, &slice_options);
        for (size_t k = 0; k < mq_master_linear_count(master); k++) {
            const mq_master_view *view = mq_master_linear_at(master, k);
            const bool given = strstr(view->prefix, "up_proj") != NULL;
            const unsigned wanted = given                 ? 2
                                    : view->min_width > 0 ? cases[i].embedding
                                                          : cases[i].wanted;
            assert_int_equal(mq_mixture_width(&mixture, view), wanted);
        }
        mq_mixture_free(&mixture);
    }
    mq_master_close(master);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_slices_are_mixed_masters),
        cmocka_unit_test(uniform_mixtures_are_slices),
        cmocka_unit_test(mixtures_that_a_format_cannot_hold),
        cmocka_unit_test(gguf_widens_what_falls_back),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
