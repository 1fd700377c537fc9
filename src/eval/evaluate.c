#include "matquant/eval.h"

#include <math.h>
#include <string.h>

#include "eval/perplexity.h"
#include "eval/record.h"
#include "eval/score.h"
#include "eval/tasks.h"
#include "store/master.h"
#include "tensor/gemm.h"

mq_eval_options mq_eval_defaults(void) {
    return (mq_eval_options){.seq_len = 1024, .batch = 4, .bos = true};
}

static mq_status check_options(const mq_eval_options *options, mq_error *err) {
    if (!options->model || (!options->text && options->task_count == 0)) {
        return mq_fail(err, MQ_ERR_USAGE, "a model and a text or tasks are needed");
    }
    if (options->reference && !options->text) {
        return mq_fail(err, MQ_ERR_USAGE, "a reference is compared with on a text");
    }
    if (options->items && options->task_count == 0) {
        return mq_fail(err, MQ_ERR_USAGE, "there are items of tasks only");
    }
    if (options->items && options->width_count > 1) {
        return mq_fail(err, MQ_ERR_USAGE, "items are those of one width");
    }
    for (size_t i = 0; i < options->width_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (options->widths[i] == options->widths[k]) {
                return mq_fail(err, MQ_ERR_USAGE, "%u bits are asked for twice",
                               options->widths[i]);
            }
        }
    }
    if (options->seq_len < 2) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "a window of %zu tokens predicts nothing: at least 2 are needed",
                       options->seq_len);
    }
    if (options->batch == 0) {
        return mq_fail(err, MQ_ERR_USAGE, "a batch of 0 windows");
    }
    return MQ_OK;
}

/* A task that is there twice would count twice, in its mean and its standard error. */
static mq_status check_tasks(const mq_eval_options *options, mq_error *err) {
    for (size_t i = 0; i < options->task_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (mq_same_file(options->tasks[i], options->tasks[k])) {
                return mq_fail_file(err, MQ_ERR_USAGE, options->tasks[i],
                                    "the task is there twice");
            }
        }
    }
    return MQ_OK;
}

/* Not into a model that is read: --force would replace its weights as it does items of before. */
static mq_status check_items_folder(const mq_eval_options *options, mq_error *err) {
    char *folder = mq_path_parent(options->items);
    if (folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(options->items));
    }
    const bool inside = mq_same_file(folder, options->model) ||
                        (options->reference && mq_same_file(folder, options->reference));
    mq_free(folder);
    return inside ? mq_fail_file(err, MQ_ERR_USAGE, options->items,
                                 "the items would be a file of the model's folder")
                  : MQ_OK;
}

/* Where the items are written. */
static mq_status check_items(const mq_eval_options *options, mq_error *err) {
    for (size_t i = 0; i < options->task_count; i++) {
        if (mq_same_file(options->items, options->tasks[i])) {
            return mq_fail_file(err, MQ_ERR_USAGE, options->items, "the items are a task's file");
        }
    }
    if (mq_ends_with_any_case(options->items, ".gz")) {
        return mq_fail_file(err, MQ_ERR_USAGE, options->items,
                            "the items are not gzipped: give them a name without .gz");
    }
    if (options->text && mq_same_file(options->items, options->text)) {
        return mq_fail_file(err, MQ_ERR_USAGE, options->items, "the items are the text's file");
    }
    const mq_status status = check_items_folder(options, err);
    return status == MQ_OK ? mq_output_file_check(options->items, options->force, err) : status;
}

static mq_status load_windows(mq_sequences *out, const mq_eval_options *options,
                              const mq_tokenizer *tokenizer, const mq_config *config,
                              const mq_context *context, mq_error *err) {
    mq_corpus_options corpus = {.length = options->seq_len,
                                .max_count = options->windows,
                                .bos = options->bos,
                                .vocab_size = config->vocab_size};
    mq_status status = mq_config_check_length(config, options->seq_len, err);
    if (status == MQ_OK) {
        status = mq_corpus_load(out, options->text, tokenizer, &corpus, context, err);
    }
    if (status == MQ_OK && options->seq_len > config->max_position_embeddings) {
        mq_log(context, MQ_LOG_WARNING,
               "windows of %zu tokens are longer than the model's %zu positions", options->seq_len,
               config->max_position_embeddings);
    }
    return status;
}

static mq_status load_tasks(mq_task_set *out, const mq_eval_options *options,
                            const mq_tokenizer *tokenizer, const mq_config *config,
                            const mq_context *context, mq_error *err) {
    const size_t positions = mq_config_longest(config);
    const mq_task_encoding encoding = {
        .tokenizer = tokenizer,
        .bos = options->bos ? mq_tokenizer_bos(tokenizer) : -1,
        .vocab_size = config->vocab_size,
        .max_input_tokens = positions,
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < options->task_count; i++) {
        status =
            mq_task_set_read(out, options->tasks[i], options->max_items, &encoding, context, err);
    }
    size_t truncated = 0;
    for (size_t i = 0; i < out->item_count; i++) {
        truncated += out->items[i].truncated;
    }
    if (status == MQ_OK && truncated > 0) {
        mq_log(context, MQ_LOG_WARNING,
               "%zu of %zu items are longer than the model's %zu positions: the beginning of their "
               "context is cut",
               truncated, out->item_count, positions);
    }
    return status;
}

