/* GGUF with a number a weight (--dtype f16, bf16 or f32) instead of blocks: every width, and every
 * matrix in the one type. llama.cpp multiplies such matrices without rounding activations to 8
 * bits. */
#ifndef MQ_EXPORT_GGUF_PLAIN_H
#define MQ_EXPORT_GGUF_PLAIN_H

#include "export/gguf_blocks.h"
#include "export/plan.h"

mq_ggml_type mq_gguf_type_of(mq_dtype dtype); /* F32, F16 or BF16 */

/* Numbers [count rows] of a piece in F16, if that is its type, are finite; else MQ_ERR_USAGE. */
mq_status mq_gguf_check_halves(const unsigned char *out, const mq_piece *piece, size_t count,
                               mq_error *err);

/* Makes a matrix that was planned with its rows, columns and sources one of the element type. */
void mq_gguf_make_plain(mq_piece *piece, mq_dtype dtype);

#endif
