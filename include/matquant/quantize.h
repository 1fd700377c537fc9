/* matquant quantize: a Hugging Face checkpoint in, a master checkpoint out. */
#ifndef MATQUANT_QUANTIZE_H
#define MATQUANT_QUANTIZE_H

#include "matquant/context.h"
#include "matquant/format.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mq_recipe { MQ_RECIPE_BEST, MQ_RECIPE_PAPER, MQ_RECIPE_RTN } mq_recipe;
/* The loss of a block's output y against the full-precision one, t over tokens (docs/method.md, 2):
 *   MQ_LOSS_RELATIVE  mean over t of ‖y_t - target_t‖² / ‖target_t‖²
 *   MQ_LOSS_L2        mean over t and dimensions of (y - target)² */
typedef enum mq_loss { MQ_LOSS_RELATIVE, MQ_LOSS_L2 } mq_loss;
typedef enum mq_scope { MQ_SCOPE_ALL, MQ_SCOPE_FFN } mq_scope;

/* The backend of the matrix products in learning. AUTO takes ONEDNN_BF16 if it is built in, the
 * processor has bfloat16 instructions, and a short measurement at the start finds it clearly
 * faster; otherwise OPENBLAS. */
typedef enum mq_gemm_choice {
    MQ_GEMM_AUTO,
    MQ_GEMM_OPENBLAS,   /* float32 */
    MQ_GEMM_ONEDNN_BF16 /* operands, and what a block's backward reads of gate and up, rounded to
                           bfloat16, sums and everything else float32; MQ_ERR_USAGE if it is not
                           built in, MQ_ERR_MACHINE if the processor lacks the instructions */
} mq_gemm_choice;

/* The embedding matrix and the head: they stay as they are; they have 8 bits at every width; or
 * they have nested codes like everything else, with at least embeddings_min_bits bits. */
typedef enum mq_embeddings {
    MQ_EMBEDDINGS_KEEP,
    MQ_EMBEDDINGS_8,
    MQ_EMBEDDINGS_NESTED
} mq_embeddings;

/* Named weights of the widths' losses for recipe best. Nested codes are a compromise between the
 * widths, and each preset is one such compromise. NONE: weights without a name. */
typedef enum mq_preset {
    MQ_PRESET_NONE,
    MQ_PRESET_BALANCED, /* the recipe's own */
    MQ_PRESET_NARROW,   /* favours 2 bits at the expense of the others */
    MQ_PRESET_WIDE      /* favours 8 and 4 bits at the expense of 2 bits */
} mq_preset;

/* By default the refit is for the trained widths, and for those between two of them up to this one.
 */
#define MQ_REFIT_BETWEEN 4
#define MQ_MAX_CODISTILL 7
/* 2^53, up to which JSON numbers are exact. */
#define MQ_LARGEST_SEED (1ULL << 53)

/* A term of co-distillation (MatQuant, arXiv 2502.06786: "teacher -> student"): the loss of the
 * student's output against the teacher's output on the same batch, instead of against the
 * full-precision output. No gradient passes through the teacher. */
typedef struct mq_codistill {
    unsigned teacher, student; /* trained widths, teacher > student */
    double lambda;             /* positive */
} mq_codistill;

/* A value of group_size: choose one that fits. */
#define MQ_GROUP_SIZE_AUTO ((size_t)-1)

