/* From the options of matquant quantize, one by one, to what the library is asked for: defaults of
 * the recipe, lists side by side, and options that would change nothing. */
#include "quantize_line.h"

/* Everything as the recipe has it; a preset that has no name is balanced. */
static void set_defaults(cli_quantize_line *line, mq_recipe recipe, bool fast) {
    cli_common common = line->common;
    *line = (cli_quantize_line){.options = mq_quantize_defaults(recipe), .common = common};
    if (fast) {
        mq_quantize_hurry(&line->options);
    }
    if (line->options.preset == MQ_PRESET_NONE) {
        line->options.preset = MQ_PRESET_BALANCED;
    }
    line->embeddings_min_bits = line->options.embeddings_min_bits;
    line->bits.count = line->lambda.count = line->options.width_count;
    for (size_t i = 0; i < line->options.width_count; i++) {
        line->bits.to[i] = line->options.widths[i];
        line->lambda.items[i] = line->options.lambda[i];
    }
}

/* A trained width into the options, in descending order, unless it is there. */
static void add_width(mq_quantize_options *options, unsigned width, double lambda, size_t period) {
    size_t at = options->width_count;
    for (size_t i = 0; i < options->width_count; i++) {
        if (options->widths[i] == width) {
            return;
        }
    }
    for (; at > 0 && options->widths[at - 1] < width; at--) {
        options->widths[at] = options->widths[at - 1];
        options->lambda[at] = options->lambda[at - 1];
        options->periods[at] = options->periods[at - 1];
    }
    options->widths[at] = width;
    options->lambda[at] = lambda;
    options->periods[at] = period;
    options->width_count++;
}

static size_t singles(const cli_terms *bits) {
    size_t count = 0;
    for (size_t i = 0; i < bits->count; i++) {
        count += bits->from[i] == 0 ? 1 : 0;
    }
    return count;
}

/* The terms, weights and periods that the line says, into the options. A width that stands in a
 * pair only learns from the wider one alone. */
static mq_status set_widths(cli_quantize_line *line) {
    mq_quantize_options *options = &line->options;
    const cli_terms *bits = &line->bits;
    if (line->lambda_given && line->lambda.count != bits->count) {
        return cli_usage_error("quantize", "--lambda has %zu numbers, but --bits %zu widths",
                               line->lambda.count, bits->count);
    }
    if (line->lambda_given && line->preset_given) {
        return cli_usage_error("quantize", "--preset stands for a --lambda: give one of them");
    }
    const bool own = line->preset_given || line->fast || options->recipe != MQ_RECIPE_BEST;
    const mq_preset preset =
        own ? options->preset : mq_quantize_default_preset(options->group_size);
    options->preset = MQ_PRESET_NONE;
    if (line->preset_given || (options->recipe == MQ_RECIPE_BEST && !line->lambda_given)) {
        options->preset = preset;
    }
    if (line->periods_given && line->periods.count != singles(bits)) { /* pairs have none */
        return cli_usage_error("quantize", "--periods has %zu numbers, but --bits %zu widths",
                               line->periods.count, singles(bits));
    }
    size_t single = 0;
    options->width_count = 0;
    for (size_t pass = 0; pass < 2; pass++) { /* widths, then pairs */
        for (size_t i = 0; i < bits->count; i++) {
            const unsigned width = (unsigned)bits->to[i];
            const double lambda = line->lambda_given
                                      ? line->lambda.items[i]
                                      : mq_quantize_default_lambda(options->recipe, preset, width);
            if (pass == 0 && bits->from[i] == 0) {
                add_width(options, width, lambda,
                          line->periods_given ? line->periods.items[single++] : 0);
            } else if (pass == 1 && bits->from[i] > 0) {
                add_width(options, width, 0.0, 0);
                if (options->codistill_count == MQ_MAX_CODISTILL) {
                    return cli_usage_error("quantize", "--bits takes at most %d pairs",
                                           MQ_MAX_CODISTILL);
                }
                options->codistill[options->codistill_count++] =
                    (mq_codistill){(unsigned)bits->from[i], width, lambda};
            }
        }
    }
    return MQ_OK;
}

/* The refit's widths; and what --fast has of its own is not without a refit. */
static void set_refit(cli_quantize_line *line) {
    mq_quantize_options *options = &line->options;
    options->refit_width_count = line->refit_bits_given ? line->refit_bits.count : 0;
    for (size_t i = 0; i < options->refit_width_count; i++) {
        size_t at = i;
        for (; at > 0 && options->refit_widths[at - 1] < line->refit_bits.items[i]; at--) {
            options->refit_widths[at] = options->refit_widths[at - 1];
        }
        options->refit_widths[at] = (unsigned)line->refit_bits.items[i];
    }
    if (!line->fast) {
        return;
    }
    mq_quantize_options hurried = *options; /* with the line's widths and lengths */
    mq_quantize_hurry(&hurried);
    if (!line->refit_tokens_given) {
        options->refit_tokens = options->refit ? hurried.refit_tokens : 0;
    }
    if (!line->refit_epochs_given) {
        options->refit_epochs = options->refit ? hurried.refit_epochs : 0;
    }
    if (!line->refit_bits_given && options->refit) {
        options->refit_width_count = hurried.refit_width_count;
        options->refit_widths[0] = hurried.refit_widths[0];
    }
}

