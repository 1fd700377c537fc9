/* Equivalent scales between a layer and the one that reads its output (AWQ, arXiv 2306.00978, as
 * far as no tensor but quantized ones changes):
 *
 *   producer' = diag(1/s) · producer        consumer' = consumer · diag(s)
 *
 * for UP and DOWN, whose input is act(gate) ⊙ up, and for V and O, whose input is a mean of values:
 * both are linear in what the producer makes, so that at full precision the block computes what it
 * did. A producer's groups lie within a row, so it is rounded as well as before whatever s is; in
 * the consumer, the inputs that carry more are rounded with finer steps than the others of their
 * group. */
#ifndef MQ_QUANT_FOLD_H
#define MQ_QUANT_FOLD_H

#include <stddef.h>

/* s of an input is the root of its mean square to this power, over the geometric mean. */
#define MQ_FOLD_POWER 0.5

typedef struct mq_fold_pair {
    /* The producer's rows are heads · width; each is read `copies` times: its row h·width + c is
     * the consumer's inputs (h·copies + j)·width + c, 0 <= j < copies (grouped-query attention). */
    size_t heads, copies, width;
    float *producer; /* [heads·width, producer_in] */
    size_t producer_in;
    float *consumer; /* [consumer_out, in], in = heads·copies·width */
    size_t consumer_out;
    float *gram;        /* [in]: mean squares of the consumer's inputs, all positive */
    float *gram_matrix; /* [in, in], or NULL */
} mq_fold_pair;

/* Scales both weights, and gram and gram_matrix to what the scaled inputs make. scale: [in],
 * overwritten with s as the consumer has it. */
void mq_fold(float *scale, const mq_fold_pair *pair);

#endif
