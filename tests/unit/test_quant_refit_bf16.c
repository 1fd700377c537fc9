/* layer: quant */
/* What products of bfloat16 change in the refit: which targets are rounded, and runs of tokens,
 * whose results depend neither on threads nor on what is kept. Skipped where there are no such
 * products. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model/activations.h"
#include "quant/distill.h"
#include "refit_fixture.h"

/* What leaves the last block of full precision, sequence after sequence, as a refit of this width
 * (0: of any) keeps it; of those that are not read nothing. */
static float *targets_of(const fixture *f, bool codes_move, unsigned width) {
    mq_refit_setup setup = setup_of(f, 1, 1e-3);
    setup.codes_move = codes_move;
    setup.widths = &width;
    setup.width_count = width > 0;
    mq_distill distill = mq_distill_for(&setup, 1, f->context);
    mq_slab slab = {0};
    assert_int_equal(mq_distill_prepare(&setup, NULL), MQ_OK);
    mq_distill_carve(&distill, &slab);
    assert_int_equal(mq_slab_allocate(&slab, "the test", NULL), MQ_OK);
    mq_distill_carve(&distill, &slab);
    const size_t count = (TRAIN + VALIDATION) * LENGTH * f->model->config.hidden_size;
    memset(distill.teacher_hidden, 0, count * sizeof *distill.teacher_hidden);
    assert_int_equal(mq_distill_teach(&distill, NULL), MQ_OK);
    float *copy = mq_alloc(count, sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, distill.teacher_hidden, count * sizeof *copy);
    mq_slab_free(&slab);
    return copy;
}

/* The targets of sequences [first, end) are the same bits, those of all others off by what
 * bfloat16's rounding does. */
static void check_exact(const float *targets, const float *exact, size_t size, size_t first,
                        size_t end) {
    for (size_t i = 0; i < TRAIN + VALIDATION; i++) {
        double difference = 0.0, all = 0.0;
        for (size_t j = i * size; j < (i + 1) * size; j++) {
            difference += pow((double)targets[j] - (double)exact[j], 2);
            all += pow((double)exact[j], 2);
        }
        if (i >= first && i < end) {
            assert_true(difference == 0.0);
        } else {
            assert_true(sqrt(difference / all) < 0x1p-5 && sqrt(difference / all) > 0x1p-14);
        }
    }
}

/* With bfloat16 products only narrow widths' targets are rounded: not those of the last sequence of
 * four, which wide ones train on, nor of the first eight behind it, which they are measured on, nor
 * any where codes move. */
static void fine_widths_have_exact_targets(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 2);
    f.batch = 1;
    const size_t size = LENGTH * f.model->config.hidden_size;
    float *exact = targets_of(&f, false, 0);
    if (mq_gemm_bf16_usable()) {
        assert_int_equal(mq_gemm_bf16_new(&f.gemm, 2, NULL), MQ_OK);
        float *targets = targets_of(&f, false, 0), *moving = targets_of(&f, true, 2);
        float *narrow = targets_of(&f, false, 2);
        const size_t all = TRAIN + VALIDATION;
        check_exact(targets, exact, size, TRAIN - 1, TRAIN + MEASURED_WIDE);
        check_exact(moving, exact, size, 0, all);
        check_exact(narrow, exact, size, all, all);
        mq_free(targets);
        mq_free(narrow);
        mq_free(moving);
        mq_gemm_bf16_free(f.gemm);
    }
    mq_free(exact);
    free_fixture(&f);
}

/* What no width's share has is not run through the model, and the rest is what it was. */
static void what_is_not_read_has_no_targets(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 2);
    f.batch = 1;
    for (int bf16 = 0; bf16 <= (mq_gemm_bf16_usable() ? 1 : 0); bf16++) {
        if (bf16) {
            assert_int_equal(mq_gemm_bf16_new(&f.gemm, 2, NULL), MQ_OK);
        }
        const size_t size = LENGTH * f.model->config.hidden_size;
        float *all = targets_of(&f, false, 0), *some = targets_of(&f, false, 8);
        float *half = targets_of(&f, false, 4);
        for (size_t i = 0; i < 3 * size; i++) {
            assert_true(all[i] != 0.0f && some[i] == 0.0f);
        }
        assert_memory_equal(some + 3 * size, all + 3 * size,
                            (TRAIN + VALIDATION - 3) * size * sizeof *all);
        for (size_t i = 0; i < 2 * size; i++) {
            assert_true(half[i] == 0.0f && half[2 * size + i] != 0.0f);
        }
        mq_free(all);
        mq_free(some);
        mq_free(half);
    }
    mq_gemm_bf16_free(f.gemm);
    free_fixture(&f);
}

