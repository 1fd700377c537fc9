/* The parts of mq_verify (matquant/verify.h). */
#ifndef MQ_STORE_VERIFICATION_H
#define MQ_STORE_VERIFICATION_H

#include "matquant/verify.h"
#include "store/readers.h"

/* A folder that is being verified: a master or a slice, the other is NULL. */
typedef struct mq_verification {
    const char *folder;
    const mq_master *master;
    const mq_slice_reader *slice;
    const mq_tensors *tensors;
    const cJSON *config, *provenance; /* provenance: NULL when there is none */
    mq_problems *problems;
    mq_verify_report *report;
    const mq_context *context;
} mq_verification;

/* Each of these counts problems and returns MQ_OK; anything else ends the job. */

/* Every tensor's CRC-32, dtype and shape against matquant.json, and that its values are finite. */
mq_status mq_verify_tensors(const mq_verification *self, mq_error *err);
/* Of a master with a symmetric zero point: that its codes and pairs are as the format has them. */
mq_status mq_verify_zero_points(const mq_verification *self, mq_error *err);
/* That the configuration is known and all tensors have the shapes that it makes. */
mq_status mq_verify_shapes(const mq_verification *self, mq_error *err);
/* Of a master: that its layers' groups are as large as config.json says, or as matquant.json says
 * of those that this does not divide. */
mq_status mq_verify_groups(const mq_verification *self, mq_error *err);
/* Of a master: that config.json reads its codes by the slice rule and zero point that the recipe in
 * matquant.json names. */
mq_status mq_verify_settings(const mq_verification *self, mq_error *err);
/* That tokenizer.json is the source's, by the digest that matquant.json has of that. */
mq_status mq_verify_tokenizer(const mq_verification *self, mq_error *err);
/* That config.json and the files that were copied are as they were written, by their digests in
 * matquant.json. Those that something else has looked at are left out: the tokenizer, and with a
 * `source` (else NULL) the files that mq_verify_files_against compares with it. What that does not
 * compare, such as a large file that an earlier program copied, is held to its digest. If there are
 * such digests, a file that would be copied into a slice, but has none and is not the source's
 * either, is a problem. */
mq_status mq_verify_written(const mq_verification *self, const char *source, mq_error *err);
/* That the folder has no files of weights but those that its tensors are read from: other programs
 * may read them. */
mq_status mq_verify_weight_files(const mq_verification *self, mq_error *err);
/* All files that are copied (mq_copy_small_files) against the source's. */
mq_status mq_verify_files_against(const mq_verification *self, const char *source, mq_error *err);
/* The files of the source's weights, which are its folder's, against the digests that matquant.json
 * has of those that were quantized: nothing else says of what weights the codes are. Where they
 * have other names, a warning says that it cannot be told, which is no problem. Reads all of the
 * files. */
mq_status mq_verify_weights_against(const mq_verification *self, const char *folder,
                                    const mq_tensors *source, mq_error *err);
/* All of these, and everything that is not quantized, against the source; MQ_ERR_INPUT when that is
 * no plain checkpoint. */
mq_status mq_verify_against(const mq_verification *self, const char *source, mq_error *err);

#endif
