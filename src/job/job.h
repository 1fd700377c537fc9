/* The parts of the job mq_quantize: checks before the first block, its stages, and provenance. */
#ifndef MQ_JOB_JOB_H
#define MQ_JOB_JOB_H

#include "matquant/quantize.h"
#include "quant/backend.h"
#include "quant/qat.h"
#include "quant/run.h"
#include "quant/select.h"
#include "store/master.h"
#include "text/corpus.h"

typedef struct mq_quantize_state mq_quantize_state; /* state.h */

/* What options->state holds of the job. */
typedef struct mq_quantize_kept {
    bool *block;                  /* [selection.blocks]: is there; NULL: without the option */
    bool width[MQ_MAX_WIDTH + 1]; /* the same of refitted widths */
    size_t block_count, width_count;
    bool text;    /* that the model wrote */
    size_t bytes; /* of the files that are still to be written */
    size_t disk_free;
    bool same_disk; /* as the output's, which has to hold both */
    size_t memory;  /* what reading or writing one of them allocates, at most */
} mq_quantize_kept;

/* Everything that is known of a job before its first block. */
typedef struct mq_quantize_plan {
    const mq_quantize_options *options;
    const mq_context *context;
    mq_model *model;
    mq_tensors *source;
    mq_selection selection;
    mq_sequences calibration;  /* ids NULL for recipe rtn; its order: mq_quantize_read_text */
    mq_master_linear *linears; /* [selection.tensors + embedding_count], in the order of the blocks,
                                  then the embeddings and an untied head */
    size_t embedding_count;
    size_t *linear_index; /* [layers · MQ_LINEAR_COUNT]: position in linears of its tensor */
    char **ignored;       /* prefixes of linears that stay as they are */
    size_t ignored_count;
    char (*norms)[MQ_NAME_SIZE]; /* [norm_count]: tensors that refitted widths have copies of */
    const char **norm_names;     /* sorted */
    size_t norm_count;
    unsigned refit_widths[MQ_MAX_WIDTHS];
    size_t refit_width_count; /* 0: no refit */
    size_t read, written;     /* of the calibration: sequences out of the file (or all that are the
                                 model's own), and those that the model added to them */
    size_t given;             /* tokens that each sequence begins with that the model writes */
    bool text_taken;          /* what the model writes was in options->state */
    bool text_written;        /* or is there now, which it is not in the plan */
    size_t train, validation; /* sequences of the calibration for end-to-end stages */
    size_t refit_train, qat_train; /* the last so many of train */
    size_t refit_epochs, qat_epochs;
    mq_master_layout layout;
    mq_backend backend;
    size_t kept_bytes; /* of blocks' insides, by the refit */
    size_t working_set, refit_memory, qat_memory,
        sampling;  /* bytes: of a block's learner; of end-to-end stages; of the model and its cache
                      while it writes text */
    size_t memory; /* predicted peak of allocated bytes */
    size_t output_bytes, disk_free;
    cJSON *small_digests;  /* of the source's config.json and tokenizer.json */
    cJSON *digests;        /* of these and of its weights, once they are known */
    cJSON *card;           /* of the source's model card, the front matter; NULL: there is none */
    mq_quantize_kept kept; /* of options->state */
} mq_quantize_plan;

/* Opens and checks all that can be known: options, paths, model, every weight finite, group sizes,
 * calibration, memory and disk. Nothing is written. The plan is to be freed in every case. */
mq_status mq_quantize_plan_make(mq_quantize_plan *plan, const mq_quantize_options *options,
                                const mq_context *context, mq_error *err);
void mq_quantize_plan_free(mq_quantize_plan *plan);

/* Warns of what can be quantized, but is hardly what was meant (warnings.c). */
mq_status mq_quantize_warn_of_source(const mq_quantize_plan *plan, mq_error *err);

/* Reads plan->card; a card that says nothing, or none, is no error (source_card.c). */
mq_status mq_quantize_read_card(mq_quantize_plan *plan, mq_error *err);

/* Adds the file to an error about a tensor of the source that came without one. */
mq_status mq_quantize_in_source(const mq_quantize_plan *plan, mq_status status, mq_error *err);

/* MQ_ERR_MACHINE, with what would need less, unless so many bytes are free. */
mq_status mq_quantize_check_memory(const mq_quantize_plan *plan, size_t needed, const char *advice,
                                   mq_error *err);

/* --- the calibration text (text.c) ------------------------------------------------------------ */

/* --calib self. */
bool mq_quantize_is_self(const mq_quantize_options *options);
/* Whether any of the calibration is the model's. */
bool mq_quantize_has_written(const mq_quantize_plan *plan);
/* Reads plan->calibration from the file, and sets what depends on its size. If the file has fewer
 * sequences than the end-to-end stages can use and options->extend is set, the sequences that the
 * model is to write (LLM-QAT, Liu et al. 2023) come before those that were read; each begins with a
 * piece of the text, and the rest of it is empty for now. The blocks learn from the first
 * options->samples sequences that were read, as they would without written ones.
 *
 * The end-to-end stages use the first train + validation sequences (if there are written ones, this
 * is all of them). The last `validation` of these are measured on. Each stage trains on the last
 * ones before those, as many as it wants: first those that were read, and then written ones. With
 * --calib self all sequences are to be written. */