/* Whether a width has a weight, its own or that of a pair. */
static bool is_learned(const mq_quantize_options *options, size_t index) {
    bool learned = options->lambda[index] > 0.0;
    for (size_t i = 0; i < options->codistill_count; i++) {
        learned = learned || options->codistill[i].student == options->widths[index];
    }
    return learned;
}

static bool learns_several(const mq_quantize_options *options) {
    size_t learned = 0;
    for (size_t i = 0; i < options->width_count; i++) {
        learned += is_learned(options, i) ? 1 : 0;
    }
    return learned > 1;
}

/* Whether one of the widths can be visited less often than another, which --periods is about: of
 * --qat int8 can. */
static bool has_periods(const mq_quantize_options *options) {
    const bool qat8 = options->qat && options->widths[0] == MQ_MAX_WIDTH && is_learned(options, 0);
    return learns_several(options) && (!options->sampled || qat8);
}

/* Whether the trained widths matter without learning, too: they weigh the embeddings' widths, where
 * those are several. */
static bool weighs_embeddings(const mq_quantize_options *options) {
    return options->embeddings == MQ_EMBEDDINGS_NESTED &&
           options->embeddings_min_bits < MQ_MAX_WIDTH;
}

/* An option that would change nothing is refused, not passed over. */
static mq_status check_parts(const cli_quantize_line *line) {
    const mq_quantize_options *options = &line->options;
    const bool learns = options->recipe != MQ_RECIPE_RTN;
    const struct {
        bool at_work;
        const char *without;
    } parts[PARTS] = {
        [ALWAYS] = {true, NULL},
        [LEARNING] = {learns, "recipe rtn, which learns nothing,"},
        [TRAINED_WIDTHS] = {learns || weighs_embeddings(options),
                            "recipe rtn, which learns nothing,"},
        [INT8] = {!learns || options->widths[0] == MQ_MAX_WIDTH, /* of rtn the library says it */
                  "a run without 8 among --bits"},
        [VISITS] = {learns && has_periods(options), !learns ? "recipe rtn, which learns nothing,"
                                                    : learns_several(options)
                                                        ? "--sampled, which draws the widths,"
                                                        : "a run that learns one width"},
        [END_TO_END] = {options->refit || options->qat, "a run without the refit and --qat"},
        [GROUPS] = {options->group_size > 0, "--group-size 0, a row a group,"},
    };
    for (size_t i = 0; i < PARTS; i++) {
        if (!parts[i].at_work && line->first[i] != NULL) {
            return cli_usage_error("quantize", "%s has no use for --%s", parts[i].without,
                                   line->first[i]);
        }
    }
    return MQ_OK;
}

/* Reads the line twice: the first time for the recipe and --fast, whose numbers then stand where
 * the line says nothing. */
bool cli_read_quantize_line(mq_status *status, cli_quantize_line *line, const cli_command *command,
                            int count, char *const *argv) {
    char message[CLI_MESSAGE_SIZE];
    set_defaults(line, MQ_RECIPE_BEST, false);
    cli_parsed parsed = cli_parse(command, count, argv, message);
    set_defaults(line, line->options.recipe, parsed != CLI_HELP && line->fast);
    if (parsed == CLI_HELP) {
        /* The others' defaults are shown, but this is the default recipe. */
        line->options.recipe = MQ_RECIPE_BEST;
        cli_print_help(stdout, command);
        *status = MQ_OK;
        return false;
    }
    if (!cli_read_line(status, command, count, argv)) {
        return false;
    }
    mq_quantize_options *options = &line->options;
    if (options->zero_point == MQ_ZERO_SYMMETRIC && !line->rule_given) {
        options->slice_rule = MQ_SLICE_ROUND; /* whatever the recipe has otherwise */
    }
    options->embeddings_min_bits = (unsigned)line->embeddings_min_bits;
    options->include = line->include.items;
    options->include_count = line->include.count;
    options->exclude = line->exclude.items;
    options->exclude_count = line->exclude.count;
    if (line->fast && options->recipe != MQ_RECIPE_BEST) {
        *status = cli_usage_error("quantize", "--fast is for recipe best");
        return false;
    }
    if (line->min_bits_given && options->embeddings != MQ_EMBEDDINGS_NESTED) {
        *status = cli_usage_error("quantize", "--embeddings-min-bits wants --embeddings nested");
        return false;
    }
    *status = set_widths(line);
    if (*status == MQ_OK) {
        *status = check_parts(line);
    }
    if (*status == MQ_OK) {
        set_refit(line);
    }
    return *status == MQ_OK;
}
