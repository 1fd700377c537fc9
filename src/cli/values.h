/* Reading the values of options. Each returns NULL, or what it expected instead ("a whole number of
 * at least 1") written into expected[size]. *out is only changed on success. */
#ifndef MATQUANT_CLI_VALUES_H
#define MATQUANT_CLI_VALUES_H

#include "options.h"

/* A value of option->type from text into option->value. */
const char *cli_read_value(const cli_option *option, const char *text, char *expected, size_t size);

/* The value as it would be written on the command line, for --help; "" when there is nothing to
 * show. */
void cli_show_value(char *out, size_t size, const cli_option *option);

#endif
