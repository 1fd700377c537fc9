/* layer: base */
#include <errno.h>

#include "base/context.h"
#include "base/error.h"
#include "matquant/version.h"
#include "temporary.h"

static void format_has_the_parts_there_are(void **state) {
    (void)state;
    char line[128];
    mq_error err;
    assert_int_equal(mq_fail(&err, MQ_ERR_USAGE, "no %s", "such width"), MQ_ERR_USAGE);
    assert_int_equal(mq_error_format(line, sizeof line, &err), strlen("no such width"));
    assert_string_equal(line, "no such width");
    mq_fail_file(&err, MQ_ERR_INPUT, "a/config.json", "malformed");
    mq_error_format(line, sizeof line, &err);
    assert_string_equal(line, "a/config.json: malformed");
    mq_fail_offset(&err, MQ_ERR_INPUT, "a/model.safetensors", "norm", 1234567890123, "is NaN");
    mq_error_format(line, sizeof line, &err);
    assert_string_equal(line, "a/model.safetensors: tensor norm: at byte 1234567890123: is NaN");
    mq_fail_tensor(&err, MQ_ERR_INPUT, "", "norm", "is missing");
    mq_error_format(line, sizeof line, &err);
    assert_string_equal(line, "tensor norm: is missing");
}

static void format_is_cut_to_size_and_says_the_whole_length(void **state) {
    (void)state;
    mq_error err;
    mq_fail_file(&err, MQ_ERR_INPUT, "file", "message");
    char line[8];
    memset(line, 'x', sizeof line);
    assert_int_equal(mq_error_format(line, 6, &err), strlen("file: message"));
    assert_string_equal(line, "file:");
    assert_int_equal(line[6], 'x');
    assert_int_equal(mq_error_format(line, 3, &err), strlen("file: message"));
    assert_string_equal(line, "fi");
    assert_int_equal(mq_error_format(NULL, 0, &err), strlen("file: message"));
}

static void control_characters_are_shown_as_question_marks(void **state) {
    (void)state;
    char text[] = "\x1b[2J a\tb\r\n\x7f \xc2\x9b"
                  "31m gr\xc3\xbc\xc3\x9f \xc2\xa0\xe2\x82\xac \xc2";
    mq_make_printable(text);
    assert_string_equal(text, "?[2J a?b??? ??31m gr\xc3\xbc\xc3\x9f \xc2\xa0\xe2\x82\xac \xc2");
}

static void long_path_keeps_its_end(void **state) {
    (void)state;
    char path[2000];
    memset(path, 'a', sizeof path - 1);
    memcpy(path + sizeof path - 1 - 5, "/last", 6);
    mq_error err;
    mq_fail_file(&err, MQ_ERR_INPUT, path, "bad");
    assert_int_equal(strlen(err.file), sizeof err.file - 1);
    assert_string_equal(err.file + strlen(err.file) - 5, "/last");
}

static void a_file_in_a_folder(void **state) {
    (void)state;
    char folder[2000];
    mq_error err;
    assert_int_equal(mq_fail_file_in(&err, MQ_ERR_INPUT, "in", "config.json", "bad %d", 7),
                     MQ_ERR_INPUT);
    assert_string_equal(err.file, "in/config.json");
    assert_string_equal(err.message, "bad 7");
    mq_fail_file_in(&err, MQ_ERR_INPUT, "/", "config.json", "bad");
    assert_string_equal(err.file, "/config.json");
    memset(folder, 'a', sizeof folder - 1);
    folder[sizeof folder - 1] = '\0';
    mq_fail_file_in(&err, MQ_ERR_INPUT, folder, "config.json", "bad");
    assert_int_equal(strlen(err.file), sizeof err.file - 1);
    assert_string_equal(err.file + strlen(err.file) - 13, "a/config.json");
    assert_int_equal(mq_fail_file_in(NULL, MQ_ERR_INPUT, "in", "f", "bad"), MQ_ERR_INPUT);
}

static void an_error_is_one_line(void **state) {
    (void)state;
    mq_error err;
    mq_fail_tensor(&err, MQ_ERR_INPUT, "a\nb", "c\x1b[31m", "d\n%s", "e\r");
    assert_string_equal(err.file, "a?b");
    assert_string_equal(err.tensor, "c?[31m");
    assert_string_equal(err.message, "d?e?");
}

static void arguments_may_point_into_the_error(void **state) {
    (void)state;
    mq_error err;
    mq_fail_file(&err, MQ_ERR_INPUT, "file", "inner");
    mq_fail_tensor(&err, MQ_ERR_MACHINE, err.file, "t", "outer: %s", err.message);
    assert_string_equal(err.file, "file");
    assert_string_equal(err.message, "outer: inner");
    assert_int_equal(err.status, MQ_ERR_MACHINE);
    assert_false(err.has_offset);
}

static void system_errors_blame_input_or_machine(void **state) {
    (void)state;
    const int input[] = {ENOENT, EISDIR, ENOTDIR, EACCES, ENAMETOOLONG, ELOOP};
    const int machine[] = {ENOSPC, EIO, EMFILE, ENOMEM, EROFS};
    mq_error err;
    for (size_t i = 0; i < sizeof input / sizeof *input; i++) {
        assert_int_equal(mq_fail_errno(&err, input[i], "f", "open"), MQ_ERR_INPUT);
    }
    for (size_t i = 0; i < sizeof machine / sizeof *machine; i++) {
        assert_int_equal(mq_fail_errno(&err, machine[i], "f", "write"), MQ_ERR_MACHINE);
    }
    mq_fail_errno(&err, ENOSPC, "f", "write");
    assert_string_equal(err.message, "cannot write: No space left on device");
}

