/* layer: model */
/* Packed sequences that share beginnings give the hidden states of each sequence by itself. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/random.h"
#include "model/block.h"
#include "model/packed.h"
#include "model_test.h"

enum { MAX_ROWS = 1200, MAX_SEQUENCES = 8, MAX_RUNS = 32 };

/* A batch that grows by one sequence at a time, and each sequence's tokens and rows. */
typedef struct packing {
    int32_t ids[MAX_ROWS];
    size_t positions[MAX_ROWS];
    mq_packed_sequence sequences[MAX_SEQUENCES];
    mq_row_run runs[MAX_RUNS];
    size_t run_count;
    size_t row_of[MAX_SEQUENCES][MAX_ROWS], length[MAX_SEQUENCES];
    mq_packed packed;
    mq_random random;
} packing;

static packing *new_packing(uint64_t seed) {
    packing *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->packed = (mq_packed){.ids = p->ids, .positions = p->positions, .sequences = p->sequences};
    mq_random_seed(&p->random, seed, 0);
    return p;
}

/* A sequence of `own` random tokens after the first `shared` of an earlier sequence, whose rows are
 * taken in as few runs as there are. */
static void add(packing *p, size_t parent, size_t shared, size_t own) {
    mq_packed *packed = &p->packed;
    const size_t s = packed->sequence_count++;
    mq_packed_sequence *sequence = &p->sequences[s];
    *sequence = (mq_packed_sequence){
        .own = {packed->rows, own}, .position = shared, .before = p->runs + p->run_count};
    assert_true(s < MAX_SEQUENCES && packed->rows + own <= MAX_ROWS);
    for (size_t i = 0; i < shared; i++) {
        const size_t row = p->row_of[s][i] = p->row_of[parent][i];
        if (i == 0 || row != p->row_of[s][i - 1] + 1) {
            assert_true(p->run_count < MAX_RUNS);
            p->runs[p->run_count++] = (mq_row_run){row, 0};
            sequence->before_count++;
        }
        p->runs[p->run_count - 1].count++;
    }
    for (size_t i = 0; i < own; i++) {
        const size_t row = packed->rows++;
        p->row_of[s][shared + i] = row;
        p->positions[row] = shared + i;
        p->ids[row] = (int32_t)mq_random_below(&p->random, 64);
    }
    p->length[s] = shared + own;
    packed->longest = shared + own > packed->longest ? shared + own : packed->longest;
}

/* Every sequence's hidden states against those of a forward of that sequence alone; the largest
 * difference relative to the largest value. */
static double worst_difference(const mq_model *model, const packing *batches, size_t count,
                               const mq_context *context) {
    const size_t n = model->config.hidden_size;
    mq_packed packed[4];
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        packed[i] = batches[i].packed;
        rows += packed[i].rows;
    }
    float *hidden = malloc(rows * n * sizeof *hidden),
          *alone = malloc(MAX_ROWS * n * sizeof *alone);
    int32_t *ids = malloc(MAX_ROWS * sizeof *ids);
    mq_error err = {0};
    if (mq_packed_forward(hidden, model, packed, count, "test", context, &err) != MQ_OK) {
        fail_with("packed forward", &err);
    }
    double worst = 0, largest = 0;
    size_t first = 0;
    for (size_t b = 0; b < count; first += packed[b].rows, b++) {
        for (size_t s = 0; s < packed[b].sequence_count; s++) {
            const size_t length = batches[b].length[s];
            for (size_t i = 0; i < length; i++) {
                ids[i] = batches[b].ids[batches[b].row_of[s][i]];
            }
            const mq_forward_run run = {.model = model,
                                        .ids = ids,
                                        .sequences = 1,
                                        .length = length,
                                        .batch = 1,
                                        .phase = "test"};
            assert_int_equal(mq_model_forward(alone, &run, context, NULL), MQ_OK);
            for (size_t i = 0; i < length * n; i++) {
                const size_t row = first + batches[b].row_of[s][i / n];
                const double expected = (double)alone[i];
                const double difference = fabs((double)hidden[row * n + i % n] - expected);
                worst = difference > worst || isnan(difference) ? difference : worst;
                largest = fabs(expected) > largest ? fabs(expected) : largest;
            }
        }
    }
    free(hidden);
    free(alone);
    free(ids);
    return worst / largest;
}

