/* layer: base */
/* Output folders that are replaced, and those that are not. */
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

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

/* A slice of GPTQ's, which has all that we write. */
#define SLICE "{\"slice\": {\"format\": \"gptq\"}, \"files\": {\"pieces\": {}, \"old\": {}}}"

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
        temporary_write(folder, "out/matquant.json", SLICE, sizeof SLICE - 1);
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
    static const char *const listed[] = {"out/old", "out/pieces", "out/README.md",
                                         "out/quantize_config.json"};
    for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {
        assert_int_equal(remove(temporary_path(folder, listed[i])), 0);
    }
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
}

/* What slices alone have is somebody's notes beside a master. */
static void what_slices_have_is_not_lost_in_others(void **state) {
    temporary *folder = *state;
    mq_error err;
    static const struct {
        const char *provenance, *name;
        mq_status status;
    } cases[] = {
        {"{}", "README.md", MQ_ERR_USAGE},
        {"{}", "quantize_config.json", MQ_ERR_USAGE},
        {"{\"slice\": {\"format\": \"mlx\"}}", "README.md", MQ_OK},
        {"{\"slice\": {\"format\": \"mlx\"}}", "quantize_config.json", MQ_ERR_USAGE},
        {"{\"slice\": {\"format\": \"gptq\"}}", "README.md", MQ_OK},
        {"{\"slice\": {\"format\": \"gptq\"}}", "quantize_config.json", MQ_OK},
    };
    const char *path = temporary_path(folder, "out");
    assert_int_equal(mkdir(path, 0777), 0);
    temporary_write(folder, "out/config.json", "{}", 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        temporary_write(folder, "out/matquant.json", cases[i].provenance,
                        strlen(cases[i].provenance));
        snprintf(name, sizeof name, "out/%s", cases[i].name);
        const char *file = temporary_write(folder, name, "", 0);
        assert_int_equal(mq_output_check(path, true, &err), cases[i].status);
        if (cases[i].status != MQ_OK) {
            assert_string_equal(err.message, holds(cases[i].name));
        }
        assert_int_equal(remove(file), 0);
    }
}

/* Whoever may not write in it could not remove it either, once it has been replaced. */
static void what_is_write_protected_is_not_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(chmod(path, 0555), 0);
    if (access(path, W_OK) == 0) {
        skip();
    }
    assert_int_equal(mq_output_check(path, true, &err), MQ_ERR_USAGE);
    assert_string_equal(err.file, path);
    assert_string_equal(err.message, "is not replaced: it is write-protected, or another user's; "
                                     "use another name, or remove it yourself");
    assert_int_equal(run(path, source, true, &err), MQ_ERR_USAGE);
    assert_int_equal(temporary_entries(folder->path), 2);
    assert_int_equal(chmod(path, 0755), 0);
    mq_output *output = NULL;
    assert_int_equal(mq_output_begin(&output, path, true, &err), MQ_OK);
    assert_int_equal(write_files(output, source, &err), MQ_OK);
    assert_int_equal(chmod(path, 0555), 0);
    assert_int_equal(mq_output_commit(output, &err), MQ_ERR_USAGE);
    mq_output_discard(output);
    assert_int_equal(chmod(path, 0755), 0);
    assert_written(path);
    assert_written(kept_beside(folder, &err));
    assert_int_equal(temporary_entries(folder->path), 3);
}

static mode_t mode_of(const char *path) {
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return about.st_mode & 07777;
}

