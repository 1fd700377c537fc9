#include "command.h"
#include "eval_result.h"
#include "mixture.h"

/* What is demanded of the result; each as its option is given. */
typedef struct eval_gates {
    bool has_ppl, has_kl, has_acc;
    double ppl, kl; /* the most that is allowed */
    double acc;     /* the least */
} eval_gates;

/* A value that is not a number passes no gate. where: "", or which width's it is. */
static bool at_most(const char *where, const char *what, double value, const char *option,
                    double most) {
    if (value <= most) {
        return true;
    }
    fprintf(stderr, "matquant: %s%s is %.6g, and --%s allows %.6g\n", where, what, value, option,
            most);
    return false;
}

static bool at_least(const char *where, const char *what, double value, const char *option,
                     double least) {
    if (value >= least) {
        return true;
    }
    fprintf(stderr, "matquant: %s%s is %.6g, and --%s demands %.6g\n", where, what, value, option,
            least);
    return false;
}

static bool passes(const mq_eval_result *result, const eval_gates *gates, const char *where) {
    bool passed = true;
    if (gates->has_ppl) {
        passed = at_most(where, "perplexity", result->perplexity, "max-ppl", gates->ppl);
    }
    if (gates->has_kl) {
        passed = at_most(where, "the KL divergence", result->kl, "max-kl", gates->kl) && passed;
    }
    if (gates->has_acc) {
        passed =
            at_least(where, "the mean accuracy", result->mean.acc, "min-acc", gates->acc) && passed;
    }
    return passed;
}

static mq_status check_gates(const mq_eval_result *results, size_t count, const eval_gates *gates) {
    bool passed = true;
    for (size_t i = 0; i < count; i++) {
        char where[32] = "";
        if (count > 1) {
            snprintf(where, sizeof where, "at %u bits ", results[i].width);
        }
        passed = passes(&results[i], gates, where) && passed;
    }
    return passed ? MQ_OK : MQ_ERR_CHECK;
}

static mq_status measure(mq_eval_result *results, const mq_eval_options *options,
                         const cli_common *common, mq_error *err) {
    static const char *const with_tasks[] = {"evaluate", "tasks", NULL};
    cli_progress progress;
    mq_context *context = NULL;
    mq_status status = cli_open_context(&context, &progress, common, err);
    progress.follows = options->task_count > 0 ? with_tasks : NULL;
    if (status == MQ_OK) {
        status = mq_evaluate(results, options, context, err);
    }
    cli_progress_clear(&progress);
    mq_context_free(context);
    return status;
}

static mq_status evaluate(mq_eval_options *options, const cli_counts *bits, const eval_gates *gates,
                          const cli_common *common) {
    unsigned widths[CLI_LIST_SIZE];
    mq_eval_result results[CLI_LIST_SIZE] = {{0}};
    const size_t count = bits->count > 0 ? bits->count : 1;
    mq_error err = {0};
    for (size_t i = 0; i < bits->count; i++) {
        widths[i] = (unsigned)bits->items[i];
    }
    options->widths = widths;
    options->width_count = bits->count;
    mq_status status = measure(results, options, common, &err);
    mq_status printed = MQ_OK;
    if (results->measured && common->json) {
        printed = cli_print_eval_json(results, count, options);
    } else if (results->measured) {
        cli_print_eval_table(results, count, options);
    }
    if (status != MQ_OK) {
        status = cli_print_error(&err); /* or it could not be recorded */
    } else {
        status = printed == MQ_OK ? check_gates(results, count, gates) : printed;
    }
    for (size_t i = 0; i < count; i++) {
        mq_eval_result_free(&results[i]);
    }
    return status;
}

/* The first option that needs another one that is not there; NULL: none. */
static const char *missing(const mq_eval_options *options, const cli_counts *bits,
                           const eval_gates *gates) {
    if (!options->text && options->task_count == 0) {
        return "--text FILE or --tasks FILE... is needed";
    }
    if (!options->text && gates->has_ppl) {
        return "--max-ppl needs --text FILE";
    }
    if (!options->text && options->reference) {
        return "--reference needs --text FILE";
    }
    if (!options->text && options->record) {
        return "--record needs --text FILE";
    }
    if (!options->text && options->windows > 0) {
        return "--windows needs --text FILE";
    }
    if (!options->reference && gates->has_kl) {
        return "--max-kl needs --reference MODEL";
    }
    if (options->task_count == 0 && gates->has_acc) {
        return "--min-acc needs --tasks FILE...";
    }
    if (options->task_count == 0 && options->max_items > 0) {
        return "--max-items needs --tasks FILE...";
    }
    if (options->task_count == 0 && options->items) {
        return "--items needs --tasks FILE...";
    }
    if (bits->count > 1 && options->items) {
        return "--items is of one width: give --bits one";
    }
    if (!options->items && options->force) {
        return "--force needs --items FILE";
    }
    return NULL;
}