/* Everything that is measured on. */
static mq_status load_inputs(mq_sequences *windows, mq_task_set *tasks,
                             const mq_eval_options *options, const mq_config *config,
                             const mq_context *context, mq_error *err) {
    mq_tokenizer *tokenizer = NULL;
    mq_status status = MQ_OK;
    if (options->task_count > 0 || !mq_corpus_is_ids(options->text)) {
        status = mq_tokenizer_open(&tokenizer, options->model, err);
    }
    if (status == MQ_OK && options->task_count > 0) {
        status = load_tasks(tasks, options, tokenizer, config, context, err);
    }
    if (status == MQ_OK && options->text) {
        status = load_windows(windows, options, tokenizer, config, context, err);
    }
    mq_tokenizer_free(tokenizer);
    return status;
}

/* Whether both folders have a tokenizer.json and the two differ; one that cannot be read counts as
 * not there: what is needed of it has been read by then. */
static bool tokenizers_differ(const char *folder, const char *reference) {
    bool differ = false;
    char *paths[2] = {mq_path_join(folder, "tokenizer.json"),
                      mq_path_join(reference, "tokenizer.json")};
    if (paths[0] && paths[1] && mq_path_exists(paths[0]) && mq_path_exists(paths[1])) {
        mq_mapping maps[2] = {{NULL, 0}, {NULL, 0}};
        if (mq_map_file(&maps[0], paths[0], NULL) == MQ_OK &&
            mq_map_file(&maps[1], paths[1], NULL) == MQ_OK) {
            differ = maps[0].size != maps[1].size ||
                     (maps[0].size > 0 && memcmp(maps[0].data, maps[1].data, maps[0].size) != 0);
        }
        mq_unmap_file(&maps[0]);
        mq_unmap_file(&maps[1]);
    }
    mq_free(paths[0]);
    mq_free(paths[1]);
    return differ;
}

