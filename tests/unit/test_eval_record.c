/* layer: eval */
/* Evaluations in a master's provenance: what is kept, what replaces what, what is refused. */
#include "eval/record.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "json_memory.h"
#include "store/folder.h"
#include "store_fixture.h"

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_non_null(item);
    return item;
}

static cJSON *provenance_of(const char *folder) {
    cJSON *provenance = NULL;
    mq_error err = {0};
    must(mq_read_folder_json(&provenance, folder, MQ_PROVENANCE_FILE, false, &err), &err);
    return provenance;
}

static char *make_text(void) {
    char *path = fixture_path("text.txt");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs("abc", file) >= 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* A master, its source and a text, and what is measured of it. */
typedef struct measured {
    char *plain, *text, *master;
    cJSON *before;     /* the provenance as it was */
    char identity[65]; /* once it was checked */
    mq_eval_options options;
} measured;

static measured open_measured(void) {
    const fixture_master_options none = {0};
    measured m = {.plain = fixture_plain(), .text = make_text(), .options = mq_eval_defaults()};
    m.master = fixture_master(m.plain, &none);
    m.before = provenance_of(m.master);
    m.options.model = m.master;
    m.options.text = m.text;
    return m;
}

static void close_measured(measured *m) {
    cJSON_Delete(m->before);
    mq_free(m->master);
    mq_free(m->plain);
    mq_free(m->text);
}

static void test_entries(void **state) {
    (void)state;
    mq_error err = {0};
    measured m = open_measured();
    mq_eval_options options = m.options;
    options.seq_len = 16;
    mq_eval_result result = {.width = 4,
                             .text_sha256 = "ba7816bf8f01cfea",
                             .bos = true,
                             .windows = 3,
                             .nll = log(7.5),
                             .nll_stderr = NAN, /* of one window */
                             .perplexity = 7.5};
    must(mq_record_check(m.identity, &options, &err), &err);
    must(mq_record_write(&result, 1, m.identity, &options, NULL, &err), &err);
    result.width = 8;
    must(mq_record_write(&result, 1, m.identity, &options, NULL, &err), &err);
    result.width = 4;
    result.perplexity = 7.25; /* measured again, and compared */
    result.has_reference = true;
    result.reference_perplexity = 7;
    result.kl = 0.125;
    options.reference = m.plain;
    must(mq_record_write(&result, 1, m.identity, &options, NULL, &err), &err);
    options.reference = NULL; /* and once more without: what is known of the same windows stays */
    result.has_reference = false;
    must(mq_record_write(&result, 1, m.identity, &options, NULL, &err), &err);
    result.bos = false; /* other windows */
    must(mq_record_write(&result, 1, m.identity, &options, NULL, &err), &err);

    cJSON *after = provenance_of(m.master);
    cJSON *list = cJSON_DetachItemFromObjectCaseSensitive(after, "evaluations");
    assert_int_equal(cJSON_GetArraySize(list), 3);
    const cJSON *first = cJSON_GetArrayItem(list, 0), *second = cJSON_GetArrayItem(list, 1);
    assert_true(member(first, "bits")->valuedouble == 4);
    assert_true(member(first, "perplexity")->valuedouble == 7.25);
    assert_true(member(first, "kl")->valuedouble == 0.125);
    assert_true(member(member(first, "reference"), "perplexity")->valuedouble == 7);
    assert_true(member(first, "windows")->valuedouble == 3);
    assert_true(member(first, "seq_len")->valuedouble == 16);
    assert_true(member(second, "bits")->valuedouble == 8);
    assert_true(member(second, "perplexity")->valuedouble == 7.5);
    assert_null(cJSON_GetObjectItemCaseSensitive(second, "nll_stderr"));
    assert_null(cJSON_GetObjectItemCaseSensitive(second, "reference"));
    assert_string_equal(member(member(second, "text"), "file")->valuestring, mq_path_base(m.text));
    assert_string_equal(member(member(second, "text"), "sha256")->valuestring, result.text_sha256);
    assert_null(cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(list, 2), "reference"));
    assert_true(cJSON_Compare(m.before, after, true)); /* all the rest */

    cJSON_Delete(list);
    cJSON_Delete(after);
    close_measured(&m);
}

/* Without memory the provenance stays as it was. */
static void test_no_memory(void **state) {
    (void)state;
    mq_error err = {0};
    measured m = open_measured();
    /* Without its longest part, since every allocation of reading it is tried. */
    fixture_set_json(m.master, MQ_PROVENANCE_FILE, NULL, "tensors", NULL);
    cJSON_Delete(m.before);
    m.before = provenance_of(m.master);
    m.options.reference = m.plain;
    mq_eval_result result = {.width = 4, .text_sha256 = "ba7816bf", .perplexity = 7.5, .kl = 0.125};
    must(mq_record_check(m.identity, &m.options, &err), &err);
    for (size_t pass = 0; pass < 2; pass++) { /* the first entry; in the place of another */
        result.has_reference = pass == 0;
        mq_status status = MQ_ERR_MACHINE;
        size_t left = 0;
        for (; status != MQ_OK; left++) {
            json_memory_begin(left);
            status = mq_record_write(&result, 1, m.identity, &m.options, NULL, &err);
            assert_int_equal(json_memory_end(), 0);
            cJSON *after = provenance_of(m.master);
            assert_true(cJSON_Compare(m.before, after, true) == (status != MQ_OK));
            cJSON_Delete(after);
        }
        assert_true(left > 40);
        cJSON_Delete(m.before);
        m.before = provenance_of(m.master);
        result.perplexity = 7.25;
    }
    close_measured(&m);
}

static void test_what_is_refused(void **state) {
    (void)state;
    mq_error err = {0};
    char *plain = fixture_plain();
    const fixture_master_options none = {0};
    char *master = fixture_master(plain, &none);
    mq_eval_options options = mq_eval_defaults();
    char identity[65];
    options.model = master;
    assert_int_equal(mq_record_check(identity, &options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "text"));
    options.text = "t.txt";
    options.model = plain;
    assert_int_equal(mq_record_check(identity, &options, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "no master"));
    options.model = master;
    char *file = fixture_file(master, MQ_PROVENANCE_FILE);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mq_record_check(identity, &options, &err), MQ_ERR_INPUT);
    mq_free(file);
    mq_free(master);
    mq_free(plain);
}

/* By the name that it was opened by there is another one, of the same model by other settings, when
 * it has been measured. */
static void test_another_master(void **state) {
    (void)state;
    mq_error err = {0};
    measured m = open_measured();
    const fixture_master_options groups = {.group_size = 32};
    char *other = fixture_master(m.plain, &groups);
    const mq_eval_result result = {.width = 4, .text_sha256 = "ba7816bf", .perplexity = 7.5};
    must(mq_record_check(m.identity, &m.options, &err), &err);
    assert_int_equal(renameat2(AT_FDCWD, other, AT_FDCWD, m.master, RENAME_EXCHANGE), 0);
    cJSON *before = provenance_of(m.master);
    expect_error(mq_record_write(&result, 1, m.identity, &m.options, NULL, &err), MQ_ERR_INPUT,
                 &err, m.master, "", "is another master than the one that was measured");
    cJSON *after = provenance_of(m.master);
    assert_true(cJSON_Compare(before, after, true));
    cJSON_Delete(before);
    cJSON_Delete(after);
    mq_free(other);
    close_measured(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_another_master), cmocka_unit_test(test_what_is_refused)};
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
