/* layer: tensor */
/* The kernel that the BLAS should have taken, and the program that starts itself anew with it. */
#include <sched.h>
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

static char chosen[64] = "Prescott";

/* In place of the library's, which reads the variable when it is loaded, too: it takes what it is
 * told, and by itself its oldest. */
__attribute__((constructor)) static void choose(void) {
    const char *told = getenv("OPENBLAS_CORETYPE");
    if (told != NULL) {
        snprintf(chosen, sizeof chosen, "%s", told);
    }
}

char *openblas_get_corename(void) { return chosen; }

/* Every test begins without what the user can say. */
static int say_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"OPENBLAS_CORETYPE", "OMP_WAIT_POLICY",
                                        "GOMP_SPINCOUNT",    "OMP_PROC_BIND",
                                        "OMP_PLACES",        "GOMP_CPU_AFFINITY"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsetenv(names[i]);
    }
    snprintf(chosen, sizeof chosen, "Prescott");
    return 0;
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
}

/* A program without a name is not started anew, nor is one that the kernel does not start, for its
 * arguments are too long; and all is as it was. */
static void nothing_is_left_behind(void **state) {
    (void)state;
    enum { TOO_LONG = 4 << 20 }; /* an argument has at most 32 pages */
    static char name[] = "test", word[TOO_LONG];
    memset(word, 'a', sizeof word - 1);
    char *const nothing[] = {NULL}, *const too_long[] = {name, word, NULL};
    char *const *const arguments[] = {nothing, too_long};
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (size_t i = 0; i < 2; i++) {
        mq_take_environment(arguments[i]);
        assert_null(getenv("OPENBLAS_CORETYPE"));
        assert_null(getenv("GOMP_SPINCOUNT"));
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
    }
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
    const char *better = mq_blas_better_kernel(); /* none on a processor without AVX2 */
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
static int run_as_program(int argc, char **argv) {
    mq_take_environment(argv);
    const char *spins = getenv("GOMP_SPINCOUNT");
    spins = spins != NULL ? spins : "-";
    if (strcmp(argv[1], "processors") == 0) {
        printf("%s %d\n", spins, omp_get_num_procs());
    } else {
        printf("%s|%s|%s|%s|\n", openblas_get_corename(), spins, argv[1], argc > 2 ? argv[2] : "-");
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        return run_as_program(argc, argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(old_kernels_are_told_from_others, say_nothing),
        cmocka_unit_test_setup(what_the_user_says_counts, say_nothing),
        cmocka_unit_test_setup(nothing_is_left_behind, say_nothing),
        cmocka_unit_test_setup(a_program_starts_anew_once, say_nothing),
        cmocka_unit_test_setup(what_is_started_anew_may_run_on_all_processors, say_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
