/* layer: model */
/* bench_head MODEL [tokens]: the head's rate beside that of the bare product on the same shapes;
 * and bench_head MODEL sample [sequences length]: tokens a second of sampling. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/generate.h"
#include "tensor/gemm.h"

static void stop(const mq_error *err) {
    char line[1400];
    mq_error_format(line, sizeof line, err);
    fprintf(stderr, "%s\n", line);
    exit((int)err->status);
}

static void bench_sampling(const mq_model *model, size_t sequences, size_t length,
                           const mq_context *context) {
    mq_error err = {0};
    int32_t *ids = mq_alloc(sequences * length, sizeof *ids);
    const double begin = mq_seconds();
    mq_alloc_reset_peak();
    if (ids == NULL ||
        mq_generate(ids, model, sequences, length, 1, 1.0, 7, context, &err) != MQ_OK) {
        stop(&err);
    }
    const double seconds = mq_seconds() - begin;
    printf("%zu x %zu tokens sampled in %.1f s: %.0f tokens/s, peak %.0f MiB\n", sequences, length,
           seconds, (double)(sequences * length) / seconds, (double)mq_alloc_peak() / 1048576.0);
    mq_free(ids);
}

/* The best of three. */
static double product_seconds(size_t tokens, size_t rows, size_t width) {
    float *x = mq_calloc(tokens * width, sizeof *x), *w = mq_calloc(rows * width, sizeof *w);
    float *y = mq_calloc(tokens * rows, sizeof *y);
    double best = 1e9;
    for (int i = 0; i < 4; i++) {
        const double begin = mq_seconds();
        mq_gemm_forward(y, x, w, tokens, rows, width, 0.0F);
        const double seconds = mq_seconds() - begin;
        best = seconds < best ? seconds : best;
    }
    mq_free(y);
    mq_free(w);
    mq_free(x);
    return best;
}

static void bench_head(const mq_model *model, size_t tokens, const mq_context *context) {
    const size_t width = model->config.hidden_size, vocab = model->config.vocab_size;
    mq_error err = {0};
    float *hidden = mq_alloc(tokens * width, sizeof *hidden), *nll = mq_alloc(tokens, sizeof *nll);
    int32_t *targets = mq_calloc(tokens, sizeof *targets), *top = mq_alloc(tokens, sizeof *top);
    for (size_t i = 0; i < tokens * width; i++) {
        hidden[i] = (float)((i * 2654435761U) % 1000) / 500.0F - 1.0F;
    }
    const double flops = 2.0 * (double)tokens * (double)width * (double)vocab;
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        const double begin = mq_seconds();
        if (mq_head_score(nll, top, model, hidden, targets, tokens, context, &err) != MQ_OK) {
            stop(&err);
        }
        const double seconds = mq_seconds() - begin;
        best = seconds < best ? seconds : best;
    }
    const size_t rows = 8192;
    const double bare = product_seconds(tokens, rows, width) * (double)vocab / (double)rows;
    printf(
        "%zu tokens x %zu x %zu: head %.2f s, %.0f GFLOP/s; bare product %.0f GFLOP/s (%.0f %%)\n",
        tokens, vocab, width, best, flops / best * 1e-9, flops / bare * 1e-9, 100.0 * bare / best);
    mq_free(top);
    mq_free(targets);
    mq_free(nll);
    mq_free(hidden);
}

int main(int argc, char **argv) {
    mq_error err = {0};
    mq_context *context = NULL;
    mq_model *model = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_head MODEL [TOKENS | sample [SEQUENCES LENGTH]]\n");
        return MQ_ERR_USAGE;
    }
    if (mq_context_new(&context, NULL, &err) != MQ_OK ||
        mq_model_open_plain(&model, argv[1], &err) != MQ_OK) {
        stop(&err);
    }
    if (argc > 2 && strcmp(argv[2], "sample") == 0) {
        bench_sampling(model, argc > 3 ? strtoul(argv[3], NULL, 10) : 32,
                       argc > 4 ? strtoul(argv[4], NULL, 10) : 128, context);
    } else {
        bench_head(model, argc > 2 ? strtoul(argv[2], NULL, 10) : 2048, context);
    }
    mq_model_free(model);
    mq_context_free(context);
    return 0;
}
