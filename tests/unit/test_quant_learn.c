/* layer: quant */
/* The loops over the tokens of a block: what the teacher's sums are, when the steps stop early, and
 * what they do not need. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "learner_fixture.h"
#include "quant/recipe.h"

#define WIDTHS 3

/* A learner whose batch is all there is: an epoch is one step, and its loss that of the values
 * before it. */
static void open_case(learner_fixture *f, double early_stop, size_t epochs) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.periods[0] = options.periods[1] = 1;
    options.early_stop = early_stop;
    open_learner(f, "llama", &options, epochs);
}

/* Asks for a stop when so many steps are done. */
typedef struct stopper {
    volatile sig_atomic_t flag;
    size_t steps;
} stopper;

static void count_down(void *user, const mq_progress *progress) {
    (void)progress;
    stopper *s = user;
    s->flag = --s->steps == 0;
}

static void train_for(learner_fixture *f, size_t steps) {
    stopper s = {.steps = steps};
    const mq_context_options options = {
        .threads = 1, .sink = {.user = &s, .progress = count_down}, .interrupted = &s.flag};
    mq_context *context = NULL;
    mq_error err = {0};
    assert_int_equal(mq_context_new(&context, &options, &err), MQ_OK);
    const mq_context *before = f->learner.context;
    f->learner.context = context;
    assert_int_equal(mq_learner_train(&f->learner, 0, 0.0, &err), MQ_ERR_INTERRUPTED);
    f->learner.context = before;
    mq_context_free(context);
}

/* The largest share of its loss that a width is rid of by the first of EPOCHS steps. */
#define EPOCHS 5
static double largest_drop(void) {
    double first[MQ_MAX_WIDTHS], second[MQ_MAX_WIDTHS], largest = -1.0;
    learner_fixture f;
    open_case(&f, 0.0, EPOCHS);
    assert_int_equal(mq_learner_measure(first, &f.learner, 0, NULL), MQ_OK);
    train_for(&f, 1);
    assert_int_equal(mq_learner_measure(second, &f.learner, 0, NULL), MQ_OK);
    close_learner(&f);
    for (size_t k = 0; k < WIDTHS; k++) {
        const double drop = 1.0 - second[k] / first[k];
        largest = drop > largest ? drop : largest;
    }
    return largest;
}

static size_t epochs_with(double early_stop) {
    learner_fixture f;
    open_case(&f, early_stop, EPOCHS);
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    const size_t epochs = f.learner.epochs;
    close_learner(&f);
    return epochs;
}

static void an_epoch_without_gain_is_the_last(void **state) {
    (void)state;
    const double drop = 100.0 * largest_drop();
    assert_true(drop > 0.0);
    assert_int_equal(epochs_with(drop * 1.0001), 2);
    assert_true(epochs_with(drop * 0.9999) > 2); /* one width gained as much: it goes on */
    assert_int_equal(epochs_with(0.0), EPOCHS);
}

/* The batches of int8's only steps of the first two epochs, the last of four each. */
static void find_batches_of_int8(size_t batch[2], const mq_quantize_options *options,
                                 learner_text text) {
    for (size_t i = 0; i < 2; i++) {
        learner_fixture f;
        open_learner_on(&f, "llama", options, EPOCHS, text);
        train_for(&f, 4 * (i + 1));
        batch[i] = f.learner.order[3];
        close_learner(&f);
    }
}

/* int8 comes from a batch whose target is far off to one whose target is not: that its loss falls
 * says nothing about what was learned. To the other widths, which see all batches in either epoch,
 * the far one is most of their loss, and stays it. */
static void batches_of_int8_are_not_compared(void **state) {
    (void)state;
    const learner_text text = {11, 1};
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.periods[0] = 4;
    size_t batch[2];
    find_batches_of_int8(batch, &options, text);
    options.early_stop = 50.0;
    assert_int_not_equal(batch[0], batch[1]);
    learner_fixture f;
    open_learner_on(&f, "llama", &options, EPOCHS, text);
    const size_t count = learner_floats(&f) / 4;
    for (size_t i = batch[0] * count; i < (batch[0] + 1) * count; i++) {
        f.learner.chains.target[i] *= 100.0f;
    }
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    assert_true(f.learner.visited[0]);
    assert_int_equal(f.learner.epochs, 2);
    close_learner(&f);
}

