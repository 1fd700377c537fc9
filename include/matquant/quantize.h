/* matquant quantize: a Hugging Face checkpoint in, a master checkpoint out. */
#ifndef MATQUANT_QUANTIZE_H
#define MATQUANT_QUANTIZE_H

#include "matquant/context.h"
#include "matquant/format.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mq_recipe { MQ_RECIPE_BEST, MQ_RECIPE_PAPER, MQ_RECIPE_RTN } mq_recipe;
/* Of a block's output y against the full-precision one, t over tokens (docs/method.md, 2):
 *   MQ_LOSS_RELATIVE  mean over t of ‖y_t - target_t‖² / ‖target_t‖²
 *   MQ_LOSS_L2        mean over t and dimensions of (y - target)² */
typedef enum mq_loss { MQ_LOSS_RELATIVE, MQ_LOSS_L2 } mq_loss;
typedef enum mq_scope { MQ_SCOPE_ALL, MQ_SCOPE_FFN } mq_scope;

/* What makes the matrix products of learning. AUTO takes ONEDNN_BF16 where it is built in, the
 * processor has bfloat16 instructions and a short measurement at the start finds it clearly faster;
 * else OPENBLAS. */
typedef enum mq_gemm_choice {
    MQ_GEMM_AUTO,
    MQ_GEMM_OPENBLAS,   /* float32 */
    MQ_GEMM_ONEDNN_BF16 /* operands rounded to bfloat16, sums and everything else float32;
                           MQ_ERR_USAGE where it is not built in, MQ_ERR_MACHINE where the processor
                           lacks the instructions */
} mq_gemm_choice;

/* The embedding matrix and the head: as they are; in 8 bits at every width; or in the same codes
 * as everything else, at least so many bits of them as embeddings_min_bits. */
typedef enum mq_embeddings {
    MQ_EMBEDDINGS_KEEP,
    MQ_EMBEDDINGS_8,
    MQ_EMBEDDINGS_NESTED
} mq_embeddings;

/* Named weights of the widths' losses for recipe best: nested codes are a compromise between the
 * widths, and these are points of it. NONE: weights that have no name. */
typedef enum mq_preset {
    MQ_PRESET_NONE,
    MQ_PRESET_BALANCED, /* the recipe's own */
    MQ_PRESET_NARROW,   /* leans to 2 bits, at the others' cost */
    MQ_PRESET_WIDE      /* to 8 and 4 bits, at 2 bits' */
} mq_preset;

/* The refit is by default of the trained widths and of those between two of them up to this one. */
#define MQ_REFIT_BETWEEN 4
#define MQ_MAX_CODISTILL 7

/* A term of co-distillation (MatQuant, arXiv 2502.06786: "teacher -> student"): the loss of the
 * student's output against the teacher's output of the same batch in place of full precision's. No
 * gradient goes through the teacher's. */
typedef struct mq_codistill {
    unsigned teacher, student; /* trained widths, teacher > student */
    double lambda;             /* positive */
} mq_codistill;

/* Of group_size: what fits. */
#define MQ_GROUP_SIZE_AUTO ((size_t)-1)

