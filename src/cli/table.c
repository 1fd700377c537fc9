#include "table.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "matquant/error.h"

#define FIELD_WIDTH 22

void cli_table_row(cli_table *table) {
    assert(table->rows < CLI_TABLE_ROWS);
    table->rows++;
    table->columns = 0;
}

void cli_table_cell(cli_table *table, const char *format, ...) {
    assert(table->rows > 0 && table->columns < CLI_TABLE_COLUMNS);
    va_list list;
    va_start(list, format);
    char *cell = table->cells[table->rows - 1][table->columns++];
    vsnprintf(cell, CLI_CELL_SIZE, format, list);
    va_end(list);
    mq_make_printable(cell);
}

/* Characters of UTF-8, as most terminals have columns for them. */
static int characters(const char *text) {
    int count = 0;
    for (const char *c = text; *c; c++) {
        count += ((unsigned char)*c & 0xc0) != 0x80;
    }
    return count;
}

/* printf's own width counts bytes. */
static int padded(const char *text, int width) {
    return width + (int)strlen(text) - characters(text);
}

void cli_table_print(FILE *out, const cli_table *table) {
    int widths[CLI_TABLE_COLUMNS] = {0};
    for (size_t r = 0; r < table->rows; r++) {
        for (size_t c = 0; c < CLI_TABLE_COLUMNS; c++) {
            int length = characters(table->cells[r][c]);
            widths[c] = length > widths[c] ? length : widths[c];
        }
    }
    for (size_t r = 0; r < table->rows; r++) {
        const char *first = table->cells[r][0];
        fprintf(out, "%-*s", padded(first, widths[0]), first);
        for (size_t c = 1; c < CLI_TABLE_COLUMNS && widths[c] > 0; c++) {
            const char *cell = table->cells[r][c];
            fprintf(out, "  %*s", padded(cell, widths[c]), cell);
        }
        fputc('\n', out);
    }
}

/* The text is the caller's; NULL: out of memory. */
static char *formatted(const char *format, va_list list) {
    char *text = NULL;
    return vasprintf(&text, format, list) < 0 ? NULL : text;
}

static void print_line(FILE *out, char *line) {
    if (line) {
        mq_make_printable(line);
    }
    fprintf(out, "%s\n", line ? line : "(out of memory)");
    free(line);
}

void cli_print_line(FILE *out, const char *format, ...) {
    va_list list;
    va_start(list, format);
    print_line(out, formatted(format, list));
    va_end(list);
}

void cli_print_field(FILE *out, const char *label, const char *format, ...) {
    char *line = NULL;
    va_list list;
    va_start(list, format);
    char *value = formatted(format, list);
    va_end(list);
    if (value && asprintf(&line, "%-*s%s", FIELD_WIDTH, label, value) < 0) {
        line = NULL;
    }
    free(value);
    print_line(out, line);
}

const char *cli_show_bytes(char *out, size_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.995 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(out, CLI_CELL_SIZE, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return out;
}

const char *cli_show_seconds(char *out, double seconds) {
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(out, CLI_CELL_SIZE, "-");
    } else if (seconds < 99.95) {
        snprintf(out, CLI_CELL_SIZE, "%.1f s", seconds);
    } else {
        long whole = lround(seconds);
        if (whole < 3600) {
            snprintf(out, CLI_CELL_SIZE, "%ld:%02ld", whole / 60, whole % 60);
        } else {
            snprintf(out, CLI_CELL_SIZE, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60,
                     whole % 60);
        }
    }
    return out;
}

double cli_decibels(double loss) { return -10 * log10(loss); }
