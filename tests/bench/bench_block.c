/* layer: model */
/* What a block's forward and backward cost beside the matrix products in them, in float32 and,
 * where there is such a thing, with bfloat16 products.
 *
 *   bench_block [THREADS [REPEATS [cpu]]]
 *
 * For SmolLM2-135M's and Gemma 3 270M's shapes, 4 sequences of 512 tokens: the best time of REPEATS
 * (default 10) of forward, backward with the gradients of the learning step (weights only), and of
 * the same products alone: those of the linear layers as single calls of cblas_sgemm with all
 * threads, or as the block's own calls of oneDNN, tiles and pieces of gradients on all threads;
 * those of attention by tiles as the block has them, one head of keys a thread. What the block
 * takes longer than these is its non-GEMM share. The last column is the rate of the linear layers'
 * products alone, the one before it that of the whole block, attention's products included in its
 * time and not in its operations. With `cpu`, processor time: rates are those of one thread then.
 */
#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/random.h"
#include "model/activations.h"
#include "model/attention_tiles.h"
#include "model/block.h"
#include "tensor/gemm.h"

#define SEQUENCES 4
#define LENGTH 512
#define TOKENS (SEQUENCES * LENGTH)

typedef struct bench {
    const char *name;
    mq_config config;
    bool cpu, bf16;
    mq_context *context;
    mq_gemm_bf16 *gemm; /* NULL: there is none */
    mq_slab slab;
    mq_block_params weights, grads;
    mq_activations *activations;
    float *x, *y, *dy, *cos_table, *sin_table;
    float *operand[3]; /* of the products alone, each as large as the largest operand */
} bench;

static float *carve_floats(mq_slab *slab, size_t count) {
    return mq_carve(slab, count, sizeof(float));
}

static void carve(bench *b) {
    const mq_config *config = &b->config;
    mq_slab *slab = &b->slab;
    mq_block_params_carve(&b->weights, slab, config);
    mq_block_params_carve_rounded(&b->weights, slab, config, NULL);
    mq_block_params_carve(&b->grads, slab, config);
    const mq_activations_use use = {.config = config,
                                    .sequences = SEQUENCES,
                                    .length = LENGTH,
                                    .f32 = MQ_PASS_BACKWARD,
                                    .bf16 = b->gemm ? MQ_PASS_BACKWARD : MQ_PASS_NONE,
                                    .gemm = b->gemm};
    b->activations = mq_activations_carve(slab, &use, b->context);
    b->x = carve_floats(slab, TOKENS * config->hidden_size);
    b->y = carve_floats(slab, TOKENS * config->hidden_size);
    b->dy = carve_floats(slab, TOKENS * config->hidden_size);
    b->cos_table = carve_floats(slab, LENGTH * config->head_dim / 2);
    b->sin_table = carve_floats(slab, LENGTH * config->head_dim / 2);
    for (size_t i = 0; i < 3; i++) {
        b->operand[i] =
            carve_floats(slab, TOKENS * (config->intermediate_size + config->hidden_size));
    }
}

static void randomize(float *out, size_t count, float scale, mq_random *random) {
    for (size_t i = 0; i < count; i++) {
        out[i] = scale * (float)(2.0 * mq_random_unit(random) - 1.0);
    }
}

static void fill(bench *b) {
    mq_random random;
    mq_random_seed(&random, 1, 0);
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &b->config, linear);
        randomize(b->weights.linear[linear], out * in, 0.05F, &random);
    }
    mq_block_params_round(&b->weights, &b->config, NULL);
    for (mq_norm norm = 0; norm < MQ_NORM_COUNT; norm++) {
        for (size_t i = 0; i < mq_config_norm_size(&b->config, norm); i++) {
            b->weights.norm[norm][i] = 1.0F;
        }
    }
    randomize(b->x, TOKENS * b->config.hidden_size, 1.0F, &random);
    randomize(b->dy, TOKENS * b->config.hidden_size, 1.0F, &random);
    for (size_t i = 0; i < 3; i++) {
        randomize(b->operand[i], TOKENS * (b->config.intermediate_size + b->config.hidden_size),
                  1.0F, &random);
    }
    mq_rope_tables(b->cos_table, b->sin_table, &b->config.rope[0], &b->config, LENGTH);
}

/* --- the products alone ----------------------------------------------------------------------- */

/* The linear layers' products: forward, or dW of all and dX of all but q, k and v. */
static void linear_products(const bench *b, bool backward) {
    const float *x = b->operand[0], *w = b->operand[1];
    float *y = b->operand[2];
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &b->config, linear);
        const int m = (int)out, k = (int)in;
        if (!backward) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, TOKENS, m, k, 1, x, k, w, k, 0, y,
                        m);
            continue;
        }
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, k, TOKENS, 1, x, m, w, k, 0, y, k);
        if (linear != MQ_Q && linear != MQ_K && linear != MQ_V) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, TOKENS, k, m, 1, x, m, w, k, 0,
                        y, k);
        }
    }
}