typedef struct mq_quantize_options {
    /* --- input --- */

    const char *model, *output; /* folders; output is the master to make */
    const char *calib; /* file, "self" (sampled from the model), or NULL (recipe rtn needs none) */

    /* --- widths and loss --- */

    mq_recipe recipe;
    size_t width_count; /* trained widths, descending, each once; 8 need not be one of them */
    unsigned widths[MQ_MAX_WIDTHS];
    double lambda[MQ_MAX_WIDTHS]; /* weight of each width's loss, parallel to widths; not negative,
                                     and not all 0 unless there is a term of co-distillation */
    mq_preset preset; /* where lambda comes from, for the provenance only: it does not set lambda.
                         Must be NONE unless the recipe is best */
    size_t codistill_count;
    mq_codistill codistill[MQ_MAX_CODISTILL]; /* each pair once */
    mq_loss loss;
    mq_slice_rule slice_rule;
    mq_zero_point zero_point; /* MQ_ZERO_SYMMETRIC requires MQ_SLICE_ROUND */

    /* --- what is quantized --- */

    size_t group_size; /* 0: one group per row; MQ_GROUP_SIZE_AUTO (the default): 128, or 64 or 32
                          if 128 does not divide all rows that are quantized; if none of them does,
                          the one that divides those of most weights, the largest of these */
    bool has_group_fallback; /* use group_fallback for tensors that group_size does not divide;
                                otherwise they are an error */
    size_t group_fallback;
    mq_scope scope;
    mq_embeddings embeddings;
    unsigned embeddings_min_bits; /* of MQ_EMBEDDINGS_NESTED; 2 ... 8 */
    bool let; /* recipe paper: learn an equivalent transformation of the feed-forward part; every
                 width then has its own copy of that part's norms */
    /* Regular expressions on tensor names without ".weight". A linear is quantized if it matches
     * one of include (or there are none) and none of exclude. A pattern that matches no linear
     * layer is MQ_ERR_USAGE. */
    const char *const *include;
    size_t include_count;
    const char *const *exclude;
    size_t exclude_count;

    /* --- blocks --- */

    size_t samples;    /* calibration sequences, at most 10^8 */
    size_t seq_len;    /* tokens per sequence, at most 2^31 - 1 */
    size_t epochs;     /* passes over the sequences for each block, at most 10^6 */
    size_t batch;      /* sequences per step */
    double rate;       /* factor, positive: multiplies the recipe's learning rates for the blocks */
    double early_stop; /* percent: a block's learning ends after an epoch that lowered no width's
                          mean loss by at least this much compared with the epoch before (only
                          widths that every step visits count); 0: never */
    /* The loss of widths[i] is visited only on every periods[i]-th step, with that many times the
     * weight; 0: as often as the recipe does (docs/method.md, 6). Unless sampled, at least one
     * width that has a weight must be visited on every step. qat takes int8's number alone. */
    size_t periods[MQ_MAX_WIDTHS];
    /* Each step learns only one width instead of all. It is drawn with its lambda as odds (plus
     * that of its terms of co-distillation). The expected loss is the same, and a step costs the
     * arithmetic of one width. periods are then for qat only. Not with early_stop. */
    bool sampled;
    /* Recipe best: the bits of a code that only int8 (and widths that were not trained) read are
     * chosen to compensate for one another's errors (GPTQ, arXiv 2210.17323), not rounded. */
    bool compensate;
    /* Recipe best: before a block is learned, scale UP's rows and DOWN's columns, and V's rows and
     * O's columns, so that larger inputs are rounded more finely (AWQ, arXiv 2306.00978). */
    bool fold;

    /* --- refit --- */

    /* The end-to-end refit of single widths when the blocks are done (docs/method.md, 4). */
    bool refit;
    size_t refit_epochs; /* 0: enough passes to see three times the tokens that the blocks learn
                            from: one if the text is plentiful, at least two if the model wrote most
                            of it */
    size_t refit_tokens; /* to train on, rounded down to whole sequences; 0: seven times as many as
                            the blocks learn from. 2 bits get all of them, 3 to 5 bits half, wider
                            widths a sixteenth. A sixteenth as many again are read to decide when to
                            stop. If the text has fewer, and extend is not set, they get what there
                            is */
    /* If calib has fewer sequences than the refit or qat can use, the model writes the rest by
     * continuing pieces of it; this text is trained on but not measured on. With calib "self" the
     * model writes as many sequences as these stages can use, not only as many as the blocks. While
     * it writes, the whole model is in memory. In the provenance, "calibration" has
     * "written_tokens" next to the "tokens" that were read. */
    bool extend;
    size_t refit_batch;       /* sequences per step of the refit */
    size_t refit_width_count; /* 0: the trained widths, and those MQ_REFIT_BETWEEN adds */
    unsigned refit_widths[MQ_MAX_WIDTHS]; /* descending, each once */

    /* --- qat --- */

    /* Before the refit: train the codes and the trained widths' scales and biases end to end, to
     * lower Σ lambda · KL(full precision ‖ width). One width may lose what another gains; the
     * report has every width's divergence before and after. Recipes best and paper; not with let or
     * codistill; requires a trained width below 8. A step has refit_batch sequences. */
    bool qat;
    size_t qat_tokens; /* to train on, in whole sequences; 0: refit_tokens, or three times as many
                          as the blocks learn from */
    size_t qat_epochs; /* 0: enough passes to see three times the blocks' tokens */
    double qat_rate;   /* how far the first training steps move a code, as a root mean square over
                          its group, in steps of the grid of a width; 0: the default */

    /* --- machine, and what a run depends on --- */

    mq_gemm_choice gemm;
    uint64_t seed; /* for all random choices; at most MQ_LARGEST_SEED */
    bool bos;      /* begin calibration sequences with the template's beginning-of-sequence token */

    /* --- output --- */

    bool force, dry_run;   /* replace the output if it exists; check everything, write nothing */
    size_t max_shard_size; /* bytes; 0: one file */
    /* NULL, or a folder to keep finished work in. A run that is interrupted or killed then loses
     * only the block, the width of the refit or the text that it was working on, and qat: the next
     * run with the same options resumes from there, on any number of threads, and produces the same
     * bytes. The folder is created if it does not exist (its parent must) and removed when the
     * master is complete. Its contents are specified in src/job/state.h.
     *
     * MQ_ERR_USAGE: the folder belongs to another job (any option differs except output, force,
     * dry_run, max_shard_size and state; or the model, text, version, backend or kernel) or does
     * not say to which, since its job.json was removed; it holds anything else; it is inside the
     * output or contains it; another run is using it or has used it meanwhile; or the recipe is
     * rtn, which learns nothing. MQ_ERR_INPUT: a file in it is damaged. A file that was removed
     * is made again, job.json apart.
     *
     * Computed again are: text that the model was still writing, embeddings, qat, digests of the
     * model's files, and the passes that carry the text through finished blocks and make the
     * teacher's side of the refit. */
    const char *state;
} mq_quantize_options;

