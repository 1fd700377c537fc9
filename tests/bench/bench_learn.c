/* layer: store */
/* Learns blocks of a model with timers around the parts of it, beside the bare
 * library's rate on the same shapes, and prints one JSON object.
 *
 *   bench_learn MODEL CALIB OUT [NAME=NUMBER ...]
 *
 * MODEL and CALIB are those of `matquant quantize`, which is what runs; OUT is where it would write
 * if it came to the end. Names and their defaults: threads 0 (all), blocks 1, repeats 5, samples
 * 64, seq-len 512, epochs 4, batch 4, group-size 64, cpu 0, bf16 0. It stops after so many blocks;
 * best of so many repeats is the bare library's time for a product, half of them before the
 * learning and half after it; with cpu=1 (for one thread) all times are of the processor, not of
 * the wall. bf16=1 learns with --gemm onednn-bf16, and the bare library is oneDNN where the loop's
 * products are. scripts/bench.sh calls this and makes a table of it. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/json.h"
#include "learn_timers.h"
#include "matquant/quantize.h"
#include "matquant/version.h"

enum { THREADS, BLOCKS, REPEATS, SAMPLES, SEQ_LEN, EPOCHS, BATCH, GROUP_SIZE, CPU, BF16, SETTINGS };
static const char *const setting_names[SETTINGS] = {"threads", "blocks", "repeats", "samples",
                                                    "seq-len", "epochs", "batch",   "group-size",
                                                    "cpu",     "bf16"};

typedef enum direction { FORWARD, INPUT_GRAD, WEIGHT_GRAD, DIRECTIONS } direction;
static const char *const direction_names[DIRECTIONS] = {"forward", "input_grad", "weight_grad"};

#define MAX_BLOCKS 64
#define MAX_STEPS 4096

typedef struct bench {
    size_t setting[SETTINGS];
    mq_config config;
    mq_context *context;
    volatile sig_atomic_t stop;
    size_t blocks;
    phase_times times[MAX_BLOCKS][PHASES];
    double step_begin, step[MAX_STEPS];
    size_t steps;
    /* Best seconds of the bare library for one product over a batch: by one call that the library
     * spreads over the threads, and by one single-threaded call for each thread. */
    double by_library[MQ_LINEAR_COUNT][DIRECTIONS], by_threads[MQ_LINEAR_COUNT][DIRECTIONS];
    double by_bf16[MQ_LINEAR_COUNT][DIRECTIONS]; /* oneDNN: one call for each thread */
    size_t memory_predicted, memory_peak;
} bench;

/* --- the bare library ------------------------------------------------------------------------- */

/* Operands of any product of the block, x[tokens, in], w[out, in] and y[tokens, out], and room for
 * its result. */
typedef struct operands {
    float *x, *w, *y, *result;
    size_t tokens, out, in;
} operands;

/* Rows [first, first + count) of the product's result. */
static void product_rows(const operands *o, direction which, size_t first, size_t count) {
    const int tokens = (int)o->tokens, out = (int)o->out, in = (int)o->in, rows = (int)count;
    if (rows == 0) {
        return;
    }
    if (which == FORWARD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1, o->x + first * o->in,
                    in, o->w, in, 0, o->result + first * o->out, out);
    } else if (which == INPUT_GRAD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in, out, 1,
                    o->y + first * o->out, out, o->w, in, 0, o->result + first * o->in, in);
    } else {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, in, tokens, 1, o->y + first, out,
                    o->x, in, 0, o->result + first * o->in, in);
    }
}

static void product_by_threads(const operands *o, direction which, size_t threads) {
    const size_t rows = which == WEIGHT_GRAD ? o->out : o->tokens;
    openblas_set_num_threads(1);
#pragma omp parallel for num_threads((int)threads)
    for (size_t i = 0; i < threads; i++) {
        const size_t first = rows * i / threads;
        product_rows(o, which, first, rows * (i + 1) / threads - first);
    }
    openblas_set_num_threads((int)threads);
}

