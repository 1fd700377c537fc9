/* The rows that all items of a set are computed in. */
#ifndef MQ_EVAL_TASKS_PACK_H
#define MQ_EVAL_TASKS_PACK_H

#include "eval/tasks.h"

/* A prediction that counts: the row (of its batch) that makes it, the token, and whose it is. */
typedef struct mq_task_prediction {
    size_t row, choice;
    int32_t target;
} mq_task_prediction;

/* Items [first_item[b], first_item[b + 1]) are in batch b, predictions [first_prediction[b],
 * first_prediction[b + 1]) are made by its rows. */
typedef struct mq_task_packing {
    mq_packed *batches; /* [batch_count] */
    size_t batch_count;
    size_t *first_item, *first_prediction; /* [batch_count + 1] */
    mq_task_prediction *predictions;       /* [prediction_count], by item and choice */
    size_t prediction_count, rows;         /* of all batches */
    size_t most_rows, most_predictions;    /* of a batch */
    mq_slab memory;
} mq_task_packing;

/* Batches of consecutive items of at most batch_rows rows, one item at least. Free it with
 * mq_slab_free(&out->memory). */
mq_status mq_task_pack(mq_task_packing *out, const mq_task_set *set, size_t batch_rows,
                       mq_error *err);

#endif
