/* Aligned tables of text for people; programs read --json. */
#ifndef MATQUANT_CLI_TABLE_H
#define MATQUANT_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CLI_TABLE_COLUMNS 10 /* eval of several widths has the most */
#define CLI_TABLE_ROWS 72
#define CLI_CELL_SIZE 128 /* bytes; names of tasks are the longest */

/* Names out of files stand in them: what is printed is mq_make_printable of it.
 *
 * Columns are as wide as their widest cell; the first is set flush left, the others flush right.
 * The first row is the head. */
typedef struct cli_table {
    size_t rows, columns;
    char cells[CLI_TABLE_ROWS][CLI_TABLE_COLUMNS][CLI_CELL_SIZE];
} cli_table;

/* Begins a row, then its cells from left to right. Rows and cells past the sizes above are a bug
 * (assert). */
void cli_table_row(cli_table *table);
void cli_table_cell(cli_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void cli_table_print(FILE *out, const cli_table *table);

/* A line of its own. */
void cli_print_line(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line "label    value" of a list, with the values one below the other. */
void cli_print_field(FILE *out, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "1.23 GiB" and "1:02:03" or "12.3 s" into out[CLI_CELL_SIZE]; they return out. */
const char *cli_show_bytes(char *out, size_t bytes);
const char *cli_show_seconds(char *out, double seconds);

/* A loss in decibels below 1, -10·log10(loss): more is better. */
double cli_decibels(double loss);

#endif
