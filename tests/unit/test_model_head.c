/* layer: model */
/* The head's tiles and running log-sum-exp against plain sums in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/random.h"
#include "kernel_tables.h"
#include "memory_model.h"
#include "model/head_kernels.h"

static size_t plain_top(const double *logits, size_t vocab) {
    size_t top = 0;
    for (size_t v = 1; v < vocab; v++) {
        top = logits[v] > logits[top] ? v : top;
    }
    return top;
}

static mq_head_scores make_scores(size_t count) {
    const mq_head_scores s = {.nll = mq_alloc(count, sizeof(float)),
                              .top = mq_alloc(count, sizeof(int32_t)),
                              .kl = mq_alloc(count, sizeof(float)),
                              .same_top = mq_alloc(count, 1)};
    assert_true(s.nll != NULL && s.kl != NULL && s.top != NULL && s.same_top != NULL);
    return s;
}

static void free_scores(mq_head_scores *s) {
    mq_free(s->nll);
    mq_free(s->kl);
    mq_free(s->top);
    mq_free(s->same_top);
}

typedef struct shape {
    size_t vocab, width, count;
    double softcap, logits_scaling; /* of both sides */
} shape;

/* Slabs, chunks, tiles and groups, each whole, broken and alone. */
static const shape shapes[] = {
    {9500, 12, 300, 0.0, 1.0}, {1024, 8, 128, 4.0, 1.0}, {1025, 7, 129, 0.0, 1.0},
    {3, 5, 1, 2.0, 1.0},       {700, 4, 4200, 0.0, 1.0}, {1025, 7, 129, 0.0, 2.5},
    {1024, 8, 128, 4.0, 0.5},
};

static void check_shape(const shape *s) {
    mq_model *model = make_model(s->vocab, s->width, s->softcap, 1);
    mq_model *reference = make_model(s->vocab, s->width, s->softcap, 7);
    model->config.logits_scaling = reference->config.logits_scaling = s->logits_scaling;
    float *hidden = random_floats(s->count * s->width, 3.0, 3);
    float *other = random_floats(s->count * s->width, 3.0, 4);
    int32_t *targets = mq_alloc(s->count, sizeof *targets);
    double *mine = mq_alloc(s->vocab, sizeof *mine), *theirs = mq_alloc(s->vocab, sizeof *theirs);
    assert_true(targets != NULL && mine != NULL && theirs != NULL);
    for (size_t i = 0; i < s->count; i++) {
        targets[i] = (int32_t)(i * 7919 % s->vocab);
    }
    mq_head_scores score = make_scores(s->count), compare = make_scores(s->count);
    const size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    const mq_head_side side = {model, hidden}, reference_side = {reference, other};
    assert_int_equal(mq_head_score(&score, &side, NULL, targets, s->count, NULL, NULL), MQ_OK);
    assert_int_equal(mq_head_score(&compare, &side, &reference_side, targets, s->count, NULL, NULL),
                     MQ_OK);
    assert_true(mq_alloc_peak() - before <= mq_head_memory(&model->config, s->count));
    assert_memory_equal(score.nll, compare.nll, s->count * sizeof(float));
    for (size_t i = 0; i < s->count; i += i < 8 ? 1 : 37) {
        plain_logits(mine, model, hidden + i * s->width);
        plain_logits(theirs, reference, other + i * s->width);
        const double lse = plain_lse(mine, s->vocab), their_lse = plain_lse(theirs, s->vocab);
        double kl = 0.0;
        for (size_t v = 0; v < s->vocab; v++) {
            kl += exp(theirs[v] - their_lse) * ((theirs[v] - their_lse) - (mine[v] - lse));
        }
        assert_true(fabs((double)score.nll[i] - (lse - mine[targets[i]])) <
                    2e-5 * (1.0 + fabs(lse)));
        assert_true(fabs((double)compare.kl[i] - kl) < 2e-5 * (1.0 + kl));
        assert_int_equal(score.top[i], plain_top(mine, s->vocab));
        assert_int_equal(compare.same_top[i],
                         plain_top(mine, s->vocab) == plain_top(theirs, s->vocab));
    }
    free_scores(&score);
    free_scores(&compare);
    mq_free(theirs);
    mq_free(mine);
    mq_free(targets);
    mq_free(other);
    mq_free(hidden);
    mq_model_free(reference);
    mq_model_free(model);
}

static void test_against_plain(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_shape(&shapes[i]);
    }
}

static void test_logits(void **state) {
    (void)state;
    enum { VOCAB = 9500, WIDTH = 6, COUNT = 131 };
    mq_model *model = make_model(VOCAB, WIDTH, 5.0, 1);
    float *hidden = random_floats(COUNT * WIDTH, 3.0, 3),
          *logits = mq_alloc((size_t)COUNT * VOCAB, sizeof *logits);
    double *plain = mq_alloc(VOCAB, sizeof *plain);
    assert_true(logits != NULL && plain != NULL);
    assert_int_equal(mq_head_logits(logits, model, hidden, COUNT, NULL, NULL), MQ_OK);
    for (size_t i = 0; i < COUNT; i += 13) {
        plain_logits(plain, model, hidden + i * WIDTH);
        for (size_t v = 0; v < VOCAB; v++) {
            assert_true(fabs((double)logits[i * VOCAB + v] - plain[v]) < 1e-5);
        }
    }
    mq_free(plain);
    mq_free(logits);
    mq_free(hidden);
    mq_model_free(model);
}

