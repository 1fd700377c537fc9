/* Which widths a step of a block's training visits (quant/learn.c). */
#ifndef MQ_QUANT_VISIT_H
#define MQ_QUANT_VISIT_H

#include "quant/learner.h"

/* Which trained widths a step visits, and the factors of their losses. draws: with
 * options->sampled, as the step finds it; left as the next one does. */
void mq_visit_widths(bool visited[MQ_MAX_WIDTHS], double factor[MQ_MAX_WIDTHS],
                     const mq_learner *learner, mq_random *draws, size_t step);

/* Whether a width that the step visits learns from trained width k (co-distillation). */
bool mq_visit_guides(const mq_learner *learner, size_t k, const bool visited[MQ_MAX_WIDTHS]);

/* The widths whose values the step after this one reads, so that no others are written: every
 * eighth time will do for int8's, and one of three with options->sampled. After the last step, all.
 */
void mq_visit_next(bool wanted[MQ_MAX_WIDTHS], const mq_learner *learner, size_t step,
                   size_t steps);

#endif
