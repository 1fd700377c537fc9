/* How tests begin and end that work in a temporary folder and let calls and allocations fail, and
 * what such a failure may leave there. */
#ifndef MQ_TEST_FAULTY_FOLDER_H
#define MQ_TEST_FAULTY_FOLDER_H

#include "base/alloc.h"
#include "base/fault.h"
#include "temporary.h"

static inline int setup(void **state) {
    mq_fault_configure(NULL);
    return temporary_setup(state);
}

static inline int teardown(void **state) {
    mq_fault_configure(NULL);
    mq_alloc_fail_after(0);
    return temporary_teardown(state);
}

/* The finished output `out`, which is not in its place, by the name that err says. */
static inline const char *kept_beside(temporary *folder, const mq_error *err) {
    char name[64] = "";
    assert_int_equal(sscanf(err->message, "what was made is kept as %63[^;]", name), 1);
    assert_int_equal(strncmp(name, "out-finished-", 13), 0);
    return temporary_path(folder, name);
}

#endif
