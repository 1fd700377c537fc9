/* Grids with a whole zero point, w = scale·(t - z): what GPTQ and compressed-tensors hold in place
 * of our float offset. The slice is fitted to the nearest such grid (export/fit.h). Where the
 * slice's own zero point is whole, the fit is exact; that of a master with a symmetric zero point
 * is taken as it is. */
#ifndef MQ_EXPORT_INTEGER_GRID_H
#define MQ_EXPORT_INTEGER_GRID_H

#include "export/plan.h"

typedef struct mq_integer_layout {
    size_t group_size; /* of every layer: the pair of a larger group is fitted part by part */
    mq_dtype
        scale_dtype;   /* F16, BF16 or F32: what scales are rounded to, before codes are chosen */
    bool words_by_row; /* words as [out, row_words]; otherwise as [row_words, out] */
} mq_integer_layout;

/* A linear in such a grid. */
typedef struct mq_integer_linear {
    const mq_master_view *view; /* NULL: empty */
    size_t groups;
    size_t row_words;
    uint32_t *words; /* [out, row_words], t: each row an LSB-first bit stream; or that turned */
    uint8_t *zeros;  /* [out, groups], z */
    float *scales;   /* [out, groups] */
    double error, power;
    mq_slab slab;
} mq_integer_linear;

/* The linear of the piece, fitted; kept until another is asked for, since the pieces of one linear
 * come one after the other. The cost goes to the piece that is_inexact. */
mq_status mq_integer_fit(mq_integer_linear *kept, const mq_plan *plan, const mq_master_view *view,
                         const mq_integer_layout *layout, mq_error *err);
void mq_integer_free(mq_integer_linear *kept);

/* out[words] of a bit stream, least significant bits first, of count codes of `width` bits that lie
 * `stride` bytes apart; the last word is filled up with zeros. */
static inline size_t mq_packed_words(size_t count, unsigned width) {
    return count / 32 * width + (count % 32 * width + 31) / 32;
}
void mq_pack_strided(uint32_t *out, const uint8_t *codes, size_t stride, size_t count,
                     unsigned width);

#endif