static void keep_least(double *best, double seconds) {
    *best = *best == 0.0 || seconds < *best ? seconds : *best;
}

static float *some_numbers(size_t count) {
    float *numbers = mq_alloc(count, sizeof *numbers);
    for (size_t i = 0; numbers && i < count; i++) {
        numbers[i] = (float)(i % 251) / 251.0F - 0.5F;
    }
    return numbers;
}

/* So many times at least, and so long that a moment's disturbance is not all there is. */
#define LEAST_SECONDS 0.1

static void time_product(bench *b, const operands *o, mq_linear linear, direction which,
                         size_t repeats) {
    const double start = mq_seconds();
    for (size_t r = 0; r < repeats || (repeats > 1 && mq_seconds() - start < LEAST_SECONDS); r++) {
        double begin = seconds_now();
        product_rows(o, which, 0, which == WEIGHT_GRAD ? o->out : o->tokens);
        keep_least(&b->by_library[linear][which], seconds_now() - begin);
        begin = seconds_now();
        product_by_threads(o, which, mq_context_threads(b->context));
        keep_least(&b->by_threads[linear][which], seconds_now() - begin);
    }
}

/* --- the bare library in bfloat16 ------------------------------------------------------------- */

/* What thread i of `threads` multiplies, as a shape and where in its operands it begins. */
typedef struct share {
    mq_gemm_shape shape;
    const mq_bf16 *a, *b;
    float *c;
} share;

static share share_of(const operands *o, const mq_bf16 *numbers, direction which, size_t i,
                      size_t threads) {
    const size_t rows = which == WEIGHT_GRAD ? o->out : o->tokens;
    const size_t first = rows * i / threads, m = rows * (i + 1) / threads - first;
    const size_t out = o->out, in = o->in;
    if (which == FORWARD) {
        return (share){{m, out, in, in, in, out, false, true, false},
                       numbers + first * in,
                       numbers,
                       o->result + first * out};
    }
    if (which == INPUT_GRAD) {
        return (share){{m, in, out, out, in, in, false, false, false},
                       numbers + first * out,
                       numbers,
                       o->result + first * in};
    }
    return (share){{m, in, o->tokens, out, in, in, true, false, false},
                   numbers + first,
                   numbers,
                   o->result + first * in};
}

static void run_shares(const mq_gemm_bf16 *gemm, const operands *o, const mq_bf16 *numbers,
                       direction which, size_t threads, unsigned char *scratch, size_t size) {
#pragma omp parallel for num_threads((int)threads)
    for (size_t i = 0; i < threads; i++) {
        const share part = share_of(o, numbers, which, i, threads);
        if (part.shape.m > 0) {
            mq_gemm_bf16_run(gemm, part.c, part.a, part.b, &part.shape, scratch + i * size);
        }
    }
}

/* Any numbers will do as any operand: `numbers` are as many as the largest has. */
static mq_status time_bf16(bench *b, const operands *o, const mq_bf16 *numbers, mq_linear linear,
                           size_t repeats, mq_error *err) {
    const size_t threads = mq_context_threads(b->context);
    mq_gemm_bf16 *gemm = NULL;
    mq_status status = mq_gemm_bf16_new(&gemm, threads, err);
    for (direction which = 0; which < DIRECTIONS; which++) {
        for (size_t i = 0; status == MQ_OK && i < threads; i++) {
            const share part = share_of(o, numbers, which, i, threads);
            status = part.shape.m > 0 ? mq_gemm_bf16_prepare(gemm, &part.shape, err) : MQ_OK;
        }
    }
    const size_t size = (mq_gemm_bf16_scratch(gemm) / MQ_ALIGNMENT + 1) * MQ_ALIGNMENT;
    unsigned char *scratch = NULL;
    if (status == MQ_OK) {
        status = mq_new(&scratch, threads, size, "scratch of products", err);
    }
    for (direction which = 0; status == MQ_OK && which < DIRECTIONS; which++) {
        const double start = mq_seconds();
        for (size_t r = 0; r < repeats || (repeats > 1 && mq_seconds() - start < LEAST_SECONDS);
             r++) {
            const double begin = seconds_now();
            run_shares(gemm, o, numbers, which, threads, scratch, size);
            keep_least(&b->by_bf16[linear][which], seconds_now() - begin);
        }
    }
    if (status == MQ_OK) {
        status = mq_gemm_bf16_check(gemm, err);
    }
    mq_free(scratch);
    mq_gemm_bf16_free(gemm);
    return status;
}

