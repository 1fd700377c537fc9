/* matquant slice: cuts one width out of a master, in a format that other programs load. */
#ifndef MATQUANT_SLICE_H
#define MATQUANT_SLICE_H

#include "matquant/context.h"
#include "matquant/mixture.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the slice is written as. mq_format_at describes each; docs/formats.md says which programs
 * read it. */
typedef enum mq_slice_format {
    MQ_SLICE_FORMAT_MLX,
    MQ_SLICE_FORMAT_GGUF, /* the only one that is a file; its name must end in .gguf, in upper or
                             lower case, and no folder's may */
    MQ_SLICE_FORMAT_COMPRESSED_TENSORS,
    MQ_SLICE_FORMAT_GPTQ,
    MQ_SLICE_FORMAT_SAFETENSORS,
    MQ_SLICE_FORMAT_MATQUANT
} mq_slice_format;

/* The element type of plain weights: in safetensors all, in GGUF all matrices, else what is not
 * quantized. */
typedef enum mq_slice_dtype {
    MQ_SLICE_DTYPE_SOURCE, /* safetensors: that of the source's embeddings; GGUF: its quantized
                              types, not plain weights; all others: every tensor's own */
    MQ_SLICE_DTYPE_BF16,
    MQ_SLICE_DTYPE_F16,
    MQ_SLICE_DTYPE_F32
} mq_slice_dtype;

typedef struct mq_slice_options {
    const char *master, *output;     /* output: a folder, or the format's file */
    unsigned width;                  /* 2 ... 8 */
    const mq_layer_bits *layer_bits; /* [layer_bits_count]: layers of other widths, not in the
                                        formats compressed-tensors and matquant */
    size_t layer_bits_count;
    mq_slice_format format;
    mq_slice_dtype dtype;  /* must be SOURCE in the format matquant */
    bool plain_embeddings; /* compressed-tensors and gptq: store a quantized embedding and head
                              dequantized, for readers that cannot load packed ones */
    bool force;            /* replace the output if it exists */
    size_t max_shard_size; /* bytes; 0: one file. GGUF is always one: must be 0 */
} mq_slice_options;

/* Format mlx, dtype SOURCE, one file, nothing replaced. master and output are NULL and width is 0:
 * they must be set. */
mq_slice_options mq_slice_defaults(void);

/* The error of a tensor whose numbers the format cannot hold as they are in the slice. */
typedef struct mq_slice_cost {
    char *tensor;          /* its name in the output */
    double relative_error; /* Σ (w - slice's w)² / Σ (slice's w)² */
} mq_slice_cost;

typedef struct mq_slice_report {
    size_t tensors, bytes_read, bytes_written;
    double bits_per_weight; /* of the quantized weights, including scales and biases */
    mq_width_counts widths; /* of the quantized layers */
    double seconds;
    double relative_error; /* of those in costs that are quantized in the master, together; 0 if
                              these are exactly the slice's */
    mq_slice_cost *costs;  /* [cost_count], in the order of the output */
    size_t cost_count;
} mq_slice_report;

/* A slice that the format has no way to hold is refused (MQ_ERR_USAGE) before anything is written,
 * with a message that says what to use instead. *report must be freed with mq_slice_report_free in
 * every case, on failure as well. */
mq_status mq_slice(mq_slice_report *report, const mq_slice_options *options,
                   const mq_context *context, mq_error *err);
void mq_slice_report_free(mq_slice_report *report);

/* A format's name, as in the program's options and in the provenance ("mlx"); what it is, in one
 * line; and the widths that it holds, in text ("2, 3, 4, 5, 6, 8"). All are static. */
typedef struct mq_format_info {
    const char *name, *summary, *widths;
} mq_format_info;

/* The description of an mq_slice_format, which may be any number; NULL: there is no such format.
 * The values have no gaps, so counting from 0 up to NULL lists all formats. */
const mq_format_info *mq_format_at(size_t format);

/* The format that an output's name says, slashes at its end apart: GGUF for one that ends in .gguf,
 * in upper or lower case, else MLX. */
mq_slice_format mq_slice_format_of(const char *output);

#ifdef __cplusplus
}
#endif
#endif
