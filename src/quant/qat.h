/* Quantization-aware training of the codes, end to end: when all blocks are done, and before the
 * refit of private numbers, the codes and the trained widths' scales and biases are trained through
 * the whole model to lower
 *
 *   Σ over trained widths r of λ_r · KL(full precision ‖ width r)
 *
 * on calibration text, all widths in every step, but for int8 (int8_period). Widths that are not
 * trained keep the pairs of the codes as they were. A validation share of the text, which is not
 * trained on, decides: the codes and pairs of the epoch with the least weighted loss on it are put
 * into the store, and nothing is if that is not below the start's. A single width may end worse
 * than it began, that is what λ weighs: every width's divergence is measured, before and after. */
#ifndef MQ_QUANT_QAT_H
#define MQ_QUANT_QAT_H

#include "quant/refit.h"

typedef struct mq_qat_setup {
    mq_refit_setup refit; /* rate: of the pairs, as there; the rest of it as there, too */
    size_t width_count;   /* trained widths, descending, one of them below 8; those with a lambda of
                             0 are only measured */
    unsigned widths[MQ_MAX_WIDTHS];
    double lambda[MQ_MAX_WIDTHS];
    size_t int8_period; /* int8's loss is visited on every so many steps, that much heavier */
    double rate;        /* of the codes at the top of the schedule, in steps of their width */
} mq_qat_setup;

/* Where one offset moves all widths, it is in steps of the narrowest, and what is little for that
 * is much for 8 bits. Trials on the demo model are in tests/bench/RESULTS.md. */
static inline double mq_qat_rate(mq_slice_rule rule) { return rule == MQ_SLICE_TOP ? 5e-3 : 1e-3; }

typedef struct mq_qat_result {
    double kl_before[MQ_MAX_WIDTH + 1]; /* by width 2 ... 8, trained or not: nats a token, on the */
    double kl_after[MQ_MAX_WIDTH + 1];  /* validation sequences, stored numbers */
    double loss_before, loss_after;     /* the weighted sums */
    size_t kept_epoch;                  /* 0: nothing was changed */
    size_t tokens;                      /* that it was trained on, each as often as it was */
    size_t moved;                       /* codes that differ from those before */
} mq_qat_result;

/* Makes setup's gemm, if it has one, ready for all products. */
mq_status mq_qat_prepare(const mq_qat_setup *setup, mq_error *err);

/* Bytes that mq_qat_run holds at most, by the same carving: of every quantized weight two codes
 * and 4 bytes for each trained width below 8 (4 in all with rounding slices). MQ_ERR_USAGE when a
 * size overflows. */
mq_status mq_qat_memory(size_t *out, const mq_qat_setup *setup, const mq_context *context,
                        mq_error *err);

/* The store has the pairs of all widths from 2 to 8, and put_codes. Progress: phase "qat", unit
 * "step". */
mq_status mq_qat_run(mq_qat_result *result, const mq_qat_setup *setup, const mq_refit_store *store,
                     const mq_context *context, mq_error *err);

#endif
