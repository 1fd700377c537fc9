/* matquant eval: what a model, a master at a width, or a slice is worth. */
#ifndef MATQUANT_EVAL_H
#define MATQUANT_EVAL_H

#include "matquant/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_eval_options {
    const char *model;      /* plain checkpoint, master, or slice (MLX format) */
    const unsigned *widths; /* [width_count] different ones: masters 2 ... 8, slices their own */
    size_t width_count;     /* 0: a master at its widest, whatever else the folder is as it is */
    const char *text;       /* as for calibration: .txt, .jsonl, either gzipped, .npy; NULL: none */
    const char *reference;  /* plain checkpoint to compare with on the text, or NULL */
    size_t windows;         /* at most so many windows; 0: all */
    size_t seq_len;         /* tokens a window */
    size_t batch;           /* windows at once; items of tasks are packed into as many tokens */
    bool bos; /* begin windows and contexts with the template's beginning-of-sequence token */
    const char *const *tasks; /* [task_count] files of zero-shot tasks, see below */
    size_t task_count;
    size_t max_items;  /* at most so many items of each, from the beginning; 0: all */
    const char *items; /* where to write what each item came to, see below; NULL: nowhere. Of one
                          width only */
    bool force;        /* replace that file */
    bool record;       /* put the text's results into the master's provenance (format.h) */
} mq_eval_options;

mq_eval_options mq_eval_defaults(void); /* seq_len 1024, batch 4, all windows, bos */

/* Zero-shot tasks.
 *
 * A task file has one JSON object a line, plain or gzipped; blank lines are nothing:
 *
 *     {"id": "x/0", "choices": [{"context": "Q: ...\nA:", "continuation": " yes"}, ...], "gold": 0}
 *
 * id is text, choices are one or more, gold is the index of the right one; other members do not
 * count. Choices may share the context, or the continuation (WinoGrande), or nothing. A line that
 * is anything else is MQ_ERR_INPUT naming file and line.
 *
 * A choice is worth the log-likelihood of its continuation after its context, the sum over the
 * continuation's tokens. Tokens are made as lm-evaluation-harness makes them (TemplateLM's
 * _encode_pair): white space at the end of the context goes to the continuation; context and
 * continuation are encoded together, the context is encoded alone, and what the former has beyond
 * the latter's number of tokens is the continuation. Where the two disagree at the seam, the
 * context's own tokens count. An input longer than max_position_embeddings loses tokens on the
 * left, the beginning-of-sequence token first, and the item is counted as truncated; a continuation
 * that is longer by itself is MQ_ERR_INPUT, as is one that adds no token.
 *
 * Other than there: with `bos` the template's beginning-of-sequence token stands before every
 * context (the harness adds it for some model families only, or with add_bos_token); a context that
 * is empty, or white space, or nothing to the tokenizer, is that token alone, and MQ_ERR_INPUT
 * without one (the harness falls back to the end-of-text token); likelihoods are normalized by
 * UTF-8 bytes of the continuation as it stands in the file (the harness's acc_norm: by characters
 * of the choice without the space before it).
 *
 * The answer is the choice of the largest log-likelihood (acc), or of the largest one divided by
 * the continuation's bytes (acc_norm); the first of equal ones. Standard errors are those of a mean
 * over n items with the sample's variance, for a share p: sqrt(p (1 - p) / (n - 1)); NaN for one
 * item. The mean over tasks weighs tasks alike; its standard error is sqrt(Σ stderr²) / tasks. A
 * log-likelihood that is not a number makes the accuracy not a number.
 *
 * What the choices of an item begin with in common, token by token, is computed once.
 *
 * `items` gets one JSON object a line, in the order of the files:
 *
 *     {"task": "arc_easy", "id": "arc_easy/0", "gold": 0, "answer": 0, "answer_norm": 2,
 *      "truncated": false, "loglikelihood": [-5.25, ...], "tokens": [2, ...], "bytes": [19, ...]}
 *
 * with arrays over choices: log-likelihood in nats, tokens and bytes of the continuation. */
typedef struct mq_accuracy {
    double acc, acc_stderr;
    double acc_norm, acc_norm_stderr;
} mq_accuracy;

typedef struct mq_task_result {
    char name[128]; /* the file's, without folder, ".gz" and ".jsonl"; UTF-8, cut to fit */
    size_t items, choices;
    size_t tokens;    /* of continuations: predictions counted */
    size_t truncated; /* items */
    mq_accuracy accuracy;
} mq_task_result;

/* Of one width. Zero-initialized it holds nothing; what mq_evaluate made of it is freed by
 * mq_eval_result_free. */
typedef struct mq_eval_result {
    bool measured;  /* everything below is there */
    unsigned width; /* that was measured, of a master or a slice; 0: a plain model */

    /* Of the text; 0 without one. */
    char text_sha256[65]; /* of its file, as it was read */
    bool bos;             /* windows begin with the beginning-of-sequence token, which was put there
                             (text only, and only where the template has one) */
    size_t windows, tokens; /* predictions counted: windows · (seq_len - 1) */
    double nll,
        nll_stderr; /* mean negative log-likelihood in nats and its standard error over windows */
    double perplexity; /* exp(nll) */
    bool has_reference;
    double kl, kl_stderr;  /* mean KL(reference ‖ model), nats a token */
    double top1_agreement; /* share of tokens with the same most likely next token */
    double reference_perplexity;

    /* Of the tasks. */
    mq_task_result *tasks; /* [task_count]; NULL without tasks */
    size_t task_count;
    mq_accuracy mean;   /* over tasks */
    size_t task_tokens; /* that went through the model */
    double task_seconds;

    double seconds; /* of the whole call, all widths together */
} mq_eval_result;

void mq_eval_result_free(mq_eval_result *result);

/* Perplexity on a text, accuracy on tasks, or both, into results: one for each width, in their
 * order, or a single one where options->width_count is 0. All inputs are read and checked, and
 * tokens made, once and before a model runs; the reference runs once for all widths. A width's
 * result is to the last bit what it is alone.
 *
 * On failure the results hold nothing, unless only recording them or writing the items failed,
 * which `measured` says (of all or of none). Tokens are those of the model's own tokenizer.json
 * (not needed for .npy). A master at width r and the slice of width r give the same result to the
 * last bit. */
mq_status mq_evaluate(mq_eval_result *results, const mq_eval_options *options,
                      const mq_context *context, mq_error *err);

#ifdef __cplusplus
}
#endif
#endif
