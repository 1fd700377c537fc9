#include "command.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "signals.h"

bool cli_read_line(mq_status *status, const cli_command *command, int count, char *const *argv) {
    char message[CLI_MESSAGE_SIZE];
    switch (cli_parse(command, count, argv, message)) {
    case CLI_PARSED:
        return true;
    case CLI_HELP:
        cli_print_help(stdout, command);
        *status = MQ_OK;
        return false;
    case CLI_WRONG:
        break;
    }
    *status = cli_usage_error(command->name, "%s", message);
    return false;
}

/* One line, whatever a path holds. */
static void print_line(char *line) {
    mq_make_printable(line);
    fprintf(stderr, "%s\n", line);
}

mq_status cli_usage_error(const char *verb, const char *format, ...) {
    char message[CLI_MESSAGE_SIZE], line[2 * CLI_MESSAGE_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(line, sizeof line, "matquant %s: %s (see matquant %s --help)", verb, message, verb);
    print_line(line);
    return MQ_ERR_USAGE;
}

mq_status cli_print_error(const mq_error *err) {
    char line[2048] = "matquant: ";
    size_t used = strlen(line);
    mq_error_format(line + used, sizeof line - used, err);
    print_line(line);
    return err->status;
}

mq_status cli_open_context(mq_context **out, cli_progress *progress, const cli_common *common,
                           mq_error *err) {
    cli_progress_begin(progress, common->quiet, common->verbose);
    mq_context_options options = {.threads = common->threads,
                                  .sink = cli_progress_sink(progress),
                                  .interrupted = cli_interrupted()};
    return mq_context_new(out, &options, err);
}

mq_status cli_print_json(cli_json *json) {
    char *text = json->failed ? NULL : cJSON_Print(json->root);
    cli_json_free(json);
    if (!text) {
        fputs("matquant: out of memory for the JSON object\n", stderr);
        return MQ_ERR_MACHINE;
    }
    puts(text);
    cJSON_free(text);
    return MQ_OK;
}
