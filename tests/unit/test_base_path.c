/* layer: base */
/* Names of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"

static void names_end_so(void **state) {
    (void)state;
    static const struct {
        const char *text, *end;
        bool same_case, any_case;
    } cases[] = {
        {"a.gz", ".gz", true, true},     {"a.Gz", ".gz", false, true}, {"a.gz", ".GZ", false, true},
        {".gz", ".gz", true, true},      {"gz", ".gz", false, false},  {"", ".gz", false, false},
        {"a.gz.b", ".gz", false, false}, {"a", "", true, true},        {"", "", true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mq_ends_with(cases[i].text, cases[i].end), cases[i].same_case);
        assert_int_equal(mq_ends_with_any_case(cases[i].text, cases[i].end), cases[i].any_case);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_end_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
