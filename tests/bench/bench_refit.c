/* layer: store */
/* The end-to-end refit alone, on a master that is there: for trials of its settings. Nothing is
 * written.
 *
 *   bench_refit MODEL MASTER CALIB WIDTH [SAMPLES [VALIDATION [EPOCHS [RATE [BF16]]]]]
 *
 * Sequences have 512 tokens, batches 4 sequences. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/refit.h"
#include "store/master.h"
#include "text/corpus.h"

typedef struct trial {
    mq_master *master;
    const mq_config *config;
} trial;

static const mq_master_view *view_of(const trial *self, size_t layer, mq_linear linear) {
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, self->config, layer, linear, "weight");
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

static void message(void *user, mq_log_level level, const char *text) {
    (void)user, (void)level;
    fprintf(stderr, "%s\n", text);
}

static mq_selection selection;

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: bench_refit MODEL MASTER CALIB WIDTH [SAMPLES [VALIDATION [EPOCHS "
                        "[RATE [BF16]]]]]\n");
        return 2;
    }
    const unsigned width = (unsigned)strtoul(argv[4], NULL, 10);
    mq_refit_setup setup = {.train = argc > 5 ? strtoul(argv[5], NULL, 10) : 64,
                            .validation = argc > 6 ? strtoul(argv[6], NULL, 10) : 8,
                            .epochs = argc > 7 ? strtoul(argv[7], NULL, 10) : 3,
                            .rate = argc > 8 ? strtod(argv[8], NULL) : -1.0,
                            .length = 512,
                            .batch = 4};
    const mq_context_options options = {.threads = 0, .sink = {NULL, message, NULL}};
    mq_error err = {0};
    mq_context *context;
    mq_model *model;
    mq_tensors *source;
    mq_tokenizer *tokenizer;
    mq_sequences text;
    trial self;
    mq_status status = mq_context_new(&context, &options, &err);
    status = status ? status : mq_model_open_plain(&model, argv[1], &err);
    status = status ? status : mq_tensors_open(&source, argv[1], &err);
    status = status ? status : mq_master_open(&self.master, argv[2], &err);
    status = status ? status : mq_tokenizer_open(&tokenizer, argv[1], &err);
    if (status == MQ_OK) {
        self.config = &model->config;
        const mq_corpus_options corpus = {.length = setup.length,
                                          .max_count = setup.train + setup.validation,
                                          .bos = true,
                                          .sample = true,
                                          .vocab_size = model->config.vocab_size};
        status = mq_corpus_load(&text, argv[3], tokenizer, &corpus, context, &err);
    }
    if (status == MQ_OK) {
        selection.layers = model->config.num_hidden_layers;
        status =
            mq_new(&selection.groups, selection.layers, sizeof *selection.groups, "groups", &err);
        for (size_t layer = 0; layer < selection.layers; layer++) {
            for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
                const mq_master_view *view = view_of(&self, layer, (mq_linear)i);
                selection.groups[layer][i] = view ? view->groups : 0;
            }
        }
    }
    mq_gemm_bf16 *gemm = NULL;
    if (status == MQ_OK && argc > 9 && strtoul(argv[9], NULL, 10) > 0) {
        status = mq_gemm_bf16_new(&gemm, mq_context_threads(context), &err);
        status =
            status ? status
                   : mq_block_prepare(gemm, &model->config, setup.batch * setup.length, true, &err);
    }
    setup.gemm = gemm;
    setup.model = model;
    setup.source = source;
    setup.selection = &selection;
    setup.slice_rule = mq_master_slice_rule(self.master);
    setup.ids = text.ids;
    size_t memory;
    mq_refit *refit;
    status = status ? status : mq_refit_memory(&memory, &setup, context, &err);
    mq_alloc_reset_peak();
    const size_t before = mq_alloc_current();
    status = status ? status : mq_refit_open(&refit, &setup, context, &err);
    const mq_refit_store store = {&self, codes, pairs, put_pairs, put_norm};
    mq_refit_result result;
    status = status ? status : mq_refit_width(&result, refit, width, &store, 0, 1, &err);
    if (status != MQ_OK) {
        char line[1024];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "bench_refit: %s\n", line);
        return 1;
    }
    printf("int%u, %zu + %zu sequences, %zu epochs, rate %g: KL %.5f -> %.5f (epoch %zu), %.1f s; "
           "%.0f MiB, %.0f predicted\n",
           width, setup.train, setup.validation, setup.epochs, setup.rate, result.kl_before,
           result.kl_after, result.kept_epoch, result.seconds,
           (double)(mq_alloc_peak() - before) / 1048576.0, (double)memory / 1048576.0);
    return 0;
}
