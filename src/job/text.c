/* The calibration text: out of a file, or written by the model itself, or both. */
#include <string.h>

#include "job/state.h"
#include "model/generate.h"

/* The model's own distribution: what a colder one writes is duller than text is. */
#define TEMPERATURE 1.0

bool mq_quantize_is_self(const mq_quantize_options *options) {
    return options->calib != NULL && strcmp(options->calib, "self") == 0;
}

bool mq_quantize_has_written(const mq_quantize_plan *plan) {
    return mq_quantize_is_self(plan->options) || plan->written > 0;
}

/* The refit needs one to train and one to measure on. */
static size_t least_count(const mq_quantize_plan *plan) {
    const size_t least = mq_quantize_is_validated(plan) ? 2 : 1;
    return plan->options->samples > least ? plan->options->samples : least;
}

/* With --calib self: as many as the end-to-end stages have use for, or the blocks. */
static size_t self_count(const mq_quantize_plan *plan) {
    mq_quantize_plan asked = *plan;
    size_t wanted;
    mq_quantize_refit_share(&wanted, &asked, 0);
    const size_t least = least_count(plan);
    return plan->options->extend && wanted > least ? wanted : least;
}

static mq_generate_setup sampling_of(const mq_quantize_plan *plan) {
    return (mq_generate_setup){.model = plan->model,
                               .sequences =
                                   mq_quantize_is_self(plan->options) ? plan->read : plan->written,
                               .length = plan->options->seq_len,
                               .given = plan->given,
                               .temperature = TEMPERATURE,
                               .seed = plan->options->seed,
                               .gemm = plan->backend.bf16};
}

bool mq_quantize_is_unwritten(const mq_quantize_plan *plan) {
    return mq_quantize_has_written(plan) && !plan->text_taken && !plan->text_written;
}

mq_status mq_quantize_prepare_sampling(mq_quantize_plan *plan, mq_error *err) {
    const mq_generate_setup setup = sampling_of(plan);
    return mq_generate_prepare(&setup, err);
}

mq_status mq_quantize_check_sampling(mq_quantize_plan *plan, mq_error *err) {
    const mq_generate_setup setup = sampling_of(plan);
    plan->sampling = mq_generate_memory(&setup);
    return mq_quantize_check_memory(plan, plan->sampling,
                                    mq_quantize_is_self(plan->options)
                                        ? "text of your own (--calib FILE) or a shorter --seq-len"
                                        : "--no-extend or more calibration text",
                                    err);
}

static mq_status allocate(mq_sequences *out, size_t count, size_t length, mq_error *err) {
    size_t row;
    if (!mq_mul_size(&row, length, sizeof(int32_t))) {
        return mq_fail(err, MQ_ERR_USAGE, "--seq-len %zu is too large", length);
    }
    const mq_status status = mq_new(&out->ids, count, row, "the calibration text", err);
    if (status == MQ_OK) {
        out->count = count;
        out->length = length;
    }
    return status;
}

/* --- all of it the model's -------------------------------------------------------------------- */

/* The tokenizer is only asked for its first token and does not stay while the model is sampled. */
static mq_status begin_self(mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_options *options = plan->options;
    mq_tokenizer *tokenizer;
    mq_status status = mq_tokenizer_open(&tokenizer, options->model, err);
    if (status != MQ_OK) {
        return status;
    }
    const int32_t bos = options->bos ? mq_tokenizer_bos(tokenizer) : -1;
    mq_tokenizer_free(tokenizer);
    plan->read = self_count(plan);
    plan->given = 1;
    status = allocate(&plan->calibration, plan->read, options->seq_len, err);
    size_t wanted;
    mq_quantize_refit_share(&wanted, plan, plan->read);
    const mq_generate_setup setup = sampling_of(plan);
    return status == MQ_OK ? mq_generate_first(plan->calibration.ids, &setup, bos, err) : status;
}

/* --- out of a file, and the rest the model's ---------------------------------------------------
 */

/* A piece of the file's text that the model goes on from is an eighth of a sequence: long enough
 * to say what the text is about. */
#define PIECE_SHARE 8

/* Whether all sequences begin with the same token, as with a beginning of sequence. */
static bool begin_alike(const int32_t *ids, size_t count, size_t length) {
    for (size_t i = 1; i < count; i++) {
        if (ids[i * length] != ids[0]) {
            return false;
        }
    }
    return count > 1;
}

