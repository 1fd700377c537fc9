/* layer: job */
/* --state when the machine fails: what was finished stays, and the next run goes on. */
#include "base/fault.h"
#include "quantize_state.h"

/* self: on text that the model writes, which is kept, too. */
static mq_quantize_options shortest(bool self) {
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.calib = self ? "self" : options.calib;
    options.samples = 2;
    options.seq_len = 16;
    options.refit_tokens = 2 * 16;
    return options;
}

static mq_status run_with_fault(const mq_quantize_options *options, const char *call, size_t when,
                                const char *error, mq_error *err) {
    char fault[64];
    snprintf(fault, sizeof fault, "%s:%zu:%s", call, when, error);
    assert_true(mq_fault_configure(fault));
    const mq_status status = run(NULL, NULL, options, 2, err);
    assert_true(mq_fault_configure(NULL));
    return status;
}

/* A call fails, anywhere along the way: then the next run goes on, and the bytes are the same. */
static void check_calls(bool self) {
    const mq_quantize_options options = shortest(self);
    made expected = make_plainly(&options);
    static const char *const calls[][2] = {{"open", "EMFILE"}, {"write", "ENOSPC"},
                                           {"fsync", "EIO"},   {"rename", "EIO"},
                                           {"map", "ENOMEM"},  {"read", "EIO"}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        mq_error err;
        mq_status status = MQ_ERR_MACHINE;
        for (size_t when = 1; status != MQ_OK; when += when) {
            status = run_with_fault(&options, calls[i][0], when, calls[i][1], &err);
            if (status != MQ_OK) {
                assert_int_equal(status, MQ_ERR_MACHINE);
                assert_false(mq_path_exists(out));
            }
        }
        assert_false(mq_path_exists(state_folder));
        assert_made_the_same(&expected);
    }
    free_made(&expected);
}

/* Every other time from the beginning, else from what the failing runs have left. */
static void check_allocations(bool self) {
    const mq_quantize_options options = shortest(self);
    made expected = make_plainly(&options);
    mq_status status = MQ_ERR_MACHINE;
    bool fresh = false;
    for (size_t countdown = 1; status != MQ_OK; countdown += 1 + countdown / 4) {
        fresh = !fresh;
        if (fresh) {
            temporary_remove(state_folder);
        }
        mq_context *context;
        mq_quantize_report report;
        mq_error err;
        assert_int_equal(mq_context_new(&context, NULL, &err), MQ_OK);
        mq_alloc_fail_after(countdown);
        status = mq_quantize(&report, &options, context, &err);
        mq_alloc_fail_after(0);
        mq_context_free(context);
        if (status == MQ_OK) {
            mq_quantize_report_free(&report);
        } else {
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_false(mq_path_exists(out));
        }
    }
    assert_made_the_same(&expected);
    free_made(&expected);
}

static void any_call_may_fail(void **state) {
    (void)state;
    check_calls(false);
    check_calls(true);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    check_allocations(false);
    check_allocations(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(any_call_may_fail),
        TEST(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
