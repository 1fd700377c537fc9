/* layer: store */
/* The whole job on the demo model: what is learned, what is predicted, what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "base/file.h"
#include "store/quantize.h"
#include "temporary.h"

#define MODEL MATQUANT_DATA_DIR "/demo-model"
#define CALIBRATION MATQUANT_DATA_DIR "/demo-calib.jsonl.gz"

static char out[512];

static mq_quantize_options small(mq_recipe recipe) {
    mq_quantize_options options = mq_quantize_defaults(recipe);
    options.model = MODEL;
    options.output = out;
    options.calib = recipe == MQ_RECIPE_RTN ? NULL : CALIBRATION;
    options.group_size = 64;
    options.samples = 8;
    options.seq_len = 64;
    options.epochs = 1;
    options.force = true;
    options.gemm = MQ_GEMM_OPENBLAS; /* no measurement decides about bytes */
    if (recipe == MQ_RECIPE_RTN) {
        options.gemm = MQ_GEMM_AUTO;
    }
    return options;
}

static mq_quantize_report quantize(const mq_quantize_options *options, size_t threads) {
    const mq_context_options settings = {.threads = threads};
    mq_context *context;
    mq_quantize_report report;
    mq_error err;
    assert_int_equal(mq_context_new(&context, &settings, &err), MQ_OK);
    if (mq_quantize(&report, options, context, &err) != MQ_OK) {
        fail_msg("%s: %s", err.tensor, err.message);
    }
    mq_context_free(context);
    return report;
}

static mq_status refused(const mq_quantize_options *options, mq_error *err) {
    mq_context *context;
    mq_quantize_report report;
    assert_int_equal(mq_context_new(&context, NULL, err), MQ_OK);
    const mq_status status = mq_quantize(&report, options, context, err);
    mq_context_free(context);
    assert_int_not_equal(status, MQ_OK);
    return status;
}

/* At the recipe's own settings but for fewer and shorter sequences: the weighted loss falls in
 * every block, and int4's and int2's do. (int8's may rise: its weight is what pays for the others.)
 */
static void learning_lowers_the_losses(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.samples = 32;
    options.seq_len = 128;
    options.epochs = 4;
    options.refit = false;
    mq_quantize_report report = quantize(&options, 0);
    assert_non_null(report.block);
    for (size_t layer = 0; layer < report.blocks; layer++) {
        const mq_block_loss *loss = &report.block[layer];
        double before = 0.0, after = 0.0;
        for (size_t k = 0; k < options.width_count; k++) {
            before += options.lambda[k] * loss->before[k];
            after += options.lambda[k] * loss->after[k];
            if (options.widths[k] != 8 && !(loss->after[k] < loss->before[k])) {
                fail_msg("block %zu, int%u: %g after %g", layer, options.widths[k], loss->after[k],
                         loss->before[k]);
            }
        }
        assert_true(after < before);
    }
    mq_quantize_report_free(&report);
}

/* The prediction is the allocator's own arithmetic: never too low, and at most a
 * twentieth too high. A dry run predicts the same
 * and writes nothing. */
static void memory_is_predicted(void **state) {
    (void)state;
    const size_t samples[] = {4, 16, 8, 4, 4};
    const size_t batches[] = {1, 4, 4, 2, 1};
    for (size_t i = 0; i < 5; i++) {
        mq_quantize_options options = small(i == 2 ? MQ_RECIPE_PAPER : MQ_RECIPE_BEST);
        if (i == 2) { /* with all that the paper's recipe can be told to carry */
            options.let = true;
            options.codistill[options.codistill_count++] = (mq_codistill){8, 2, 1.0};
            options.codistill[options.codistill_count++] = (mq_codistill){4, 2, 1.0};
        }
        if (i == 3) {
            options.embeddings = MQ_EMBEDDINGS_NESTED;
        }
        options.qat = i == 4;
        options.samples = samples[i];
        options.batch = batches[i];
        mq_quantize_report report = quantize(&options, 0);
        assert_true(report.memory_peak <= report.memory_predicted);
        assert_true((double)report.memory_predicted <= 1.05 * (double)report.memory_peak);
        const size_t predicted = report.memory_predicted;
        const size_t bytes = report.output_bytes;
        mq_quantize_report_free(&report);
        assert_true(mq_path_exists(out));

        options.dry_run = true;
        report = quantize(&options, 0);
        assert_int_equal(report.memory_predicted, predicted);
        assert_int_equal(report.output_bytes, bytes);
        assert_int_equal(report.memory_peak, 0);
        mq_quantize_report_free(&report);
    }
}

