/* Widths of layers: the option that gives them, and how a verb prints what came of it. */
#ifndef MATQUANT_CLI_MIXTURE_H
#define MATQUANT_CLI_MIXTURE_H

#include "json.h"
#include "matquant/mixture.h"

/* A row of the options of verbs that take a width with --bits; layer_bits: a cli_layer_bits. */
#define CLI_LAYER_BITS_OPTION(layer_bits)                                                          \
    {                                                                                              \
        CLI_LAYER_BITS, 0, "layer-bits", &(layer_bits), "PATTERN=R",                               \
            "layers whose name this regular expression matches have R bits, 2 to 8, in place of "  \
            "--bits (embeddings and head: no fewer than they are stored with); may be given "      \
            "several times, and the last that matches a layer counts",                             \
            .min = 2, .max = 8                                                                     \
    }

/* A line, if layers have other widths than the model, or were asked to. */
void cli_print_widths(const mq_width_counts *widths, unsigned width, bool asked);
/* "mean_bits": null if nothing is quantized, and "widths": [{"bits": R, "layers": N}, ...],
 * descending. */
void cli_json_widths(cli_json *json, cJSON *object, const mq_width_counts *widths);

#endif
