#include "command.h"
#include "matquant/verify.h"
#include "table.h"

/* Of each mq_verify_weights, in JSON and in the table. */
static const char *const weights_names[] = {"unknown", "same", "other"};
static const char *const weights_words[] = {"cannot be told", "yes", "no"};

static mq_status print_json(const mq_verify_report *report, const char *master,
                            const char *against) {
    cli_json json;
    cli_json_begin(&json);
    cli_json_text(&json, json.root, "folder", master);
    cli_json_text(&json, json.root, "against", against);
    cli_json_size(&json, json.root, "tensors", report->tensors);
    cli_json_size(&json, json.root, "bytes", report->bytes);
    if (against) {
        cli_json_size(&json, json.root, "compared", report->compared);
        cli_json_text(&json, json.root, "weights", weights_names[report->weights]);
    }
    cli_json_size(&json, json.root, "problems", report->problems);
    cli_json_bool(&json, json.root, "ok", report->problems == 0);
    return cli_print_json(&json);
}

static void print_table(const mq_verify_report *report, const char *master, const char *against) {
    char bytes[CLI_CELL_SIZE];
    cli_print_field(stdout, "folder", "%s", master);
    cli_print_field(stdout, "checked", "%zu tensors, %s", report->tensors,
                    cli_show_bytes(bytes, report->bytes));
    if (against) {
        cli_print_field(stdout, "same as the source's", "%zu tensors of %s", report->compared,
                        against);
        cli_print_field(stdout, "quantized from it", "%s", weights_words[report->weights]);
    }
    cli_print_field(stdout, "problems", "%zu", report->problems);
}

mq_status cmd_verify(int count, char *const *argv) {
    const char *master = NULL, *against = NULL;
    cli_common common = {0};
    const cli_argument arguments[] = {
        {"FOLDER", "master checkpoint, or slice in MLX's or matquant's format", &master},
        {NULL, NULL, NULL}};
    const cli_option specs[] = {
        {CLI_TEXT, 0, "against", &against, "MODEL",
         .help = "also check that this model is the source: every tensor that is not quantized, "
                 "and every other file that is copied, is byte for byte its own (after slice "
                 "--dtype: rounded to that type), and its weights, which are read whole, are those "
                 "that were quantized, by their SHA-256"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        .name = "verify",
        .description = "Checks the CRC-32, the shape and the values of every tensor of a master "
                       "checkpoint or a slice, how config.json reads the codes, and that the files "
                       "next to the tensors are as they were written. Each problem is a line on "
                       "standard error; if there are any, the exit status is 1. A folder that "
                       "cannot be read far enough to begin is an error, with status 3.",
        .arguments = arguments,
        .options = specs};
    mq_status status;
    if (!cli_read_line(&status, &command, count, argv)) {
        return status;
    }
    cli_progress progress;
    mq_context *context = NULL;
    mq_verify_report report = {0};
    mq_error err = {0};
    status = cli_open_context(&context, &progress, &common, &err);
    if (status == MQ_OK) {
        status = mq_verify(&report, master, against, context, &err);
    }
    cli_progress_clear(&progress);
    mq_context_free(context);
    /* What a check found is a result; anything else is none. */
    if (status == MQ_OK || status == MQ_ERR_CHECK) {
        mq_status printed = MQ_OK;
        if (common.json) {
            printed = print_json(&report, master, against);
        } else {
            print_table(&report, master, against);
        }
        return printed != MQ_OK ? printed : status;
    }
    return cli_print_error(&err);
}