static char *slurp(const char *name, size_t *size) {
    char *path = mq_path_join(out, name);
    char *content;
    assert_non_null(path);
    assert_int_equal(mq_read_file(&content, size, path, (size_t)1 << 30, NULL), MQ_OK);
    mq_free(path);
    return content;
}

static void two_runs_give_the_same_bytes(void **state) {
    (void)state;
    const char *const names[] = {"model.safetensors", "config.json", "matquant.json"};
    const mq_recipe recipes[] = {MQ_RECIPE_BEST, MQ_RECIPE_PAPER, MQ_RECIPE_RTN};
    for (size_t r = 0; r < 3; r++) {
        const mq_quantize_options options = small(recipes[r]);
        char *first[3];
        size_t size[3];
        mq_quantize_report report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        for (size_t i = 0; i < 3; i++) {
            first[i] = slurp(names[i], &size[i]);
        }
        report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        for (size_t i = 0; i < 3; i++) {
            size_t again;
            char *second = slurp(names[i], &again);
            assert_int_equal(again, size[i]);
            assert_memory_equal(second, first[i], again);
            mq_free(second);
            mq_free(first[i]);
        }
    }
}

/* A block's products run on one thread each, so the tensors are the same bytes whatever the number
 * of threads. */
static void threads_change_no_tensor(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.embeddings = MQ_EMBEDDINGS_NESTED;
    char *content[2];
    size_t size[2];
    for (size_t i = 0; i < 2; i++) {
        mq_quantize_report report = quantize(&options, i + 1);
        mq_quantize_report_free(&report);
        content[i] = slurp("model.safetensors", &size[i]);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(content[0], content[1], size[0]);
    mq_free(content[0]);
    mq_free(content[1]);
}

/* The same of bfloat16 products: losses that fall, memory as predicted, and two runs, on one thread
 * and on two, with the same bytes; layers that are not quantized included. */
static void bf16_products_learn_too(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    const char *const exclude[] = {"k_proj$"};
    char *content[2];
    size_t size[2];
    options.gemm = MQ_GEMM_ONEDNN_BF16;
    options.exclude = exclude;
    options.exclude_count = 1;
    options.samples = 9; /* the last batch is not full */
    options.epochs = 3;
    for (size_t i = 0; i < 2; i++) {
        mq_quantize_report report = quantize(&options, i + 1);
        assert_non_null(strstr(report.gemm, "onednn-bf16 (oneDNN "));
        assert_true(report.memory_peak <= report.memory_predicted);
        assert_true((double)report.memory_predicted <= 1.05 * (double)report.memory_peak);
        double before = 0.0, after = 0.0;
        for (size_t layer = 0; layer < report.blocks; layer++) {
            before += report.block[layer].before[2];
            after += report.block[layer].after[2];
        }
        assert_true(after < before);
        mq_quantize_report_free(&report);
        content[i] = slurp("model.safetensors", &size[i]);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(content[0], content[1], size[0]);
    mq_free(content[0]);
    mq_free(content[1]);
}

static void every_option_makes_a_master(void **state) {
    (void)state;
    mq_quantize_options options[9];
    const char *const include[] = {"mlp"};
    const char *const exclude[] = {"down_proj$"};
    for (size_t i = 0; i < 9; i++) {
        options[i] = small(MQ_RECIPE_BEST);
    }
    options[0].width_count = 1; /* int2 alone */
    options[0].widths[0] = 2;
    options[1].width_count = 2;
    options[1].widths[0] = 6;
    options[1].widths[1] = 3;
    options[2].scope = MQ_SCOPE_FFN;
    options[3].include = include;
    options[3].include_count = 1;
    options[3].exclude = exclude;
    options[3].exclude_count = 1;
    options[4].group_size = 0;
    options[5].loss = MQ_LOSS_L2;
    options[6].samples = 5; /* the last batch is not full */
    options[6].batch = 2;
    options[7].lambda[1] = options[7].lambda[2] = 0.0; /* int8 alone is learned: on every step */
    options[8].lambda[0] = 0.0;                        /* int8 is not: its pair is least squares */
    options[8].int8_period = 1;
    for (size_t i = 0; i < 9; i++) {
        mq_quantize_report report = quantize(&options[i], 0);
        mq_master *master;
        assert_int_equal(mq_master_open(&master, out, NULL), MQ_OK);
        const size_t count = mq_master_linear_count(master);
        assert_int_equal(count, report.quantized_tensors);
        assert_int_equal(count, report.blocks * (i == 2 ? 3 : i == 3 ? 2 : MQ_LINEAR_COUNT));
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            assert_true(mq_master_serves(master, width));
        }
        if (i == 4) {
            assert_int_equal(mq_master_linear_at(master, 0)->groups, 1);
        }
        mq_master_close(master);
        mq_quantize_report_free(&report);
    }
}

static void senseless_options_are_refused(void **state) {
    (void)state;
    mq_error err;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.group_size = 60;
    assert_int_equal(refused(&options, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.tensor, "layers.0.self_attn.q_proj"));
    assert_non_null(strstr(err.message, "60"));
    options = small(MQ_RECIPE_BEST);
    options.output = MODEL;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    options = small(MQ_RECIPE_BEST);
    options.calib = NULL;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    options = small(MQ_RECIPE_RTN);
    options.calib = CALIBRATION;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE); /* it has no use for a text */
    options = small(MQ_RECIPE_BEST);
    options.int8_period = 0;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    options = small(MQ_RECIPE_BEST);
    options.slice_rule = MQ_SLICE_ROUND;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    options = small(MQ_RECIPE_BEST);
    options.widths[1] = 9;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    options = small(MQ_RECIPE_BEST);
    options.samples = 2000;
    assert_int_equal(refused(&options, &err), MQ_ERR_INPUT);
    const char *const broken[] = {"(unclosed"};
    options = small(MQ_RECIPE_BEST);
    options.include = broken;
    options.include_count = 1;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    const char *const none[] = {"no such tensor"};
    options.include = none;
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
}

