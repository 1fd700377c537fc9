/* The recipes' defaults (docs/method.md, 6). */
#include "quant/recipe.h"

#include "tensor/gemm_bf16.h"

#include <math.h>
#include <string.h>

/* What the presets give to 2, 4 and 8 bits; between them straight lines. Balanced is the
 * default. What the others cost and bring on six blocks of SmolLM2 is in
 * tests/bench/RESULTS.md ("Symmetric zero points, error compensation, presets");
 * scripts/bench-tradeoff.sh measures the curve that they are points of. */
static const struct {
    const char *name;
    double w2, w4, w8;
} presets[] = {
    [MQ_PRESET_NONE] = {"none", 1.0, 3.0, 10.0},
    [MQ_PRESET_BALANCED] = {"balanced", 1.0, 3.0, 10.0},
    [MQ_PRESET_NARROW] = {"narrow", 1.0, 2.0, 3.0},
    [MQ_PRESET_WIDE] = {"wide", 1.0, 6.0, 40.0},
};

const char *mq_preset_name(mq_preset preset) { return presets[preset].name; }

/* MatQuant, section 4.1: 0.1, 0.1, 1. */
double mq_quantize_default_lambda(mq_recipe recipe, mq_preset preset, unsigned width) {
    if (recipe == MQ_RECIPE_PAPER) {
        return width > 2 ? 0.1 : 1.0;
    }
    const double w2 = presets[preset].w2, w4 = presets[preset].w4, w8 = presets[preset].w8;
    return width <= 4 ? w2 + (w4 - w2) * ((double)width - 2.0) / 2.0
                      : w4 + (w8 - w4) * ((double)width - 4.0) / 4.0;
}

/* With a row a group balanced weights leave int8 further behind full precision than the recipe is
 * to have it; wide ones do not, and take little from int4 (tests/bench/RESULTS.md, "The
 * trade-off"). */
mq_preset mq_quantize_default_preset(size_t group_size) {
    return group_size == 0 ? MQ_PRESET_WIDE : MQ_PRESET_BALANCED;
}

mq_quantize_options mq_quantize_defaults(mq_recipe recipe) {
    mq_quantize_options options = {
        .recipe = recipe,
        .width_count = 3,
        .widths = {8, 4, 2},
        .loss = MQ_LOSS_RELATIVE,
        .slice_rule = MQ_SLICE_TOP,
        .group_size = 128,
        .scope = MQ_SCOPE_ALL,
        .embeddings_min_bits = 4,
        .samples = 64,
        .seq_len = 512,
        .epochs = 4,
        .batch = recipe == MQ_RECIPE_BEST ? 2 : 4, /* quant/nested.c says why */
        .rate = 1.0,
        .refit_batch = 1,
        /* A step of int8 costs as much as one of int2 and moves little: its loss is small from the
         * start, and what it asks of the narrower widths' rounding changes slowly. The trial is in
         * tests/bench/RESULTS.md. */
        .int8_period = 8,
        .compensate = recipe == MQ_RECIPE_BEST,
        .fold = recipe == MQ_RECIPE_BEST,
        /* MatQuant and rounding know no refit; paper can be asked for one. */
        .refit = recipe == MQ_RECIPE_BEST,
        .extend = recipe == MQ_RECIPE_BEST,
        .bos = true,
    };
    for (size_t i = 0; i < options.width_count; i++) {
        options.lambda[i] = mq_quantize_default_lambda(recipe, MQ_PRESET_NONE, options.widths[i]);
    }
    if (recipe == MQ_RECIPE_PAPER) {
        options.int8_period = 1;
        options.loss = MQ_LOSS_L2;
        options.slice_rule = MQ_SLICE_ROUND;
    }
    return options;
}

/* What little time is best spent on, tried on SmolLM2 with groups of 64 (tests/bench/RESULTS.md,
 * "Beside other quantizers"): a second of the refit does more for the narrowest width than one of
 * the blocks, and the others' private numbers are good without it. With int8 in both steps of a
 * block all widths came out a little worse, int8 too. Folding costs int4 and int2 where learning is
 * this short; error compensation costs seconds and is worth them to int8. Weights of preset wide
 * take much off int8's KL and some off int4's, and add little to int2's: here int2's gain comes
 * from the refit, whatever the blocks' weights are. */
