/* What makes the matrix products of learning: chosen once, before the first block. */
#ifndef MQ_QUANT_BACKEND_H
#define MQ_QUANT_BACKEND_H

#include "matquant/quantize.h"
#include "model/weights.h"
#include "tensor/gemm_bf16.h"

typedef struct mq_backend {
    const char *name;   /* as --gemm has it; NULL: nothing is learned */
    char kernel[96];    /* library, version and the kernel that it chose for this machine */
    mq_gemm_bf16 *bf16; /* ready for all products of a run; NULL: float32 */
    double rate[2];     /* measured GFLOP/s of float32 and bfloat16; 0: not measured */
    bool automatic;     /* chosen by these */
    size_t unmapped;    /* address space that the BLAS maps for its threads with the first products:
                           0 when some were made */
} mq_backend;

/* bfloat16 must be so many times as fast as float32 for MQ_GEMM_AUTO to take it. */
#define MQ_BACKEND_MARGIN 1.3

/* What options ask for, and what a run with them needs made ready. With MQ_GEMM_AUTO and a machine
 * that could do either, both make a few of the model's own products first, which takes some tens of
 * milliseconds for a small model; so do those that there are in a dry run, whatever is asked for.
 * MQ_ERR_MACHINE if the BLAS may not map what it needs for them (tensor/gemm.h). To be freed in
 * every case. */
mq_status mq_backend_open(mq_backend *backend, const mq_quantize_options *options,
                          const mq_config *config, const mq_context *context, mq_error *err);
/* A message with what was measured, if anything was, and what was taken. */
void mq_backend_report(const mq_backend *backend, const mq_context *context);
/* GFLOP/s of what was taken; 0: not measured. */
double mq_backend_rate(const mq_backend *backend);
void mq_backend_close(mq_backend *backend);

#endif
