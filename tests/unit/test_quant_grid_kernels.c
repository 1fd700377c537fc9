/* layer: quant */
/* The nested grid's kernels: every instruction set gives the bytes of the plain one, and a step
 * leaves alone what no gradient reaches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "grid_fixture.h"
#include "kernel_tables.h"

/* values: in both forms and in each alone, row by row as tasks may have it. */
static void check_values(const mq_nested_kernels *kernels, fixture *f, const mq_values expected[]) {
    const size_t count = f->out * f->in;
    for (size_t form = 0; form < 3; form++) {
        mq_values wanted[3];
        for (size_t k = 0; k < 3; k++) {
            wanted[k].f32 = form == 1 ? NULL : f->values[k].f32;
            wanted[k].bf16 = form == 2 ? NULL : f->values[k].bf16;
            memset(f->values[k].f32, 0xff, count * sizeof(float));
            memset(f->values[k].bf16, 0xff, count * sizeof(mq_bf16));
        }
        for (size_t row = 0; row < f->out; row++) {
            kernels->values(&f->grid, wanted, row, row + 1);
        }
        for (size_t k = 0; k < 3; k++) {
            if (wanted[k].f32 != NULL) {
                assert_memory_equal(wanted[k].f32, expected[k].f32, count * sizeof(float));
            }
            for (size_t i = 0; wanted[k].bf16 != NULL && i < count; i++) {
                assert_int_equal(wanted[k].bf16[i], mq_f32_to_bf16(expected[k].f32[i]));
            }
        }
    }
}

/* Every instruction set gives the bytes of the reference, over several steps that move everything.
 */
static void check_kernels(const mq_nested_kernels *kernels, size_t group, bool symmetric) {
    fixture f;
    open_fixture(&f, group == 0 ? "nested-row.safetensors" : "nested-64.safetensors",
                 &mq_nested_grid, group);
    mq_nested *nested = f.grid.state;
    nested->symmetric = symmetric;
    const size_t count = f.out * f.in;
    const float *const visits[2][3] = {{f.cotangent[0], NULL, f.cotangent[2]},
                                       {NULL, NULL, f.cotangent[2]}};
    mq_values kept[3] = {{NULL, NULL}};
    unsigned char *before = mq_alloc(f.slab.size, 1);
    unsigned char *after = mq_alloc(f.slab.size, 1);
    assert_non_null(before);
    assert_non_null(after);
    mq_nested_kernels_base.start(&f.grid, f.gram, 0, f.out);
    memcpy(before, f.slab.base, f.slab.size);
    for (size_t k = 0; k < 3; k++) {
        kept[k].f32 = mq_alloc(count, sizeof(float));
        f.values[k].bf16 = mq_alloc(count, sizeof(mq_bf16));
        assert_non_null(kept[k].f32);
        assert_non_null(f.values[k].bf16);
    }
    for (size_t step = 0; step < 5; step++) {
        const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, step, 5);
        mq_nested_kernels_base.step(&f.grid, visits[step % 2], kept, &adam, 0, f.out);
    }
    memcpy(after, f.slab.base, f.slab.size);
    assert_memory_not_equal(after, before, f.slab.size);
    memcpy(f.slab.base, before, f.slab.size);
    kernels->start(&f.grid, f.gram, 0, f.out);
    assert_memory_equal(f.slab.base, before, f.slab.size);
    for (size_t step = 0; step < 5; step++) {
        const mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, step, 5);
        kernels->step(&f.grid, visits[step % 2], f.values, &adam, 0, f.out);
    }
    assert_memory_equal(f.slab.base, after, f.slab.size);
    for (size_t k = 0; k < 3; k++) {
        assert_memory_equal(f.values[k].f32, kept[k].f32, count * sizeof(float));
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(f.values[k].bf16[i], mq_f32_to_bf16(kept[k].f32[i]));
        }
    }
    check_values(&mq_nested_kernels_base, &f, kept);
    check_values(kernels, &f, kept);
    for (size_t k = 0; k < 3; k++) {
        mq_free(kept[k].f32);
        mq_free(f.values[k].bf16);
    }
    mq_free(before);
    mq_free(after);
    close_fixture(&f);
}