void mq_quantize_hurry(mq_quantize_options *options) {
    options->preset = MQ_PRESET_WIDE;
    for (size_t i = 0; i < options->width_count; i++) {
        options->lambda[i] =
            mq_quantize_default_lambda(options->recipe, options->preset, options->widths[i]);
    }
    options->samples = 4;
    options->epochs = 1;
    options->fold = false;
    options->extend = false;
    options->refit_tokens = 40 * options->seq_len;
    options->refit_epochs = 1;
    options->refit_width_count = 1;
    options->refit_widths[0] = options->widths[options->width_count - 1];
}

#define LARGEST_SEED (1ULL << 53)

static mq_status check_widths(const mq_quantize_options *options, mq_error *err) {
    if (options->width_count < 1 || options->width_count > MQ_MAX_WIDTHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--bits wants one to %d widths", MQ_MAX_WIDTHS);
    }
    double sum = 0.0;
    for (size_t i = 0; i < options->width_count; i++) {
        if (options->widths[i] < MQ_MIN_WIDTH || options->widths[i] > MQ_MAX_WIDTH) {
            return mq_fail(err, MQ_ERR_USAGE, "--bits %u: widths are %d to %d", options->widths[i],
                           MQ_MIN_WIDTH, MQ_MAX_WIDTH);
        }
        if (i > 0 && options->widths[i] >= options->widths[i - 1]) {
            return mq_fail(err, MQ_ERR_USAGE, "--bits wants widths in falling order, each once");
        }
        if (!(options->lambda[i] >= 0.0) || !isfinite(options->lambda[i])) {
            return mq_fail(err, MQ_ERR_USAGE, "--lambda wants numbers that are not negative");
        }
        sum += options->lambda[i];
    }
    for (size_t i = 0; i < options->codistill_count && i < MQ_MAX_CODISTILL; i++) {
        sum += options->codistill[i].lambda;
    }
    if (!(sum > 0.0)) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--lambda: all weights are 0, so nothing would be learned");
    }
    return MQ_OK;
}

static bool is_trained(const mq_quantize_options *options, unsigned width) {
    bool found = false;
    for (size_t i = 0; i < options->width_count; i++) {
        found = found || options->widths[i] == width;
    }
    return found;
}

bool mq_recipe_compensates(const mq_quantize_options *options) {
    return options->compensate && is_trained(options, MQ_MAX_WIDTH);
}

static mq_status check_codistill(const mq_quantize_options *options, mq_error *err) {
    if (options->codistill_count > MQ_MAX_CODISTILL) {
        return mq_fail(err, MQ_ERR_USAGE, "--bits wants at most %d pairs of widths",
                       MQ_MAX_CODISTILL);
    }
    for (size_t i = 0; i < options->codistill_count; i++) {
        const mq_codistill *term = &options->codistill[i];
        if (options->recipe == MQ_RECIPE_RTN) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "recipe rtn learns nothing: it has no use for %u>%u in --bits",
                           term->teacher, term->student);
        }
        if (term->teacher <= term->student) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "--bits %u>%u: the width that is learned from must be the wider",
                           term->teacher, term->student);
        }
        if (!is_trained(options, term->teacher) || !is_trained(options, term->student)) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "--bits %u>%u: the width that is learned from, %u, must be trained too",
                           term->teacher, term->student, term->teacher);
        }
        if (!(term->lambda > 0.0) || !isfinite(term->lambda)) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "--lambda: the weight of %u>%u must be positive; leave the pair out "
                           "instead",
                           term->teacher, term->student);
        }
        for (size_t j = 0; j < i; j++) {
            if (options->codistill[j].teacher == term->teacher &&
                options->codistill[j].student == term->student) {
                return mq_fail(err, MQ_ERR_USAGE, "--bits wants %u>%u once only", term->teacher,
                               term->student);
            }
        }
    }
    return MQ_OK;
}

