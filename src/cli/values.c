#include "values.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "matquant/names.h"
#include "matquant/quantize.h"

/* A whole number in decimal without sign; false when text is anything else or does not fit. *end is
 * what follows. */
static bool read_digits(uint64_t *out, const char *text, const char **end) {
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    char *after;
    unsigned long long value = strtoull(text, &after, 10);
    if (errno != 0 || value > UINT64_MAX) {
        return false;
    }
    *out = value;
    *end = after;
    return true;
}

static bool in_range(double value, const cli_option *option) {
    return value >= option->min && (option->max == 0 || value <= option->max);
}

static const char *expect_range(char *expected, size_t size, const cli_option *option,
                                const char *what) {
    if (option->max != 0) {
        snprintf(expected, size, "%s from %.10g to %.10g", what, option->min, option->max);
    } else if (option->min > 0) {
        snprintf(expected, size, "%s of at least %.10g", what, option->min);
    } else {
        snprintf(expected, size, "%s", what);
    }
    return expected;
}

static const char *read_count(char *expected, size_t size, const cli_option *option,
                              const char *text) {
    uint64_t value;
    const char *end;
    if (!read_digits(&value, text, &end) || *end != 0 || value > SIZE_MAX ||
        !in_range((double)value, option)) {
        return expect_range(expected, size, option, "a whole number");
    }
    *(size_t *)option->value = (size_t)value;
    return NULL;
}

static const char *read_bytes(char *expected, size_t size, const cli_option *option,
                              const char *text) {
    static const char suffixes[] = "KMG";
    uint64_t value;
    const char *end;
    bool good = read_digits(&value, text, &end);
    if (good && *end != 0) {
        const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
        unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
        good = suffix && end[1] == 0 && value <= (SIZE_MAX >> shift);
        value = good ? value << shift : 0;
    }
    if (!good || value > SIZE_MAX || !in_range((double)value, option)) {
        return expect_range(
            expected, size, option,
            "bytes as a whole number, such as 500M or 2G (K, M, G: powers of 1024)");
    }
    *(size_t *)option->value = (size_t)value;
    return NULL;
}

static const char *read_seed(char *expected, size_t size, const cli_option *option,
                             const char *text) {
    uint64_t value;
    const char *end;
    if (!read_digits(&value, text, &end) || *end != 0 || value > MQ_LARGEST_SEED) {
        snprintf(expected, size, "a whole number up to 2^53");
        return expected;
    }
    *(uint64_t *)option->value = value;
    return NULL;
}

