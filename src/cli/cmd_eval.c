#include <math.h>

#include "command.h"
#include "matquant/eval.h"
#include "table.h"

typedef struct eval_gates {
    bool has_ppl, has_kl;
    double ppl, kl; /* the most that is allowed */
} eval_gates;

static void print_with_error(const char *label, double mean, double std_error, const char *unit) {
    if (isfinite(std_error)) {
        cli_print_field(stdout, label, "%.4f ± %.4f%s", mean, std_error, unit);
    } else {
        cli_print_field(stdout, label, "%.4f%s", mean, unit);
    }
}

static void print_table(const mq_eval_result *result, const mq_eval_options *options) {
    char time[CLI_CELL_SIZE];
    if (options->width > 0) {
        cli_print_field(stdout, "model", "%s at %u bits", options->model, options->width);
    } else {
        cli_print_field(stdout, "model", "%s", options->model);
    }
    cli_print_field(stdout, "text", "%s", options->text);
    cli_print_field(stdout, "windows", "%zu of %zu tokens", result->windows, options->seq_len);
    print_with_error("perplexity", result->perplexity, result->perplexity * result->nll_stderr, "");
    print_with_error("negative log-lik.", result->nll, result->nll_stderr, " nats a token");
    if (result->has_reference) {
        cli_print_field(stdout, "reference", "%s", options->reference);
        cli_print_field(stdout, "its perplexity", "%.4f", result->reference_perplexity);
        print_with_error("KL divergence", result->kl, result->kl_stderr, " nats a token");
        cli_print_field(stdout, "top-1 agreement", "%.2f %%", 100 * result->top1_agreement);
    }
    cli_print_field(stdout, "time", "%s", cli_show_seconds(time, result->seconds));
}

static mq_status print_json(const mq_eval_result *result, const mq_eval_options *options) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "model", options->model);
    if (options->width > 0) {
        cli_json_size(&json, json.root, "bits", options->width);
    } else {
        cli_json_null(&json, json.root, "bits");
    }
    cli_json_text(&json, json.root, "text", options->text);
    cli_json_size(&json, json.root, "windows", result->windows);
    cli_json_size(&json, json.root, "seq_len", options->seq_len);
    cli_json_size(&json, json.root, "tokens", result->tokens);
    cli_json_number(&json, json.root, "perplexity", result->perplexity);
    cli_json_number(&json, json.root, "nll", result->nll);
    cli_json_number(&json, json.root, "nll_stderr", result->nll_stderr);
    if (result->has_reference) {
        cli_json_text(&json, json.root, "reference", options->reference);
        cli_json_number(&json, json.root, "reference_perplexity", result->reference_perplexity);
        cli_json_number(&json, json.root, "kl", result->kl);
        cli_json_number(&json, json.root, "kl_stderr", result->kl_stderr);
        cli_json_number(&json, json.root, "top1_agreement", result->top1_agreement);
    }
    cli_json_number(&json, json.root, "seconds", result->seconds);
    return cli_print_json(&json);
}

/* A value that is not a number passes no gate. */
static bool passes(const char *what, double value, const char *option, double most) {
    if (value <= most) {
        return true;
    }
    fprintf(stderr, "matquant: %s is %.6g, and --%s allows %.6g\n", what, value, option, most);
    return false;
}

static mq_status check_gates(const mq_eval_result *result, const eval_gates *gates) {
    bool passed = true;
    if (gates->has_ppl) {
        passed = passes("perplexity", result->perplexity, "max-ppl", gates->ppl);
    }
    if (gates->has_kl) {
        passed = passes("the KL divergence", result->kl, "max-kl", gates->kl) && passed;
    }
    return passed ? MQ_OK : MQ_ERR_CHECK;
}

static mq_status evaluate(const mq_eval_options *options, const eval_gates *gates,
                          const cli_common *common) {
    cli_progress progress;
    mq_context *context = NULL;
    mq_eval_result result = {0};
    mq_error err = {0};
    mq_status status = cli_open_context(&context, &progress, common, &err);
    if (status == MQ_OK) {
        status = mq_evaluate(&result, options, context, &err);
    }
    cli_progress_clear(&progress);
    mq_context_free(context);
    if (status != MQ_OK) {
        return cli_print_error(&err);
    }
    if (common->json) {
        status = print_json(&result, options);
    } else {
        print_table(&result, options);
    }
    return status == MQ_OK ? check_gates(&result, gates) : status;
}

mq_status cmd_eval(int count, char *const *argv) {
    mq_eval_options options = mq_eval_defaults();
    eval_gates gates = {0};
    cli_common common = {0};
    size_t bits = 0;
    const cli_argument arguments[] = {
        {"FOLDER", "plain model, master checkpoint, or slice in MLX's format", &options.model},
        {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 0, "text", &options.text, "FILE",
         "text to measure on (.txt, .jsonl, either gzipped, or token ids as .npy)",
         .required = true},
        {CLI_COUNT, 0, "bits", &bits, "R", "width of a master checkpoint, 2 to 8 (default: 8)",
         .min = 2, .max = 8, .hide_default = true},
        {CLI_COUNT, 0, "windows", &options.windows, "N",
         "at most so many windows, from the beginning (default: all that the text has)", .min = 1,
         .hide_default = true},
        {CLI_COUNT, 0, "seq-len", &options.seq_len, "N",
         "tokens in a window; windows do not overlap", .min = 2},
        {CLI_CLEAR, 0, "no-bos", &options.bos,
         .help = "do not begin them with the beginning-of-sequence token that the tokenizer's "
                 "template puts there"},
        {.type = CLI_HEADING, .help = "Comparison and gates"},
        {CLI_TEXT, 0, "reference", &options.reference, "MODEL",
         .help = "also compare with this plain model: mean KL divergence, and how often the most "
                 "likely "
                 "token is the same"},
        {CLI_NUMBER, 0, "max-ppl", &gates.ppl, "X", "end with status 1 if the perplexity is higher",
         .hide_default = true, .given = &gates.has_ppl},
        {CLI_NUMBER, 0, "max-kl", &gates.kl, "X",
         "end with status 1 if the divergence from the reference is higher, in nats a token",
         .hide_default = true, .given = &gates.has_kl},
        {.type = CLI_HEADING, .help = "Machine"},
        {CLI_COUNT, 0, "batch", &options.batch, "N", "windows at once", .min = 1},
        CLI_THREADS_OPTION(common),
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "eval",
        "Measures the perplexity of a plain model, of a master checkpoint at any width, or of a "
        "slice. A master at a "
        "width and the slice of that width give the same result to the last bit.",
        arguments, specs, NULL};
    mq_status status;
    if (!cli_read_line(&status, &command, count, argv)) {
        return status;
    }
    if (gates.has_kl && !options.reference) {
        return cli_usage_error("eval", "--max-kl needs --reference MODEL");
    }
    options.width = (unsigned)bits;
    return evaluate(&options, &gates, &common);
}
