/* layer: text */
/* Names of files as they are written into JSON and cards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "temporary.h"
#include "text/shown_name.h"

static void shown_as(const char *path, const char *expected) {
    char *name = NULL;
    assert_int_equal(mq_shown_name(&name, path, NULL), MQ_OK);
    assert_string_equal(name, expected);
    mq_free(name);
}

static void names_are_one_line_of_utf8(void **state) {
    (void)state;
    shown_as("a/b/c.txt", "c.txt");
    shown_as("a/b//", "b");
    shown_as("/", "");
    shown_as("", "");
    shown_as("größe", "größe");
    shown_as("b\xff", "b\xef\xbf\xbd");
    shown_as("donn\xe9"
             "es.txt",
             "donn\xef\xbf\xbd"
             "es.txt");
    shown_as("a\nb\x7f\xc2\x85", "a\xef\xbf\xbd"
                                 "b\xef\xbf\xbd\xef\xbf\xbd"); /* U+0085 is a control character */
    shown_as("\xe2\x82", "\xef\xbf\xbd");                      /* cut short: one for all of it */
}

static void dots_are_looked_up(void **state) {
    temporary *folder = *state;
    assert_int_equal(mkdir(temporary_path(folder, "inner"), 0777), 0);
    assert_int_equal(chdir(temporary_path(folder, "inner")), 0);
    shown_as(".", "inner");
    shown_as("./", "inner");
    shown_as("..", mq_path_base(folder->path));
    assert_int_equal(chdir("/"), 0);
    shown_as("nowhere/.", "."); /* what is not there keeps its name */
}

static void memory_may_be_short(void **state) {
    (void)state;
    for (size_t n = 1; n <= 2; n++) {
        char *name = NULL;
        mq_error err;
        mq_alloc_fail_after(n);
        assert_int_equal(mq_shown_name(&name, "a/name", &err), MQ_ERR_MACHINE);
        mq_alloc_fail_after(0);
        assert_null(name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_one_line_of_utf8),
        cmocka_unit_test_setup_teardown(dots_are_looked_up, temporary_setup, temporary_teardown),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
