/* The block loss (docs/method.md, 2) and its gradient. */
#ifndef MQ_QUANT_LOSS_H
#define MQ_QUANT_LOSS_H

#include <stddef.h>

#include "matquant/quantize.h"

/* Of y[tokens, hidden_size] against target:
 *   MQ_LOSS_RELATIVE  mean over tokens of ‖y_t - target_t‖² / ‖target_t‖²
 *   MQ_LOSS_L2        mean over tokens and dimensions of (y - target)²
 * The result does not depend on the number of threads. */
double mq_block_loss_value(const float *y, const float *target, size_t tokens, size_t hidden_size,
                           mq_loss loss);

/* The block's target, and the output of every wider width. */
#define MQ_MAX_GOALS MQ_MAX_WIDTHS

/* One term of a loss: what y should be, and how much that weighs. */
typedef struct mq_goal {
    const float *target; /* [tokens, hidden_size] */
    double weight;
} mq_goal;

/* Overwrites y with ∂/∂y of the sum over goals[count], 1 <= count <= MQ_MAX_GOALS, of
 * weight · loss(y, target). */
void mq_block_loss_gradient(float *y, const mq_goal goals[], size_t count, size_t tokens,
                            size_t hidden_size, mq_loss loss);

#endif
