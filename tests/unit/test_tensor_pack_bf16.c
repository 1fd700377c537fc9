/* layer: tensor */
/* The layout that packed operands have, number by number; skipped where the processor lacks what
 * the packing is compiled for. That products read it is test_tensor_gemm_bf16's to find out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/machine.h"
#include "base/random.h"
#include "tensor/pack_bf16.h"

static size_t blocks(size_t count, size_t of) { return (count + of - 1) / of; }

/* Where b's number k of column n is, by the format's definition. */
static size_t place(size_t k, size_t n, size_t of_k) {
    const size_t block = n / MQ_PACK_N * blocks(of_k, MQ_PACK_K) + k / MQ_PACK_K;
    return block * MQ_PACK_K * MQ_PACK_N + k % MQ_PACK_K / 2 * 2 * MQ_PACK_N + n % MQ_PACK_N * 2 +
           k % 2;
}

static void check(size_t k, size_t n, size_t gap, bool trans_b) {
    const size_t rows = trans_b ? n : k, ldb = (trans_b ? k : n) + gap;
    const size_t size = blocks(k, MQ_PACK_K) * MQ_PACK_K * blocks(n, MQ_PACK_N) * MQ_PACK_N;
    mq_bf16 *b = malloc(rows * ldb * sizeof *b), *packed = malloc((size + 1) * sizeof *b);
    mq_bf16 *expected = calloc(size, sizeof *b);
    assert_true(b != NULL && packed != NULL && expected != NULL);
    mq_random random;
    mq_random_seed(&random, k * 1000 + n, gap);
    for (size_t i = 0; i < rows * ldb; i++) {
        b[i] = (mq_bf16)(1 + mq_random_below(&random, 0xffff)); /* no zero: those are behind ends */
    }
    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j < n; j++) {
            expected[place(i, j, k)] = trans_b ? b[j * ldb + i] : b[i * ldb + j];
        }
    }
    packed[size] = 0x1234;
#if defined(__x86_64__) /* elsewhere every_number_has_its_place is skipped */
    mq_pack_bf16_avx512(packed, b, k, n, ldb, trans_b);
#endif
    assert_memory_equal(packed, expected, size * sizeof *packed);
    assert_int_equal(packed[size], 0x1234);
    free(b);
    free(packed);
    free(expected);
}

static void every_number_has_its_place(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 100, 128, 192};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    if (mq_simd_best() < MQ_SIMD_AVX512) {
        skip();
    }
    for (size_t i = 0; i < COUNT * COUNT; i++) {
        for (size_t form = 0; form < 4; form++) {
            check(sizes[i / COUNT], sizes[i % COUNT], form / 2 * 3, form % 2 == 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_has_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
