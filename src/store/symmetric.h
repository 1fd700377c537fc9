/* What a symmetric zero point promises of a linear's numbers (matquant/format.h). */
#ifndef MQ_STORE_SYMMETRIC_H
#define MQ_STORE_SYMMETRIC_H

#include "store/master.h"

/* That every pair of a width is one of a symmetric zero point, and that no code is 0: MQ_ERR_INPUT
 * with tensor and place else. They read all of the tensors. */
mq_status mq_check_symmetric_pairs(const mq_master_view *view, unsigned width, mq_error *err);
mq_status mq_check_symmetric_codes(const mq_master_view *view, mq_error *err);

#endif
