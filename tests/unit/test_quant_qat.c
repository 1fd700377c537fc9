/* layer: quant */
/* Codes trained end to end: what moves them, and what the whole promises, on small models. */
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
#include "quant/qat_codes.h"
#include "tensor/dtype.h"

/* --- one layer's codes ------------------------------------------------------------------------ */

enum { OUT = 3, IN = 320, GROUPS = 2, COUNT = IN / GROUPS };

static const unsigned three[] = {8, 4, 2}, two[] = {5, 3};
static const double lambdas[] = {10.0, 3.0, 1.0};

typedef struct layer {
    mq_qat_rule rule;
    mq_qat_codes codes;
    float *gradient[MQ_MAX_WIDTHS], *scale[MQ_MAX_WIDTHS];
    mq_slab slab;
    mq_random random;
} layer;

static void carve_layer(layer *l) {
    mq_qat_codes_carve(&l->codes, &l->rule, OUT, IN, GROUPS, &l->slab);
    for (size_t k = 0; k < l->rule.width_count; k++) {
        l->gradient[k] = mq_carve(&l->slab, OUT, IN * sizeof(float));
        l->scale[k] = mq_carve(&l->slab, OUT, GROUPS * sizeof(float));
    }
}

static void fill_gradients(layer *l) {
    for (size_t k = 0; k < l->rule.width_count; k++) {
        for (size_t i = 0; i < OUT * IN; i++) {
            l->gradient[k][i] = (float)(mq_random_unit(&l->random) - 0.5);
        }
        for (size_t g = 0; g < OUT * GROUPS; g++) {
            const double unit = 256.0 / (double)(1u << l->rule.widths[k]);
            l->scale[k][g] = (float)(unit * (0.01 + 0.01 * mq_random_unit(&l->random)));
        }
    }
}

/* Offsets of up to `spread` steps. */
static void make_layer(layer *l, const unsigned *widths, size_t count, mq_slice_rule rule,
                       mq_zero_point zero_point, double spread) {
    *l = (layer){.rule = mq_qat_rule_of(widths, lambdas, count, rule, zero_point)};
    mq_random_seed(&l->random, 11, count);
    carve_layer(l);
    assert_int_equal(mq_slab_allocate(&l->slab, "a layer", NULL), MQ_OK);
    carve_layer(l);
    for (size_t i = 0; i < OUT * IN; i++) {
        l->codes.start[i] = (uint8_t)(1 + mq_random_below(&l->random, 255));
    }
    mq_qat_codes_begin(&l->codes);
    assert_memory_equal(l->codes.now, l->codes.start, OUT * IN);
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        for (size_t i = 0; i < OUT * IN; i++) {
            l->codes.offset[j][i] = (float)(spread * (2.0 * mq_random_unit(&l->random) - 1.0));
        }
    }
    fill_gradients(l);
}

/* The soft path of one weight in double, the floors' remainders held (straight through): what each
 * width's slice is, before its scale. remainder[j] is set, or, if `held`, taken. level 8 is last.
 */
static void soft_path(double soft[MQ_MAX_WIDTH + 1], double remainder[MQ_MAX_WIDTHS + 1], bool held,
                      const mq_qat_rule *rule, const double offset[], unsigned start) {
    double parent = 0.0;
    unsigned parent_width = 0;
    for (size_t j = 0; j <= rule->offset_count; j++) {
        const bool last = j == rule->offset_count;
        const unsigned width = last ? 8 : rule->widths[rule->width_count - 1 - j];
        const double levels = (double)(1u << width), room = levels / (double)(1u << parent_width);
        const double begin = parent * room, end = begin + room;
        const double u = ((double)start + 0.5) / 256.0 * levels + (last ? 0.0 : offset[j]);
        /* The clamp's ends move with the parent; those of the narrowest level do not stop it. */
        double s = j > 0 && u < begin ? begin : j > 0 && u > end ? end : u;
        if (!held) {
            const double inner = fmin(fmax(s, begin), end - 1e-9);
            remainder[j] = s - fmin(floor(inner), nearbyint(end) - 1.0);
        }
        s -= remainder[j];
        soft[width] = s;
        parent = s;
        parent_width = width;
    }
}

