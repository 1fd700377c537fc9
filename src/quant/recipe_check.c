/* What can be asked for, and together: the rules of mq_quantize_options. */
#include <math.h>

#include "matquant/names.h"
#include "quant/recipe.h"
#include "tensor/gemm_bf16.h"

static mq_status no_use(const char *what, mq_error *err) {
    return mq_fail(err, MQ_ERR_USAGE, "recipe rtn learns nothing: it has no use for %s", what);
}

/* Of callers in C: the command line has names for these. */
static mq_status check_enums(const mq_quantize_options *options, mq_error *err) {
    const struct {
        const char *name;
        unsigned value;
        const char *const *names;
    } fields[] = {
        {"recipe", options->recipe, mq_recipe_names()},
        {"loss", options->loss, mq_loss_names()},
        {"scope", options->scope, mq_scope_names()},
        {"gemm", options->gemm, mq_gemm_names()},
        {"embeddings", options->embeddings, mq_embeddings_names()},
        {"preset", options->preset, mq_preset_names()},
        {"slice_rule", options->slice_rule, mq_slice_rule_names()},
        {"zero_point", options->zero_point, mq_zero_point_names()},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (mq_name_at(fields[i].names, fields[i].value) == NULL) {
            return mq_fail(err, MQ_ERR_USAGE, "%s is %u, which is none of its values",
                           fields[i].name, fields[i].value);
        }
    }
    return MQ_OK;
}

/* A list of widths as the option has it, falling and each once. */
static mq_status check_falling(const char *option, const unsigned widths[], size_t count,
                               mq_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (widths[i] < MQ_MIN_WIDTH || widths[i] > MQ_MAX_WIDTH) {
            return mq_fail(err, MQ_ERR_USAGE, "%s %u: widths are %d to %d", option, widths[i],
                           MQ_MIN_WIDTH, MQ_MAX_WIDTH);
        }
        if (i > 0 && widths[i] >= widths[i - 1]) {
            return mq_fail(err, MQ_ERR_USAGE, "%s wants widths in falling order, each once",
                           option);
        }
    }
    return MQ_OK;
}

static mq_status check_widths(const mq_quantize_options *options, mq_error *err) {
    if (options->width_count < 1 || options->width_count > MQ_MAX_WIDTHS) {
        return mq_fail(err, MQ_ERR_USAGE, "--bits wants one to %d widths", MQ_MAX_WIDTHS);
    }
    const mq_status status = check_falling("--bits", options->widths, options->width_count, err);
    if (status != MQ_OK) {
        return status;
    }
    double sum = 0.0;
    for (size_t i = 0; i < options->width_count; i++) {
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

static mq_status check_codistill(const mq_quantize_options *options, mq_error *err) {
    if (options->codistill_count > MQ_MAX_CODISTILL) {
        return mq_fail(err, MQ_ERR_USAGE, "--bits wants at most %d pairs of widths",
                       MQ_MAX_CODISTILL);
    }
    for (size_t i = 0; i < options->codistill_count; i++) {
        const mq_codistill *term = &options->codistill[i];
        if (options->recipe == MQ_RECIPE_RTN) {
            return no_use("pairs in --bits", err);
        }
        if (term->teacher <= term->student) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "--bits %u>%u: the width that is learned from must be the wider",
                           term->teacher, term->student);
        }
        if (!mq_recipe_is_trained(options, term->teacher) ||
            !mq_recipe_is_trained(options, term->student)) {
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

/* More than anybody wants, and few enough that sequences, tokens and steps can be counted: products
 * of two of them, several times over, fit in 64 bits. */
#define MOST_EPOCHS 1000000
#define MOST_SAMPLES 100000000
#define MOST_LENGTH 2147483647 /* positions, which the BLAS counts in int, too */
#define MOST_TOKENS ((size_t)1 << 40)

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
    if (options->refit_tokens > 0 && options->refit_tokens < options->seq_len) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--refit-tokens %zu is less than one sequence of --seq-len %zu",
                       options->refit_tokens, options->seq_len);
    }
    return check_falling("--refit-bits", options->refit_widths, options->refit_width_count, err);
}

