/* layer: quant */
/* The refit through whole small models: what it promises, and what it does with failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "refit_fixture.h"

/* The KL of what was put into the store, computed anew: a student that starts from the stored
 * pairs, with the stored norms in place of the source's. */
static double kl_of_stored(fixture *f) {
    float norms[32][64];
    char names[32][MQ_NAME_SIZE];
    const size_t count = f->norms_put;
    memcpy(norms, f->norms, sizeof norms);
    memcpy(names, f->norm_names, sizeof names);
    f->norms_put = 0;
    mq_refit_result result;
    mq_refit *run = refit(&result, f, 1, 0.0); /* a rate of 0: it stays at its start */
    const mq_student *student = mq_refit_student(run);
    const float one = f->model->config.arch->norm_plus_one ? 1.0f : 0.0f;
    for (size_t i = 0; i < count; i++) {
        size_t entry = 0;
        while (strcmp(student->names[entry].name, names[i]) != 0) {
            entry++;
        }
        const size_t layer = student->names[entry].layer;
        const mq_student_norm *norm = layer < f->selection.layers
                                          ? &student->norms[layer][student->names[entry].norm]
                                          : &student->final_norm;
        for (size_t k = 0; k < norm->size; k++) {
            norm->value[k] = norms[i][k] + one;
        }
    }
    const bool wide = mq_refit_is_wide(student->width);
    const size_t measured = wide ? MEASURED_WIDE : VALIDATION;
    mq_gemm_bf16 *gemm = wide ? NULL : f->gemm;
    const double kl = kl_with(gemm, f, student, TRAIN, measured);
    /* Rounding is done, and its part is little: of logits about as large as what is between student
     * and teacher, a hundredth or two, and twice that of the square which KL is. */
    if (gemm != NULL) {
        const double exact = kl_of(f, student, TRAIN, measured);
        if (kl == exact || !(fabs(kl - exact) < 0.05 * exact)) {
            fail_msg("int%u: KL %g with rounded operands, %g without", student->width, kl, exact);
        }
    }
    mq_refit_close(run);
    return kl;
}

static size_t norm_count(const fixture *f) {
    size_t count = 1; /* the final one */
    for (size_t i = 0; i < f->selection.layers * MQ_NORM_COUNT; i++) {
        count += mq_config_norm_size(&f->model->config, (mq_norm)(i % MQ_NORM_COUNT)) > 0;
    }
    return count;
}

/* The divergence falls, and what is reported is what the stored numbers are worth. */
static void check_worth(fixture *f, size_t epochs, double rate) {
    mq_refit_result result;
    mq_refit_close(refit(&result, f, epochs, rate));
    assert_true(result.kl_after < result.kl_before);
    assert_true(result.kept_epoch > 0);
    size_t linears = 0;
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        linears += f->selection.groups[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT] > 0;
    }
    assert_int_equal(f->norms_put, norm_count(f));
    assert_int_equal(f->pairs_put, linears);
    const double kl = kl_of_stored(f);
    if (!(fabs(kl - result.kl_after) <= 1e-4 * result.kl_after + 1e-7)) {
        fail_msg("the stored numbers are worth %g, reported was %g", kl, result.kl_after);
    }
}

static void stored_numbers_are_worth_what_is_said(void **state) {
    (void)state;
    const char *const names[] = {"llama", "gemma3", "llama-tied-bf16"};
    for (size_t n = 0; n < 3; n++) {
        fixture f = make_fixture(names[n], 2);
        check_worth(&f, 12, 5e-3);
        free_fixture(&f);
    }
}

/* A wide width, which gets an eighth of the text; a batch that does not divide the sequences; the
 * rounding slice; products of bfloat16 operands. */
