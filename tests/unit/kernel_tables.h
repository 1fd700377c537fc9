/* What is promised of a table of kernels, whatever its loops do. */
#ifndef MQ_TEST_KERNEL_TABLES_H
#define MQ_TEST_KERNEL_TABLES_H

#include "base/machine.h"

/* TABLE_at has those of all instruction sets that this process runs, slowest first, and
 * TABLE_best the last of them; MATQUANT_KERNELS knows them by their names. */
#define EXPECT_TABLE(table)                                                                        \
    do {                                                                                           \
        mq_simd named;                                                                             \
        const size_t count = (size_t)mq_simd_best() + 1;                                           \
        for (size_t i = 0; i < count; i++) {                                                       \
            assert_non_null(table##_at(i));                                                        \
            assert_int_equal(mq_simd_capped(&named, MQ_SIMD_AVX512, table##_at(i)->name, NULL),    \
                             MQ_OK);                                                               \
            assert_int_equal(named, i);                                                            \
        }                                                                                          \
        assert_null(table##_at(count));                                                            \
        assert_ptr_equal(table##_best(), table##_at(count - 1));                                   \
    } while (0)

#endif
