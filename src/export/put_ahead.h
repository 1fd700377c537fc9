/* Parts of an output on their way to where they are put: collected in batches, and each batch put
 * while the next one is made, as a task: by a thread of the caller's OpenMP team that has nothing
 * else to do, or by the caller where it has to wait. (A thread of its own would take processors
 * from the team's, which wait for work without sleeping.) What is put, and in which order, is the
 * same with and without a team. */
#ifndef MQ_EXPORT_PUT_AHEAD_H
#define MQ_EXPORT_PUT_AHEAD_H

#include "export/stream.h"

typedef struct mq_put_ahead mq_put_ahead;

/* Two batches of batch_bytes each, or one if not ahead. put is called by one thread at a time,
 * maybe another than the caller's if ahead. All calls have to come from one task, which makes no
 * other tasks that outlive a call of its own. */
mq_status mq_put_ahead_begin(mq_put_ahead **out, size_t batch_bytes, mq_put_part *put, void *user,
                             bool ahead, mq_error *err);

/* Room for some of `rows` rows (at least 1) of row_bytes, at most batch_bytes each, aligned to
 * MQ_ALIGNMENT: how many is written to *count. The room lasts until the part that is made in it is
 * given. Fails with what an earlier part failed with. */
mq_status mq_put_ahead_room(mq_put_ahead *self, unsigned char **room, size_t *count, size_t rows,
                            size_t row_bytes, mq_error *err);

/* The part that was made in the room that was asked for last, or one that stands elsewhere and
 * stays until the end. Fails with what an earlier part failed with. */
mq_status mq_put_ahead_give(mq_put_ahead *self, size_t index, size_t offset, const void *data,
                            size_t bytes, mq_error *err);

/* Puts what is left, and frees. status: what the caller came to; parts before that are put all the
 * same, and the first failure in the order of parts is the one that counts. */
mq_status mq_put_ahead_end(mq_put_ahead *self, mq_status status, mq_error *err);

#endif
