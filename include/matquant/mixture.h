/* Models of mixed widths ("Mix'n'Match", arXiv 2502.06786, section 4.4): single layers of a master
 * served at other widths than the rest, from the same codes. */
#ifndef MATQUANT_MIXTURE_H
#define MATQUANT_MIXTURE_H

#include <stddef.h>

#include "matquant/format.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The layers whose names the pattern is found in have `width` bits, in place of the model's. Names
 * are those of the source's tensors without ".weight", as for mq_quantize_options.include. In a
 * list of these, the last that matches a layer counts. An embedding or head has no fewer bits than
 * it is stored with. */
typedef struct mq_layer_bits {
    const char *pattern; /* [length], a regular expression (PCRE2) */
    size_t length;
    unsigned width; /* 2 ... 8, one that the master serves */
} mq_layer_bits;

/* How many quantized layers have which width, and how many weights these have. */
typedef struct mq_width_counts {
    size_t layers[MQ_MAX_WIDTH + 1], weights[MQ_MAX_WIDTH + 1]; /* [width] */
} mq_width_counts;

/* The width of a weight on average, scales and biases not counted; 0 if nothing is quantized. */
double mq_mean_bits(const mq_width_counts *counts);
/* "180 layers of 4 bits, 30 of 2" into out[size], cut if it does not fit; always terminated. */
const char *mq_width_counts_text(char *out, size_t size, const mq_width_counts *counts);
/* The number of different widths. */
size_t mq_width_counts_size(const mq_width_counts *counts);

#ifdef __cplusplus
}
#endif
#endif