/* Gate and up and down's input gradient are made with the activation between them. */
static void products_of_rows(const mq_block_pass *pass, const mq_rows *rows, bool backward) {
    if (!backward) {
        mq_block_linears(pass, &mq_block_qkv, rows);
        mq_block_linears(pass, &mq_block_o, rows);
        mq_block_gated_bf16(pass, rows);
        mq_block_linears(pass, &mq_block_down, rows);
    } else { /* nobody wants the block's input gradient */
        mq_block_gated_backward_bf16(pass, rows);
        mq_block_linears_backward(pass, &mq_block_gate_up, rows);
        mq_block_linears_backward(pass, &mq_block_o, rows);
    }
}

/* The same in bfloat16, by the block's own calls on its own arrays. */
static void linear_products_bf16(const bench *b, mq_block_grads *grads, bool backward) {
    const mq_block_shape shape = {.config = &b->config, .sequences = SEQUENCES, .length = LENGTH};
    const mq_block_weights weights = mq_block_params_view_bf16(&b->weights);
    mq_block_pass pass = {.kernels = mq_kernels_best(),
                          .config = &b->config,
                          .weights = &weights,
                          .bf16 = &b->activations->products,
                          .shape = &shape,
                          .activations = b->activations,
                          .grads = backward ? grads : NULL,
                          .through_ffn = true,
                          .through_o = true,
                          .through_attention = true,
                          .context = b->context};
    mq_block_pack_weights(&pass);
    const bool runs = mq_block_in_runs(&b->config);
    const size_t most = runs ? MQ_RUN_ROWS : mq_block_slab(&b->config, TOKENS);
    const size_t floats = mq_block_slab_floats(&b->config, most, true);
#pragma omp parallel for schedule(dynamic, 1) if (runs)
    for (size_t first = 0; first < TOKENS; first += most) {
        const mq_rows rows = {
            .first = first, .count = TOKENS - first < most ? TOKENS - first : most, .slab = first};
        mq_block_pass own = pass;
        own.alone = runs;
        mq_block_place_slab(
            &own, b->activations->scratch + (runs ? (size_t)omp_get_thread_num() : 0) * floats,
            most);
        products_of_rows(&own, &rows, backward);
    }
    if (backward) {
        mq_block_pack_inputs(&pass);
    }
    for (mq_linear linear = 0; backward && linear < MQ_LINEAR_COUNT; linear++) {
#pragma omp parallel for schedule(dynamic, 1)
        for (size_t piece = 0; piece < mq_block_pieces(&pass, linear); piece++) {
            mq_block_weight_gradient(&pass, linear, piece);
        }
    }
}

/* Those of the heads that share keys, as the block makes them: q·kᵀ and p·v; backward, besides
 * q·kᵀ: do·vᵀ, pᵀ·do, dsᵀ·q, ds·k. */
static void group_products(const bench *b, bool backward, mq_attn_work *w) {
    const mq_operand keys = {b->operand[1], b->activations->k_bf16};
    const mq_operand queries = {w->q, w->q16}, scores = {w->scores, w->scores16};
    for (size_t i = 0; i < mq_attn_tile_count(w->shape); i++) {
        mq_attn_to_tile(w, i);
        for (int k = 0; k < (backward ? 2 : 1); k++) {
            mq_attn_against_keys(w->scores, queries, keys, 1.0F, w);
        }
        mq_attn_over_keys(w->out, scores, keys, w);
        for (int k = 0; backward && k < 2; k++) {
            mq_attn_add_to_keys(b->operand[2], scores, queries, w);
        }
    }
}

static void attention_products(const bench *b, bool backward) {
    const mq_block_shape block = {.config = &b->config, .sequences = SEQUENCES, .length = LENGTH};
    const mq_attention_shape shape = mq_block_attention_shape(&b->config, &block);
    const mq_attention_run run = {.shape = &shape,
                                  .scratch = b->activations->scratch,
                                  .bf16 = b->bf16 ? &b->activations->attention : NULL,
                                  .context = b->context};
    openblas_set_num_threads(1);
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t task = 0; task < SEQUENCES * shape.kv_heads; task++) {
        mq_attn_work w = mq_attn_work_on(&run, task);
        group_products(b, backward, &w);
    }
    mq_gemm_set_threads(mq_context_threads(b->context));
}

/* --- timing ----------------------------------------------------------------------------------- */

enum {
    FORWARD,
    BACKWARD,
    LINEAR_FORWARD,
    LINEAR_BACKWARD,
    ATTENTION_FORWARD,
    ATTENTION_BACKWARD,
    TIMES
};