/* The defaults of a recipe (docs/method.md, 6). model, output and calib are NULL, preset is NONE.
 * lambda suits the default group_size; if you change that to 0, consider the lambda of
 * mq_quantize_default_preset. */
mq_quantize_options mq_quantize_defaults(mq_recipe recipe);

/* Recipe best in a fraction of its time: the blocks learn from few sequences, in one pass and
 * without folding, with the weights of preset wide, and only the narrowest of the trained widths is
 * refitted, on little text. The loss of quality is in tests/bench/RESULTS.md ("Beside other
 * quantizers"). Sets samples, epochs, fold, preset and lambda, extend, and the refit's tokens,
 * epochs and widths. There are fewer steps than int8's period, so none visits int8: it keeps its
 * initial scales and biases, and its codes are compensated under these. Call it on options whose
 * recipe (best), widths and seq_len are set and whose refit is on. */
void mq_quantize_hurry(mq_quantize_options *options);

/* The loss weight that a recipe gives to a trained width, 2 to 8, if the user gives widths but no
 * weights. preset matters for recipe best only; NONE, or a value that is no preset, means BALANCED.
 */
double mq_quantize_default_lambda(mq_recipe recipe, mq_preset preset, unsigned width);

/* The preset that the program uses for recipe best with groups of this size: BALANCED, or WIDE for
 * 0 (a whole row). One range for a whole row serves 2 and 8 bits together less well than one for a
 * few weights, and with BALANCED 8 bits would be more than half a percent of perplexity behind full
 * precision. */
mq_preset mq_quantize_default_preset(size_t group_size);

