/* layer: quant */
/* Embeddings in every recipe: the clip that is searched beside the range of the weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memory_model.h"
#include "quant/embedding.h"
#include "quant/nested.h"
#include "quant/recipe.h"

enum { ROWS = 520, IN = 512, MOST_GROUPS = 8 }; /* more rows than are quantized at once */

/* What a row's weights are like. */
enum { GAUSSIAN, EVEN, OUTLIERS, ONE_SIDED, CONSTANT, KINDS };

static double gaussian(mq_random *random) {
    double sum = -6.0;
    for (int i = 0; i < 12; i++) {
        sum += mq_random_unit(random);
    }
    return sum;
}

static void fill_row(float *row, int kind, mq_random *random) {
    for (size_t i = 0; i < IN; i++) {
        const double plain = gaussian(random);
        const double values[KINDS] = {plain, 2.0 * mq_random_unit(random) - 1.0,
                                      i == 7     ? 8.0
                                      : i == 300 ? -8.0
                                                 : plain,
                                      fabs(plain), 0.75};
        row[i] = (float)(0.05 * values[kind]);
    }
}

static mq_model *make_embeddings(void) {
    mq_model *model = make_model(ROWS, IN, 0.0, 1);
    mq_random random;
    mq_random_seed(&random, 7, 0);
    for (size_t row = 0; row < ROWS; row++) {
        fill_row(((memory_weights *)(void *)model->weights)->head + row * IN, (int)(row % KINDS),
                 &random);
    }
    return model;
}

/* --- errors ----------------------------------------------------------------------------------- */

/* Σ over the searched widths of lambda times the squared error of each group. */
typedef struct errors {
    const mq_grid_options *options;
    const float *weight; /* [ROWS, IN] */
    size_t groups;
    double fitted[ROWS * MOST_GROUPS]; /* [ROWS, groups]: with the best pair for the codes */
    double stored[KINDS];              /* as stored, of all rows of a kind */
    /* The same sums of what a scale and a bias of 8 significant bits may cost: each moves a weight
     * by up to 2^-9 of the group's largest. */
    double group_rounding[ROWS * MOST_GROUPS], kind_rounding[KINDS];
    size_t rows;
} errors;

/* What the best scale and bias for the slices of a group leave. */
static double fitted_error(const uint8_t *codes, const float *w, size_t count, unsigned width,
                           const mq_grid_options *options) {
    const bool symmetric = options->zero_point == MQ_ZERO_SYMMETRIC;
    const double zero = symmetric ? (double)(1u << (width - 1)) : 0.0;
    double s = 0, ss = 0, sw = 0, sum_w = 0, ww = 0;
    for (size_t i = 0; i < count; i++) {
        const double slice = (double)mq_slice_code(codes[i], width, options->slice_rule) - zero;
        s += slice;
        ss += slice * slice;
        sw += slice * (double)w[i];
        sum_w += (double)w[i];
        ww += (double)w[i] * (double)w[i];
    }
    if (!symmetric) {
        ss -= s * s / (double)count;
        sw -= s * sum_w / (double)count;
        ww -= sum_w * sum_w / (double)count;
    }
    return ss > 1e-9 ? ww - sw * sw / ss : ww;
}

static double largest_of(const float *w, size_t count) {
    float largest = 0.0f;
    for (size_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(w[i]));
    }
    return (double)largest;
}

static mq_status add_errors(void *user, const mq_quantized *quantized, size_t first,
                            mq_error *err) {
    (void)err;
    errors *self = user;
    const mq_grid_options *options = self->options;
    const size_t count = IN / self->groups, weights = quantized->out * IN;
    float *values = mq_alloc(weights, sizeof *values);
    assert_non_null(values);
    assert_int_equal(first, self->rows);
    self->rows += quantized->out;
    for (size_t k = 0; k < options->width_count; k++) {
        const unsigned width = options->widths[k];
        mq_quantized_values(&(mq_values){.f32 = values}, quantized, width, options->slice_rule);
        double least = 0.0;
        for (size_t i = 0; i < weights; i++) {
            const double e = (double)values[i] - (double)self->weight[first * IN + i];
            if (i % count == 0) { /* a group begins */
                least = largest_of(self->weight + first * IN + i, count) / 256.0;
            }
            const size_t kind = (first + i / IN) % KINDS;
            self->stored[kind] += options->lambda[k] * e * e;
            self->kind_rounding[kind] += options->lambda[k] * least * least;
            self->group_rounding[first * self->groups + i / count] +=
                options->lambda[k] * least * least;
        }
        for (size_t g = 0; g < quantized->out * self->groups; g++) {
            self->fitted[first * self->groups + g] +=
                options->lambda[k] * fitted_error(quantized->codes + g * count,
                                                  self->weight + first * IN + g * count, count,
                                                  width, options);
        }
    }
    mq_free(values);
    return MQ_OK;
}

