/* layer: job */
/* --state: a run that was interrupted goes on from what it had, and makes the same bytes. */
#include "base/keep.h"
#include "quantize_state.h"

/* In the second block, then in the second width of the refit, then to the end; every time on
 * another number of threads. */
static void an_interrupted_run_goes_on(void **state) {
    (void)state;
    const mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    made expected = make_plainly(&options);
    stopped("learn", 1.2, &options, 1);
    assert_false(mq_path_exists(out));
    assert_true(state_has("job.json"));
    assert_true(state_has("block-00000.safetensors"));
    assert_int_equal(temporary_entries(state_folder), 2);

    mq_error err;
    watch w = {.phase = "refit", .done = 5.0}; /* int8 is 4 steps, the others 10 each */
    assert_int_equal(run(&w, NULL, &options, 2, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(w.taken, 1);
    assert_true(w.first >= 1.0 && w.first < 2.0); /* nothing is learned of the first block */
    assert_true(state_has("block-00002.safetensors"));
    assert_true(state_has("refit-w8.safetensors"));
    assert_false(state_has("refit-w4.safetensors"));
    const size_t kept = temporary_entries(state_folder) - 4; /* widths */

    mq_quantize_report report;
    w = (watch){.phase = NULL};
    assert_int_equal(run(&w, &report, &options, 1, &err), MQ_OK);
    assert_int_equal(report.state_blocks, 3);
    assert_int_equal(report.state_widths, kept);
    assert_int_equal(w.taken, 3 + kept);
    assert_true(w.first < 0.0); /* no block was learned */
    assert_true(report.memory_peak <= report.memory_predicted);
    mq_quantize_report_free(&report);
    assert_made_the_same(&expected);
    assert_false(mq_path_exists(state_folder));
    free_made(&expected);
}

/* What is reported of a block or a width that was there is what the run found that learned it. */
static void reports_stay_the_same(void **state) {
    (void)state;
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.force = true;
    mq_quantize_report first = quantize(&options, 2);
    assert_int_equal(first.state_blocks + first.state_widths, 0);
    assert_true(first.memory_peak <= first.memory_predicted);
    assert_true((double)first.memory_predicted <= 1.05 * (double)first.memory_peak);
    assert_false(mq_path_exists(state_folder));
    made expected = take_made();
    stopped("refit", 0.5, &options, 1); /* in its first width */
    assert_false(state_has("refit-w8.safetensors"));
    stopped("refit", 18.0, &options, 2); /* in its third */
    assert_true(state_has("refit-w4.safetensors"));
    assert_false(state_has("refit-w3.safetensors"));

    mq_error err;
    mq_quantize_report report;
    watch w = {.phase = NULL};
    assert_int_equal(run(&w, &report, &options, 2, &err), MQ_OK);
    assert_int_equal(report.state_blocks, 3);
    for (size_t layer = 0; layer < 3; layer++) {
        assert_memory_equal(report.block[layer].before, first.block[layer].before,
                            sizeof first.block[layer].before);
        assert_memory_equal(report.block[layer].after, first.block[layer].after,
                            sizeof first.block[layer].after);
        assert_int_equal(report.block[layer].epochs, first.block[layer].epochs);
        assert_true(report.block[layer].seconds > 0.0);
    }
    assert_int_equal(report.refit_count, first.refit_count);
    assert_memory_equal(report.refit, first.refit, sizeof first.refit);
    assert_made_the_same(&expected);
    mq_quantize_report_free(&first);
    mq_quantize_report_free(&report);
    free_made(&expected);
}

/* A run that this sink watches. */
static mq_status run_watched(mq_sink sink, const mq_quantize_options *options) {
    const mq_context_options settings = {.sink = sink, .interrupted = &stop};
    mq_context *context;
    mq_quantize_report report;
    mq_error err;
    stop = 0;
    assert_int_equal(mq_context_new(&context, &settings, &err), MQ_OK);
    const mq_status status = mq_quantize(&report, options, context, &err);
    mq_context_free(context);
    mq_quantize_report_free(&report);
    return status;
}

static void stop_at_the_end(void *user, const mq_progress *progress) {
    (void)user;
    stop = stop || (strcmp(progress->phase, "refit") == 0 && progress->done >= progress->total);
}

/* Asked to stop when all is done: then nothing is left to learn, nor for the refit's teacher. */
static void no_teacher_without_a_width_to_refit(void **state) {
    (void)state;
    const mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    made expected = make_plainly(&options);
    assert_int_equal(run_watched((mq_sink){.progress = stop_at_the_end}, &options),
                     MQ_ERR_INTERRUPTED);
    assert_int_equal(temporary_entries(state_folder), 1 + 3 + 4);

    mq_quantize_report report;
    mq_error err;
    mq_quantize_options dry = options;
    dry.dry_run = true;
    assert_int_equal(run(NULL, &report, &dry, 0, &err), MQ_OK);
    assert_int_equal(report.state_blocks, 3);
    assert_int_equal(report.state_widths, 4);
    assert_int_equal(report.state_bytes, 0);
    mq_quantize_report_free(&report);

    watch w = {.phase = NULL};
    assert_int_equal(run(&w, NULL, &options, 2, &err), MQ_OK);
    assert_false(w.taught);
    assert_made_the_same(&expected);
    free_made(&expected);
}

/* What else a block leaves behind, or takes from the one before: a divided norm, losses of other
 * widths' outputs, epochs that ended early, embeddings, layers that are not quantized; codes
 * that --qat moves after it; and the model's own text. */
static void every_kind_of_job_goes_on(void **state) {
    (void)state;
    const char *const include[] = {"layers\\.[12]\\.mlp"};
    mq_quantize_options options[5];
    options[0] = with_state(MQ_RECIPE_PAPER);
    options[0].include_count = 0; /* the feed-forward network's norm is divided */
    options[0].let = true;
    options[0].codistill[options[0].codistill_count++] = (mq_codistill){8, 2, 1.0};
    options[1] = with_state(MQ_RECIPE_BEST);
    options[1].embeddings = MQ_EMBEDDINGS_NESTED;
    options[1].qat = true;
    options[2] = with_state(MQ_RECIPE_BEST);
    options[2].include = include;
    options[2].include_count = 1;
    options[2].early_stop = 50.0;
    options[2].epochs = 3;
    options[2].zero_point = MQ_ZERO_SYMMETRIC;
    options[2].slice_rule = MQ_SLICE_ROUND;
    options[3] = with_state(MQ_RECIPE_BEST);
    options[3].sampled = true;
    options[3].samples = 5; /* the last batch is not full */
    options[3].refit_width_count = 1;
    options[3].refit_widths[0] = 2;
    options[4] = with_state(MQ_RECIPE_BEST);
    options[4].calib = "self";
    options[4].samples = 2;
    options[4].seq_len = 16;
    options[4].refit_tokens = 0;
    for (size_t i = 0; i < 5; i++) {
        made expected = make_plainly(&options[i]);
        stopped("learn", 1.2, &options[i], 2);
        if (options[i].refit) {
            stopped("refit", i == 3 ? 2.0 : 5.0, &options[i], 1);
        } else {
            stopped("learn", 2.2, &options[i], 1);
        }
        mq_error err;
        mq_quantize_report report;
        assert_int_equal(run(NULL, &report, &options[i], 2, &err), MQ_OK);
        assert_true(report.state_blocks >= 2);
        assert_true(report.memory_peak <= report.memory_predicted);
        mq_quantize_report_free(&report);
        assert_made_the_same(&expected);
        free_made(&expected);
    }
}

/* What is seen while the model writes text. */
typedef struct writing {
    size_t reports, alone; /* alone: no other run could have had the state or the output */
    bool stops;            /* when the text is complete */
} writing;

static bool knows_all(const char *name) { return name != NULL; }

static bool others_are_kept_out(void) {
    mq_keep *keep = NULL;
    mq_error err = {0};
    const bool opened = mq_keep_open(&keep, state_folder, knows_all, &err) == MQ_OK;
    mq_keep_close(keep);
    return !opened && strstr(err.message, "another run") != NULL &&
           mq_output_check(out, true, &err) == MQ_ERR_USAGE &&
           strstr(err.message, "another run") != NULL;
}

static void look_at_writing(void *user, const mq_progress *progress) {
    writing *w = user;
    if (strcmp(progress->phase, "generate") == 0) {
        w->reports++;
        w->alone += others_are_kept_out() ? 1 : 0;
        stop = stop || (w->stops && progress->done >= progress->total);
    }
}

static mq_status run_writing(writing *w, const mq_quantize_options *options) {
    return run_watched((mq_sink){.user = w, .progress = look_at_writing}, options);
}

/* Writing text takes long: no other run can begin the same meanwhile, and it is kept as soon as it
 * is complete. Stopped before that, nothing is. */
static void text_is_kept_when_it_is_written(void **state) {
    (void)state;
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.calib = "self";
    options.samples = 2;
    options.seq_len = 16;
    leave_out_the_refit(&options);
    made expected = make_plainly(&options);
    stopped("generate", 20.0, &options, 1);
    assert_false(mq_path_exists(state_folder));

    writing w = {.stops = true};
    assert_int_equal(run_writing(&w, &options), MQ_ERR_INTERRUPTED);
    assert_true(w.reports > 0);
    assert_int_equal(w.alone, w.reports);
    assert_true(state_has("text.safetensors"));
    assert_int_equal(temporary_entries(state_folder), 2); /* that and the job */
    assert_false(mq_path_exists(out));

    w = (writing){.stops = false};
    assert_int_equal(run_writing(&w, &options), MQ_OK);
    assert_int_equal(w.reports, 0);
    assert_made_the_same(&expected);
    free_made(&expected);
}

/* A block that was removed, from between others, is learned again. */
static void what_is_removed_is_made_again(void **state) {
    (void)state;
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.model = WHOLE_MODEL;
    leave_out_the_refit(&options);
    made expected = make_plainly(&options);
    stopped("learn", 4.2, &options, 2);
    char path[600];
    snprintf(path, sizeof path, "%s/block-00001.safetensors", state_folder);
    assert_int_equal(remove(path), 0);
    mq_quantize_report report;
    mq_error err;
    assert_int_equal(run(NULL, &report, &options, 2, &err), MQ_OK);
    assert_int_equal(report.state_blocks, 3);
    mq_quantize_report_free(&report);
    assert_made_the_same(&expected);
    free_made(&expected);
}

/* With either backend, which stays what it was whatever --gemm auto would measure now. */
static void the_backend_stays(void **state) {
    (void)state;
    const mq_gemm_choice choices[] = {MQ_GEMM_OPENBLAS, MQ_GEMM_ONEDNN_BF16};
    for (size_t i = 0; i < (mq_gemm_bf16_usable() ? 2 : 1); i++) {
        mq_quantize_options options = with_state(MQ_RECIPE_BEST);
        options.gemm = choices[i];
        made expected = make_plainly(&options);
        stopped("refit", 5.0, &options, 1);
        options.gemm = MQ_GEMM_AUTO;
        mq_error err;
        mq_quantize_report report;
        assert_int_equal(run(NULL, &report, &options, 2, &err), MQ_OK);
        assert_int_equal(report.state_blocks, 3);
        assert_non_null(strstr(report.gemm, i == 0 ? "openblas" : "onednn-bf16"));
        mq_quantize_report_free(&report);
        assert_made_the_same(&expected);
        free_made(&expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_interrupted_run_goes_on),
        TEST(reports_stay_the_same),
        TEST(no_teacher_without_a_width_to_refit),
        TEST(every_kind_of_job_goes_on),
        TEST(text_is_kept_when_it_is_written),
        TEST(what_is_removed_is_made_again),
        TEST(the_backend_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
