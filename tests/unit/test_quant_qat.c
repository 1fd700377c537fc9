/* layer: quant */
/* Codes trained end to end through small models: what that promises, and its failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>

#include "base/random.h"
#include "model_test.h"
#include "quant/qat.h"
#include "tensor/dtype.h"

#define GROUP 8
enum { LENGTH = 12, TRAIN = 6, VALIDATION = 3 };

typedef struct stored {
    size_t out, in, groups;
    uint8_t *codes;
    uint16_t *scales[MQ_MAX_WIDTH + 1], *biases[MQ_MAX_WIDTH + 1];
} stored;

typedef struct fixture {
    mq_model *model;
    mq_tensors *source;
    mq_selection selection;
    stored (*linears)[MQ_LINEAR_COUNT];
    int32_t ids[(TRAIN + VALIDATION) * LENGTH];
    size_t puts;
    bool put_fails;
    mq_slice_rule rule;
    mq_context *context;
    mq_refit_store store;
} fixture;

static void round_linear(stored *s, const float *w, mq_slice_rule rule) {
    for (size_t g = 0; g < s->out * s->groups; g++) {
        float lo = w[g * GROUP], hi = lo;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            lo = fminf(lo, w[i]);
            hi = fmaxf(hi, w[i]);
        }
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            s->codes[i] = (uint8_t)fminf(255.0f, (w[i] - lo) / (hi - lo) * 256.0f);
        }
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            const float step = (hi - lo) / (float)(1u << width);
            s->scales[width][g] = mq_f32_to_f16(step);
            s->biases[width][g] = mq_f32_to_f16(rule == MQ_SLICE_TOP ? lo + 0.5f * step : lo);
        }
    }
}

static void make_linear(fixture *f, size_t layer_index, mq_linear linear) {
    stored *s = &f->linears[layer_index][linear];
    mq_config_linear_shape(&s->out, &s->in, &f->model->config, linear);
    s->groups = s->in / GROUP;
    s->codes = mq_alloc(s->out, s->in);
    float *w = mq_alloc(s->out, s->in * sizeof(float));
    assert_true(s->codes && w);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        s->scales[width] = mq_alloc(s->out, s->groups * sizeof(uint16_t));
        s->biases[width] = mq_alloc(s->out, s->groups * sizeof(uint16_t));
        assert_true(s->scales[width] && s->biases[width]);
    }
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &f->model->config, layer_index, linear, "weight");
    assert_int_equal(f->model->weights->class_->read(w, f->model->weights, name, 0, s->out, NULL),
                     MQ_OK);
    round_linear(s, w, f->rule);
    mq_free(w);
    f->selection.groups[layer_index][linear] = s->groups;
}

static mq_status codes(void *user, uint8_t *out, size_t layer_index, mq_linear linear, size_t first,
                       size_t count, mq_error *err) {
    (void)err;
    const stored *s = &((fixture *)user)->linears[layer_index][linear];
    memcpy(out, s->codes + first * s->in, count * s->in);
    return MQ_OK;
}

static mq_status pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer_index,
                       mq_linear linear, unsigned width, mq_error *err) {
    (void)err;
    const stored *s = &((fixture *)user)->linears[layer_index][linear];
    memcpy(scales, s->scales[width], s->out * s->groups * sizeof *scales);
    memcpy(biases, s->biases[width], s->out * s->groups * sizeof *biases);
    return MQ_OK;
}

static mq_status put_pairs(void *user, size_t layer_index, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    (void)err;
    fixture *f = user;
    const stored *s = &f->linears[layer_index][linear];
    memcpy(s->scales[width], scales, s->out * s->groups * sizeof *scales);
    memcpy(s->biases[width], biases, s->out * s->groups * sizeof *biases);
    f->puts++;
    return MQ_OK;
}

static mq_status put_codes(void *user, size_t layer_index, mq_linear linear, const uint8_t *new,
                           mq_error *err) {
    fixture *f = user;
    const stored *s = &f->linears[layer_index][linear];
    if (f->put_fails) {
        return mq_fail(err, MQ_ERR_MACHINE, "the disk is full");
    }
    memcpy(s->codes, new, s->out * s->in);
    f->puts++;
    return MQ_OK;
}

static void make_fixture(fixture *f, const char *name, size_t threads, mq_slice_rule rule) {
    *f = (fixture){.model = open_golden(name), .rule = rule};
    char *folder = golden_path(name, "");
    assert_int_equal(mq_tensors_open(&f->source, folder, NULL), MQ_OK);
    mq_free(folder);
    f->selection.layers = f->model->config.num_hidden_layers;
    f->selection.groups = mq_calloc(f->selection.layers, sizeof *f->selection.groups);
    f->linears = mq_calloc(f->selection.layers, sizeof *f->linears);
    assert_true(f->selection.groups != NULL && f->linears != NULL);
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        if (i != MQ_LINEAR_COUNT + MQ_V) { /* one that stays as it is */
            make_linear(f, i / MQ_LINEAR_COUNT, (mq_linear)(i % MQ_LINEAR_COUNT));
        }
    }
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t i = 0; i < sizeof f->ids / sizeof f->ids[0]; i++) {
        f->ids[i] = (int32_t)mq_random_below(&random, f->model->config.vocab_size);
    }
    const mq_context_options options = {.threads = threads};
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
    f->store = (mq_refit_store){f, codes, pairs, put_pairs, NULL, put_codes};
}

