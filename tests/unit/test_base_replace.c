/* layer: base */
/* Output folders that are replaced, and those that are not. */
#include <sys/stat.h>

#include "output_fixture.h"

/* The words in which `name` is blamed for it. */
static const char *holds(const char *name) {
    static char text[256];
    snprintf(text, sizeof text,
             "is not replaced: it holds \"%s\", which no run of matquant has written there, by its "
             "name or by the list in matquant.json; use another name, or remove it yourself",
             name);
    return text;
}

static void what_is_not_ours_is_not_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *home = temporary_path(folder, "home");
    assert_int_equal(mkdir(home, 0777), 0);
    assert_int_equal(run(home, source, true, &err), MQ_OK); /* empty: nothing is lost */
    assert_int_equal(remove(temporary_path(folder, "home/config.json")), 0);
    assert_int_equal(run(home, source, true, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "it has not both config.json and matquant.json"));
    assert_int_equal(temporary_entries(home), 2);
    temporary_write(folder, "home/config.json", "{}", 2);
    assert_int_equal(remove(temporary_path(folder, "home/matquant.json")), 0);
    assert_int_equal(run(home, source, true, &err), MQ_ERR_USAGE); /* another program's model */
    assert_string_equal(err.message, holds("pieces"));
    assert_int_equal(temporary_entries(home), 2);
    temporary_write(folder, "home/matquant.json", SOURCE, sizeof SOURCE - 1);
    assert_int_equal(mkdir(temporary_path(folder, "home/Documents"), 0777), 0);
    assert_int_equal(run(home, source, true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, holds("Documents"));
    assert_int_equal(temporary_entries(home), 4);
    const char *file = temporary_path(folder, "source");
    assert_int_equal(run(file, file, true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "exists and is not a folder");
    const char *link_path = temporary_path(folder, "link");
    assert_int_equal(symlink("home", link_path), 0);
    assert_int_equal(run(link_path, file, true, &err), MQ_ERR_USAGE);
    assert_int_equal(temporary_entries(folder->path), 3);
}

/* Somebody's file in one of our folders, whatever its name is like. */
static void a_file_that_we_do_not_write_is_not_lost(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    static const char *const ours[] = {"README.md",
                                       "quantize_config.json",
                                       "model.safetensors",
                                       "model-00001-of-00002.safetensors",
                                       "model.safetensors.index.json",
                                       "old"};
    static const char *const others[] = {"notes.txt",         "int4.gguf", "model.safetensors.bak",
                                         "tuned.safetensors", ".hidden",   "readme.md"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char name[64];
        assert_int_equal(run(path, source, true, &err), MQ_OK);
        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++) {
            snprintf(name, sizeof name, "out/%s", ours[k]);
            temporary_write(folder, name, "", 0);
        }
        assert_int_equal(mq_output_check(path, true, &err), MQ_OK);
        snprintf(name, sizeof name, "out/%s", others[i]);
        const char *theirs = temporary_write(folder, name, "mine", 4);
        assert_int_equal(mq_output_check(path, true, &err), MQ_ERR_USAGE);
        assert_string_equal(err.file, path);
        assert_string_equal(err.message, holds(others[i]));
        assert_int_equal(run(path, source, true, &err), MQ_ERR_USAGE);
        assert_file(theirs, "mine");
        assert_int_equal(remove(theirs), 0);
    }
    /* A list that cannot be read has nobody's files. */
    temporary_write(folder, "out/matquant.json", "{", 1);
    assert_int_equal(run(path, source, true, &err), MQ_ERR_USAGE);
    assert_int_equal(remove(temporary_path(folder, "out/old")), 0);
    assert_int_equal(remove(temporary_path(folder, "out/pieces")), 0);
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_ours_is_not_replaced),
        TEST(a_file_that_we_do_not_write_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
