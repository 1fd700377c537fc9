/* Which of GGUF's types a quantized matrix is stored in, and how its rows are encoded. */
#ifndef MQ_EXPORT_GGUF_TYPES_H
#define MQ_EXPORT_GGUF_TYPES_H

#include "export/gguf_blocks.h"
#include "export/plan.h"

/* The type for a layer. With 2, 3 or 6 bits, if rows are whole super-blocks, it is the K-quant with
 * that number of bits, exact or fitted. Otherwise it is the smallest type that holds the slice
 * exactly (of types of the same size, llama.cpp's plainer one). If there is none, it is a type with
 * at least as many bits, to which the slice is fitted, or F16 if rows are not whole blocks of that.
 */
mq_ggml_type mq_gguf_type_of_linear(const mq_plan *plan, const mq_master_view *view);
bool mq_gguf_holds_exactly(mq_ggml_type type, const mq_plan *plan, const mq_master_view *view);
/* Whether rows are encoded from the slice's values (mq_row), and not from its codes alone. */
bool mq_gguf_takes_values(mq_ggml_type type, const mq_plan *plan, const mq_master_view *view);

/* A fill (plan.h) of a piece with a linear, of such a type or a plain one. */
mq_fill_rows mq_gguf_fill_linear;

/* A layer whose own type does not fit, and whose width no pattern gives, takes the widest width
 * that the master serves and that is no larger. With options->dtype all are plain numbers, and none
 * does (choose_widths of export.h). */
void mq_gguf_choose_widths(mq_mixture *mixture, const mq_slice_options *options);
/* Layers whose own type does not fit: a line for each type and width that such have says what that
 * costs, and which width they take in place of the one asked for. */
void mq_gguf_warn_of_fallbacks(const mq_plan *plan);

/* llama.cpp's LLAMA_FTYPE_MOSTLY_... of the type that most weights of the blocks have. */
unsigned mq_gguf_file_type(const mq_plan *plan);

#endif
