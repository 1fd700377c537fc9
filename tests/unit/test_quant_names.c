/* layer: quant */
/* The names of the enumerations' values: each once, in the order of the values, and no others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "matquant/inspect.h"
#include "matquant/names.h"
#include "matquant/quantize.h"
#include "matquant/slice.h"

static void holds(const char *const *names, unsigned value, const char *name) {
    unsigned found = 99;
    assert_string_equal(names[value], name);
    assert_string_equal(mq_name_at(names, value), name);
    assert_true(mq_name_find(&found, names, name));
    assert_int_equal(found, value);
}

/* What stands in files and is typed on command lines: a change here breaks both. */
static void values_have_their_names(void **state) {
    (void)state;
    holds(mq_recipe_names(), MQ_RECIPE_BEST, "best");
    holds(mq_recipe_names(), MQ_RECIPE_PAPER, "paper");
    holds(mq_recipe_names(), MQ_RECIPE_RTN, "rtn");
    holds(mq_preset_names(), MQ_PRESET_NONE, "none");
    holds(mq_preset_names(), MQ_PRESET_BALANCED, "balanced");
    holds(mq_preset_names(), MQ_PRESET_NARROW, "narrow");
    holds(mq_preset_names(), MQ_PRESET_WIDE, "wide");
    holds(mq_loss_names(), MQ_LOSS_RELATIVE, "relative");
    holds(mq_loss_names(), MQ_LOSS_L2, "l2");
    holds(mq_slice_rule_names(), MQ_SLICE_TOP, "top");
    holds(mq_slice_rule_names(), MQ_SLICE_ROUND, "round");
    holds(mq_slice_rule_names(), MQ_SLICE_ROUND_EXTRA, "round-extra");
    holds(mq_zero_point_names(), MQ_ZERO_FLOAT, "float");
    holds(mq_zero_point_names(), MQ_ZERO_SYMMETRIC, "symmetric");
    holds(mq_scope_names(), MQ_SCOPE_ALL, "all");
    holds(mq_scope_names(), MQ_SCOPE_FFN, "ffn");
    holds(mq_embeddings_names(), MQ_EMBEDDINGS_KEEP, "keep");
    holds(mq_embeddings_names(), MQ_EMBEDDINGS_8, "8");
    holds(mq_embeddings_names(), MQ_EMBEDDINGS_NESTED, "nested");
    holds(mq_gemm_names(), MQ_GEMM_AUTO, "auto");
    holds(mq_gemm_names(), MQ_GEMM_OPENBLAS, "openblas");
    holds(mq_gemm_names(), MQ_GEMM_ONEDNN_BF16, "onednn-bf16");
    holds(mq_slice_dtype_names(), MQ_SLICE_DTYPE_SOURCE, "source");
    holds(mq_slice_dtype_names(), MQ_SLICE_DTYPE_BF16, "bf16");
    holds(mq_slice_dtype_names(), MQ_SLICE_DTYPE_F16, "f16");
    holds(mq_slice_dtype_names(), MQ_SLICE_DTYPE_F32, "f32");
    holds(mq_kind_names(), MQ_KIND_PLAIN, "plain");
    holds(mq_kind_names(), MQ_KIND_MASTER, "master");
    holds(mq_kind_names(), MQ_KIND_SLICE, "slice");
}

static void others_have_none(void **state) {
    (void)state;
    static const struct {
        const char *const *(*names)(void);
        unsigned last;
    } lists[] = {
        {mq_recipe_names, MQ_RECIPE_RTN},
        {mq_preset_names, MQ_PRESET_WIDE},
        {mq_loss_names, MQ_LOSS_L2},
        {mq_slice_rule_names, MQ_SLICE_ROUND_EXTRA},
        {mq_zero_point_names, MQ_ZERO_SYMMETRIC},
        {mq_scope_names, MQ_SCOPE_FFN},
        {mq_embeddings_names, MQ_EMBEDDINGS_NESTED},
        {mq_gemm_names, MQ_GEMM_ONEDNN_BF16},
        {mq_slice_dtype_names, MQ_SLICE_DTYPE_F32},
        {mq_kind_names, MQ_KIND_SLICE},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const char *const *names = lists[i].names();
        unsigned value = 99;
        assert_non_null(mq_name_at(names, lists[i].last));
        assert_null(names[lists[i].last + 1]);
        assert_null(mq_name_at(names, lists[i].last + 1));
        assert_null(mq_name_at(names, lists[i].last + 2));
        assert_null(mq_name_at(names, (unsigned)-1));
        assert_false(mq_name_find(&value, names, ""));
        assert_false(mq_name_find(&value, names, "Best"));
        assert_int_equal(value, 99);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_their_names),
        cmocka_unit_test(others_have_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
