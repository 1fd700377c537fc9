/* layer: quant */
/* The refit through whole small models: its gradients by finite differences, what it promises, and
 * what it does with failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/random.h"
#include "model_test.h"
#include "quant/embedding.h"
#include "quant/refit_student.h"

#define GROUP 8
#define WIDTH 3u
#define LENGTH 12
#define TRAIN 2
#define VALIDATION 3

/* A quantized linear in memory, rounded plainly; one width's pairs. */
typedef struct stored {
    size_t out, in, groups;
    uint8_t *codes;
    uint16_t *scales, *biases;
} stored;

typedef struct fixture {
    mq_model *model;
    mq_tensors *source;
    mq_selection selection;
    stored (*linears)[MQ_LINEAR_COUNT];
    int32_t ids[(TRAIN + VALIDATION) * LENGTH];
    size_t norms_put, pairs_put;
    bool codes_fail;
    unsigned width;
    size_t batch;
    mq_slice_rule rule;
    mq_gemm_bf16 *gemm;
    mq_weights *embeddings; /* of the student; NULL: the model's */
    float norms[32][64];    /* as put, in that order */
    char norm_names[32][MQ_NAME_SIZE];
    mq_context *context;
    mq_refit_store store; /* user is set when the fixture has its place */
} fixture;

static void round_linear(stored *s, const float *w, unsigned width) {
    for (size_t g = 0; g < s->out * s->groups; g++) {
        float lo = w[g * GROUP], hi = lo;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            lo = fminf(lo, w[i]);
            hi = fmaxf(hi, w[i]);
        }
        const float step = (hi - lo) / 256.0f;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            s->codes[i] = (uint8_t)fminf(255.0f, (w[i] - lo) / step);
        }
        const float wide = (hi - lo) / (float)(1u << width);
        s->scales[g] = mq_f32_to_f16(wide);
        s->biases[g] = mq_f32_to_f16(lo + 0.5f * wide);
    }
}

static void make_linear(fixture *f, size_t layer, mq_linear linear) {
    stored *s = &f->linears[layer][linear];
    mq_config_linear_shape(&s->out, &s->in, &f->model->config, linear);
    s->groups = s->in / GROUP;
    s->codes = mq_alloc(s->out, s->in);
    s->scales = mq_alloc(s->out, s->groups * sizeof(uint16_t));
    s->biases = mq_alloc(s->out, s->groups * sizeof(uint16_t));
    float *w = mq_alloc(s->out, s->in * sizeof(float));
    assert_true(s->codes && s->scales && s->biases && w);
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &f->model->config, layer, linear, "weight");
    assert_int_equal(f->model->weights->class_->read(w, f->model->weights, name, 0, s->out, NULL),
                     MQ_OK);
    round_linear(s, w, f->width);
    mq_free(w);
    f->selection.groups[layer][linear] = s->groups;
}

static fixture make_wide_fixture(const char *name, size_t threads, unsigned width) {
    fixture f = {.model = open_golden(name), .width = width, .batch = TRAIN};
    char *folder = golden_path(name, "");
    assert_int_equal(mq_tensors_open(&f.source, folder, NULL), MQ_OK);
    mq_free(folder);
    const size_t layers = f.model->config.num_hidden_layers;
    f.selection.layers = layers;
    f.selection.groups = mq_calloc(layers, sizeof *f.selection.groups);
    f.linears = mq_calloc(layers, sizeof *f.linears);
    assert_true(f.selection.groups != NULL && f.linears != NULL);
    for (size_t layer = 0; layer < layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            if (layer != 1 || i != MQ_V) { /* one that stays as it is */
                make_linear(&f, layer, (mq_linear)i);
            }
        }
    }
    mq_random random;
    mq_random_seed(&random, 5, 0);
    for (size_t i = 0; i < sizeof f.ids / sizeof f.ids[0]; i++) {
        f.ids[i] = (int32_t)mq_random_below(&random, f.model->config.vocab_size);
    }
    const mq_context_options options = {.threads = threads};
    assert_int_equal(mq_context_new(&f.context, &options, NULL), MQ_OK);
    return f;
}

static fixture make_fixture(const char *name, size_t threads) {
    return make_wide_fixture(name, threads, WIDTH);
}