/* The tensor NAME of the master `out`, read again. */
static void read_back(float *values, size_t count, mq_dtype dtype, const char *name) {
    mq_tensors *tensors;
    assert_int_equal(mq_tensors_open(&tensors, out, NULL), MQ_OK);
    const mq_tensor_info *info = mq_tensors_find(tensors, name);
    assert_non_null(info);
    assert_int_equal(info->dtype, dtype);
    assert_int_equal(info->elements, count);
    assert_int_equal(mq_tensor_read_f32(values, info, 0, count, NULL), MQ_OK);
    mq_tensors_close(tensors);
}

static uint32_t crc_of(const char *name) {
    mq_tensors *tensors;
    assert_int_equal(mq_tensors_open(&tensors, out, NULL), MQ_OK);
    const mq_tensor_info *info = mq_tensors_find(tensors, name);
    assert_non_null(info);
    const uint32_t crc = mq_crc32(0, info->data, info->bytes);
    mq_tensors_close(tensors);
    return crc;
}

/* --include: the blocks up to the last that is selected come out as in a run over all, and those
 * behind it are not computed. */
static void blocks_behind_the_last_selected_are_left_out(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.refit = false;
    static const char *const codes[2] = {"model.layers.0.mlp.up_proj.codes",
                                         "model.layers.1.self_attn.o_proj.codes"};
    uint32_t crc[2];
    mq_quantize_report all = quantize(&options, 0);
    for (size_t i = 0; i < 2; i++) {
        crc[i] = crc_of(codes[i]);
    }
    static const char *const first_two[] = {"layers\\.[01]\\."};
    options.include = first_two;
    options.include_count = 1;
    mq_quantize_report some = quantize(&options, 0);
    assert_int_equal(some.blocks, 2);
    assert_true(all.blocks > 2);
    assert_int_equal(some.quantized_tensors, 2 * MQ_LINEAR_COUNT);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(crc_of(codes[i]), crc[i]);
        assert_memory_equal(some.block[i].after, all.block[i].after, sizeof all.block[i].after);
    }
    size_t size;
    char *text = slurp("matquant.json", &size);
    cJSON *root = cJSON_ParseWithLength(text, size);
    const cJSON *blocks = cJSON_GetObjectItem(root, "blocks");
    assert_int_equal(cJSON_GetArraySize(blocks), 2);
    for (int i = 0; i < 2; i++) {
        const cJSON *after = cJSON_GetObjectItem(cJSON_GetArrayItem(blocks, i), "after");
        const double int4 = cJSON_GetNumberValue(cJSON_GetObjectItem(after, "w4"));
        assert_true(int4 == some.block[i].after[1]);
    }
    cJSON_Delete(root);
    mq_free(text);
    mq_quantize_report_free(&some);
    mq_quantize_report_free(&all);
}