/* From the moment on that it is made, and also if they are others by the end. */
static void permissions_of_a_folder_are_kept(void **state) {
    temporary *folder = *state;
    mq_error err;
    const mode_t before = umask(0022);
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(mode_of(path), 0755);
    static const mode_t modes[] = {0700, 0750, 0777, 0711};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        mq_output *output = NULL;
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(mq_output_begin(&output, path, true, &err), MQ_OK);
        assert_int_equal(mode_of(mq_output_folder(output)), modes[i]);
        assert_int_equal(write_files(output, source, &err), MQ_OK);
        const mode_t last = i == 0 ? 0770 : modes[i];
        assert_int_equal(chmod(path, last), 0);
        assert_int_equal(mq_output_commit(output, &err), MQ_OK);
        mq_output_discard(output);
        assert_int_equal(mode_of(path), last);
        assert_written(path);
    }
    /* Where they are the same nothing is asked for; where they cannot be given nothing is begun. */
    assert_int_equal(chmod(path, 0755), 0);
    fault_begin("chmod", 1, "EPERM");
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_false(fault_end());
    assert_int_equal(chmod(path, 0700), 0);
    fault_begin("chmod", 1, "EPERM");
    assert_int_equal(run(path, source, true, &err), MQ_ERR_MACHINE);
    assert_true(fault_end());
    assert_string_equal(err.message,
                        "cannot give its permissions to the new one: Operation not permitted");
    assert_int_equal(temporary_entries(folder->path), 2);
    umask(before);
}

static mq_status begin_anew(const char *path, mq_error *err) {
    mq_output *output = NULL;
    const mq_status status = mq_output_begin(&output, path, true, err);
    mq_output_discard(output);
    return status;
}

static mq_status check_anew(const char *path, mq_error *err) {
    return mq_output_check(path, true, err);
}

/* What breaks off is not taken for the whole of it. */
static void what_cannot_be_looked_through_is_not_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    const char *theirs = temporary_write(folder, "out/notes", "mine", 4);
    static const char *const calls[][2] = {{"list", "EIO"}, {"open", "EMFILE"}, {"read", "EIO"}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        assert_true(never_goes_on(begin_anew, path, calls[i][0], calls[i][1]) > 0);
        assert_true(never_goes_on(check_anew, path, calls[i][0], calls[i][1]) > 0);
        assert_file(theirs, "mine");
        assert_int_equal(temporary_entries(folder->path), 2);
    }
}

/* What a killed run has left in it is no hindrance, but where the file system knows no locks nobody
 * can tell that it was one. */
static void what_may_be_at_work_is_not_replaced(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(mkdir(temporary_path(folder, "out/.pieces.matquant-aB3_-z"), 0777), 0);
    fault_begin("lock", 1, "ENOLCK");
    assert_int_equal(mq_output_check(path, true, &err), MQ_ERR_USAGE);
    assert_true(fault_end());
    assert_string_equal(err.message, holds(".pieces.matquant-aB3_-z"));
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_written(path);
}

/* --- while the output was made ---------------------------------------------------------------- */

/* Neither what appeared nor what was made is lost: not even to the next run. */
static void what_appears_meanwhile_is_kept(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    for (int fallback = 0; fallback < 2; fallback++) {
        mq_output *output = NULL;
        assert_int_equal(mq_output_begin(&output, path, false, &err), MQ_OK);
        assert_int_equal(write_files(output, source, &err), MQ_OK);
        assert_int_equal(mkdir(path, 0777), 0);
        assert_true(mq_fault_configure(fallback ? "rename:1:EINVAL" : NULL));
        assert_int_equal(mq_output_commit(output, &err), MQ_ERR_USAGE);
        assert_true(mq_fault_configure(NULL));
        assert_string_equal(err.file, path);
        assert_non_null(strstr(err.message, "; what is there has appeared meanwhile"));
        mq_output_discard(output);
        assert_int_equal(temporary_entries(path), 0);
        assert_int_equal(rmdir(path), 0);
        const char *kept = kept_beside(folder, &err);
        assert_int_equal(run(path, source, false, &err), MQ_OK);
        assert_written(kept);
        temporary_remove(kept);
        temporary_remove(path);
        assert_int_equal(temporary_entries(folder->path), 1);
    }
}

static void what_appears_in_the_old_output_is_kept(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    mq_output *output = NULL;
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(mq_output_begin(&output, path, true, &err), MQ_OK);
    assert_int_equal(write_files(output, source, &err), MQ_OK);
    const char *theirs = temporary_write(folder, "out/notes", "mine", 4);
    assert_int_equal(mq_output_commit(output, &err), MQ_ERR_USAGE);
    assert_non_null(strstr(err.message, "; what is there is not replaced: it holds \"notes\""));
    mq_output_discard(output);
    assert_file(theirs, "mine");
    assert_int_equal(remove(theirs), 0);
    assert_written(path);
    assert_written(kept_beside(folder, &err));
    assert_int_equal(temporary_entries(folder->path), 3);
}

