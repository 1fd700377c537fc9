/* Learning one block: everything that is resident while a block is worked on, and the steps of that
 * work. */
#ifndef MQ_QUANT_LEARNER_H
#define MQ_QUANT_LEARNER_H

#include "base/random.h"
#include "model/block.h"
#include "quant/fold.h"
#include "quant/grid.h"
#include "quant/let.h"
#include "quant/select.h"

/* The calibration's hidden states between blocks, each [sequences·length, hidden_size]. Bigger than
 * a block for small models, and the reason why --samples and --seq-len cost memory. */
typedef struct mq_chains {
    size_t sequences, length;
    float *teacher;                /* X: input of the block, full precision */
    float *target;                 /* F(W, X) */
    float *student[MQ_MAX_WIDTHS]; /* X_r for each trained width */
} mq_chains;

typedef struct mq_learner {
    const mq_quantize_options *options;
    const mq_model *model;
    const mq_selection *selection;
    const mq_context *context;
    const mq_gemm_bf16 *gemm; /* NULL: all products in float32 */
    mq_grid_options grid_options;
    const mq_grid_class *grid_class;
    size_t batch;   /* sequences a step */
    double epsilon; /* of Adam on the grids */

    mq_chains chains;
    mq_block_params params; /* the block at full precision; with gemm rounded, too, what of it is
                               not quantized */
    mq_let let;             /* of options->let */
    mq_grid grid[MQ_LINEAR_COUNT]; /* grid.groups == 0: not quantized in this block */
    mq_values values[MQ_LINEAR_COUNT][MQ_MAX_WIDTHS]; /* f32, or with gemm bf16 */
    float *gradients[MQ_LINEAR_COUNT][MQ_MAX_WIDTHS];
    double *gram_sum[MQ_LINEAR_COUNT]; /* [in]; linears with the same input share it */
    float *gram[MQ_LINEAR_COUNT];
    float *gram_matrix[MQ_LINEAR_COUNT]; /* [in, in], by the first linear that has the input, in
                                            MQ_Q, MQ_O, MQ_GATE and MQ_DOWN; NULL: no block wants
                                            it */
    float *fold_scale; /* with options->fold: [the wider of O's and DOWN's input] */
    mq_compensation compensation[MQ_LINEAR_COUNT];
    mq_compensation_work compensation_work;
    mq_quantized quantized[MQ_LINEAR_COUNT];
    mq_finish_scratch finish[MQ_LINEAR_COUNT];
    mq_activations *activations;
    float *output;               /* y [batch·length, hidden_size] */
    float *guide[MQ_MAX_WIDTHS]; /* the same of a width that narrower ones learn from in
                                    co-distillation; NULL: none does */
    mq_rotations rotations;
    size_t *order;               /* batches in the order of the epoch */
    bool visited[MQ_MAX_WIDTHS]; /* by any step of the block so far */
    mq_random draws;             /* of widths, with options->sampled */
    /* With options->early_stop: of the epoch under way, weighted by tokens. */
    double loss_sum[MQ_MAX_WIDTHS];
    size_t loss_tokens[MQ_MAX_WIDTHS];
    size_t epochs; /* that the last block was trained for */
    /* The block's numbers are those of an earlier run: the teacher only says what the next block
     * gets. */
    bool taken;
    size_t taken_count; /* such blocks so far, and their time */
    double taken_seconds;
} mq_learner;

/* Sets up the learner for a run of `sequences` of `length` tokens (0: nothing is learned, as in
 * recipe rtn) and carves all that it holds: run on a measuring slab, its size is the working set.
 */
void mq_learner_carve(mq_learner *learner, mq_slab *slab, size_t sequences, size_t length);

/* Loads layer's weights and points the grids at them. */
mq_status mq_learner_load(mq_learner *learner, size_t layer, mq_error *err);

/* Where the Gram matrix of an input (MQ_Q, MQ_O, MQ_GATE or MQ_DOWN, for all that read it) is
 * summed up; NULL: nothing that the loaded block quantizes is compensated with it. */
float *mq_learner_gram_matrix(const mq_learner *learner, mq_linear input);

/* F(W, X) of the teacher chain into chains.target, and the Gram diagonals of every linear's input
 * on the way (unless learner->taken). */
mq_status mq_learner_teach(mq_learner *learner, size_t layer, mq_error *err);

/* The grids' start, and their first values. */
void mq_learner_start(mq_learner *learner, size_t layer);

/* Mean loss of each trained width over the first MQ_MEASURED_SEQUENCES sequences (all, if there are
 * fewer; whole batches, so up to a batch more), with the values as they are. */
#define MQ_MEASURED_SEQUENCES 4
mq_status mq_learner_measure(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                             mq_error *err);

/* All epochs of Adam. `started` (mq_seconds) is when the run began, for progress. Between two
 * steps, and where options->early_stop ended it, only those values are up to date that the next
 * step would have read. */
mq_status mq_learner_train(mq_learner *learner, size_t layer, double started, mq_error *err);

/* Codes and stored pairs of every selected linear into quantized[]. MQ_ERR_USAGE: a pair does not
 * fit in float16 with the rate of the options; MQ_ERR_INPUT: it does not with the recipe's. */
mq_status mq_learner_finish(mq_learner *learner, size_t layer, mq_error *err);

/* Instead of start, train and finish, with a block's stored numbers in quantized[] and, where
 * options->let divides it, the norm in params: what advancing takes. */
void mq_learner_take(mq_learner *learner, size_t layer);

/* Every student chain through the block with the stored numbers, loss measured on the same
 * sequences as mq_learner_measure (through the last block of the selection only these pass); then
 * the teacher's target becomes the next block's input. */
mq_status mq_learner_advance(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                             mq_error *err);

#endif
