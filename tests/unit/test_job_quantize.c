/* layer: job */
/* The whole job on the demo model: what is learned, what is predicted, what is written. */
#include <cjson/cJSON.h>

#include "json_memory.h"
#include "quantize_job.h"

static mq_status refused(const mq_quantize_options *options, mq_error *err) {
    mq_context *context;
    mq_quantize_report report;
    assert_int_equal(mq_context_new(&context, NULL, err), MQ_OK);
    const mq_status status = mq_quantize(&report, options, context, err);
    mq_context_free(context);
    assert_int_not_equal(status, MQ_OK);
    return status;
}

/* At the recipe's own settings but for fewer and shorter sequences, and int8's period: the weighted
 * loss falls in every block, and int4's and int2's do. (int8's may rise: its weight is what pays
 * for the others.)
 */
static void learning_lowers_the_losses(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.samples = 32;
    options.seq_len = 128;
    options.epochs = 4;
    leave_out_the_refit(&options);
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
        size_t written;
        mq_quantize_report_free(&report);
        assert_int_equal(mq_folder_size(&written, out, NULL), MQ_OK);
        assert_int_equal(bytes, written);

        options.dry_run = true;
        report = quantize(&options, 0);
        assert_int_equal(report.memory_predicted, predicted);
        assert_true(report.output_bytes >= bytes);
        assert_true((double)report.output_bytes <= 1.2 * (double)bytes);
        assert_int_equal(report.memory_peak, 0);
        mq_quantize_report_free(&report);
    }
}

/* The demo model's arithmetic, counted by hand. A block has 196,608 weights, 32,768 of which are of
 * queries, keys and values, whose inputs have no gradient. Of four steps int8 makes one, int4 and
 * int2 all. The refit visits 2, 8, 8 and 8 sequences at 8, 4, 3 and 2 bits. */
static void arithmetic_is_predicted(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.model = WHOLE_MODEL;
    options.dry_run = true;
    const double tokens = 512, weights = 196608, blocks = 6, visits = 1 + 4 + 4, batches = 4;
    const double teacher = 2 * weights, training = 6 * weights - 2 * 32768,
                 onwards = 3 * 2 * weights;
    const double learned =
        tokens * (blocks * (teacher + training * visits / batches) + (blocks - 1) * onwards);
    const double refitted = 64 * (2 + 8 + 8 + 8) * 6 * (blocks * weights + 1024 * 128);
    mq_quantize_report report = quantize(&options, 1);
    assert_true(report.operations == learned + refitted);
    assert_true(report.gflops > 0.01 && report.gflops < 1e5);
    mq_quantize_report_free(&report);
    leave_out_the_refit(&options);
    report = quantize(&options, 1);
    assert_true(report.operations == learned);
    mq_quantize_report_free(&report);

    const char *const second[] = {"layers\\.1\\."}; /* passed, but nothing is trained in it */
    options.exclude = second;
    options.exclude_count = 1;
    report = quantize(&options, 1);
    assert_true(report.operations == learned - tokens * training * visits / batches);
    mq_quantize_report_free(&report);

    options.exclude_count = 0;
    options.qat = true; /* four steps of two sequences: one with int8, all with int4 and int2 */
    options.qat_tokens = 8 * 64;
    options.qat_epochs = 1;
    report = quantize(&options, 1);
    assert_true(report.operations ==
                learned + 64 * 2 * (1 + 4 + 4) * 6 * (blocks * weights + 1024 * 128));
    mq_quantize_report_free(&report);

    options = small(MQ_RECIPE_RTN);
    options.dry_run = true;
    report = quantize(&options, 1);
    assert_true(report.operations == 0.0);
    mq_quantize_report_free(&report);
}

static const char *const first_two[] = {"layers\\.[01]\\."};
static const char *const first_block[] = {"layers\\.0\\."};

