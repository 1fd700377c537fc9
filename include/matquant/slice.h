/* matquant slice: one width out of a master, in a format that other programs load. */
#ifndef MATQUANT_SLICE_H
#define MATQUANT_SLICE_H

#include "matquant/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_slice_options {
    const char *master, *output;
    unsigned width;     /* 2 ... 8 */
    const char *format; /* a name of the table below; NULL: the first */
    bool force;
    size_t max_shard_size; /* bytes; 0: one file */
} mq_slice_options;

typedef struct mq_slice_report {
    size_t tensors, bytes_read, bytes_written;
    double bits_per_weight; /* of the quantized weights: codes, scales and biases */
    double seconds;
} mq_slice_report;

/* What a format cannot hold is refused (MQ_ERR_USAGE) before anything is written, in a line that
 * says what to use. */
mq_status mq_slice(mq_slice_report *report, const mq_slice_options *options,
                   const mq_context *context, mq_error *err);

typedef struct mq_format_info {
    const char *name, *summary, *widths; /* "mlx", one line for --help, "2, 3, 4, 5, 6, 8" */
} mq_format_info;

const mq_format_info *mq_format_at(size_t index); /* NULL after the last */

#ifdef __cplusplus
}
#endif
#endif
