/* The table of formats that a slice can be written in: adding a format is adding a file and a row.
 */
#ifndef MQ_EXPORT_EXPORT_H
#define MQ_EXPORT_EXPORT_H

#include "matquant/slice.h"
#include "store/master.h"

typedef struct mq_export_job {
    const mq_master *master;
    const char *folder; /* the master's */
    unsigned width;
    mq_output *output;
    size_t max_shard_size;
    const mq_context *context;
} mq_export_job;

typedef struct mq_export_format {
    mq_format_info info;
    /* Refuses what the format cannot hold, before anything is written (job->output is NULL); else
     * *bytes is what all tensors together will take. */
    mq_status (*check)(size_t *bytes, const mq_export_job *job, mq_error *err);
    /* Adds to the report what it knows: tensors, bytes_read, bits_per_weight. */
    mq_status (*write)(const mq_export_job *job, mq_slice_report *report, mq_error *err);
} mq_export_format;

extern const mq_export_format mq_export_mlx; /* MLX affine: exact */
extern const mq_export_format
    mq_export_matquant; /* codes of the master format, cut to the width: any width */

#endif
