/* layer: model */
/* The divergence at the head and its gradients against plain sums in double and finite differences.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memory_model.h"
#include "model/head_gradient.h"

typedef struct shape {
    size_t vocab, width, count;
    double softcap, logits_scaling; /* of both sides */
    bool own_head;
} shape;

/* Fewer rows than pieces, chunks whole and broken, more tokens than a slab and than two. */
static const shape shapes[] = {
    {5, 6, 3, 0.0, 1.0, false},       {33, 8, 5, 3.0, 1.0, false}, {70000, 4, 9, 0.0, 1.0, false},
    {1000, 12, 700, 5.0, 1.0, false}, {33, 8, 5, 3.0, 1.0, true},  {1500, 4, 40, 0.0, 1.0, true},
    {1000, 4, 1100, 0.0, 1.0, true},  {33, 8, 5, 3.0, 2.5, true},  {1500, 4, 40, 0.0, 0.4, false}};

/* The reference, and a model with another norm and, where the shape says so, another head. */
typedef struct sides {
    mq_model *reference, *head; /* head: reference, or a model of its own */
    float *norm, *hidden, *other;
} sides;

static sides make_sides(const shape *s) {
    mq_model *reference = make_model(s->vocab, s->width, s->softcap, 1);
    mq_model *head = s->own_head ? make_model(s->vocab, s->width, s->softcap, 2) : reference;
    head->config.logits_scaling = reference->config.logits_scaling = s->logits_scaling;
    return (sides){reference, head, random_floats(s->width, 1.5, 8),
                   random_floats(s->count * s->width, 2.0, 3),
                   random_floats(s->count * s->width, 2.0, 4)};
}

static void free_sides(sides *m) {
    if (m->head != m->reference) {
        mq_model_free(m->head);
    }
    mq_model_free(m->reference);
    mq_free(m->norm);
    mq_free(m->hidden);
    mq_free(m->other);
}

/* Σ over tokens [first, first + count) of KL in double, with the model's norm and hidden states. */
static double plain_kl(const sides *m, const shape *s, size_t first, size_t count) {
    memory_weights *weights = (memory_weights *)(void *)m->head->weights;
    float *own = weights->norm;
    double *mine = mq_alloc(s->vocab, sizeof *mine), *theirs = mq_alloc(s->vocab, sizeof *theirs);
    assert_true(mine != NULL && theirs != NULL);
    double total = 0.0;
    for (size_t t = first; t < first + count; t++) {
        plain_logits(theirs, m->reference, m->other + t * s->width);
        weights->norm = m->norm;
        plain_logits(mine, m->head, m->hidden + t * s->width);
        weights->norm = own;
        const double lse = plain_lse(mine, s->vocab), their_lse = plain_lse(theirs, s->vocab);
        for (size_t v = 0; v < s->vocab; v++) {
            total += exp(theirs[v] - their_lse) * ((theirs[v] - their_lse) - (mine[v] - lse));
        }
    }
    mq_free(mine);
    mq_free(theirs);
    return total;
}

typedef struct result {
    float *kl, *d_hidden, *d_norm;
} result;

/* only_kl: without the gradients, which are then not touched. */
static result compute_with(const sides *m, const shape *s, float weight, size_t threads, bool bf16,
                           bool only_kl) {
    const mq_context_options options = {.threads = threads};
    mq_context *context;
    mq_error err;
    assert_int_equal(mq_context_new(&context, &options, &err), MQ_OK);
    mq_gemm_bf16 *gemm = NULL;
    const mq_config *config = &m->reference->config;
    if (bf16) {
        assert_int_equal(mq_gemm_bf16_new(&gemm, threads, &err), MQ_OK);
        assert_int_equal(mq_head_gradient_prepare(gemm, config, s->count, &err), MQ_OK);
    }
    mq_slab slab = {0};
    mq_head_gradient_carve(&slab, config, s->count, gemm, context);
    assert_false(slab.overflow);
    assert_int_equal(mq_slab_allocate(&slab, "the test", &err), MQ_OK);
    mq_head_gradient *memory = mq_head_gradient_carve(&slab, config, s->count, gemm, context);
    result r = {mq_alloc(s->count, sizeof(float)), mq_alloc(s->count * s->width, sizeof(float)),
                mq_alloc(s->width, sizeof(float))};
    assert_true(memory != NULL && r.kl != NULL && r.d_hidden != NULL && r.d_norm != NULL);
    const mq_head_kl of = {.model = {m->head, m->hidden},
                           .reference = {m->reference, m->other},
                           .norm = m->norm,
                           .count = s->count,
                           .weight = weight,
                           .bf16 = bf16,
                           .kl = r.kl,
                           .d_hidden = only_kl ? NULL : r.d_hidden,
                           .d_norm = only_kl ? NULL : r.d_norm};
    assert_int_equal(mq_head_kl_gradient(&of, memory, &err), MQ_OK);
    mq_slab_free(&slab);
    mq_gemm_bf16_free(gemm);
    mq_context_free(context);
    return r;
}

