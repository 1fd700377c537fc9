/* The line of matquant quantize: what its options are read into, and what comes of them together.
 */
#ifndef MATQUANT_CLI_QUANTIZE_LINE_H
#define MATQUANT_CLI_QUANTIZE_LINE_H

#include "command.h"
#include "matquant/quantize.h"

/* What of a run an option belongs to, where the library cannot tell a value that was given from one
 * that was not. */
enum cli_quantize_part {
    ALWAYS,
    LEARNING,
    TRAINED_WIDTHS,
    INT8,
    VISITS,
    END_TO_END,
    GROUPS,
    PARTS
};

typedef struct cli_quantize_line {
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
} cli_quantize_line;

/* Reads the line into line->options and the rest of the struct. False: it ends here with *status,
 * MQ_OK after --help, and has said why. */
bool cli_read_quantize_line(mq_status *status, cli_quantize_line *line, const cli_command *command,
                            int count, char *const *argv);

#endif