static void print_task_format(FILE *out) {
    fputs("\nA task file has one JSON object per line, and may be gzipped:\n\n"
          "{\"id\": \"1\", \"gold\": 0, \"choices\": [{\"context\": \"1+1=\", \"continuation\": "
          "\"2\"}, ...]}\n\n",
          out);
    cli_print_wrapped(
        out,
        "The answer is the choice whose continuation has the highest log-likelihood after its "
        "context (acc), or the highest one divided by the continuation's length in UTF-8 bytes "
        "(acc_norm); gold is the index of the right choice, from 0. Both come with their standard "
        "error. A context that choices share is computed once. Text is tokenized as in "
        "lm-evaluation-harness; contexts longer than the model's positions are cut on the left.",
        0, 0);
}

mq_status cmd_eval(int count, char *const *argv) {
    mq_eval_options options = mq_eval_defaults();
    eval_gates gates = {0};
    cli_common common = {0};
    cli_texts tasks = {.count = 0};
    cli_counts bits = {.count = 0};
    cli_layer_bits layer_bits = {.count = 0};
    const cli_argument arguments[] = {
        {"FOLDER",
         "plain model, master checkpoint, or slice in the format mlx, safetensors or matquant",
         &options.model},
        {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 0, "text", &options.text, "FILE",
         .help =
             "text to measure perplexity on (.txt, .jsonl, either gzipped, or token ids as .npy)"},
        {CLI_TEXTS, 0, "tasks", &tasks, "FILE...",
         .help = "files of zero-shot tasks to measure accuracy on, in the format below: all words "
                 "up to the next option; may be given several times",
         .several = true},
        {CLI_COUNTS, 0, "bits", &bits, "LIST",
         "width of a master checkpoint, 2 to 8, or several, such as 8,4,2, with one pass of the "
         "reference for all of them (default: 8)",
         .min = 2, .max = 8, .hide_default = true},
        CLI_LAYER_BITS_OPTION(layer_bits),
        {CLI_COUNT, 0, "windows", &options.windows, "N",
         "measure at most N windows, from the beginning (default: all that the text has)", .min = 1,
         .hide_default = true},
        {CLI_COUNT, 0, "seq-len", &options.seq_len, "N",
         "tokens per window; windows do not overlap", .min = 2},
        {CLI_COUNT, 0, "max-items", &options.max_items, "N",
         "use at most N items of each task, from the beginning (default: all)", .min = 1,
         .hide_default = true},
        {CLI_CLEAR, 0, "no-bos", &options.bos,
         .help = "do not begin windows and contexts with the beginning-of-sequence token that the "
                 "tokenizer's template puts there"},
        {.type = CLI_HEADING, .help = "Comparison and gates"},
        {CLI_TEXT, 0, "reference", &options.reference, "MODEL",
         .help = "also compare with this plain model: mean KL divergence, and how often the most "
                 "likely next token is the same"},
        {CLI_NUMBER, 0, "max-ppl", &gates.ppl, "X", "end with status 1 if the perplexity is higher",
         .hide_default = true, .given = &gates.has_ppl},
        {CLI_NUMBER, 0, "max-kl", &gates.kl, "X",
         "end with status 1 if the divergence from the reference, in nats per token, is higher",
         .hide_default = true, .given = &gates.has_kl},
        {CLI_NUMBER, 0, "min-acc", &gates.acc, "X",
         "end with status 1 if the mean accuracy (acc) over the tasks is lower; 0 to 1", .max = 1,
         .hide_default = true, .given = &gates.has_acc},
        {.type = CLI_HEADING, .help = "Machine"},
        {CLI_COUNT, 0, "batch", &options.batch, "N",
         "windows processed at once; items of tasks are packed into the same number of tokens",
         .min = 1},
        CLI_THREADS_OPTION(common),
        {.type = CLI_HEADING, .help = "Items"},
        {CLI_TEXT, 0, "items", &options.items, "FILE",
         .help =
             "write one line with a JSON object for each item, with the log-likelihood of every "
             "choice"},
        {CLI_FLAG, 0, "force", &options.force, .help = "replace that file if it exists"},
        {.type = CLI_HEADING, .help = "Provenance"},
        {CLI_FLAG, 0, "record", &options.record,
         .help =
             "add the result on the text to the master's matquant.json; inspect shows it, and so "
             "does the model card of every slice of that width"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {.name = "eval",
                                 .description = "Measures a plain model, a master checkpoint at "
                                                "any width, or a slice: the perplexity of a "
                                                "text, the accuracy on zero-shot tasks, or both. A "
                                                "master at a width and the slice of that "
                                                "width give the same result to the last bit.",
                                 .arguments = arguments,
                                 .options = specs,
                                 .epilogue = print_task_format};
    mq_status status;
    if (!cli_read_line(&status, &command, count, argv)) {
        return status;
    }
    options.layer_bits = layer_bits.items;
    options.layer_bits_count = layer_bits.count;
    options.tasks = tasks.items;
    options.task_count = tasks.count;
    const char *lacks = missing(&options, &bits, &gates);
    return lacks ? cli_usage_error("eval", "%s", lacks)
                 : evaluate(&options, &bits, &gates, &common);
}