/* Σ λ·factor·scale·gradient·slice of one weight, for its finite differences by each offset. */
static double path_loss(const layer *l, const double offset[], double remainder[], size_t at,
                        const float gradient[], const double factor[]) {
    double soft[MQ_MAX_WIDTH + 1], sum = 0.0;
    soft_path(soft, remainder, true, &l->rule, offset, l->codes.start[at]);
    for (size_t k = 0; k < l->rule.width_count; k++) {
        sum += l->rule.lambda[k] * factor[k] * (double)l->scale[k][at / COUNT] *
               (double)gradient[k] * soft[l->rule.widths[k]];
    }
    return sum;
}

static void nested_slopes(double slope[MQ_MAX_WIDTHS], const layer *l, size_t at,
                          const float gradient[], const double factor[]) {
    double offset[MQ_MAX_WIDTHS] = {0}, soft[MQ_MAX_WIDTH + 1], remainder[MQ_MAX_WIDTHS + 1];
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        offset[j] = (double)l->codes.offset[j][at];
    }
    soft_path(soft, remainder, false, &l->rule, offset, l->codes.start[at]);
    for (size_t j = 0; j < l->rule.offset_count; j++) {
        const double kept = offset[j], h = 1e-7;
        offset[j] = kept + h;
        const double above = path_loss(l, offset, remainder, at, gradient, factor);
        offset[j] = kept - h;
        slope[j] = (above - path_loss(l, offset, remainder, at, gradient, factor)) / (2.0 * h);
        offset[j] = kept;
    }
}

static void plain_slope(double slope[MQ_MAX_WIDTHS], const layer *l, size_t at,
                        const float gradient[], const double factor[]) {
    const unsigned narrowest = l->rule.widths[l->rule.width_count - 1];
    slope[0] = 0.0;
    for (size_t k = 0; k < l->rule.width_count; k++) {
        slope[0] += l->rule.lambda[k] * factor[k] * (double)l->scale[k][at / COUNT] *
                    (double)gradient[k] * (double)(1u << (l->rule.widths[k] - narrowest));
    }
}

/* The first step is rate times the gradient over its group's root mean square: all offsets of a
 * group then stand in the ratio of their gradients, which are known. */
static void check_step(const unsigned *widths, size_t count, mq_slice_rule rule, bool skip) {
    layer l;
    make_layer(&l, widths, count, rule, MQ_ZERO_FLOAT, 1.2);
    static double slope[MQ_MAX_WIDTHS][OUT * IN];
    static float before[MQ_MAX_WIDTHS][OUT * IN];
    const double factor[MQ_MAX_WIDTHS] = {skip ? 0.0 : 4.0, 1.0, 1.0};
    for (size_t at = 0; at < OUT * IN; at++) {
        float gradient[MQ_MAX_WIDTHS];
        double own[MQ_MAX_WIDTHS];
        for (size_t k = 0; k < count; k++) {
            gradient[k] = l.gradient[k][at];
        }
        (l.rule.nested ? nested_slopes : plain_slope)(own, &l, at, gradient, factor);
        for (size_t j = 0; j < l.rule.offset_count; j++) {
            slope[j][at] = own[j];
            before[j][at] = l.codes.offset[j][at];
        }
    }
    const mq_adam adam = mq_adam_at(0.0f, 1e-3f, 0, 100);
    if (skip) {
        l.gradient[0] = NULL;
    }
    mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
    for (size_t j = 0; j < l.rule.offset_count; j++) {
        for (size_t g = 0; g < OUT * GROUPS; g++) {
            double squares = 0.0;
            for (size_t at = g * COUNT; at < (g + 1) * COUNT; at++) {
                squares += slope[j][at] * slope[j][at];
            }
            const double rate = 1e-3 / sqrt(squares / COUNT);
            assert_true(squares > 0.0);
            for (size_t at = g * COUNT; at < (g + 1) * COUNT; at++) {
                const double unit = (double)(1u << (8 - widths[count - 1]));
                const double z = ((double)l.codes.start[at] + 0.5) / unit;
                double expected = (double)before[j][at] - rate * slope[j][at];
                if (j == 0) { /* inside the codes' ends */
                    expected = fmin(fmax(expected, -z), 256.0 / unit - z);
                }
                if (!(fabs((double)l.codes.offset[j][at] - expected) < 2e-6)) {
                    fail_msg("offset %zu of weight %zu: %.8f, not %.8f (it was %.8f)", j, at,
                             (double)l.codes.offset[j][at], expected, (double)before[j][at]);
                }
            }
        }
    }
    mq_slab_free(&l.slab);
}