static mq_status check_qat(const mq_quantize_options *options, mq_error *err) {
    if (!options->qat) {
        return options->qat_tokens > 0 || options->qat_epochs > 0 || options->qat_rate > 0.0
                   ? mq_fail(err, MQ_ERR_USAGE,
                             "--qat-tokens, --qat-epochs and --qat-rate want --qat")
                   : MQ_OK;
    }
    if (options->recipe == MQ_RECIPE_RTN) {
        return no_use("--qat", err);
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

static mq_status check_slices(const mq_quantize_options *options, mq_error *err) {
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
    return MQ_OK;
}

/* What belongs to one recipe. */
static mq_status check_recipe(const mq_quantize_options *options, mq_error *err) {
    if (options->preset != MQ_PRESET_NONE && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--preset is recipe best's: recipe paper has the paper's weights, and rtn "
                       "learns nothing");
    }
    if (options->compensate && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE, "--compensate is for recipe best");
    }
    if (options->fold && options->recipe != MQ_RECIPE_BEST) {
        return mq_fail(err, MQ_ERR_USAGE, "--fold is for recipe best");
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
    return MQ_OK;
}

static mq_status check_numbers(const mq_quantize_options *options, mq_error *err) {
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
    if (options->seed > MQ_LARGEST_SEED) {
        return mq_fail(err, MQ_ERR_USAGE, "--seed is at most %llu, the largest that JSON can say",
                       MQ_LARGEST_SEED);
    }
    return MQ_OK;
}

/* Recipe rtn: rounding, which reads no text. */
static mq_status check_rounding(const mq_quantize_options *options, mq_error *err) {
    const struct {
        bool asked;
        const char *what;
    } useless[] = {
        {options->early_stop > 0.0, "--early-stop"},
        {options->sampled, "--sampled"},
        {options->rate != 1.0, "--rate"},
        {options->refit, "--refit"},
        {options->calib != NULL, "--calib"},
        {options->state != NULL, "--state"},
        {options->gemm != MQ_GEMM_AUTO, "--gemm"},
    };
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++) {
        if (useless[i].asked) {
            return no_use(useless[i].what, err);
        }
    }
    return MQ_OK;
}

static mq_status check_amounts(const mq_quantize_options *options, mq_error *err) {
    const struct {
        const char *option;
        size_t value, most;
    } amounts[] = {
        {"--samples", options->samples, MOST_SAMPLES},
        {"--seq-len", options->seq_len, MOST_LENGTH},
        {"--epochs", options->epochs, MOST_EPOCHS},
        {"--refit-tokens", options->refit_tokens, MOST_TOKENS},
        {"--qat-tokens", options->qat_tokens, MOST_TOKENS},
    };
    for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++) {
        if (amounts[i].value > amounts[i].most) {
            return mq_fail(err, MQ_ERR_USAGE, "%s is at most %zu", amounts[i].option,
                           amounts[i].most);
        }
    }
    return MQ_OK;
}

static mq_status check_learning(const mq_quantize_options *options, mq_error *err) {
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
    if (options->samples < 1 || options->epochs < 1 || options->batch < 1 || options->seq_len < 2) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--samples, --epochs and --batch must be at least 1, --seq-len at least 2");
    }
    bool always = options->sampled;
    const mq_grid_options grid = mq_recipe_grid(options);
    for (size_t i = 0; i < grid.width_count; i++) {
        always = always || (grid.lambda[i] > 0.0 && mq_recipe_period(options, i) == 1);
    }
    if (!always) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--periods: one width that has a weight must be visited on every step");
    }
    return check_amounts(options, err);
}

mq_status mq_recipe_check(const mq_quantize_options *options, mq_error *err) {
    static mq_status (*const checks[])(const mq_quantize_options *, mq_error *) = {
        check_enums,  check_widths, check_codistill, check_qat,
        check_slices, check_recipe, check_numbers,
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof checks / sizeof *checks; i++) {
        status = checks[i](options, err);
    }
    if (status == MQ_OK) {
        status = options->recipe == MQ_RECIPE_RTN ? check_rounding(options, err)
                                                  : check_learning(options, err);
    }
    return status == MQ_OK ? check_refit(options, err) : status;
}