mq_status mq_quantize_read_text(mq_quantize_plan *plan, mq_error *err);
/* Whether something is still to be written. If so, the next two prepare the products for it and
 * measure plan->sampling, the memory that it takes. */
bool mq_quantize_is_unwritten(const mq_quantize_plan *plan);
mq_status mq_quantize_prepare_sampling(mq_quantize_plan *plan, mq_error *err);
mq_status mq_quantize_check_sampling(mq_quantize_plan *plan, mq_error *err);
/* Writes it. */
mq_status mq_quantize_write_text(mq_quantize_plan *plan, mq_error *err);

/* --- embeddings and head (embeddings.c) ------------------------------------------------------- */

/* Appends them to plan->linears, if they are to be quantized. */
void mq_quantize_embedding_layout(mq_quantize_plan *plan);
/* Quantizes them into the writer. */
mq_status mq_quantize_embeddings(const mq_quantize_plan *plan, mq_master_writer *writer,
                                 mq_error *err);
/* By width: the model's weights with these embeddings in their place, read back from the writer;
 * NULL when they are kept. To be freed in every case. */
mq_status mq_quantize_embedded(mq_weights *out[MQ_MAX_WIDTH + 1], const mq_quantize_plan *plan,
                               const mq_master_writer *writer, mq_error *err);
/* Bytes that reading allocates meanwhile, at most. */
size_t mq_quantize_embedding_memory(const mq_quantize_plan *plan);

/* --- the refit, when the blocks are done (refit.c) -------------------------------------------- */

/* Whether some of the text is measured on and not trained on. */
bool mq_quantize_is_validated(const mq_quantize_plan *plan);
/* Sets how many sequences the refit and --qat train and measure on, and how many of them the model
 * is to write, if the file has `available` sequences (0: assume that it has as many as are wanted).
 * *wanted: how many sequences the job reads. */
void mq_quantize_refit_share(size_t *wanted, mq_quantize_plan *plan, size_t available);
/* The norms that refitted widths, or with options->let all widths, get copies of, for the layout.
 */
mq_status mq_quantize_private_names(mq_quantize_plan *plan, mq_error *err);
/* Bytes of it, from the shares that are set. */
mq_status mq_quantize_refit_memory(mq_quantize_plan *plan, mq_error *err);
/* What both stages set up alike; epochs are theirs. */
mq_refit_setup mq_quantize_end_to_end(const mq_quantize_plan *plan, size_t train);
/* The writer as their store, while bridge stays. */
typedef struct mq_refit_bridge {
    const mq_quantize_plan *plan;
    mq_master_writer *writer;
} mq_refit_bridge;
mq_refit_store mq_quantize_store(mq_refit_bridge *bridge, const mq_quantize_plan *plan,
                                 mq_master_writer *writer);
/* Refits every width of the plan in the writer's tensors, or takes it from the state (NULL: there
 * is none), which gets those that are refitted; reports[refit_width_count]. */
mq_status mq_quantize_refit(mq_refit_report *reports, const mq_quantize_plan *plan,
                            mq_weights *const embeddings[MQ_MAX_WIDTH + 1],
                            mq_master_writer *writer, mq_quantize_state *state, mq_error *err);

/* --- --qat, before the refit (qat.c) ---------------------------------------------------------- */

/* Bytes of it, from the shares that are set. */
mq_status mq_quantize_qat_memory(mq_quantize_plan *plan, mq_error *err);
double mq_quantize_qat_rate(const mq_quantize_options *options);
mq_status mq_quantize_qat(mq_qat_report *report, const mq_quantize_plan *plan,
                          mq_weights *const embeddings[MQ_MAX_WIDTH + 1], mq_master_writer *writer,
                          mq_error *err);

/* Floating-point operations of the linear layers' and the head's products that are still to be made
 * (work.c). A job takes at least their time; what comes on top are attention, full precision's pass
 * before the end-to-end stages, measuring, the writing of text, and all that is no product. */
double mq_quantize_work(const mq_quantize_plan *plan);

/* plan->small_digests, when the model has just been opened; and plan->digests, unless they are
 * there, which reads all weights. They are of the files that are learned from, whatever has taken
 * their place by the time that a text has come through a pipe. What remains: weights that are
 * changed in the file itself are read as they are by then, and the master's config.json, tokenizer
 * and other small files come from what is at their paths when the writer is opened or finished. */
mq_status mq_quantize_small_digests(mq_quantize_plan *plan, mq_error *err);
mq_status mq_quantize_digests(mq_quantize_plan *plan, mq_error *err);

/* The JSON object of the file matquant.json, without what the master's writer adds. blocks[layers]
 * or NULL; refits[plan->refit_width_count]; qat counts where plan->options->qat is set. Nothing in
 * it depends on time or place, nor on the number of threads, so that two runs write the same bytes.
 * *out is the caller's. */
mq_status mq_quantize_provenance(cJSON **out, const mq_quantize_plan *plan,
                                 const mq_block_loss *blocks, const mq_refit_report *refits,
                                 const mq_qat_report *qat, mq_error *err);
/* Of it what is known before the first block, and the versions that the master's writer adds:
 * everything that decides what is learned. Without the calibration text, and what depends on it,
 * while that is not there. Both want plan->digests. */
mq_status mq_quantize_job(cJSON **out, const mq_quantize_plan *plan, mq_error *err);

#endif
