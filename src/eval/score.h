/* Running models, or a model at several widths, and their reference over windows of tokens. */
#ifndef MQ_EVAL_SCORE_H
#define MQ_EVAL_SCORE_H

#include "model/block.h"
#include "text/corpus.h"

/* Hidden states of as many windows as fit here are held at once; longer texts go through the model
 * in several passes. */
#define MQ_EVAL_HIDDEN_BYTES ((size_t)256 << 20)

/* Weights of a block's linear layers: what a token costs there, for progress. */
double mq_block_weight_count(const mq_config *config);

/* What each window is worth; arrays [windows], the caller's. kl, agreement and reference_nll are
 * NULL without a reference. */
typedef struct mq_window_scores {
    double *nll;       /* mean over the window's predictions, nats */
    double *kl;        /* likewise, KL(reference ‖ model) */
    double *agreement; /* share of predictions whose most likely token is the reference's */
    double *reference_nll;
} mq_window_scores;

/* What runs: models[count], count > 0, all of one config.json (the widths of a master), and the
 * reference that each of them is compared with; NULL: none. */
typedef struct mq_scored {
    const mq_model *const *models;
    size_t count;
    const mq_model *reference;
} mq_scored;

/* Scores all windows, into scores[scored->count], `batch` of them at once through each block and
 * the head; a window of length n has n - 1 predictions. Windows pass in groups of whole batches
 * whose hidden states (of all models) stay below hidden_bytes, at least one batch; batches are cut
 * at the same places whatever hidden_bytes is, and so the results do not depend on it, nor on which
 * other models run. Progress: phase "evaluate", unit "window". */
mq_status mq_score_windows(const mq_window_scores *scores, const mq_scored *scored,
                           const mq_sequences *windows, size_t batch, size_t hidden_bytes,
                           const mq_context *context, mq_error *err);

#endif
