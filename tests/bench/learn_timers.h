/* Timers around parts of the learning loop, for bench_learn.
 *
 * The loop itself has none: the linker sends the calls that cross these functions' files through
 * here (--wrap, cmake/MatquantTests.cmake), so that what is timed is the program as it is. Regions
 * and phases are entered by the main thread; products also inside parallel regions, each thread
 * with a counter of its own. */
#ifndef MQ_BENCH_LEARN_TIMERS_H
#define MQ_BENCH_LEARN_TIMERS_H

#include <omp.h>
#include <time.h>

#include "base/error.h"
#include "model/block.h"
#include "model/ops.h"
#include "quant/learner.h"
#include "quant/loss.h"
#include "quant/recipe.h"
#include "store/master.h"
#include "tensor/gemm.h"
#include "tensor/gemm_bf16.h"

#define MAX_TIMED_THREADS 256

typedef enum phase { LOAD, TEACH, START, MEASURE, TRAIN, FINISH, ADVANCE, WRITE, PHASES } phase;

/* What one phase of one block took. Seconds of products are summed over threads. */
typedef struct phase_times {
    double seconds, cpu;                   /* cpu: of the process, all threads */
    double block, attention, loss, values; /* regions; attention is part of block, values: fake
                                              quantization, its backward and Adam */
    double linear_products, attention_products;
    double linear_flops, attention_flops; /* of the products as they were made */
    double bf16_flops;                    /* those of linear_flops with bfloat16 operands */
    double forward_tokens, backward_tokens;
} phase_times;

/* One thread's products, apart from the others' by more than a cache line. */
typedef struct thread_times {
    double linear_products, attention_products, linear_flops, attention_flops, bf16_flops;
    double padding[11];
} thread_times;

static struct {
    phase_times *at; /* [PHASES] of the block that is being learned; NULL: nobody asks */
    phase now;
    bool in_attention, in_gram;
    bool by_cpu; /* seconds of the process's processor time: for one thread on a busy machine */
    size_t threads;
    thread_times thread[MAX_TIMED_THREADS];
} timers;

static double cpu_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* What everything here is timed by. */
static double seconds_now(void) { return timers.by_cpu ? cpu_seconds() : mq_seconds(); }

/* --- phases ----------------------------------------------------------------------------------- */

typedef struct phase_begin {
    double seconds, cpu;
} phase_begin;

static phase_begin enter(phase which) {
    timers.now = which;
    memset(timers.thread, 0, sizeof timers.thread);
    return (phase_begin){seconds_now(), cpu_seconds()};
}

static void leave(phase_begin begin) {
    if (timers.at == NULL) {
        return;
    }
    phase_times *times = &timers.at[timers.now];
    times->seconds += seconds_now() - begin.seconds;
    times->cpu += cpu_seconds() - begin.cpu;
    for (size_t i = 0; i < MAX_TIMED_THREADS; i++) {
        times->linear_products += timers.thread[i].linear_products;
        times->attention_products += timers.thread[i].attention_products;
        times->linear_flops += timers.thread[i].linear_flops;
        times->attention_flops += timers.thread[i].attention_flops;
        times->bf16_flops += timers.thread[i].bf16_flops;
    }
}

/* __real_NAME is the function, __wrap_NAME what its callers in other files reach: the linker's
 * names. */
#define REAL(name) extern __typeof__(name) __real_##name, __wrap_##name

REAL(mq_learner_load);
REAL(mq_learner_teach);
REAL(mq_learner_start);
REAL(mq_learner_measure);
REAL(mq_learner_train);
REAL(mq_learner_finish);
REAL(mq_learner_advance);
REAL(mq_master_writer_put_rows);

mq_status __wrap_mq_learner_load(mq_learner *learner, size_t layer, mq_error *err) {
    const phase_begin begin = enter(LOAD);
    const mq_status status = __real_mq_learner_load(learner, layer, err);
    leave(begin);
    return status;
}

mq_status __wrap_mq_learner_teach(mq_learner *learner, size_t layer, mq_error *err) {
    const phase_begin begin = enter(TEACH);
    const mq_status status = __real_mq_learner_teach(learner, layer, err);
    leave(begin);
    return status;
}

void __wrap_mq_learner_start(mq_learner *learner, size_t layer) {
    const phase_begin begin = enter(START);
    __real_mq_learner_start(learner, layer);
    leave(begin);
}

mq_status __wrap_mq_learner_measure(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                                    mq_error *err) {
    const phase_begin begin = enter(MEASURE);
    const mq_status status = __real_mq_learner_measure(loss, learner, layer, err);
    leave(begin);
    return status;
}

mq_status __wrap_mq_learner_train(mq_learner *learner, size_t layer, double started,
                                  mq_error *err) {
    const phase_begin begin = enter(TRAIN);
    const mq_status status = __real_mq_learner_train(learner, layer, started, err);
    leave(begin);
    return status;
}

mq_status __wrap_mq_learner_finish(mq_learner *learner, size_t layer, mq_error *err) {
    const phase_begin begin = enter(FINISH);
    const mq_status status = __real_mq_learner_finish(learner, layer, err);
    leave(begin);
    return status;
}

mq_status __wrap_mq_learner_advance(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                                    mq_error *err) {
    const phase_begin begin = enter(ADVANCE);
    const mq_status status = __real_mq_learner_advance(loss, learner, layer, err);
    leave(begin);
    return status;
}

mq_status __wrap_mq_master_writer_put_rows(mq_master_writer *writer, size_t index,
                                           const mq_quantized *quantized, size_t first,
                                           mq_error *err) {
    const phase_begin begin = enter(WRITE);
    const mq_status status = __real_mq_master_writer_put_rows(writer, index, quantized, first, err);
    leave(begin);
    return status;
}