/* A model compared with itself; and the lowest id where logits are equal, across chunks and slabs
 * too. */
static void test_self_and_ties(void **state) {
    (void)state;
    enum { VOCAB = 9300, WIDTH = 8, COUNT = 200 };
    mq_model *model = make_model(VOCAB, WIDTH, 0.0, 1);
    float *head = of(model->weights)->head;
    float *hidden = random_floats(COUNT * WIDTH, 3.0, 3);
    mq_head_scores s = make_scores(COUNT);
    const mq_head_side side = {model, hidden};
    const mq_head_scores compared = {.kl = s.kl, .same_top = s.same_top}, top = {.top = s.top};
    assert_int_equal(mq_head_score(&compared, &side, &side, NULL, COUNT, NULL, NULL), MQ_OK);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(s.kl[i] >= 0.0F && s.kl[i] < 1e-6F);
        assert_int_equal(s.same_top[i], 1);
    }
    for (size_t v = 0; v < VOCAB; v++) { /* every row is there many times */
        memcpy(head + v * WIDTH, head + v % 310 * WIDTH, WIDTH * sizeof *head);
    }
    /* One input alone is not 0: a logit is one product, which no kernel's order of summing changes.
     * Sums over equal rows may differ in their last bit by the place that the rows have in a tile.
     */
    memset(hidden, 0, (size_t)COUNT * WIDTH * sizeof *hidden);
    for (size_t i = 0; i < COUNT; i++) {
        hidden[i * WIDTH + i % WIDTH] = i % 3 == 0 ? -1.5F : 0.5F;
    }
    assert_int_equal(mq_head_score(&top, &side, NULL, NULL, COUNT, NULL, NULL), MQ_OK);
    for (size_t i = 0; i < COUNT; i++) {
        assert_in_range(s.top[i], 0, 309);
    }
    free_scores(&s);
    mq_free(hidden);
    mq_model_free(model);
}

static void test_threads(void **state) {
    (void)state;
    enum { VOCAB = 5000, WIDTH = 24, COUNT = 500 };
    mq_model *model = make_model(VOCAB, WIDTH, 0.0, 1),
             *reference = make_model(VOCAB, WIDTH, 0.0, 2);
    float *hidden = random_floats(COUNT * WIDTH, 3.0, 3);
    int32_t *targets = mq_calloc(COUNT, sizeof *targets);
    const mq_head_side side = {model, hidden}, reference_side = {reference, hidden};
    mq_head_scores s[2] = {make_scores(COUNT), make_scores(COUNT)};
    for (size_t i = 0; i < 2; i++) {
        const mq_context_options options = {.threads = i == 0 ? 1 : 3};
        mq_context *context;
        assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
        assert_int_equal(
            mq_head_score(&s[i], &side, &reference_side, targets, COUNT, context, NULL), MQ_OK);
        mq_context_free(context);
    }
    assert_memory_equal(s[0].nll, s[1].nll, COUNT * sizeof(float));
    assert_memory_equal(s[0].kl, s[1].kl, COUNT * sizeof(float));
    free_scores(&s[0]);
    free_scores(&s[1]);
    mq_free(targets);
    mq_free(hidden);
    mq_model_free(reference);
    mq_model_free(model);
}

static void test_refusals(void **state) {
    (void)state;
    mq_model *model = make_model(9000, 4, 0.0, 1), *narrow = make_model(8999, 4, 0.0, 1);
    float *hidden = random_floats(8 * 4, 1.0, 3), nll[8];
    const mq_head_side side = {model, hidden}, narrow_side = {narrow, hidden};
    const mq_head_scores scores = {.nll = nll};
    int32_t targets[8] = {0, 1, 2, 9000, 4, 5, 6, 7};
    mq_error err = {0};
    const size_t before = mq_alloc_current();
    assert_int_equal(mq_head_score(&scores, &side, NULL, targets, 8, NULL, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "token 3 has id 9000"));
    targets[3] = -1;
    assert_int_equal(mq_head_score(&scores, &side, NULL, targets, 8, NULL, &err), MQ_ERR_INPUT);
    targets[3] = 3;
    assert_int_equal(mq_head_score(&scores, &side, &narrow_side, targets, 8, NULL, &err),
                     MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "vocab_size 8999 differs"));

    memory_weights *weights = (memory_weights *)(void *)model->weights;
    weights->broken_row = 3000;
    assert_int_equal(mq_head_score(&scores, &side, NULL, targets, 8, NULL, &err), MQ_ERR_INPUT);
    assert_string_equal(err.tensor, "lm_head.weight");
    assert_string_equal(err.file, "memory");
    assert_non_null(strstr(err.message, "row 3000"));
    weights->broken_row = SIZE_MAX;
    mq_alloc_fail_after(1);
    assert_int_equal(mq_head_score(&scores, &side, NULL, targets, 8, NULL, &err), MQ_ERR_MACHINE);
    mq_alloc_fail_after(0);
    assert_int_equal(mq_alloc_current(), before);
    mq_free(hidden);
    mq_model_free(narrow);
    mq_model_free(model);
}

