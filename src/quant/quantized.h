/* What quantizing a linear layer results in; see matquant/format.h for the meaning. */
#ifndef MQ_QUANT_QUANTIZED_H
#define MQ_QUANT_QUANTIZED_H

#include <stddef.h>
#include <stdint.h>

#include "matquant/format.h"

typedef struct mq_quantized {
    size_t out, in, groups;
    uint8_t *codes; /* [out, in] */
    uint16_t
        *scales[MQ_MAX_WIDTH + 1]; /* by width 2 … 8: [out, groups] as float16; NULL: not served */
    uint16_t *biases[MQ_MAX_WIDTH + 1];
} mq_quantized;

#endif
