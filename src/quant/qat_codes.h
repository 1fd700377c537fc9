/* Codes that move: what a linear layer's codes are made of while they are trained end to end.
 *
 * Of a weight whose stored code is c, z = (c + ½)/256; V_k are its offsets, 0 at the start.
 *
 * Top bits (each width decides its own bits, nested.h): one offset for each trained width below 8,
 * in steps of that width. With p the level before k, the last level 8 bits:
 *
 *   u_k     = 2^k · z + V_k                                 8 bits: V = 0
 *   soft_k  = clamp(u_k, s_p · 2^(k-p), (s_p + 1) · 2^(k-p))
 *   s_k     = ⌊soft_k⌋, below the upper end
 *
 * so that a weight which a narrow width moves over an edge costs the wider ones the way to that
 * edge and no more. Otherwise (rounding slices) one offset for all widths, in steps of the
 * narrowest:
 *
 *   u       = 256 · z + V · 2^(8-r)                         code = ⌊u⌋ in first ... 255
 *
 * Gradients of Σ λ_r · loss_r are straight through the floor: d ŵ_r/d u_r = scale_r; and where the
 * clamp of a level binds they pass to the level before it, times 2^(k-p). */
#ifndef MQ_QUANT_QAT_CODES_H
#define MQ_QUANT_QAT_CODES_H

#include "base/alloc.h"
#include "matquant/quantize.h"
#include "quant/adam.h"

/* What all linears have in common. */
typedef struct mq_qat_rule {
    size_t width_count; /* trained, descending */
    unsigned widths[MQ_MAX_WIDTHS];
    double lambda[MQ_MAX_WIDTHS]; /* positive */
    bool nested;                  /* an offset for each width below 8; else one for all */
    bool symmetric;               /* code 0 is not used */
    size_t offset_count;
} mq_qat_rule;

/* At least one of the widths is below 8. */
mq_qat_rule mq_qat_rule_of(const unsigned *widths, const double *lambda, size_t width_count,
                           mq_slice_rule slice_rule, mq_zero_point zero_point);

/* A linear layer's; offset number j is that of width j from the narrowest on. */
typedef struct mq_qat_codes {
    const mq_qat_rule *rule;
    size_t out, in, groups;       /* groups 0: not quantized */
    uint8_t *start, *now;         /* [out, in]: the stored codes, and what they have become */
    float *offset[MQ_MAX_WIDTHS]; /* [out, in] */
    float *square[MQ_MAX_WIDTHS]; /* [out, groups]: running mean of the squared gradients */
} mq_qat_codes;

void mq_qat_codes_carve(mq_qat_codes *self, const mq_qat_rule *rule, size_t out, size_t in,
                        size_t groups, mq_slab *slab);
/* Once `start` is there: the codes are those. */
void mq_qat_codes_begin(mq_qat_codes *self);

/* One step for gradient[i][out, in] of the loss of widths[i] by its weights, whose scales are
 * scale[i][out, groups] and whose lambda is to be multiplied by factor[i]; NULL: that width was not
 * visited, which no width below 8 may be. The gradients are overwritten.
 *
 * A step is adam's rate_rounding times the gradient over the root of its group's mean square:
 * weights that matter more than their neighbours move more. There is no first moment: an offset is
 * the sum of its gradients, in which noise averages out without one. */
void mq_qat_codes_step(mq_qat_codes *self, float *const gradient[], const float *const scale[],
                       const double factor[], const mq_adam *adam);

#endif
