/* --help of a verb, from the array that drives its parsing. */
#include <string.h>

#include "options.h"
#include "values.h"

#define COLUMNS 80
#define OPTION_INDENT 2
#define HELP_COLUMN 26

static void pad(FILE *out, size_t count) { fprintf(out, "%*s", (int)count, ""); }

void cli_print_wrapped(FILE *out, const char *text, size_t at, size_t indent) {
    size_t column = at;
    bool first = true;
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (!first && column + 1 + length > COLUMNS) {
            fputc('\n', out);
            pad(out, indent);
            column = indent;
        } else if (!first) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, length, out);
        column += length;
        first = false;
        text += length;
        if (*text == ' ') {
            text++;
        } else if (*text == '\n') { /* a new paragraph */
            fputs("\n\n", out);
            pad(out, indent);
            column = indent;
            first = true;
            text++;
        }
    }
    fputc('\n', out);
}

static void print_left(FILE *out, size_t length) {
    if (length + 2 <= HELP_COLUMN) {
        pad(out, HELP_COLUMN - length);
    } else {
        fputc('\n', out);
        pad(out, HELP_COLUMN);
    }
}

static void print_usage(FILE *out, const cli_command *command) {
    fprintf(out, "Usage: matquant %s", command->name);
    for (const cli_argument *argument = command->arguments; argument->name; argument++) {
        fprintf(out, " %s", argument->name);
    }
    for (const cli_option *option = command->options; option->help; option++) {
        if (option->required && option->letter) {
            fprintf(out, " -%c %s", option->letter, option->argument);
        } else if (option->required) {
            fprintf(out, " --%s %s", option->name, option->argument);
        }
    }
    fputs(" [OPTION...]\n", out);
}

static void print_option(FILE *out, const cli_option *option) {
    char letter[8] = "";
    if (option->letter) {
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    char left[64];
    snprintf(left, sizeof left, "%*s%s--%s%s%s", OPTION_INDENT, "", letter, option->name,
             option->argument ? " " : "", option->argument ? option->argument : "");
    fputs(left, out);
    print_left(out, strlen(left));

    char shown[64];
    cli_show_value(shown, sizeof shown, option);
    char help[768];
    snprintf(help, sizeof help, "%s%s%s%s", option->help, shown[0] ? " (default: " : "", shown,
             shown[0] ? ")" : "");
    cli_print_wrapped(out, help, HELP_COLUMN, HELP_COLUMN);
}

void cli_print_help(FILE *out, const cli_command *command) {
    print_usage(out, command);
    fputc('\n', out);
    cli_print_wrapped(out, command->description, 0, 0);
    fputc('\n', out);
    for (const cli_argument *argument = command->arguments; argument->name; argument++) {
        fprintf(out, "%*s%s", OPTION_INDENT, "", argument->name);
        print_left(out, OPTION_INDENT + strlen(argument->name));
        cli_print_wrapped(out, argument->help, HELP_COLUMN, HELP_COLUMN);
    }
    for (const cli_option *option = command->options; option->help; option++) {
        if (option->type == CLI_HEADING) {
            fprintf(out, "\n%s:\n", option->help);
        } else {
            print_option(out, option);
        }
    }
    if (command->epilogue) {
        command->epilogue(out);
    }
}
