#include "export/gguf_plain.h"

#include "base/error.h"
#include "export/gguf_types.h"
#include "tensor/safetensors.h"

mq_ggml_type mq_gguf_type_of(mq_dtype dtype) {
    return dtype == MQ_F32 ? MQ_GGML_F32 : dtype == MQ_F16 ? MQ_GGML_F16 : MQ_GGML_BF16;
}

mq_status mq_gguf_check_halves(const unsigned char *out, const mq_piece *piece, size_t count,
                               mq_error *err) {
    const size_t numbers = count * piece->row_bytes / sizeof(uint16_t);
    return piece->type != MQ_GGML_F16 || mq_first_non_finite(out, MQ_F16, numbers) == numbers
               ? MQ_OK
               : mq_fail_tensor(err, MQ_ERR_USAGE, "", piece->spec.name,
                                "holds a number that F16 cannot; use --dtype bf16 or f32");
}

/* Rows of a matrix that is not quantized. */
static mq_status fill_rows(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                           size_t count, mq_error *err) {
    (void)plan;
    const size_t columns = piece->spec.shape[1];
    float *values = NULL;
    mq_status status = mq_new(&values, columns, sizeof *values, "a row of weights", err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_tensor_read_f32(values, piece->sources[0],
                                    mq_source_row(piece, first + i) * columns, columns, err);
        if (status == MQ_OK) {
            const mq_row row = {.in = columns, .values = values};
            mq_ggml_encode(out + i * piece->row_bytes, &piece->error, &row,
                           (mq_ggml_type)piece->type);
            for (size_t k = 0; k < columns; k++) {
                piece->power += (double)values[k] * (double)values[k];
            }
        }
    }
    mq_free(values);
    return status == MQ_OK ? mq_gguf_check_halves(out, piece, count, err) : status;
}

void mq_gguf_make_plain(mq_piece *piece, mq_dtype dtype) {
    piece->spec.dtype = dtype;
    piece->type = mq_gguf_type_of(dtype);
    piece->row_bytes = piece->spec.shape[1] * mq_dtype_size(dtype);
    piece->fill = piece->linear != NULL ? mq_gguf_fill_linear : fill_rows;
    piece->takes_values = true;
    piece->is_inexact =
        dtype != MQ_F32 && (piece->linear != NULL || piece->sources[0]->dtype != dtype);
}
