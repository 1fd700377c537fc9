/* End-to-end refit (docs/method.md, 4): codes stand still, and one width's private numbers, scale
 * and bias of every group and a copy of every norm's weight, are trained through the whole model to
 * lower KL(full precision ‖ this width) on calibration text. Nothing that widths share moves, so no
 * other width can lose; and a validation share of the text, which is not trained on, keeps the best
 * numbers of all epochs, those of the start among them, as they are stored: no width ends worse
 * than it began. */
#ifndef MQ_QUANT_REFIT_H
#define MQ_QUANT_REFIT_H

#include "model/block.h"
#include "quant/select.h"

/* The master that is being made: what the refit reads and writes of it. */
typedef struct mq_refit_store {
    void *user;
    /* codes[count, in] of rows [first, first + count) of a quantized linear; several threads at
     * once. */
    mq_status (*codes)(void *user, uint8_t *codes, size_t layer, mq_linear linear, size_t first,
                       size_t count, mq_error *err);
    /* scales[out, groups] and biases[out, groups] of a width, float16. */
    mq_status (*pairs)(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                       mq_linear linear, unsigned width, mq_error *err);
    mq_status (*put_pairs)(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err);
    /* The width's own copy of the source's tensor NAME: values[size], which its dtype holds. */
    mq_status (*put_norm)(void *user, const char *name, unsigned width, const float *values,
                          size_t size, mq_error *err);
    /* codes[out, in] in place of what was there; NULL where nothing moves codes. */
    mq_status (*put_codes)(void *user, size_t layer, mq_linear linear, const uint8_t *codes,
                           mq_error *err);
} mq_refit_store;

typedef struct mq_refit_setup {
    const mq_model *model; /* full precision */
    /* By width: what the student reads embeddings and head from; NULL: the model. */
    mq_weights *embeddings[MQ_MAX_WIDTH + 1];
    const mq_tensors *source; /* its tensors: private norms are rounded to the dtype of theirs */
    const mq_selection *selection;
    mq_slice_rule slice_rule;
    mq_zero_point zero_point; /* symmetric: biases follow their scales */
    /* ids[train + validation, length]: the sequences to train on, of which some widths get only the
     * last ones, and then those to measure on, of which some get only the first ones. */
    const int32_t *ids;
    size_t train, validation, length;
    size_t least; /* widths up to 5 bits train on at least this many sequences, and wider ones on at
                     least a quarter as many, even if their share of train (mq_refit_share)
                     is smaller */
    size_t batch; /* sequences per step */
    size_t pass_batch; /* sequences at once where nothing is trained */
    size_t kept_bytes; /* for blocks' insides kept between forward and backward; at least one
                          block's are always kept */
    size_t epochs;
    uint64_t seed;
    mq_gemm_bf16 *gemm; /* been through mq_refit_prepare; NULL: float32 products. The targets
                           that wide widths are trained and measured on, and what they are measured
                           with, are float32 in either case */
    /* That are refitted: they decide which sequences of train need targets, and which of those may
     * be rounded. None: any width may be. */
    const unsigned *widths;
    size_t width_count;
    bool codes_move; /* qat.h's: then targets, and products of wide widths, are float32 in either
                        case, since what rounding them does to codes has not been tried */
    double rate;     /* of Adam; negative: mq_refit_rate of the width */
} mq_refit_setup;

/* Adam's rate at the top of the schedule, for log scale, for the centre in halves of the range and
 * for a norm in units of its own size. One rate, 1e-3, for all is too little for 2 bits and too
 * much for 8: what a number may be off by is a part of the width's step, and so is what helps it.
 * But wide widths' codes stay where narrower ones put them, and are off by more than their own
 * steps: for these there is a least rate. With one sequence of 512 tokens a step, half of what four
 * want (trials in tests/bench/RESULTS.md, "The refit"). */
static inline double mq_refit_rate(unsigned width) {
    const double by_step = 6e-3 / (double)(1u << width), least = 1e-4;
    return by_step > least ? by_step : least;
}

#define MQ_REFIT_WARMUP 10 /* steps */

/* A wide width's codes are finer than bfloat16 is: what it learns from is float32 in either case.
 */
static inline bool mq_refit_is_wide(unsigned width) { return width >= 6; }

typedef struct mq_refit_result {
    double kl_before, kl_after; /* nats a token, on the validation sequences, stored numbers */
    size_t kept_epoch;          /* that the stored numbers are of; 0: those of the start */
    size_t tokens;              /* that it was trained on, each as often as it was */
    double seconds;
} mq_refit_result;

typedef struct mq_refit mq_refit;

/* Sequences of a step: as many as a batch has, or all there are. The last ones, which do not fill a
 * step, are left out. */
size_t mq_refit_batch(const mq_refit_setup *setup);

/* Of Adam: mq_adam_pairs_epsilon. */
double mq_refit_epsilon(const mq_refit_setup *setup);

/* The sequences that a width trains on, the last of setup->train; whole steps only. */
size_t mq_refit_share(const mq_refit_setup *setup, unsigned width);

/* The first so many of the validation sequences are what a width is measured on. */
size_t mq_refit_measured(const mq_refit_setup *setup, unsigned width);

/* Makes setup's gemm, if it has one, ready for all products of the refit. */
mq_status mq_refit_prepare(const mq_refit_setup *setup, mq_error *err);

/* Bytes that a refit holds at most, by the same carving. MQ_ERR_USAGE when a size overflows. */
mq_status mq_refit_memory(size_t *out, const mq_refit_setup *setup, const mq_context *context,
                          mq_error *err);

/* Allocates, and runs the full-precision model over all sequences that are read. setup is copied;
 * what it points at must stay. train and validation are at least 1. */
mq_status mq_refit_open(mq_refit **out, const mq_refit_setup *setup, const mq_context *context,
                        mq_error *err);
void mq_refit_close(mq_refit *refit); /* NULL allowed */

/* What refitting a width takes, in steps of training: its own, and the measuring in between. */
size_t mq_refit_work(const mq_refit *refit, unsigned width);

/* Refits one width and puts its numbers into the store. before, after: the work of the widths that
 * come before and after it. Progress: phase "refit", unit "step" of all widths' work. */
mq_status mq_refit_width(mq_refit_result *result, mq_refit *refit, unsigned width,
                         const mq_refit_store *store, size_t before, size_t after, mq_error *err);

/* Says, for progress, that a width's numbers are there already: an earlier run has found them. */
void mq_refit_pass_over(mq_refit *refit, const mq_refit_result *result, unsigned width,
                        size_t before, size_t after);

#endif