bool mq_recipe_is_teacher(const mq_quantize_options *options, unsigned width) {
    bool found = false;
    for (size_t i = 0; i < options->codistill_count; i++) {
        found = found || options->codistill[i].teacher == width;
    }
    return found;
}

/* More passes than anybody wants, and few enough that steps can be counted. */
#define MOST_EPOCHS 1000000

static mq_status check_refit(const mq_quantize_options *options, mq_error *err) {
    if (!options->refit && (options->refit_epochs > 0 || options->refit_tokens > 0 ||
                            options->refit_width_count > 0)) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--refit-bits, --refit-tokens and --refit-epochs want the refit, which is "
                       "off: recipe best has it, recipe paper with --refit");
    }
    if (options->refit_batch < 1) {
        return mq_fail(err, MQ_ERR_USAGE, "--refit-batch must be at least 1");
    }
    if (options->refit_epochs > MOST_EPOCHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--refit-epochs is at most %d", MOST_EPOCHS);
    }
    if (options->refit_width_count > MQ_MAX_WIDTHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--refit-bits wants at most %d widths", MQ_MAX_WIDTHS);
    }
    for (size_t i = 0; i < options->refit_width_count; i++) {
        const unsigned width = options->refit_widths[i];
        if (width < MQ_MIN_WIDTH || width > MQ_MAX_WIDTH) {
            return mq_fail(err, MQ_ERR_USAGE, "--refit-bits %u: widths are %d to %d", width,
                           MQ_MIN_WIDTH, MQ_MAX_WIDTH);
        }
        if (i > 0 && width >= options->refit_widths[i - 1]) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "--refit-bits wants widths in falling order, each once");
        }
    }
    if (options->refit_tokens > 0 && options->refit_tokens < options->seq_len) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--refit-tokens %zu is less than one sequence of --seq-len %zu",
                       options->refit_tokens, options->seq_len);
    }
    return MQ_OK;
}

static mq_status check_qat(const mq_quantize_options *options, mq_error *err) {
    if (!options->qat) {
        return options->qat_tokens > 0 || options->qat_epochs > 0 || options->qat_rate > 0.0
                   ? mq_fail(err, MQ_ERR_USAGE,
                             "--qat-tokens, --qat-epochs and --qat-rate want --qat")
                   : MQ_OK;
    }
    if (options->recipe == MQ_RECIPE_RTN) {
        return mq_fail(err, MQ_ERR_USAGE, "recipe rtn learns nothing: it has no use for --qat");
    }
    if (options->let) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--qat trains with the source's norms, which --let divides: choose one");
    }
    if (options->codistill_count > 0) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--qat learns from full precision alone: no pairs in --bits");
    }
    bool narrow = false;
    for (size_t i = 0; i < options->width_count; i++) {
        narrow = narrow || (options->widths[i] < MQ_MAX_WIDTH && options->lambda[i] > 0.0);
    }
    if (!narrow) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--qat wants a width below 8 in --bits: 8-bit codes have nothing to gain");
    }
    if (!(options->qat_rate >= 0.0) || !isfinite(options->qat_rate)) {
        return mq_fail(err, MQ_ERR_USAGE, "--qat-rate must be positive");
    }
    if (options->qat_epochs > MOST_EPOCHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--qat-epochs is at most %d", MOST_EPOCHS);
    }
    if (options->qat_tokens > 0 && options->qat_tokens < options->seq_len) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--qat-tokens %zu is less than one sequence of --seq-len %zu",
                       options->qat_tokens, options->seq_len);
    }
    return MQ_OK;
}