static void free_fixture(fixture *f) {
    for (size_t layer = 0; layer < f->selection.layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            mq_free(f->linears[layer][i].codes);
            mq_free(f->linears[layer][i].scales);
            mq_free(f->linears[layer][i].biases);
        }
    }
    mq_free(f->linears);
    mq_selection_free(&f->selection);
    mq_tensors_close(f->source);
    mq_model_free(f->model);
    mq_context_free(f->context);
}

/* --- the store -------------------------------------------------------------------------------- */

static mq_status codes(void *user, uint8_t *out, size_t layer, mq_linear linear, size_t first,
                       size_t count, mq_error *err) {
    const fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    if (f->codes_fail && layer == 1) {
        return mq_fail(err, MQ_ERR_MACHINE, "the disk is gone");
    }
    memcpy(out, s->codes + first * s->in, count * s->in);
    return MQ_OK;
}

static mq_status pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                       mq_linear linear, unsigned width, mq_error *err) {
    (void)err;
    const fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    assert_int_equal(width, f->width);
    memcpy(scales, s->scales, s->out * s->groups * sizeof *scales);
    memcpy(biases, s->biases, s->out * s->groups * sizeof *biases);
    return MQ_OK;
}

static mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    (void)err;
    fixture *f = user;
    const stored *s = &f->linears[layer][linear];
    assert_int_equal(width, f->width);
    memcpy(s->scales, scales, s->out * s->groups * sizeof *scales);
    memcpy(s->biases, biases, s->out * s->groups * sizeof *biases);
    f->pairs_put++;
    return MQ_OK;
}

static mq_status put_norm(void *user, const char *name, unsigned width, const float *values,
                          size_t size, mq_error *err) {
    (void)err;
    fixture *f = user;
    const mq_tensor_info *info = mq_tensors_find(f->source, name);
    assert_non_null(info);
    assert_int_equal(width, f->width);
    assert_int_equal(info->elements, size);
    for (size_t i = 0; i < size; i++) { /* in the type of the source's tensor */
        unsigned char bytes[4];
        float back;
        mq_from_f32(bytes, info->dtype, &values[i], 1);
        mq_to_f32(&back, bytes, info->dtype, 1);
        assert_true(back == values[i]);
    }
    assert_true(f->norms_put < 32 && size <= 64);
    memcpy(f->norms[f->norms_put], values, size * sizeof *values);
    snprintf(f->norm_names[f->norms_put], MQ_NAME_SIZE, "%s", name);
    f->norms_put++;
    return MQ_OK;
}

static mq_refit_setup setup_of(const fixture *f, size_t epochs, double rate) {
    mq_refit_setup setup = {.model = f->model,
                            .source = f->source,
                            .selection = &f->selection,
                            .slice_rule = f->rule,
                            .gemm = f->gemm,
                            .ids = f->ids,
                            .train = TRAIN,
                            .validation = VALIDATION,
                            .length = LENGTH,
                            .batch = f->batch,
                            .pass_batch = f->batch,
                            .epochs = epochs,
                            .rate = rate};
    setup.embeddings[f->width] = f->embeddings;
    return setup;
}

static mq_refit *refit(mq_refit_result *result, fixture *f, size_t epochs, double rate) {
    const mq_refit_setup setup = setup_of(f, epochs, rate);
    f->store = (mq_refit_store){f, codes, pairs, put_pairs, put_norm, NULL};
    mq_refit *out;
    mq_error err;
    assert_int_equal(mq_refit_prepare(&setup, &err), MQ_OK);
    assert_int_equal(mq_refit_open(&out, &setup, f->context, &err), MQ_OK);
    if (mq_refit_width(result, out, f->width, &f->store, 0, 0, &err) != MQ_OK) {
        fail_with("refit", &err);
    }
    return out;
}

