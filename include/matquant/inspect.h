/* matquant inspect and verify: what a folder is, and whether it is whole. */
#ifndef MATQUANT_INSPECT_H
#define MATQUANT_INSPECT_H

#include "matquant/context.h"
#include "matquant/format.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mq_kind { MQ_KIND_PLAIN, MQ_KIND_MASTER, MQ_KIND_SLICE } mq_kind;

typedef struct mq_width_size {
    unsigned width;
    bool trained;           /* false: closed form, or not known */
    double bits_per_weight; /* of the quantized weights, scales and biases counted */
    size_t bytes;           /* of a model of this width: quantized weights, and everything else */
} mq_width_size;

typedef struct mq_inspection {
    mq_kind kind;
    char architecture[64];
    size_t num_hidden_layers, hidden_size, vocab_size;
    size_t tensors, quantized_tensors; /* logical ones: a quantized linear counts once */
    size_t weights, quantized_weights; /* elements */
    size_t bytes;                      /* all tensor files */
    size_t group_size;                 /* 0: a row; of an MLX slice, what most tensors have */
    size_t other_tensors;              /* quantized ones whose groups are of another size */
    size_t other_group_size;           /* the least of theirs; 0: rows */
    mq_slice_rule slice_rule;          /* masters */
    mq_zero_point zero_point;          /* masters */
    unsigned embedding_bits; /* masters: the least that embeddings and head have; 0: they are not
                                quantized */
    size_t width_count;
    mq_width_size widths[MQ_MAX_WIDTHS];
    char *provenance; /* text of matquant.json without its "tensors" and "blocks", or NULL; freed
                         with the struct */
} mq_inspection;

/* folder: a plain checkpoint, a master, or a slice in MLX's format. */
mq_status mq_inspect(mq_inspection *out, const char *folder, mq_error *err);
void mq_inspection_free(mq_inspection *inspection);

typedef struct mq_verify_report {
    size_t tensors, bytes; /* checked */
    size_t compared;       /* tensors found byte for byte equal to the source's, with against */
    size_t problems; /* all of them are counted and sent to the context's sink as warnings, one line
                        each */
} mq_verify_report;

/* Checks CRC-32, shape and finite values of every tensor of a master (or a slice, as far as its
 * provenance goes), its groups' sizes, slice rule and zero point in config.json and its tokenizer
 * against the provenance, and with against != NULL that every other tensor, and every small file
 * that is copied, is byte for byte the one of that source. Problems found: MQ_ERR_CHECK, with the
 * first in err; a folder that cannot be read at all is MQ_ERR_INPUT. */
mq_status mq_verify(mq_verify_report *report, const char *master, const char *against,
                    const mq_context *context, mq_error *err);

#ifdef __cplusplus
}
#endif
#endif
