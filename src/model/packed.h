/* Sequences of different lengths in one array of rows, without padding, where a sequence may go on
 * from rows of earlier ones: what several sequences begin with is computed once. */
#ifndef MQ_MODEL_PACKED_H
#define MQ_MODEL_PACKED_H

#include "base/context.h"
#include "model/weights.h"

/* Rows [first, first + count) of a batch: tokens that follow one another. */
typedef struct mq_row_run {
    size_t first, count;
} mq_row_run;

/* Its tokens are those of the rows `before`, in that order, and then its own. Each row is the own
 * one of exactly one sequence; runs before are rows of earlier sequences, whose tokens stand at the
 * same positions there and have the same tokens before them. */
typedef struct mq_packed_sequence {
    mq_row_run own;           /* count > 0 */
    size_t position;          /* of the first own token: the sum of before's counts */
    const mq_row_run *before; /* [before_count], each with count > 0 */
    size_t before_count;
} mq_packed_sequence;

typedef struct mq_packed {
    size_t rows;
    const int32_t *ids;      /* [rows] */
    const size_t *positions; /* [rows], from 0 */
    size_t longest;          /* largest position + 1 */
    const mq_packed_sequence *sequences;
    size_t sequence_count;
} mq_packed;

/* hidden[Σ rows, hidden_size] of the last block, the batches' rows one after the other; as
 * mq_model_forward, holding one block's weights at a time and the activations of one batch. A token
 * attends to what is before it in its sequence (within the window, in local layers) and is rotated
 * by its position there: the rows are those of each sequence by itself, up to rounding. No sequence
 * may be longer than max_position_embeddings, so that dynamic NTK rotates them all alike
 * (MQ_ERR_USAGE). Progress is reported as `phase`, unit "block", after each batch. */
mq_status mq_packed_forward(float *hidden, const mq_model *model, const mq_packed *batches,
                            size_t count, const char *phase, const mq_context *context,
                            mq_error *err);

#endif