static mq_bf16 *some_rounded(size_t count) {
    mq_bf16 *numbers = mq_alloc(count, sizeof *numbers);
    for (size_t i = 0; numbers && i < count; i++) {
        numbers[i] = mq_bf16_round((float)(i % 251) / 251.0F - 0.5F);
    }
    return numbers;
}

/* --- both ------------------------------------------------------------------------------------- */

static mq_status time_linears(bench *b, operands *o, const mq_bf16 *rounded, size_t repeats,
                              mq_error *err) {
    mq_status status = MQ_OK;
    for (mq_linear linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        mq_config_linear_shape(&o->out, &o->in, &b->config, linear);
        for (direction which = 0; which < DIRECTIONS; which++) {
            time_product(b, o, linear, which, repeats);
        }
        if (b->setting[BF16]) {
            status = time_bf16(b, o, rounded, linear, repeats, err);
        }
    }
    return status;
}

/* Every product `repeats` times in every way. */
static mq_status time_products(bench *b, size_t repeats, mq_error *err) {
    const size_t tokens = b->setting[BATCH] * b->setting[SEQ_LEN];
    size_t widest = 0, weights = 0, out, in;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        mq_config_linear_shape(&out, &in, &b->config, linear);
        widest = out > widest ? out : widest;
        widest = in > widest ? in : widest;
        weights = out * in > weights ? out * in : weights;
    }
    const size_t largest = tokens * widest > weights ? tokens * widest : weights;
    operands o = {.x = some_numbers(tokens * widest),
                  .w = some_numbers(weights),
                  .y = some_numbers(tokens * widest),
                  .result = some_numbers(largest),
                  .tokens = tokens};
    mq_bf16 *rounded = some_rounded(largest);
    mq_status status = o.x && o.w && o.y && o.result && rounded
                           ? time_linears(b, &o, rounded, repeats, err)
                           : mq_fail(err, MQ_ERR_MACHINE, "no memory for the products");
    mq_free(o.x);
    mq_free(o.w);
    mq_free(o.y);
    mq_free(o.result);
    mq_free(rounded);
    return status;
}

static double best_seconds(const bench *b, mq_linear linear, direction which) {
    const double library = b->by_library[linear][which], threads = b->by_threads[linear][which];
    return library < threads ? library : threads;
}

static double linear_flops(const bench *b, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &b->config, linear);
    return 2.0 * (double)(b->setting[BATCH] * b->setting[SEQ_LEN]) * (double)out * (double)in;
}

/* --- what the algorithm needs ----------------------------------------------------------------- */

/* The products of linears for a batch forward, or backward: the weight gradient of all, and the
 * input gradient of those before which something learns, that is all but q, k and v. */
static bool needed(mq_linear linear, direction which, bool backward) {
    if (!backward) {
        return which == FORWARD;
    }
    return which == WEIGHT_GRAD ||
           (which == INPUT_GRAD && linear != MQ_Q && linear != MQ_K && linear != MQ_V);
}

/* Operations and the bare library's seconds for the linears of one token; `bf16` is the share of
 * products with operands in bfloat16. */