/* The largest at each place in turn, of numbers that are all below 0. */
static void check_largest(const mq_head_kernels *k, size_t n) {
    float *x = random_floats(n, 20.0, n);
    for (size_t i = 0; i < n; i++) {
        x[i] -= 21.0F;
    }
    for (size_t i = 0; i < n; i++) {
        const float kept = x[i];
        x[i] = -0.5F;
        assert_true(k->largest(x, n) == -0.5F);
        x[i] = kept;
    }
    mq_free(x);
}

static double float_lse(const float *logits, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)logits[i]);
    }
    return log(sum);
}

/* Bounds are shares of what is summed up or subtracted: an exponential is off by 2 units in its
 * last place and by the rounding of its argument, which is above -64. */
static void check_kl_gradient(const mq_head_kernels *k, size_t n, double softcap) {
    const double weight = 0.75;
    float *x = random_floats(n, 20.0, n), *r = random_floats(n, 20.0, n + 1),
          *s = mq_alloc(n, sizeof *s);
    assert_non_null(s);
    memcpy(s, x, n * sizeof *s);
    const float lse = (float)float_lse(x, n), reference_lse = (float)float_lse(r, n);
    const float got = k->kl_gradient(s, r, n, lse, reference_lse, (float)weight, (float)softcap);
    double total = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double q = exp((double)x[i] - (double)lse);
        const double p = exp((double)r[i] - (double)reference_lse);
        const double slope = softcap > 0.0 ? 1.0 - pow((double)x[i] / softcap, 2.0) : 1.0;
        total += p * ((double)r[i] - (double)x[i]);
        size += p * fabs((double)r[i] - (double)x[i]);
        assert_true(fabs((double)s[i] - weight * (q - p) * slope) <= 5e-6 * weight * (q + p));
    }
    assert_true(fabs((double)got - total) <= 5e-6 * size);
    mq_free(s);
    mq_free(r);
    mq_free(x);
}

/* Every instruction set that this processor has, against double. */
static void check_kernels(const mq_head_kernels *k, size_t n) {
    float *x = random_floats(n, 20.0, n), *r = random_floats(n, 20.0, n + 1),
          *p = mq_alloc(n, sizeof *p);
    double top = (double)r[0], sum = 0.0, cross = 0.0, warm = 0.0;
    size_t first = 0;
    for (size_t i = 0; i < n; i++) {
        first = r[i] > r[first] ? i : first;
    }
    top = (double)r[first];
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)r[i] - top);
        cross += exp((double)r[i] - top) * ((double)r[i] - (double)x[i]);
        warm += exp(((double)r[i] - top) * 0.25);
    }
    float max, total;
    k->log_sum(&max, &total, r, n);
    assert_true((double)max == top);
    assert_true(fabs((double)total - sum) < 2e-6 * sum);
    assert_int_equal(k->find(r, n, max), first);
    assert_int_equal(k->find(r, n, NAN), 0);
    assert_true(fabs((double)k->cross(x, r, n, max) - cross) < 1e-5 * 40.0 * sum);
    assert_true(fabs((double)k->exponentials(p, r, n, max, 0.25F) - warm) < 2e-6 * warm);
    assert_true(p[first] == 1.0F);
    for (int capped = 0; capped < 2; capped++) {
        for (int scaled = 0; scaled < 2; scaled++) {
            memcpy(p, x, n * sizeof *p);
            k->finish(p, n, scaled ? 0.375F : 1.0F, capped ? 7.0F : 0.0F);
            for (size_t i = 0; i < n; i++) {
                const double logit = (double)x[i] * (scaled ? 0.375 : 1.0);
                const double expected = capped ? 7.0 * tanh(logit / 7.0) : logit;
                assert_true(fabs((double)p[i] - expected) < 2e-6);
            }
        }
    }
    mq_free(p);
    mq_free(r);
    mq_free(x);
}

static void test_kernels(void **state) {
    (void)state;
    EXPECT_TABLE(mq_head_kernels);
    for (size_t i = 0; mq_head_kernels_at(i) != NULL; i++) {
        for (size_t n = 1; n < 1100; n += n < 40 ? 1 : 97) {
            check_kernels(mq_head_kernels_at(i), n);
            check_largest(mq_head_kernels_at(i), n);
            check_kl_gradient(mq_head_kernels_at(i), n, 0.0);
            check_kl_gradient(mq_head_kernels_at(i), n, 25.0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain), cmocka_unit_test(test_logits),
        cmocka_unit_test(test_self_and_ties), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
