/* matquant inspect: what a folder is. */
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
    bool trained; /* false: fitted in closed form, or not known */
    /* Of a whole master's widths, those of a slice in MLX's format where that holds the width, else
     * in matquant's; of a slice its own. */
    double bits_per_weight; /* of the quantized weights, including scales and biases */
    size_t bytes;           /* of a model of this width: quantized weights and everything else */
    double refit_kl; /* KL(full precision ‖ this width), nats a token, on held out calibration text,
                        at the refit's end; NAN: it had none, or the slice has layers of other
                        widths, too */
} mq_width_size;

typedef struct mq_inspection {
    mq_kind kind;
    char architecture[64];
    size_t num_hidden_layers, hidden_size, vocab_size;
    size_t tensors, quantized_tensors; /* logical tensors: a quantized linear counts once */
    size_t weights, quantized_weights; /* numbers of elements */
    size_t bytes;                      /* of all tensor files */
    size_t group_size;                 /* 0: a whole row; MLX slices: that of most tensors */
    size_t other_tensors;              /* quantized tensors with groups of another size */
    size_t other_group_size;           /* the smallest of these sizes; 0: whole rows */
    mq_slice_rule slice_rule;          /* masters only */
    mq_zero_point zero_point;          /* masters only */
    unsigned embedding_bits; /* masters only: minimum width of embeddings and head; 0: they are not
                                quantized */
    size_t width_count;
    mq_width_size widths[MQ_MAX_WIDTHS];
    char *provenance; /* text of matquant.json without its "tensors", "blocks" and "files", or NULL;
                         freed with the struct */
} mq_inspection;

/* folder: a plain checkpoint, a master, or a slice in the format mlx, safetensors or matquant.
 * Fills in *out, which the caller frees with mq_inspection_free; after an error there is nothing to
 * free. MQ_ERR_INPUT: it is none of these, or damaged as far as the headers and JSON files say:
 * also if its tensors are not those of the model in config.json (mq_verify reads the rest);
 * MQ_ERR_USAGE: it is NULL; MQ_ERR_MACHINE. */
mq_status mq_inspect(mq_inspection *out, const char *folder, mq_error *err);
void mq_inspection_free(mq_inspection *inspection);

#ifdef __cplusplus
}
#endif
#endif
