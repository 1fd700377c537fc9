/* layer: store */
/* The end-to-end refit of one width alone, on a master that is there: for trials of its settings.
 * Nothing is written. scripts/bench-refit.sh makes a table of several.
 *
 *   bench_refit MODEL MASTER CALIB WIDTH [TRAIN [EPOCHS [RATE [GEMM [BATCH]]]]]
 *
 * TRAIN sequences of 512 tokens (default 192), 8 more to measure on; RATE below 0: that of the
 * width; GEMM float32 (the default) or bf16; BATCH sequences a step (default 4). One row of a
 * table:
 *
 *   | bits | sequences | epochs | rate | GEMM | batch | KL before | KL after | seconds | MiB
 * (predicted) |
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/refit.h"
#include "store/master.h"
#include "text/corpus.h"

#define LENGTH 512
#define VALIDATION 8

typedef struct trial {
    mq_context *context;
    mq_model *model;
    mq_tensors *source;
    mq_master *master;
    mq_sequences text;
    mq_selection selection;
    mq_gemm_bf16 *gemm;
} trial;

/* --- the master as the refit's store -----------------------------------------------------------
 */

static const mq_master_view *view_of(const trial *self, size_t layer, mq_linear linear) {
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &self->model->config, layer, linear, "weight");
    name[strlen(name) - strlen(".weight")] = '\0';
    return mq_master_find(self->master, name);
}

static mq_status codes(void *user, uint8_t *out, size_t layer, mq_linear linear, size_t first,
                       size_t count, mq_error *err) {
    (void)err;
    const mq_master_view *view = view_of(user, layer, linear);
    memcpy(out, view->codes->data + first * view->in, count * view->in);
    return MQ_OK;
}

static mq_status pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                       mq_linear linear, unsigned width, mq_error *err) {
    (void)err;
    const mq_master_view *view = view_of(user, layer, linear);
    memcpy(scales, view->scales[width]->data, view->scales[width]->bytes);
    memcpy(biases, view->biases[width]->data, view->biases[width]->bytes);
    return MQ_OK;
}

static mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    (void)user, (void)layer, (void)linear, (void)width, (void)scales, (void)biases, (void)err;
    return MQ_OK;
}

static mq_status put_norm(void *user, const char *name, unsigned width, const float *values,
                          size_t size, mq_error *err) {
    (void)user, (void)name, (void)width, (void)values, (void)size, (void)err;
    return MQ_OK;
}

/* --- what a trial needs ------------------------------------------------------------------------
 */

static void message(void *user, mq_log_level level, const char *text) {
    (void)user, (void)level;
    fprintf(stderr, "%s\n", text);
}

static mq_status load_text(trial *self, const char *model, const char *calib, size_t count,
                           mq_error *err) {
    mq_tokenizer *tokenizer;
    mq_status status = mq_tokenizer_open(&tokenizer, model, err);
    if (status == MQ_OK) {
        const mq_corpus_options corpus = {.length = LENGTH,
                                          .max_count = count,
                                          .bos = true,
                                          .sample = true,
                                          .vocab_size = self->model->config.vocab_size};
        status = mq_corpus_load(&self->text, calib, tokenizer, &corpus, self->context, err);
        mq_tokenizer_free(tokenizer);
    }
    return status;
}

static mq_status find_groups(trial *self, mq_error *err) {
    mq_selection *selection = &self->selection;
    selection->layers = self->model->config.num_hidden_layers;
    mq_status status =
        mq_new(&selection->groups, selection->layers, sizeof *selection->groups, "groups", err);
    for (size_t i = 0; status == MQ_OK && i < selection->layers * MQ_LINEAR_COUNT; i++) {
        const size_t layer = i / MQ_LINEAR_COUNT, linear = i % MQ_LINEAR_COUNT;
        const mq_master_view *view = view_of(self, layer, (mq_linear)linear);
        selection->groups[layer][linear] = view != NULL ? view->groups : 0;
    }
    return status;
}