static void linear_need(double *flops, double *seconds, const bench *b, bool backward,
                        double bf16) {
    const double tokens = (double)(b->setting[BATCH] * b->setting[SEQ_LEN]);
    *flops = *seconds = 0.0;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        for (direction which = 0; which < DIRECTIONS; which++) {
            if (needed(linear, which, backward)) {
                *flops += linear_flops(b, linear) / tokens;
                *seconds += ((1.0 - bf16) * best_seconds(b, linear, which) +
                             bf16 * b->by_bf16[linear][which]) /
                            tokens;
            }
        }
    }
}

/* Attention's products for one token, in the mean over a sequence: a token sees itself and what is
 * before it (in a window, if the layer is local). Forward q·k and p·v; backward do·v and those of
 * dq, dk and dv. That the backward makes q·k again, and tiles reach beyond the diagonal, is its own
 * affair. */
static double attention_need(const bench *b, size_t layer, bool backward) {
    const mq_config *config = &b->config;
    const bool local = config->layer_is_local && config->layer_is_local[layer];
    double pairs = 0.0;
    for (size_t i = 1; i <= b->setting[SEQ_LEN]; i++) {
        const bool cut = local && config->sliding_window > 0 && i > config->sliding_window;
        pairs += (double)(cut ? config->sliding_window : i);
    }
    return (backward ? 4.0 : 2.0) * 2.0 * pairs / (double)b->setting[SEQ_LEN] *
           (double)(config->num_attention_heads * config->head_dim);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void take_progress(void *user, const mq_progress *progress) {
    bench *b = user;
    const double now = seconds_now();
    if (strcmp(progress->phase, "learn") != 0) {
        return;
    }
    if (progress->detail == NULL) { /* a step; the first has no begin */
        if (b->step_begin > 0.0 && b->steps < MAX_STEPS) {
            b->step[b->steps++] = now - b->step_begin;
        }
        b->step_begin = now;
        return;
    }
    b->step_begin = 0.0;
    b->blocks++;
    const bool last = b->blocks == b->setting[BLOCKS] || b->blocks == MAX_BLOCKS;
    b->stop = b->stop || last ? 1 : 0;
    timers.at = last ? NULL : b->times[b->blocks];
}

static mq_status learn(bench *b, char *const *argv, mq_error *err) {
    mq_quantize_options options = mq_quantize_defaults(MQ_RECIPE_BEST);
    options.model = argv[0];
    options.calib = argv[1];
    options.output = argv[2];
    options.samples = b->setting[SAMPLES];
    options.seq_len = b->setting[SEQ_LEN];
    options.epochs = b->setting[EPOCHS];
    options.batch = b->setting[BATCH];
    options.group_size = b->setting[GROUP_SIZE];
    options.gemm = b->setting[BF16] ? MQ_GEMM_ONEDNN_BF16 : MQ_GEMM_OPENBLAS;
    options.refit = false; /* the blocks are what is measured here */
    options.dry_run = true;
    mq_quantize_report report = {0};
    mq_status status = mq_quantize(&report, &options, b->context, err);
    b->memory_predicted = report.memory_predicted;
    mq_quantize_report_free(&report);
    if (status != MQ_OK) {
        return status;
    }
    options.dry_run = false;
    timers.threads = mq_context_threads(b->context);
    timers.at = b->times[0];
    status = mq_quantize(&report, &options, b->context, err);
    timers.at = NULL;
    b->memory_peak = mq_alloc_peak();
    mq_quantize_report_free(&report);
    return b->stop && status == MQ_ERR_INTERRUPTED ? MQ_OK : status;
}

/* --- results ---------------------------------------------------------------------------------- */

static void put(cJSON *object, const char *name, double value) {
    cJSON_AddNumberToObject(object, name, value);
}

static cJSON *products_json(const bench *b) {
    cJSON *array = cJSON_CreateArray();
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        for (direction which = 0; which < DIRECTIONS; which++) {
            static const char *const names[MQ_LINEAR_COUNT] = {
                [MQ_Q] = "q",       [MQ_K] = "k",   [MQ_V] = "v",      [MQ_O] = "o",
                [MQ_GATE] = "gate", [MQ_UP] = "up", [MQ_DOWN] = "down"};
            size_t out, in;
            mq_config_linear_shape(&out, &in, &b->config, linear);
            cJSON *product = cJSON_CreateObject();
            cJSON_AddStringToObject(product, "linear", names[linear]);
            cJSON_AddStringToObject(product, "direction", direction_names[which]);
            put(product, "out", (double)out);
            put(product, "in", (double)in);
            put(product, "gflops_one_call",
                1e-9 * linear_flops(b, linear) / b->by_library[linear][which]);
            put(product, "gflops_call_a_thread",
                1e-9 * linear_flops(b, linear) / b->by_threads[linear][which]);
            if (b->setting[BF16]) {
                put(product, "gflops_bf16",
                    1e-9 * linear_flops(b, linear) / b->by_bf16[linear][which]);
            }
            cJSON_AddItemToArray(array, product);
        }
    }
    return array;
}

