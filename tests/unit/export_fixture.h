/* Slices of the tiny masters of store_fixture.h, shared by the tests of export. */
#ifndef MQ_TEST_EXPORT_FIXTURE_H
#define MQ_TEST_EXPORT_FIXTURE_H

#include "store_fixture.h"

#include "export/export.h"
#include "store/readers.h"

/* The defaults, and what has none. */
static UNUSED mq_slice_options options_of(const char *master, const char *output, unsigned width) {
    mq_slice_options options = mq_slice_defaults();
    options.master = master;
    options.output = output;
    options.width = width;
    return options;
}

static UNUSED mq_status try_slice(mq_slice_report *report, const char *master, const char *output,
                                  unsigned width, mq_slice_format format, mq_error *err) {
    mq_slice_options options = options_of(master, output, width);
    options.format = format;
    return mq_slice(report, &options, NULL, err);
}

static UNUSED char *slice(const char *master, unsigned width, mq_slice_format format) {
    mq_error err;
    mq_slice_report report;
    char *folder = fixture_path(mq_format_at(format)->name);
    must(try_slice(&report, master, folder, width, format, &err), &err);
    mq_slice_report_free(&report);
    return folder;
}

/* Every weight of both models, read through the same interface that eval uses; frees them. */
static UNUSED void expect_same_weights(mq_model *left, mq_model *right) {
    mq_error err;
    char name[MQ_NAME_SIZE];
    size_t compared = 0;
    for (size_t layer = 0; layer < LAYERS; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT + MQ_NORM_COUNT; i++) {
            bool linear = i < MQ_LINEAR_COUNT;
            if (linear) {
                mq_config_linear_name(name, &left->config, layer, (mq_linear)i, "weight");
            } else if (mq_config_norm_size(&left->config, (mq_norm)(i - MQ_LINEAR_COUNT)) != 0) {
                mq_config_norm_name(name, &left->config, layer, (mq_norm)(i - MQ_LINEAR_COUNT));
            } else {
                continue;
            }
            size_t rows = 0, columns = 0, rows2 = 0, columns2 = 0;
            must(left->weights->class_->shape(&rows, &columns, left->weights, name, &err), &err);
            must(right->weights->class_->shape(&rows2, &columns2, right->weights, name, &err),
                 &err);
            assert_int_equal(rows, rows2);
            assert_int_equal(columns, columns2);
            float *x = mq_alloc(rows * columns, sizeof *x),
                  *y = mq_alloc(rows * columns, sizeof *y);
            must(left->weights->class_->read(x, left->weights, name, 0, rows, &err), &err);
            must(right->weights->class_->read(y, right->weights, name, 0, rows, &err), &err);
            assert_memory_equal(x, y, rows * columns * sizeof *x);
            mq_free(x);
            mq_free(y);
            compared++;
        }
    }
    assert_int_equal(compared, LAYERS * 9);
    float x[HIDDEN], y[HIDDEN];
    must(left->weights->class_->read(x, left->weights, "model.norm.weight", 0, 1, &err), &err);
    must(right->weights->class_->read(y, right->weights, "model.norm.weight", 0, 1, &err), &err);
    assert_memory_equal(x, y, sizeof x);
    mq_model_free(left);
    mq_model_free(right);
}

static UNUSED void expect_same_model(const char *a, unsigned width_a, const char *b,
                                     unsigned width_b) {
    mq_error err;
    mq_model *left = NULL, *right = NULL;
    must(mq_model_open_mixed(&left, a, width_a, NULL, 0, &err), &err);
    must(mq_model_open_mixed(&right, b, width_b, NULL, 0, &err), &err);
    expect_same_weights(left, right);
}

#endif