/* The widths asked for, trained or not, have norms of their own and numbers that are no worse than
 * before; the codes are those of a run without the refit. */
static void the_refit_touches_what_it_may(void **state) {
    (void)state;
    enum { HIDDEN = 128 };
    static const char scales[] = "model.layers.0.mlp.up_proj.scales.w3";
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    float norm[2][HIDDEN], plain[768], fitted[768];
    options.refit = false;
    mq_quantize_report report = quantize(&options, 0);
    assert_int_equal(report.refit_count, 0);
    read_back(plain, 768, MQ_F16, scales);
    const uint32_t codes = crc_of("model.layers.0.mlp.up_proj.codes");
    const uint32_t int8 = crc_of("model.layers.0.mlp.up_proj.scales.w8");
    mq_quantize_report_free(&report);

    options.refit = true;
    options.refit_width_count = 2;
    options.refit_widths[0] = 3;
    options.refit_widths[1] = 2;
    options.refit_tokens = 16 * 64;
    options.refit_epochs = 8;
    report = quantize(&options, 0);
    assert_int_equal(report.refit_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(report.refit[i].width, 3 - i);
        assert_true(report.refit[i].kl_after < report.refit[i].kl_before);
        assert_true(report.refit[i].kept_epoch > 0);
    }
    read_back(norm[0], HIDDEN, MQ_BF16, "model.norm.weight");
    read_back(norm[1], HIDDEN, MQ_BF16, "model.norm.weight.w2");
    assert_memory_not_equal(norm[0], norm[1], sizeof norm[0]);
    read_back(norm[1], HIDDEN, MQ_BF16, "model.layers.5.input_layernorm.weight.w3");
    read_back(fitted, 768, MQ_F16, scales);
    assert_memory_not_equal(plain, fitted, sizeof plain);
    mq_quantize_report_free(&report);
    assert_int_equal(crc_of("model.layers.0.mlp.up_proj.codes"), codes);
    assert_int_equal(crc_of("model.layers.0.mlp.up_proj.scales.w8"), int8);
}

/* --qat alone: codes move, and a width that was not trained is measured all the same and keeps its
 * scales. */