static cJSON *phase_json(const bench *b, size_t layer, const phase_times *times, phase which) {
    double forward, backward, forward_seconds, backward_seconds;
    const double bf16 = times->linear_flops > 0.0 ? times->bf16_flops / times->linear_flops : 0.0;
    linear_need(&forward, &forward_seconds, b, false, bf16);
    linear_need(&backward, &backward_seconds, b, true, bf16);
    /* Measuring is no part of the algorithm. */
    const double tokens = which == MEASURE ? 0.0 : times->forward_tokens;
    const double threads = (double)mq_context_threads(b->context);
    cJSON *json = cJSON_CreateObject();
    put(json, "seconds", times->seconds);
    put(json, "cpu_seconds", times->cpu);
    put(json, "linear_products", times->linear_products / threads);
    put(json, "attention_products", times->attention_products / threads);
    put(json, "attention", times->attention);
    put(json, "block", times->block);
    put(json, "loss", times->loss);
    put(json, "values", times->values);
    put(json, "flops_made", times->linear_flops + times->attention_flops);
    put(json, "linear_flops_needed", tokens * forward + times->backward_tokens * backward);
    put(json, "attention_flops_needed",
        tokens * attention_need(b, layer, false) +
            times->backward_tokens * attention_need(b, layer, true));
    put(json, "bare_seconds", tokens * forward_seconds + times->backward_tokens * backward_seconds);
    return json;
}

static cJSON *blocks_json(const bench *b) {
    static const char *const names[PHASES] = {"read",  "teacher", "start",   "measure",
                                              "train", "finish",  "advance", "write"};
    cJSON *array = cJSON_CreateArray();
    for (size_t layer = 0; layer < b->blocks; layer++) {
        cJSON *block = cJSON_CreateObject();
        for (phase which = 0; which < PHASES; which++) {
            cJSON_AddItemToObject(block, names[which],
                                  phase_json(b, layer, &b->times[layer][which], which));
        }
        cJSON_AddItemToArray(array, block);
    }
    return array;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool print_results(bench *b) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(b->step, b->steps, sizeof b->step[0], compare);
    cJSON *json = cJSON_CreateObject(), *settings = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "version", mq_version());
    cJSON_AddStringToObject(json, "blas", mq_context_blas(b->context));
    for (size_t i = 0; i < SETTINGS; i++) {
        put(settings, setting_names[i], (double)b->setting[i]);
    }
    cJSON_ReplaceItemInObject(settings, "threads",
                              cJSON_CreateNumber((double)mq_context_threads(b->context)));
    cJSON_AddItemToObject(json, "settings", settings);
    cJSON_AddItemToObject(json, "products", products_json(b));
    cJSON_AddItemToObject(json, "blocks", blocks_json(b));
    put(json, "steps_timed", (double)b->steps);
    if (b->steps > 0) {
        put(json, "step_best", b->step[0]);
        put(json, "step_median", b->step[b->steps / 2]);
    }
    put(json, "memory_predicted", (double)b->memory_predicted);
    put(json, "memory_peak", (double)b->memory_peak);
    put(json, "max_rss", 1024.0 * (double)usage.ru_maxrss);
    char *text = mq_json_print(json);
    cJSON_Delete(json);
    const bool good = text && fputs(text, stdout) >= 0;
    mq_free(text);
    return good;
}