/* The reference predicts the same tokens, so it has to have the same ones. */
static mq_status open_reference(mq_model **out, const mq_eval_options *options,
                                const mq_model *model, const mq_context *context, mq_error *err) {
    mq_kind kind; /* says of what is not there that nothing is downloaded */
    mq_status status = mq_folder_kind(&kind, options->reference, err);
    if (status == MQ_OK) {
        status = mq_model_open_plain(out, options->reference, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    if ((*out)->config.vocab_size != model->config.vocab_size) {
        return mq_fail_file_in(err, MQ_ERR_INPUT, options->reference, "config.json",
                               "the reference has a vocabulary of %zu tokens, the model one of %zu",
                               (*out)->config.vocab_size, model->config.vocab_size);
    }
    if (!mq_corpus_is_ids(options->text) && tokenizers_differ(options->model, options->reference)) {
        mq_log(context, MQ_LOG_WARNING,
               "%s: tokenizer.json differs from the model's: the comparison means nothing unless "
               "both give the "
               "same tokens",
               options->reference);
    }
    return MQ_OK;
}

static void summarize(mq_eval_result *result, const mq_window_scores *scores,
                      const mq_sequences *windows) {
    size_t count = windows->count;
    mq_estimate nll = mq_estimate_of(scores->nll, count);
    result->windows = count;
    result->tokens = count * (windows->length - 1);
    result->nll = nll.mean;
    result->nll_stderr = nll.std_error;
    result->perplexity = exp(nll.mean);
    if (result->has_reference) {
        mq_estimate kl = mq_estimate_of(scores->kl, count);
        result->kl = kl.mean;
        result->kl_stderr = kl.std_error;
        result->top1_agreement = mq_estimate_of(scores->agreement, count).mean;
        result->reference_perplexity = exp(mq_estimate_of(scores->reference_nll, count).mean);
    }
}

/* Everything that takes part. */
typedef struct eval_inputs {
    mq_model **models; /* [count], a width each */
    size_t count;
    mq_model *reference; /* or NULL */
    mq_sequences windows;
    mq_task_set tasks;
} eval_inputs;

static void close_all(eval_inputs *self) {
    mq_task_set_free(&self->tasks);
    mq_sequences_free(&self->windows);
    mq_model_free(self->reference);
    for (size_t i = 0; self->models != NULL && i < self->count; i++) {
        mq_model_free(self->models[i]);
    }
    mq_free(self->models);
}

static mq_status open_all(eval_inputs *self, const mq_eval_options *options,
                          const mq_context *context, mq_error *err) {
    mq_status status = MQ_OK;
    self->models = mq_calloc(self->count, sizeof *self->models);
    if (self->models == NULL) {
        return mq_fail_memory(err, "the widths", self->count);
    }
    for (size_t i = 0; status == MQ_OK && i < self->count; i++) {
        const unsigned width = options->width_count > 0 ? options->widths[i] : 0;
        status = mq_model_open_mixed(&self->models[i], options->model, width, options->layer_bits,
                                     options->layer_bits_count, err);
    }
    if (status == MQ_OK && options->reference) {
        status = open_reference(&self->reference, options, self->models[0], context, err);
    }
    return status == MQ_OK ? load_inputs(&self->windows, &self->tasks, options,
                                         &self->models[0]->config, context, err)
                           : status;
}

static mq_status score(mq_eval_result *results, const mq_eval_options *options,
                       const eval_inputs *inputs, const mq_context *context, mq_error *err) {
    const size_t count = inputs->windows.count, widths = inputs->count;
    double *memory = NULL;
    mq_window_scores *scores = NULL;
    mq_status status = mq_new(&scores, widths, sizeof *scores, "losses of the windows", err);
    if (status == MQ_OK) {
        size_t bytes;
        status = mq_mul3_size(&bytes, widths, 4, sizeof *memory)
                     ? mq_new(&memory, count, bytes, "losses of the windows", err)
                     : mq_fail_memory(err, "losses of the windows", SIZE_MAX);
    }
    for (size_t i = 0; status == MQ_OK && i < widths; i++) {
        double *own = memory + 4 * i * count;
        scores[i] = (mq_window_scores){own, own + count, own + 2 * count, own + 3 * count};
    }
    if (status == MQ_OK) {
        const mq_scored scored = {(const mq_model *const *)inputs->models, widths,
                                  inputs->reference};
        status = mq_score_windows(scores, &scored, &inputs->windows, options->batch,
                                  MQ_EVAL_HIDDEN_BYTES, context, err);
    }
    for (size_t i = 0; status == MQ_OK && i < widths; i++) {
        results[i].has_reference = inputs->reference != NULL;
        summarize(&results[i], &scores[i], &inputs->windows);
    }
    mq_free(memory);
    mq_free(scores);
    return status;
}

static mq_status score_tasks(mq_eval_result *result, const mq_eval_options *options,
                             const mq_model *model, mq_task_set *tasks, const mq_context *context,
                             mq_error *err) {
    const double start = mq_seconds();
    size_t batch_rows;
    if (!mq_mul_size(&batch_rows, options->batch, options->seq_len)) {
        batch_rows = SIZE_MAX;
    }
    mq_status status = mq_task_score(tasks, &result->task_tokens, model, batch_rows,
                                     MQ_EVAL_HIDDEN_BYTES, context, err);
    result->task_seconds = mq_seconds() - start;
    return status == MQ_OK ? mq_task_summarize(result, tasks, err) : status;
}

/* On the text all widths side by side, for the sake of the reference; on the tasks one by one. */
static mq_status measure(mq_eval_result *results, const mq_eval_options *options,
                         eval_inputs *inputs, const mq_context *context, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < inputs->count; i++) {
        results[i].width = inputs->models[i]->width;
        results[i].widths = inputs->models[i]->widths;
        results[i].bos = inputs->windows.bos;
        memcpy(results[i].text_sha256, inputs->windows.sha256, sizeof results[i].text_sha256);
    }
    if (options->text) {
        status = score(results, options, inputs, context, err);
    }
    for (size_t i = 0; status == MQ_OK && options->task_count > 0 && i < inputs->count; i++) {
        status = score_tasks(&results[i], options, inputs->models[i], &inputs->tasks, context, err);
    }
    for (size_t i = 0; i < inputs->count; i++) {
        results[i].measured = status == MQ_OK;
    }
    return status;
}

void mq_eval_result_free(mq_eval_result *result) {
    mq_free(result->tasks);
    *result = (mq_eval_result){0};
}

mq_status mq_evaluate(mq_eval_result *results, const mq_eval_options *options,
                      const mq_context *context, mq_error *err) {
    const double start = mq_seconds();
    mq_context_use(context);
    char master[65] = ""; /* with record */
    eval_inputs inputs = {.count = options->width_count > 0 ? options->width_count : 1};
    for (size_t i = 0; i < inputs.count; i++) {
        results[i] = (mq_eval_result){0};
    }
    mq_status status = check_options(options, err);
    if (status == MQ_OK) {
        status = check_tasks(options, err);
    }
    if (status == MQ_OK && options->items) {
        status = check_items(options, err);
    }
    if (status == MQ_OK && options->record) {
        status = mq_record_check(master, options, err);
    }
    if (status == MQ_OK) {
        status = mq_gemm_check_buffers(mq_context_threads(context), err);
    }
    if (status == MQ_OK) {
        status = open_all(&inputs, options, context, err);
    }
    if (status == MQ_OK) {
        status = measure(results, options, &inputs, context, err);
    }
    if (status == MQ_OK && options->items) {
        status = mq_task_write_items(options->items, options->force, &inputs.tasks, err);
    }
    if (status == MQ_OK && options->record) {
        status = mq_record_write(results, inputs.count, master, options, context, err);
    }
    close_all(&inputs);
    for (size_t i = 0; i < inputs.count; i++) {
        if (results[i].measured) {
            results[i].seconds = mq_seconds() - start;
        } else {
            mq_eval_result_free(&results[i]);
        }
    }
    return status;
}
