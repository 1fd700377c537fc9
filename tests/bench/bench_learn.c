/* layer: job */
/* Learns blocks of a model with timers around the parts of it, beside the bare
 * library's rate on the same shapes, and prints one JSON object.
 *
 *   bench_learn MODEL CALIB OUT [NAME=NUMBER ...]
 *
 * MODEL and CALIB are those of `matquant quantize`, which is what runs; OUT is where it would write
 * if it came to the end. Names and their defaults: threads 0 (all), blocks 1, repeats 5, samples
 * 64, seq-len 512, epochs 4, batch 2, group-size 64, cpu 0, bf16 0. It stops after so many blocks;
 * best of so many repeats is the bare library's time for a product, half of them before the
 * learning and half after it; with cpu=1 (for one thread) all times are of the processor, not of
 * the wall. bf16=1 learns with --gemm onednn-bf16, and the bare library is oneDNN where the loop's
 * products are. scripts/bench.sh calls this and makes a table of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bare_products.h"
#include "base/alloc.h"
#include "base/json.h"
#include "matquant/quantize.h"
#include "matquant/version.h"

enum { THREADS, BLOCKS, REPEATS, SAMPLES, SEQ_LEN, EPOCHS, BATCH, GROUP_SIZE, CPU, BF16, SETTINGS };
static const char *const setting_names[SETTINGS] = {"threads", "blocks", "repeats", "samples",
                                                    "seq-len", "epochs", "batch",   "group-size",
                                                    "cpu",     "bf16"};

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
    bare bare;
    size_t memory_predicted, memory_peak;
} bench;

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
                *flops += bare_flops(&b->bare, linear) / tokens;
                *seconds += ((1.0 - bf16) * bare_seconds(&b->bare, linear, which) +
                             bf16 * b->bare.by_bf16[linear][which]) /
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
    const size_t window = mq_config_window(config, layer);
    double pairs = 0.0;
    for (size_t i = 1; i <= b->setting[SEQ_LEN]; i++) {
        pairs += (double)(window > 0 && i > window ? window : i);
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
                1e-9 * bare_flops(&b->bare, linear) / b->bare.by_library[linear][which]);
            put(product, "gflops_call_a_thread",
                1e-9 * bare_flops(&b->bare, linear) / b->bare.by_threads[linear][which]);
            if (b->bare.bf16) {
                put(product, "gflops_bf16",
                    1e-9 * bare_flops(&b->bare, linear) / b->bare.by_bf16[linear][which]);
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
    static const size_t defaults[SETTINGS] = {0, 1, 5, 64, 512, 4, 2, 64, 0, 0};
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
        b->bare = (bare){.config = &b->config,
                         .tokens = b->setting[BATCH] * b->setting[SEQ_LEN],
                         .threads = mq_context_threads(b->context),
                         .bf16 = b->setting[BF16] != 0};
        const size_t half = (b->setting[REPEATS] + 1) / 2;
        status = time_products(&b->bare, half, err);
        status = status == MQ_OK ? learn(b, argv, err) : status;
        status = status == MQ_OK ? check_timers(b, err) : status;
        status = status == MQ_OK ? time_products(&b->bare, half, err) : status;
        if (status == MQ_OK && !print_results(b)) {
            status = mq_fail(err, MQ_ERR_MACHINE, "the results cannot be printed");
        }
    }
    mq_model_free(model);
    mq_context_free(b->context);
    return status;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
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
