/* layer: tensor */
/* The kernel that the BLAS should have taken, and the program that starts itself anew with it. */
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
#include <omp.h>

#include "matquant/context.h"
#include "tensor/environment.h"

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

/* Returns, and leaves the environment alone. */
static void what_the_user_says_counts(void **state) {
    (void)state;
    assert_int_equal(setenv("OPENBLAS_CORETYPE", "Prescott", 1), 0);
    assert_int_equal(setenv("OMP_WAIT_POLICY", "active", 1), 0);
    assert_null(mq_blas_better_kernel());
    static char name[] = "test";
    char *const words[] = {name, NULL};
    mq_take_environment(words);
    assert_string_equal(getenv("OPENBLAS_CORETYPE"), "Prescott");
    assert_null(getenv("GOMP_SPINCOUNT"));
    assert_int_equal(unsetenv("OPENBLAS_CORETYPE"), 0);
    assert_int_equal(unsetenv("OMP_WAIT_POLICY"), 0);
}

/* A program without a name is not started anew, and its environment is as it was. */
static void nothing_is_left_behind(void **state) {
    (void)state;
    char *const words[] = {NULL};
    mq_take_environment(words);
    assert_null(getenv("OPENBLAS_CORETYPE"));
    assert_null(getenv("GOMP_SPINCOUNT"));
}

/* What the program, started as `words`, prints of itself; `variable` is set to `value` for it. */
static void run_program(char *printed, size_t size, char *const *words, const char *variable,
                        const char *value) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        if (variable != NULL) {
            (void)setenv(variable, value, 1);
        }
        execv("/proc/self/exe", words);
        _exit(1);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t count;
    while (length < size - 1 && (count = read(ends[0], printed + length, size - 1 - length)) > 0) {
        length += (size_t)count;
    }
    printed[length] = '\0';
    close(ends[0]);
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}

static void a_program_starts_anew_once(void **state) {
    (void)state;
    static char name[] = "test", word[] = "a word", empty[] = "";
    char *const words[] = {name, word, empty, NULL};
    const char *better = mq_blas_better_kernel();
    char printed[256], expected[256];
    run_program(printed, sizeof printed, words, NULL, NULL);
    snprintf(expected, sizeof expected, "%s|1000|a word||\n", better != NULL ? better : "Prescott");
    assert_string_equal(printed, expected);
    run_program(printed, sizeof printed, words, "OMP_WAIT_POLICY", "passive");
    snprintf(expected, sizeof expected, "%s|-|a word||\n", better != NULL ? better : "Prescott");
    assert_string_equal(printed, expected);
}

/* Whose first thread OpenMP has bound to one place by then. */
static void what_is_started_anew_may_run_on_all_processors(void **state) {
    (void)state;
    static char name[] = "test", word[] = "processors";
    char *const words[] = {name, word, NULL};
    char printed[256], expected[256];
    snprintf(expected, sizeof expected, "1000 %d\n", omp_get_num_procs());
    run_program(printed, sizeof printed, words, "OMP_PROC_BIND", "true");
    assert_string_equal(printed, expected);
    run_program(printed, sizeof printed, words, NULL, NULL);
    assert_string_equal(printed, expected);
}

/* With arguments it is the program that starts itself anew. */
int main(int argc, char **argv) {
    if (argc > 1) {
        mq_take_environment(argv);
        if (strcmp(argv[1], "processors") == 0) {
            printf("%s %d\n", getenv("GOMP_SPINCOUNT"), omp_get_num_procs());
            return fflush(stdout) == 0 ? 0 : 1;
        }
        const char *spins = getenv("GOMP_SPINCOUNT");
        printf("%s|%s|%s|%s|\n", openblas_get_corename(), spins != NULL ? spins : "-", argv[1],
               argc > 2 ? argv[2] : "-");
        return fflush(stdout) == 0 ? 0 : 1;
    }
    unsetenv("OPENBLAS_CORETYPE");
    unsetenv("OMP_WAIT_POLICY");
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_PROC_BIND");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_kernels_are_told_from_others),
        cmocka_unit_test(what_the_user_says_counts),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(a_program_starts_anew_once),
        cmocka_unit_test(what_is_started_anew_may_run_on_all_processors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