static void other_settings_keep_the_promise(void **state) {
    (void)state;
    fixture wide = make_wide_fixture("llama", 2, 6);
    wide.batch = 1;
    check_worth(&wide, 20, 1e-3);
    free_fixture(&wide);

    fixture rest = make_wide_fixture("gemma3", 2, 2);
    rest.batch = 5; /* of the four sequences that there are */
    check_worth(&rest, 12, 5e-3);
    free_fixture(&rest);

    fixture rounding = make_wide_fixture("llama", 2, 4);
    rounding.rule = MQ_SLICE_ROUND;
    check_worth(&rounding, 20, 5e-3);
    free_fixture(&rounding);

    for (unsigned width = 2; mq_gemm_bf16_usable() && width <= 6; width += 4) {
        fixture bf16 = width == 2 ? make_fixture("llama", 2) : make_wide_fixture("llama", 2, 6);
        mq_error err;
        assert_int_equal(mq_gemm_bf16_new(&bf16.gemm, 2, &err), MQ_OK);
        check_worth(&bf16, width == 2 ? 12 : 20, width == 2 ? 5e-3 : 1e-3);
        mq_gemm_bf16_free(bf16.gemm);
        free_fixture(&bf16);
    }
}

/* What was put are the source's norms, all of them. */
static void check_norms_of_source(const fixture *f) {
    const mq_weights *source = f->model->weights;
    assert_int_equal(f->norms_put, norm_count(f));
    for (size_t i = 0; i < f->norms_put; i++) {
        float norm[64];
        const size_t size = mq_tensors_find(f->source, f->norm_names[i])->elements;
        assert_true(size <= sizeof norm / sizeof norm[0]);
        assert_int_equal(source->class_->read(norm, source, f->norm_names[i], 0, 1, NULL), MQ_OK);
        assert_memory_equal(f->norms[i], norm, size * sizeof *norm);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(f->norm_names[i], f->norm_names[j]);
        }
    }
}

/* After training at this rate nothing is kept: the width is as it was. */
static void check_nothing_kept(const char *name, double rate, bool no_number) {
    fixture f = make_fixture(name, 2), untouched = make_fixture(name, 2);
    mq_refit_result result;
    mq_refit *run = refit(&result, &f, 2, rate);
    const double trained = kl_of(&f, mq_refit_student(run), TRAIN, VALIDATION);
    assert_int_equal(isnan(trained), no_number);
    assert_true(no_number || trained > result.kl_before); /* it would have ended worse */
    assert_int_equal(result.kept_epoch, 0);
    assert_true(result.kl_after == result.kl_before && isfinite(result.kl_after));
    check_same_pairs(&f, &untouched);
    check_norms_of_source(&f);
    mq_refit_close(run);
    free_fixture(&f);
    free_fixture(&untouched);
}

/* Rates at which training runs wild, and out of all numbers. */
static void a_width_never_ends_worse(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "gemma3", "llama-tied-bf16"};
    for (size_t n = 0; n < 3; n++) {
        check_nothing_kept(names[n], 3.0, false);
        check_nothing_kept(names[n], 1e30, true);
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    fixture one = make_fixture("gemma3", 1);
    mq_refit_result first, second;
    mq_refit_close(refit(&first, &one, 2, 5e-3));
    fixture three = make_fixture("gemma3", 3);
    mq_refit_close(refit(&second, &three, 2, 5e-3));
    assert_true(first.kl_after == second.kl_after);
    check_same_pairs(&one, &three);
    free_fixture(&one);
    free_fixture(&three);
}

static size_t memory_of(const fixture *f) {
    const mq_refit_setup setup = setup_of(f, 2, 5e-3);
    size_t bytes;
    assert_int_equal(mq_refit_memory(&bytes, &setup, f->context, NULL), MQ_OK);
    return bytes;
}

/* The insides of no block but one, of some, of all: the same numbers. */
static void check_kept(const char *name, mq_gemm_bf16 *gemm) {
    fixture none = make_fixture(name, 2);
    none.gemm = gemm;
    mq_refit_result of_none, of_some;
    mq_refit_close(refit(&of_none, &none, 2, 5e-3));
    fixture all = make_fixture(name, 2);
    all.gemm = gemm;
    all.kept_bytes = SIZE_MAX;
    const size_t layers = none.selection.layers, most = memory_of(&all) - memory_of(&none);
    assert_true(layers > 1 && most > 0);
    free_fixture(&all);
    for (size_t kept = 1; kept <= layers; kept++) {
        fixture some = make_fixture(name, 2);
        some.gemm = gemm;
        some.kept_bytes = most / (layers - 1) * kept;
        const size_t more = memory_of(&some) - memory_of(&none);
        assert_true(kept > 1 ? more > 0 : more == 0);
        assert_int_equal(more == most, kept == layers);
        mq_refit_close(refit(&of_some, &some, 2, 5e-3));
        assert_true(of_some.kl_before == of_none.kl_before);
        assert_true(of_some.kl_after == of_none.kl_after && of_none.kept_epoch > 0);
        check_same_pairs(&none, &some);
        free_fixture(&some);
    }
    free_fixture(&none);
}