/* The beginning of each written sequence: of the file's ones in turn, a piece from a place that the
 * seed chooses, after the `alike` tokens that all of them begin with. from[count, length]; returns
 * how many tokens are given. */
static size_t give_pieces(int32_t *out, size_t written, const int32_t *from, size_t count,
                          size_t length, size_t alike, uint64_t seed) {
    const size_t share = (length - alike) / PIECE_SHARE;
    const size_t piece = share > 0 ? share : 1;
    mq_random random;
    mq_random_seed(&random, seed, MQ_STREAM_PIECES);
    for (size_t i = 0; i < written; i++) {
        const int32_t *row = from + i % count * length;
        const size_t at = alike + (size_t)mq_random_below(&random, length - alike - piece + 1);
        memcpy(out + i * length, row, alike * sizeof *out);
        memcpy(out + i * length + alike, row + at, piece * sizeof *out);
    }
    return alike + piece;
}

/* The calibration as job.h says; what the model is to write has its beginnings only, which are
 * pieces of what is trained on. */
static mq_status lay_out(mq_quantize_plan *plan, mq_error *err) {
    const mq_sequences *read = &plan->calibration;
    const size_t length = read->length, row = length * sizeof *read->ids;
    mq_sequences all = {0};
    mq_status status = allocate(&all, plan->written + plan->read, length, err);
    if (status != MQ_OK) {
        return status;
    }
    memset(all.ids, 0, plan->written * row);
    memcpy(all.ids + plan->written * length, read->ids, plan->read * row);
    const size_t alike = length > 1 && begin_alike(read->ids, plan->read, length) ? 1 : 0;
    plan->given = give_pieces(all.ids, plan->written, read->ids, plan->read - plan->validation,
                              length, alike, plan->options->seed);
    all.bos = read->bos;
    memcpy(all.sha256, read->sha256, sizeof all.sha256);
    mq_sequences_free(&plan->calibration);
    plan->calibration = all;
    return MQ_OK;
}

static mq_status text_of_file(mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_options *options = plan->options;
    size_t wanted;
    mq_quantize_refit_share(&wanted, plan, 0);
    const mq_corpus_options corpus = {
        .length = options->seq_len,
        .max_count = wanted,
        .min_count = least_count(plan),
        .bos = options->bos,
        .sample = true,
        .seed = options->seed,
        .vocab_size = plan->model->config.vocab_size,
    };
    mq_tokenizer *tokenizer = NULL;
    mq_status status = MQ_OK;
    if (!mq_corpus_is_ids(options->calib)) {
        status = mq_tokenizer_open(&tokenizer, options->model, err);
    }
    if (status == MQ_OK) {
        status = mq_corpus_load(&plan->calibration, options->calib, tokenizer, &corpus,
                                plan->context, err);
    }
    mq_tokenizer_free(tokenizer);
    if (status == MQ_OK) {
        plan->read = plan->calibration.count;
        mq_quantize_refit_share(&wanted, plan, plan->read);
        status = plan->written > 0 ? lay_out(plan, err) : MQ_OK;
    }
    return status;
}

/* --- both ------------------------------------------------------------------------------------- */

mq_status mq_quantize_read_text(mq_quantize_plan *plan, mq_error *err) {
    if (plan->options->recipe == MQ_RECIPE_RTN) {
        return MQ_OK;
    }
    return mq_quantize_is_self(plan->options) ? begin_self(plan, err) : text_of_file(plan, err);
}

mq_status mq_quantize_write_text(mq_quantize_plan *plan, mq_error *err) {
    const mq_generate_setup setup = sampling_of(plan);
    if (mq_quantize_is_self(plan->options)) {
        mq_log(plan->context, MQ_LOG_INFO, "sampling %zu x %zu tokens from the model itself",
               setup.sequences, setup.length);
    } else {
        mq_log(plan->context, MQ_LOG_INFO,
               "the text has %zu sequences of %zu tokens: the model goes on from pieces of it and "
               "writes %zu more (--no-extend leaves that out)",
               plan->read, setup.length, setup.sequences);
    }
    const mq_status status = mq_generate(plan->calibration.ids, &setup, plan->context, err);
    plan->text_written = status == MQ_OK;
    return status;
}