/* The same rows on the same grid with the range of the weights for the clip. */
static void add_range_errors(errors *self, const mq_grid_class *class_) {
    mq_grid_options options = *self->options;
    options.start = MQ_START_RANGE;
    options.width_count = 0; /* every width gets its least-squares pair */
    mq_grid grid;
    mq_slab slab = {0};
    mq_quantized quantized;
    mq_finish_scratch scratch;
    float ones[IN];
    for (size_t i = 0; i < IN; i++) {
        ones[i] = 1.0f;
    }
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            assert_int_equal(mq_slab_allocate(&slab, "a grid", NULL), MQ_OK);
        }
        mq_grid_carve(&grid, class_, &options, ROWS, IN, self->groups, &slab);
        mq_quantized_carve(&quantized, ROWS, IN, self->groups, &slab);
        mq_finish_scratch_carve(&scratch, &options, ROWS, self->groups, &slab);
    }
    class_->start(&grid, self->weight, ones);
    assert_true(mq_grid_finish(&quantized, &grid, ones, options.slice_rule, &scratch));
    add_errors(self, &quantized, 0, NULL);
    mq_slab_free(&slab);
}

/* --- the recipes ------------------------------------------------------------------------------ */

static mq_quantize_options options_of(mq_recipe recipe, mq_slice_rule rule, mq_zero_point zero,
                                      mq_embeddings embeddings) {
    mq_quantize_options options = mq_quantize_defaults(recipe);
    options.slice_rule = rule;
    options.zero_point = zero;
    options.embeddings = embeddings;
    return options;
}

typedef struct both {
    errors searched, whole;
} both;

static void quantize_both(both *b, const mq_model *model, const mq_quantize_options *options,
                          const mq_grid_options *grid, size_t groups) {
    const float *weight = of(model->weights)->head;
    *b = (both){{.options = grid, .weight = weight, .groups = groups},
                {.options = grid, .weight = weight, .groups = groups}};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 2}, NULL), MQ_OK);
    assert_int_equal(mq_embedding_quantize(options, model, "lm_head.weight", groups, add_errors,
                                           &b->searched, context, NULL),
                     MQ_OK);
    mq_context_free(context);
    assert_int_equal(b->searched.rows, ROWS);
    add_range_errors(&b->whole, mq_recipe_embedding_class(options));
}

/* In no group is the error larger than with the range of the weights, but for what the search's
 * float32 cannot tell, and in no kind of row that of the stored numbers; but for what their 8
 * significant bits cost. */