static void qat_moves_codes(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.refit = false;
    mq_quantize_report report = quantize(&options, 0);
    const uint32_t codes = crc_of("model.layers.0.mlp.up_proj.codes");
    const uint32_t int3 = crc_of("model.layers.0.mlp.up_proj.scales.w3");
    const uint32_t int2 = crc_of("model.layers.0.mlp.up_proj.scales.w2");
    assert_int_equal(report.qat.tokens, 0);
    mq_quantize_report_free(&report);

    options.qat = true;
    options.qat_tokens = 40 * 64;
    options.qat_rate = 5e-3;
    report = quantize(&options, 0);
    const mq_qat_report *qat = &report.qat;
    assert_int_equal(qat->tokens, 40 * 64);
    assert_int_equal(qat->kept_epoch, 1);
    assert_true(qat->loss_after < qat->loss_before);
    assert_true(qat->kl_after[2] < qat->kl_before[2]);
    assert_true(qat->kl_after[3] != qat->kl_before[3]);
    assert_true(qat->moved > 0);
    assert_int_equal(report.refit_count, 0);
    mq_quantize_report_free(&report);
    assert_int_not_equal(crc_of("model.layers.0.mlp.up_proj.codes"), codes);
    assert_int_not_equal(crc_of("model.layers.0.mlp.up_proj.scales.w2"), int2);
    assert_int_equal(crc_of("model.layers.0.mlp.up_proj.scales.w3"), int3);
}

static volatile sig_atomic_t stop;

static void stop_in_the_qat(void *user, const mq_progress *progress) {
    (void)user;
    stop = strcmp(progress->phase, "qat") == 0 && progress->done > 1.2;
}

static void stop_in_the_second_block(void *user, const mq_progress *progress) {
    (void)user;
    stop = progress->done > 1.2;
}

static void stop_in_the_refit(void *user, const mq_progress *progress) {
    (void)user;
    stop = strcmp(progress->phase, "refit") == 0 && progress->done > 1.2;
}

static void interrupt(void (*progress)(void *, const mq_progress *)) {
    const mq_context_options settings = {.sink = {.progress = progress}, .interrupted = &stop};
    char nowhere[600];
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    mq_context *context;
    mq_quantize_report report;
    mq_error err;
    snprintf(nowhere, sizeof nowhere, "%s-interrupted", out);
    options.output = nowhere;
    options.qat = progress == stop_in_the_qat;
    assert_int_equal(mq_context_new(&context, &settings, &err), MQ_OK);
    assert_int_equal(mq_quantize(&report, &options, context, &err), MQ_ERR_INTERRUPTED);
    assert_false(mq_path_exists(nowhere));
    mq_context_free(context);
}

static void an_interrupted_run_leaves_nothing(void **state) {
    (void)state;
    interrupt(stop_in_the_second_block);
    interrupt(stop_in_the_refit);
    interrupt(stop_in_the_qat);
}

/* An allocation fails, here and there along the way: an error that says so, and nothing left behind
 * (the leak checker of the sanitizer build looks on). */
static void every_allocation_may_fail(void **state) {
    (void)state;
    char nowhere[600];
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    mq_context *context;
    mq_error err;
    snprintf(nowhere, sizeof nowhere, "%s-failing", out);
    options.output = nowhere;
    options.samples = 2;
    options.seq_len = 16;
    options.force = false;
    options.embeddings = MQ_EMBEDDINGS_NESTED;
    options.qat = true;
    assert_int_equal(mq_context_new(&context, NULL, &err), MQ_OK);
    mq_status status = MQ_ERR_MACHINE;
    /* The tokenizer and the tensors have a sweep of their own: here every step of the job is met,
     * not every one of their thousands of small allocations. */
    for (size_t countdown = 1; status != MQ_OK; countdown += 1 + countdown / 10) {
        mq_quantize_report report;
        mq_alloc_fail_after(countdown);
        status = mq_quantize(&report, &options, context, &err);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            mq_quantize_report_free(&report);
        } else {
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_false(mq_path_exists(nowhere));
        }
    }
    mq_context_free(context);
}

static int setup(void **state) {
    temporary_setup(state);
    snprintf(out, sizeof out, "%s", temporary_path(*state, "master"));
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(learning_lowers_the_losses),
        TEST(memory_is_predicted),
        TEST(two_runs_give_the_same_bytes),
        TEST(threads_change_no_tensor),
        TEST(bf16_products_learn_too),
        TEST(every_option_makes_a_master),
        TEST(blocks_behind_the_last_selected_are_left_out),
        TEST(the_refit_touches_what_it_may),
        TEST(senseless_options_are_refused),
        TEST(an_interrupted_run_leaves_nothing),
        TEST(every_allocation_may_fail),
        TEST(qat_moves_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