/* --- regions ---------------------------------------------------------------------------------- */

static double *region(size_t offset) {
    static double nowhere;
    return timers.at ? (double *)((char *)&timers.at[timers.now] + offset) : &nowhere;
}

#define TIMED(field, call)                                                                         \
    do {                                                                                           \
        const double begin_of_region = seconds_now();                                              \
        call;                                                                                      \
        *region(offsetof(phase_times, field)) += seconds_now() - begin_of_region;                  \
    } while (0)

REAL(mq_block_forward);
REAL(mq_block_backward);
REAL(mq_attention_forward);
REAL(mq_attention_backward);
REAL(mq_block_loss_gradient);
REAL(mq_block_loss_value);
REAL(mq_block_gram_add);
REAL(mq_recipe_grid_class);

void __wrap_mq_block_forward(float *y, const float *x, const mq_block_weights *weights,
                             const mq_block_shape *shape, mq_activations *activations,
                             const mq_context *context) {
    TIMED(block, __real_mq_block_forward(y, x, weights, shape, activations, context));
    *region(offsetof(phase_times, forward_tokens)) += (double)(shape->sequences * shape->length);
}

void __wrap_mq_block_backward(mq_block_grads *grads, float *dy, const float *x,
                              const mq_block_weights *weights, const mq_block_shape *shape,
                              mq_activations *activations, const mq_context *context) {
    TIMED(block, __real_mq_block_backward(grads, dy, x, weights, shape, activations, context));
    *region(offsetof(phase_times, backward_tokens)) += (double)(shape->sequences * shape->length);
}

void __wrap_mq_attention_forward(float *out, float *lse, const mq_attention_inputs *in,
                                 const mq_attention_run *run) {
    timers.in_attention = true;
    TIMED(attention, __real_mq_attention_forward(out, lse, in, run));
    timers.in_attention = false;
}

void __wrap_mq_attention_backward(const mq_attention_grads *grads, const mq_attention_kept *kept,
                                  const mq_attention_inputs *in, const mq_attention_run *run) {
    timers.in_attention = true;
    TIMED(attention, __real_mq_attention_backward(grads, kept, in, run));
    timers.in_attention = false;
}

void __wrap_mq_block_loss_gradient(float *y, const mq_goal goals[], size_t count, size_t tokens,
                                   size_t hidden_size, mq_loss loss) {
    TIMED(loss, __real_mq_block_loss_gradient(y, goals, count, tokens, hidden_size, loss));
}

/* Its products are no linear's. */
void __wrap_mq_block_gram_add(double *squares, float *matrix, mq_linear linear,
                              const mq_block_weights *weights, const mq_block_shape *shape,
                              mq_activations *activations, const mq_context *context) {
    timers.in_gram = true;
    __real_mq_block_gram_add(squares, matrix, linear, weights, shape, activations, context);
    timers.in_gram = false;
}

double __wrap_mq_block_loss_value(const float *y, const float *target, size_t tokens,
                                  size_t hidden_size, mq_loss loss) {
    double value;
    TIMED(loss, value = __real_mq_block_loss_value(y, target, tokens, hidden_size, loss));
    return value;
}

/* The grid's class as it is, but for a timer around its step. */
static const mq_grid_class *timed_class;

static void timed_step(mq_grid *grid, const float *const gradients[], const mq_values values[],
                       const mq_adam *adam) {
    TIMED(values, timed_class->step(grid, gradients, values, adam));
}

const mq_grid_class *__wrap_mq_recipe_grid_class(const mq_quantize_options *options) {
    static mq_grid_class timed;
    timed_class = __real_mq_recipe_grid_class(options);
    timed = *timed_class;
    timed.step = timed_step;
    return &timed;
}

/* --- products --------------------------------------------------------------------------------- */

REAL(mq_gemm);
REAL(mq_gemm_bf16_run);

/* A product that all threads make together counts for each of them. */
static void count_product(double begin, double flops) {
    const double seconds = seconds_now() - begin;
    const size_t index = (size_t)omp_get_thread_num();
    if (index >= MAX_TIMED_THREADS || timers.in_gram) {
        return;
    }
    thread_times *thread = &timers.thread[index];
    const double all = omp_in_parallel() ? seconds : seconds * (double)timers.threads;
    if (timers.in_attention) {
        thread->attention_products += all;
        thread->attention_flops += flops;
    } else {
        thread->linear_products += all;
        thread->linear_flops += flops;
    }
}

static double product_flops(const mq_gemm_shape *shape) {
    return 2.0 * (double)shape->m * (double)shape->n * (double)shape->k;
}

void __wrap_mq_gemm(float *c, const float *a, const float *b, const mq_gemm_shape *shape,
                    float alpha) {
    const double begin = seconds_now();
    __real_mq_gemm(c, a, b, shape, alpha);
    count_product(begin, product_flops(shape));
}

void __wrap_mq_gemm_bf16_run(float *c, const mq_bf16 *a, const mq_bf16 *b,
                             const mq_gemm_shape *shape, const mq_gemm_bf16 *gemm, void *scratch) {
    const double begin = seconds_now();
    const double flops = product_flops(shape);
    __real_mq_gemm_bf16_run(c, a, b, shape, gemm, scratch);
    count_product(begin, flops);
    if (!timers.in_attention && (size_t)omp_get_thread_num() < MAX_TIMED_THREADS) {
        timers.thread[omp_get_thread_num()].bf16_flops += flops;
    }
}

#endif
