/* layer: model */
/* bench_head MODEL [tokens]: the head's rate beside that of the bare product on the same shapes;
 * bench_head MODEL gradient [tokens [float32|bf16]]: that of the refit's divergence and gradient;
 * and bench_head MODEL sample [sequences length]: tokens a second of sampling. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "model/generate.h"
#include "model/head_gradient.h"
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
    const mq_generate_setup setup = {.model = model,
                                     .sequences = sequences,
                                     .length = length,
                                     .given = 1,
                                     .temperature = 1.0,
                                     .seed = 7};
    if (ids == NULL || mq_generate_first(ids, &setup, 1, &err) != MQ_OK ||
        mq_generate(ids, &setup, context, &err) != MQ_OK) {
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
    const mq_gemm_shape shape = {.m = tokens,
                                 .n = rows,
                                 .k = width,
                                 .lda = width,
                                 .ldb = width,
                                 .ldc = rows,
                                 .trans_b = true};
    double best = 1e9;
    for (int i = 0; i < 4; i++) {
        const double begin = mq_seconds();
        mq_gemm(y, x, w, &shape, 1);
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
    const mq_head_side side = {model, hidden};
    const mq_head_scores scores = {.nll = nll, .top = top};
    const double flops = 2.0 * (double)tokens * (double)width * (double)vocab;
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        const double begin = mq_seconds();
        if (mq_head_score(&scores, &side, NULL, targets, tokens, context, &err) != MQ_OK) {
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

/* Of all threads. */
static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float *random_rows(size_t tokens, size_t width, size_t seed) {
    float *x = mq_alloc(tokens * width, sizeof *x);
    for (size_t i = 0; x != NULL && i < tokens * width; i++) {
        x[i] = (float)(((i + seed) * 2654435761U) % 1000) / 500.0F - 1.0F;
    }
    return x;
}

/* The best of four, of processor time. Both sides have the same head, as where it is not quantized;
 * the products' operations are those of both sides' logits and of one side's input gradient. */
static void bench_gradient(const mq_model *model, size_t tokens, bool bf16,
                           const mq_context *context) {
    const mq_config *config = &model->config;
    const size_t width = config->hidden_size, vocab = config->vocab_size;
    mq_error err = {0};
    mq_gemm_bf16 *gemm = NULL;
    if (bf16 && (mq_gemm_bf16_new(&gemm, mq_context_threads(context), &err) != MQ_OK ||
                 mq_head_gradient_prepare(gemm, config, tokens, &err) != MQ_OK)) {
        stop(&err);
    }
    float *hidden = random_rows(tokens, width, 0), *reference = random_rows(tokens, width, 7);
    float *norm = mq_alloc(width, sizeof *norm), *d_norm = mq_alloc(width, sizeof *d_norm);
    float *kl = mq_alloc(tokens, sizeof *kl), *d_hidden = random_rows(tokens, width, 0);
    for (size_t i = 0; i < width; i++) {
        norm[i] = 1.0F;
    }
    mq_slab slab = {0};
    mq_head_gradient_carve(&slab, config, tokens, gemm, context);
    if (mq_slab_allocate(&slab, "the bench", &err) != MQ_OK) {
        stop(&err);
    }
    mq_head_gradient *memory = mq_head_gradient_carve(&slab, config, tokens, gemm, context);
    const mq_head_kl of = {.model = {model, hidden},
                           .reference = {model, reference},
                           .norm = norm,
                           .count = tokens,
                           .weight = 1.0F / (float)tokens,
                           .bf16 = bf16,
                           .kl = kl,
                           .d_hidden = d_hidden,
                           .d_norm = d_norm};
    double best = 1e9, best_cpu = 1e9, sum = 0.0;
    for (int i = 0; i < 4; i++) {
        const double begin = mq_seconds(), cpu_begin = processor_seconds();
        if (mq_head_kl_gradient(&of, memory, &err) != MQ_OK) {
            stop(&err);
        }
        best = fmin(best, mq_seconds() - begin);
        best_cpu = fmin(best_cpu, processor_seconds() - cpu_begin);
    }
    for (size_t i = 0; i < tokens; i++) {
        sum += (double)kl[i];
    }
    const double flops = 6.0 * (double)tokens * (double)width * (double)vocab;
    printf("%zu tokens x %zu x %zu, gradient, %s: %.2f s, %.2f s of processors, %.0f GFLOP/s of a "
           "processor, %.0f MiB (kl %.6f)\n",
           tokens, vocab, width, bf16 ? "bf16" : "float32", best, best_cpu, flops / best_cpu * 1e-9,
           (double)slab.used / 1048576.0, sum / (double)tokens);
    mq_slab_free(&slab);
    mq_free(hidden);
    mq_free(reference);
    mq_free(norm);
    mq_free(d_norm);
    mq_free(kl);
    mq_free(d_hidden);
    mq_gemm_bf16_free(gemm);
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    mq_error err = {0};
    mq_context *context = NULL;
    mq_model *model = NULL;
    if (argc < 2) {
        fprintf(stderr,
                "usage: bench_head MODEL [TOKENS | gradient [TOKENS [float32|bf16]] | sample "
                "[SEQUENCES LENGTH]]\n");
        return MQ_ERR_USAGE;
    }
    if (mq_context_new(&context, NULL, &err) != MQ_OK ||
        mq_model_open_plain(&model, argv[1], &err) != MQ_OK) {
        stop(&err);
    }
    if (argc > 2 && strcmp(argv[2], "sample") == 0) {
        bench_sampling(model, argc > 3 ? strtoul(argv[3], NULL, 10) : 32,
                       argc > 4 ? strtoul(argv[4], NULL, 10) : 128, context);
    } else if (argc > 2 && strcmp(argv[2], "gradient") == 0) {
        bench_gradient(model, argc > 3 ? strtoul(argv[3], NULL, 10) : 1024,
                       argc > 4 && strcmp(argv[4], "bf16") == 0, context);
    } else {
        bench_head(model, argc > 2 ? strtoul(argv[2], NULL, 10) : 2048, context);
    }
    mq_model_free(model);
    mq_context_free(context);
    return 0;
}