/* Whatever the file system says: hours of work are not lost for it. */
static void what_cannot_be_put_in_place_is_kept(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    for (int replace = 0; replace < 2; replace++) {
        assert_true(mq_fault_configure("rename:1:EACCES"));
        assert_int_equal(run(path, source, replace, &err), MQ_ERR_INPUT);
        assert_true(mq_fault_configure(NULL));
        assert_string_equal(err.file, path);
        assert_non_null(strstr(err.message, "; cannot rename the finished output: "));
        const char *kept = kept_beside(folder, &err);
        assert_written(kept);
        temporary_remove(kept);
        assert_int_equal(temporary_entries(folder->path), 1 + (size_t)replace);
        assert_int_equal(run(path, source, replace, &err), MQ_OK);
    }
}

/* Where it cannot have that name either it stays where it was made, until the next run. */
static void what_cannot_be_moved_stays_for_the_next_run(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    assert_true(mq_fault_configure("rename:1:EACCES,rename:2:EACCES"));
    assert_int_equal(run(path, source, false, &err), MQ_ERR_INPUT);
    assert_true(mq_fault_configure(NULL));
    char name[64] = "";
    assert_int_equal(sscanf(err.message, "what was made is kept as %63[^,]", name), 1);
    assert_int_equal(strncmp(name, ".out.matquant-", 14), 0);
    assert_non_null(strstr(err.message, ", which the next run with this output removes; cannot "));
    assert_written(temporary_path(folder, name));
    assert_int_equal(temporary_entries(folder->path), 2);
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    assert_int_equal(temporary_entries(folder->path), 2);
}

/* A process that has the old folder to itself, to write in it, is not interrupted. */
static void a_folder_that_is_held_is_waited_for(void **state) {
    temporary *folder = *state;
    mq_error err;
    const char *source = temporary_write(folder, "source", SOURCE, sizeof SOURCE - 1);
    const char *path = temporary_path(folder, "out");
    enum { NOTHING, HELD, LET_GO };
    atomic_int *at =
        mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    assert_int_equal(run(path, source, false, &err), MQ_OK);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int lock;
        const mq_status status = mq_folder_lock(&lock, path, NULL, NULL);
        atomic_store(at, status == MQ_OK ? HELD : LET_GO);
        usleep(300000);
        atomic_store(at, LET_GO);
        mq_folder_unlock(lock);
        _exit(0);
    }
    while (atomic_load(at) != HELD) {
        usleep(1000);
    }
    assert_int_equal(run(path, source, true, &err), MQ_OK);
    assert_int_equal(atomic_load(at), LET_GO);
    assert_int_equal(waitpid(child, NULL, 0), child);
    munmap(at, sizeof *at);
}

/* Nor is a request to stop forgotten meanwhile. */
static void waiting_for_a_folder_is_interrupted(void **state) {
    temporary *folder = *state;
    volatile sig_atomic_t flag = 1;
    const struct mq_context context = {.options = {.interrupted = &flag}, .threads = 1};
    int first, second;
    mq_error err;
    assert_int_equal(mq_folder_lock(&first, folder->path, &context, &err), MQ_OK);
    assert_true(first >= 0);
    assert_int_equal(mq_folder_lock(&second, folder->path, &context, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(second, -1);
    mq_folder_unlock(first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_ours_is_not_replaced),
        TEST(a_file_that_we_do_not_write_is_not_lost),
        TEST(what_slices_have_is_not_lost_in_others),
        TEST(what_is_write_protected_is_not_replaced),
        TEST(permissions_of_a_folder_are_kept),
        TEST(what_cannot_be_looked_through_is_not_replaced),
        TEST(what_may_be_at_work_is_not_replaced),
        TEST(what_appears_meanwhile_is_kept),
        TEST(what_appears_in_the_old_output_is_kept),
        TEST(what_cannot_be_put_in_place_is_kept),
        TEST(what_cannot_be_moved_stays_for_the_next_run),
        TEST(a_folder_that_is_held_is_waited_for),
        TEST(waiting_for_a_folder_is_interrupted),
    };
    obey_permissions();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