static void free_fixture(fixture *f) {
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        stored *s = &f->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        mq_free(s->codes);
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            mq_free(s->scales[width]);
            mq_free(s->biases[width]);
        }
    }
    mq_free(f->linears);
    mq_selection_free(&f->selection);
    mq_tensors_close(f->source);
    mq_model_free(f->model);
    mq_context_free(f->context);
}

static mq_qat_setup setup_of(const fixture *f, size_t epochs, double rate, double pair_rate) {
    return (mq_qat_setup){.refit = {.model = f->model,
                                    .source = f->source,
                                    .selection = &f->selection,
                                    .slice_rule = f->rule,
                                    .ids = f->ids,
                                    .train = TRAIN,
                                    .validation = VALIDATION,
                                    .length = LENGTH,
                                    .batch = 2,
                                    .pass_batch = 2,
                                    .epochs = epochs,
                                    .codes_move = true,
                                    .rate = pair_rate},
                          .width_count = 3,
                          .widths = {8, 4, 2},
                          .lambda = {10.0, 3.0, 1.0},
                          .int8_period = 2,
                          .rate = rate};
}

static mq_qat_result train(fixture *f, size_t epochs, double rate, double pair_rate) {
    const mq_qat_setup setup = setup_of(f, epochs, rate, pair_rate);
    mq_qat_result result;
    mq_error err;
    if (mq_qat_run(&result, &setup, &f->store, f->context, &err) != MQ_OK) {
        fail_with("qat", &err);
    }
    return result;
}

/* Codes and pairs of all widths differ. */
static size_t differences(const fixture *a, const fixture *b, bool codes_only) {
    size_t count = 0;
    for (size_t i = 0; i < a->selection.layers * MQ_LINEAR_COUNT; i++) {
        const stored *x = &a->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        const stored *y = &b->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        for (size_t at = 0; at < x->out * x->in && x->groups > 0; at++) {
            count += x->codes[at] != y->codes[at];
        }
        for (unsigned width = MQ_MIN_WIDTH; !codes_only && width <= MQ_MAX_WIDTH; width++) {
            for (size_t g = 0; g < x->out * x->groups; g++) {
                count += x->scales[width][g] != y->scales[width][g];
                count += x->biases[width][g] != y->biases[width][g];
            }
        }
    }
    return count;
}

/* The weighted divergence falls, and what is reported is what the store then has. */
static void check_worth(const char *name, mq_slice_rule rule) {
    fixture f, untouched;
    make_fixture(&f, name, 1, rule);
    make_fixture(&untouched, name, 1, rule);
    const mq_qat_result result = train(&f, 8, 1e-2, -1.0);
    assert_true(result.kept_epoch > 0);
    assert_true(result.loss_after < result.loss_before);
    assert_true(result.kl_after[2] < result.kl_before[2]);
    assert_int_equal(result.tokens, 8 * TRAIN * LENGTH);
    assert_true(result.moved > 0);
    assert_int_equal(differences(&f, &untouched, true), result.moved);
    const double sum = 10.0 * result.kl_after[8] + 3.0 * result.kl_after[4] + result.kl_after[2];
    assert_true(fabs(sum - result.loss_after) < 1e-9 * sum);

    const mq_qat_result again = train(&f, 1, 0.0, 0.0);
    assert_int_equal(again.kept_epoch, 0);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        assert_true(again.kl_before[width] == result.kl_after[width]);
    }
    free_fixture(&f);
    free_fixture(&untouched);
}

static void what_is_kept_is_worth_what_is_said(void **state) {
    (void)state;
    check_worth("llama", MQ_SLICE_TOP);
    check_worth("gemma3", MQ_SLICE_TOP);
    check_worth("llama", MQ_SLICE_ROUND);
}

/* Steps that are far too long: the validation sequences see it. */
static void worse_is_not_kept(void **state) {
    (void)state;
    fixture f, untouched;
    make_fixture(&f, "llama", 1, MQ_SLICE_TOP);
    make_fixture(&untouched, "llama", 1, MQ_SLICE_TOP);
    const mq_qat_result result = train(&f, 2, 1.0, 0.5);
    assert_int_equal(result.kept_epoch, 0);
    assert_int_equal(result.moved, 0);
    assert_int_equal(f.puts, 0);
    assert_true(result.loss_after == result.loss_before);
    assert_memory_equal(result.kl_before, result.kl_after, sizeof result.kl_before);
    assert_int_equal(differences(&f, &untouched, false), 0);
    free_fixture(&f);
    free_fixture(&untouched);
}