static void check_search(const mq_model *model, const mq_quantize_options *options, size_t groups) {
    const mq_grid_options grid = mq_recipe_embedding_grid(options);
    both b;
    quantize_both(&b, model, options, &grid, groups);
    for (size_t g = 0; g < ROWS * groups; g++) {
        if (!(b.searched.fitted[g] <=
              b.whole.fitted[g] * 1.0001 + 1e-9 + b.searched.group_rounding[g])) {
            fail_msg("recipe %d, rule %d, group %zu: error %g, with the whole range %g",
                     options->recipe, options->slice_rule, g, b.searched.fitted[g],
                     b.whole.fitted[g]);
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (!(b.searched.stored[kind] <=
              b.whole.stored[kind] * 1.0001 + b.searched.kind_rounding[kind])) {
            fail_msg("recipe %d, rule %d, rows of kind %d: error %g, with the whole range %g",
                     options->recipe, options->slice_rule, kind, b.searched.stored[kind],
                     b.whole.stored[kind]);
        }
    }
}

static void the_search_never_costs(void **state) {
    (void)state;
    mq_model *model = make_embeddings();
    const mq_quantize_options settings[] = {
        options_of(MQ_RECIPE_RTN, MQ_SLICE_TOP, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_RTN, MQ_SLICE_ROUND, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_RTN, MQ_SLICE_ROUND, MQ_ZERO_SYMMETRIC, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_PAPER, MQ_SLICE_ROUND, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_PAPER, MQ_SLICE_ROUND_EXTRA, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_PAPER, MQ_SLICE_ROUND, MQ_ZERO_SYMMETRIC, MQ_EMBEDDINGS_NESTED),
        options_of(MQ_RECIPE_BEST, MQ_SLICE_TOP, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_NESTED),
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        check_search(model, &settings[i], MOST_GROUPS);
        check_search(model, &settings[i], 1);
    }
    mq_model_free(model);
}

/* An outlier at either end of a row, and 4 bits that count alone: clipping it leaves the others
 * finer steps. */
static void outliers_are_clipped(void **state) {
    (void)state;
    mq_model *model = make_embeddings();
    static const struct {
        mq_recipe recipe;
        mq_slice_rule rule;
        mq_zero_point zero;
    } settings[] = {{MQ_RECIPE_RTN, MQ_SLICE_TOP, MQ_ZERO_FLOAT},
                    {MQ_RECIPE_RTN, MQ_SLICE_ROUND, MQ_ZERO_FLOAT},
                    {MQ_RECIPE_PAPER, MQ_SLICE_ROUND, MQ_ZERO_FLOAT},
                    {MQ_RECIPE_PAPER, MQ_SLICE_ROUND_EXTRA, MQ_ZERO_FLOAT},
                    {MQ_RECIPE_PAPER, MQ_SLICE_ROUND, MQ_ZERO_SYMMETRIC},
                    {MQ_RECIPE_BEST, MQ_SLICE_TOP, MQ_ZERO_FLOAT}};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        mq_quantize_options options = options_of(settings[i].recipe, settings[i].rule,
                                                 settings[i].zero, MQ_EMBEDDINGS_NESTED);
        options.lambda[0] = options.lambda[1] = 0.0;
        const mq_grid_options grid = mq_recipe_embedding_grid(&options);
        both b;
        quantize_both(&b, model, &options, &grid, 1);
        const double ratio = b.searched.stored[OUTLIERS] / b.whole.stored[OUTLIERS];
        if (!(ratio < 0.9)) {
            fail_msg("recipe %d, rule %d: %g times the error with the whole range", options.recipe,
                     options.slice_rule, ratio);
        }
    }
    mq_model_free(model);
}

/* Pairs are numbers that bfloat16 has, too, and codes of 8 bits the nearest to the weights under
 * them: within half a step wherever neither the clip binds nor the edge of a bucket of 4 bits. */
typedef struct checked_rows {
    const float *weight; /* [ROWS, IN] */
    mq_slice_rule rule;
    size_t inside;
} checked_rows;

static mq_status check_pairs(void *user, const mq_quantized *quantized, size_t first,
                             mq_error *err) {
    (void)err;
    checked_rows *checked = user;
    const float *weight = checked->weight + first * IN;
    const size_t count = quantized->in / quantized->groups;
    for (size_t g = 0; g < quantized->out * quantized->groups; g++) {
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            const float scale = mq_f16_to_f32(quantized->scales[width][g]);
            const float bias = mq_f16_to_f32(quantized->biases[width][g]);
            assert_true(mq_bf16_to_f32(mq_f32_to_bf16(scale)) == scale);
            assert_true(mq_bf16_to_f32(mq_f32_to_bf16(bias)) == bias);
        }
        const float scale = mq_f16_to_f32(quantized->scales[MQ_MAX_WIDTH][g]);
        const float bias = mq_f16_to_f32(quantized->biases[MQ_MAX_WIDTH][g]);
        for (size_t i = g * count; i < (g + 1) * count; i++) {
            const uint8_t code = quantized->codes[i];
            const uint8_t less = code > 0 ? (uint8_t)(code - 1) : 0;
            const uint8_t more = code < 255 ? (uint8_t)(code + 1) : 255;
            const bool inside =
                code > 1 && code < 255 &&
                mq_slice_code(less, 4, checked->rule) == mq_slice_code(more, 4, checked->rule);
            const float off = weight[i] - (scale * (float)code + bias);
            assert_true(scale == 0.0f || !inside || fabsf(off) <= 0.5001f * fabsf(scale));
            checked->inside += inside;
        }
    }
    return MQ_OK;
}

