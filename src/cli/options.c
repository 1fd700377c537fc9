#include "options.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "values.h"

static bool is_end(const cli_option *option) {
    return option->type == CLI_HEADING && !option->help;
}

static bool takes_value(const cli_option *option) {
    return option->type != CLI_FLAG && option->type != CLI_CLEAR;
}

/* --- finding ---------------------------------------------------------------------------------- */

/* The option called name[length], or the one with the letter (whichever is asked for); NULL: none.
 */
static const cli_option *find(const cli_command *command, const char *name, size_t length,
                              char letter) {
    for (const cli_option *option = command->options; !is_end(option); option++) {
        if (option->type == CLI_HEADING) {
            continue;
        }
        if (name ? strlen(option->name) == length && memcmp(option->name, name, length) == 0
                 : option->letter == letter) {
            return option;
        }
    }
    return NULL;
}

#define LONGEST_NAME 32

/* Edits (insert, delete, replace) that make b of a; both shorter than LONGEST_NAME. */
static size_t edit_distance(const char *a, const char *b) {
    size_t row[LONGEST_NAME + 1];
    size_t columns = strlen(b);
    for (size_t j = 0; j <= columns; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < columns; j++) {
            size_t replaced = diagonal + (a[i] != b[j]);
            size_t shorter = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[columns];
}

const char *cli_closest(const char *mistyped, const char *const *names, size_t count) {
    const char *best = NULL;
    size_t length = strlen(mistyped);
    size_t least = length / 3 + 1; /* a third of it may be wrong */
    for (size_t i = 0; i < count && length < LONGEST_NAME; i++) {
        bool begins = length >= 3 && strncmp(names[i], mistyped, length) == 0;
        size_t distance = strlen(names[i]) >= LONGEST_NAME ? LONGEST_NAME
                          : begins                         ? 0
                                                           : edit_distance(mistyped, names[i]);
        if (distance < least || (distance == least && !best)) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}

/* Of a command. */
#define MOST_OPTIONS 96

static const char *closest_option(const cli_command *command, const char *mistyped) {
    const char *names[MOST_OPTIONS];
    size_t count = 0;
    for (const cli_option *option = command->options; !is_end(option); option++) {
        if (option->type != CLI_HEADING) {
            assert(count < MOST_OPTIONS);
            names[count++] = option->name;
        }
    }
    return cli_closest(mistyped, names, count);
}

/* --- parsing ---------------------------------------------------------------------------------- */

typedef struct parser {
    const cli_command *command;
    int count, next;
    char *const *argv;
    size_t arguments; /* read so far */
    char *message;
} parser;

static cli_parsed wrong(const parser *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static cli_parsed wrong(const parser *self, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(self->message, CLI_MESSAGE_SIZE, format, list);
    va_end(list);
    return CLI_WRONG;
}

static cli_parsed accept(const parser *self, const cli_option *option, const char *text) {
    if (option->given) {
        *option->given = true;
    }
    if (self->command->first && !self->command->first[option->part]) {
        self->command->first[option->part] = option->name;
    }
    if (!takes_value(option)) {
        *(bool *)option->value = option->type == CLI_FLAG;
        return CLI_PARSED;
    }
    char buffer[256];
    const char *expected = cli_read_value(buffer, sizeof buffer, option, text);
    return expected ? wrong(self, "option '--%s' takes %s, not '%s'", option->name, expected, text)
                    : CLI_PARSED;
}

/* The value of an option that stands alone: the next word, or several. */
static cli_parsed accept_next(parser *self, const cli_option *option) {
    if (self->next == self->count) {
        return wrong(self, "option '--%s' needs a value: %s", option->name, option->argument);
    }
    cli_parsed parsed = accept(self, option, self->argv[self->next++]);
    while (parsed == CLI_PARSED && option->several && self->next < self->count &&
           self->argv[self->next][0] != '-') {
        parsed = accept(self, option, self->argv[self->next++]);
    }
    return parsed;
}

static cli_parsed parse_long(parser *self, const char *word) {
    size_t length = strcspn(word, "=");
    if (strcmp(word, "help") == 0) {
        return CLI_HELP;
    }
    const cli_option *option = find(self->command, word, length, 0);
    if (!option) {
        char name[LONGEST_NAME * 2];
        snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), word);
        const char *close = closest_option(self->command, name);
        return close ? wrong(self, "unknown option '--%s', did you mean '--%s'?", name, close)
                     : wrong(self, "unknown option '--%s'", name);
    }
    if (word[length] == '=') {
        return takes_value(option) ? accept(self, option, word + length + 1)
                                   : wrong(self, "option '--%s' takes no value", option->name);
    }
    return takes_value(option) ? accept_next(self, option) : accept(self, option, NULL);
}

/* -o value, -ovalue, or letters of flags together. */
static cli_parsed parse_letters(parser *self, const char *word) {
    for (size_t i = 0; word[i]; i++) {
        if (word[i] == 'h') {
            return CLI_HELP;
        }
        const cli_option *option = find(self->command, NULL, 0, word[i]);
        if (!option) {
            return wrong(self, "unknown option '-%c'", word[i]);
        }
        if (takes_value(option)) {
            return word[i + 1] ? accept(self, option, word + i + 1) : accept_next(self, option);
        }
        cli_parsed parsed = accept(self, option, NULL);
        if (parsed != CLI_PARSED) {
            return parsed;
        }
    }
    return CLI_PARSED;
}

static cli_parsed parse_argument(parser *self, const char *word) {
    const cli_argument *argument = &self->command->arguments[self->arguments];
    if (!argument->name) {
        return wrong(self, "unexpected argument '%s'", word);
    }
    if (word[0] == 0) {
        return wrong(self, "%s is empty", argument->name);
    }
    *argument->value = word;
    self->arguments++;
    return CLI_PARSED;
}

static bool is_unset(const cli_option *option) {
    return option->type == CLI_TEXT ? *(const char **)option->value == NULL
                                    : *(size_t *)option->value == 0;
}

/* An argument is not there; perhaps an option has it that takes all words that follow. */
static cli_parsed argument_missing(const parser *self, const char *name) {
    for (const cli_option *option = self->command->options; !is_end(option); option++) {
        if (option->several && ((const cli_texts *)option->value)->count > 1) {
            return wrong(self,
                         "%s is missing: it belongs before '--%s', which takes all words up "
                         "to the next option",
                         name, option->name);
        }
    }
    return wrong(self, "%s is missing", name);
}

static cli_parsed check_complete(const parser *self) {
    const cli_argument *argument = &self->command->arguments[self->arguments];
    if (argument->name) {
        return argument_missing(self, argument->name);
    }
    for (const cli_option *option = self->command->options; !is_end(option); option++) {
        if (option->required && is_unset(option)) {
            return wrong(self, "option '--%s' is missing", option->name);
        }
    }
    return CLI_PARSED;
}

cli_parsed cli_parse(const cli_command *command, int count, char *const *argv,
                     char message[CLI_MESSAGE_SIZE]) {
    parser self = {command, count, 0, argv, 0, message};
    bool only_arguments = false;
    while (self.next < count) {
        const char *word = argv[self.next++];
        cli_parsed parsed;
        if (only_arguments || word[0] != '-' || word[1] == 0) {
            parsed = parse_argument(&self, word);
        } else if (strcmp(word, "--") == 0) {
            only_arguments = true;
            parsed = CLI_PARSED;
        } else {
            parsed = word[1] == '-' ? parse_long(&self, word + 2) : parse_letters(&self, word + 1);
        }
        if (parsed != CLI_PARSED) {
            return parsed;
        }
    }
    return check_complete(&self);
}
