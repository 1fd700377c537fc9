/* layer: store */
#include "store/mixture.h"

#include "store_fixture.h"

#define BITS(text, bits)                                                                           \
    { .pattern = text, .length = sizeof text - 1, .width = bits }

/* A block of seven layers, and an embedding of no fewer than 4 bits. */
static const fixture_master_options one_block = {
    .group_size = 32, .no_private = true, .linear_count = 7, .min_bits = 4};

static mq_master *open_master(const char *plain, const fixture_master_options *options) {
    mq_error err;
    mq_master *master = NULL;
    char *folder = fixture_master(plain, options);
    must(mq_master_open(&master, folder, &err), &err);
    mq_free(folder);
    return master;
}

static unsigned width_of(const mq_mixture *mixture, const char *prefix) {
    const mq_master_view *view = mq_master_find(mixture->master, prefix);
    assert_non_null(view);
    return mq_mixture_width(mixture, view);
}

#define MLP "model.layers.0.mlp."
#define ATTENTION "model.layers.0.self_attn."
#define EMBEDDING "model.embed_tokens"

static void the_last_pattern_that_matches_counts(void **state) {
    (void)state;
    char *plain = fixture_plain();
    mq_master *master = open_master(plain, &one_block);
    const mq_layer_bits layer_bits[] = {BITS("mlp", 5), BITS("up_proj$", 3),
                                        BITS("(?<=self_attn\\.)[qk]_", 8), BITS("k_proj=?", 4)};
    mq_error err;
    mq_mixture mixture = {0};
    must(mq_mixture_make(&mixture, master, 2, layer_bits, 4, &err), &err);
    assert_int_equal(width_of(&mixture, MLP "gate_proj"), 5);
    assert_int_equal(width_of(&mixture, MLP "down_proj"), 5);
    assert_int_equal(width_of(&mixture, MLP "up_proj"), 3);
    assert_int_equal(width_of(&mixture, ATTENTION "q_proj"), 8);
    assert_int_equal(width_of(&mixture, ATTENTION "k_proj"), 4);
    assert_int_equal(width_of(&mixture, ATTENTION "v_proj"), 2);
    assert_int_equal(width_of(&mixture, EMBEDDING), 4);
    assert_false(mq_mixture_is_uniform(&mixture));
    assert_int_equal(mq_mixture_narrowest(&mixture), 2);
    const mq_master_view *given = mq_master_find(master, MLP "up_proj");
    const mq_master_view *not_given = mq_master_find(master, ATTENTION "v_proj");
    assert_true(mixture.layers[given->index].given);
    assert_false(mixture.layers[not_given->index].given);
    /* What a format changes is not what was asked for. */
    mixture.layers[not_given->index].width = 4;
    assert_int_equal(mq_mixture_asked(&mixture, not_given), 2);
    assert_int_equal(mq_mixture_asked(&mixture, given), 3);
    mq_mixture_free(&mixture);
    mq_master_close(master);
    mq_free(plain);
}

/* Every layer's own place, whatever the order of the files. */
static void layers_know_their_places(void **state) {
    (void)state;
    char *plain = fixture_plain();
    const fixture_master_options shards = {.group_size = 32, .max_shard_size = 20000};
    mq_master *master = open_master(plain, &shards);
    assert_int_equal(mq_master_linear_count(master), LINEARS);
    for (size_t i = 0; i < LINEARS; i++) {
        assert_int_equal(mq_master_linear_at(master, i)->index, i);
    }
    mq_master_close(master);
    mq_free(plain);
}

