/* Reading and writing master checkpoints (matquant/format.h). */
#ifndef MQ_STORE_MASTER_H
#define MQ_STORE_MASTER_H

#include "matquant/inspect.h"
#include "matquant/mixture.h"
#include "model/weights.h"
#include "quant/quantized.h"

/* --- writing ---------------------------------------------------------------------------------- */

/* A linear that will be quantized: prefix P (tensor name without ".weight"). */
typedef struct mq_master_linear {
    char prefix[MQ_NAME_SIZE];
    size_t out, in, groups;
    unsigned min_width; /* of an embedding or head: the least width of its slices; else 0 */
} mq_master_linear;

typedef struct mq_master_layout {
    const char *source; /* folder of the plain checkpoint */
    size_t group_size;  /* as asked for; 0: one a row */
    mq_slice_rule slice_rule;
    mq_zero_point zero_point;
    unsigned widths[7]; /* served, descending */
    size_t width_count;
    const mq_master_linear *linears; /* in the order of the blocks */
    size_t linear_count;
    const char *const *ignored; /* prefixes of linear layers of the blocks that are not quantized */
    size_t ignored_count;
    size_t max_shard_size;
    /* Widths that get copies of their own of some of the source's tensors (norms' weights):
     * NAME.wR. */
    unsigned private_widths[7];
    size_t private_width_count;
    const char *const *private_names; /* of the source's tensors, sorted by byte value */
    size_t private_name_count;
} mq_master_layout;

/* Bytes that the folder will hold (tensor files exactly, headers and the small files included as
 * far as known). */
mq_status mq_master_size(size_t *out, const mq_master_layout *layout, const mq_tensors *source,
                         mq_error *err);

typedef struct mq_master_writer mq_master_writer;

/* source and output must outlive the writer; layout is copied. */
mq_status mq_master_writer_open(mq_master_writer **out, const mq_master_layout *layout,
                                const mq_tensors *source, mq_output *output, mq_error *err);
/* Rows [first, first + quantized->out) of number index of the layout's linears: codes and every
 * served width's pair. Rows come in rising order without a gap, all of them before the writer is
 * finished. A float16 that is not finite is MQ_ERR_INPUT naming the tensor. */
mq_status mq_master_writer_put_rows(mq_master_writer *writer, size_t index,
                                    const mq_quantized *quantized, size_t first, mq_error *err);
/* The same rows of one width again, or of codes[count, in], in place of what was put: all rows of
 * the linear, in rising order from 0 on; those that are still to come cannot be got meanwhile.
 * scales and biases [count, groups]. */
mq_status mq_master_writer_replace_pairs(mq_master_writer *writer, size_t index, unsigned width,
                                         size_t first, size_t count, const uint16_t *scales,
                                         const uint16_t *biases, mq_error *err);
mq_status mq_master_writer_replace_codes(mq_master_writer *writer, size_t index, size_t first,
                                         size_t count, const uint8_t *codes, mq_error *err);
/* What was put, of rows [first, first + count). Several threads may read at once. */
mq_status mq_master_writer_get_pairs(uint16_t *scales, uint16_t *biases,
                                     const mq_master_writer *writer, size_t index, unsigned width,
                                     size_t first, size_t count, mq_error *err);
mq_status mq_master_writer_get_codes(uint8_t *codes, const mq_master_writer *writer, size_t index,
                                     size_t first, size_t count, mq_error *err);
/* A width's own copy of the source's tensor NAME, one of the layout's: values[size] are rounded to
 * its dtype. */
mq_status mq_master_writer_put_private(mq_master_writer *writer, const char *name, unsigned width,
                                       const float *values, size_t size, mq_error *err);
/* Copies all other tensors, writes config.json and the tokenizer and other small files of the
 * source's folder (mq_copy_small_files), and matquant.json:
 * provenance is a JSON object (recipe, source digests, calibration, blas, blocks …) to which
 * "format_version", "tool" and "tensors" are added; it stays the caller's. Frees the writer in
 * every case; committing the output is the caller's. Checks for an interrupt. */
mq_status mq_master_writer_finish(mq_master_writer *writer, const cJSON *provenance,
                                  const mq_context *context, mq_error *err);
void mq_master_writer_abandon(mq_master_writer *writer); /* NULL allowed */

/* --- reading ---------------------------------------------------------------------------------- */

typedef struct mq_master mq_master;

/* MQ_ERR_INPUT for everything that matquant/format.h says a reader must reject (but does not read
 * all values: that is mq_verify's). */
mq_status mq_master_open(mq_master **out, const char *folder, mq_error *err);
void mq_master_close(mq_master *master);

const mq_tensors *mq_master_tensors(const mq_master *master);
const cJSON *mq_master_config(const mq_master *master); /* config.json */
const cJSON *
mq_master_provenance(const mq_master *master); /* matquant.json, or NULL when there is none */
mq_slice_rule mq_master_slice_rule(const mq_master *master);
mq_zero_point mq_master_zero_point(const mq_master *master);
unsigned mq_master_embedding_bits(const mq_master *master); /* 0: they are not quantized */
size_t mq_master_group_size(const mq_master *master);
size_t mq_master_widths(unsigned widths[7],
                        const mq_master *master); /* served, descending; their number */
bool mq_master_serves(const mq_master *master, unsigned width);

/* A quantized linear of an open master; pointers into the mapped file. */
typedef struct mq_master_view {
    const char *prefix;
    size_t index; /* mq_master_linear_at's */
    size_t out, in, groups;
    const mq_tensor_info *codes;
    unsigned min_width; /* of an embedding or head: the least width of its slices; else 0 */
    const mq_tensor_info *scales[MQ_MAX_WIDTH + 1], *biases[MQ_MAX_WIDTH + 1];
} mq_master_view;

/* The width of the layer's slice in the model of one width. A model may mix widths: see
 * mq_mixture_width (mixture.h) for what its scales and biases go by. */
static inline unsigned mq_view_width(const mq_master_view *view, unsigned width) {
    return width > view->min_width ? width : view->min_width;
}

size_t mq_master_linear_count(const mq_master *master);
const mq_master_view *mq_master_linear_at(const mq_master *master, size_t index);
const mq_master_view *mq_master_find(const mq_master *master,
                                     const char *prefix); /* NULL: not quantized */

/* --- running ---------------------------------------------------------------------------------- */

/* MQ_ERR_INPUT, with a clear message, if this is no folder of a model, as far as can be told
 * without opening its files. */
mq_status mq_folder_check(const char *folder, mq_error *err);
/* What a folder is, from its config.json: MQ_KIND_PLAIN, _MASTER or _SLICE.
 * Quantized by another tool: MQ_ERR_INPUT saying which quant_method. */
mq_status mq_folder_kind(mq_kind *kind, const char *folder, mq_error *err);

/* A model to run from any kind of folder: plain (width must be 0), a master at a width (0: the
 * widest that it serves, which is 8 unless it is a slice in the master's format; MQ_ERR_USAGE when
 * it is not served), or a slice in MLX's format (width 0 or its own). layer_bits[count]: layers of
 * a master that have other widths (mq_mixture_make); of any other folder they are MQ_ERR_USAGE. */
mq_status mq_model_open_mixed(mq_model **out, const char *folder, unsigned width,
                              const mq_layer_bits *layer_bits, size_t count, mq_error *err);

#endif
