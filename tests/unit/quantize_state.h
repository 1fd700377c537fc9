/* What the tests of --state share: runs that are interrupted somewhere, and what they report. */
#ifndef MQ_TEST_QUANTIZE_STATE_H
#define MQ_TEST_QUANTIZE_STATE_H

#include <sys/stat.h>

#include "quantize_job.h"

static char state_folder[520];

static volatile sig_atomic_t stop;

/* Where to stop a run, and what it did. */
typedef struct watch {
    const char *phase; /* NULL: nowhere */
    double done;       /* more than so much of it */
    size_t taken;      /* blocks and widths that were said to be learned before */
    double first;      /* of the blocks: how much was done at the first step of learning */
    bool taught;       /* the refit's teacher has made its pass */
} watch;

static inline void look(void *user, const mq_progress *progress) {
    watch *w = user;
    stop = stop ||
           (w->phase != NULL && strcmp(progress->phase, w->phase) == 0 && progress->done > w->done);
    w->taken += progress->detail != NULL && strstr(progress->detail, "before") != NULL ? 1 : 0;
    w->taught = w->taught || strcmp(progress->phase, "full precision") == 0;
    if (strcmp(progress->phase, "learn") == 0 && progress->detail == NULL && w->first < 0.0) {
        w->first = progress->done;
    }
}

/* A run of `options`; *report (NULL: not wanted) is the caller's when it is MQ_OK. */
static inline mq_status run(watch *w, mq_quantize_report *report,
                            const mq_quantize_options *options, size_t threads, mq_error *err) {
    watch nowhere = {.phase = NULL};
    watch *watched = w != NULL ? w : &nowhere;
    mq_quantize_report own;
    const mq_context_options settings = {
        .threads = threads, .sink = {.user = watched, .progress = look}, .interrupted = &stop};
    mq_context *context;
    stop = 0;
    watched->first = -1.0;
    watched->taken = 0;
    assert_int_equal(mq_context_new(&context, &settings, err), MQ_OK);
    const mq_status status = mq_quantize(report != NULL ? report : &own, options, context, err);
    if (status == MQ_OK && report == NULL) {
        mq_quantize_report_free(&own);
    }
    mq_context_free(context);
    return status;
}

static inline void stopped(const char *phase, double done, const mq_quantize_options *options,
                           size_t threads) {
    mq_error err;
    watch w = {.phase = phase, .done = done};
    assert_int_equal(run(&w, NULL, options, threads, &err), MQ_ERR_INTERRUPTED);
}

/* What an uninterrupted run without --state makes. */
static inline made make_plainly(const mq_quantize_options *options) {
    mq_quantize_options plain = *options;
    plain.state = NULL;
    mq_quantize_report report = quantize(&plain, 1);
    mq_quantize_report_free(&report);
    return take_made();
}

static inline bool state_has(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", state_folder, name);
    return mq_path_exists(path);
}

/* Of all blocks attention alone is quantized, a third of the weights: what is kept of a block, and
 * when, is the same, and the tests are many runs. */
static inline mq_quantize_options with_state(mq_recipe recipe) {
    static const char *const include[] = {"self_attn"};
    mq_quantize_options options = small(recipe);
    options.include = include;
    options.include_count = 1;
    options.state = state_folder;
    options.force = false;
    return options;
}

static inline int setup_state(void **state) {
    setup(state);
    snprintf(state_folder, sizeof state_folder, "%s", temporary_path(*state, "state"));
    return 0;
}

#undef TEST
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_state, temporary_teardown)

#endif