static void file_and_tensor_are_added_once(void **state) {
    (void)state;
    mq_error err;
    mq_status status = mq_fail_memory(&err, "the activations", 100);
    assert_int_equal(status, MQ_ERR_MACHINE);
    assert_string_equal(err.message, "not enough memory for the activations (100 bytes)");
    assert_int_equal(mq_error_in_file(&err, status, "inner"), MQ_ERR_MACHINE);
    mq_error_in_file(&err, status, "outer");
    mq_error_in_tensor(&err, status, "t");
    mq_error_in_tensor(&err, status, "u");
    assert_string_equal(err.file, "inner");
    assert_string_equal(err.tensor, "t");
    mq_error untouched = {0};
    assert_int_equal(mq_error_in_file(&untouched, MQ_OK, "f"), MQ_OK);
    assert_string_equal(untouched.file, "");
}

static void the_first_error_is_that_of_the_first_part(void **state) {
    (void)state;
    mq_first_error first = {.status = MQ_OK};
    mq_error err = {.status = MQ_OK};
    mq_first_error_note(&first, 0, MQ_OK, &err);
    assert_int_equal(mq_first_error_take(&first, &err), MQ_OK);
    static const size_t order[] = {5, 7, 2, 3};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        mq_error own;
        const mq_status status =
            mq_fail(&own, order[i] == 2 ? MQ_ERR_INPUT : MQ_ERR_MACHINE, "part %zu", order[i]);
        mq_first_error_note(&first, order[i], status, &own);
    }
    assert_int_equal(mq_first_error_take(&first, NULL), MQ_ERR_INPUT);
    assert_int_equal(mq_first_error_take(&first, &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "part 2");
}

static void nobody_needs_to_listen(void **state) {
    (void)state;
    assert_int_equal(mq_fail_offset(NULL, MQ_ERR_INPUT, "f", "t", 1, "x"), MQ_ERR_INPUT);
    assert_int_equal(mq_error_in_file(NULL, MQ_ERR_INPUT, "f"), MQ_ERR_INPUT);
    assert_int_equal(mq_error_in_tensor(NULL, MQ_ERR_INPUT, "t"), MQ_ERR_INPUT);
}

/* --- the context's messages ------------------------------------------------------------------- */

typedef struct heard {
    char text[64];
    mq_log_level level;
    double done;
} heard;

static void hear_message(void *user, mq_log_level level, const char *text) {
    heard *h = user;
    h->level = level;
    snprintf(h->text, sizeof h->text, "%.63s", text);
}

static void hear_progress(void *user, const mq_progress *progress) {
    ((heard *)user)->done = progress->done;
}

static void context_passes_on_messages_progress_and_interrupts(void **state) {
    (void)state;
    heard h = {0};
    volatile sig_atomic_t interrupted = 0;
    mq_context context = {
        .options = {.sink = {&h, hear_message, hear_progress}, .interrupted = &interrupted}};
    mq_log(&context, MQ_LOG_INFO, "block %d", 7);
    assert_string_equal(h.text, "block 7");
    mq_log(&context, MQ_LOG_INFO, "%s", "a\033[2Jb");
    assert_string_equal(h.text, "a?[2Jb");
    assert_int_equal(h.level, MQ_LOG_INFO);
    mq_report(&context, &(mq_progress){.done = 3});
    assert_true(h.done == 3);
    mq_error err;
    assert_int_equal(mq_check_interrupt(&context, &err), MQ_OK);
    interrupted = 1;
    assert_int_equal(mq_check_interrupt(&context, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(err.status, MQ_ERR_INTERRUPTED);
}

static void without_a_context_nothing_happens(void **state) {
    (void)state;
    mq_context silent = {0};
    mq_log(NULL, MQ_LOG_WARNING, "x");
    mq_log(&silent, MQ_LOG_WARNING, "x");
    mq_report(NULL, &(mq_progress){0});
    mq_report(&silent, &(mq_progress){0});
    assert_int_equal(mq_check_interrupt(NULL, NULL), MQ_OK);
    assert_int_equal(mq_check_interrupt(&silent, NULL), MQ_OK);
    double before = mq_seconds();
    assert_true(mq_seconds() >= before);
    assert_string_equal(mq_version(), MQ_VERSION);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_has_the_parts_there_are),
        cmocka_unit_test(format_is_cut_to_size_and_says_the_whole_length),
        cmocka_unit_test(control_characters_are_shown_as_question_marks),
        cmocka_unit_test(long_path_keeps_its_end),
        cmocka_unit_test(a_file_in_a_folder),
        cmocka_unit_test(an_error_is_one_line),
        cmocka_unit_test(arguments_may_point_into_the_error),
        cmocka_unit_test(system_errors_blame_input_or_machine),
        cmocka_unit_test(file_and_tensor_are_added_once),
        cmocka_unit_test(the_first_error_is_that_of_the_first_part),
        cmocka_unit_test(nobody_needs_to_listen),
        cmocka_unit_test(context_passes_on_messages_progress_and_interrupts),
        cmocka_unit_test(without_a_context_nothing_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
