/* How tests begin and end that work in a temporary folder and let calls and allocations fail, and
 * what such a failure may leave there. */
#ifndef MQ_TEST_FAULTY_FOLDER_H
#define MQ_TEST_FAULTY_FOLDER_H

#include "base/alloc.h"
#include "base/error.h"
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

/* The n-th such call fails from here to fault_end. */
static inline void fault_begin(const char *call, size_t n, const char *error) {
    char fault[48];
    snprintf(fault, sizeof fault, "%s:%zu:%s", call, n, error);
    assert_true(mq_fault_configure(fault));
}

/* Whether there was one. */
static inline bool fault_end(void) {
    const bool met = mq_faults_met() > 0;
    assert_true(mq_fault_configure(NULL));
    return met;
}

/* What looks through a folder for what forbids it to go on, and would find it: that is found or, at
 * worst, not known, whichever of these calls fails. Returns how often it was not known. */
static inline size_t never_goes_on(mq_status (*look)(const char *path, mq_error *err),
                                   const char *path, const char *call, const char *error) {
    size_t unknown = 0;
    mq_status status = MQ_OK;
    bool met = true;
    for (size_t n = 1; met; n++) {
        mq_error err;
        fault_begin(call, n, error);
        status = look(path, &err);
        met = fault_end();
        assert_true(status == MQ_ERR_USAGE || status == MQ_ERR_MACHINE);
        unknown += status == MQ_ERR_MACHINE ? 1 : 0;
    }
    assert_int_equal(status, MQ_ERR_USAGE);
    return unknown;
}

/* The finished output `out`, which is not in its place, by the name that err says. */
static inline const char *kept_beside(temporary *folder, const mq_error *err) {
    char name[64] = "";
    assert_int_equal(sscanf(err->message, "what was made is kept as %63[^;]", name), 1);
    assert_int_equal(strncmp(name, "out-finished-", 13), 0);
    return temporary_path(folder, name);
}

#endif