static mq_status open_trial(trial *self, char **argv, size_t train, bool bf16, mq_error *err) {
    const mq_context_options options = {.sink = {NULL, message, NULL}};
    mq_status status = mq_context_new(&self->context, &options, err);
    if (status == MQ_OK) {
        status = mq_model_open_plain(&self->model, argv[1], err);
    }
    if (status == MQ_OK) {
        status = mq_tensors_open(&self->source, argv[1], err);
    }
    if (status == MQ_OK) {
        status = mq_master_open(&self->master, argv[2], err);
    }
    if (status == MQ_OK) {
        status = load_text(self, argv[1], argv[3], train + VALIDATION, err);
    }
    if (status == MQ_OK) {
        status = find_groups(self, err);
    }
    if (status == MQ_OK && bf16) {
        status = mq_gemm_bf16_new(&self->gemm, mq_context_threads(self->context), err);
    }
    return status;
}

static void close_trial(trial *self) {
    mq_gemm_bf16_free(self->gemm);
    mq_selection_free(&self->selection);
    mq_sequences_free(&self->text);
    mq_master_close(self->master);
    mq_tensors_close(self->source);
    mq_model_free(self->model);
    mq_context_free(self->context);
}

static mq_status run(const mq_refit_setup *setup, trial *self, unsigned width, mq_error *err) {
    const mq_refit_store store = {self, codes, pairs, put_pairs, put_norm};
    size_t predicted;
    mq_refit *refit = NULL;
    mq_refit_result result;
    mq_status status = mq_refit_prepare(setup, err);
    if (status == MQ_OK) {
        status = mq_refit_memory(&predicted, setup, self->context, err);
    }
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    if (status == MQ_OK) {
        status = mq_refit_open(&refit, setup, self->context, err);
    }
    if (status == MQ_OK) {
        status = mq_refit_width(&result, refit, width, &store, 0, 0, err);
    }
    if (status == MQ_OK) {
        const double rate = setup->rate < 0.0 ? mq_refit_rate(width) : setup->rate;
        printf("| %u | %zu | %zu | %g | %s | %zu | %.5f | %.5f | %.0f | %.0f (%.0f) |\n", width,
               setup->train, setup->epochs, rate, setup->gemm != NULL ? "bf16" : "float32",
               setup->batch, result.kl_before, result.kl_after, result.seconds,
               (double)(mq_alloc_peak() - before) / 1048576.0, (double)predicted / 1048576.0);
    }
    mq_refit_close(refit);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: bench_refit MODEL MASTER CALIB WIDTH [TRAIN [EPOCHS [RATE "
                        "[GEMM [BATCH]]]]]\n");
        return 2;
    }
    const unsigned width = (unsigned)strtoul(argv[4], NULL, 10);
    const size_t train = argc > 5 ? strtoul(argv[5], NULL, 10) : 192;
    trial self = {0};
    mq_error err = {0};
    mq_status status =
        open_trial(&self, argv, train, argc > 8 && strcmp(argv[8], "bf16") == 0, &err);
    if (status == MQ_OK) {
        const mq_refit_setup setup = {.model = self.model,
                                      .source = self.source,
                                      .selection = &self.selection,
                                      .slice_rule = mq_master_slice_rule(self.master),
                                      .ids = self.text.ids,
                                      .train = train,
                                      .validation = VALIDATION,
                                      .length = LENGTH,
                                      .pass_batch = 4,
                                      .batch = argc > 9 ? strtoul(argv[9], NULL, 10) : 4,
                                      .epochs = argc > 6 ? strtoul(argv[6], NULL, 10) : 1,
                                      .rate = argc > 7 ? strtod(argv[7], NULL) : -1.0,
                                      .gemm = self.gemm};
        status = run(&setup, &self, width, &err);
    }
    close_trial(&self);
    if (status != MQ_OK) {
        char line[1024];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "bench_refit: %s\n", line);
    }
    return status == MQ_OK ? 0 : 1;
}
