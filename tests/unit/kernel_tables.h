/* What is promised of a table of kernels, whatever its loops do. */
#ifndef MQ_TEST_KERNEL_TABLES_H
#define MQ_TEST_KERNEL_TABLES_H

#include "base/machine.h"

/* TABLE_at has those of all instruction sets that this processor runs, slowest first, and
 * TABLE_best the last of them. */
#define EXPECT_TABLE(table)                                                                        \
    do {                                                                                           \
        static const char *const names[] = {"base", "avx2", "avx512"};                             \
        const size_t count = (size_t)mq_simd_best() + 1;                                           \
        for (size_t i = 0; i < count; i++) {                                                       \
            assert_non_null(table##_at(i));                                                        \
            assert_string_equal(table##_at(i)->name, names[i]);                                    \
        }                                                                                          \
        assert_null(table##_at(count));                                                            \
        assert_ptr_equal(table##_best(), table##_at(count - 1));                                   \
    } while (0)

#endif
