/* Rows of a quantized linear, handed to the encoder of a format a few at a time. */
#ifndef MQ_EXPORT_ROWS_H
#define MQ_EXPORT_ROWS_H

#include "export/plan.h"

/* The number of tasks of a taskloop: large enough that no thread waits long for the last one. With
 * more than 64 tasks per thread, libgomp silently runs the loop on a single thread. */
#define MQ_TASKS (16 * omp_get_num_threads())

/* The number of weights from which on fitting them is worth waking other threads. */
#define MQ_WORTH_THREADS ((size_t)1 << 18)

/* A row of the slice, or several rows joined into one: the blocks of formats do not straddle rows,
 * so encoders need not know the difference. */
typedef struct mq_row {
    size_t in, groups; /* of all of it */
    unsigned width;
    const uint8_t *slices;        /* [in] */
    const float *scales, *biases; /* [groups], float16 numbers */
    const float *values;          /* [in]: scale·slice + bias, as eval computes with them; NULL
                                     where the piece does not take them */
} mq_row;

/* Encodes such a row into out, as the piece's type has it; adds Σ (w - value)² to *error where it
 * is not exact. Called from several threads. */
typedef void mq_encode_rows(unsigned char *out, double *error, const mq_row *row,
                            const mq_piece *piece);

/* A fill (plan.h) of a piece that holds a whole linear, rows of piece->row_bytes: encode for all
 * rows, in parallel; error and power are added up in the order of the rows. */
mq_status mq_fill_encoded(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                          size_t count, mq_encode_rows *encode, mq_error *err);

/* A fill of a piece that is a tensor of the master, quantized or not: its rows' numbers, rounded to
 * piece->spec.dtype. MQ_ERR_USAGE when one does not fit. */
mq_fill_rows mq_fill_values;
/* The piece P.weight of a quantized layer, filled so. */
mq_status mq_add_dequantized(mq_plan *plan, const mq_master_view *view, mq_dtype dtype,
                             mq_error *err);
/* The piece of a tensor that is not quantized, filled so where its element type is another one;
 * what is no weight (an integer table) stays as it is. */
mq_status mq_add_converted(mq_plan *plan, const mq_tensor_info *info, mq_dtype dtype,
                           mq_error *err);
/* The same in packed formats: of --dtype, or without it byte for byte the source's. */
mq_status mq_add_unquantized(mq_plan *plan, const mq_tensor_info *info, mq_error *err);
/* The row of the source that stands at this place of the piece: [heads, 2, n] becomes [heads, n,
 * 2], since llama.cpp rotates neighbouring rows where Hugging Face rotates row i with row i + n. */
size_t mq_source_row(const mq_piece *piece, size_t row);

#endif
