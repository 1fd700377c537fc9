/* Which widths a step of a block's training visits (quant/learn.c). */
#ifndef MQ_QUANT_VISIT_H
#define MQ_QUANT_VISIT_H

#include "quant/learner.h"

/* Which trained widths a step visits, and the factors of their losses. draws is used with
 * options->sampled: pass it in its state at this step; it is left in its state at the next step. */
void mq_visit_widths(bool visited[MQ_MAX_WIDTHS], double factor[MQ_MAX_WIDTHS],
                     const mq_learner *learner, mq_random *draws, size_t step);

/* Whether a width that the step visits learns from trained width k (co-distillation). */
bool mq_visit_guides(const mq_learner *learner, size_t k, const bool visited[MQ_MAX_WIDTHS]);

/* The widths whose values the next step reads; only these need to be written after this step.
 * int8's, for example, are wanted only before its own steps, and with options->sampled only those
 * of the width drawn next (and of its teachers). After the last step, all are wanted. */
void mq_visit_next(bool wanted[MQ_MAX_WIDTHS], const mq_learner *learner, size_t step,
                   size_t steps);

#endif
