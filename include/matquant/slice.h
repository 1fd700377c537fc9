/* matquant slice: cuts one width out of a master, in a format that other programs load. */
#ifndef MATQUANT_SLICE_H
#define MATQUANT_SLICE_H

#include "matquant/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_slice_options {
    const char *master, *output;
    unsigned width;        /* 2 ... 8 */
    const char *format;    /* a name from the table below; NULL: the first */
    const char *dtype;     /* of plain weights: "bf16", "f16" or "f32"; NULL: the source's own,
                              and in GGUF quantized types */
    bool plain_embeddings; /* compressed-tensors and gptq: store a quantized embedding and head
                              dequantized, for readers that cannot load packed ones */
    bool force;            /* replace the output if it exists */
    size_t max_shard_size; /* bytes; 0: one file */
} mq_slice_options;

/* The error of a tensor whose numbers the format cannot hold as they are in the slice. */
typedef struct mq_slice_cost {
    char *tensor;          /* its name in the output */
    double relative_error; /* Σ (w - slice's w)² / Σ (slice's w)² */
} mq_slice_cost;

typedef struct mq_slice_report {
    size_t tensors, bytes_read, bytes_written;
    double bits_per_weight; /* of the quantized weights, including scales and biases */
    double seconds;
    double relative_error; /* of all tensors in costs together; 0 if the slice is exact */
    mq_slice_cost *costs;  /* [cost_count], in the order of the output */
    size_t cost_count;
} mq_slice_report;

/* A slice that the format has no way to hold is refused (MQ_ERR_USAGE) before anything is written,
 * with a message that says what to use instead. *report must be freed with mq_slice_report_free in
 * every case, on failure as well. */
mq_status mq_slice(mq_slice_report *report, const mq_slice_options *options,
                   const mq_context *context, mq_error *err);
void mq_slice_report_free(mq_slice_report *report);

typedef struct mq_format_info {
    const char *name, *summary, *widths; /* "mlx", one line for --help, "2, 3, 4, 5, 6, 8" */
} mq_format_info;

const mq_format_info *mq_format_at(size_t index); /* NULL after the last */

#ifdef __cplusplus
}
#endif
#endif