/* --- main ------------------------------------------------------------------------------------- */

static bool parse(bench *b, int argc, char **argv) {
    static const size_t defaults[SETTINGS] = {0, 1, 5, 64, 512, 4, 4, 64, 0, 0};
    memcpy(b->setting, defaults, sizeof defaults);
    for (int i = 4; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t which = 0;
        while (equals && which < SETTINGS &&
               (strlen(setting_names[which]) != (size_t)(equals - argv[i]) ||
                strncmp(setting_names[which], argv[i], (size_t)(equals - argv[i])) != 0)) {
            which++;
        }
        if (!equals || which == SETTINGS) {
            fprintf(stderr, "bench_learn: %s: not a setting\n", argv[i]);
            return false;
        }
        b->setting[which] = strtoul(equals + 1, NULL, 10);
    }
    return argc >= 4;
}

/* A function that was renamed or moved is no longer timed, and the linker says nothing: the
 * products that were seen tell. */
static mq_status check_timers(const bench *b, mq_error *err) {
    double forward, backward, seconds;
    linear_need(&forward, &seconds, b, false, 0.0);
    linear_need(&backward, &seconds, b, true, 0.0);
    const phase_times *train = &b->times[0][TRAIN];
    const double needed = train->forward_tokens * forward + train->backward_tokens * backward;
    if (needed > 0.0 && train->linear_flops > 0.999 * needed && train->attention_flops > 0.0 &&
        train->values > 0.0 && train->loss > 0.0) {
        return MQ_OK;
    }
    return mq_fail(err, MQ_ERR_CHECK,
                   "tests/bench/learn_timers.h does not fit the learning loop: of %.4g operations "
                   "of linears it saw %.4g",
                   needed, train->linear_flops);
}

static mq_status run(bench *b, char *const *argv, mq_error *err) {
    const mq_context_options options = {.threads = b->setting[THREADS],
                                        .sink = {.user = b, .progress = take_progress},
                                        .interrupted = &b->stop};
    mq_model *model = NULL;
    mq_status status = mq_context_new(&b->context, &options, err);
    if (status == MQ_OK) {
        status = mq_model_open_plain(&model, argv[0], err);
    }
    if (status == MQ_OK && b->setting[CPU] && mq_context_threads(b->context) > 1) {
        status = mq_fail(err, MQ_ERR_USAGE, "cpu=1 is for threads=1");
    }
    if (status == MQ_OK) {
        timers.by_cpu = b->setting[CPU] != 0;
        b->config = model->config;
        const size_t half = (b->setting[REPEATS] + 1) / 2;
        status = time_products(b, half, err);
        status = status == MQ_OK ? learn(b, argv, err) : status;
        status = status == MQ_OK ? check_timers(b, err) : status;
        status = status == MQ_OK ? time_products(b, half, err) : status;
        if (status == MQ_OK && !print_results(b)) {
            status = mq_fail(err, MQ_ERR_MACHINE, "the results cannot be printed");
        }
    }
    mq_model_free(model);
    mq_context_free(b->context);
    return status;
}

int main(int argc, char **argv) {
    static bench b; /* too large for a stack */
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "usage: bench_learn MODEL CALIB OUT [NAME=NUMBER ...]\n");
        return MQ_ERR_USAGE;
    }
    mq_error err = {0};
    const mq_status status = run(&b, argv + 1, &err);
    if (status != MQ_OK) {
        char line[1400];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "bench_learn: %s\n", line);
    }
    return (int)status;
}
