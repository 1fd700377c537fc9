/* layer: model */
/* How a block's products are cut: into slabs of tokens, and those into tiles. */
#include "block_fixture.h"
#include "model/activations.h"

/* --- tiles ------------------------------------------------------------------------------------ */

/* Tiles cover c[rows, columns] once: begin within it, and what is cut off the last is not all. */
static void check_cover(size_t rows, size_t columns, size_t together) {
    const mq_tiles t = mq_block_tiles(rows, columns, together);
    assert_true(t.rows > 0 && t.columns > 0);
    assert_true((t.down - 1) * t.rows < rows && rows <= t.down * t.rows);
    assert_true((t.across - 1) * t.columns < columns && columns <= t.across * t.columns);
}

static void any_product_is_covered(void **state) {
    (void)state;
    mq_random random;
    mq_random_seed(&random, 3, 0);
    for (int i = 0; i < 20000; i++) {
        const size_t rows = 1 + mq_random_below(&random, i % 2 == 0 ? 1024 : 40);
        const size_t columns = 1 + mq_random_below(&random, i % 3 == 0 ? 20000 : 700);
        check_cover(rows, columns, columns + mq_random_below(&random, 3000));
    }
}

static size_t tile_count(size_t rows, size_t columns, size_t together) {
    const mq_tiles t = mq_block_tiles(rows, columns, together);
    return t.down * t.across;
}

/* Enough tiles for the threads of a laptop where the layer is SmolLM2's, for those of a server
 * where it is a 7B model's; none so small that the library would be slow. */
static void threads_have_work(void **state) {
    (void)state;
    assert_int_equal(tile_count(1024, 576, 576), 8);
    assert_int_equal(tile_count(1024, 576, 960) + 2 * tile_count(1024, 192, 960), 8);
    assert_int_equal(2 * tile_count(1024, 1536, 3072), 8);
    assert_int_equal(tile_count(512, 576, 576), 4);
    assert_int_equal(2 * tile_count(512, 1536, 3072), 8);
    assert_int_equal(tile_count(1024, 4096, 4096), 16);
    assert_true(2 * tile_count(1024, 11008, 22016) >= 32);
    const mq_tiles small = mq_block_tiles(1024, 576, 576);
    assert_true(small.rows >= 256 && small.columns >= 192);
    const mq_tiles large = mq_block_tiles(1024, 11008, 22016);
    assert_true(large.rows == 512 && large.columns >= 1024);
}

/* --- slabs ------------------------------------------------------------------------------------ */

static void scratch_is_bounded(void **state) {
    (void)state;
    const mq_config small = {.hidden_size = 576, .intermediate_size = 1536};
    const mq_config large = {.hidden_size = 8192, .intermediate_size = 28672};
    assert_int_equal(mq_block_slab(&small, 100), 100);
    assert_int_equal(mq_block_slab(&small, 100000), 4096);
    assert_int_equal(mq_block_slab(&large, 100000), 1024);
}

/* Sequences of which the third reaches from one slab into the next, once together and once each on
 * its own, where there is only one slab. */
static void check_slabs(const char *architecture) {
    fixture all = large_fixture(architecture), one = large_fixture(architecture);
    all.shape.sequences = 4;
    one.shape.sequences = 1;
    all.config.intermediate_size = one.config.intermediate_size = 8003; /* slabs of 1,024 tokens */
    open_fixture(&all, 2, true, true);
    open_fixture(&one, 2, true, true);
    const size_t size = one.layout.input_size, parameters = all.layout.input;
    assert_true(fixture_tokens(&all) > mq_block_slab(&all.config, fixture_tokens(&all)));
    assert_int_equal(mq_block_slab(&one.config, fixture_tokens(&one)), fixture_tokens(&one));
    assert_int_equal(parameters, one.layout.input); /* the input comes last */
    mq_block_grads grads = all_grads(&all), of_one = all_grads(&one);
    run_fixture(&all, &grads);
    memcpy(one.values, all.values, parameters * sizeof(float));
    float *sum = mq_calloc(parameters, sizeof *sum);
    assert_non_null(sum);
    for (size_t s = 0; s < all.shape.sequences; s++) {
        memcpy(one.values + parameters, all.values + parameters + s * size, size * sizeof(float));
        memcpy(one.dy, all.dy + s * size, size * sizeof(float));
        run_fixture(&one, &of_one);
        check_close("output", all.y + s * size, one.y, size, 5e-6);
        check_close("input", grads.input + s * size, of_one.input, size, 1e-5);
        for (size_t i = 0; i < parameters; i++) {
            sum[i] += one.grads[i];
        }
    }
    memcpy(one.grads, sum, parameters * sizeof(float));
    memcpy(all.grads + parameters, one.grads + parameters, size * sizeof(float)); /* seen above */
    check_parts(&one, all.grads, one.grads, 1e-5);
    mq_free(sum);
    close_fixture(&all);
    close_fixture(&one);
}

static void slabs_change_nothing(void **state) {
    (void)state;
    check_slabs("LlamaForCausalLM");
    check_slabs("Gemma3ForCausalLM");
}

/* With activations that were carved for more sequences, and longer ones: the same bits. Of fewer
 * sequences a head's tiles are more tasks of attention's backward. */
static void check_smaller(const char *architecture, size_t sequences, size_t length) {
    fixture large = large_fixture(architecture), own = large_fixture(architecture);
    own.shape.sequences = sequences;
    own.shape.length = length;
    open_fixture(&large, 3, true, true);
    open_fixture(&own, 3, true, true);
    large.shape.sequences = sequences;
    large.shape.length = length;
    large.layout = own.layout; /* what differs is the last, the input's size */
    memcpy(large.values, own.values, own.layout.count * sizeof(float));
    memcpy(large.dy, own.dy, own.layout.input_size * sizeof(float));
    mq_block_grads grads = all_grads(&large), of_own = all_grads(&own);
    run_fixture(&large, &grads);
    run_fixture(&own, &of_own);
    assert_memory_equal(large.y, own.y, own.layout.input_size * sizeof(float));
    assert_memory_equal(large.grads, own.grads, own.layout.count * sizeof(float));
    close_fixture(&large);
    close_fixture(&own);
}

static void smaller_batches_fit(void **state) {
    (void)state;
    check_smaller("LlamaForCausalLM", 1, 275);
    check_smaller("LlamaForCausalLM", 2, 100);
    check_smaller("Gemma3ForCausalLM", 1, 275);
    check_smaller("Gemma3ForCausalLM", 3, 31);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_product_is_covered), cmocka_unit_test(threads_have_work),
        cmocka_unit_test(scratch_is_bounded),     cmocka_unit_test(slabs_change_nothing),
        cmocka_unit_test(smaller_batches_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
