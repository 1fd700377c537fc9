/* layer: tensor */
/* A context has the threads that it is asked for, or is not made. */
#include <omp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/machine.h"
#include "faulty_folder.h"
#include "matquant/context.h"
#include "tensor/gemm.h"

enum { THREADS = 4, STARTED = 2 * (THREADS - 1) }; /* by OpenMP, and by the BLAS */

/* Whichever of them cannot be started. */
static void threads_that_cannot_be_started(void **state) {
    (void)state;
    const mq_context_options options = {.threads = THREADS};
    const size_t before = mq_alloc_current();
    for (size_t n = 1; n <= STARTED + 1; n++) {
        mq_context *context = NULL;
        mq_error err = {0};
        char fault[32];
        snprintf(fault, sizeof fault, "thread:%zu:EAGAIN", n);
        assert_true(mq_fault_configure(fault));
        const mq_status status = mq_context_new(&context, &options, &err);
        assert_int_equal(status, n <= STARTED ? MQ_ERR_MACHINE : MQ_OK);
        if (status != MQ_OK) {
            assert_string_equal(err.message,
                                "cannot start 4 threads: Resource temporarily unavailable");
            assert_null(context);
        } else {
            assert_int_equal(mq_context_threads(context), THREADS);
        }
        mq_context_free(context);
        assert_int_equal(mq_alloc_current(), before);
    }
}

static void one_thread_starts_no_other(void **state) {
    (void)state;
    const mq_context_options options = {.threads = 1};
    mq_context *context = NULL;
    assert_true(mq_fault_configure("thread:1:EAGAIN"));
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    mq_context_free(context);
}

/* By default there are as many as there are processors, and no more than the variable says,
 * whatever an earlier context had. */
static void a_variable_bounds_threads(void **state) {
    (void)state;
    const size_t processors = (size_t)omp_get_num_procs();
    const struct {
        const char *value;
        size_t expected;
    } cases[] = {{"1", 1},           {NULL, processors},    {" 1,4", 1},
                 {"", processors},   {"none", processors},  {"0", processors},
                 {"-1", processors}, {"100000", processors}};
    const mq_context_options three = {.threads = 3};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_context *context = NULL;
        assert_int_equal(cases[i].value != NULL ? setenv("OMP_NUM_THREADS", cases[i].value, 1)
                                                : unsetenv("OMP_NUM_THREADS"),
                         0);
        assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
        assert_int_equal(mq_context_threads(context), cases[i].expected);
        mq_context_free(context);
        assert_int_equal(mq_context_new(&context, &three, NULL), MQ_OK);
        assert_int_equal(mq_context_threads(context), 3);
        mq_context_free(context);
    }
    assert_int_equal(unsetenv("OMP_NUM_THREADS"), 0);
}

/* From now on this process may map so many bytes more. */
static bool leave(size_t bytes) {
    struct rlimit limit = {(rlim_t)1 << 50, RLIM_INFINITY};
    if (setrlimit(RLIMIT_DATA, &limit) != 0) {
        return false;
    }
    limit.rlim_cur -= mq_memory_mappable(); /* what is mapped */
    limit.rlim_cur += bytes;
    return setrlimit(RLIMIT_DATA, &limit) == 0;
}

/* Where the BLAS would ask for its buffers again and again. There is room for those threads. */
static void address_space_that_is_not_there(void **state) {
    (void)state;
    static const char expected[] = "matrix products need 256 MiB of address space, and its limit "
                                   "(ulimit -v or -d) leaves ";
    const mq_context_options options = {.threads = mq_gemm_threads() + 2};
    int status = 1;
    assert_int_equal(mq_gemm_check_buffers(1 << 20, NULL), MQ_OK); /* there is no limit */
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mq_context *context = NULL;
        mq_error err = {0};
        _exit(leave((size_t)250 << 20) && mq_gemm_check_buffers(1, NULL) == MQ_OK &&
                      mq_gemm_check_buffers(2, NULL) == MQ_ERR_MACHINE &&
                      mq_context_new(&context, &options, &err) == MQ_ERR_MACHINE &&
                      strncmp(err.message, expected, strlen(expected)) == 0
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void lack_of_memory(void **state) {
    (void)state;
    const mq_context_options options = {.threads = THREADS};
    const size_t before = mq_alloc_current();
    mq_context *context = NULL;
    size_t countdown = 1;
    mq_status status;
    do {
        mq_alloc_fail_after(countdown++);
        status = mq_context_new(&context, &options, NULL);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || (status == MQ_ERR_MACHINE && context == NULL));
        assert_true(status == MQ_OK || mq_alloc_current() == before);
    } while (status != MQ_OK);
    assert_true(countdown > 3);
    mq_context_free(context);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(threads_that_cannot_be_started),
        TEST(one_thread_starts_no_other),
        TEST(a_variable_bounds_threads),
        TEST(address_space_that_is_not_there),
        TEST(lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
