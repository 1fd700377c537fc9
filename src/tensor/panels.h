/* Products of bfloat16 operands that lie in panels: a matrix's columns, at most MQ_PANEL of them,
 * one panel behind the other, each dense.
 *
 * AMX reads 16 rows of an operand at a time. Rows some thousand bytes apart, as those of a layer's
 * input mostly are, fall on the same few places of the first-level cache, and a product of 4,096
 * numbers a row takes half as long again as eight of 512, each added to the one before it.
 * Likewise a result that is wider than some hundred columns leaves the second-level cache before it
 * is added to (tests/bench/RESULTS.md, "Panels"). So
 *   c[rows, n] = a[rows, k]·b[k, n]
 * is made a panel of n at a time, c dense, as the sum over the panels of k, with b packed for each
 * pair of panels (gemm_bf16.h). A panel of k is a panel of the same array when it is the n of the
 * product before: what lies between two products is done panel by panel, too. */
#ifndef MQ_TENSOR_PANELS_H
#define MQ_TENSOR_PANELS_H

#include "tensor/product.h"

/* Columns of a panel at most: SmolLM2-135M's hidden_size, whose rows share no places as they are.
 */
#define MQ_PANEL 576
/* Columns of a panel are a multiple of this, but for the last panel's: what a packed operand is
 * made up of along n (pack_bf16.h). */
#define MQ_PANEL_STEP 64

typedef struct mq_panels {
    size_t size;  /* columns of the matrix */
    size_t width; /* of a panel; the last one may be narrower */
    size_t count;
} mq_panels;

mq_panels mq_panels_of(size_t size);

static inline size_t mq_panel_width(const mq_panels *panels, size_t i) {
    const size_t rest = panels->size - i * panels->width;
    return rest < panels->width ? rest : panels->width;
}

/* Where element [row, 0] of panel i is, in a matrix of so many rows. */
static inline size_t mq_panel_at(const mq_panels *panels, size_t i, size_t rows, size_t row) {
    return rows * i * panels->width + row * mq_panel_width(panels, i);
}

/* b of a product, [k, n]. Plain it is dense [k, n]; with trans_b, dense [n, k]; or, with in_panels,
 * itself in panels, of n. */
typedef struct mq_panelled {
    mq_panels k, n;
    bool trans_b, in_panels;
} mq_panelled;

/* Makes gemm ready for products of `rows` rows, and for packing. */
mq_status mq_panelled_prepare(mq_gemm_bf16 *gemm, const mq_panelled *b, size_t rows, mq_error *err);

/* Numbers that b takes when it is packed; gemm has been through mq_panelled_prepare for any rows.
 */
size_t mq_panelled_size(const mq_gemm_bf16 *gemm, const mq_panelled *b);

/* Packs panel j of n on the calling thread; all of them are one packed[mq_panelled_size]. rows:
 * some number that was prepared. */
void mq_panelled_pack(mq_bf16 *packed, const mq_bf16 *plain, const mq_panelled *b, size_t j,
                      size_t rows, const mq_products *products);

/* c[rows, width of n's panel j], dense, = (accumulate ? c : 0) + a·b on the calling thread.
 * a[a_rows, k], in panels: rows [first, first + rows) of it. */
void mq_panelled_product(float *c, const mq_bf16 *a, size_t a_rows, size_t first, size_t rows,
                         const mq_bf16 *packed, const mq_panelled *b, size_t j, bool accumulate,
                         const mq_products *products);

#endif
