/* layer: model */
/* Attention with products of bfloat16 against the same in float32 on the same rounded operands, for
 * shapes of all kinds; skipped where the program or the processor has no such products. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "model/ops.h"
#include "tensor/dtype.h"

enum { THREADS = 3 };

/* Everything of one shape, from one slab. */
typedef struct fixture {
    mq_attention_shape shape;
    size_t q_count, kv_count, lse_count;
    mq_gemm_bf16 *gemm;
    mq_context *context;
    mq_slab slab;
    float *q, *dout, *k, *v; /* multiples of bfloat16's steps, q but for its scale */
    float *out[2], *lse[2], *dq[2], *dk[2], *dv[2]; /* of float32, of bfloat16 */
    float *scratch;
    mq_bf16 *k_bf16, *v_bf16;
    mq_attention_bf16 bf16;
} fixture;

static void carve(fixture *f) {
    const size_t size = sizeof(float), threads = mq_context_threads(f->context);
    mq_slab *slab = &f->slab;
    f->q = mq_carve(slab, f->q_count, size);
    f->dout = mq_carve(slab, f->q_count, size);
    f->k = mq_carve(slab, f->kv_count, size);
    f->v = mq_carve(slab, f->kv_count, size);
    for (size_t i = 0; i < 2; i++) {
        f->out[i] = mq_carve(slab, f->q_count, size);
        f->lse[i] = mq_carve(slab, f->lse_count, size);
        f->dq[i] = mq_carve(slab, f->q_count, size);
        f->dk[i] = mq_carve(slab, f->kv_count, size);
        f->dv[i] = mq_carve(slab, f->kv_count, size);
    }
    f->scratch = mq_carve(slab, mq_attention_scratch(&f->shape, true, f->context), size);
    f->k_bf16 = mq_carve(slab, f->kv_count, sizeof(mq_bf16));
    f->v_bf16 = mq_carve(slab, f->kv_count, sizeof(mq_bf16));
    f->bf16.products = mq_products_carve(slab, f->gemm, threads);
    f->bf16.scratch =
        mq_carve(slab, threads, mq_attention_bf16_scratch(&f->shape) * sizeof(mq_bf16));
    f->bf16.product = mq_carve(slab, threads, mq_attention_bf16_product(&f->shape) * size);
}

static void fill(float *x, size_t count, uint64_t stream) {
    mq_random random;
    mq_random_seed(&random, 5, stream);
    for (size_t i = 0; i < count; i++) {
        x[i] = mq_bf16_to_f32(mq_bf16_round((float)(4.0 * mq_random_unit(&random) - 2.0)));
    }
}

static void open_fixture(fixture *f, const mq_attention_shape *shape, size_t threads) {
    const mq_context_options options = {.threads = threads};
    const size_t tokens = shape->sequences * shape->length;
    *f = (fixture){.shape = *shape,
                   .q_count = tokens * shape->heads * shape->head_dim,
                   .kv_count = tokens * shape->kv_heads * shape->head_dim,
                   .lse_count = tokens * shape->heads};
    assert_int_equal(mq_context_new(&f->context, &options, NULL), MQ_OK);
    assert_int_equal(mq_gemm_bf16_new(&f->gemm, threads, NULL), MQ_OK);
    assert_int_equal(mq_attention_prepare(f->gemm, shape, true, NULL), MQ_OK);
    carve(f);
    assert_int_equal(mq_slab_allocate(&f->slab, "the test", NULL), MQ_OK);
    carve(f);
    assert_false(f->slab.overflow);
    fill(f->q, f->q_count, 0);
    fill(f->dout, f->q_count, 1);
    fill(f->k, f->kv_count, 2);
    fill(f->v, f->kv_count, 3);
    /* In two runs, as a block does it. */
    for (size_t first = 0; first < tokens; first += tokens / 2 + 1) {
        const size_t rest = tokens - first, most = tokens / 2 + 1;
        const size_t count = rest < most ? rest : most;
        mq_attention_round_keys(f->k_bf16, f->k, first, count, shape);
        mq_attention_round_keys(f->v_bf16, f->v, first, count, shape);
    }
}

static void close_fixture(fixture *f) {
    mq_slab_free(&f->slab);
    mq_gemm_bf16_free(f->gemm);
    mq_context_free(f->context);
}

