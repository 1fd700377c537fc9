#include "matquant/quantize.h"

#include <assert.h>

#include "command.h"
#include "matquant/names.h"
#include "quantize_result.h"

/* What of a run an option belongs to, where the library cannot tell a value that was given from one
 * that was not. */
enum part { ALWAYS, LEARNING, TRAINED_WIDTHS, INT8, VISITS, END_TO_END, GROUPS, PARTS };

/* The parser writes a choice as an unsigned, into the options' enumerations as well. */
static_assert(sizeof(mq_recipe) == sizeof(unsigned) && sizeof(mq_preset) == sizeof(unsigned) &&
                  sizeof(mq_loss) == sizeof(unsigned) &&
                  sizeof(mq_slice_rule) == sizeof(unsigned) &&
                  sizeof(mq_zero_point) == sizeof(unsigned) &&
                  sizeof(mq_scope) == sizeof(unsigned) &&
                  sizeof(mq_embeddings) == sizeof(unsigned) &&
                  sizeof(mq_gemm_choice) == sizeof(unsigned),
              "enumerations are as wide as unsigned");

typedef struct quantize_line {
    mq_quantize_options options;
    bool rule_given, preset_given;
    size_t embeddings_min_bits;
    bool min_bits_given;
    cli_terms bits;
    cli_numbers lambda;
    cli_counts periods;
    bool bits_given, lambda_given, periods_given;
    cli_counts refit_bits;
    bool refit_bits_given, refit_tokens_given, refit_epochs_given;
    bool fast;
    cli_texts include, exclude;
    const char *first[PARTS]; /* the first option of each on the line */
    cli_common common;
} quantize_line;