static result compute(const sides *m, const shape *s, float weight, size_t threads) {
    return compute_with(m, s, weight, threads, false, false);
}

static void free_result(result *r) {
    mq_free(r->kl);
    mq_free(r->d_hidden);
    mq_free(r->d_norm);
}

/* (f(x + h) - f(x - h))/2h. */
static double slope(const sides *m, const shape *s, float *x, size_t first, size_t count) {
    const float kept = *x, step = 1e-3f * (1.0f + fabsf(kept));
    *x = kept + step;
    const double above = plain_kl(m, s, first, count), upper = (double)*x;
    *x = kept - step;
    const double below = plain_kl(m, s, first, count), lower = (double)*x;
    *x = kept;
    return (above - below) / (upper - lower);
}

static void check(const shape *s) {
    const double weight = 0.25;
    sides m = make_sides(s);
    result r = compute(&m, s, (float)weight, 2);
    for (size_t t = 0; t < s->count; t += t < 4 ? 1 : 101) {
        const double kl = plain_kl(&m, s, t, 1);
        assert_true(fabs((double)r.kl[t] - kl) < 2e-5 * (1.0 + kl));
        for (size_t i = 0; i < s->width; i += 3) {
            float *x = &m.hidden[t * s->width + i];
            const double expected = weight * slope(&m, s, x, t, 1);
            const double got = (double)r.d_hidden[t * s->width + i];
            if (!(fabs(got - expected) < 2e-4 * (0.1 + fabs(expected)))) {
                fail_msg("vocab %zu, token %zu, %zu: %g instead of %g", s->vocab, t, i, got,
                         expected);
            }
        }
    }
    for (size_t i = 0; s->count < 20 && i < s->width; i++) {
        const double expected = weight * slope(&m, s, &m.norm[i], 0, s->count);
        assert_true(fabs((double)r.d_norm[i] - expected) < 2e-4 * (0.1 + fabs(expected)));
    }
    free_result(&r);
    free_sides(&m);
}

static void gradients_are_those_of_finite_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check(&shapes[i]);
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    for (size_t i = 3; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *s = &shapes[i];
        sides m = make_sides(s);
        result one = compute(&m, s, 1.0f, 1), three = compute(&m, s, 1.0f, 3);
        assert_memory_equal(one.kl, three.kl, s->count * sizeof(float));
        assert_memory_equal(one.d_hidden, three.d_hidden, s->count * s->width * sizeof(float));
        assert_memory_equal(one.d_norm, three.d_norm, s->width * sizeof(float));
        free_result(&one);
        free_result(&three);
        free_sides(&m);
    }
}

/* The largest difference as a share of the largest value of b[count]. */
static double difference(const float *a, const float *b, size_t count) {
    double largest = 0.0, most = 0.0;
    for (size_t i = 0; i < count; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return most / largest;
}

/* Rounded operands are off by 2^-9 of themselves, errors of either sign: the sums by less than 2^-6
 * of the largest. The threads change nothing there either. */
static void check_rounded(const shape *s) {
    sides m = make_sides(s);
    result exact = compute(&m, s, 0.25f, 2), rounded = compute_with(&m, s, 0.25f, 2, true, false);
    result again = compute_with(&m, s, 0.25f, 3, true, false);
    const size_t values = s->count * s->width;
    assert_true(difference(rounded.kl, exact.kl, s->count) < 0x1p-6);
    assert_true(difference(rounded.d_hidden, exact.d_hidden, values) < 0x1p-6);
    assert_true(difference(rounded.d_norm, exact.d_norm, s->width) < 0x1p-6);
    assert_memory_not_equal(rounded.d_hidden, exact.d_hidden, values * sizeof(float));
    assert_memory_equal(rounded.d_hidden, again.d_hidden, values * sizeof(float));
    free_result(&exact);
    free_result(&rounded);
    free_result(&again);
    free_sides(&m);
}

static void bf16_is_float32_with_rounded_operands(void **state) {
    (void)state;
    /* Hidden states of more than one panel, with logits of the size that the others have. */
    static const shape wide[] = {{300, 700, 140, 0.0, 16.0, false},
                                 {300, 700, 140, 5.0, 16.0, true}};
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_rounded(&shapes[i]);
    }
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        check_rounded(&wide[i]);
    }
}

