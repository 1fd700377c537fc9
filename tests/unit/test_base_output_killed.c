/* layer: base */
/* Output folders that killed runs left, and runs that start at once. */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/keep.h"
#include "output_fixture.h"

/* A child that is in the middle of writing `path` and stays there. */
static pid_t start_writing(const char *path) {
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60); /* should the test fail meanwhile */
        mq_output *output = NULL;
        char said = mq_output_begin(&output, path, false, NULL) == MQ_OK &&
                            mq_write_file(output, "config.json", "{", 1, NULL) == MQ_OK
                        ? 'y'
                        : 'n';
        if (write(ready[1], &said, 1) == 1) {
            pause();
        }
        _exit(1);
    }
    char said = 'n';
    assert_int_equal(read(ready[0], &said, 1), 1);
    assert_int_equal(said, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void folders_of_killed_runs_are_removed_by_the_next(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *path = temporary_path(folder, "out");
    const char *other = temporary_path(folder, "out2");
    pid_t killed = start_writing(path);
    pid_t killed_other = start_writing(other);
    assert_int_equal(temporary_entries(folder->path), 2);
    kill(killed, SIGKILL);
    kill(killed_other, SIGKILL);
    assert_int_equal(waitpid(killed, NULL, 0), killed);
    assert_int_equal(waitpid(killed_other, NULL, 0), killed_other);
    assert_int_equal(temporary_entries(folder->path), 2);
    assert_int_equal(mkdir(temporary_path(folder, ".out.matquant-notours"), 0777), 0);

    mq_output *output = NULL; /* takes away the killed run's; keeps the other name's, and what is
                                 not ours */
    assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_OK);
    assert_int_equal(temporary_entries(folder->path), 3);
    mq_output_discard(output);

    pid_t alive = start_writing(path);
    assert_int_equal(temporary_entries(folder->path), 3);
    assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_ERR_USAGE);
    assert_string_equal(err.message, "is being made by another run");
    assert_int_equal(temporary_entries(folder->path), 3);
    kill(alive, SIGKILL);
    assert_int_equal(waitpid(alive, NULL, 0), alive);
    assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_OK);
    assert_int_equal(temporary_entries(folder->path), 3);
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 2);
    assert_false(mq_path_exists(path));
}

/* One that was writing a file in the output: eval --record. */
static void what_killed_runs_left_inside_is_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    pid_t alive = start_writing(temporary_path(folder, "out/inside"));
    assert_int_equal(temporary_entries(path), 4);
    assert_int_equal(run(path, source, true, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "is not replaced: it holds \".inside.matquant-"));
    kill(alive, SIGKILL);
    assert_int_equal(waitpid(alive, NULL, 0), alive);
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
    assert_int_equal(temporary_entries(folder->path), 2);
}

/* What they take of the disk is as good as free; what a run has that is at work is not. */
static void folders_of_killed_runs_are_counted(void **state) {
    temporary *folder = *state;
    enum { KILOBYTES = 300 };
    static char bytes[KILOBYTES << 10];
    memset(bytes, 'x', sizeof bytes);
    const char *path = temporary_path(folder, "out"), *beside = temporary_path(folder, "out2");
    assert_int_equal(mq_output_leftover(path), 0);
    const pid_t alive = start_writing(path);
    assert_int_equal(mq_output_leftover(path), 0);
    kill(alive, SIGKILL);
    assert_int_equal(waitpid(alive, NULL, 0), alive);
    assert_int_equal(mkdir(temporary_path(folder, ".out.matquant-killed"), 0777), 0);
    temporary_write(folder, ".out.matquant-killed/pieces", bytes, sizeof bytes);
    assert_in_range(mq_output_leftover(path), sizeof bytes, 2 * sizeof bytes);
    assert_in_range(mq_output_leftover(temporary_path(folder, "out//")), sizeof bytes,
                    2 * sizeof bytes);
    assert_in_range(mq_keep_leftover(folder->path), sizeof bytes, 2 * sizeof bytes);
    assert_int_equal(mq_output_leftover(beside), 0);
    assert_int_equal(mq_output_leftover(temporary_path(folder, "nowhere/out")), 0);
    mq_output *output = NULL; /* and then it is */
    assert_int_equal(mq_output_begin(&output, path, false, NULL), MQ_OK);
    assert_int_equal(mq_output_leftover(path), 0);
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 0);
}

