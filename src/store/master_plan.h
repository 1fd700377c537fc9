/* Which tensors a master checkpoint has, and in which order. */
#ifndef MQ_STORE_MASTER_PLAN_H
#define MQ_STORE_MASTER_PLAN_H

#include "store/master.h"
#include "store/names.h"

/* What the tensor files will hold. The tensors of a linear are declared where its weight stood, so
 * that the blocks keep the source's order: codes, then scales and biases of each width, widest
 * first. */
typedef struct mq_master_plan {
    mq_tensor_spec *specs;
    char (*names)[MQ_STORED_NAME_SIZE]; /* of the tensors that are new; the others keep the source's
                                           pointer */
    size_t name_count;
    const mq_tensor_info **copied; /* beside specs: the source's tensor, or NULL for a new one */
    size_t *first;                 /* beside the layout's linears: index of the codes */
    size_t count;
} mq_master_plan;

/* *plan zeroed before; on failure it is so again. MQ_ERR_INPUT: a linear of the layout that the
 * source has not, or in another shape, or a tensor whose name a master uses itself. Names of copied
 * tensors stay the source's. */
mq_status mq_master_plan_make(mq_master_plan *plan, const mq_master_layout *layout,
                              const mq_tensors *source, mq_error *err);
void mq_master_plan_free(mq_master_plan *plan);

#endif
