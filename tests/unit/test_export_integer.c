/* layer: export */
/* Parts of a layer: never more than the tensor has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "export/integer_format.h"

static const unsigned char bytes[4 * 8];

/* Of that many rows of eight numbers in a byte each; SIZE_MAX: a single number. */
static mq_tensor_info tensor_of(size_t rows) {
    const bool is_scalar = rows == SIZE_MAX;
    return (mq_tensor_info){.name = "t.weight",
                            .file = "f.safetensors",
                            .dtype = MQ_U8,
                            .dims = is_scalar ? 0 : 2,
                            .shape = {is_scalar ? 0 : rows, 8},
                            .elements = is_scalar ? 1 : rows * 8,
                            .bytes = is_scalar ? 1 : rows * 8,
                            .data = bytes};
}

static void check_refused(mq_status status, const mq_error *err, const mq_integer_own *own) {
    assert_int_equal(status, MQ_ERR_INPUT);
    assert_string_equal(err->tensor, "t.weight");
    assert_null(own->parts);
}

static const struct {
    size_t there, first, rows;
} beyond[] = {{4, 0, 5},        {4, 2, 3}, {4, 4, 1},       {4, 5, 0},
              {4, 1, SIZE_MAX}, {0, 0, 4}, {SIZE_MAX, 0, 1}};
enum { BEYOND = sizeof beyond / sizeof *beyond };

static void plain_parts_lie_in_their_tensor(void **state) {
    (void)state;
    mq_integer_own own = {0};
    mq_plan plan = {.own = &own};
    const mq_tensor_info *part = NULL;
    mq_error err = {0};
    for (size_t i = 0; i < BEYOND; i++) {
        const mq_tensor_info whole = tensor_of(beyond[i].there);
        check_refused(mq_integer_cut_plain(&part, &plan, &whole, "part.weight", beyond[i].first,
                                           beyond[i].rows, &err),
                      &err, &own);
    }
    const mq_tensor_info whole = tensor_of(4);
    assert_int_equal(mq_integer_cut_plain(&part, &plan, &whole, "part.weight", 1, 3, &err), MQ_OK);
    assert_string_equal(part->name, "part.weight");
    assert_int_equal(part->shape[0], 3);
    assert_int_equal(part->elements, 3 * 8);
    assert_ptr_equal(part->data, bytes + 8);
    assert_int_equal(part->bytes, 3 * 8);
    mq_free(own.parts); /* the only one */
}

/* Codes that have the rows do not help where scales have not. */
static void parts_of_layers_lie_in_all_tensors(void **state) {
    (void)state;
    mq_integer_own own = {0};
    mq_plan plan = {.own = &own};
    const mq_master_view *part = NULL;
    const mq_tensor_info good = tensor_of(4);
    mq_error err = {0};
    for (size_t i = 0; i < BEYOND; i++) {
        const mq_tensor_info bad = tensor_of(beyond[i].there);
        for (size_t which = 0; which < 3; which++) {
            mq_master_view view = {.prefix = "t", .out = 4, .codes = which == 0 ? &bad : &good};
            view.scales[4] = which == 1 ? &bad : &good;
            view.biases[MQ_MAX_WIDTH] = which == 2 ? &bad : &good;
            check_refused(
                mq_integer_cut(&part, &plan, &view, "part", beyond[i].first, beyond[i].rows, &err),
                &err, &own);
        }
    }
    const mq_master_view view = {.prefix = "t", .out = 4, .codes = &good, .scales[4] = &good};
    assert_int_equal(mq_integer_cut(&part, &plan, &view, "part", 1, 3, &err), MQ_OK);
    assert_int_equal(part->out, 3);
    assert_ptr_equal(part->scales[4]->data, bytes + 8);
    assert_null(part->biases[4]);
    mq_free(own.parts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_parts_lie_in_their_tensor),
        cmocka_unit_test(parts_of_layers_lie_in_all_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