static void every_option_makes_a_master(void **state) {
    (void)state;
    enum { OPTIONS = 10, LEARNED = 5 }; /* from there on each learns other codes */
    mq_quantize_options options[OPTIONS];
    uint32_t crc[OPTIONS] = {0};
    const char *const include[] = {"layers\\.[01]\\.mlp"};
    const char *const exclude[] = {"down_proj$"};
    for (size_t i = 0; i < OPTIONS; i++) {
        options[i] = small(MQ_RECIPE_BEST);
        options[i].samples = 4;
        if (i > 2) { /* which have nothing new for it, nor for the blocks behind the second */
            leave_out_the_refit(&options[i]);
            options[i].include = first_two;
            options[i].include_count = 1;
        }
    }
    options[0].width_count = 1; /* int2 alone */
    options[0].widths[0] = 2;
    options[0].periods[0] = 0;
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
    options[7].lambda[1] = options[7].lambda[2] = 0.0; /* int8 alone is learned, */
    options[7].periods[0] = 0;                         /* on every step */
    options[8].lambda[0] = 0.0;                        /* int8 is not: its pair is least squares */
    options[8].periods[0] = 0;                         /* (the last is as small() says) */
    for (size_t i = 0; i < OPTIONS; i++) {
        mq_quantize_report report = quantize(&options[i], 0);
        mq_master *master;
        assert_int_equal(mq_master_open(&master, out, NULL), MQ_OK);
        const size_t count = mq_master_linear_count(master);
        assert_int_equal(count, report.quantized_tensors);
        assert_int_equal(count, report.blocks * (i == 2 ? 3 : i == 3 ? 2 : MQ_LINEAR_COUNT));
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            assert_true(mq_master_serves(master, width));
        }
        assert_int_equal(report.blocks, i > 2 ? 2 : 3);
        if (i == 4) {
            assert_int_equal(mq_master_linear_at(master, 0)->groups, 1);
        }
        if (i >= LEARNED) {
            crc[i] = crc_of("model.layers.1.mlp.up_proj.codes");
            for (size_t k = LEARNED; k < i; k++) {
                assert_int_not_equal(crc[i], crc[k]);
            }
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
    options.periods[1] = options.periods[2] = 2; /* then some steps would learn nothing */
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "--periods"));
    options = small(MQ_RECIPE_BEST);
    options.epochs = (size_t)1 << 63; /* steps could not be counted */
    assert_int_equal(refused(&options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "--epochs is at most"));
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

/* --include: the blocks up to the last that is selected come out as in a run over all, and those
 * behind it are not computed. */
static void blocks_behind_the_last_selected_are_left_out(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    leave_out_the_refit(&options);
    static const char *const codes[2] = {"model.layers.0.mlp.up_proj.codes",
                                         "model.layers.1.self_attn.o_proj.codes"};
    uint32_t crc[2];
    mq_quantize_report all = quantize(&options, 0);
    for (size_t i = 0; i < 2; i++) {
        crc[i] = crc_of(codes[i]);
    }
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
    options.refit_tokens = 2 * 16;
    options.force = false;
    options.embeddings = MQ_EMBEDDINGS_NESTED;
    options.qat = true;
    options.include = first_block; /* the others have nothing new */
    options.include_count = 1;
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

/* NULL is a context, too: one that says nothing, with as many threads as there are. */
static void no_context_is_needed(void **state) {
    (void)state;
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    options.samples = 2;
    options.batch = 1;
    options.refit_tokens = 2 * 64;
    mq_quantize_report report;
    mq_error err;
    if (mq_quantize(&report, &options, NULL, &err) != MQ_OK) {
        fail_msg("%s: %s", err.tensor, err.message);
    }
    assert_true(report.refit_count > 0);
    mq_quantize_report_free(&report);
}

/* An allocation of cJSON's own fails, here and there: the last pieces, those of the master's own
 * files. */
static void json_may_fail(void **state) {
    (void)state;
    char nowhere[600];
    mq_quantize_options options = small(MQ_RECIPE_RTN);
    mq_context *context;
    mq_quantize_report report;
    mq_error err;
    snprintf(nowhere, sizeof nowhere, "%s-without-json", out);
    options.output = nowhere;
    options.include = first_block; /* the others have nothing new */
    options.include_count = 1;
    options.force = false;
    options.dry_run = true;
    assert_int_equal(mq_context_new(&context, NULL, &err), MQ_OK);
    json_memory_begin(SIZE_MAX);
    assert_int_equal(mq_quantize(&report, &options, context, &err), MQ_OK);
    size_t left = SIZE_MAX - json_left;
    assert_int_equal(json_memory_end(), 0);
    mq_quantize_report_free(&report);
    options.dry_run = false;
    mq_status status = MQ_ERR_MACHINE;
    size_t failures = 0;
    for (; status != MQ_OK; left += 19) {
        json_memory_begin(left);
        status = mq_quantize(&report, &options, context, &err);
        assert_int_equal(json_memory_end(), 0);
        if (status == MQ_OK) {
            mq_quantize_report_free(&report);
        } else {
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_false(mq_path_exists(nowhere));
            failures++;
        }
    }
    assert_true(failures > 40);
    mq_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(learning_lowers_the_losses),
        TEST(memory_is_predicted),
        TEST(arithmetic_is_predicted),
        TEST(every_option_makes_a_master),
        TEST(blocks_behind_the_last_selected_are_left_out),
        TEST(senseless_options_are_refused),
        TEST(an_interrupted_run_leaves_nothing),
        TEST(every_allocation_may_fail),
        TEST(json_may_fail),
        TEST(no_context_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