/* What is left is what so many steps of the whole schedule make. */
static void the_values_are_those_of_its_last_step(void **state) {
    (void)state;
    learner_fixture stopped, whole;
    open_case(&stopped, 100.0, EPOCHS);
    open_case(&whole, 0.0, EPOCHS);
    assert_int_equal(mq_learner_train(&stopped.learner, 0, 0.0, NULL), MQ_OK);
    train_for(&whole, 2);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_grid *grid = &whole.learner.grid[i];
        for (size_t k = 0; k < WIDTHS; k++) {
            assert_memory_equal(stopped.learner.values[i][k].f32, whole.learner.values[i][k].f32,
                                grid->out * grid->in * sizeof(float));
        }
    }
    close_learner(&stopped);
    close_learner(&whole);
}

/* What the loop can be asked for. */
static void set_variant(mq_quantize_options *options, size_t variant) {
    *options = mq_quantize_defaults(variant == 0 || variant > 4 ? MQ_RECIPE_BEST : MQ_RECIPE_PAPER);
    options->periods[0] = variant == 0 ? 1 : 0;
    options->let = variant == 2;
    if (variant == 3) {
        options->codistill[0] = (mq_codistill){.teacher = 8, .student = 2, .lambda = 1.0};
        options->codistill_count = 1;
    }
    options->slice_rule = variant == 4 ? MQ_SLICE_ROUND_EXTRA : options->slice_rule;
    options->sampled = variant == 5;
    options->early_stop = variant == 6 ? 1.0 : 0.0;
    if (variant == 7) {
        options->zero_point = MQ_ZERO_SYMMETRIC;
        options->slice_rule = MQ_SLICE_ROUND;
    }
}

#define VARIANTS 8

static void check_allocations(const char *model, size_t variant, mq_gemm_choice gemm) {
    learner_fixture f;
    mq_quantize_options options;
    set_variant(&options, variant);
    options.gemm = gemm;
    open_learner(&f, model, &options, EPOCHS);
    mq_alloc_fail_after(1);
    const mq_status status = mq_learner_train(&f.learner, 0, 0.0, NULL);
    mq_alloc_fail_after(0);
    assert_int_equal(status, MQ_OK);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
    assert_int_equal(mq_alloc_peak(), before);
    close_learner(&f);
}

static void nothing_is_allocated_in_the_loop(void **state) {
    (void)state;
    for (size_t variant = 0; variant < VARIANTS; variant++) {
        check_allocations("llama", variant, MQ_GEMM_OPENBLAS);
        check_allocations("gemma3", variant, MQ_GEMM_OPENBLAS);
    }
}

static void nor_with_bf16_products(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    for (size_t variant = 0; variant < VARIANTS; variant++) {
        check_allocations("llama", variant, MQ_GEMM_ONEDNN_BF16);
        check_allocations("gemma3", variant, MQ_GEMM_ONEDNN_BF16);
    }
}

/* sums[in] += the squares of the linear's inputs when the sequence passes through the block alone,
 * at full precision. */
static void add_squares_of(double *sums, learner_fixture *f, mq_linear linear, size_t in,
                           size_t sequence) {
    mq_block_weights weights;
    mq_block_shape shape;
    learner_block(&weights, &shape, f, 0);
    weights = mq_block_params_view(&f->learner.params);
    shape.sequences = 1;
    const size_t floats = shape.length * f->model->config.hidden_size;
    mq_block_forward(f->learner.output, f->learner.chains.teacher + sequence * floats, &weights,
                     &shape, f->learner.activations, f->context);
    const float *x = mq_activations_input(f->learner.activations, linear);
    for (size_t i = 0; i < shape.length * in; i++) {
        sums[i % in] += (double)x[i] * (double)x[i];
    }
}

static void check_gram(learner_fixture *f, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &f->model->config, linear);
    double *sums = mq_calloc(in, sizeof *sums), mean = 0.0;
    assert_non_null(sums);
    for (size_t s = 0; s < f->learner.chains.sequences; s++) {
        add_squares_of(sums, f, linear, in, s);
    }
    const double tokens = (double)(f->learner.chains.sequences * f->learner.chains.length);
    for (size_t c = 0; c < in; c++) {
        mean += sums[c] / tokens / (double)in;
    }
    for (size_t c = 0; c < in; c++) {
        const double expected = sums[c] / tokens + 1e-6 * mean + 1e-12;
        assert_true(fabs(f->learner.gram_sum[linear][c] - sums[c]) <= 1e-5 * sums[c]);
        assert_true(fabs((double)f->learner.gram[linear][c] - expected) <= 1e-5 * expected);
    }
    mq_free(sums);
}