typedef struct mq_quantize_options {
    const char *model, *output; /* folders */
    const char *calib; /* file, "self" (sampled from the model), or NULL (recipe rtn needs none) */
    mq_recipe recipe;
    size_t width_count; /* trained widths, descending, each once; 8 need not be one of them */
    unsigned widths[MQ_MAX_WIDTHS];
    double lambda[MQ_MAX_WIDTHS]; /* weight of each width's loss, beside widths; not negative, not
                                     all 0 unless a term of co-distillation is there */
    mq_preset preset; /* what the provenance says lambda was taken from; sets nothing, and wants
                         recipe best unless it is NONE */
    size_t codistill_count;
    mq_codistill codistill[MQ_MAX_CODISTILL]; /* each pair once */
    mq_loss loss;
    mq_slice_rule slice_rule;
    mq_zero_point zero_point; /* MQ_ZERO_SYMMETRIC wants MQ_SLICE_ROUND */
    size_t group_size;        /* 0: one group a row; MQ_GROUP_SIZE_AUTO (the default): 128, or where
                                 it does not divide all rows that are quantized 64 or 32 */
    bool has_group_fallback; /* use group_fallback for tensors that group_size does not divide; else
                                an error */
    size_t group_fallback;
    mq_scope scope;
    mq_embeddings embeddings;
    unsigned embeddings_min_bits; /* of MQ_EMBEDDINGS_NESTED; 2 ... 8 */
    bool let; /* recipe paper: learn an equivalent transformation of the feed-forward part, whose
                 norms then are private to every width */
    const char *const *include; /* regular expressions on tensor names without ".weight"; a linear
                                   is quantized when */
    size_t include_count; /* it matches one of include (or there are none) and none of exclude;
                             a pattern that matches no linear layer is MQ_ERR_USAGE */
    const char *const *exclude;
    size_t exclude_count;
    size_t samples, seq_len, epochs, batch;
    double rate; /* the recipe's learning rates for the blocks are multiplied by it; positive */
    double early_stop;  /* percent: a block's learning ends after an epoch that lowered no width's
                           mean loss over its steps by as much, beside the epoch before, of the
                           widths that all steps visit; 0: never */
    size_t int8_period; /* int8's loss is visited on every so many steps, that much heavier */
    /* A step learns one width only, drawn with its lambda (and that of what it learns from wider
     * widths) for odds, in place of all: the same loss in the mean, for the arithmetic of one
     * width. int8_period then is for qat alone; not with early_stop. */
    bool sampled;
    /* Recipe best: the bits of a code that only int8 reads (and widths that were not trained) are
     * chosen to make up for one another's errors (GPTQ, arXiv 2210.17323), not rounded. */
    bool compensate;
    /* Recipe best: before a block is learned, scale UP's rows and DOWN's columns, and V's rows and
     * O's columns, so that inputs that carry more are rounded finer (AWQ, arXiv 2306.00978). */
    bool fold;
    /* The end-to-end refit of single widths when the blocks are done (docs/method.md, 4). */
    bool refit;
    size_t refit_epochs; /* 0: as many as it takes to make three times the tokens that the blocks
                            learn from, of plentiful text one, and of text that the model has
                            written most of at least two */
    size_t refit_tokens; /* to train on, rounded down to whole sequences; 0: seven times as many as
                            the blocks learn from. Widths of 2 bits get all, those of 3 to 5 bits a
                            half, wider ones an eighth. A sixteenth of it more is read to decide
                            when to stop. Where the text has no more, and extend is not set,
                            they get what there is */
    /* Where calib has fewer sequences than the refit or qat has use for, the model writes the rest,
     * going on from pieces of it: text to train on, not to measure on. With calib "self" it writes
     * as many as they have use for, not as many as the blocks. For that time the whole model is in
     * memory. The provenance has "written_tokens" in "calibration", beside the "tokens" that were
     * read. */
    bool extend;
    size_t refit_batch;                   /* sequences of one of its steps */
    size_t refit_width_count;             /* 0: the trained widths, and MQ_REFIT_BETWEEN */
    unsigned refit_widths[MQ_MAX_WIDTHS]; /* descending, each once */
    /* Before the refit: the codes and the trained widths' scales and biases are trained end to end,
     * to lower Σ lambda · KL(full precision ‖ width). A width may lose by it what another gains:
     * the report has every width's divergence before and after. Recipes best and paper; not with
     * let or codistill; wants a trained width below 8. The steps are those of refit_batch. */
    bool qat;
    size_t qat_tokens; /* to train on, whole sequences; 0: refit_tokens, or three times as many as
                          the blocks learn from */
    size_t qat_epochs; /* 0: as many as make three times the tokens that the blocks learn from */
    double qat_rate;   /* largest, in steps of a width for each step of training; 0: the default */
    mq_gemm_choice gemm;
    uint64_t seed; /* of every random choice; at most 2^53, the largest that JSON can say */
    bool bos;      /* begin calibration sequences with the template's beginning-of-sequence token */
    bool force, dry_run;
    size_t max_shard_size; /* bytes; 0: one file */
    /* NULL, or a folder to keep finished work in, so that a run that is interrupted, or killed,
     * loses at most the block or the width of the refit that it was at: the next run with the same
     * options goes on from there, on any number of threads, and makes the same bytes. It is made if
     * it is not there (its parent must be), and goes when the master is there. What it holds is
     * specified in src/store/quantize_state.h. MQ_ERR_USAGE: it is another job's (other options
     * than output, force, dry_run, max_shard_size and state; another model, text, version, backend
     * or kernel), its job.json is damaged, it holds anything else, is inside the output or around
     * it, or another run is or has been at work with it; recipe rtn, which learns nothing.
     * MQ_ERR_INPUT: another file in it is damaged; what is removed from it is made again. Computed
     * again are a text that the model was writing, embeddings, qat, digests of the model's files,
     * and the passes that carry the text through finished blocks and make the teacher's side of the
     * refit. */
    const char *state;
} mq_quantize_options;

/* The defaults of a recipe (docs/method.md, 6), model, output and calib NULL, preset NONE, lambda
 * for the group_size that is there: who changes it to 0 may want mq_quantize_default_preset's. */