static void pairs_are_of_bfloat16_and_codes_follow(void **state) {
    (void)state;
    mq_model *model = make_embeddings();
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 2}, NULL), MQ_OK);
    for (int zero = MQ_ZERO_FLOAT; zero <= MQ_ZERO_SYMMETRIC; zero++) {
        const mq_quantize_options options =
            options_of(MQ_RECIPE_RTN, zero == MQ_ZERO_FLOAT ? MQ_SLICE_TOP : MQ_SLICE_ROUND,
                       (mq_zero_point)zero, MQ_EMBEDDINGS_NESTED);
        checked_rows checked = {of(model->weights)->head, options.slice_rule, 0};
        assert_int_equal(mq_embedding_quantize(&options, model, "lm_head.weight", 4, check_pairs,
                                               &checked, context, NULL),
                         MQ_OK);
        assert_true(checked.inside > ROWS * IN / 2);
    }
    mq_context_free(context);
    mq_model_free(model);
}

/* Widths below the least that embeddings have count for that one. */
static void narrow_widths_count_for_the_least(void **state) {
    (void)state;
    mq_quantize_options options =
        options_of(MQ_RECIPE_PAPER, MQ_SLICE_ROUND, MQ_ZERO_FLOAT, MQ_EMBEDDINGS_8);
    mq_grid_options grid = mq_recipe_embedding_grid(&options);
    assert_int_equal(grid.start, MQ_START_SEARCH);
    assert_int_equal(grid.width_count, 1);
    assert_int_equal(grid.widths[0], MQ_MAX_WIDTH);
    assert_true(grid.lambda[0] == options.lambda[0] + options.lambda[1] + options.lambda[2]);
    options.embeddings = MQ_EMBEDDINGS_NESTED; /* 4 bits or more */
    grid = mq_recipe_embedding_grid(&options);
    assert_int_equal(grid.width_count, 2);
    assert_int_equal(grid.widths[1], 4);
    assert_true(grid.lambda[1] == options.lambda[1] + options.lambda[2]);
}

static void search_alike(const mq_search *search, const float *row, const float *h, size_t count) {
    mq_search_fit expected, found;
    memset(&expected, 0, sizeof expected);
    mq_nested_kernels_base.search(&expected, search, row, h, count);
    for (size_t k = 0; mq_nested_kernels_at(k) != NULL; k++) {
        memset(&found, 0, sizeof found);
        mq_nested_kernels_at(k)->search(&found, search, row, h, count);
        assert_true(expected.candidate == found.candidate && expected.error == found.error);
        assert_memory_equal(expected.scale, found.scale, 3 * sizeof(float));
        assert_memory_equal(expected.middle, found.middle, 3 * sizeof(float));
    }
}

/* Every instruction set finds what the reference does, in groups whole and broken. */
static void kernels_agree(void **state) {
    (void)state;
    mq_search search = {
        .level_count = 3, .level = {2, 4, 8}, .lambda = {1, 3, 10}, .shrink_count = MQ_SHRINKS};
    for (size_t k = 0; k < MQ_SHRINKS; k++) {
        search.shrink[k] = mq_search_shrink(k);
    }
    mq_random random;
    mq_random_seed(&random, 11, 0);
    float ones[IN], row[IN];
    for (size_t i = 0; i < IN; i++) {
        ones[i] = 1.0f;
    }
    const size_t counts[] = {IN, 200, 64, 7};
    for (int codes = MQ_SEARCH_TOP; codes <= MQ_SEARCH_SYMMETRIC; codes++) {
        search.codes = (mq_search_codes)codes;
        for (size_t i = 0; i < 4 * KINDS; i++) {
            fill_row(row, (int)(i % KINDS), &random);
            search_alike(&search, row, ones, counts[i / KINDS]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_search_never_costs),
        cmocka_unit_test(outliers_are_clipped),
        cmocka_unit_test(pairs_are_of_bfloat16_and_codes_follow),
        cmocka_unit_test(narrow_widths_count_for_the_least),
        cmocka_unit_test(kernels_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