/* Mean KL of sequences [first, first + count) with the student's numbers as they are. */
static double kl_of(const fixture *f, const mq_student *student, size_t first, size_t count) {
    const size_t tokens = count * LENGTH, width = f->model->config.hidden_size;
    float *mine = mq_alloc(tokens, width * sizeof(float));
    float *theirs = mq_alloc(tokens, width * sizeof(float));
    float *kl = mq_alloc(tokens, sizeof(float));
    const int32_t *ids = f->ids + first * LENGTH;
    assert_true(mine && theirs && kl);
    assert_int_equal(mq_model_forward(mine, &student->model, ids, count, LENGTH, count, "test",
                                      f->context, NULL),
                     MQ_OK);
    assert_int_equal(
        mq_model_forward(theirs, f->model, ids, count, LENGTH, count, "test", f->context, NULL),
        MQ_OK);
    assert_int_equal(mq_head_compare(NULL, kl, NULL, &student->model, mine, f->model, theirs, NULL,
                                     tokens, f->context, NULL),
                     MQ_OK);
    double sum = 0.0;
    for (size_t t = 0; t < tokens; t++) {
        sum += (double)kl[t];
    }
    mq_free(mine);
    mq_free(theirs);
    mq_free(kl);
    return sum / (double)tokens;
}

/* --- gradients -------------------------------------------------------------------------------- */

/* The loss by *x, in units of `unit`, against what Adam's first moment has of it after one step. */
static void check_slope(const fixture *f, const mq_student *student, float *x, float unit,
                        float moment, double *largest, const char *what) {
    const float kept = *x, step = 0.01f * unit;
    *x = kept + step;
    const double above = kl_of(f, student, 0, TRAIN), upper = (double)*x;
    *x = kept - step;
    const double below = kl_of(f, student, 0, TRAIN), lower = (double)*x;
    *x = kept;
    const double expected = (double)unit * (above - below) / (upper - lower);
    const double got = (double)moment / 0.1; /* 1 - beta1 */
    *largest = fmax(*largest, fabs(expected));
    if (!(fabs(got - expected) < 2e-5 + 0.02 * fabs(expected))) {
        fail_msg("%s: gradient %g, by differences %g", what, got, expected);
    }
}

/* Embeddings and head on the grid of everything else, in 4 bits: what the student of a width below
 * reads. */
typedef struct quantized_weights {
    mq_weights weights;
    const mq_model *model;
    float *embedding, *head; /* [vocab_size, hidden_size]; head NULL: tied */
    float *target;           /* the one that is being filled */
} quantized_weights;

static mq_status take_rows(void *user, const mq_quantized *quantized, size_t first, mq_error *err) {
    (void)err;
    const quantized_weights *self = user;
    mq_quantized_values(&(mq_values){.f32 = self->target + first * quantized->in}, quantized, 4,
                        MQ_SLICE_TOP);
    return MQ_OK;
}

static mq_status quantized_read(float *out, const mq_weights *base, const char *name, size_t first,
                                size_t count, mq_error *err) {
    const quantized_weights *self = (const quantized_weights *)(const void *)base;
    const mq_model *model = self->model;
    const float *rows = strcmp(name, model->config.arch->embedding) == 0 ? self->embedding
                        : strcmp(name, model->config.arch->head) == 0    ? self->head
                                                                         : NULL;
    if (rows == NULL) {
        return model->weights->class_->read(out, model->weights, name, first, count, err);
    }
    const size_t width = model->config.hidden_size;
    memcpy(out, rows + first * width, count * width * sizeof *out);
    return MQ_OK;
}

static const mq_weights_class quantized_class = {.read = quantized_read};

static float *quantize_matrix(quantized_weights *self, const fixture *f, const char *name) {
    const mq_config *config = &f->model->config;
    const size_t count = config->vocab_size * config->hidden_size;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.embeddings = MQ_EMBEDDINGS_NESTED;
    float *plain = mq_alloc(count, sizeof *plain);
    self->target = mq_alloc(count, sizeof *self->target);
    assert_true(plain != NULL && self->target != NULL);
    assert_int_equal(mq_embedding_quantize(&options, f->model, name, config->hidden_size / GROUP,
                                           take_rows, self, f->context, NULL),
                     MQ_OK);
    /* Another matrix than the teacher's, and not a far one. */
    const mq_weights *teacher = f->model->weights;
    assert_int_equal(teacher->class_->read(plain, teacher, name, 0, config->vocab_size, NULL),
                     MQ_OK);
    double error = 0.0, power = 0.0;
    for (size_t i = 0; i < count; i++) {
        error += pow((double)self->target[i] - (double)plain[i], 2);
        power += pow((double)plain[i], 2);
    }
    assert_true(error > 1e-4 * power && error < 0.05 * power);
    mq_free(plain);
    return self->target;
}