/* From now on the head is there as bfloat16 alone: reading it fails. */
static void store_rounded(mq_model *model) {
    memory_weights *w = (memory_weights *)(void *)model->weights;
    w->stored = mq_alloc(w->vocab * w->width, sizeof *w->stored);
    assert_non_null(w->stored);
    mq_bf16_round_all(w->stored, w->head, w->vocab * w->width);
    w->broken_row = 0;
}

static void rows_that_are_stored_rounded_are_taken_as_they_are(void **state) {
    (void)state;
    if (!mq_gemm_bf16_usable()) {
        skip();
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *s = &shapes[i];
        sides m = make_sides(s);
        result read = compute_with(&m, s, 0.25f, 2, true, false);
        store_rounded(m.reference);
        if (m.head != m.reference) {
            store_rounded(m.head);
        }
        result stored = compute_with(&m, s, 0.25f, 2, true, false);
        assert_memory_equal(stored.kl, read.kl, s->count * sizeof(float));
        assert_memory_equal(stored.d_hidden, read.d_hidden, s->count * s->width * sizeof(float));
        assert_memory_equal(stored.d_norm, read.d_norm, s->width * sizeof(float));
        free_result(&read);
        free_result(&stored);
        free_sides(&m);
    }
}

static void the_divergence_alone_is_the_same(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 <= (mq_gemm_bf16_usable() ? 1 : 0); bf16++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            const shape *s = &shapes[i];
            sides m = make_sides(s);
            result both = compute_with(&m, s, 0.25f, 2, bf16, false);
            result alone = compute_with(&m, s, 0.0f, 2, bf16, true);
            assert_true(both.kl[0] > 0.0f);
            assert_memory_equal(alone.kl, both.kl, s->count * sizeof(float));
            free_result(&both);
            free_result(&alone);
            free_sides(&m);
        }
    }
}

static void equal_sides_have_no_gradient(void **state) {
    (void)state;
    const shape s = {500, 8, 40, 0.0, 1.0, false};
    sides m = make_sides(&s);
    memcpy(m.hidden, m.other, s.count * s.width * sizeof(float));
    memcpy(m.norm, ((memory_weights *)(void *)m.reference->weights)->norm, s.width * sizeof(float));
    result r = compute(&m, &s, 1.0f, 2);
    for (size_t i = 0; i < s.count * s.width; i++) {
        assert_true(fabsf(r.d_hidden[i]) < 1e-6f);
    }
    for (size_t t = 0; t < s.count; t++) {
        assert_true(r.kl[t] < 1e-6f);
    }
    free_result(&r);
    free_sides(&m);
}

/* A token's results are the same whichever tokens share its slab, and wherever in it: what several
 * slabs give is what each of their tokens gives alone. */
static void slabs_share_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *s = &shapes[i];
        sides m = make_sides(s);
        result all = compute(&m, s, 0.25f, 2);
        for (size_t t = 0; t < s->count; t += 1 + s->count / 8) {
            shape one = *s;
            one.count = 1;
            sides alone = m;
            alone.hidden += t * s->width;
            alone.other += t * s->width;
            result r = compute(&alone, &one, 0.25f, 2);
            assert_true(fabsf(r.kl[0] - all.kl[t]) < 1e-5f * (1.0f + r.kl[0]));
            assert_true(difference(all.d_hidden + t * s->width, r.d_hidden, s->width) < 1e-5);
            free_result(&r);
        }
        free_result(&all);
        free_sides(&m);
    }
}

/* A row of the head that cannot be read ends it with that error, in the head of both sides or in
 * the reference's own. */