static double now(bool cpu) {
    struct timespec time;
    clock_gettime(cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double run_once(bench *b, int what) {
    const mq_block_shape shape = {.config = &b->config,
                                  .sequences = SEQUENCES,
                                  .length = LENGTH,
                                  .cos_table = b->cos_table,
                                  .sin_table = b->sin_table};
    const mq_block_weights weights =
        b->bf16 ? mq_block_params_view_bf16(&b->weights) : mq_block_params_view(&b->weights);
    mq_block_grads grads = {0};
    memcpy(grads.linear, b->grads.linear, sizeof grads.linear);
    const double start = now(b->cpu);
    switch (what) {
    case FORWARD:
        mq_block_forward(b->y, b->x, &weights, &shape, b->activations, b->context);
        break;
    case BACKWARD:
        mq_block_backward(&grads, b->dy, b->x, &weights, &shape, b->activations, b->context);
        break;
    case LINEAR_FORWARD:
    case LINEAR_BACKWARD:
        if (b->bf16) {
            linear_products_bf16(b, &grads, what == LINEAR_BACKWARD);
        } else {
            linear_products(b, what == LINEAR_BACKWARD);
        }
        break;
    default:
        attention_products(b, what == ATTENTION_BACKWARD);
    }
    return now(b->cpu) - start;
}

static double linear_flops(const mq_config *config, bool backward) {
    double flops = 0.0;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        const int products = backward && linear >= MQ_O ? 2 : 1;
        flops += 2.0 * products * TOKENS * (double)out * (double)in;
    }
    return flops;
}

static void report(const bench *b, const double *best) {
    static const char *const direction[2] = {"forward", "backward"};
    for (int i = 0; i < 2; i++) {
        const double linear = best[LINEAR_FORWARD + i], attention = best[ATTENTION_FORWARD + i];
        const double alone = linear + attention, whole = best[FORWARD + i];
        const double giga = 1e-9 * linear_flops(&b->config, i == 1);
        printf("%-14s %-5s %-9s %8.1f %8.1f %8.1f %8.1f %9.1f%% %10.0f %10.0f\n", b->name,
               b->bf16 ? "bf16" : "f32", direction[i], 1e3 * whole, 1e3 * alone, 1e3 * linear,
               1e3 * attention, 100.0 * (whole - alone) / whole, giga / whole, giga / linear);
    }
}

static bool run_shape(bench *b, int repeats) {
    carve(b);
    if (mq_slab_allocate(&b->slab, "the bench", NULL) != MQ_OK) {
        return false;
    }
    carve(b);
    fill(b);
    for (int type = 0; type < (b->gemm ? 2 : 1); type++) {
        double best[TIMES];
        b->bf16 = type == 1;
        for (int r = 0; r < repeats; r++) {
            for (int what = 0; what < TIMES; what++) {
                const double seconds = run_once(b, what);
                best[what] = r == 0 || seconds < best[what] ? seconds : best[what];
            }
        }
        report(b, best);
    }
    mq_slab_free(&b->slab);
    return b->gemm == NULL || mq_gemm_bf16_check(b->gemm, NULL) == MQ_OK;
}

int main(int argc, char **argv) {
    mq_take_environment(argv);
    const mq_context_options options = {.threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 0};
    const int repeats = argc > 2 ? atoi(argv[2]) : 10;
    mq_context *context;
    if (mq_context_new(&context, &options, NULL) != MQ_OK) {
        return 4;
    }
    bench shapes[2] = {{.name = "SmolLM2-135M",
                        .config = {.arch = mq_arch_find("LlamaForCausalLM"),
                                   .hidden_size = 576,
                                   .intermediate_size = 1536,
                                   .num_attention_heads = 9,
                                   .num_key_value_heads = 3,
                                   .head_dim = 64,
                                   .activation = MQ_SILU,
                                   .attention_scale = 0.125,
                                   .residual_multiplier = 1.0}},
                       {.name = "Gemma 3 270M",
                        .config = {.arch = mq_arch_find("Gemma3ForCausalLM"),
                                   .hidden_size = 640,
                                   .intermediate_size = 2048,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 1,
                                   .head_dim = 256,
                                   .activation = MQ_GELU_TANH,
                                   .attention_scale = 0.0625,
                                   .residual_multiplier = 1.0}}};
    char bf16[64];
    mq_gemm_bf16_describe(bf16, sizeof bf16);
    printf("%s; %s; %zu threads, %d x %d tokens, best of %d; ms and GFLOP/s%s\n",
           mq_context_blas(context), bf16, mq_context_threads(context), SEQUENCES, LENGTH, repeats,
           argc > 3 ? " of a thread" : "");
    printf("%-14s %-5s %-9s %8s %8s %8s %8s %10s %10s %10s\n", "", "", "", "block", "products",
           "linear", "attention", "non-GEMM", "block's", "products'");
    bool good = true;
    for (size_t i = 0; i < 2; i++) {
        shapes[i].context = context;
        shapes[i].cpu = argc > 3 && strcmp(argv[3], "cpu") == 0;
        shapes[i].config.num_hidden_layers = 1;
        shapes[i].config.rms_norm_eps = 1e-5;
        shapes[i].config.rope[0].rope_theta = 10000.0;
        if (mq_gemm_bf16_usable()) {
            good = mq_gemm_bf16_new(&shapes[i].gemm, mq_context_threads(context), NULL) == MQ_OK &&
                   mq_block_prepare(shapes[i].gemm, &shapes[i].config, SEQUENCES, LENGTH, true,
                                    NULL) == MQ_OK &&
                   good;
        }
        good = good && run_shape(&shapes[i], repeats);
        mq_gemm_bf16_free(shapes[i].gemm);
    }
    mq_context_free(context);
    return good ? 0 : 4;
}