static void kept_insides_change_nothing(void **state) {
    (void)state;
    check_kept("llama", NULL);
    check_kept("gemma3", NULL);
    if (mq_gemm_bf16_usable()) {
        mq_gemm_bf16 *gemm;
        assert_int_equal(mq_gemm_bf16_new(&gemm, 2, NULL), MQ_OK);
        check_kept("llama", gemm);
        mq_gemm_bf16_free(gemm);
    }
}

static void memory_is_predicted(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 2);
    f.kept_bytes = SIZE_MAX;
    const mq_refit_setup setup = setup_of(&f, 1, 1e-3);
    size_t predicted;
    assert_int_equal(mq_refit_memory(&predicted, &setup, f.context, NULL), MQ_OK);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    mq_refit_result result;
    mq_refit *run = refit(&result, &f, 1, 1e-3);
    const size_t held = mq_alloc_peak() - before;
    assert_true(held <= predicted + 4096); /* the struct itself */
    assert_true((double)predicted <= 1.05 * (double)held);
    mq_refit_close(run);
    assert_int_equal(mq_alloc_current(), before);
    free_fixture(&f);
}

/* --- progress --------------------------------------------------------------------------------- */

typedef struct progress {
    double done[32], total[32];
    bool finished[32]; /* it came with the width's result */
    size_t count;
} progress;

static void take_progress(void *user, const mq_progress *report) {
    progress *all = user;
    if (strcmp(report->phase, "refit") == 0) {
        assert_true(all->count < 32);
        all->done[all->count] = report->done;
        all->total[all->count] = report->total;
        all->finished[all->count++] = report->detail != NULL;
    }
}

#define SHOWN (TRAIN / 2) /* of WIDTH's sequences: a half of the text */

/* Of two widths: it counts the work of both, grows with every step, and is not at the end before
 * the second one's numbers are stored. */
static void progress_is_of_all_widths(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 1);
    mq_context_free(f.context);
    progress all = {.count = 0};
    const mq_context_options options = {.threads = 1, .sink = {&all, NULL, take_progress}};
    assert_int_equal(mq_context_new(&f.context, &options, NULL), MQ_OK);
    f.batch = 1;
    const size_t epochs = 2;
    const mq_refit_setup setup = setup_of(&f, epochs, 1e-3);
    const mq_refit_store store = {&f, codes, pairs, put_pairs, put_norm, NULL};
    mq_refit *run = NULL;
    mq_refit_result result;
    assert_int_equal(mq_refit_open(&run, &setup, f.context, NULL), MQ_OK);
    const size_t work = mq_refit_work(run, WIDTH);
    assert_true(work > epochs * SHOWN);
    assert_true(mq_refit_work(run, 8) < work); /* it sees an eighth of the text */
    assert_true(mq_refit_work(run, 2) == work + epochs * (TRAIN - SHOWN));
    assert_int_equal(mq_refit_width(&result, run, WIDTH, &store, 0, work, NULL), MQ_OK);
    f.norms_put = 0;
    assert_int_equal(mq_refit_width(&result, run, WIDTH, &store, work, 0, NULL), MQ_OK);
    mq_refit_close(run);
    assert_int_equal(all.count, 2 * (epochs * SHOWN + 1));
    for (size_t i = 0; i < all.count; i++) {
        assert_true(all.total[i] == (double)(2 * work));
        assert_true(i == 0 || all.done[i] > all.done[i - 1]);
        assert_true(all.finished[i] == (i + 1 == all.count / 2 || i + 1 == all.count));
        assert_true((all.done[i] == all.total[i]) == (i + 1 == all.count));
    }
    assert_true(all.done[all.count / 2 - 1] == (double)work);
    free_fixture(&f);
}