static void threads_change_nothing(void **state) {
    (void)state;
    fixture one, three_threads;
    make_fixture(&one, "gemma3", 1, MQ_SLICE_TOP);
    make_fixture(&three_threads, "gemma3", 3, MQ_SLICE_TOP);
    const mq_qat_result first = train(&one, 2, 3e-2, -1.0);
    const mq_qat_result second = train(&three_threads, 2, 3e-2, -1.0);
    assert_true(first.kept_epoch > 0);
    assert_true(first.loss_after == second.loss_after);
    assert_int_equal(differences(&one, &three_threads, false), 0);
    free_fixture(&one);
    free_fixture(&three_threads);
}

static void memory_is_predicted(void **state) {
    (void)state;
    fixture f;
    make_fixture(&f, "llama", 1, MQ_SLICE_TOP);
    const mq_qat_setup setup = setup_of(&f, 1, 1e-2, -1.0);
    size_t predicted;
    assert_int_equal(mq_qat_memory(&predicted, &setup, f.context, NULL), MQ_OK);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    train(&f, 1, 1e-2, -1.0);
    const size_t held = mq_alloc_peak() - before;
    assert_true(held <= predicted + 8192); /* the struct itself */
    assert_true((double)predicted <= 1.05 * (double)held);
    assert_int_equal(mq_alloc_current(), before);
    free_fixture(&f);
}

/* --- progress, failures ----------------------------------------------------------------------- */

typedef struct progress {
    double done, total;
    size_t count;
    bool finished;
} progress;

static volatile sig_atomic_t stop;

static void take_progress(void *user, const mq_progress *report) {
    progress *all = user;
    if (strcmp(report->phase, "qat") == 0) {
        assert_true(report->done > all->done);
        assert_true(all->count == 0 || report->total == all->total);
        all->done = report->done;
        all->total = report->total;
        all->finished = report->detail != NULL;
        all->count++;
        assert_true(all->finished == (report->done == report->total));
    }
}

static void take_and_stop(void *user, const mq_progress *report) {
    take_progress(user, report);
    stop = ((progress *)user)->count == 2;
}

static void set_context(fixture *f, progress *all, void (*take)(void *, const mq_progress *)) {
    mq_context_free(f->context);
    const mq_context_options options = {
        .threads = 1, .sink = {all, NULL, take}, .interrupted = &stop};
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
}

static void progress_grows_to_its_end(void **state) {
    (void)state;
    fixture f;
    progress all = {.count = 0};
    make_fixture(&f, "llama", 1, MQ_SLICE_TOP);
    set_context(&f, &all, take_progress);
    train(&f, 2, 1e-2, -1.0);
    assert_int_equal(all.count, 2 * TRAIN / 2 + 1);
    assert_true(all.finished);

    all = (progress){.count = 0};
    set_context(&f, &all, take_and_stop);
    const mq_qat_setup setup = setup_of(&f, 2, 1e-2, -1.0);
    mq_qat_result result;
    assert_int_equal(mq_qat_run(&result, &setup, &f.store, f.context, NULL), MQ_ERR_INTERRUPTED);
    assert_int_equal(all.count, 2);
    stop = 0;
    free_fixture(&f);
}

static void failures_are_reported(void **state) {
    (void)state;
    fixture f;
    make_fixture(&f, "llama", 1, MQ_SLICE_TOP);
    mq_qat_setup setup = setup_of(&f, 2, 3e-2, 1e-3);
    const size_t before = mq_alloc_current();
    mq_qat_result result;
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    size_t failed = 0;
    for (size_t countdown = 1; status != MQ_OK; countdown += 1 + countdown / 8, failed++) {
        mq_alloc_fail_after(countdown);
        status = mq_qat_run(&result, &setup, &f.store, f.context, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), before);
    }
    assert_true(failed > 10);
    free_fixture(&f);
    make_fixture(&f, "llama", 1, MQ_SLICE_TOP);
    f.put_fails = true;
    setup = setup_of(&f, 2, 3e-2, 1e-3);
    assert_int_equal(mq_qat_run(&result, &setup, &f.store, f.context, &err), MQ_ERR_MACHINE);
    assert_non_null(strstr(err.message, "the disk is full"));
    free_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_is_worth_what_is_said),
        cmocka_unit_test(worse_is_not_kept),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(memory_is_predicted),
        cmocka_unit_test(progress_grows_to_its_end),
        cmocka_unit_test(failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
