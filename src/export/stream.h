/* Writing the pieces of a plan in blocks of rows: what all formats have in common. */
#ifndef MQ_EXPORT_STREAM_H
#define MQ_EXPORT_STREAM_H

#include "export/plan.h"

/* Takes bytes [offset, offset + bytes) of piece number index; pieces in their order, bytes in
 * rising order without gap. Called from one thread at a time, maybe another than the caller's. */
typedef mq_status mq_put_part(void *user, size_t index, size_t offset, const void *data,
                              size_t bytes, mq_error *err);

/* Never holds more than two blocks of rows (of job->block_bytes, or a row that is longer), one
 * being filled while the other is put, and what the format's fill holds. Fills are called by the
 * caller's thread, in a team of OpenMP's: what they share out is tasks. Checks for an interrupt
 * before each block. MQ_ERR_INPUT when a scale or a bias is not finite, or not as the master's zero
 * point has it: it must not travel on. */
mq_status mq_stream_pieces(mq_plan *plan, mq_put_part *put, void *user, mq_error *err);

/* Bytes [offset, offset + bytes) of a tensor that is passed on, whole elements: MQ_ERR_INPUT, with
 * the offset in its file, when a weight among them is not finite. Other types pass. */
mq_status mq_stream_check_finite(const mq_tensor_info *info, size_t offset, size_t bytes,
                                 mq_error *err);

#endif