/* From the end of an epoch's first step to that of its last an allocation would fail. */
static void forbid_allocations(void *user, const mq_progress *report) {
    size_t *steps = user;
    if (strcmp(report->phase, "refit") == 0) {
        ++*steps;
        mq_alloc_fail_after(*steps % TRAIN != 0 && report->detail == NULL ? 1 : 0);
    }
}

static void check_steps_allocate_nothing(const char *name, mq_gemm_bf16 *gemm) {
    fixture f = make_wide_fixture(name, 2, 2); /* which gets all TRAIN sequences */
    mq_context_free(f.context);
    f.batch = 1;
    f.gemm = gemm;
    size_t steps = 0;
    const mq_context_options options = {.threads = 2, .sink = {&steps, NULL, forbid_allocations}};
    assert_int_equal(mq_context_new(&f.context, &options, NULL), MQ_OK);
    mq_refit_result result;
    mq_refit_close(refit(&result, &f, 2, 1e-3)); /* threads' own: memory_is_predicted sees them */
    assert_int_equal(steps, 2 * TRAIN + 1);
    free_fixture(&f);
}

static void steps_allocate_nothing(void **state) {
    (void)state;
    check_steps_allocate_nothing("llama", NULL);
    check_steps_allocate_nothing("gemma3", NULL);
    if (mq_gemm_bf16_usable()) {
        mq_gemm_bf16 *gemm;
        assert_int_equal(mq_gemm_bf16_new(&gemm, 2, NULL), MQ_OK);
        check_steps_allocate_nothing("llama", gemm);
        mq_gemm_bf16_free(gemm);
    }
}

/* Where text is short, the widths up to 5 bits get all of it. */
static void short_text_is_not_shared_out(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 1);
    f.batch = 1;
    mq_refit_setup setup = setup_of(&f, 1, 1e-3);
    for (setup.least = 0; setup.least <= 2 * TRAIN; setup.least += TRAIN / 2) {
        mq_refit *run = NULL;
        assert_int_equal(mq_refit_open(&run, &setup, f.context, NULL), MQ_OK);
        const size_t all = mq_refit_work(run, 2), half = mq_refit_work(run, 5);
        assert_int_equal(all - half, setup.least < TRAIN ? TRAIN / 2 : 0);
        assert_int_equal(mq_refit_work(run, 4), half);
        assert_int_equal(all - mq_refit_work(run, 8),
                         TRAIN - (setup.least / 4 > 1 ? setup.least / 4 : 1));
        mq_refit_close(run);
    }
    free_fixture(&f);
}

/* --- failures --------------------------------------------------------------------------------- */

static void failures_are_reported(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 1);
    const mq_refit_setup setup = setup_of(&f, 1, 1e-3);
    const mq_refit_store store = {&f, codes, pairs, put_pairs, put_norm, NULL};
    const size_t before = mq_alloc_current();
    mq_refit *run = NULL;
    mq_refit_result result;
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    size_t failed = 0;
    for (; status != MQ_OK; failed++) { /* lack of memory, wherever */
        assert_int_equal(status, MQ_ERR_MACHINE);
        mq_alloc_fail_after(failed + 1);
        status = mq_refit_open(&run, &setup, f.context, &err);
        if (status == MQ_OK) {
            status = mq_refit_width(&result, run, WIDTH, &store, 0, 0, &err);
            mq_refit_close(run);
        }
        mq_alloc_fail_after(0);
        assert_int_equal(mq_alloc_current(), before);
    }
    assert_true(failed > 10);
    f.pairs_put = 0; /* by the last round, which lacked nothing */
    f.codes_fail = true;
    assert_int_equal(mq_refit_open(&run, &setup, f.context, &err), MQ_OK);
    assert_int_equal(mq_refit_width(&result, run, WIDTH, &store, 0, 0, &err), MQ_ERR_MACHINE);
    assert_non_null(strstr(err.message, "the disk is gone"));
    assert_int_equal(f.pairs_put, 0);
    mq_refit_close(run);
    free_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_numbers_are_worth_what_is_said),
        cmocka_unit_test(other_settings_keep_the_promise),
        cmocka_unit_test(a_width_never_ends_worse),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(kept_insides_change_nothing),
        cmocka_unit_test(memory_is_predicted),
        cmocka_unit_test(progress_is_of_all_widths),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(short_text_is_not_shared_out),
        cmocka_unit_test(failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