/* The width's divergence before it is trained. */
static double measured(fixture *f) {
    const mq_refit_setup setup = setup_of(f, 1, 1e-3);
    f->store = (mq_refit_store){f, codes, pairs, put_pairs, put_norm, NULL};
    mq_refit *run;
    mq_refit_result result;
    assert_int_equal(mq_refit_prepare(&setup, NULL), MQ_OK);
    assert_int_equal(mq_refit_open(&run, &setup, f->context, NULL), MQ_OK);
    assert_int_equal(mq_refit_width(&result, run, f->width, &f->store, 0, 0, NULL), MQ_OK);
    mq_refit_close(run);
    return result.kl_before;
}

/* Wide widths are measured as without bfloat16 products; narrow ones with them, of which a
 * divergence is off by as much as its logits and those of full precision are, two hundredths each:
 * in batches, and the rest of one. */
static void only_narrow_widths_are_measured_rounded(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    static const unsigned widths[] = {8, 6, 5, 3};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        double kl[2];
        for (int bf16 = 0; bf16 < 2; bf16++) {
            fixture f = make_wide_fixture("llama", 2, widths[i]);
            f.batch = 2;
            if (bf16) {
                assert_int_equal(mq_gemm_bf16_new(&f.gemm, 2, NULL), MQ_OK);
            }
            kl[bf16] = measured(&f);
            mq_gemm_bf16_free(f.gemm);
            free_fixture(&f);
        }
        assert_int_equal(kl[1] == kl[0], widths[i] >= 6);
        assert_true(fabs(kl[1] - kl[0]) < 0x1p-4 * kl[0]);
    }
}

/* With steps, and passes of full precision, of more tokens than a run of a block's has
 * (MQ_RUN_ROWS), and a rest: what the refit holds is predicted. */
static void long_refit(fixture *f, size_t kept_bytes) {
    enum { MORE = 9, MEASURED = 2, LONGER = 50 };
    int32_t ids[(MORE + MEASURED) * LONGER];
    mq_random random;
    mq_random_seed(&random, 6, 0);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        ids[i] = (int32_t)mq_random_below(&random, f->model->config.vocab_size);
    }
    mq_refit_setup setup = setup_of(f, 2, 5e-3);
    setup.ids = ids;
    setup.train = MORE;
    setup.validation = MEASURED;
    setup.length = LONGER;
    setup.batch = 3;
    setup.pass_batch = 4;
    setup.kept_bytes = kept_bytes;
    f->store = (mq_refit_store){f, codes, pairs, put_pairs, put_norm, NULL};
    size_t predicted;
    assert_int_equal(mq_refit_prepare(&setup, NULL), MQ_OK);
    assert_int_equal(mq_refit_memory(&predicted, &setup, f->context, NULL), MQ_OK);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    mq_refit *run;
    mq_refit_result result;
    assert_int_equal(mq_refit_open(&run, &setup, f->context, NULL), MQ_OK);
    assert_int_equal(mq_refit_width(&result, run, f->width, &f->store, 0, 0, NULL), MQ_OK);
    assert_true(mq_alloc_peak() - before <= predicted + 4096); /* the struct itself */
    assert_true(result.kl_after < result.kl_before);
    mq_refit_close(run);
}

static void runs_of_tokens_change_nothing(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    static const struct { size_t threads, kept_bytes; } ways[] = {{1, 0}, {3, 0}, {2, SIZE_MAX}};
    fixture f[3];
    for (size_t i = 0; i < 3; i++) {
        f[i] = make_fixture("gemma3", ways[i].threads);
        assert_true(mq_block_in_runs(&f[i].model->config));
        assert_int_equal(mq_gemm_bf16_new(&f[i].gemm, ways[i].threads, NULL), MQ_OK);
        long_refit(&f[i], ways[i].kept_bytes);
        check_same_pairs(&f[0], &f[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        mq_gemm_bf16_free(f[i].gemm);
        free_fixture(&f[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fine_widths_have_exact_targets),
        cmocka_unit_test(what_is_not_read_has_no_targets),
        cmocka_unit_test(only_narrow_widths_are_measured_rounded),
        cmocka_unit_test(runs_of_tokens_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