static void steps_follow_the_soft_path(void **state) {
    (void)state;
    check_step(three, 3, MQ_SLICE_TOP, false);
    check_step(three, 3, MQ_SLICE_TOP, true);
    check_step(two, 2, MQ_SLICE_TOP, false);
    check_step(three, 3, MQ_SLICE_ROUND, false);
    check_step(three, 3, MQ_SLICE_ROUND, true);
}

/* Of a code that has moved, every width's slice is what its own level decided. */
static void slices_are_what_was_trained(void **state) {
    (void)state;
    layer l;
    make_layer(&l, three, 3, MQ_SLICE_TOP, MQ_ZERO_FLOAT, 1.5);
    const mq_adam adam = mq_adam_at(0.0f, 0.0f, 0, 100); /* a step that makes codes alone */
    const double factor[] = {1.0, 1.0, 1.0};
    mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
    size_t moved = 0;
    for (size_t at = 0; at < OUT * IN; at++) {
        const unsigned start = l.codes.start[at], now = l.codes.now[at];
        const float z = ((float)start + 0.5f) / 256.0f;
        const float u2 = fminf(fmaxf(4.0f * z + l.codes.offset[0][at], 0.0f), 3.0f);
        const unsigned s2 = (unsigned)u2;
        const float begin4 = 4.0f * (float)s2;
        const float u4 = fminf(fmaxf(16.0f * z + l.codes.offset[1][at], begin4), begin4 + 3.0f);
        const unsigned s4 = (unsigned)u4;
        assert_int_equal(mq_slice_code(now, 2, MQ_SLICE_TOP), s2);
        assert_int_equal(mq_slice_code(now, 4, MQ_SLICE_TOP), s4);
        /* 8 bits: where they were, or at the nearer edge of what int4 has decided. */
        const unsigned first = 16 * s4, last = 16 * s4 + 15;
        assert_int_equal(now, start < first ? first : start > last ? last : start);
        moved += now != start;
    }
    assert_true(moved > OUT * IN / 2);
    mq_slab_free(&l.slab);
}

static void codes_stay_codes(void **state) {
    (void)state;
    layer l;
    for (size_t trial = 0; trial < 4; trial++) {
        const bool symmetric = trial == 3;
        make_layer(&l, trial == 1 ? two : three, trial == 1 ? 2 : 3,
                   trial < 2 ? MQ_SLICE_TOP : MQ_SLICE_ROUND,
                   symmetric ? MQ_ZERO_SYMMETRIC : MQ_ZERO_FLOAT, 0.0);
        const double factor[] = {1.0, 1.0, 1.0};
        size_t least = 255, most = 0;
        for (size_t step = 0; step < 50; step++) {
            const mq_adam adam = mq_adam_at(0.0f, 0.5f, step, 100);
            fill_gradients(&l); /* each weight its own way, all the time */
            for (size_t k = 0; k < l.rule.width_count; k++) {
                for (size_t i = 0; i < OUT * IN; i++) {
                    l.gradient[k][i] = copysignf(l.gradient[k][i], i % 2 == 0 ? 1.0f : -1.0f);
                }
            }
            mq_qat_codes_step(&l.codes, l.gradient, (const float *const *)l.scale, factor, &adam);
        }
        for (size_t i = 0; i < OUT * IN; i++) {
            least = l.codes.now[i] < least ? l.codes.now[i] : least;
            most = l.codes.now[i] > most ? l.codes.now[i] : most;
            /* Straight to its end, and not beyond it: back at once. */
            const float unit = (float)(1u << (8 - l.rule.widths[l.rule.width_count - 1]));
            const float u = ((float)l.codes.start[i] + 0.5f) / unit + l.codes.offset[0][i];
            assert_true(u > -1e-3f && u < 256.0f / unit + 1e-3f);
        }
        /* Where widths decide their own bits, 8 bits only follow to an edge. */
        const unsigned shift = l.rule.nested ? 8 - l.rule.widths[l.rule.width_count - 1] : 0;
        assert_int_equal(least >> shift, symmetric ? 1 : 0);
        assert_int_equal(most >> shift, 255 >> shift);
        mq_slab_free(&l.slab);
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

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
        cmocka_unit_test(steps_follow_the_soft_path),
        cmocka_unit_test(slices_are_what_was_trained),
        cmocka_unit_test(codes_stay_codes),
        cmocka_unit_test(what_is_kept_is_worth_what_is_said),
        cmocka_unit_test(worse_is_not_kept),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(memory_is_predicted),
        cmocka_unit_test(progress_grows_to_its_end),
        cmocka_unit_test(failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