mq_quantize_options mq_quantize_defaults(mq_recipe recipe);

/* Recipe best in a fraction of its time: the blocks learn from few sequences, once and without
 * folding, with the weights of preset wide, and the narrowest of the trained widths alone is
 * refitted, on little text. What it costs is in tests/bench/RESULTS.md ("Beside other quantizers").
 * Sets samples, epochs, fold, preset and lambda, extend, and the refit's tokens, epochs and widths.
 * There are fewer steps than int8_period, so that none is int8's: it keeps the numbers that it
 * begins with, and its codes are compensated for those. For options with their recipe, best, and
 * their widths and seq_len; the refit has to be on. */
void mq_quantize_hurry(mq_quantize_options *options);

/* The loss weight that a recipe gives to a trained width, 2 to 8, when the user names widths but no
 * weights; preset counts for recipe best only: NONE, or what is none, is as BALANCED. */
double mq_quantize_default_lambda(mq_recipe recipe, mq_preset preset, unsigned width);

/* The preset that the program takes for recipe best with groups of so many weights: BALANCED, and
 * with 0, a whole row, WIDE. One range for a row serves 2 and 8 bits worse together than one for
 * few weights, and 8 bits would be more than half a percent of perplexity behind full precision. */
mq_preset mq_quantize_default_preset(size_t group_size);

typedef struct mq_block_loss {
    double before[MQ_MAX_WIDTHS]; /* mean relative squared error (or L2) of the block's output,
                                     beside widths */
    double after[MQ_MAX_WIDTHS];
    size_t epochs; /* that were learned: fewer than asked for where early_stop ended the block */
    double seconds;
} mq_block_loss;

typedef struct mq_refit_report {
    unsigned width;
    double kl_before, kl_after; /* KL(full precision ‖ this width) in nats a token, on calibration
                                   text that the refit is not trained on */
    size_t kept_epoch;          /* whose numbers are stored; 0: those from before the refit */
    size_t tokens;              /* that it was trained on, each as often as it was: of the text
                                   its width's share */
} mq_refit_report;

/* On calibration text that --qat is not trained on. */
typedef struct mq_qat_report {
    double kl_before[MQ_MAX_WIDTH + 1]; /* by width, 2 to 8, trained or not: KL(full precision ‖ */
    double kl_after[MQ_MAX_WIDTH + 1];  /* width) in nats a token */
    double loss_before, loss_after;     /* weighted with lambda */
    size_t kept_epoch;                  /* whose codes are stored; 0: those from before */
    size_t tokens;                      /* that it was trained on, each as often as it was */
    size_t moved;                       /* codes that differ from those before */
} mq_qat_report;

typedef struct mq_quantize_report {
    size_t blocks;        /* up to the last of which anything is quantized */
    mq_block_loss *block; /* [blocks]; NULL after a dry run or recipe rtn */
    mq_qat_report qat;    /* all 0 without options->qat and after a dry run */
    size_t refit_count;   /* widths that were refitted; 0 after a dry run */
    mq_refit_report refit[MQ_MAX_WIDTHS];
    size_t group_size; /* 0: one group a row; of rows that it does not divide the fallback's */
    size_t quantized_tensors, quantized_weights, other_tensors;
    size_t memory_predicted, memory_peak; /* bytes allocated; peak 0 after a dry run */
    size_t output_bytes;                  /* what is (or would be) written */
    size_t state_blocks, state_widths;    /* that were taken from options->state (in a dry run: that
                                             are there): of blocks, of widths to refit */
    size_t state_bytes;                   /* of the files that were (or would be) added to it */
    size_t disk_free;
    size_t calibration_tokens; /* read, or with calib "self" written by the model */
    size_t written_tokens;     /* that the model added to those that were read (extend) */
    char gemm[128]; /* what makes the products: "onednn-bf16 (oneDNN 2.6.3 avx512_core_bf16)"; empty
                       for recipe rtn */
    double seconds;
} mq_quantize_report;

/* On success *report is to be freed with mq_quantize_report_free. Everything that can be known is
 * checked before the first block: options (MQ_ERR_USAGE), model, shapes, group sizes, calibration
 * (MQ_ERR_INPUT), disk and memory (MQ_ERR_MACHINE). The output folder appears whole or not at all.
 * MQ_ERR_INTERRUPTED when asked to stop. After that, or another failure, nothing is left behind but
 * options->state, if anything is in it. */
mq_status mq_quantize(mq_quantize_report *report, const mq_quantize_options *options,
                      const mq_context *context, mq_error *err);
void mq_quantize_report_free(mq_quantize_report *report);

#ifdef __cplusplus
}
#endif
#endif