/* Of columns that make whole pieces and not, over more tokens than one sum in float32 is made of,
 * in two batches of which the last is smaller; taught twice, they are not added up. */
static void gram_diagonals_are_plain_sums(void **state) {
    (void)state;
    const learner_size size = {.samples = 5, .batch = 4, .length = 70, .seed = 11};
    for (size_t m = 0; m < 2; m++) {
        learner_fixture f;
        mq_model *model = NULL;
        if (m == 0) {
            model = open_golden("llama");
        } else {
            assert_int_equal(mq_model_open_plain(&model, MATQUANT_DATA_DIR "/demo-model", NULL),
                             MQ_OK);
        }
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_PAPER);
        open_learner_of(&f, model, &options, &size, 1);
        assert_int_equal(mq_learner_teach(&f.learner, 0, NULL), MQ_OK);
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            check_gram(&f, (mq_linear)i);
        }
        close_learner(&f);
    }
}

/* Pairs of the first linear at 8 and at 4 bits, as they are stored. */
typedef struct stored_pairs {
    uint16_t scale[2][256], bias[2][256];
} stored_pairs;

static stored_pairs finished(learner_fixture *f) {
    stored_pairs pairs = {0};
    const mq_quantized *quantized = &f->learner.quantized[MQ_Q];
    const size_t count = quantized->out * quantized->groups;
    assert_true(count <= sizeof pairs.scale[0] / sizeof pairs.scale[0][0]);
    assert_int_equal(mq_learner_finish(&f->learner, 0, NULL), MQ_OK);
    for (size_t i = 0; i < 2; i++) {
        const unsigned width = i == 0 ? 8 : 4;
        memcpy(pairs.scale[i], quantized->scales[width], count * sizeof(uint16_t));
        memcpy(pairs.bias[i], quantized->biases[width], count * sizeof(uint16_t));
    }
    return pairs;
}

/* A width that no step of the block came to is stored as one whose loss weighs nothing: with the
 * pairs that fit its codes. Of every epoch's one step the fourth is int8's. */
static void widths_without_a_step(void **state) {
    (void)state;
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.periods[0] = 4;
    options.compensate = false;
    for (size_t epochs = 4; epochs >= 3; epochs--) {
        learner_fixture f;
        open_learner(&f, "llama", &options, 4);
        assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
        f.options.epochs = epochs; /* of 3, what the 4 before them came to is forgotten */
        assert_int_equal(mq_learner_train(&f.learner, 0, 0.0, NULL), MQ_OK);
        const stored_pairs learned = finished(&f);
        f.learner.grid_options.lambda[0] = 0.0;
        const stored_pairs fitted = finished(&f);
        const size_t size = sizeof fitted.scale[0];
        assert_true((memcmp(learned.scale[0], fitted.scale[0], size) == 0) == (epochs == 3));
        assert_true((memcmp(learned.bias[0], fitted.bias[0], size) == 0) == (epochs == 3));
        assert_memory_equal(learned.scale[1], fitted.scale[1], size);
        assert_memory_equal(learned.bias[1], fitted.bias[1], size);
        close_learner(&f);
    }
}

/* Marks every width's gradient when the first step is done: a width that the second visits has
 * another number there. */
#define MARK 1e30f

typedef struct marker {
    learner_fixture f;
    size_t steps;
} marker;

static void mark_gradients(void *user, const mq_progress *progress) {
    (void)progress;
    marker *m = user;
    for (size_t k = 0; m->steps == 0 && k < WIDTHS; k++) {
        m->f.learner.gradients[MQ_UP][k][0] = MARK;
    }
    m->steps++;
}