/* Whoever writes the provenance anew is done before the folder is replaced, and is no hindrance. */
static void a_provenance_that_is_being_written_is_passed_over(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(remove(temporary_path(folder, "out/matquant.json")), 0);
    const pid_t alive = start_writing(temporary_path(folder, "out/matquant.json"));
    temporary_write(folder, "out/matquant.json", SOURCE, sizeof SOURCE - 1);
    assert_int_equal(temporary_entries(path), 4);
    assert_int_equal(mq_output_check(path, true, &err), MQ_OK);
    kill(alive, SIGKILL);
    assert_int_equal(waitpid(alive, NULL, 0), alive);
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
}

/* Its owner may change that, and nobody would ever remove it otherwise. */
static void a_write_protected_one_is_removed_as_well(void **state) {
    temporary *folder = *state;
    const char *left = temporary_path(folder, ".out.matquant-killed");
    assert_int_equal(mkdir(left, 0777), 0);
    temporary_write(folder, ".out.matquant-killed/config.json", "{", 1);
    assert_int_equal(mkdir(temporary_path(folder, ".out.matquant-killed/inner"), 0777), 0);
    temporary_write(folder, ".out.matquant-killed/inner/x", "x", 1);
    assert_int_equal(chmod(temporary_path(folder, ".out.matquant-killed/inner"), 0555), 0);
    assert_int_equal(chmod(left, 0555), 0);
    if (access(left, W_OK) == 0) {
        skip();
    }
    mq_output *output = NULL;
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, NULL), MQ_OK);
    mq_output_discard(output);
    assert_int_equal(temporary_entries(folder->path), 0);
}

/* What two processes that start at once do to one another. */
typedef struct meeting {
    atomic_int ready, done, made;
} meeting;

static pid_t start_at_once(const char *path, meeting *at) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mq_output *output = NULL;
        alarm(60); /* the other one may be no more */
        for (atomic_fetch_add(&at->ready, 1); atomic_load(&at->ready) < 2;) {
            sched_yield();
        }
        const mq_status status = mq_output_begin(&output, path, false, NULL);
        atomic_fetch_add(&at->made, status == MQ_OK);
        for (atomic_fetch_add(&at->done, 1); atomic_load(&at->done) < 2;) {
            sched_yield();
        }
        mq_output_discard(output);
        _exit(status == MQ_OK || status == MQ_ERR_USAGE ? 0 : 1);
    }
    return child;
}

static void of_two_that_start_at_once_one_goes_on_at_most(void **state) {
    temporary *folder = *state;
    const char *path = temporary_path(folder, "out");
    meeting *at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    for (int i = 0; i < 50; i++) {
        *at = (meeting){0};
        const pid_t children[] = {start_at_once(path, at), start_at_once(path, at)};
        for (size_t c = 0; c < 2; c++) {
            int status = 1;
            assert_int_equal(waitpid(children[c], &status, 0), children[c]);
            assert_int_equal(status, 0);
        }
        assert_true(atomic_load(&at->made) <= 1);
        assert_int_equal(temporary_entries(folder->path), 0);
    }
    munmap(at, sizeof *at);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(folders_of_killed_runs_are_removed_by_the_next),
        TEST(of_two_that_start_at_once_one_goes_on_at_most),
        TEST(folders_of_killed_runs_are_counted),
        TEST(what_killed_runs_left_inside_is_replaced),
        TEST(a_provenance_that_is_being_written_is_passed_over),
        TEST(a_write_protected_one_is_removed_as_well),
    };
    obey_permissions();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