/* Everything as the recipe has it; a preset that has no name is balanced. */
static void set_defaults(quantize_line *line, mq_recipe recipe, bool fast) {
    cli_common common = line->common;
    *line = (quantize_line){.options = mq_quantize_defaults(recipe), .common = common};
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
static mq_status set_widths(quantize_line *line) {
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
static void set_refit(quantize_line *line) {
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
static mq_status check_parts(const quantize_line *line) {
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
static bool read_line(mq_status *status, quantize_line *line, const cli_command *command, int count,
                      char *const *argv) {
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

/* What comes after a phase: pairs, for the progress line. */
static const char *const with_refit[] = {
    "generate", "learn and refit",          "learn", "refit", "full precision",
    "refit",    "full precision, bfloat16", "refit", NULL};
static const char *const without_refit[] = {"generate", "learn", NULL};
static const char *const with_qat[] = {"generate",       "learn and the rest",  "learn", "qat",
                                       "full precision", "end-to-end training", NULL};
static const char *const with_both[] = {"generate",
                                        "learn and the rest",
                                        "learn",
                                        "qat and refit",
                                        "full precision",
                                        "end-to-end training",
                                        "full precision, bfloat16",
                                        "refit",
                                        "qat",
                                        "refit",
                                        NULL};

static mq_status quantize(const quantize_line *line) {
    cli_progress progress;
    mq_context *context = NULL;
    mq_quantize_report report = {0};
    mq_error err = {0};
    mq_status status = cli_open_context(&context, &progress, &line->common, &err);
    const mq_quantize_options *options = &line->options;
    progress.follows = options->qat ? (options->refit ? with_both : with_qat)
                                    : (options->refit ? with_refit : without_refit);
    if (status == MQ_OK) {
        status = mq_quantize(&report, &line->options, context, &err);
    }
    cli_progress_clear(&progress);
    if (status != MQ_OK) {
        cli_print_error(&err);
    } else if (line->common.json) {
        status = cli_print_quantize_json(&report, &line->options);
    } else {
        cli_print_quantize_table(&report, &line->options);
    }
    mq_quantize_report_free(&report);
    mq_context_free(context);
    return status;
}

mq_status cmd_quantize(int count, char *const *argv) {
    quantize_line line = {0};
    mq_quantize_options *options = &line.options;
    const cli_argument arguments[] = {
        {"MODEL", "Hugging Face folder of a Llama, Mistral, Qwen 2, Qwen 3 or Gemma 3 model",
         &options->model},
        {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 'o', "output", &options->output, "FOLDER", "the master checkpoint to make",
         .required = true},
        {CLI_FLAG, 0, "force", &options->force, .help = "replace it if it exists"},
        {CLI_FLAG, 0, "dry-run", &options->dry_run,
         .help = "check everything, print what would be done and how much memory and disk it "
                 "would take, and stop"},
        {CLI_TEXT, 0, "state", &options->state, "FOLDER",
         "keep finished blocks and refitted widths in FOLDER, and resume from those that are "
         "already there: an interrupted run loses at most one of them. The folder is removed when "
         "the master is complete",
         .hide_default = true},
        CLI_SHARD_OPTION(options->max_shard_size),
        {.type = CLI_HEADING, .help = "Calibration"},
        {CLI_TEXT, 0, "calib", &options->calib, "FILE",
         .help =
             "text to learn on (.txt, .jsonl, either gzipped, or token ids as .npy), or 'self' for "
             "text that the model writes itself; required unless the recipe is rtn"},
        {CLI_COUNT, 0, "samples", &options->samples, "N", "number of calibration sequences",
         .min = 1, .part = LEARNING},
        {CLI_COUNT, 0, "seq-len", &options->seq_len, "N", "tokens per sequence", .min = 2,
         .part = LEARNING},
        {CLI_CLEAR, 0, "no-bos", &options->bos,
         .help = "do not begin sequences with the beginning-of-sequence token that the "
                 "tokenizer's template puts there",
         .part = LEARNING},
        {.type = CLI_HEADING, .help = "Learning (defaults are those of the recipe)"},
        {CLI_CHOICE, 0, "recipe", &options->recipe, "NAME",
         "best: each width decides its own bits; paper: MatQuant as published; rtn: rounding, "
         "nothing is learned",
         .choices = mq_recipe_names()},
        {CLI_FLAG, 0, "fast", &line.fast,
         .help = "recipe best in a fraction of its time, for a first look: --samples 4 --epochs 1 "
                 "--no-fold --preset wide --no-extend, and a refit of only the narrowest width, on "
                 "40 sequences; any of these options that you give yourself takes precedence"},
        {CLI_TERMS, 0, "bits", &line.bits, "LIST",
         "widths to train, 2 to 8; the others can still be used. A pair such as 8>2 (quote it in "
         "a shell, or write 8:2): the 2-bit model also learns from the 8-bit model's output",
         .min = MQ_MIN_WIDTH, .max = MQ_MAX_WIDTH, .given = &line.bits_given,
         .part = TRAINED_WIDTHS},
        {CLI_NUMBERS, 0, "lambda", &line.lambda, "LIST",
         "weight of each width's (and each pair's) loss, in the order of --bits", .max = 1e9,
         .given = &line.lambda_given, .part = TRAINED_WIDTHS},
        {CLI_CHOICE, 0, "preset", &options->preset, "NAME",
         "shorthand for a --lambda (recipe best): narrow favours 2 bits, wide 8 and 4; default "
         "balanced, or wide if a group is a whole row",
         .min = MQ_PRESET_BALANCED, .choices = mq_preset_names() + MQ_PRESET_BALANCED,
         .hide_default = true, .given = &line.preset_given},
        {CLI_CHOICE, 0, "loss", &options->loss, "NAME",
         "relative: each token's squared error is divided by the squared norm of that token's "
         "output; l2: it is not",
         .choices = mq_loss_names(), .part = LEARNING},
        {CLI_CHOICE, 0, "slice-rule", &options->slice_rule, "NAME",
         "top: a slice is the top bits of a code; round: it is the code rounded to the slice's "
         "number of bits; round-extra: the same without a clamp, with one more level, for recipe "
         "paper",
         .choices = mq_slice_rule_names(), .given = &line.rule_given},
        {CLI_FLAG, 0, "let", &options->let,
         .help = "recipe paper: also learn a scale for each channel of the feed-forward networks "
                 "that changes nothing at full precision (OmniQuant's LET, without its shift)"},
        {CLI_CHOICE, 0, "zero-point", &options->zero_point, "NAME",
         "float: a bias per group; symmetric: the middle of the code range, which GPTQ and "
         "compressed-tensors hold exactly (implies --slice-rule round)",
         .choices = mq_zero_point_names()},
        {CLI_COUNT, 0, "epochs", &options->epochs, "N", "passes over the sequences for each block",
         .min = 1, .part = LEARNING},
        {CLI_COUNT, 0, "batch", &options->batch, "N", "sequences per step", .min = 1,
         .part = LEARNING},
        {CLI_NUMBER, 0, "rate", &options->rate, "FACTOR",
         "multiply the recipe's learning rates for the blocks by this factor", .min = 1e-3,
         .max = 1e3, .part = LEARNING},
        {CLI_NUMBER, 0, "early-stop", &options->early_stop, "PERCENT",
         "end a block after an epoch that lowered the loss of no width that every step visits by "
         "this "
         "many percent; 0: never",
         .min = 0, .max = 100, .part = LEARNING},
        {CLI_COUNTS, 0, "periods", &line.periods, "LIST",
         "visit the loss of each width of --bits only on every so many steps, with that many times "
         "the weight: a wide one's costs as much as the others' and changes less (default: 8 for "
         "8 bits, 2 for 4 to 7, but 1 for the narrowest; recipe paper: 1)",
         .min = 1, .max = 1e6, .repeats = true, .hide_default = true, .given = &line.periods_given,
         .part = VISITS},
        {CLI_FLAG, 0, "sampled", &options->sampled,
         .help = "learn one width per step, drawn with --lambda as odds, instead of all widths: "
                 "less time for the same number of steps",
         .part = LEARNING},
        {CLI_FLAG, 0, "compensate", &options->compensate,
         .help = "choose the bits that only int8 reads so that they compensate for one another's "
                 "errors (GPTQ); recipe best does this",
         .part = INT8},
        {CLI_CLEAR, 0, "no-compensate", &options->compensate,
         .help = "round these bits to the nearest value"},
        {CLI_FLAG, 0, "fold", &options->fold,
         .help = "scale the channels between up and down and between v and o so that the larger "
                 "ones are rounded more finely (AWQ); this changes nothing at full precision; "
                 "recipe best does this"},
        {CLI_CLEAR, 0, "no-fold", &options->fold, .help = "leave these channels as they are"},
        {CLI_FLAG, 0, "refit", &options->refit,
         .help = "when all codes are final, train each width's own scales, biases and norms end "
                 "to end; recipe best does this"},
        {CLI_CLEAR, 0, "no-refit", &options->refit, .help = "do not refit"},
        {CLI_FLAG, 0, "extend", &options->extend,
         .help = "if the text is shorter than the refit can use, let the model continue pieces of "
                 "it until there is enough; recipe best does this",
         .part = END_TO_END},
        {CLI_CLEAR, 0, "no-extend", &options->extend, .help = "use only the given text"},
        {CLI_COUNT, 0, "refit-tokens", &options->refit_tokens, "N",
         "calibration tokens that the refit trains on (default: seven times as many as the blocks "
         "learn from)",
         .min = 1, .hide_default = true, .given = &line.refit_tokens_given},
        {CLI_COUNT, 0, "refit-epochs", &options->refit_epochs, "N",
         "passes over these tokens (default: enough passes to see three times the blocks' tokens: "
         "one if the text is plentiful, at least two if the model wrote most of it)",
         .min = 1, .hide_default = true, .given = &line.refit_epochs_given},
        {CLI_COUNT, 0, "refit-batch", &options->refit_batch, "N", "sequences per step of the refit",
         .min = 1, .part = END_TO_END},
        {CLI_COUNTS, 0, "refit-bits", &line.refit_bits, "LIST",
         "widths to refit, 2 to 8 (default: those of --bits, and 3 and 4 if they lie between two "
         "of "
         "these)",
         .min = MQ_MIN_WIDTH, .max = MQ_MAX_WIDTH, .hide_default = true,
         .given = &line.refit_bits_given},
        {CLI_FLAG, 0, "qat", &options->qat,
         .help = "before the refit, train the codes themselves end to end, to lower all widths' "
                 "divergence from full precision, weighted by --lambda. This takes long, and one "
                 "width may lose what another gains"},
        {CLI_COUNT, 0, "qat-tokens", &options->qat_tokens, "N",
         "calibration tokens that --qat trains on (default: --refit-tokens, or three times as "
         "many as the blocks learn from)",
         .min = 1, .hide_default = true},
        {CLI_COUNT, 0, "qat-epochs", &options->qat_epochs, "N",
         "passes over these tokens (default: enough passes to see three times the blocks' tokens)",
         .min = 1, .hide_default = true},
        {CLI_NUMBER, 0, "qat-rate", &options->qat_rate, "X",
         "how far --qat moves a code in one training step, in steps of the grid of the width that "
         "moves it (default: 0.005, or 0.001 with rounded slices)",
         .min = 1e-9, .max = 1, .hide_default = true},
        {CLI_SEED, 0, "seed", &options->seed, "N", .help = "seed for all random choices",
         .part = LEARNING},
        {.type = CLI_HEADING, .help = "What is quantized"},
        {CLI_COUNT, 0, "group-size", &options->group_size, "N",
         .help = "number of weights in a row that share scale and bias; 0: the whole row (default: "
                 "128, or 64 or 32 if 128 does not divide all rows)",
         .hide_default = true},
        {CLI_COUNT, 0, "group-fallback", &options->group_fallback, "N",
         "group size of the layers whose rows --group-size does not divide (default: such a layer "
         "is an error)",
         .hide_default = true, .given = &options->has_group_fallback, .part = GROUPS},
        {CLI_CHOICE, 0, "scope", &options->scope, "NAME",
         "all: every linear layer of the blocks; ffn: those of the feed-forward networks",
         .choices = mq_scope_names()},
        {CLI_TEXTS, 0, "include", &line.include, "REGEX",
         .help =
             "quantize only layers whose name matches; may be given several times, one match is "
             "enough"},
        {CLI_TEXTS, 0, "exclude", &line.exclude, "REGEX",
         .help = "do not quantize layers whose name matches; may be given several times"},
        {CLI_CHOICE, 0, "embeddings", &options->embeddings, "NAME",
         "keep: embeddings and head stay as they are; 8: they have 8 bits at every width; nested: "
         "they have the bits of the width, but at least --embeddings-min-bits",
         .choices = mq_embeddings_names()},
        {CLI_COUNT, 0, "embeddings-min-bits", &line.embeddings_min_bits, "N",
         "minimum width of nested embeddings, 2 to 8", .min = MQ_MIN_WIDTH, .max = MQ_MAX_WIDTH,
         .given = &line.min_bits_given},
        {.type = CLI_HEADING, .help = "Machine"},
        {CLI_CHOICE, 0, "gemm", &options->gemm, "NAME",
         "backend of the matrix products in learning: openblas, in float32; onednn-bf16, with "
         "bfloat16 operands and float32 sums; auto: onednn-bf16 if a short measurement finds it "
         "clearly faster",
         .choices = mq_gemm_names()},
        CLI_THREADS_OPTION(line.common),
        CLI_COMMON_OPTIONS(line.common)};
    const cli_command command = {
        .name = "quantize",
        .description = "Makes a master checkpoint: a Hugging Face folder with one int8 "
                       "code per weight, whose top r bits are the "
                       "r-bit model, for every r from 2 to 8.",
        .arguments = arguments,
        .options = specs,
        .first = line.first};
    mq_status status;
    return read_line(&status, &line, &command, count, argv) ? quantize(&line) : status;
}
