/* A grid: how one linear layer's weights become codes, and what of that is learned.
 *
 * There are two: mq_nested_grid (docs/method.md, 1: recipe best, and rtn without learning;
 * under the rounding slice with a symmetric zero point only) and mq_clip_grid (OmniQuant's learned
 * clipping under MatQuant's rounding slice: recipe paper; docs/method.md, 5). The learning loop
 * knows only this. */
#ifndef MQ_QUANT_GRID_H
#define MQ_QUANT_GRID_H

#include "base/alloc.h"
#include "matquant/quantize.h"
#include "quant/adam.h"
#include "quant/compensate.h"
#include "quant/quantized.h"
#include "tensor/bf16.h"

/* Where a grid begins. */
typedef enum mq_grid_start {
    MQ_START_LEARNING, /* where learning begins: the nested grid at the clip of the least error, the
                          clip grid at OmniQuant's */
    MQ_START_RANGE,    /* the smallest and the largest weight (recipe rtn) */
    MQ_START_SEARCH    /* the clip of the least error over the widths, and nothing is learned from
                          there on (embeddings): codes are rounded at 8 bits, and every width gets
                          its least-squares pair, of numbers that bfloat16 has, too. values and
                          step are not to be called. The clip grid: with a float zero point only */
} mq_grid_start;

/* What all linears of a run have in common. */
typedef struct mq_grid_options {
    size_t width_count; /* trained widths, descending as the user gave them */
    unsigned widths[MQ_MAX_WIDTHS];
    double lambda[MQ_MAX_WIDTHS];
    mq_slice_rule slice_rule;
    mq_zero_point zero_point;
    mq_grid_start start;
} mq_grid_options;

typedef struct mq_grid mq_grid;

/* Where the dequantized weights [out, in] of a width go: float32, the same rounded to bfloat16, or
 * both; NULL: not wanted. Where both are NULL, nothing is computed for the width. */
typedef struct mq_values {
    float *f32;
    mq_bf16 *bf16;
} mq_values;

typedef struct mq_grid_class {
    const char *name;
    /* Learning rates at the start of the cosine, for groups and for rounding offsets. */
    double rate_group, rate_rounding;
    double beta1;        /* of Adam */
    bool scaled_epsilon; /* Adam's is mq_adam_blocks_epsilon; else MQ_ADAM_EPSILON */
    bool pairs_shared;   /* all widths' pairs are of one clip: none has an own one to be fitted */
    /* Carves the grid's own arrays; the struct itself exists already. */
    void (*carve)(mq_grid *grid, mq_slab *slab);
    /* Sets the start from weight and, where clips are searched, from gram[in], the diagonal of XᵀX
     * of the layer's input. */
    void (*start)(mq_grid *grid, const float *weight, const float *gram);
    /* values[i]: the weights at widths[i], where they are wanted. */
    void (*values)(const mq_values values[], const mq_grid *grid);
    /* One step of Adam for gradients[i][out, in] of the loss by values[i] (NULL: this width was not
     * visited), and the new values that are wanted, in one pass over the weights. */
    void (*step)(mq_grid *grid, const float *const gradients[], const mq_values values[],
                 const mq_adam *adam);
    /* codes[out, in], and for each trained width its float32 scale and the value of its middle
     * level, [out, groups]. */
    void (*finish)(uint8_t *codes, float *const scale[], float *const middle[],
                   const mq_grid *grid);
    /* The weights that grid->weight points at have changed (let.h): derives again what start
     * derived from them, and leaves what was learned as it is. NULL: this grid cannot do that. */
    void (*follow)(mq_grid *grid);
    /* After finish: the bits of codes that no trained width below 8 reads, again, so that they make
     * up for one another's errors in the layer's output; and the bytes that a thread needs for
     * that. NULL: this grid has no such bits. Between mq_gemm_enter_single and
     * mq_gemm_leave_single; the same for any number of threads. */
    void (*compensate)(uint8_t *codes, const mq_grid *grid, const mq_compensation *compensation,
                       const mq_compensation_work *work);
    size_t (*compensate_bytes)(size_t out, size_t in, size_t groups);
} mq_grid_class;

struct mq_grid {
    const mq_grid_class *class_;
    const mq_grid_options *options;
    size_t out, in, groups; /* groups a row; groups divides in */
    const float *weight;    /* [out, in], set by start; stays the caller's */
    float *weight_gradient; /* [out, in], or NULL: step writes the loss's gradient by weight here;
                               for grids that can follow */
    void *state;            /* the implementation's, carved */
};

extern const mq_grid_class mq_nested_grid;
extern const mq_grid_class mq_clip_grid;

/* Sets up the struct and carves. */
void mq_grid_carve(mq_grid *grid, const mq_grid_class *class_, const mq_grid_options *options,
                   size_t out, size_t in, size_t groups, mq_slab *slab);

/* --- from a finished grid to the stored numbers (finish.c) ------------------------------------ */

typedef struct mq_finish_scratch {
    /* [width_count] arrays [out, groups], carved */
    float *scale[MQ_MAX_WIDTHS], *middle[MQ_MAX_WIDTHS];
    const bool *visited; /* [width_count]: whether any step saw the width's loss; NULL: all did */
    const mq_compensation *compensation; /* NULL: codes stay as the grid rounds them */
    const mq_compensation_work *work;
} mq_finish_scratch;

void mq_finish_scratch_carve(mq_finish_scratch *scratch, const mq_grid_options *options, size_t out,
                             size_t groups, mq_slab *slab);
/* Fills quantized (its arrays exist, for every width to serve): codes; for trained widths the
 * learned pair, if a step visited them or their codes were made for it; for all others the
 * least-squares pair under gram. Pairs are rounded to float16, the bias so that it makes up for the
 * rounding of its scale; or by mq_symmetric_pair, where the grid's zero point is symmetric. False
 * when a pair does not fit in float16 (for weights that themselves would, only where too high a
 * rate made learning diverge). */
bool mq_grid_finish(mq_quantized *quantized, const mq_grid *grid, const float *gram,
                    mq_slice_rule rule, const mq_finish_scratch *scratch);

/* A pair with a symmetric zero point (matquant/format.h), the scale as near as its 8 significant
 * bits come. False when it does not fit in float16. */
bool mq_symmetric_pair(uint16_t *scale, uint16_t *bias, double exact_scale, unsigned width);

void mq_quantized_carve(mq_quantized *quantized, size_t out, size_t in, size_t groups,
                        mq_slab *slab);

/* Groups of weights so small that the steps of 8 bits, as float16 says them, are off by up to 3 %
 * or more; groups of one number are none of them. */
size_t mq_quantized_coarse_groups(const mq_quantized *quantized);

/* The weights of a width, from the stored numbers, exactly as a reader of the file computes them.
 */
void mq_quantized_values(const mq_values *values, const mq_quantized *quantized, unsigned width,
                         mq_slice_rule rule);

#endif
