/* One safetensors file, opened and checked: what safetensors_header.c gives to safetensors_read.c;
 * and how a sealed file begins, for the reader and the writer. */
#ifndef MQ_TENSOR_SAFETENSORS_FILE_H
#define MQ_TENSOR_SAFETENSORS_FILE_H

#include "tensor/safetensors.h"

/* A sealed file: 8 bytes of length, this, and 8 hexadecimal digits. They are the CRC-32 of the
 * whole file with zeros in their place. */
#define MQ_SEAL_BEFORE "{\"__metadata__\":{\"format\":\"pt\",\"crc32\":\""
#define MQ_SEAL_NONE "00000000"
#define MQ_SEAL_DIGITS (sizeof MQ_SEAL_NONE - 1)
#define MQ_SEAL_AT (8 + sizeof MQ_SEAL_BEFORE - 1)

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