size_t mq_recipe_refit_widths(unsigned widths[MQ_MAX_WIDTHS], const mq_quantize_options *options) {
    if (options->recipe == MQ_RECIPE_RTN || !options->refit) {
        return 0;
    }
    if (options->refit_width_count > 0) {
        memcpy(widths, options->refit_widths, options->refit_width_count * sizeof widths[0]);
        return options->refit_width_count;
    }
    size_t count = 0;
    for (size_t i = 0; i < options->width_count; i++) {
        if (i > 0) {
            /* They gain more than the wider ones: SmolLM2's int3 0.43 to 0.29 nats
             * (tests/bench/RESULTS.md, "The refit"). */
            for (unsigned width = options->widths[i - 1] - 1; width > options->widths[i]; width--) {
                if (width <= MQ_REFIT_BETWEEN) {
                    widths[count++] = width;
                }
            }
        }
        widths[count++] = options->widths[i];
    }
    return count;
}

mq_status mq_recipe_check(const mq_quantize_options *options, mq_error *err) {
    mq_status status = check_widths(options, err);
    if (status == MQ_OK) {
        status = check_codistill(options, err);
    }
    if (status == MQ_OK) {
        status = check_qat(options, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    if (options->preset != MQ_PRESET_NONE && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--preset is recipe best's: recipe paper has the paper's weights, and rtn "
                       "learns nothing");
    }
    if (options->zero_point == MQ_ZERO_SYMMETRIC) {
        if (options->slice_rule != MQ_SLICE_ROUND) {
            return mq_fail(
                err, MQ_ERR_USAGE,
                "--zero-point symmetric wants --slice-rule round: top bits have no level "
                "at zero");
        }
    } else if (options->recipe == MQ_RECIPE_BEST && options->slice_rule != MQ_SLICE_TOP) {
        return mq_fail(
            err, MQ_ERR_USAGE,
            "recipe best decides each width's bits on its own and slices by --slice-rule top; "
            "rounding slices are recipe paper's, or want --zero-point symmetric");
    }
    if (options->recipe == MQ_RECIPE_PAPER && options->slice_rule == MQ_SLICE_TOP) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "recipe paper slices by --slice-rule round or round-extra; top bits are "
                       "recipe best's");
    }
    if (options->let && options->recipe != MQ_RECIPE_PAPER) {
        return mq_fail(err, MQ_ERR_USAGE, "--let is recipe paper's");
    }
    if (options->let && options->zero_point == MQ_ZERO_SYMMETRIC) {
        return mq_fail(err, MQ_ERR_USAGE, "--let wants --zero-point float");
    }
    if (options->let && options->refit) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--let and --refit both make norms of each width's own: choose one");
    }
    if (options->embeddings == MQ_EMBEDDINGS_NESTED &&
        (options->embeddings_min_bits < MQ_MIN_WIDTH ||
         options->embeddings_min_bits > MQ_MAX_WIDTH)) {
        return mq_fail(err, MQ_ERR_USAGE, "--embeddings-min-bits %u: widths are %d to %d",
                       options->embeddings_min_bits, MQ_MIN_WIDTH, MQ_MAX_WIDTH);
    }
    if (!(options->rate > 0.0) || !isfinite(options->rate)) {
        return mq_fail(err, MQ_ERR_USAGE, "--rate wants a positive number");
    }
    if (!(options->early_stop >= 0.0 && options->early_stop <= 100.0)) {
        return mq_fail(err, MQ_ERR_USAGE, "--early-stop wants a percentage, 0 to 100");
    }
    if (options->early_stop > 0.0 && options->sampled) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--early-stop compares a width's epochs, which --sampled leaves to chance: "
                       "choose one");
    }
    if (options->compensate && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE, "--compensate is for recipe best");
    }
    if (options->fold && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE, "--fold is for recipe best");
    }
    if (options->seed > LARGEST_SEED) {
        return mq_fail(err, MQ_ERR_USAGE, "--seed is at most %llu, the largest that JSON can say",
                       LARGEST_SEED);
    }
    if (options->recipe == MQ_RECIPE_RTN &&
        (options->early_stop > 0.0 || options->rate != 1.0 || options->sampled)) {
        return mq_fail(err, MQ_ERR_USAGE, "recipe rtn learns nothing: it has no use for %s",
                       options->early_stop > 0.0 ? "--early-stop"
                       : options->sampled        ? "--sampled"
                                                 : "--rate");
    }
    if (options->recipe == MQ_RECIPE_RTN && options->refit) {
        return mq_fail(err, MQ_ERR_USAGE, "recipe rtn learns nothing: it has no use for --refit");
    }
    if (options->recipe == MQ_RECIPE_RTN) {
        return options->calib == NULL && options->gemm == MQ_GEMM_AUTO && options->state == NULL
                   ? check_refit(options, err)
                   : mq_fail(err, MQ_ERR_USAGE, "recipe rtn learns nothing: it has no use for %s",
                             options->calib != NULL   ? "--calib"
                             : options->state != NULL ? "--state"
                                                      : "--gemm");
    }
    if (options->gemm == MQ_GEMM_ONEDNN_BF16 && !mq_gemm_bf16_built()) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--gemm onednn-bf16: this matquant was built without oneDNN");
    }
    if (options->calib == NULL) {
        return mq_fail(
            err, MQ_ERR_USAGE,
            "recipes best and paper learn from text: give --calib FILE, or --calib self to let the "
            "model write its own");
    }
    if (options->samples < 1 || options->epochs < 1 || options->batch < 1 ||
        options->int8_period < 1 || options->seq_len < 2) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--samples, --epochs, --batch and --int8-period must be at least 1, "
                       "--seq-len at least 2");
    }
    if (options->epochs > MOST_EPOCHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--epochs is at most %d", MOST_EPOCHS);
    }
    return check_refit(options, err);
}