static quantized_weights quantize_embeddings(const fixture *f) {
    const mq_arch *arch = f->model->config.arch;
    quantized_weights made = {.weights = {&quantized_class}, .model = f->model};
    made.embedding = quantize_matrix(&made, f, arch->embedding);
    if (!f->model->config.tie_word_embeddings) {
        made.head = quantize_matrix(&made, f, arch->head);
    }
    return made;
}

/* With a rate of 0 the only step moves nothing, and its first moments are a tenth of the gradient.
 */
static void check_gradients(const char *name, bool own_embeddings) {
    fixture f = make_fixture(name, 2);
    quantized_weights quantized = {.model = NULL};
    if (own_embeddings) {
        quantized = quantize_embeddings(&f);
        f.embeddings = &quantized.weights;
    }
    mq_refit_result result;
    mq_refit *run = refit(&result, &f, 1, 0.0);
    const mq_student *student = mq_refit_student(run);
    double largest = 0.0;
    for (size_t layer = 0; layer < f.selection.layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            const mq_student_pairs *p = &student->pairs[layer][i];
            for (size_t g = 0; g < p->out * p->groups; g += 1 + p->out * p->groups / 2) {
                const float half = fabsf(p->scale[g]) * (float)(1u << (WIDTH - 1));
                check_slope(&f, student, &p->scale[g], p->scale[g], p->m[2 * g], &largest, "scale");
                check_slope(&f, student, &p->middle[g], half, p->m[2 * g + 1], &largest, "middle");
            }
        }
        for (int i = 0; i < MQ_NORM_COUNT; i++) {
            const mq_student_norm *norm = &student->norms[layer][i];
            for (size_t k = 0; k < norm->size; k += 1 + norm->size / 2) {
                check_slope(&f, student, &norm->value[k], norm->unit, norm->m[k], &largest, "norm");
            }
        }
    }
    check_slope(&f, student, &student->final_norm.value[1], student->final_norm.unit,
                student->final_norm.m[1], &largest, "final norm");
    assert_true(largest > 1e-3); /* of what the tolerance of 2e-5 is a small part */
    assert_int_equal(result.kept_epoch, 0);
    mq_refit_close(run);
    mq_free(quantized.embedding);
    mq_free(quantized.head);
    free_fixture(&f);
}

static void gradients_are_those_of_finite_differences(void **state) {
    (void)state;
    check_gradients("llama", false);
    check_gradients("llama-biases", false);
    check_gradients("gemma3", false);
    check_gradients("llama", true);  /* a head of its own */
    check_gradients("gemma3", true); /* tied: the student's head is not the teacher's */
    check_gradients("llama-tied-bf16", true);
}

/* --- promises --------------------------------------------------------------------------------- */

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
    const double kl = kl_of(f, student, TRAIN, VALIDATION);
    mq_refit_close(run);
    return kl;
}