/* int8's step, the second of two or the third, takes no other width's place. */
static void int8_is_visited_beside_the_others(void **state) {
    (void)state;
    for (size_t period = 2; period <= 3; period++) {
        marker m = {.steps = 0};
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.periods[0] = period;
        open_learner(&m.f, "llama", &options, 2);
        const mq_context_options settings = {.threads = 1,
                                             .sink = {.user = &m, .progress = mark_gradients}};
        mq_context *context = NULL;
        assert_int_equal(mq_context_new(&context, &settings, NULL), MQ_OK);
        const mq_context *before = m.f.learner.context;
        m.f.learner.context = context;
        assert_int_equal(mq_learner_train(&m.f.learner, 0, 0.0, NULL), MQ_OK);
        assert_true(m.steps >= 2);
        for (size_t k = 0; k < WIDTHS; k++) {
            const bool unvisited = m.f.learner.gradients[MQ_UP][k][0] == MARK;
            assert_int_equal(unvisited, k == 0 && period == 3);
        }
        m.f.learner.context = before;
        mq_context_free(context);
        close_learner(&m.f);
    }
}

/* Codes of all linears, and their pairs of all widths, when lambda and epsilon have been divided by
 * 2^shift. */
static void learn_scaled(learner_fixture *f, int shift) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    for (size_t k = 0; k < options.width_count; k++) {
        options.lambda[k] = ldexp(options.lambda[k], -shift);
    }
    open_learner_on(f, "llama", &options, EPOCHS, (learner_text){11, 1});
    f->learner.epsilon = ldexp(1e-4, -shift);
    assert_int_equal(mq_learner_train(&f->learner, 0, 0.0, NULL), MQ_OK);
    assert_int_equal(mq_learner_finish(&f->learner, 0, NULL), MQ_OK);
}

/* Whether two learners have come to the same. */
static bool learned_alike(const learner_fixture *a, const learner_fixture *b) {
    bool alike = true;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_quantized *one = &a->learner.quantized[i], *other = &b->learner.quantized[i];
        const size_t pairs = one->out * one->groups;
        alike = alike && memcmp(one->codes, other->codes, one->out * one->in) == 0;
        for (unsigned width = 2; width <= 8; width++) {
            const size_t bytes = pairs * sizeof(uint16_t);
            alike = alike && memcmp(one->scales[width], other->scales[width], bytes) == 0 &&
                    memcmp(one->biases[width], other->biases[width], bytes) == 0;
        }
    }
    return alike;
}

/* Where all gradients are 2^-7 times as large, an epsilon as much smaller makes the same steps, bit
 * for bit; one that is as it was does not. */
static void epsilon_goes_with_the_gradients(void **state) {
    (void)state;
    learner_fixture whole, small, other;
    learn_scaled(&whole, 0);
    learn_scaled(&small, 7);
    assert_true(learned_alike(&whole, &small));
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    open_learner_on(&other, "llama", &options, EPOCHS, (learner_text){11, 1});
    assert_true((float)other.learner.epsilon == (float)mq_adam_blocks_epsilon(32, 12.0));
    other.learner.epsilon = ldexp(1e-4, 7);
    assert_int_equal(mq_learner_train(&other.learner, 0, 0.0, NULL), MQ_OK);
    assert_int_equal(mq_learner_finish(&other.learner, 0, NULL), MQ_OK);
    assert_false(learned_alike(&whole, &other));
    close_learner(&whole);
    close_learner(&small);
    close_learner(&other);
}

static void senseless_percentages_are_refused(void **state) {
    (void)state;
    static const double bad[] = {-1.0, 101.0, NAN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
        options.calib = "none";
        options.early_stop = bad[i];
        mq_error err = {0};
        assert_int_equal(mq_recipe_check(&options, &err), MQ_ERR_USAGE);
        assert_non_null(strstr(err.message, "--early-stop"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_without_gain_is_the_last),
        cmocka_unit_test(batches_of_int8_are_not_compared),
        cmocka_unit_test(the_values_are_those_of_its_last_step),
        cmocka_unit_test(nothing_is_allocated_in_the_loop),
        cmocka_unit_test(nor_with_bf16_products),
        cmocka_unit_test(gram_diagonals_are_plain_sums),
        cmocka_unit_test(widths_without_a_step),
        cmocka_unit_test(int8_is_visited_beside_the_others),
        cmocka_unit_test(epsilon_goes_with_the_gradients),
        cmocka_unit_test(senseless_percentages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