static void run(fixture *f, bool bf16) {
    const size_t i = bf16 ? 1 : 0;
    const mq_attention_inputs in = {f->q, {f->k, f->k_bf16}, {f->v, f->v_bf16}};
    const mq_attention_kept kept = {f->out[i], f->lse[i], f->dout};
    const mq_attention_grads grads = {f->dq[i], f->dk[i], f->dv[i]};
    const mq_attention_run run = {&f->shape, f->scratch, bf16 ? &f->bf16 : NULL, f->context};
    mq_attention_forward(f->out[i], f->lse[i], &in, &run);
    mq_attention_backward(&grads, &kept, &in, &run);
    assert_int_equal(mq_gemm_bf16_check(f->gemm, NULL), MQ_OK);
}

/* ‖b - a‖ / ‖a‖, and of what is 0 (a single key's gradient is, but for rounding) beside `size`. */
static void check_close(const char *what, const float *a, const float *b, size_t count,
                        double bound, double size, const fixture *f) {
    double difference = 0.0, square = 0.0;
    for (size_t i = 0; i < count; i++) {
        assert_true(isfinite(b[i]));
        difference += pow((double)b[i] - (double)a[i], 2);
        square += pow((double)a[i], 2);
    }
    const double error = sqrt(difference / (square + (double)count * size * size));
    if (!(error <= bound)) {
        fail_msg("%s, %zu tokens, window %zu, %zu of %zu heads: off by %.2g", what, f->shape.length,
                 f->shape.window, f->shape.kv_heads, f->shape.heads, error);
    }
}

/* Rounding to 8 bits is off by 2^-8/√6 = 0.0016 in the mean of squares. In the output there are two
 * such errors, of the scaled query and of the probability (keys and values are what they were
 * rounded to): √2 · 0.0016 = 0.0023, in gradients four with those of dout and of the scores'
 * gradient: 0.0032. Scores that are larger than 1 enlarge the first; a factor of 2.4 is allowed. */
static void bf16_is_close_to_float32(void **state) {
    (void)state;
    static const size_t lengths[] = {129, 7, 64, 200, 1};
    static const size_t windows[] = {0, 1, 5, 140, 1000};
    static const size_t groups[] = {1, 2, 3, 13};
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < sizeof windows / sizeof *windows; j++) {
            const size_t kv_heads = 1 + j % 3;
            const mq_attention_shape shape = {.sequences = 1 + i % 3,
                                              .length = lengths[i],
                                              .heads = kv_heads * groups[(i + j) % 4],
                                              .kv_heads = kv_heads,
                                              .head_dim = 6,
                                              .window = windows[j],
                                              .scale = 0.7F,
                                              .softcap = j % 2 ? 3.0F : 0.0F};
            fixture f;
            open_fixture(&f, &shape, THREADS);
            run(&f, false);
            run(&f, true);
            check_close("out", f.out[0], f.out[1], f.q_count, 0.0055, 0.0, &f);
            check_close("lse", f.lse[0], f.lse[1], f.lse_count, 0.0055, 1.0, &f);
            check_close("dq", f.dq[0], f.dq[1], f.q_count, 0.0077, 1.0, &f);
            check_close("dk", f.dk[0], f.dk[1], f.kv_count, 0.0077, 1.0, &f);
            check_close("dv", f.dv[0], f.dv[1], f.kv_count, 0.0077, 0.0, &f);
            if (shape.length > 1 && shape.window != 1) { /* else there is nothing to round */
                assert_memory_not_equal(f.out[0], f.out[1], f.q_count * sizeof(float));
            }
            close_fixture(&f);
        }
    }
}

static void threads_give_the_same_bytes(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    const mq_attention_shape shape = {.sequences = 2,
                                      .length = 300,
                                      .heads = 6,
                                      .kv_heads = 2,
                                      .head_dim = 16,
                                      .window = 150,
                                      .scale = 0.25F};
    fixture f[2];
    for (size_t i = 0; i < 2; i++) {
        open_fixture(&f[i], &shape, 1 + 3 * i);
        run(&f[i], true);
    }
    assert_memory_equal(f[0].out[1], f[1].out[1], f[0].q_count * sizeof(float));
    assert_memory_equal(f[0].dq[1], f[1].dq[1], f[0].q_count * sizeof(float));
    assert_memory_equal(f[0].dk[1], f[1].dk[1], f[0].kv_count * sizeof(float));
    assert_memory_equal(f[0].dv[1], f[1].dv[1], f[0].kv_count * sizeof(float));
    close_fixture(&f[0]);
    close_fixture(&f[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_is_close_to_float32),
        cmocka_unit_test(threads_give_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
