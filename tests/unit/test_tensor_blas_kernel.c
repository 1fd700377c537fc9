/* layer: tensor */
/* The kernel that the BLAS should have taken, and the program that starts itself again with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cblas.h>
#include <cmocka.h>

#include "base/context.h"
#include "tensor/blas_kernel.h"

/* In place of the library's: it takes what it is told, and by itself its oldest. */
char *openblas_get_corename(void) {
    static char oldest[] = "Prescott";
    char *told = getenv("OPENBLAS_CORETYPE");
    return told != NULL ? told : oldest;
}

static void old_kernels_are_told_from_others(void **state) {
    (void)state;
    const mq_vector_support none = {0}, avx2 = {.avx2 = true},
                            avx512 = {.avx2 = true, .avx512 = true};
    assert_string_equal(mq_blas_kernel_for("Prescott", avx512), "SkylakeX");
    assert_string_equal(mq_blas_kernel_for("Nehalem", avx2), "Haswell");
    assert_null(mq_blas_kernel_for("Prescott", none));
    const char *const good[] = {"Haswell",        "Zen",  "SkylakeX", "Cooperlake",
                                "SapphireRapids", "ARMV8"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_null(mq_blas_kernel_for(good[i], avx2));
        assert_null(mq_blas_kernel_for(good[i], avx512));
    }
}

static void what_the_user_says_counts(void **state) {
    (void)state;
    assert_int_equal(setenv("OPENBLAS_CORETYPE", "Prescott", 1), 0);
    assert_null(mq_blas_better_kernel());
    mq_blas_take_kernel(NULL); /* returns */
    assert_int_equal(unsetenv("OPENBLAS_CORETYPE"), 0);
}

static void count_warnings(void *user, mq_log_level level, const char *text) {
    if (level == MQ_LOG_WARNING && strstr(text, "OPENBLAS_CORETYPE=") != NULL) {
        ++*(int *)user;
    }
}

/* A program that did not start itself again is told. */
static void contexts_warn(void **state) {
    (void)state;
    int warnings = 0;
    const mq_context_options options = {.sink = {.user = &warnings, .message = count_warnings}};
    mq_context *context;
    mq_error err = {0};
    assert_int_equal(mq_context_new(&context, &options, &err), MQ_OK);
    mq_context_free(context);
    assert_int_equal(warnings, mq_blas_better_kernel() != NULL ? 1 : 0);
}

static void a_program_starts_again_once(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static char name[] = "test", word[] = "a word", empty[] = "";
        char *words[] = {name, word, empty, NULL};
        (void)dup2(ends[1], STDOUT_FILENO);
        execv("/proc/self/exe", words);
        _exit(1);
    }
    close(ends[1]);
    char printed[256] = {0};
    size_t length = 0;
    ssize_t count;
    while (length < sizeof printed - 1 &&
           (count = read(ends[0], printed + length, sizeof printed - 1 - length)) > 0) {
        length += (size_t)count;
    }
    close(ends[0]);
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    const char *better = mq_blas_better_kernel();
    char expected[256];
    snprintf(expected, sizeof expected, "%s|a word||\n", better != NULL ? better : "Prescott");
    assert_string_equal(printed, expected);
}

/* With arguments it is the program that starts itself again. */
int main(int argc, char **argv) {
    if (argc > 1) {
        mq_blas_take_kernel(argv);
        printf("%s|%s|%s|\n", openblas_get_corename(), argv[1], argc > 2 ? argv[2] : "-");
        return fflush(stdout) == 0 ? 0 : 1;
    }
    unsetenv("OPENBLAS_CORETYPE");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_kernels_are_told_from_others),
        cmocka_unit_test(what_the_user_says_counts),
        cmocka_unit_test(contexts_warn),
        cmocka_unit_test(a_program_starts_again_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
