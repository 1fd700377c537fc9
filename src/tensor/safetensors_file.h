/* One safetensors file, opened and checked: what safetensors_header.c gives to safetensors_read.c.
 */
#ifndef MQ_TENSOR_SAFETENSORS_FILE_H
#define MQ_TENSOR_SAFETENSORS_FILE_H

#include "tensor/safetensors.h"

typedef struct mq_shard {
    char *path;
    mq_mapping mapping;
    mq_tensor_info *infos; /* [count], by rising offset */
    size_t count;
    char *names; /* that infos point to */
} mq_shard;

/* Maps path, parses its header and checks everything that safetensors.h says a reader must reject.
 */
mq_status mq_shard_open(mq_shard *out, const char *path, mq_error *err);
void mq_shard_close(mq_shard *shard); /* {0} allowed */

#endif
