/* Quantized checkpoints as a source of float32 weights (model/weights.h). Master and slice go
 * through the same routine, so that the same width gives the same bits. */
#ifndef MQ_STORE_QUANTIZED_WEIGHTS_H
#define MQ_STORE_QUANTIZED_WEIGHTS_H

#include "store/mixture.h"
#include "store/readers.h"

/* out[in] = scales[g]·slices[i] + biases[g] with g = i / (in/groups); the product rounded, then the
 * sum. */
void mq_dequantize_row(float *out, const uint8_t *slices, const float *scales, const float *biases,
                       size_t in, size_t groups);

/* The model of these widths; a norm that is private to a width is read under its plain name.
 * The mixture and its master, or the slice, must outlive the weights. */
mq_status mq_master_weights(mq_weights **out, const mq_mixture *mixture, mq_error *err);
mq_status mq_slice_weights(mq_weights **out, const mq_slice_reader *slice, mq_error *err);

/* A check of a model, mq_model_check or mq_model_check_shapes, of a master or, where that is NULL,
 * of a slice, under a configuration that has its layout. */
mq_status mq_quantized_check(const mq_config *config, const mq_master *master,
                             const mq_slice_reader *slice,
                             mq_status (*check)(const mq_model *model, mq_error *err),
                             mq_error *err);

#endif