static void check(const char *name, const packing *batches, size_t count, size_t positions) {
    mq_model *model = open_golden(name);
    if (positions > 0) { /* whatever tables it gives, both have the same */
        model->config.max_position_embeddings = positions;
    }
    mq_context *context = NULL;
    assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
    const double worst = worst_difference(model, batches, count, context);
    mq_context_free(context);
    if (!(worst < 1e-5)) {
        fail_msg("%s: off by %g", name, worst);
    }
    mq_model_free(model);
}

/* Short: what is shared is inside, at the edge of and beyond the window of 5. */
static packing *short_batch(uint64_t seed) {
    packing *p = new_packing(seed);
    add(p, 0, 0, 19);
    add(p, 0, 12, 7);
    add(p, 1, 14, 1);  /* two runs before it */
    add(p, 2, 15, 20); /* three */
    add(p, 0, 3, 2);
    add(p, 0, 0, 1); /* nothing shared */
    add(p, 3, 33, 4);
    return p;
}

static void test_short_sequences(void **state) {
    (void)state;
    packing *p = short_batch(1);
    static const char *const names[] = {"llama",
                                        "llama-biases",
                                        "gemma3",
                                        "gemma3-attention-softcap",
                                        "rope-llama3",
                                        "gemma3-wide-window",
                                        "rope-yarn",
                                        "llama-head-dim",
                                        "qwen2",
                                        "qwen3",
                                        "mistral",
                                        "smollm3",
                                        "gemma2",
                                        "granite",
                                        "olmo2-biases",
                                        "phi3",
                                        "phi4-mini-unscaled"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check(names[i], p, 1, 64);
    }
    free(p);
}

/* Longer than a tile of queries, and more tokens than a tile of a product has. */
static void test_long_sequences(void **state) {
    (void)state;
    packing *p = new_packing(2);
    add(p, 0, 0, 300);
    add(p, 0, 150, 200);
    add(p, 1, 340, 140);
    add(p, 2, 131, 129);
    check("llama", p, 1, 1000);
    check("gemma3", p, 1, 1000);
    free(p);
}

static void test_several_batches(void **state) {
    (void)state;
    packing *batches = calloc(3, sizeof *batches);
    packing *made[3] = {short_batch(3), new_packing(4), short_batch(5)};
    add(made[1], 0, 0, 2);
    for (size_t i = 0; i < 3; i++) {
        batches[i] = *made[i]; /* its packed goes on pointing into made[i] */
    }
    check("gemma3", batches, 3, 0);
    for (size_t i = 0; i < 3; i++) {
        free(made[i]);
    }
    free(batches);
}

/* Within max_position_embeddings dynamic NTK rotates short and long sequences alike; beyond it is
 * refused. */
static void test_dynamic_rope(void **state) {
    (void)state;
    static const char *const names[] = {"rope-dynamic", "gemma3-dynamic"};
    for (size_t i = 0; i < 2; i++) {
        packing *p = new_packing(6);
        add(p, 0, 0, 8); /* max_position_embeddings is 8 */
        add(p, 0, 3, 2);
        check(names[i], p, 1, 0);
        add(p, 0, 5, 4);
        mq_model *model = open_golden(names[i]);
        float hidden[32 * 32];
        mq_error err = {0};
        assert_int_equal(mq_packed_forward(hidden, model, &p->packed, 1, "test", NULL, &err),
                         MQ_ERR_USAGE);
        assert_non_null(strstr(err.message, "9 tokens"));
        mq_model_free(model);
        free(p);
    }
}

static void test_threads_do_not_show(void **state) {
    (void)state;
    packing *p = short_batch(7);
    mq_model *model = open_golden("gemma3");
    const size_t floats = p->packed.rows * model->config.hidden_size;
    float *found[2];
    for (size_t i = 0; i < 2; i++) {
        mq_context *context = NULL;
        mq_context_options options = {.threads = i == 0 ? 1 : 3};
        assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
        found[i] = malloc(floats * sizeof(float));
        assert_int_equal(mq_packed_forward(found[i], model, &p->packed, 1, "test", context, NULL),
                         MQ_OK);
        mq_context_free(context);
    }
    assert_memory_equal(found[0], found[1], floats * sizeof(float));
    free(found[0]);
    free(found[1]);
    mq_model_free(model);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_sequences),     cmocka_unit_test(test_long_sequences),
        cmocka_unit_test(test_several_batches),     cmocka_unit_test(test_dynamic_rope),
        cmocka_unit_test(test_threads_do_not_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
