/* matquant eval: how good a model, a master at a width, or a slice is. */
#ifndef MATQUANT_EVAL_H
#define MATQUANT_EVAL_H

#include "matquant/context.h"
#include "matquant/mixture.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_eval_options {
    const char *model;      /* a checkpoint, master, or slice (mlx, safetensors, matquant) */
    const unsigned *widths; /* [width_count], all different; masters: 2 ... 8, slices: their own */
    size_t width_count;     /* 0: a master at its widest width, any other folder as it is */
    const mq_layer_bits *layer_bits; /* [layer_bits_count]: layers of a master with other widths
                                        than these; not to be recorded */
    size_t layer_bits_count;
    const char *text;      /* as for calibration: .txt, .jsonl, either gzipped, .npy; NULL: none */
    const char *reference; /* plain checkpoint to compare with on the text, or NULL */
    size_t windows;        /* at most this many windows; 0: all */
    size_t seq_len;        /* tokens per window */
    size_t batch; /* windows at once; task items are packed into the same number of tokens */
    bool bos;     /* begin windows and contexts with the template's beginning-of-sequence token */
    const char *const *tasks; /* [task_count] files of zero-shot tasks, see below */
    size_t task_count;
    size_t max_items;  /* at most this many items of each task, from the beginning; 0: all */
    const char *items; /* file to write the result of each item to, see below; NULL: none. With a
                          single width only */
    bool force;        /* replace that file if it exists */
    bool record;       /* put the text's results into the master's provenance (format.h) */
} mq_eval_options;

mq_eval_options mq_eval_defaults(void); /* seq_len 1024, batch 4, all windows, bos */

/* Zero-shot tasks.
 *
 * A task file has one JSON object per line, plain or gzipped; blank lines are skipped:
 *
 *     {"id": "x/0", "choices": [{"context": "Q: ...\nA:", "continuation": " yes"}, ...], "gold": 0}
 *
 * id is text, choices has one or more elements, and gold is the index of the right one; other
 * members are ignored. Choices may share the context, or the continuation (WinoGrande), or nothing.
 * A line of any other form is MQ_ERR_INPUT, which names file and line.
 *
 * A choice is scored by the log-likelihood of its continuation after its context, which is a sum
 * over the continuation's tokens. Text is tokenized as in lm-evaluation-harness (TemplateLM's
 * _encode_pair). White space at the end of the context is moved to the continuation. Context and
 * continuation are encoded together, and the context is also encoded alone; the continuation is the
 * tokens of the former beyond the latter's number of tokens. Where the two encodings differ before
 * that place, those of the context encoded alone are used. An input longer than
 * max_position_embeddings loses tokens on the left, the beginning-of-sequence token first, and the
 * item is counted as truncated. A continuation that is too long by itself is MQ_ERR_INPUT, and so
 * is one that adds no token.
 *
 * Differences from the harness: with `bos` the template's beginning-of-sequence token is put before
 * every context (the harness adds it only for some model families, or with add_bos_token). A
 * context that is empty or white space, or that the tokenizer turns into no tokens, is that token
 * alone; without such a token it is MQ_ERR_INPUT (the harness falls back to the end-of-text token).
 * Likelihoods are normalized by the UTF-8 bytes of the continuation as it is in the file (the
 * harness's acc_norm: by characters of the choice without the space before it).
 *
 * The answer is the choice with the highest log-likelihood (acc), or with the highest one divided
 * by the continuation's bytes (acc_norm); if several are equal, the first of them. Standard errors
 * are those of a mean over n items with the sample's variance, for a share p: sqrt(p (1 - p) / (n -
 * 1)); NaN for a single item. The mean over tasks weights all tasks equally; its standard error is
 * sqrt(Σ stderr²) / tasks. If a log-likelihood is not a number, neither is the accuracy.
 *
 * A beginning that the choices of an item have in common, token by token, is computed once.
 *
 * `items` gets one JSON object per line, in the order of the files:
 *
 *     {"task": "arc_easy", "id": "arc_easy/0", "gold": 0, "answer": 0, "answer_norm": 2,
 *      "truncated": false, "loglikelihood": [-5.25, ...], "tokens": [2, ...], "bytes": [19, ...]}
 *
 * with arrays over the choices: log-likelihood in nats, tokens and bytes of the continuation. */
typedef struct mq_accuracy {
    double acc, acc_stderr;
    double acc_norm, acc_norm_stderr;
} mq_accuracy;

typedef struct mq_task_result {
    char name[128]; /* the file's name without folder, ".gz" and ".jsonl"; UTF-8, cut to fit */
    size_t items, choices;
    size_t tokens;    /* of continuations: number of predictions */
    size_t truncated; /* number of truncated items */
    mq_accuracy accuracy;
} mq_task_result;

/* The result at one width. Zero-initialized it holds nothing; mq_evaluate fills it, and
 * mq_eval_result_free frees it. */
typedef struct mq_eval_result {
    bool measured;  /* everything below is valid */
    unsigned width; /* the width that was measured, of a master or a slice; 0: a plain model */
    mq_width_counts widths; /* of the quantized layers */

    /* On the text; 0 without one. */
    char text_sha256[65];   /* of its file, as it was read */
    bool bos;               /* a beginning-of-sequence token was put before each window (text only,
                               and only if the template has one) */
    size_t windows, tokens; /* tokens: number of predictions, windows · (seq_len - 1) */
    double nll,
        nll_stderr; /* mean negative log-likelihood in nats and its standard error over windows */
    double perplexity; /* exp(nll) */
    bool has_reference;
    double kl, kl_stderr;  /* mean KL(reference ‖ model), nats per token */
    double top1_agreement; /* share of tokens with the same most likely next token */
    double reference_perplexity;

    /* On the tasks. */
    mq_task_result *tasks; /* [task_count]; NULL without tasks */
    size_t task_count;
    mq_accuracy mean;   /* over tasks */
    size_t task_tokens; /* tokens that went through the model */
    double task_seconds;

    double seconds; /* of the whole call, all widths together */
} mq_eval_result;

void mq_eval_result_free(mq_eval_result *result);

/* Measures perplexity on a text, accuracy on tasks, or both. `results` is [max(1,
 * options->width_count)]: one result for each width, in their order, or a single one if
 * options->width_count is 0. All inputs are read, checked and tokenized once, before any model
 * runs; the reference runs once for all widths. The result of each width is to the last bit the
 * same as when it is measured alone.
 *
 * On failure the results hold nothing, unless only recording them or writing the items failed; then
 * `measured` is set in all of them, and they must be freed. Text is tokenized with the model's own
 * tokenizer.json (not needed for .npy). A master at width r and the slice of width r give the same
 * result to the last bit, and so they do with the same layer_bits. */
mq_status mq_evaluate(mq_eval_result *results, const mq_eval_options *options,
                      const mq_context *context, mq_error *err);

#ifdef __cplusplus
}
#endif
#endif
