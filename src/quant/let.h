/* OmniQuant's learned equivalent transformation (Shao et al. 2023, eq. 4 and 5) of a block's
 * feed-forward part, the scale of it:
 *
 *   norm' = norm / s      GATE' = GATE · diag(s)      UP' = diag(1/t) · UP · diag(s)
 *   DOWN' = DOWN · diag(t)
 *
 * for s [hidden_size] and t [intermediate_size], positive: at full precision the block computes
 * what it computed before, since UP's output enters linearly. What is rounded is other weights, and
 * s and t are learned so that the rounding costs less, as exp of parameters that start at 0.
 *
 * OmniQuant's shift is not there. Before GATE and UP it would be taken from the norm's output and
 * given back by their biases: OmniQuant registers a bias with the norm for it, but Llama's and
 * Gemma's checkpoints have no tensor for that, and no runtime would read one. Before DOWN it would
 * be taken from act(gate) ⊙ up, a product, which no bias of UP can make.
 *
 * s needs GATE and UP quantized, and a norm before them, t UP and DOWN (and UP without a bias,
 * which would have to be divided too): only codes and norms may differ from the source. A norm's
 * weight is divided with 8 significant bits, which every dtype holds, and s is made to fit, so that
 * what is stored is the transformation exactly. */
#ifndef MQ_QUANT_LET_H
#define MQ_QUANT_LET_H

#include "model/block.h"
#include "quant/grid.h"
#include "quant/select.h"

#define MQ_LET_RATE 5e-3 /* OmniQuant's --let_lr, at the start of the cosine */

typedef struct mq_let {
    mq_block_params *params;        /* the learner's: transformed in place */
    mq_grid *grid;                  /* the learner's, [MQ_LINEAR_COUNT] */
    size_t hidden, inner;           /* hidden_size, intermediate_size */
    bool scales_norm, scales_up;    /* s and t, in this block; neither: there is nothing to do */
    float *s, *t;                   /* their logarithms, [hidden], [inner] */
    float *s_m, *s_v, *t_m, *t_v;   /* Adam's moments */
    float *s_factor, *t_factor;     /* s and t themselves, as the weights have them */
    float *norm, *gate, *up, *down; /* as the source has them */
    float *gate_gradient, *up_gradient,
        *down_gradient;   /* of the loss by the weights, of one step */
    float *norm_gradient; /* the same by norm', summed over the widths */
    float *norm_part;     /* one width's */
} mq_let;

void mq_let_carve(mq_let *let, mq_slab *slab, const mq_config *config, mq_block_params *params,
                  mq_grid *grid);

/* Whether the norm of a block will differ from the source's. */
bool mq_let_scales_norm(const mq_selection *selection, size_t layer, const mq_config *config);

/* With params as loaded, before the grids start: s = t = 1. */
void mq_let_begin(mq_let *let, const mq_selection *selection, size_t layer,
                  const mq_config *config);
/* Before a step's gradients: none yet. */
void mq_let_clear(mq_let *let);
/* Adds norm_part to norm_gradient. */
void mq_let_add_norm(mq_let *let);
/* One step of Adam for the gradients that the grids' step left, and the weights and grids
 * that follow from it; the grids' values are not made again. */
void mq_let_step(mq_let *let, const mq_adam *adam);
/* Fits s to the norm that can be stored, transforms the weights for the last time, and gram (of
 * GATE's and UP's input) and gram_down, which were measured before the transformation. */
void mq_let_finish(mq_let *let, float *gram, float *gram_down, bool norm_plus_one);

#endif
