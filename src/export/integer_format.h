/* What the formats with whole zero points share: the plan of a linear's tensors and their fills. */
#ifndef MQ_EXPORT_INTEGER_FORMAT_H
#define MQ_EXPORT_INTEGER_FORMAT_H

#include "export/integer_grid.h"

/* Whether a format packs this embedding or head like a linear: as far as its readers take it. */
typedef bool mq_integer_packs(const mq_plan *plan, const mq_master_view *view);

typedef struct mq_integer_part mq_integer_part;

/* plan->own of these formats. */
typedef struct mq_integer_own {
    mq_integer_packs *packs;
    mq_integer_layout layout;
    mq_integer_linear kept;
    mq_integer_part *parts; /* a list of those that were made */
} mq_integer_own;

/* Makes plan->own, and plan->has, which leaves out a head that the model does not use; scales are
 * rounded to scale_dtype, words of codes lie in rows (words_by_row) or columns. MQ_ERR_USAGE when
 * nothing is packed. */
mq_status mq_integer_begin(mq_plan *plan, mq_integer_packs *packs, mq_dtype scale_dtype,
                           bool words_by_row, mq_error *err);
static inline mq_integer_own *mq_integer_of(const mq_plan *plan) { return plan->own; }
/* Whether the layer is packed: linears are, embeddings and heads if the model uses them, the format
 * packs them and job->options do not want them plain. */
bool mq_integer_is_packed(const mq_plan *plan, const mq_master_view *view);
/* The piece of one that is not, dequantized; why: what the format has against it, for a warning. */
mq_status mq_integer_add_dequantized(mq_plan *plan, const mq_master_view *view, const char *why,
                                     mq_error *err);
/* Rows [first, first + rows) of a layer as a layer by itself, of that prefix: the plan's.
 * MQ_ERR_INPUT: its tensors have not so many. */
mq_status mq_integer_cut(const mq_master_view **out, mq_plan *plan, const mq_master_view *view,
                         const char *prefix, size_t first, size_t rows, mq_error *err);
/* The same of a tensor that is not quantized; its name. */
mq_status mq_integer_cut_plain(const mq_tensor_info **out, mq_plan *plan,
                               const mq_tensor_info *info, const char *name, size_t first,
                               size_t rows, mq_error *err);
/* The embedding or head that is packed, or NULL. */
const mq_master_view *mq_integer_embedding(const mq_plan *plan);
const mq_master_view *mq_integer_head(const mq_plan *plan);

/* Fills (plan.h) of pieces with rows of int32 words or scales. Codes or zero points of a row that
 * are packed together: */
mq_fill_rows mq_fill_codes;           /* [out, words of in]; [words of in, out] if not by row */
mq_fill_rows mq_fill_zeros_by_group;  /* [groups, words of out] */
mq_fill_rows mq_fill_zeros_by_words;  /* [words of out, groups] */
mq_fill_rows mq_fill_scales_by_row;   /* [out, groups] */
mq_fill_rows mq_fill_scales_by_group; /* [groups, out] */

/* A piece of a linear: name P.PART, shape [rows, columns] of the dtype. */
mq_status mq_integer_add(mq_plan *plan, const mq_master_view *view, const char *part,
                         mq_dtype dtype, size_t rows, size_t columns, mq_fill_rows *fill,
                         mq_error *err);

#endif
