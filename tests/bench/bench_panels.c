/* layer: tensor */
/* bench_panels [repeats]: GFLOP/s of one thread's products of bfloat16 operands, 1,024 rows by n
 * columns, by how their operands lie: as a layer's do in memory, packed, and in panels of some
 * widths (tensor/panels.h), of which MQ_PANEL is the most that the program makes. By the thread's
 * processor time. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "tensor/panels.h"

enum { TOKENS = 1024, RUN = 128 };

/* Tokens by k numbers by n columns, where that is plain: k of SmolLM2-135M and of models of one to
 * eight billion parameters. */
static const size_t sizes[][2] = {{576, 1536},  {1536, 576},  {1024, 3072},
                                  {2048, 2048}, {4096, 4096}, {8192, 2048}};

typedef struct operands {
    mq_bf16 *a, *b;
    float *c;
    unsigned char *scratch;
    mq_gemm_bf16 *gemm;
} operands;

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Any numbers will do, wherever they lie. */
static mq_bf16 *numbers(size_t count) {
    mq_bf16 *out = mq_alloc(count, sizeof *out);
    if (out == NULL) {
        stop("not enough memory");
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = mq_bf16_round((float)(i % 251) / 251.0F - 0.5F);
    }
    return out;
}

static void prepare(operands *o, const mq_gemm_shape *shape) {
    mq_error err = {0};
    if (mq_gemm_bf16_prepare(o->gemm, shape, &err) != MQ_OK) {
        stop(err.message);
    }
    mq_free(o->scratch);
    o->scratch = mq_alloc(mq_gemm_bf16_scratch(o->gemm) + 1, 1);
}

/* c[TOKENS, n] in tiles of rows by columns, each the sum over parts of k. in_place: c's rows are n
 * apart, else a tile's are dense, and each overwrites the one before it; b's parts lie one behind
 * the other where they are packed. */
static double rate(operands *o, size_t k, size_t n, size_t rows, size_t columns, size_t depth,
                   bool packed, size_t repeats) {
    const bool in_place = !packed;
    double best = 0.0;
    mq_gemm_shape shapes[2];
    for (int adds = 0; adds < 2; adds++) {
        shapes[adds] = (mq_gemm_shape){.m = rows,
                                       .n = columns,
                                       .k = depth,
                                       .lda = packed ? depth : k,
                                       .ldb = k,
                                       .ldc = in_place ? n : columns,
                                       .trans_b = true,
                                       .accumulate = adds == 1,
                                       .packed_b = packed};
        prepare(o, &shapes[adds]);
    }
    for (size_t r = 0; r < repeats; r++) {
        const double begin = seconds_now();
        for (size_t column = 0; column + columns <= n; column += columns) {
            for (size_t row = 0; row < TOKENS; row += rows) {
                for (size_t part = 0; part + depth <= k; part += depth) {
                    const mq_bf16 *a =
                        o->a + (packed ? part * TOKENS + row * depth : row * k + part);
                    const mq_bf16 *b = o->b + column * k + part * (packed ? columns : 1);
                    float *c = in_place ? o->c + row * n + column : o->c;
                    mq_gemm_bf16_run(c, a, b, &shapes[part > 0], o->gemm, o->scratch);
                }
            }
        }
        const double seconds = seconds_now() - begin;
        best = r == 0 || seconds < best ? seconds : best;
    }
    mq_error err = {0};
    if (mq_gemm_bf16_check(o->gemm, &err) != MQ_OK) {
        stop(err.message);
    }
    const double made = (double)(n / columns * columns) * (double)(k / depth * depth);
    return 2e-9 * TOKENS * made / best;
}

static void bench(size_t k, size_t n, size_t repeats) {
    operands o = {.a = numbers(TOKENS * k),
                  .b = numbers(k * n + 64 * k),
                  .c = mq_calloc(TOKENS * n, sizeof *o.c)};
    mq_error err = {0};
    if (o.c == NULL || mq_gemm_bf16_new(&o.gemm, 1, &err) != MQ_OK) {
        stop(o.c == NULL ? "not enough memory" : err.message);
    }
    printf("%6zu %6zu %10.0f %10.0f %10.0f", k, n, rate(&o, k, n, 512, 512, k, false, repeats),
           rate(&o, k, n, TOKENS, n, k, false, repeats), rate(&o, k, n, RUN, n, k, true, repeats));
    static const size_t widths[] = {192, 256, 384, 512, 576, 1024};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const size_t columns = mq_smaller(widths[i], n), depth = mq_smaller(widths[i], k);
        printf(" %10.0f", rate(&o, k, n, RUN, columns, depth, true, repeats));
    }
    printf("\n");
    mq_free(o.a);
    mq_free(o.b);
    mq_free(o.c);
    mq_free(o.scratch);
    mq_gemm_bf16_free(o.gemm);
}

int main(int argc, char **argv) {
    const size_t repeats = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
    if (!mq_gemm_bf16_usable() || repeats == 0) {
        stop("usage: bench_panels [repeats], on a processor with bfloat16 instructions");
    }
    omp_set_num_threads(1); /* some of oneDNN's products would take more */
    char name[96];
    mq_gemm_bf16_describe(name, sizeof name);
    printf("%s; one thread, %d rows, best of %zu; GFLOP/s\n", name, TOKENS, repeats);
    printf("%6s %6s %10s %10s %10s %10s %10s %10s %10s %10s %10s\n", "k", "n", "tiles", "whole",
           "packed", "panels 192", "256", "384", "512", "576", "1024");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bench(sizes[i][0], sizes[i][1], repeats);
    }
    return 0;
}
