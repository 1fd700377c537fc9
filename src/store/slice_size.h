/* How large the slice of a width will be, and what MLX's affine format can hold: what inspect says
 * without writing anything, and src/export holds itself to. */
#ifndef MQ_STORE_SLICE_SIZE_H
#define MQ_STORE_SLICE_SIZE_H

#include "store/readers.h"

/* MLX's group size for a layer: the largest of 128, 64 and 32 that divides in/groups; 0: none does.
 */
size_t mq_mlx_group_size(const mq_master_view *view);
/* Bits of MLX's format that hold a width's slices as they are; 0: it has none such. */
unsigned mq_mlx_bits(unsigned width, mq_slice_rule rule);
/* Whether a slice in MLX's format has the master's tensor of that name, or for a quantized layer's
 * weight what stands for it. mlx-lm refuses a folder with a tensor that the model does not have,
 * and of a head that is not used a quantized one; Gemma's it would take for one that is. A tensor
 * P.scales of the source's own is therefore in no slice's way. */
bool mq_mlx_has(const mq_config *config, const char *name);

typedef struct mq_slice_size {
    size_t quantized_weights; /* elements */
    size_t quantized_bytes;   /* codes, scales and biases */
    size_t bytes;             /* of all tensors, headers not counted */
} mq_slice_size;

/* In MLX's format where that can hold the slice, else in the master's own. width must be served;
 * config is the master's. */
mq_slice_size mq_slice_size_of(const mq_master *master, const mq_config *config, unsigned width);

#endif