static void kernels_agree(void **state) {
    (void)state;
    EXPECT_TABLE(mq_nested_kernels);
    for (size_t i = 0; mq_nested_kernels_at(i / 4) != NULL; i++) { /* a row is more than a chunk */
        check_kernels(mq_nested_kernels_at(i / 4), i % 2 == 0 ? 64 : 0, i / 2 % 2 == 1);
    }
}

/* A step that visits 2 bits alone moves what a step does in which the other widths' gradients are
 * zero, but for the offsets of 4 bits and their moments, which it does not touch. */
static void check_unreached(bool symmetric) {
    fixture with_zeros, without;
    fixture *const both[2] = {&with_zeros, &without};
    float *zeros = NULL;
    unsigned char *offsets = NULL;
    for (size_t f = 0; f < 2; f++) {
        open_fixture(both[f], "nested-64.safetensors", &mq_nested_grid, 64);
        mq_nested *nested = both[f]->grid.state;
        const size_t count = both[f]->out * both[f]->in, bytes = count * sizeof(float);
        assert_true(nested->has_offset[1] && nested->level[1] == 4);
        nested->symmetric = symmetric;
        zeros = f == 0 ? mq_alloc(count, sizeof(float)) : zeros;
        offsets = f == 0 ? mq_alloc(3, bytes) : offsets;
        assert_true(zeros != NULL && offsets != NULL);
        memset(zeros, 0, bytes);
        const float *all[3] = {both[f]->cotangent[0], both[f]->cotangent[1], both[f]->cotangent[2]};
        const float *narrow[3] = {f == 0 ? zeros : NULL, f == 0 ? zeros : NULL,
                                  both[f]->cotangent[2]};
        const mq_adam first = mq_adam_at(0.5, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, 0, 4);
        const mq_adam second = mq_adam_at(0.5, MQ_ADAM_EPSILON, 2e-3f, 1e-1f, 1, 4);
        both[f]->grid.class_->step(&both[f]->grid, all, both[f]->values, &first);
        memcpy(offsets, nested->offset[1], bytes);
        memcpy(offsets + bytes, nested->offset_m[1], bytes);
        memcpy(offsets + 2 * bytes, nested->offset_v[1], bytes);
        both[f]->grid.class_->step(&both[f]->grid, narrow, both[f]->values, &second);
        if (f == 1) {
            assert_memory_equal(offsets, nested->offset[1], bytes);
            assert_memory_equal(offsets + bytes, nested->offset_m[1], bytes);
            assert_memory_equal(offsets + 2 * bytes, nested->offset_v[1], bytes);
        } else {
            assert_memory_not_equal(offsets, nested->offset[1], bytes);
        }
    }
    const mq_nested *a = with_zeros.grid.state, *b = without.grid.state;
    const size_t count = without.out * without.in;
    const size_t params = without.out * without.grid.groups * a->param_count;
    assert_memory_equal(a->offset[0], b->offset[0], count * sizeof(float));
    assert_memory_equal(a->offset_m[0], b->offset_m[0], count * sizeof(float));
    assert_memory_equal(a->offset_v[0], b->offset_v[0], count * sizeof(float));
    assert_memory_equal(a->params, b->params, params * sizeof(float));
    assert_memory_equal(with_zeros.values[2].f32, without.values[2].f32, count * sizeof(float));
    mq_free(zeros);
    mq_free(offsets);
    close_fixture(&with_zeros);
    close_fixture(&without);
}

static void offsets_wait_for_a_gradient(void **state) {
    (void)state;
    check_unreached(false);
    check_unreached(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree),
        cmocka_unit_test(offsets_wait_for_a_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
