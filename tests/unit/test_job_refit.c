/* layer: job */
/* What follows the blocks: the refit, which touches no code, and --qat, which does. */
#include "quantize_job.h"

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

/* The widths asked for, trained or not, have norms of their own and numbers that are no worse than
 * before; the codes are those of a run without the refit. */
static void the_refit_touches_what_it_may(void **state) {
    (void)state;
    enum { HIDDEN = 128, SCALES = 128 * 2 }; /* of rows of two groups */
    static const char scales[] = "model.layers.0.mlp.up_proj.scales.w3";
    mq_quantize_options options = small(MQ_RECIPE_BEST);
    float norm[2][HIDDEN], plain[SCALES], fitted[SCALES];
    leave_out_the_refit(&options);
    mq_quantize_report report = quantize(&options, 0);
    assert_int_equal(report.refit_count, 0);
    read_back(plain, SCALES, MQ_F16, scales);
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
    read_back(norm[1], HIDDEN, MQ_BF16, "model.layers.2.input_layernorm.weight.w3");
    read_back(fitted, SCALES, MQ_F16, scales);
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
    leave_out_the_refit(&options);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_refit_touches_what_it_may),
        TEST(qat_moves_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
