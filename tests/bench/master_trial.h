/* What benches of end-to-end stages share: a master that is there as their store, calibration text,
 * and what else they need. What they put stays in memory. */
#ifndef MASTER_TRIAL_H
#define MASTER_TRIAL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/refit.h"
#include "store/master.h"
#include "text/corpus.h"

#define LENGTH 512
#define VALIDATION 8
/* mq_refit_setup.least with which widths of every kind get all sequences: wide ones get a quarter
 * of it. */
#define ALL_OF(train) (4 * (train))

/* A quantized linear; groups 0: it is none. */
typedef struct trial_linear {
    size_t out, in, groups;
    uint8_t *codes;
    uint16_t *scales[MQ_MAX_WIDTH + 1], *biases[MQ_MAX_WIDTH + 1];
} trial_linear;

typedef struct trial {
    mq_context *context;
    mq_model *model;
    mq_tensors *source;
    mq_master *master;
    mq_sequences text;
    mq_selection selection;
    trial_linear (*linears)[MQ_LINEAR_COUNT]; /* [layers] */
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

static trial_linear *linear_of(void *user, size_t layer, mq_linear linear) {
    return &((trial *)user)->linears[layer][linear];
}

static mq_status codes(void *user, uint8_t *out, size_t layer, mq_linear linear, size_t first,
                       size_t count, mq_error *err) {
    (void)err;
    const trial_linear *l = linear_of(user, layer, linear);
    memcpy(out, l->codes + first * l->in, count * l->in);
    return MQ_OK;
}

static mq_status pairs(void *user, uint16_t *scales, uint16_t *biases, size_t layer,
                       mq_linear linear, unsigned width, mq_error *err) {
    (void)err;
    const trial_linear *l = linear_of(user, layer, linear);
    memcpy(scales, l->scales[width], l->out * l->groups * sizeof *scales);
    memcpy(biases, l->biases[width], l->out * l->groups * sizeof *biases);
    return MQ_OK;
}

static mq_status put_pairs(void *user, size_t layer, mq_linear linear, unsigned width,
                           const uint16_t *scales, const uint16_t *biases, mq_error *err) {
    (void)err;
    const trial_linear *l = linear_of(user, layer, linear);
    memcpy(l->scales[width], scales, l->out * l->groups * sizeof *scales);
    memcpy(l->biases[width], biases, l->out * l->groups * sizeof *biases);
    return MQ_OK;
}

static mq_status put_codes(void *user, size_t layer, mq_linear linear, const uint8_t *codes,
                           mq_error *err) {
    (void)err;
    const trial_linear *l = linear_of(user, layer, linear);
    memcpy(l->codes, codes, l->out * l->in);
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

static mq_status copy(void *out, const mq_tensor_info *info, mq_error *err) {
    void *bytes = NULL;
    const mq_status status = mq_new(&bytes, info->bytes, 1, info->name, err);
    if (status == MQ_OK) {
        memcpy(bytes, info->data, info->bytes);
    }
    *(void **)out = bytes;
    return status;
}

static mq_status load_linear(trial_linear *out, const mq_master_view *view, mq_error *err) {
    *out = (trial_linear){.out = view->out, .in = view->in, .groups = view->groups};
    mq_status status = copy(&out->codes, view->codes, err);
    for (unsigned width = MQ_MIN_WIDTH; status == MQ_OK && width <= MQ_MAX_WIDTH; width++) {
        status = copy(&out->scales[width], view->scales[width], err);
        if (status == MQ_OK) {
            status = copy(&out->biases[width], view->biases[width], err);
        }
    }
    return status;
}

static mq_status load_master(trial *self, mq_error *err) {
    mq_selection *selection = &self->selection;
    selection->layers = self->model->config.num_hidden_layers;
    mq_status status =
        mq_new(&selection->groups, selection->layers, sizeof *selection->groups, "groups", err);
    if (status == MQ_OK) {
        status = mq_new(&self->linears, selection->layers, sizeof *self->linears, "linears", err);
    }
    if (status == MQ_OK) {
        memset(self->linears, 0, selection->layers * sizeof *self->linears);
    }
    for (size_t i = 0; status == MQ_OK && i < selection->layers * MQ_LINEAR_COUNT; i++) {
        const size_t layer = i / MQ_LINEAR_COUNT, linear = i % MQ_LINEAR_COUNT;
        const mq_master_view *view = view_of(self, layer, (mq_linear)linear);
        selection->groups[layer][linear] = view != NULL ? view->groups : 0;
        if (view != NULL) {
            status = load_linear(&self->linears[layer][linear], view, err);
        }
    }
    return status;
}

/* threads: 0 for one a processor. */
static mq_status open_trial(trial *self, char **argv, size_t train, bool bf16, size_t threads,
                            mq_error *err) {
    const mq_context_options options = {.sink = {NULL, message, NULL}, .threads = threads};
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
        status = load_master(self, err);
    }
    if (status == MQ_OK && bf16) {
        status = mq_gemm_bf16_new(&self->gemm, mq_context_threads(self->context), err);
    }
    return status;
}

static void free_linears(trial *self) {
    for (size_t i = 0; self->linears != NULL && i < self->selection.layers * MQ_LINEAR_COUNT; i++) {
        trial_linear *linear = &self->linears[i / MQ_LINEAR_COUNT][i % MQ_LINEAR_COUNT];
        mq_free(linear->codes);
        for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
            mq_free(linear->scales[width]);
            mq_free(linear->biases[width]);
        }
    }
    mq_free(self->linears);
}

/* That the refit was trained on what its row says. */
static mq_status check_trained(const mq_refit_setup *setup, const mq_refit_result *result,
                               mq_error *err) {
    const size_t batch = mq_refit_batch(setup);
    const size_t wanted = setup->train / batch * batch * setup->epochs;
    return result->tokens == wanted * LENGTH
               ? MQ_OK
               : mq_fail(err, MQ_ERR_CHECK, "the refit had %zu tokens, and not %zu sequences",
                         result->tokens, wanted);
}

static void close_trial(trial *self) {
    free_linears(self);
    mq_gemm_bf16_free(self->gemm);
    mq_selection_free(&self->selection);
    mq_sequences_free(&self->text);
    mq_master_close(self->master);
    mq_tensors_close(self->source);
    mq_model_free(self->model);
    mq_context_free(self->context);
}

#endif