/* Of the width number i with all its terms. */
static double lambda_of(const mq_quantize_options *options, size_t i) {
    double lambda = options->lambda[i];
    for (size_t j = 0; j < options->codistill_count; j++) {
        if (options->codistill[j].student == options->widths[i]) {
            lambda += options->codistill[j].lambda;
        }
    }
    return lambda;
}

mq_grid_options mq_recipe_grid(const mq_quantize_options *options) {
    mq_grid_options grid = {
        .width_count = options->width_count,
        .slice_rule = options->slice_rule,
        .zero_point = options->zero_point,
        .start = options->recipe == MQ_RECIPE_RTN ? MQ_START_RANGE : MQ_START_LEARNING,
    };
    for (size_t i = 0; i < options->width_count; i++) {
        grid.widths[i] = options->widths[i];
        grid.lambda[i] = lambda_of(options, i);
    }
    if (options->recipe == MQ_RECIPE_RTN) {
        grid.width_count = 0; /* nothing is learned: every width gets its least-squares pair */
    }
    return grid;
}

const mq_grid_class *mq_recipe_grid_class(const mq_quantize_options *options) {
    const bool nests =
        options->slice_rule == MQ_SLICE_TOP ||
        (options->zero_point == MQ_ZERO_SYMMETRIC && options->recipe != MQ_RECIPE_PAPER);
    return nests ? &mq_nested_grid : &mq_clip_grid;
}

const mq_grid_class *mq_recipe_embedding_class(const mq_quantize_options *options) {
    return options->slice_rule == MQ_SLICE_TOP || options->zero_point == MQ_ZERO_SYMMETRIC
               ? &mq_nested_grid
               : &mq_clip_grid;
}

/* The search weighs the widths' slices as the recipe weighs the widths that take them. */
mq_grid_options mq_recipe_embedding_grid(const mq_quantize_options *options) {
    mq_grid_options grid = {.slice_rule = options->slice_rule,
                            .zero_point = options->zero_point,
                            .start = MQ_START_SEARCH};
    const unsigned least =
        options->embeddings == MQ_EMBEDDINGS_8 ? MQ_MAX_WIDTH : options->embeddings_min_bits;
    for (size_t i = 0; i < options->width_count; i++) {
        const unsigned width = options->widths[i] > least ? options->widths[i] : least;
        if (grid.width_count > 0 && grid.widths[grid.width_count - 1] == width) {
            grid.lambda[grid.width_count - 1] += lambda_of(options, i);
            continue;
        }
        grid.widths[grid.width_count] = width;
        grid.lambda[grid.width_count++] = lambda_of(options, i);
    }
    return grid;
}
