/* layer: job */
/* The weights of a block are asked for while the block before it is learned. The linker sends
 * mq_tensor_will_need and mq_learner_load through here (cmake/MatquantTests.cmake). */
#include <stdlib.h>

#include "quant/learner.h"
#include "quantize_job.h"

enum { BLOCKS = 3 };

/* Linears of each block that were asked for, and blocks that were loaded. */
static size_t asked[BLOCKS], loaded;

void __real_mq_tensor_will_need(const mq_tensors *tensors, const mq_tensor_info *info);
void __wrap_mq_tensor_will_need(const mq_tensors *tensors, const mq_tensor_info *info);
mq_status __real_mq_learner_load(mq_learner *learner, size_t layer, mq_error *err);
mq_status __wrap_mq_learner_load(mq_learner *learner, size_t layer, mq_error *err);

void __wrap_mq_tensor_will_need(const mq_tensors *tensors, const mq_tensor_info *info) {
    static const char prefix[] = "model.layers.";
    __real_mq_tensor_will_need(tensors, info);
    if (strncmp(info->name, prefix, sizeof prefix - 1) == 0) {
        const size_t layer = strtoul(info->name + sizeof prefix - 1, NULL, 10);
        assert_true(layer < BLOCKS);
        asked[layer]++;
    }
}

mq_status __wrap_mq_learner_load(mq_learner *learner, size_t layer, mq_error *err) {
    assert_int_equal(layer, loaded);
    loaded++;
    for (size_t i = 0; i < BLOCKS; i++) { /* this one and the next, and no more than those */
        assert_int_equal(asked[i], i <= layer + 1 ? MQ_LINEAR_COUNT : 0);
    }
    return __real_mq_learner_load(learner, layer, err);
}

static void blocks_are_read_ahead(void **state) {
    (void)state;
    const mq_recipe recipes[] = {MQ_RECIPE_BEST, MQ_RECIPE_RTN};
    for (size_t r = 0; r < 2; r++) {
        memset(asked, 0, sizeof asked);
        loaded = 0;
        mq_quantize_options options = small(recipes[r]);
        leave_out_the_refit(&options);
        mq_quantize_report report = quantize(&options, 1);
        mq_quantize_report_free(&report);
        assert_int_equal(loaded, BLOCKS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(blocks_are_read_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
