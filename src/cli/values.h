/* Reading the values of options, and showing them. */
#ifndef MATQUANT_CLI_VALUES_H
#define MATQUANT_CLI_VALUES_H

#include "options.h"

/* Reads a value of option->type from text into *option->value, which is only changed on success.
 * Returns NULL, or what it expected instead ("a whole number of at least 1"), written into
 * expected[size]. */
const char *cli_read_value(char *expected, size_t size, const cli_option *option, const char *text);

/* The value as it would be written on the command line, for --help; "" when there is nothing to
 * show. */
void cli_show_value(char *out, size_t size, const cli_option *option);

#endif
