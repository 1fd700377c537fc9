/* How tests begin and end that work in a temporary folder and let calls and allocations fail. */
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

#endif
