/* A grid on golden weights, with gradients by its values. */
#ifndef MQ_TEST_GRID_FIXTURE_H
#define MQ_TEST_GRID_FIXTURE_H

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "quant/clip.h"
#include "quant/nested.h"
#include "tensor/dtype.h"
#include "tensor/safetensors.h"

static const unsigned widths[3] = {8, 4, 2};

typedef struct fixture {
    mq_tensors *golden;
    mq_grid_options options;
    mq_grid grid;
    mq_slab slab;
    size_t out, in, groups;
    float *gram;
    mq_values values[3];
    float *cotangent[3];
} fixture;

static inline float *golden(fixture *f, const char *name, size_t *count) {
    const mq_tensor_info *info = mq_tensors_find(f->golden, name);
    if (info == NULL) {
        fail_msg("the golden has no tensor %s", name);
    }
    float *values = mq_alloc(info->elements, sizeof(float));
    assert_non_null(values);
    assert_int_equal(mq_tensor_read_f32(values, info, 0, info->elements, NULL), MQ_OK);
    if (count != NULL) {
        *count = info->elements;
    }
    return values;
}

static inline float *golden_of(fixture *f, const char *prefix, unsigned width) {
    char name[64];
    snprintf(name, sizeof name, "%s.%u", prefix, width);
    return golden(f, name, NULL);
}

static inline void open_fixture(fixture *f, const char *file, const mq_grid_class *class_,
                                size_t group) {
    char path[512];
    mq_error err;
    *f = (fixture){.options = {.width_count = 3, .lambda = {10.0, 3.0, 1.0}}};
    memcpy(f->options.widths, widths, sizeof widths);
    f->options.slice_rule = class_ == &mq_clip_grid ? MQ_SLICE_ROUND : MQ_SLICE_TOP;
    snprintf(path, sizeof path, "%s/quant/%s", MATQUANT_GOLDEN_DIR, file);
    if (mq_tensors_open_file(&f->golden, path, &err) != MQ_OK) {
        fail_msg("%s: %s", path, err.message);
    }
    const mq_tensor_info *weight = mq_tensors_find(f->golden, "weight");
    assert_non_null(weight);
    f->out = weight->shape[0];
    f->in = weight->shape[1];
    f->groups = group == 0 ? 1 : f->in / group;
    mq_grid_carve(&f->grid, class_, &f->options, f->out, f->in, f->groups, &f->slab);
    assert_int_equal(mq_slab_allocate(&f->slab, "the test's grid", &err), MQ_OK);
    mq_grid_carve(&f->grid, class_, &f->options, f->out, f->in, f->groups, &f->slab);
    assert_false(f->slab.overflow);
    if (class_ == &mq_nested_grid) {
        f->gram = golden(f, "gram", NULL);
    }
    for (size_t k = 0; k < 3; k++) {
        f->values[k].f32 = mq_alloc(f->out * f->in, sizeof(float));
        assert_non_null(f->values[k].f32);
        f->cotangent[k] = golden_of(f, "cotangent", widths[k]);
    }
    class_->start(&f->grid, golden(f, "weight", NULL), f->gram);
}

static inline void close_fixture(fixture *f) {
    mq_free((void *)(uintptr_t)f->grid.weight);
    mq_free(f->gram);
    for (size_t k = 0; k < 3; k++) {
        mq_free(f->values[k].f32);
        mq_free(f->cotangent[k]);
    }
    mq_slab_free(&f->slab);
    mq_tensors_close(f->golden);
}

#endif
