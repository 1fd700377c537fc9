/* layer: base */
/* What the machine has left, and where threads run. */
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/machine.h"
#include "temporary.h"

static void instruction_sets_are_capped_by_name(void **state) {
    (void)state;
    mq_simd out;
    mq_error err;
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_AVX2, NULL, &err), MQ_OK);
    assert_int_equal(out, MQ_SIMD_AVX2);
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_AVX512, "", &err), MQ_OK);
    assert_int_equal(out, MQ_SIMD_AVX512);
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_AVX512, "avx2", &err), MQ_OK);
    assert_int_equal(out, MQ_SIMD_AVX2);
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_NONE, "base", &err), MQ_OK);
    assert_int_equal(out, MQ_SIMD_NONE);
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_AVX2, "avx512", &err), MQ_ERR_USAGE);
    assert_string_equal(err.message,
                        "MATQUANT_KERNELS=avx512: this processor has no more than avx2");
    assert_int_equal(mq_simd_capped(&out, MQ_SIMD_AVX512, "AVX2", &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "MATQUANT_KERNELS=AVX2 is none of base, avx2 and avx512");
}

static void there_is_memory(void **state) {
    (void)state;
    size_t available = 0;
    const bool known = mq_memory_available(&available, 0);
#if defined(__linux__)
    assert_true(known);
#endif
    assert_true(!known || available > 0);
}

#if defined(__linux__)
/* Bytes of the first and of the sixth number in the kernel's file: all that is mapped, and of that
 * what may be written. */
static void mapped(size_t out[2]) {
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages[6];
    assert_non_null(file);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(fscanf(file, "%zu", &pages[i]), 1);
    }
    fclose(file);
    out[0] = pages[0] * (size_t)sysconf(_SC_PAGESIZE);
    out[1] = pages[5] * (size_t)sysconf(_SC_PAGESIZE);
}

/* Whether memory is bounded to between half of `left` and `left` by a limit that leaves so much. */
static bool is_bounded(size_t which, size_t left) {
    static const int resources[] = {RLIMIT_AS, RLIMIT_DATA};
    size_t used[2], available = 0;
    struct rlimit limit;
    mapped(used);
    if (getrlimit(resources[which], &limit) != 0) {
        return false;
    }
    limit.rlim_cur = used[which] + left;
    return setrlimit(resources[which], &limit) == 0 && mq_memory_mappable() <= left &&
           mq_memory_mappable() >= left / 2 && mq_memory_available(&available, 0) &&
           available <= left && available >= left / 2 &&
           mq_memory_available(&available, left / 4) && available <= left - left / 4 &&
           available > 0 && mq_memory_available(&available, left + 1) && available == 0;
}

/* Of this process's own, in a child that ends with them. */
static void limits_bound_memory(void **state) {
    (void)state;
    for (size_t which = 0; which < 2; which++) {
        int status = 1;
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            _exit(is_bounded(which, (size_t)64 << 20) ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}
#endif

/* *available bytes become so many by what the file says and the folder below it holds. */
static void check_groups(temporary *folder, const char *lines, size_t available, size_t expected) {
    const char *process = temporary_write(folder, "cgroup", lines, strlen(lines));
    mq_memory_bound_by_groups(&available, process, folder->path);
    assert_int_equal(available, expected);
}

static void limit(temporary *folder, const char *name, const char *bytes) {
    temporary_write(folder, name, bytes, strlen(bytes));
}

static void control_groups_bound_memory(void **state) {
    temporary *folder = *state;
    for (size_t i = 0; i < 4; i++) {
        static const char *const folders[] = {"a", "a/b", "memory", "memory/a"};
        assert_int_equal(mkdir(temporary_path(folder, folders[i]), 0777), 0);
    }
    check_groups(folder, "0::/a/b\n", 5000, 5000); /* no limit is there */
    limit(folder, "a/memory.max", "3000\n");
    limit(folder, "a/b/memory.max", "max\n");
    check_groups(folder, "0::/a/b\n", 5000, 3000); /* of the one around it */
    check_groups(folder, "0::/a/b\n", 2000, 2000);
    limit(folder, "a/b/memory.max", "1000\n");
    check_groups(folder, "0::/a/b\n", 5000, 1000);
    check_groups(folder, "0::/a\n", 5000, 3000);
    limit(folder, "memory.max", "4000\n"); /* a container sees its own root alone */
    check_groups(folder, "0::/not/seen\n", 5000, 4000);
    check_groups(folder, "0::/\n", 5000, 4000);
    limit(folder, "memory/a/memory.limit_in_bytes", "500\n");
    check_groups(folder, "7:cpu:/a\n4:memory:/a\n0::/a\n", 5000, 500);
    limit(folder, "memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    check_groups(folder, "4:memory:/a", 5000, 5000);
    check_groups(folder, "", 5000, 5000);
    size_t available = 5000;
    mq_memory_bound_by_groups(&available, temporary_path(folder, "none"), folder->path);
    assert_int_equal(available, 5000);
}

#if defined(CPU_ZERO)
static size_t processors(cpu_set_t *out) {
    assert_int_equal(sched_getaffinity(0, sizeof *out, out), 0);
    return (size_t)CPU_COUNT(out);
}

/* Whatever the number, also beyond their count: all processors stay allowed. It may be moved on at
 * once, but not every time. */
static void a_thread_moves_and_stays_free(void **state) {
    (void)state;
    enum { TRIES = 100 };
    cpu_set_t before, after;
    const size_t count = processors(&before);
    size_t number = 0;
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (!CPU_ISSET((size_t)processor, &before)) {
            continue;
        }
        int met = 0;
        for (int i = 0; i < TRIES && met == 0; i++) {
            mq_take_processor(number + 1); /* another, if there is one */
            mq_take_processor(number);
            met = sched_getcpu() == processor;
        }
        assert_true(met);
        number++;
    }
    assert_int_equal(number, count);
    for (number = 0; number < 2 * count; number++) {
        mq_take_processor(number);
        assert_int_equal(processors(&after), count);
        assert_true(CPU_EQUAL(&before, &after));
    }
}

/* Where only one processor is allowed it is that one, whatever the number. */
static void a_bound_thread_stays_bound(void **state) {
    (void)state;
    cpu_set_t before, one, after;
    (void)processors(&before);
    for (size_t processor = 0; processor < CPU_SETSIZE; processor++) {
        if (!CPU_ISSET(processor, &before)) {
            continue;
        }
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
        for (size_t number = 0; number < 3; number++) {
            mq_take_processor(number);
            assert_int_equal(processors(&after), 1);
            assert_true(CPU_ISSET(processor, &after));
            assert_int_equal(sched_getcpu(), processor);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_sets_are_capped_by_name),
        cmocka_unit_test(there_is_memory),
#if defined(__linux__)
        cmocka_unit_test(limits_bound_memory),
#endif
        cmocka_unit_test_setup_teardown(control_groups_bound_memory, temporary_setup,
                                        temporary_teardown),
#if defined(CPU_ZERO)
        cmocka_unit_test(a_thread_moves_and_stays_free),
        cmocka_unit_test(a_bound_thread_stays_bound),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
