/* What a slice of a master will hold, tensor for tensor: the plan that src/export writes by and
 * that inspect counts by. */
#ifndef MQ_STORE_SLICE_LAYOUT_H
#define MQ_STORE_SLICE_LAYOUT_H

#include "store/readers.h"

typedef enum mq_slice_form {
    MQ_SLICE_MLX, /* P.weight U32 [out, in·r/32], P.scales and P.biases F16 [out, in/group_size] */
    MQ_SLICE_MATQUANT /* a master that serves this width alone: P.codes with the lower bits 0, pairs
                         as they were */
} mq_slice_form;

typedef enum mq_piece_kind {
    MQ_PIECE_COPY,  /* source's bytes */
    MQ_PIECE_CODES, /* linear's codes, sliced (and packed) */
    MQ_PIECE_AFFINE /* source's rows, each number `repeat` times */
} mq_piece_kind;

typedef struct mq_slice_piece {
    mq_piece_kind kind;
    const mq_tensor_info *source;
    const mq_master_view *linear; /* not of MQ_PIECE_COPY */
    size_t repeat;
    bool is_private; /* NAME.wR, shipped as NAME */
} mq_slice_piece;

typedef struct mq_slice_layout {
    mq_slice_form form;
    unsigned width;
    mq_tensor_spec *specs;  /* [count], in the order of the master's files */
    mq_slice_piece *pieces; /* [count] */
    size_t count;
    size_t group_size; /* MLX: that of most layers, the largest of those; else the master's */
    size_t quantized_weights; /* elements */
    size_t quantized_bytes;   /* codes, scales and biases */
    size_t bytes;             /* of all tensors, headers not counted */
    char *names;              /* of the specs */
} mq_slice_layout;

/* MQ_ERR_USAGE when the width is not served, or when MLX's format cannot hold it: the error says
 * what can. */
mq_status mq_slice_layout_make(mq_slice_layout *out, const mq_master *master, unsigned width,
                               mq_slice_form form, mq_error *err);
void mq_slice_layout_free(mq_slice_layout *layout);

/* MLX's group size for a layer: the largest of 128, 64 and 32 that divides in/groups; 0: none does.
 */
size_t mq_mlx_group_size(const mq_master_view *view);

#endif
