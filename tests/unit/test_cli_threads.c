/* layer: cli */
/* Public functions that divide their work, called from another thread than the context's maker:
 * OpenMP's number of threads is each thread's own, and has to be the context's there, too. */
#include <omp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "matquant/eval.h"
#include "matquant/quantize.h"
#include "matquant/slice.h"

enum { THREADS = 3, OTHERS = 5, FUNCTIONS = 3 };

typedef struct calls {
    const mq_context *context;
    mq_status status[FUNCTIONS];
    int before[FUNCTIONS], threads[FUNCTIONS];
} calls;

/* Calls of folders that are not there: what counts is how many threads there are after. */
static mq_status call(size_t which, const mq_context *context) {
    const char *nowhere = "/nowhere";
    mq_quantize_options quantize = mq_quantize_defaults(MQ_RECIPE_RTN);
    quantize.model = nowhere;
    quantize.output = "/nowhere/master";
    mq_slice_options slice = mq_slice_defaults();
    slice.master = nowhere;
    slice.output = "/nowhere/slice";
    slice.width = 4;
    mq_eval_options eval = mq_eval_defaults();
    eval.model = eval.text = nowhere;
    mq_quantize_report quantized;
    mq_slice_report sliced;
    mq_eval_result evaluated;
    switch (which) {
    case 0:
        return mq_quantize(&quantized, &quantize, context, NULL);
    case 1:
        return mq_slice(&sliced, &slice, context, NULL);
    default:
        return mq_evaluate(&evaluated, &eval, context, NULL);
    }
}

static void *call_all(void *user) {
    calls *made = user;
    for (size_t i = 0; i < FUNCTIONS; i++) {
        omp_set_num_threads(OTHERS);
        made->before[i] = omp_get_max_threads();
        made->status[i] = call(i, made->context);
        made->threads[i] = omp_get_max_threads();
    }
    return NULL;
}

static void in_another_thread(const mq_context *context, int expected) {
    calls made = {.context = context};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_all, &made), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < FUNCTIONS; i++) {
        assert_int_not_equal(made.status[i], MQ_OK);
        assert_int_equal(made.before[i], OTHERS);
        assert_int_equal(made.threads[i], expected);
    }
}

static void a_context_has_its_threads_in_every_thread(void **state) {
    (void)state;
    const mq_context_options options = {.threads = THREADS};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    in_another_thread(context, THREADS);
    in_another_thread(NULL, OTHERS);
    mq_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_context_has_its_threads_in_every_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
