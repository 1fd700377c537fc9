/* layer: base */
/* Texts that come when they come, through a pipe, or never. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/context.h"
#include "base/file.h"
#include "temporary.h"

#define LIMIT ((size_t)1 << 24)

static volatile sig_atomic_t interrupted;

static void on_alarm(int number) { interrupted = number; }

static const mq_context context = {.options = {.interrupted = &interrupted}};

/* Sets `interrupted` in a while, as the command line's signals do: no call of the system returns
 * for that. */
static void interrupt_later(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval later = {.it_value = {.tv_usec = 150000}};
    interrupted = 0;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &later, NULL), 0);
}

static void assert_interrupted(const char *path) {
    char *text = NULL, digest[65];
    size_t size;
    mq_error err = {0};
    interrupt_later();
    assert_int_equal(mq_read_file_digest(&text, &size, digest, path, LIMIT, &context, &err),
                     MQ_ERR_INTERRUPTED);
    assert_string_equal(err.message, "interrupted");
    assert_string_equal(err.file, "");
    assert_null(text);
}

static const char *make_pipe(temporary *folder) {
    const char *path = temporary_path(folder, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    return path;
}

static void a_pipe_that_nobody_writes_to_is_left(void **state) {
    assert_interrupted(make_pipe(*state));
}

static void a_pipe_that_says_no_more_is_left(void **state) {
    const char *path = make_pipe(*state);
    const int fd = open(path, O_RDWR); /* a writer that stays */
    assert_true(fd >= 0);
    assert_interrupted(path);
    assert_int_equal(write(fd, "text", 4), 4);
    assert_interrupted(path);
    close(fd);
}

/* A request that has come already, however fast the file would be read. */
static void plain_files_are_left_too(void **state) {
    const char *path = temporary_write(*state, "text", "text", 4);
    char *text = NULL;
    size_t size = 0;
    interrupted = 1;
    assert_int_equal(mq_read_file_digest(&text, &size, NULL, path, LIMIT, &context, NULL),
                     MQ_ERR_INTERRUPTED);
    interrupted = 0;
    assert_int_equal(mq_read_file_digest(&text, &size, NULL, path, LIMIT, &context, NULL), MQ_OK);
    assert_string_equal(text, "text");
    mq_free(text);
}

/* Whatever pauses its writer makes, and however late it comes. */
static void a_slow_pipe_is_read_whole(void **state) {
    const char *path = make_pipe(*state);
    enum { PARTS = 3, PART = 100000 };
    char *text = NULL;
    size_t size = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static char part[PART];
        usleep(150000);
        const int fd = open(path, O_WRONLY);
        ssize_t put = PART;
        for (int i = 0; i < PARTS && put == PART; i++) {
            usleep(150000);
            memset(part, 'a' + i, PART);
            put = write(fd, part, PART);
        }
        _exit(put == PART ? 0 : 1);
    }
    interrupted = 0;
    assert_int_equal(mq_read_file_digest(&text, &size, NULL, path, LIMIT, &context, NULL), MQ_OK);
    assert_int_equal(size, PARTS * PART);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(text[i], 'a' + i / PART);
    }
    mq_free(text);
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* One in the place of a file that is mapped is refused, and not waited for. */
static void a_pipe_is_not_mapped(void **state) {
    mq_mapping mapping;
    mq_error err;
    assert_int_equal(mq_map_file(&mapping, make_pipe(*state), &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "not a regular file");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_setup, temporary_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_pipe_that_nobody_writes_to_is_left),
        TEST(a_pipe_that_says_no_more_is_left),
        TEST(plain_files_are_left_too),
        TEST(a_slow_pipe_is_read_whole),
        TEST(a_pipe_is_not_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
