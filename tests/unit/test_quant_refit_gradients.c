/* layer: quant */
/* The refit's gradients through whole small models, by finite differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "quant/embedding.h"
#include "refit_fixture.h"

/* The loss by *x, from a step to either side of it. */
static double slope(const fixture *f, const mq_student *student, float *x, float step) {
    const float kept = *x;
    *x = kept + step;
    const double above = kl_of(f, student, 0, TRAIN), upper = (double)*x;
    *x = kept - step;
    const double below = kl_of(f, student, 0, TRAIN), lower = (double)*x;
    *x = kept;
    return (above - below) / (upper - lower);
}

/* Kinds of parameters, and the largest gradient of each that was seen. */
typedef enum kind { SCALE, MIDDLE, NORM, FINAL_NORM, KINDS } kind;
static const char *const kind_names[KINDS] = {"scale", "middle", "norm", "final norm"};
#define TOLERANCE 2e-5 /* of a gradient of 0 */

/* The same in units of `unit`, against what Adam's first moment has of it after one step. Of two
 * steps, so that what is left out is of the fourth order (Richardson's extrapolation). */
static void check_slope(const fixture *f, const mq_student *student, float *x, float unit,
                        float moment, double largest[KINDS], kind of) {
    const double far = slope(f, student, x, 0.02f * unit);
    const double near = slope(f, student, x, 0.01f * unit);
    const double expected = (double)unit * (4.0 * near - far) / 3.0;
    const double got = (double)moment / 0.1; /* 1 - beta1 */
    largest[of] = fmax(largest[of], fabs(expected));
    if (!(fabs(got - expected) < TOLERANCE + 0.02 * fabs(expected))) {
        fail_msg("%s: gradient %g, by differences %g", kind_names[of], got, expected);
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
    const mq_layout *layout = mq_config_layout(&model->config);
    const float *rows = strcmp(name, layout->embedding) == 0 ? self->embedding
                        : strcmp(name, layout->head) == 0    ? self->head
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
    const mq_layout *layout = mq_config_layout(&f->model->config);
    quantized_weights made = {.weights = {&quantized_class}, .model = f->model};
    made.embedding = quantize_matrix(&made, f, layout->embedding);
    if (!f->model->config.tie_word_embeddings) {
        made.head = quantize_matrix(&made, f, layout->head);
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
    double largest[KINDS] = {0.0};
    for (size_t layer = 0; layer < f.selection.layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            const mq_student_pairs *p = &student->pairs[layer][i];
            for (size_t g = 0; g < p->out * p->groups; g += 1 + p->out * p->groups / 2) {
                const float half = fabsf(p->scale[g]) * (float)(1u << (WIDTH - 1));
                check_slope(&f, student, &p->scale[g], p->scale[g], p->m[2 * g], largest, SCALE);
                check_slope(&f, student, &p->middle[g], half, p->m[2 * g + 1], largest, MIDDLE);
            }
        }
        for (int i = 0; i < MQ_NORM_COUNT; i++) {
            const mq_student_norm *norm = &student->norms[layer][i];
            for (size_t k = 0; k < norm->size; k += 1 + norm->size / 2) {
                check_slope(&f, student, &norm->value[k], norm->unit, norm->m[k], largest, NORM);
            }
        }
    }
    const mq_student_norm *final = &student->final_norm;
    for (size_t k = 0; k < final->size; k += 1 + final->size / 8) {
        check_slope(&f, student, &final->value[k], final->unit, final->m[k], largest, FINAL_NORM);
    }
    for (int i = 0; i < KINDS; i++) { /* of what the tolerance is a small part */
        if (!(largest[i] > 100.0 * TOLERANCE)) {
            fail_msg("%s: by a %s no gradient is above %g", name, kind_names[i], largest[i]);
        }
    }
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
    check_gradients("qwen2", false);
    check_gradients("qwen3", false);
    check_gradients("mistral", false);
    check_gradients("smollm3", false);
    check_gradients("gemma3", false);
    check_gradients("gemma2", false);
    check_gradients("granite", false);
    check_gradients("olmo2", false);
    check_gradients("phi4-mini", false);
    check_gradients("llama", true);  /* a head of its own */
    check_gradients("gemma3", true); /* tied: the student's head is not the teacher's */
    check_gradients("llama-tied-bf16", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
