/* What the verbs share: options that all have, a context to run in, the result on stdout, errors on
 * stderr. */
#ifndef MATQUANT_CLI_COMMAND_H
#define MATQUANT_CLI_COMMAND_H

#include "json.h"
#include "matquant/context.h"
#include "options.h"
#include "progress.h"

/* A row of the table of verbs. run gets what follows the verb on the line and returns the exit
 * status. */
typedef struct cli_verb {
    const char *name, *summary;
    mq_status (*run)(int count, char *const *argv);
} cli_verb;

mq_status cmd_quantize(int count, char *const *argv);
mq_status cmd_slice(int count, char *const *argv);
mq_status cmd_eval(int count, char *const *argv);
mq_status cmd_inspect(int count, char *const *argv);
mq_status cmd_verify(int count, char *const *argv);

typedef struct cli_common {
    bool json, quiet, verbose, help;
    size_t threads;
} cli_common;

/* The last group of every verb's options, and the end of the array. */
#define CLI_COMMON_OPTIONS(common)                                                                 \
    {.type = CLI_HEADING, .help = "Output"},                                                       \
        {CLI_FLAG, 0, "json", &(common).json, .help = "print one JSON object instead of a table"}, \
        {CLI_FLAG, 'q', "quiet", &(common).quiet,                                                  \
         .help = "no progress: print only results, warnings and errors"},                          \
        {CLI_FLAG, 'v', "verbose", &(common).verbose,                                              \
         .help = "say more: print what is measured on the way, and all rows of lists"},            \
        {CLI_FLAG, 'h', "help", &(common).help, .help = "print this and stop"}, CLI_END

#define CLI_THREADS_OPTION(common)                                                                 \
    {                                                                                              \
        CLI_COUNT, 0, "threads", &(common).threads, "N",                                           \
            "number of threads (default: as many as the process may use, at most "                 \
            "OMP_NUM_THREADS)",                                                                    \
            .min = 1, .max = 1024, .hide_default = true                                            \
    }

#define CLI_SHARD_OPTION(size)                                                                     \
    {                                                                                              \
        CLI_BYTES, 0, "max-shard-size", &(size), "BYTES",                                          \
            "split the tensors over files of at most this size, such as 2G (default: one file)",   \
            .hide_default = true                                                                   \
    }

/* cli_parse, and what has to be printed when that is all: true to go on, else *status is the exit
 * status. */
bool cli_read_line(mq_status *status, const cli_command *command, int count, char *const *argv);

/* A wrong combination of options: prints "matquant VERB: MESSAGE (see matquant VERB --help)". */
mq_status cli_usage_error(const char *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "matquant: " and the error in one line on stderr; returns its status. */
mq_status cli_print_error(const mq_error *err);

/* A context whose messages and progress go to *progress, which must outlive it. */
mq_status cli_open_context(mq_context **out, cli_progress *progress, const cli_common *common,
                           mq_error *err);

/* The object on stdout, and frees it. Lack of memory: MQ_ERR_MACHINE, printed. */
mq_status cli_print_json(cli_json *json);

#endif
