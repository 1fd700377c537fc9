/* layer: base */
#include "base/random.h"
#include "temporary.h"

/* First numbers from the state {1, 2, 3, 4}, as the authors' C program gives them. */
static void xoshiro_gives_its_published_numbers(void **state) {
    (void)state;
    static const uint64_t expected[] = {
        UINT64_C(11520),
        UINT64_C(0),
        UINT64_C(1509978240),
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
        UINT64_C(607988272756665600),
        UINT64_C(16172922978634559625),
        UINT64_C(8476171486693032832),
        UINT64_C(10595114339597558777),
        UINT64_C(2904607092377533576),
    };
    mq_random random = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(mq_random_next(&random) == expected[i]);
    }
}

/* First numbers of splitmix64 from 1234567. */
static void the_seed_goes_through_splitmix(void **state) {
    (void)state;
    static const uint64_t expected[4] = {
        UINT64_C(6457827717110365317),
        UINT64_C(3203168211198807973),
        UINT64_C(9817491932198370423),
        UINT64_C(4593380528125082431),
    };
    mq_random random;
    mq_random_seed(&random, 1234567, 0);
    assert_memory_equal(random.state, expected, sizeof expected);
}

static void streams_differ(void **state) {
    (void)state;
    uint64_t first[8];
    for (uint64_t stream = 0; stream < 8; stream++) {
        mq_random random;
        mq_random_seed(&random, 5, stream);
        first[stream] = mq_random_next(&random);
        for (uint64_t other = 0; other < stream; other++) {
            assert_true(first[other] != first[stream]);
        }
    }
    mq_random again;
    mq_random_seed(&again, 5, 3);
    assert_true(mq_random_next(&again) == first[3]);
}

static void below_stays_below_and_reaches_all(void **state) {
    (void)state;
    mq_random random;
    mq_random_seed(&random, 1, 1);
    size_t seen[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t number = mq_random_below(&random, 7);
        assert_true(number < 7);
        seen[number]++;
    }
    for (int i = 0; i < 7; i++) { /* 10,000 expected; five standard deviations are 463 */
        assert_in_range(seen[i], 9537, 10463);
    }
    assert_true(mq_random_below(&random, 1) == 0);
    const uint64_t large = UINT64_C(3) << 62; /* a quarter of all numbers has to be drawn again */
    size_t upper = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t number = mq_random_below(&random, large);
        assert_true(number < large);
        upper += number >= large / 3 * 2;
    }
    assert_in_range(upper, 9590, 10410);
}

static void units_are_in_range(void **state) {
    (void)state;
    mq_random random;
    mq_random_seed(&random, 2, 0);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double unit = mq_random_unit(&random);
        assert_true(unit >= 0 && unit < 1);
        sum += unit;
    }
    assert_true(sum > 49543 && sum < 50457);
    mq_random zero = {{0, 0, 0, 0}};
    assert_true(mq_random_unit(&zero) == 0);
}

/* With as many as each use can have. */
static void uses_of_a_seed_are_apart(void **state) {
    (void)state;
    const uint64_t layers = 100000, sequences = UINT64_C(1) << 40;
    const uint64_t ranges[][2] = {
        {MQ_STREAM_ORDER, layers},
        {MQ_STREAM_QAT, 1},
        {MQ_STREAM_DRAWS, layers},
        {MQ_STREAM_REFIT, 9},
        {MQ_STREAM_CORPUS, 1},
        {MQ_STREAM_SAMPLE, sequences},
        {MQ_STREAM_FIRST(sequences - 1), sequences},
    };
    for (size_t i = 1; i < sizeof ranges / sizeof *ranges; i++) {
        assert_true(ranges[i][0] - ranges[i - 1][0] >= ranges[i - 1][1]);
        assert_true(ranges[i][0] > ranges[i - 1][0]);
    }
}

static void shuffling_permutes(void **state) {
    (void)state;
    enum { COUNT = 100 };
    size_t items[COUNT];
    size_t again[COUNT];
    bool seen[COUNT] = {false};
    size_t moved = 0;
    mq_random random;
    for (size_t i = 0; i < COUNT; i++) {
        items[i] = again[i] = i;
    }
    mq_random_seed(&random, 3, 0);
    mq_random_shuffle(&random, items, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(items[i] < COUNT && !seen[items[i]]);
        seen[items[i]] = true;
        moved += items[i] != i;
    }
    assert_true(moved > 80);
    mq_random_seed(&random, 3, 0);
    mq_random_shuffle(&random, again, COUNT);
    assert_memory_equal(items, again, sizeof items);
    mq_random_shuffle(&random, items, 0);
    assert_memory_equal(items, again, sizeof items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xoshiro_gives_its_published_numbers),
        cmocka_unit_test(the_seed_goes_through_splitmix),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(uses_of_a_seed_are_apart),
        cmocka_unit_test(below_stays_below_and_reaches_all),
        cmocka_unit_test(units_are_in_range),
        cmocka_unit_test(shuffling_permutes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
