/* What the tests of the whole job share: a small job on the demo model, and what it wrote. */
#ifndef MQ_TEST_QUANTIZE_JOB_H
#define MQ_TEST_QUANTIZE_JOB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "job/job.h"
#include "temporary.h"

#define MODEL MATQUANT_SHORT_MODEL /* three blocks, narrow */
#define WHOLE_MODEL MATQUANT_DATA_DIR "/demo-model"
#define CALIBRATION MATQUANT_DATA_DIR "/demo-calib.jsonl.gz"

static char out[512]; /* the master */

static inline mq_quantize_options small(mq_recipe recipe) {
    mq_quantize_options options = mq_quantize_defaults(recipe);
    options.model = MODEL;
    options.output = out;
    options.calib = recipe == MQ_RECIPE_RTN ? NULL : CALIBRATION;
    options.group_size = 64;
    options.samples = 8;
    options.seq_len = 64;
    options.epochs = 1;
    options.periods[0] =
        recipe == MQ_RECIPE_BEST ? 4 : 1; /* of most jobs' four steps one is int8's */
    options.force = true;
    if (recipe == MQ_RECIPE_BEST) {
        options.refit_tokens = 8 * 64; /* the blocks' own: tests of the refit take more */
        options.refit_epochs = 1;
    }
    options.gemm = MQ_GEMM_OPENBLAS; /* no measurement decides about bytes */
    if (recipe == MQ_RECIPE_RTN) {
        options.gemm = MQ_GEMM_AUTO;
    }
    return options;
}

static inline void leave_out_the_refit(mq_quantize_options *options) {
    options->refit = false;
    options->refit_tokens = options->refit_epochs = 0;
}

static inline mq_quantize_report quantize(const mq_quantize_options *options, size_t threads) {
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

static inline char *slurp(const char *name, size_t *size) {
    char *path = mq_path_join(out, name);
    char *content;
    assert_non_null(path);
    assert_int_equal(mq_read_file(&content, size, path, (size_t)1 << 30, NULL), MQ_OK);
    mq_free(path);
    return content;
}

/* The three files that a job makes. */
typedef struct made {
    char *content[3];
    size_t size[3];
} made;

static const char *const made_names[] = {"model.safetensors", "config.json", "matquant.json"};

static inline made take_made(void) {
    made m;
    for (size_t i = 0; i < 3; i++) {
        m.content[i] = slurp(made_names[i], &m.size[i]);
    }
    temporary_remove(out);
    return m;
}

static inline void free_made(made *m) {
    for (size_t i = 0; i < 3; i++) {
        mq_free(m->content[i]);
    }
}

/* What lies at out now is the same; it goes. */
static inline void assert_made_the_same(const made *expected) {
    made m = take_made();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(m.size[i], expected->size[i]);
        assert_memory_equal(m.content[i], expected->content[i], m.size[i]);
    }
    free_made(&m);
}

static inline uint32_t crc_of(const char *name) {
    mq_tensors *tensors;
    assert_int_equal(mq_tensors_open(&tensors, out, NULL), MQ_OK);
    const mq_tensor_info *info = mq_tensors_find(tensors, name);
    assert_non_null(info);
    const uint32_t crc = mq_crc32(0, info->data, info->bytes);
    mq_tensors_close(tensors);
    return crc;
}

static inline int setup(void **state) {
    temporary_setup(state);
    snprintf(out, sizeof out, "%s", temporary_path(*state, "master"));
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, temporary_teardown)

#endif
