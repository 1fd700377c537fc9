/* layer: base */
#include "base/alloc.h"
#include "base/buffer.h"
#include "temporary.h"

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    const size_t half = SIZE_MAX / 2;
    size_t out = 42;
    assert_false(mq_mul_size(&out, half, 3));
    assert_false(mq_mul_size(&out, (size_t)1 << 32, (size_t)1 << 32));
    assert_false(mq_mul3_size(&out, half, 2, 2));
    assert_false(mq_add_size(&out, SIZE_MAX, 1));
    assert_int_equal(out, 42);
    assert_true(mq_mul_size(&out, half, 2));
    assert_true(out == SIZE_MAX - 1);
    assert_true(mq_mul_size(&out, SIZE_MAX, 0));
    assert_int_equal(out, 0);
    assert_true(mq_add_size(&out, SIZE_MAX - 1, 1));
    assert_true(out == SIZE_MAX);
    assert_true(mq_mul3_size(&out, 3, 5, 7));
    assert_int_equal(out, 105);
    assert_true(mq_mul3_size(&out, SIZE_MAX, SIZE_MAX, 0));
    assert_int_equal(out, 0);
}

static void arrays_are_aligned_and_cleared(void **state) {
    (void)state;
    for (size_t size = 0; size < 300; size += 7) {
        unsigned char *memory = mq_calloc(size, 1);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % MQ_ALIGNMENT, 0);
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(memory[i], 0);
            memory[i] = 0xff;
        }
        mq_free(memory);
    }
    assert_null(mq_alloc(SIZE_MAX, 2));
    assert_null(mq_alloc(SIZE_MAX, 1));
    assert_null(mq_calloc(SIZE_MAX - 100, 1));
    assert_null(mq_realloc(NULL, SIZE_MAX, 1));
    mq_free(NULL);
}

static void growing_keeps_what_is_there(void **state) {
    (void)state;
    size_t *numbers = NULL;
    for (size_t i = 0; i < 1000; i++) {
        numbers = mq_realloc(numbers, i + 1, sizeof *numbers);
        assert_non_null(numbers);
        numbers[i] = i * i;
    }
    assert_null(mq_realloc(numbers, SIZE_MAX, sizeof *numbers));
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(numbers[i], i * i);
    }
    mq_free(numbers);
    char *text = mq_asprintf("%s-%05d", "model", 12);
    assert_string_equal(text, "model-00012");
    char *copy = mq_strdup(text);
    assert_string_equal(copy, text);
    mq_free(copy);
    mq_free(text);
}

static void bytes_are_counted(void **state) {
    (void)state;
    size_t before = mq_alloc_current();
    mq_alloc_reset_peak();
    void *a = mq_alloc(1000, 4);
    void *b = mq_realloc(NULL, 10, 1);
    assert_int_equal(mq_alloc_current() - before, 4010);
    b = mq_realloc(b, 500, 1);
    assert_int_equal(mq_alloc_current() - before, 4500);
    mq_free(a);
    assert_int_equal(mq_alloc_current() - before, 500);
    assert_int_equal(mq_alloc_peak() - before, 4500);
    mq_alloc_reset_peak();
    assert_int_equal(mq_alloc_peak() - before, 500);
    mq_free(b);
    assert_int_equal(mq_alloc_current(), before);
}

static void failures_come_when_asked_for(void **state) {
    (void)state;
    mq_alloc_fail_after(3);
    void *a = mq_alloc(1, 1);
    void *b = mq_realloc(NULL, 1, 1);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(mq_calloc(1, 1));
    assert_null(mq_realloc(b, 2, 1));
    assert_null(mq_strdup("x"));
    assert_null(mq_asprintf("%d", 1));
    mq_error err;
    float *numbers = NULL;
    assert_int_equal(mq_new(&numbers, 10, sizeof *numbers, "numbers", &err), MQ_ERR_MACHINE);
    assert_string_equal(err.message, "not enough memory for numbers (40 bytes)");
    assert_null(numbers);
    mq_alloc_fail_after(0);
    assert_int_equal(mq_new(&numbers, 10, sizeof *numbers, "numbers", &err), MQ_OK);
    assert_non_null(numbers);
    mq_free(numbers);
    mq_free(a);
    mq_free(b);
}

typedef struct arrays {
    float *a;
    unsigned char *b;
    double *c;
} arrays;

static void carve(arrays *out, mq_slab *slab) {
    out->a = mq_carve(slab, 3, sizeof *out->a);
    out->b = mq_carve(slab, 65, 1);
    out->c = mq_carve(slab, 8, sizeof *out->c);
}

static void measuring_and_carving_agree(void **state) {
    (void)state;
    mq_slab slab = {0};
    arrays out;
    carve(&out, &slab);
    assert_null(out.a);
    assert_int_equal(slab.used, 64 + 128 + 64);
    assert_int_equal(mq_slab_allocate(&slab, "arrays", NULL), MQ_OK);
    assert_int_equal(slab.size, 256);
    carve(&out, &slab);
    assert_false(slab.overflow);
    assert_ptr_equal(out.a, slab.base);
    assert_ptr_equal(out.b, slab.base + 64);
    assert_ptr_equal(out.c, slab.base + 192);
    memset(slab.base, 1, slab.size);
    assert_null(mq_carve(&slab, 1, 1));
    assert_true(slab.overflow);
    mq_slab_free(&slab);
    assert_null(slab.base);
}

static void a_slab_too_large_is_refused(void **state) {
    (void)state;
    mq_error err;
    mq_slab slab = {0};
    mq_carve(&slab, SIZE_MAX, 8);
    assert_true(slab.overflow);
    assert_int_equal(mq_slab_allocate(&slab, "arrays", &err), MQ_ERR_MACHINE);
    mq_slab sum = {0};
    mq_carve(&sum, SIZE_MAX - 200, 1);
    mq_carve(&sum, 1000, 1);
    assert_true(sum.overflow);
    mq_slab unrounded = {0};
    mq_carve(&unrounded, SIZE_MAX, 1);
    assert_true(unrounded.overflow);
    mq_slab small = {0};
    mq_carve(&small, 100, 1);
    mq_alloc_fail_after(1);
    assert_int_equal(mq_slab_allocate(&small, "arrays", &err), MQ_ERR_MACHINE);
    mq_alloc_fail_after(0);
    assert_null(small.base);
}

static void buffers_grow_and_remember_a_failure(void **state) {
    (void)state;
    mq_buffer buffer = {0};
    for (int i = 0; i < 1000; i++) {
        mq_buffer_printf(&buffer, "%d,", i % 10);
    }
    assert_int_equal(buffer.length, 2000);
    assert_int_equal(strlen(buffer.text), 2000);
    assert_memory_equal(buffer.text + 1990, "5,6,7,8,9,", 10);
    mq_alloc_fail_after(1);
    while (!buffer.failed) {
        mq_buffer_put_text(&buffer, "x");
    }
    mq_alloc_fail_after(0);
    size_t length = buffer.length;
    mq_buffer_put_text(&buffer, "y");
    assert_int_equal(buffer.length, length);
    mq_free(buffer.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(arrays_are_aligned_and_cleared),
        cmocka_unit_test(growing_keeps_what_is_there),
        cmocka_unit_test(bytes_are_counted),
        cmocka_unit_test(failures_come_when_asked_for),
        cmocka_unit_test(measuring_and_carving_agree),
        cmocka_unit_test(a_slab_too_large_is_refused),
        cmocka_unit_test(buffers_grow_and_remember_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
