/* matquant eval: what a model, a master at a width, or a slice is worth. */
#ifndef MATQUANT_EVAL_H
#define MATQUANT_EVAL_H

#include "matquant/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_eval_options {
    const char *model;     /* plain checkpoint, master, or slice (MLX format) */
    unsigned width;        /* masters: 2 ... 8, 0: the widest; slices: 0 or their own; plain: 0 */
    const char *text;      /* as for calibration: .txt, .jsonl, either gzipped, .npy */
    const char *reference; /* plain checkpoint to compare with, or NULL */
    size_t windows;        /* at most so many windows; 0: all */
    size_t seq_len;        /* tokens a window */
    size_t batch;          /* windows at once */
    bool bos;              /* begin windows with the template's beginning-of-sequence token */
} mq_eval_options;

mq_eval_options mq_eval_defaults(void); /* seq_len 1024, batch 4, all windows, bos */

typedef struct mq_eval_result {
    size_t windows, tokens; /* predictions counted: windows · (seq_len - 1) */
    double nll,
        nll_stderr; /* mean negative log-likelihood in nats and its standard error over windows */
    double perplexity; /* exp(nll) */
    bool has_reference;
    double kl, kl_stderr;  /* mean KL(reference ‖ model), nats a token */
    double top1_agreement; /* share of tokens with the same most likely next token */
    double reference_perplexity;
    double seconds;
} mq_eval_result;

/* Tokens are those of the model's own tokenizer.json (not needed for .npy). A master at width r and
 * the slice of width r give the same result to the last bit. */
mq_status mq_evaluate(mq_eval_result *result, const mq_eval_options *options,
                      const mq_context *context, mq_error *err);

#ifdef __cplusplus
}
#endif
#endif
