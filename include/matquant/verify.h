/* matquant verify: whether a master or a slice is intact. */
#ifndef MATQUANT_VERIFY_H
#define MATQUANT_VERIFY_H

#include "matquant/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a source's files of weights are those that were quantized. */
typedef enum mq_verify_weights {
    MQ_WEIGHTS_UNKNOWN, /* not asked, or it cannot be told: the provenance has no digests of them,
                           or they are called otherwise there */
    MQ_WEIGHTS_SAME,
    MQ_WEIGHTS_OTHER
} mq_verify_weights;

typedef struct mq_verify_report {
    size_t tensors, bytes;     /* checked */
    size_t compared;           /* tensors found equal to the source's, with against */
    mq_verify_weights weights; /* of against */
    size_t problems; /* all are counted, and each is sent to the context's sink as a warning of one
                        line */
} mq_verify_report;

/* Checks CRC-32, type, shape and finite values of every tensor of a master (or a slice, as far as
 * its provenance goes). Compares its tokenizer, and the group sizes, slice rule and zero point in
 * config.json, with the provenance, and config.json and the files that were copied with their
 * digests there, if it has any; then no others of that kind may have been added, and no file of
 * weights (model*.safetensors) may stand there that is not read. If against is not NULL, also
 * checks that every tensor that is not quantized, and every small file that is copied, is byte for
 * byte the one in that source (after slice --dtype: rounded to that type), and that the source's
 * files of weights, all of which are read, are those that were quantized, by their SHA-256 in the
 * provenance. If they are called otherwise there, as after sharding them anew, one more warning
 * says that of the quantized layers it cannot be told; that is no problem, and neither is a
 * provenance that has none of these digests, of which nothing is said. Problems found:
 * MQ_ERR_CHECK, with the first in err. A folder that cannot be read at all: MQ_ERR_INPUT; none:
 * MQ_ERR_USAGE. All of it is one thread's work, whatever number the context has. *report owns
 * nothing that would have to be freed. */
mq_status mq_verify(mq_verify_report *report, const char *folder, const char *against,
                    const mq_context *context, mq_error *err);

#ifdef __cplusplus
}
#endif
#endif
