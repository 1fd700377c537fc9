/* layer: base */
/* Names of files, and lists of those in a folder. */
#include "base/file.h"
#include "faulty_folder.h"

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

static void a_list_that_breaks_off_is_none(void **state) {
    temporary *folder = *state;
    temporary_write(folder, "a", "", 0);
    temporary_write(folder, "b", "", 0);
    const size_t before = mq_alloc_current();
    size_t n = 1;
    for (bool met = true; met; n++) {
        char **list = NULL;
        size_t count = 0;
        mq_error err = {0};
        fault_begin("list", n, "EIO");
        const mq_status status = mq_list_folder(&list, &count, folder->path, &err);
        met = fault_end();
        assert_int_equal(status, met ? MQ_ERR_MACHINE : MQ_OK);
        assert_int_equal(count, met ? 0 : 2);
        assert_string_equal(err.file, met ? folder->path : "");
        mq_free_list(list, count);
        assert_int_equal(mq_alloc_current(), before);
    }
    assert_true(n > 5); /* opened, two files, and the end */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_end_so),
        cmocka_unit_test_setup_teardown(a_list_that_breaks_off_is_none, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
