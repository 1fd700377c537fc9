/* The folder of quantize's --state: what a job has finished, for the next run of the same job to go
 * on from. It holds, each there whole or not at all:
 *
 * - job.json, {"state_version": V, "crc32": ..., "job": {...}}: everything that decides what is
 *   learned, as matquant.json of the master says it, with the shares of the text for the end-to-end
 *   stages. crc32 is that of "job" as it is printed (base/json.h). All other files are of this job.
 *   V is STATE_VERSION (state_job.c); a state of another is refused.
 *
 * - block-LLLLL.safetensors, block number L, from 0: P.codes, P.scales.wR and P.biases.wR of each
 *   of its quantized linears, for all R from 2 to 8, as in the master (matquant/format.h); with
 *   --let the multipliers of the norm that it divided, F32, under the norm's name; losses F64 [2,
 *   trained widths], before and after, in the order of --bits; seconds F64 [1]; epochs U64 [1].
 *
 * - refit-wR.safetensors, width R after the refit: P.scales.wR, P.biases.wR of all quantized
 *   linears of the blocks; the private norms NAME.wR, F32 whatever the master has; kl F64 [2],
 *   before and after; counts U64 [2]: the kept epoch, and tokens that it was trained on.
 *
 * - text.safetensors, if the model wrote calibration text: ids I32 [sequences, seq_len], all of the
 *   calibration (job/job.h says in which order).
 *
 * The safetensors files are sealed (tensor/safetensors.h): a CRC-32 of the whole file is checked
 * before anything is taken from it. Embeddings and what --qat does are not kept. Numbers are in the
 * machine's byte order, which is little endian.
 *
 * A file that is removed is made again, job.json apart: without it nobody knows whose the others
 * are, and they are refused. When the master is there, the folder goes. */
#ifndef MQ_JOB_STATE_H
#define MQ_JOB_STATE_H

#include "job/job.h"

/* --- before the first block; nothing is written ----------------------------------------------- */

/* Whether options->state can be used: not there, empty, or a job's state; neither in the output nor
 * around it (MQ_ERR_USAGE); and may be written in. */
mq_status mq_state_check_folder(const mq_quantize_options *options, mq_error *err);

/* What is there and what there will be, when the layout is known: plan->kept. */
mq_status mq_state_survey(mq_quantize_plan *plan, mq_error *err);
/* Whether that is still so: MQ_ERR_USAGE when another run has added or removed files. */
mq_status mq_state_survey_again(const mq_quantize_plan *plan, mq_error *err);

/* The backend to open: of --gemm auto the one that the state's job took, where this machine has it;
 * a measurement of today might take the other. */
mq_status mq_state_backend(mq_gemm_choice *gemm, const mq_quantize_options *options, mq_error *err);

/* Whether the state is this job's: MQ_ERR_USAGE naming the first field that differs. Of the
 * calibration text, and what depends on it, only when that is there, and its checksum when all is
 * written. */
mq_status mq_state_check_job(mq_quantize_plan *plan, mq_error *err);

/* What the model wrote for this job before: *taken, and the calibration's ids are all there, whose
 * number and length are set, as are those that were read. False when it is not kept. MQ_ERR_INPUT:
 * the file is damaged; MQ_ERR_USAGE: it has another number of them, or others were read. */
mq_status mq_state_take_text(bool *taken, mq_quantize_plan *plan, mq_error *err);

/* Whether every file that the survey has found is whole: MQ_ERR_INPUT naming it; MQ_ERR_USAGE if
 * another run has removed it. */
mq_status mq_state_check_files(const mq_quantize_plan *plan, mq_error *err);

/* --- job.json (state_job.c) ------------------------------------------------------------------- */

#define MQ_STATE_JOB "job.json"

/* *out is the caller's; NULL when there is none. MQ_ERR_INPUT: it is damaged, or none of ours;
 * MQ_ERR_USAGE: it is of another version of the program. */
mq_status mq_state_read_job(cJSON **out, const char *folder, mq_error *err);
mq_status mq_state_write_job(const char *folder, const cJSON *job, mq_error *err);
/* MQ_ERR_USAGE when `here` differs from `there`, or, without `all`, one of its fields does. */
mq_status mq_state_compare_jobs(const cJSON *there, const cJSON *here, bool all, const char *folder,
                                mq_error *err);

/* --- while it runs ---------------------------------------------------------------------------- */

/* Makes the folder if need be and locks it; checks again, now that no other run can be at work with
 * it, that it is this job's and holds what plan->kept says (MQ_ERR_USAGE; then nothing in it is
 * touched). Wants plan->digests, but not the text that the model writes. The plan must outlive the
 * state. */
mq_status mq_state_open(mq_quantize_state **out, const mq_quantize_plan *plan, mq_error *err);
/* When all of the calibration is there: writes job.json, and the text if the model wrote any.
 * MQ_ERR_USAGE: job.json is of another text. */
mq_status mq_state_begin(mq_quantize_state *state, mq_error *err);

/* The parts of a block, then the block: now it is there. In the order of mq_run_sink. */
mq_status mq_state_keep_linear(mq_quantize_state *state, size_t layer, mq_linear linear,
                               const mq_quantized *quantized, mq_error *err);
mq_status mq_state_keep_norm(mq_quantize_state *state, size_t layer, mq_norm norm,
                             const float *values, mq_error *err);
mq_status mq_state_keep_block(mq_quantize_state *state, size_t layer, const mq_block_loss *loss,
                              mq_error *err);
/* As mq_run_sink's restore. */
mq_status mq_state_restore_block(const mq_quantized quantized[MQ_LINEAR_COUNT], float *norm,
                                 mq_block_loss *loss, const mq_quantize_state *state, size_t layer,
                                 mq_error *err);

/* The same of a refitted width: pairs of rows [first, first + count) of the plan's linears, by
 * their index there and in rising order, and private norms. */
mq_status mq_state_keep_pairs(mq_quantize_state *state, size_t index, unsigned width, size_t first,
                              size_t count, const uint16_t *scales, const uint16_t *biases,
                              mq_error *err);
mq_status mq_state_keep_private(mq_quantize_state *state, const char *name, unsigned width,
                                const float *values, size_t size, mq_error *err);
mq_status mq_state_keep_width(mq_quantize_state *state, const mq_refit_report *report,
                              mq_error *err);
/* Into the master's writer, and *report. */
mq_status mq_state_restore_width(mq_refit_report *report, const mq_quantize_state *state,
                                 unsigned width, mq_master_writer *writer, mq_error *err);

/* done: the master is there, so the folder goes; it goes, too, when nothing is in it but the job.
 * Otherwise a message says that the same command goes on. NULL allowed. */
void mq_state_close(mq_quantize_state *state, bool done);

#endif