static void embeddings_keep_their_least_width(void **state) {
    (void)state;
    char *plain = fixture_plain();
    mq_master *master = open_master(plain, &one_block);
    static const struct {
        unsigned width, given, wanted;
    } cases[] = {{2, 2, 4}, {2, 4, 4}, {2, 6, 6}, {8, 2, 4}, {8, 5, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mq_layer_bits all = BITS(".", cases[i].given);
        mq_error err;
        mq_mixture mixture = {0};
        must(mq_mixture_make(&mixture, master, cases[i].width, &all, 1, &err), &err);
        assert_int_equal(width_of(&mixture, EMBEDDING), cases[i].wanted);
        assert_int_equal(width_of(&mixture, MLP "up_proj"), cases[i].given);
        assert_int_equal(mq_mixture_is_uniform(&mixture), cases[i].width == cases[i].given);
        mq_mixture_free(&mixture);
    }
    mq_master_close(master);
    mq_free(plain);
}

static void expect_refused(const mq_master *master, unsigned width, const mq_layer_bits *layer_bits,
                           const char *words) {
    mq_error err;
    mq_mixture mixture = {0};
    const mq_status status =
        mq_mixture_make(&mixture, master, width, layer_bits, layer_bits == NULL ? 0 : 1, &err);
    expect_error(status, MQ_ERR_USAGE, &err, "", "", words);
    mq_mixture_free(&mixture);
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    char *plain = fixture_plain();
    mq_master *master = open_master(plain, &one_block);
    const mq_layer_bits none = BITS("up_poj", 4), no_expression = BITS("up(", 4),
                        nine = BITS("up_proj", 9), part = {"up_proj, or not", 7, 4};
    expect_refused(master, 2, &none,
                   "--layer-bits 'up_poj' matches no quantized layer, such as model.");
    expect_refused(master, 2, &no_expression, "--layer-bits 'up(' is not a regular expression: ");
    expect_refused(master, 2, &nine,
                   "a width of 9 bits is not in this checkpoint, which serves 8, 7");
    expect_refused(master, 1, NULL, "a width of 1 bits is not in this checkpoint");
    const mq_layer_bits forgotten = {.pattern = "up_proj", .width = 4};
    expect_refused(master, 2, &forgotten, "an empty pattern for 4 bits");
    mq_error err;
    mq_mixture mixture = {0};
    must(mq_mixture_make(&mixture, master, 2, &part, 1, &err), &err); /* as long as is said */
    assert_int_equal(width_of(&mixture, MLP "up_proj"), 4);
    mq_mixture_free(&mixture);
    mq_master_close(master);
    mq_free(plain);
}

static void making_one_without_memory(void **state) {
    (void)state;
    char *plain = fixture_plain();
    mq_master *master = open_master(plain, &one_block);
    const mq_layer_bits layer_bits[] = {BITS("mlp", 5), BITS("up_proj$", 3)};
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    for (; status != MQ_OK; tried++) {
        mq_error err;
        mq_mixture mixture = {0};
        const size_t before = mq_alloc_current();
        mq_alloc_fail_after(tried + 1);
        status = mq_mixture_make(&mixture, master, 2, layer_bits, 2, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        mq_mixture_free(&mixture);
        assert_int_equal(mq_alloc_current(), before);
    }
    assert_true(tried > 2);
    mq_master_close(master);
    mq_free(plain);
}

static const char *private_of(const mq_master *master, unsigned width, const mq_layer_bits *item,
                              const char *name) {
    mq_error err;
    mq_mixture mixture = {0};
    must(mq_mixture_make(&mixture, master, width, item, item == NULL ? 0 : 1, &err), &err);
    const mq_tensor_info *found = mq_mixture_private(&mixture, name);
    mq_mixture_free(&mixture);
    return found == NULL ? NULL : found->name;
}

/* The first block has a norm of its own at 4 bits, and the model at 2; the embedding, which never
 * has fewer than 4, says nothing of norms. */
static void norms_follow_the_layers_of_their_block(void **state) {
    (void)state;
    char *plain = fixture_plain();
    const fixture_master_options options = {.group_size = 32, .linear_count = 7, .min_bits = 4};
    mq_master *master = open_master(plain, &options);
    const mq_layer_bits block = BITS("layers\\.0\\.", 4), mlp_4 = BITS("mlp", 4),
                        mlp_3 = BITS("mlp", 3), all_2 = BITS(".", 2);
    const char *const norm = "model.layers.0.input_layernorm.weight",
                      *const last = "model.norm.weight", *const other = "model.layers.1.x.weight";
    assert_string_equal(private_of(master, 2, &block, norm),
                        "model.layers.0.input_layernorm.weight.w4");
    assert_string_equal(private_of(master, 8, &block, norm),
                        "model.layers.0.input_layernorm.weight.w4");
    assert_null(private_of(master, 2, &mlp_4, norm));
    assert_string_equal(private_of(master, 4, &mlp_3, norm),
                        "model.layers.0.input_layernorm.weight.w4");
    assert_string_equal(private_of(master, 2, &mlp_4, last), "model.norm.weight.w2");
    assert_string_equal(private_of(master, 8, &all_2, last), "model.norm.weight.w2");
    assert_string_equal(private_of(master, 2, NULL, last), "model.norm.weight.w2");
    assert_null(private_of(master, 2, &block, last));
    assert_null(private_of(master, 8, NULL, last));
    assert_null(private_of(master, 2, &block, other));
    mq_master_close(master);
    mq_free(plain);
}

/* --- counts ----------------------------------------------------------------------------------- */

static void counts_and_their_text(void **state) {
    (void)state;
    char text[64];
    mq_width_counts counts = {{0}, {0}};
    assert_int_equal(mq_width_counts_size(&counts), 0);
    assert_true(mq_mean_bits(&counts) == 0.0);
    assert_string_equal(mq_width_counts_text(text, sizeof text, &counts), "");
    mq_width_counts_add(&counts, 4, 300);
    assert_string_equal(mq_width_counts_text(text, sizeof text, &counts), "1 layer of 4 bits");
    mq_width_counts_add(&counts, 2, 50);
    mq_width_counts_add(&counts, 2, 50);
    assert_int_equal(mq_width_counts_size(&counts), 2);
    assert_true(mq_mean_bits(&counts) == 3.5);
    assert_string_equal(mq_width_counts_text(text, sizeof text, &counts),
                        "1 layer of 4 bits, 2 of 2");
    assert_string_equal(mq_width_counts_text(text, 8, &counts), "1 layer");
    text[0] = '?';
    mq_width_counts_text(text, 0, &counts);
    assert_int_equal(text[0], '?');
    mq_width_counts_add(&counts, 4, 1);
    assert_string_equal(mq_width_counts_text(text, sizeof text, &counts),
                        "2 layers of 4 bits, 2 of 2");
}

/* A model that is opened says what it has. */
static void opened_models_have_counts(void **state) {
    (void)state;
    char *plain = fixture_plain();
    char *folder = fixture_master(plain, &one_block);
    const mq_layer_bits mlp = BITS("mlp", 8);
    mq_error err;
    mq_model *model = NULL;
    must(mq_model_open_mixed(&model, folder, 2, &mlp, 1, &err), &err);
    char text[64];
    assert_string_equal(mq_width_counts_text(text, sizeof text, &model->widths),
                        "3 layers of 8 bits, 1 of 4, 4 of 2");
    assert_int_equal(model->widths.weights[8], 3 * HIDDEN * INTERMEDIATE);
    assert_int_equal(model->widths.weights[4], VOCAB * HIDDEN);
    assert_int_equal(model->width, 2);
    mq_model_free(model);
    model = NULL;
    expect_error(mq_model_open_mixed(&model, plain, 0, &mlp, 1, &err), MQ_ERR_USAGE, &err, "plain",
                 "", "is no master checkpoint");
    assert_null(model);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_pattern_that_matches_counts),
        cmocka_unit_test(layers_know_their_places),
        cmocka_unit_test(embeddings_keep_their_least_width),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(making_one_without_memory),
        cmocka_unit_test(norms_follow_the_layers_of_their_block),
        cmocka_unit_test(counts_and_their_text),
        cmocka_unit_test(opened_models_have_counts),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
