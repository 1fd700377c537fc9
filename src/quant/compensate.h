/* Error-compensating rounding (GPTQ, arXiv 2210.17323, algorithm 1): what it needs to know of a
 * layer's inputs, whatever grid then rounds. */
#ifndef MQ_QUANT_COMPENSATE_H
#define MQ_QUANT_COMPENSATE_H

#include "base/alloc.h"
#include "base/context.h"

/* With H = XᵀX of a layer's inputs X, taken in the order of `order` and with a damped diagonal,
 * UᵀU = H⁻¹. When input i of a row has been rounded with the error e (what it was less what it is),
 * -e·U[i][j]/U[i][i] on every later weight j of the row leaves the least error of the layer's
 * output that they can leave. */
typedef struct mq_compensation {
    size_t in;
    uint32_t *order; /* [in]: the most active inputs first */
    float *factor;   /* U [in, in], row-major, upper triangle; nothing below it means anything */
} mq_compensation;

void mq_compensation_carve(mq_compensation *self, size_t in, mq_slab *slab);

/* From the upper triangle of gram[in, in]. False when it has no factor however it is damped: no
 * input ever moved, or one was not finite. */
bool mq_compensation_set(mq_compensation *self, const float *gram, const mq_context *context);

/* What each thread works with, the same for all layers of a block: at least `bytes` each. */
typedef struct mq_compensation_work {
    unsigned char *memory;
    size_t bytes, threads;
} mq_compensation_work;

#endif