/* A finite decimal number; what follows is at *end. */
static bool read_double(double *out, const char *text, char **end) {
    if (!isdigit((unsigned char)text[0]) && text[0] != '.' && text[0] != '-' && text[0] != '+') {
        return false; /* strtod would take white space, "inf" and "nan" */
    }
    double value = strtod(text, end);
    if (*end == text || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

static const char *read_number(char *expected, size_t size, const cli_option *option,
                               const char *text) {
    double value;
    char *end;
    if (!read_double(&value, text, &end) || *end != 0 || !in_range(value, option)) {
        const bool unbounded = option->max == 0 && option->min == 0;
        const char *what = unbounded && text[0] == '-' ? "a number of at least 0" : "a number";
        return expect_range(expected, size, option, what);
    }
    *(double *)option->value = value;
    return NULL;
}

static const char *read_choice(char *expected, size_t size, const cli_option *option,
                               const char *text) {
    unsigned index;
    if (mq_name_find(&index, option->choices, text)) {
        *(unsigned *)option->value = (unsigned)option->min + index;
        return NULL;
    }
    size_t used = 0;
    for (size_t i = 0; option->choices[i]; i++) {
        const char *separator = i == 0 ? "" : option->choices[i + 1] ? ", " : " or ";
        int length = snprintf(expected + used, size - used, "%s%s", separator, option->choices[i]);
        if (length < 0 || (size_t)length >= size - used) {
            break;
        }
        used += (size_t)length;
    }
    return expected;
}

static bool read_in_range(size_t *out, const cli_option *option, const char **at) {
    uint64_t value;
    if (!read_digits(&value, *at, at) || value > SIZE_MAX || !in_range((double)value, option)) {
        return false;
    }
    *out = (size_t)value;
    return true;
}

/* Of a list that goes on where there is no more room. */
static const char *expect_shorter(char *expected, size_t size) {
    snprintf(expected, size, "a list of at most %d", CLI_LIST_SIZE);
    return expected;
}

/* One term up to a comma or the end, for which there is room; a pair only where the option takes
 * them. */
static bool read_term(cli_terms *list, const cli_option *option, const char **at) {
    size_t from = 0, to = 0;
    if (!read_in_range(&to, option, at)) {
        return false;
    }
    if (option->type == CLI_TERMS && (**at == '>' || **at == ':')) {
        ++*at;
        from = to;
        if (!read_in_range(&to, option, at)) {
            return false;
        }
    }
    for (size_t i = 0; i < list->count && !option->repeats; i++) {
        if (list->from[i] == from && list->to[i] == to) {
            return false;
        }
    }
    list->from[list->count] = from;
    list->to[list->count++] = to;
    return **at == ',' || **at == 0;
}

static const char *read_terms(char *expected, size_t size, const cli_option *option,
                              const char *text) {
    cli_terms list = {.count = 0};
    const char *at = text;
    while (read_term(&list, option, &at)) {
        if (*at == 0) {
            if (option->type == CLI_TERMS) {
                *(cli_terms *)option->value = list;
            } else {
                cli_counts *counts = option->value;
                counts->count = list.count;
                memcpy(counts->items, list.to, sizeof counts->items);
            }
            return NULL;
        }
        at++;
        if (list.count == CLI_LIST_SIZE) {
            return expect_shorter(expected, size);
        }
    }
    return expect_range(expected, size, option,
                        option->type == CLI_TERMS
                            ? "different whole numbers or pairs of them such as 8:2, separated by "
                              "commas, each number"
                        : option->repeats ? "whole numbers, separated by commas,"
                                          : "different whole numbers, separated by commas,");
}

static const char *read_numbers(char *expected, size_t size, const cli_option *option,
                                const char *text) {
    cli_numbers list = {.count = 0};
    const char *at = text;
    bool good = true;
    while (good) {
        double value = 0;
        char *end = NULL;
        good =
            read_double(&value, at, &end) && in_range(value, option) && (*end == ',' || *end == 0);
        if (good) {
            list.items[list.count++] = value;
            at = end + 1;
            if (*end == 0) {
                *(cli_numbers *)option->value = list;
                return NULL;
            }
            if (list.count == CLI_LIST_SIZE) {
                return expect_shorter(expected, size);
            }
        }
    }
    return expect_range(expected, size, option, "numbers, separated by commas,");
}

/* The pattern is everything before the last '='. */
static const char *read_layer_bits(char *expected, size_t size, const cli_option *option,
                                   const char *text) {
    cli_layer_bits *list = option->value;
    const char *equals = strrchr(text, '=');
    const char *end = equals == NULL ? text : equals + 1;
    size_t width = 0;
    if (equals == NULL || equals == text || !read_in_range(&width, option, &end) || *end != 0) {
        return expect_range(expected, size, option, "a PATTERN=R with R");
    }
    if (list->count == CLI_TEXTS_SIZE) {
        snprintf(expected, size, "at most %d of it", CLI_TEXTS_SIZE);
        return expected;
    }
    list->items[list->count++] = (mq_layer_bits){
        .pattern = text, .length = (size_t)(equals - text), .width = (unsigned)width};
    return NULL;
}

static const char *read_text(char *expected, size_t size, const cli_option *option,
                             const char *text) {
    if (text[0] == 0) {
        snprintf(expected, size, "a %s", option->argument);
        return expected;
    }
    if (option->type == CLI_TEXT) {
        *(const char **)option->value = text;
        return NULL;
    }
    cli_texts *texts = option->value;
    if (texts->count == CLI_TEXTS_SIZE) {
        snprintf(expected, size, "at most %d of it", CLI_TEXTS_SIZE);
        return expected;
    }
    texts->items[texts->count++] = text;
    return NULL;
}

const char *cli_read_value(char *expected, size_t size, const cli_option *option,
                           const char *text) {
    switch (option->type) {
    case CLI_TEXT:
    case CLI_TEXTS:
        return read_text(expected, size, option, text);
    case CLI_COUNT:
        return read_count(expected, size, option, text);
    case CLI_SEED:
        return read_seed(expected, size, option, text);
    case CLI_BYTES:
        return read_bytes(expected, size, option, text);
    case CLI_NUMBER:
        return read_number(expected, size, option, text);
    case CLI_CHOICE:
        return read_choice(expected, size, option, text);
    case CLI_COUNTS:
    case CLI_TERMS:
        return read_terms(expected, size, option, text);
    case CLI_NUMBERS:
        return read_numbers(expected, size, option, text);
    case CLI_LAYER_BITS:
        return read_layer_bits(expected, size, option, text);
    case CLI_HEADING:
    case CLI_FLAG:
    case CLI_CLEAR:
        break;
    }
    snprintf(expected, size, "no value");
    return expected;
}

/* Appends to out[size], which holds *used characters; what does not fit is cut. */
static void append_number(char *out, size_t size, size_t *used, const char *separator,
                          double number) {
    int length = snprintf(out + *used, size - *used, "%s%.10g", separator, number);
    if (length > 0) {
        *used = *used + (size_t)length < size ? *used + (size_t)length : size - 1;
    }
}

void cli_show_value(char *out, size_t size, const cli_option *option) {
    out[0] = 0;
    if (option->hide_default) {
        return;
    }
    size_t used = 0;
    switch (option->type) {
    case CLI_TEXT:
        if (*(const char **)option->value) {
            snprintf(out, size, "%s", *(const char **)option->value);
        }
        break;
    case CLI_COUNT:
    case CLI_BYTES:
        snprintf(out, size, "%zu", *(size_t *)option->value);
        break;
    case CLI_SEED:
        snprintf(out, size, "%llu", (unsigned long long)*(uint64_t *)option->value);
        break;
    case CLI_NUMBER:
        append_number(out, size, &used, "", *(double *)option->value);
        break;
    case CLI_CHOICE: {
        const unsigned index = *(unsigned *)option->value - (unsigned)option->min;
        const char *name = mq_name_at(option->choices, index);
        snprintf(out, size, "%s", name ? name : "");
        break;
    }
    case CLI_COUNTS: {
        const cli_counts *list = option->value;
        for (size_t i = 0; i < list->count; i++) {
            append_number(out, size, &used, i ? "," : "", (double)list->items[i]);
        }
        break;
    }
    case CLI_TERMS: {
        const cli_terms *list = option->value;
        for (size_t i = 0; i < list->count; i++) {
            if (list->from[i] > 0) {
                append_number(out, size, &used, i ? "," : "", (double)list->from[i]);
            }
            append_number(out, size, &used,
                          list->from[i] > 0 ? ">"
                          : i               ? ","
                                            : "",
                          (double)list->to[i]);
        }
        break;
    }
    case CLI_NUMBERS: {
        const cli_numbers *list = option->value;
        for (size_t i = 0; i < list->count; i++) {
            append_number(out, size, &used, i ? "," : "", list->items[i]);
        }
        break;
    }
    case CLI_HEADING:
    case CLI_FLAG:
    case CLI_CLEAR:
    case CLI_TEXTS:
    case CLI_LAYER_BITS:
        break;
    }
}
