/* The command line of a verb, driven by one array: parsing, --help and messages all come from it.
 */
#ifndef MATQUANT_CLI_OPTIONS_H
#define MATQUANT_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "matquant/mixture.h"

/* What an option takes, and the type that cli_option.value points to. */
typedef enum cli_option_type {
    CLI_HEADING, /* not an option: begins a group of --help, its help is the title */
    CLI_FLAG,    /* bool, set to true */
    CLI_CLEAR,   /* bool, set to false */
    CLI_TEXT,    /* const char * */
    CLI_TEXTS,   /* cli_texts: may be given several times */
    CLI_COUNT,   /* size_t, a whole number in [min, max] */
    CLI_SEED,    /* uint64_t */
    CLI_BYTES, /* size_t, a whole number in [min, max] that K, M or G (powers of 1024) may follow */
    CLI_NUMBER,    /* double in [min, max] */
    CLI_CHOICE,    /* unsigned, or an enumeration as wide: min + the word's index in choices */
    CLI_COUNTS,    /* cli_counts: whole numbers in [min, max], comma-separated, each at most once
                      unless `repeats` */
    CLI_TERMS,     /* cli_terms: as CLI_COUNTS, and pairs A>B (or A:B) of two such numbers */
    CLI_NUMBERS,   /* cli_numbers: numbers in [min, max], comma-separated */
    CLI_LAYER_BITS /* cli_layer_bits: PATTERN=R, R in [min, max]; may be given several times */
} cli_option_type;

#define CLI_LIST_SIZE 14 /* there are seven widths, and as many pairs of them may be trained */
#define CLI_TEXTS_SIZE 64

typedef struct cli_texts {
    const char *items[CLI_TEXTS_SIZE];
    size_t count;
} cli_texts;

typedef struct cli_counts {
    size_t items[CLI_LIST_SIZE];
    size_t count;
} cli_counts;

typedef struct cli_terms {
    size_t from[CLI_LIST_SIZE], to[CLI_LIST_SIZE]; /* from is 0 for a number that stands alone */
    size_t count;
} cli_terms;

typedef struct cli_numbers {
    double items[CLI_LIST_SIZE];
    size_t count;
} cli_numbers;

typedef struct cli_layer_bits {
    mq_layer_bits items[CLI_TEXTS_SIZE];
    size_t count;
} cli_layer_bits;

typedef struct cli_option {
    cli_option_type type;
    char letter;      /* 'o' for -o; 0: none */
    const char *name; /* without the dashes */
    void *value;      /* what it points to when --help is printed is the default that is shown */
    const char *argument; /* "FILE": how --help names what it takes */
    const char *help;
    double min, max;            /* max == 0: no upper bound */
    const char *const *choices; /* NULL-terminated */
    bool required; /* of CLI_TEXT or CLI_COUNT; what value points to begins as NULL or 0, unset */
    bool several;  /* of CLI_TEXTS: a value that stands alone is followed by more of them, all words
                      up to the next that begins with a dash */
    bool repeats;  /* of CLI_COUNTS: a number may be there several times */
    bool hide_default; /* the help text says it, or there is none */
    bool *given;       /* NULL, or set to true when the option is on the line */
    unsigned part;     /* of what the verb does: the option is of use where that part is at work; 0:
                          always. See cli_command.first */
} cli_option;

/* The end of an array of options. */
#define CLI_END                                                                                    \
    { .type = CLI_HEADING }

typedef struct cli_argument {
    const char *name; /* "MODEL" */
    const char *help;
    const char **value;
} cli_argument;

/* Everything that a verb's line may hold; all arguments are required. */
typedef struct cli_command {
    const char *name;              /* "quantize" */
    const char *description;       /* of --help, wrapped; a newline begins a paragraph */
    const cli_argument *arguments; /* up to one with name == NULL */
    const cli_option *options;     /* up to CLI_END */
    void (*epilogue)(FILE *out);   /* more of --help, or NULL */
    const char **first; /* NULL, or [largest part + 1]: set to the name of the first option of each
                           part that is on the line, for the verb to refuse what is of no use */
} cli_command;

typedef enum cli_parsed { CLI_PARSED, CLI_HELP, CLI_WRONG } cli_parsed;

#define CLI_MESSAGE_SIZE 512

/* Reads argv[count] (what follows the verb): --name value, --name=value, -o value, -ovalue, -qv,
 * and -- after which everything is an argument. The last of an option that is given twice counts.
 * CLI_HELP as soon as --help or -h is met. CLI_WRONG fills message with one line, such as "unknown
 * option '--grup-size', did you mean '--group-size'?". Strings point into argv. */
cli_parsed cli_parse(const cli_command *command, int count, char *const *argv,
                     char message[CLI_MESSAGE_SIZE]);

/* --help: usage, description, arguments, options by group with their defaults, in 80 columns. */
void cli_print_help(FILE *out, const cli_command *command);

/* Writes text to out in lines of at most 80 columns: the first goes on at column `at`, the others
 * begin at `indent`. */
void cli_print_wrapped(FILE *out, const char *text, size_t at, size_t indent);

/* The name among names[count] that is closest to a mistyped one, or NULL when none is close. */
const char *cli_closest(const char *mistyped, const char *const *names, size_t count);

#endif
