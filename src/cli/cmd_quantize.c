#include <assert.h>
#include <string.h>

#include "matquant/names.h"
#include "quantize_line.h"
#include "quantize_result.h"

/* The parser writes a choice as an unsigned, into the options' enumerations as well. */
static_assert(sizeof(mq_recipe) == sizeof(unsigned) && sizeof(mq_preset) == sizeof(unsigned) &&
                  sizeof(mq_loss) == sizeof(unsigned) &&
                  sizeof(mq_slice_rule) == sizeof(unsigned) &&
                  sizeof(mq_zero_point) == sizeof(unsigned) &&
                  sizeof(mq_scope) == sizeof(unsigned) &&
                  sizeof(mq_embeddings) == sizeof(unsigned) &&
                  sizeof(mq_gemm_choice) == sizeof(unsigned),
              "enumerations are as wide as unsigned");

/* Of weights, more than any row has. Beyond it is MQ_GROUP_SIZE_AUTO, which is no size. */
#define LARGEST_GROUP 1e9

/* What comes after each phase, for the progress line: pairs, of which NULL in second place says
 * that nothing does. */
enum { FOLLOWS = 13 };
static void list_follows(const char *follows[FOLLOWS], const mq_quantize_options *options) {
    const bool learns = options->recipe != MQ_RECIPE_RTN;
    const char *refit = options->refit ? "refit" : NULL;
    const char *after_blocks = !options->qat ? refit : refit != NULL ? "qat and refit" : "qat";
    const char *blocks = !learns                ? "round"
                         : options->qat         ? "learn and the rest"
                         : after_blocks != NULL ? "learn and refit"
                                                : "learn";
    const bool embeddings = options->embeddings != MQ_EMBEDDINGS_KEEP;
    const char *const all[FOLLOWS] = {"generate",
                                      embeddings ? "embeddings and the rest" : blocks,
                                      "embeddings",
                                      blocks,
                                      "learn",
                                      after_blocks,
                                      "full precision",
                                      options->qat ? "end-to-end training" : refit,
                                      "full precision, bfloat16",
                                      refit,
                                      "qat",
                                      refit,
                                      NULL};
    memcpy(follows, all, sizeof all);
}

static mq_status quantize(const cli_quantize_line *line) {
    cli_progress progress;
    const char *follows[FOLLOWS];
    mq_context *context = NULL;
    mq_quantize_report report = {0};
    mq_error err = {0};
    mq_status status = cli_open_context(&context, &progress, &line->common, &err);
    list_follows(follows, &line->options);
    progress.follows = follows;
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
    cli_quantize_line line = {0};
    mq_quantize_options *options = &line.options;
    const cli_argument arguments[] = {{"MODEL",
                                       "Hugging Face folder of a Llama, Mistral, Qwen 2, Qwen 3, "
                                       "SmolLM3, Granite, OLMo 2, Phi-3, Gemma 2 or Gemma 3 model",
                                       &options->model},
                                      {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 'o', "output", &options->output, "FOLDER", "the master checkpoint to make",
         .required = true},
        {CLI_FLAG, 0, "force", &options->force, .help = "replace it if it exists"},
        {CLI_FLAG, 0, "dry-run", &options->dry_run,
         .help = "check everything, print what would be done and the memory, disk and minimum "
                 "time it would take, and stop"},
        {CLI_TEXT, 0, "state", &options->state, "FOLDER",
         "keep what is finished (blocks, refitted widths, text that the model wrote) in FOLDER, "
         "and resume from what is already there: an interrupted run loses what it was working on, "
         "and the work of --qat. The folder is removed when the master is complete",
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
         "weight of each width's (and each pair's) loss, in the order of --bits; where all are "
         "much smaller than the default, less is learned",
         .max = 1e9, .given = &line.lambda_given, .part = TRAINED_WIDTHS},
        {CLI_CHOICE, 0, "preset", &options->preset, "NAME",
         "shorthand for a --lambda (recipe best): narrow gives 2 bits more weight, wide 8 and 4; "
         "default balanced, or wide if a group is a whole row",
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
         "this many percent; 0: never",
         .min = 0, .max = 100, .part = LEARNING},
        {CLI_COUNTS, 0, "periods", &line.periods, "LIST",
         "visit the loss of each width of --bits only on every so many steps, with that many times "
         "the weight: a step of each costs the same. Default: every step, but every 8th for 8 bits "
         "if recipe best trains others, too",
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
         .max = LARGEST_GROUP, .hide_default = true},
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
    return cli_read_quantize_line(&status, &line, &command, count, argv) ? quantize(&line) : status;
}