typedef struct mq_block_loss {
    double before[MQ_MAX_WIDTHS]; /* mean relative squared error (or L2) of the block's output,
                                     parallel to the options' widths */
    double after[MQ_MAX_WIDTHS];
    size_t epochs; /* epochs learned: fewer than asked for if early_stop ended the block, 0 if
                      nothing of it is quantized */
    double seconds;
} mq_block_loss;

typedef struct mq_refit_report {
    unsigned width;
    double kl_before, kl_after; /* KL(full precision ‖ this width) in nats per token, on calibration
                                   text that the refit is not trained on, with
                                   products of the backend up to 5 bits, else float32 */
    size_t kept_epoch; /* the epoch whose numbers are stored; 0: those from before the refit */
    size_t tokens; /* tokens trained on (the width's share of the text), each counted as often as
                      it was trained on */
} mq_refit_report;

/* What qat did; losses and divergences are on calibration text that it is not trained on. */
typedef struct mq_qat_report {
    /* Indexed by width, 2 to 8, trained or not: KL(full precision ‖ width) in nats per token. */
    double kl_before[MQ_MAX_WIDTH + 1];
    double kl_after[MQ_MAX_WIDTH + 1];
    double loss_before, loss_after; /* sum over the trained widths, weighted with lambda */
    size_t kept_epoch;              /* the epoch whose codes are stored; 0: those from before */
    size_t tokens; /* tokens trained on, each counted as often as it was trained on */
    size_t moved;  /* number of codes that differ from those before */
} mq_qat_report;

typedef struct mq_quantize_report {
    size_t blocks;        /* up to the last block in which anything is quantized */
    mq_block_loss *block; /* [blocks]; NULL after a dry run or recipe rtn */
    mq_qat_report qat;    /* all 0 without options->qat and after a dry run */
    size_t refit_count;   /* widths that were refitted; 0 after a dry run */
    mq_refit_report refit[MQ_MAX_WIDTHS];
    size_t group_size; /* 0: one group per row; rows that it does not divide use the fallback */
    size_t quantized_tensors, quantized_weights, other_tensors;
    size_t memory_predicted, memory_peak; /* bytes allocated; peak 0 after a dry run */
    size_t output_bytes; /* size of the files that were written; in a dry run a prediction, which
                            is what the disk was checked for */
    size_t state_blocks, state_widths; /* blocks and refitted widths that were taken from (in a dry
                                          run: are present in) options->state */
    size_t state_bytes;                /* size of the files that were (or would be) added to it */
    size_t disk_free;       /* bytes, on the disk of the output, before anything was written */
    size_t state_disk_free; /* the same of options->state's disk; 0 without it */
    bool state_same_disk;   /* these are one disk, which has to hold output_bytes + state_bytes */
    size_t calibration_tokens; /* read, or with calib "self" written by the model */
    size_t written_tokens;     /* added by the model to those that were read (extend) */
    char gemm[128]; /* the backend: "onednn-bf16 (oneDNN 2.6.3 avx512_core_bf16)"; empty for recipe
                       rtn */
    /* Floating-point operations that the linear layers' and the head's products of the job take (of
     * a resumed one, those that were left at its start), and the GFLOP/s that such products were
     * measured to have here. The second is measured with dry_run, and with MQ_GEMM_AUTO where there
     * is a choice; otherwise it is 0. The job takes at least operations / (1e9 gflops) seconds. */
    double operations, gflops;
    double seconds;
} mq_quantize_report;

/* On success *report must be freed with mq_quantize_report_free. Everything that can be checked
 * beforehand is checked before the first block: options (MQ_ERR_USAGE), model, shapes, group sizes,
 * calibration (MQ_ERR_INPUT), disk and memory (MQ_ERR_MACHINE). The output folder appears whole or
 * not at all. MQ_ERR_INTERRUPTED when asked to stop. After an interruption or another failure
 * nothing is left behind except options->state, if anything is in it. */
mq_status mq_quantize(mq_quantize_report *report, const mq_quantize_options *options,
                      const mq_context *context, mq_error *err);
void mq_quantize_report_free(mq_quantize_report *report);

#ifdef __cplusplus
}
#endif
#endif