static void check_broken_row(bool own_head) {
    const shape s = {3000, 4, 3, 0.0, 1.0, own_head};
    sides m = make_sides(&s);
    ((memory_weights *)(void *)m.reference->weights)->broken_row = 2500;
    mq_slab slab = {0};
    mq_error err = {0};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, NULL, &err), MQ_OK);
    mq_head_gradient_carve(&slab, &m.reference->config, s.count, NULL, context);
    assert_int_equal(mq_slab_allocate(&slab, "the test", &err), MQ_OK);
    mq_head_gradient *memory =
        mq_head_gradient_carve(&slab, &m.reference->config, s.count, NULL, context);
    float kl[3], d_hidden[12], d_norm[4];
    mq_head_kl of = {.model = {m.head, m.hidden},
                     .reference = {m.reference, m.other},
                     .norm = m.norm,
                     .count = s.count,
                     .weight = 1.0f,
                     .kl = kl,
                     .d_hidden = d_hidden,
                     .d_norm = d_norm};
    assert_int_equal(mq_head_kl_gradient(&of, memory, &err), MQ_ERR_INPUT);
    assert_non_null(strstr(err.message, "broken"));
    of.count = 0; /* of no token the head is not read */
    assert_int_equal(mq_head_kl_gradient(&of, memory, &err), MQ_OK);
    assert_true(d_norm[0] == 0.0f && d_norm[3] == 0.0f);
    mq_slab_free(&slab);
    mq_context_free(context);
    free_sides(&m);
}

static void a_broken_row_is_reported(void **state) {
    (void)state;
    check_broken_row(false);
    check_broken_row(true);
}

/* The divergence of a hidden state that is not a number is none either, and not 0: a width that
 * came out like that must not look better than all others. */
static void what_is_no_number_stays_none(void **state) {
    (void)state;
    const shape s = {33, 8, 5, 3.0, 1.0, false};
    sides m = make_sides(&s);
    m.hidden[2 * s.width] = NAN;
    result r = compute(&m, &s, 1.0f, 2);
    for (size_t t = 0; t < s.count; t++) {
        assert_int_equal(isnan(r.kl[t]) != 0, t == 2);
    }
    free_result(&r);
    free_sides(&m);
}

/* Bytes of the working memory for so many tokens. */
static size_t carved(size_t vocab, size_t tokens, bool bf16) {
    const mq_config config = {.hidden_size = 16, .vocab_size = vocab};
    mq_context *context;
    mq_gemm_bf16 *gemm = NULL;
    assert_int_equal(mq_context_new(&context, &(mq_context_options){.threads = 2}, NULL), MQ_OK);
    if (bf16) {
        assert_int_equal(mq_gemm_bf16_new(&gemm, 2, NULL), MQ_OK);
        assert_int_equal(mq_head_gradient_prepare(gemm, &config, tokens, NULL), MQ_OK);
    }
    mq_slab slab = {0};
    mq_head_gradient_carve(&slab, &config, tokens, gemm, context);
    assert_false(slab.overflow);
    mq_gemm_bf16_free(gemm);
    mq_context_free(context);
    return slab.used;
}

/* What is held of many tokens is a slab: both sides' logits of 512 tokens, or of as many as make
 * 192 MiB, and little beside them where the model is narrow. */
static void memory_does_not_grow_with_tokens(void **state) {
    (void)state;
    static const size_t vocabularies[] = {8192, 49152, 262144};
    for (size_t v = 0; v < 3; v++) {
        const size_t vocab = vocabularies[v], few = carved(vocab, 512, false);
        const size_t both = 2 * vocab * sizeof(float); /* sides, of a token */
        assert_int_equal(carved(vocab, 4096, false), few);
        assert_int_equal(carved(vocab, 1 << 20, false), few);
        const size_t logits = mq_smaller(512 * both, 192 << 20);
        assert_true(few >= logits && few < logits + (4 << 20));
        /* Fewer tokens than a slab has take what is theirs. */
        const size_t own = carved(vocab, 32, false) - carved(vocab, 16, false);
        assert_true(own >= 16 * both && own < 17 * both);
        /* oneDNN wants room of its own, which may depend on how many tokens the last slab has. */
        for (size_t tokens = 512; mq_gemm_bf16_usable() && tokens <= 4096; tokens *= 8) {
            const size_t rounded = carved(vocab, tokens, true);
            assert_true(rounded > few && rounded - few < 12 << 20);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_finite_differences),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(bf16_is_float32_with_rounded_operands),
        cmocka_unit_test(slabs_share_nothing),
        cmocka_unit_test(rows_that_are_stored_rounded_are_taken_as_they_are),
        cmocka_unit_test(the_divergence_alone_is_the_same),
        cmocka_unit_test(equal_sides_have_no_gradient),
        cmocka_unit_test(a_broken_row_is_reported),
        cmocka_unit_test(what_is_no_number_stays_none),
        cmocka_unit_test(memory_does_not_grow_with_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
