#include "tensor/panels.h"

#include <omp.h>

mq_panels mq_panels_of(size_t size) {
    const size_t count = size > MQ_PANEL ? (size + MQ_PANEL - 1) / MQ_PANEL : 1;
    const size_t even = (size + count - 1) / count;
    mq_panels panels = {.size = size,
                        .width = (even + MQ_PANEL_STEP - 1) / MQ_PANEL_STEP * MQ_PANEL_STEP};
    panels.count = size > 0 ? (size + panels.width - 1) / panels.width : 0;
    return panels;
}

/* Panels i of k and j of n. */
static mq_gemm_shape part_shape(const mq_panelled *b, size_t rows, size_t i, size_t j,
                                bool accumulate) {
    const size_t k = mq_panel_width(&b->k, i), n = mq_panel_width(&b->n, j);
    return (mq_gemm_shape){.m = rows,
                           .n = n,
                           .k = k,
                           .lda = k,
                           .ldb = b->trans_b     ? b->k.size
                                  : b->in_panels ? n
                                                 : b->n.size,
                           .ldc = n,
                           .trans_b = b->trans_b,
                           .accumulate = accumulate,
                           .packed_b = true};
}

mq_status mq_panelled_prepare(mq_gemm_bf16 *gemm, const mq_panelled *b, size_t rows,
                              mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t part = 0; status == MQ_OK && part < 2 * b->k.count * b->n.count; part++) {
        const size_t i = part / 2 / b->n.count, j = part / 2 % b->n.count;
        const mq_gemm_shape shape = part_shape(b, rows, i, j, part % 2 == 1);
        status = mq_gemm_bf16_prepare(gemm, &shape, err);
    }
    return status;
}

/* Numbers of a part, of which no other takes more than the first. */
static size_t part_size(const mq_gemm_bf16 *gemm, const mq_panelled *b) {
    return mq_gemm_bf16_packed_size(gemm, b->k.width < b->k.size ? b->k.width : b->k.size,
                                    b->n.width < b->n.size ? b->n.width : b->n.size) /
           sizeof(mq_bf16);
}

size_t mq_panelled_size(const mq_gemm_bf16 *gemm, const mq_panelled *b) {
    return b->k.count * b->n.count * part_size(gemm, b);
}

/* Where a part begins in b as it is. */
static size_t plain_at(const mq_panelled *b, size_t i, size_t j) {
    const size_t number = i * b->k.width, column = j * b->n.width;
    if (b->in_panels) {
        return mq_panel_at(&b->n, j, b->k.size, number);
    }
    return b->trans_b ? column * b->k.size + number : number * b->n.size + column;
}

static unsigned char *scratch_of(const mq_products *products) {
    return products->scratch + (size_t)omp_get_thread_num() * products->scratch_size;
}

void mq_panelled_pack(mq_bf16 *packed, const mq_bf16 *plain, const mq_panelled *b, size_t j,
                      size_t rows, const mq_products *products) {
    const size_t size = part_size(products->gemm, b);
    for (size_t i = 0; i < b->k.count; i++) {
        const mq_gemm_shape shape = part_shape(b, rows, i, j, false);
        mq_gemm_bf16_pack(packed + (j * b->k.count + i) * size, plain + plain_at(b, i, j), &shape,
                          products->gemm, scratch_of(products));
    }
}

void mq_panelled_product(float *c, const mq_bf16 *a, size_t a_rows, size_t first, size_t rows,
                         const mq_bf16 *packed, const mq_panelled *b, size_t j, bool accumulate,
                         const mq_products *products) {
    const size_t size = part_size(products->gemm, b);
    for (size_t i = 0; i < b->k.count; i++) {
        const mq_gemm_shape shape = part_shape(b, rows, i, j, accumulate || i > 0);
        mq_gemm_bf16_run(c, a + mq_panel_at(&b->k, i, a_rows, first),
                         packed + (j * b->k.count + i) * size, &shape, products->gemm,
                         scratch_of(products));
    }
}