/* The divergence falls, and what is reported is what the stored numbers are worth. */
static void check_worth(fixture *f, size_t epochs, double rate) {
    mq_refit_result result;
    mq_refit_close(refit(&result, f, epochs, rate));
    assert_true(result.kl_after < result.kl_before);
    assert_true(result.kept_epoch > 0);
    size_t norms = 1, linears = 0;
    for (size_t i = 0; i < f->selection.layers * MQ_NORM_COUNT; i++) {
        norms += mq_config_norm_size(&f->model->config, (mq_norm)(i % MQ_NORM_COUNT)) > 0;
    }
    for (size_t i = 0; i < f->selection.layers * MQ_LINEAR_COUNT; i++) {
        linears += f->selection.groups[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT] > 0;
    }
    assert_int_equal(f->norms_put, norms);
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

/* A wide width, which gets a third of the text; a batch that does not divide the sequences; the
 * rounding slice; products of bfloat16 operands. */
static void other_settings_keep_the_promise(void **state) {
    (void)state;
    fixture wide = make_wide_fixture("llama", 2, 6);
    wide.batch = 1;
    check_worth(&wide, 20, 1e-3);
    free_fixture(&wide);

    fixture rest = make_wide_fixture("gemma3", 2, 2);
    rest.batch = 5; /* of the two sequences that there are */
    check_worth(&rest, 12, 5e-3);
    free_fixture(&rest);

    fixture rounding = make_wide_fixture("llama", 2, 4);
    rounding.rule = MQ_SLICE_ROUND;
    check_worth(&rounding, 20, 5e-3);
    free_fixture(&rounding);

    if (mq_gemm_bf16_usable()) {
        fixture bf16 = make_fixture("llama", 2);
        mq_error err;
        assert_int_equal(mq_gemm_bf16_new(&bf16.gemm, 2, &err), MQ_OK);
        check_worth(&bf16, 12, 5e-3);
        mq_gemm_bf16_free(bf16.gemm);
        free_fixture(&bf16);
    }
}

/* Of a rate at which training runs wild nothing is kept: the width is as it was. */
static void a_width_never_ends_worse(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 2), untouched = make_fixture("llama", 2);
    mq_refit_result result;
    mq_refit *run = refit(&result, &f, 2, 3.0);
    assert_int_equal(result.kept_epoch, 0);
    assert_true(result.kl_after == result.kl_before);
    for (size_t i = 0; i < f.selection.layers * MQ_LINEAR_COUNT; i++) {
        const stored *a = &f.linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        const stored *b = &untouched.linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        if (a->codes != NULL) {
            const size_t bytes = a->out * a->groups * sizeof(uint16_t);
            assert_memory_equal(a->scales, b->scales, bytes);
            assert_memory_equal(a->biases, b->biases, bytes);
        }
    }
    mq_refit_close(run);
    free_fixture(&f);
    free_fixture(&untouched);
}

static void threads_change_nothing(void **state) {
    (void)state;
    fixture one = make_fixture("gemma3", 1);
    mq_refit_result first, second;
    mq_refit_close(refit(&first, &one, 2, 5e-3));
    fixture three = make_fixture("gemma3", 3);
    mq_refit_close(refit(&second, &three, 2, 5e-3));
    assert_true(first.kl_after == second.kl_after);
    for (size_t i = 0; i < one.selection.layers * MQ_LINEAR_COUNT; i++) {
        const stored *a = &one.linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        const stored *b = &three.linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        if (a->codes != NULL) {
            const size_t bytes = a->out * a->groups * sizeof(uint16_t);
            assert_memory_equal(a->scales, b->scales, bytes);
            assert_memory_equal(a->biases, b->biases, bytes);
        }
    }
    free_fixture(&one);
    free_fixture(&three);
}

static void memory_is_predicted(void **state) {
    (void)state;
    fixture f = make_fixture("llama", 2);
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
    assert_true(work > epochs * TRAIN);
    assert_true(mq_refit_work(run, 8) < work); /* it sees a third of the text */
    assert_int_equal(mq_refit_width(&result, run, WIDTH, &store, 0, work, NULL), MQ_OK);
    f.norms_put = 0;
    assert_int_equal(mq_refit_width(&result, run, WIDTH, &store, work, 0, NULL), MQ_OK);
    mq_refit_close(run);
    assert_int_equal(all.count, 2 * (epochs * TRAIN + 1));
    for (size_t i = 0; i < all.count; i++) {
        assert_true(all.total[i] == (double)(2 * work));
        assert_true(i == 0 || all.done[i] > all.done[i - 1]);
        assert_true(all.finished[i] == (i + 1 == all.count / 2 || i + 1 == all.count));
        assert_true((all.done[i] == all.total[i]) == (i + 1 == all.count));
    }
    assert_true(all.done[all.count / 2 - 1] == (double)work);
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
        cmocka_unit_test(gradients_are_those_of_finite_differences),
        cmocka_unit_test(stored_numbers_are_worth_what_is_said),
        cmocka_unit_test(other_settings_keep_the_promise),
        cmocka_unit_test(a_width_never_ends_worse),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(memory_is_predicted),
        cmocka_unit_test(progress_is_of_all_widths),
        cmocka_unit_test(failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
