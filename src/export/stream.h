/* Writing a slice's tensors in row blocks: what the formats of this folder have in common. */
#ifndef MQ_EXPORT_STREAM_H
#define MQ_EXPORT_STREAM_H

#include "export/export.h"
#include "store/slice_layout.h"

/* Writes all tensors of the layout, config (config.json), the small files of the master, and
 * matquant.json with where the slice comes from and the CRC-32 of every tensor. Never holds more
 * than a block of rows. */
mq_status mq_export_stream(const mq_export_job *job, const mq_slice_layout *layout,
                           const cJSON *config, const char *format, mq_slice_report *report,
                           mq_error *err);

/* {"group_size": N, "bits": R}, or NULL for lack of memory. */
cJSON *mq_export_quantization(size_t group_size, unsigned width);

#endif
