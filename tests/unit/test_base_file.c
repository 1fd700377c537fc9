/* layer: base */
#include <sys/stat.h>
#include <zlib.h>

#include "base/fault.h"
#include "base/file.h"
#include "temporary.h"

#define LIMIT ((size_t)16 << 20)

static int setup(void **state) {
    mq_fault_configure(NULL);
    return temporary_setup(state);
}

static int teardown(void **state) {
    mq_fault_configure(NULL);
    mq_alloc_fail_after(0);
    return temporary_teardown(state);
}

/* Text that does not compress to nothing. */
static char *make_text(size_t size) {
    char *text = malloc(size + 1);
    assert_non_null(text);
    uint32_t number = 1;
    for (size_t i = 0; i < size; i++) {
        number = number * 1664525u + 1013904223u;
        text[i] = (char)('a' + (number >> 24) % 26);
    }
    text[size] = '\0';
    return text;
}

/* Appends a gzip member; returns the new length. */
static size_t gzip(unsigned char *out, size_t used, size_t room, const char *text, size_t size) {
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)text;
    stream.avail_in = (uInt)size;
    stream.next_out = out + used;
    stream.avail_out = (uInt)(room - used);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t end = room - stream.avail_out;
    deflateEnd(&stream);
    return end;
}

static void assert_reads(const char *path, const char *expected, size_t size) {
    mq_error err = {0};
    char *text = NULL;
    size_t got = 0;
    mq_status status = mq_read_file(&text, &got, path, LIMIT, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, MQ_OK);
    assert_int_equal(got, size);
    assert_memory_equal(text, expected, size + 1);
    mq_free(text);
}

static void assert_refused(const char *path, size_t max_size, mq_status expected,
                           const char *message) {
    mq_error err = {0};
    char *text = NULL;
    size_t got = 0;
    assert_int_equal(mq_read_file(&text, &got, path, max_size, &err), expected);
    assert_null(text);
    assert_string_equal(err.file, path);
    if (strstr(err.message, message) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", err.message, message);
    }
}

static void plain_files_are_read_whole(void **state) {
    temporary *folder = *state;
    const size_t sizes[] = {0, 1, 2, 1000, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *text = make_text(sizes[i]);
        assert_reads(temporary_write(folder, "plain", text, sizes[i]), text, sizes[i]);
        free(text);
    }
    assert_refused(temporary_path(folder, "none"), LIMIT, MQ_ERR_INPUT, "No such file");
    assert_refused(folder->path, LIMIT, MQ_ERR_INPUT, "Is a directory");
    const char *path = temporary_write(folder, "ten", "0123456789", 10);
    assert_refused(path, 9, MQ_ERR_INPUT, "more than 9 bytes");
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(mq_read_file(&text, &size, path, 10, NULL), MQ_OK);
    mq_free(text);
}

static void what_has_no_size_is_read_too(void **state) {
    (void)state;
    int ends[2];
    char path[32];
    mq_error err;
    mq_mapping mapping;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "through a pipe", 14), 14);
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(mq_map_file(&mapping, path, &err), MQ_ERR_INPUT);
    assert_string_equal(err.message, "not a regular file");
    assert_reads(path, "through a pipe", 14);
    close(ends[0]);
}

static void gzip_is_unpacked(void **state) {
    temporary *folder = *state;
    const size_t room = 4 << 20;
    unsigned char *packed = malloc(room);
    assert_non_null(packed);
    const size_t sizes[] = {0, 1, 5000, 256 << 10, 2 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *text = make_text(sizes[i]);
        size_t length = gzip(packed, 0, room, text, sizes[i]);
        assert_reads(temporary_write(folder, "one.gz", packed, length), text, sizes[i]);
        free(text);
    }
    char *text = make_text(600000); /* two members, joined */
    size_t length = gzip(packed, 0, room, text, 250000);
    length = gzip(packed, length, room, text + 250000, 350000);
    assert_reads(temporary_write(folder, "two.gz", packed, length), text, 600000);
    assert_refused(temporary_path(folder, "two.gz"), 599999, MQ_ERR_INPUT,
                   "more than 599999 bytes");
    free(text);
    free(packed);
}

/* At the end, between two members, and over more than one piece that is read. */
static void zeros_after_gzip_are_passed_over(void **state) {
    temporary *folder = *state;
    const size_t room = 2 << 20, zeros[] = {1, 512, 600000};
    unsigned char *packed = malloc(room);
    assert_non_null(packed);
    char *text = make_text(2000);
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        memset(packed, 0, room);
        size_t length = gzip(packed, 0, room, text, 1000) + zeros[i];
        text[1000] = '\0';
        assert_reads(temporary_write(folder, "end.gz", packed, length), text, 1000);
        text[1000] = text[999];
        length = gzip(packed, length, room, text + 1000, 1000);
        assert_reads(temporary_write(folder, "between.gz", packed, length), text, 2000);
        assert_reads(temporary_write(folder, "both.gz", packed, length + zeros[i]), text, 2000);
        memcpy(packed + length + zeros[i], "x", 1);
        assert_refused(temporary_write(folder, "more.gz", packed, length + zeros[i] + 1), LIMIT,
                       MQ_ERR_INPUT, "broken gzip stream");
    }
    free(text);
    free(packed);
}

static void broken_gzip_is_refused(void **state) {
    temporary *folder = *state;
    unsigned char packed[4096];
    char *text = make_text(1000);
    size_t length = gzip(packed, 0, sizeof packed, text, 1000);
    for (size_t cut = 2; cut < length; cut++) {
        assert_refused(temporary_write(folder, "cut.gz", packed, cut), LIMIT, MQ_ERR_INPUT,
                       "broken gzip stream: it ends too early");
    }
    memcpy(packed + length, "garbage", 7);
    assert_refused(temporary_write(folder, "more.gz", packed, length + 7), LIMIT, MQ_ERR_INPUT,
                   "broken gzip stream");
    packed[length - 8] ^= 1; /* the CRC */
    assert_refused(temporary_write(folder, "crc.gz", packed, length), LIMIT, MQ_ERR_INPUT,
                   "broken gzip stream: incorrect data check");
    packed[length - 8] ^= 1;
    packed[2] = 99; /* the method */
    mq_error err;
    char *out = NULL;
    size_t size;
    const char *path = temporary_write(folder, "method.gz", packed, length);
    assert_int_equal(mq_read_file(&out, &size, path, LIMIT, &err), MQ_ERR_INPUT);
    assert_true(err.has_offset);
    assert_in_range(err.offset, 2, 4);
    free(text);
}

static void reading_survives_short_reads_and_reports_errors(void **state) {
    temporary *folder = *state;
    char *text = make_text(1 << 20);
    const char *path = temporary_write(folder, "plain", text, 1 << 20);
    for (int n = 1; n <= 6; n++) {
        char fault[32];
        snprintf(fault, sizeof fault, "read:%d:SHORT", n);
        assert_true(mq_fault_configure(fault));
        assert_reads(path, text, 1 << 20);
        snprintf(fault, sizeof fault, "read:%d:EIO", n);
        assert_true(mq_fault_configure(fault));
        if (n <= 5) { /* four pieces and the end */
            assert_refused(path, LIMIT, MQ_ERR_MACHINE, "cannot read: Input/output error");
        } else {
            assert_reads(path, text, 1 << 20);
        }
    }
    unsigned char packed[1024];
    size_t length = gzip(packed, 0, sizeof packed, text, 500);
    text[500] = '\0';
    const char *gz = temporary_write(folder, "a.gz", packed, length);
    assert_true(mq_fault_configure("read:1:SHORT,read:2:SHORT,read:3:SHORT"));
    assert_reads(gz, text, 500);
    assert_true(mq_fault_configure("open:1:EMFILE"));
    assert_refused(path, LIMIT, MQ_ERR_MACHINE, "cannot open: Too many open files");
    char digest[65];
    mq_error err;
    assert_true(mq_fault_configure("read:2:EIO"));
    assert_int_equal(mq_sha256_file(digest, path, NULL, &err), MQ_ERR_MACHINE);
    assert_string_equal(err.file, path);
    free(text);
}

static void reading_survives_lack_of_memory(void **state) {
    temporary *folder = *state;
    unsigned char *packed = malloc(2 << 20);
    char *text = make_text(1 << 20);
    assert_non_null(packed);
    temporary_write(folder, "plain", text, 1 << 20);
    temporary_write(folder, "a.gz", packed, gzip(packed, 0, 2 << 20, text, 1 << 20));
    const char *names[] = {"plain", "a.gz"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = temporary_path(folder, names[i]);
        size_t before = mq_alloc_current();
        for (size_t countdown = 1;; countdown++) {
            mq_error err = {0};
            char *out = NULL;
            size_t size;
            mq_alloc_fail_after(countdown);
            mq_status status = mq_read_file(&out, &size, path, LIMIT, &err);
            mq_alloc_fail_after(0);
            if (status == MQ_OK) {
                assert_memory_equal(out, text, (1 << 20) + 1);
                mq_free(out);
                assert_true(countdown >= 3);
                break;
            }
            assert_int_equal(status, MQ_ERR_MACHINE);
            assert_string_equal(err.file, path);
            assert_int_equal(mq_alloc_current(), before);
        }
    }
    free(text);
    free(packed);
}

static void faults_are_understood_or_refused(void **state) {
    (void)state;
    assert_true(mq_fault_configure("write:3:ENOSPC,rename:1:EIO"));
    assert_true(mq_fault_configure(""));
    assert_false(mq_fault_configure("write:3"));
    assert_false(mq_fault_configure("write:x:EIO"));
    assert_false(mq_fault_configure("write:1:EWHAT"));
    assert_false(mq_fault_configure("close:1:EIO"));
    assert_false(mq_fault_configure("write:1:EIO;"));
    assert_false(mq_fault_configure("write:1:EIO,,"));
}

/* The linker sends the calls through here (cmake/MatquantTests.cmake). */
static struct {
    size_t calls;
    uint64_t end; /* of the last range */
} begun;

void __real_mq_sys_begin_sync(int fd, uint64_t offset, uint64_t size);
void __wrap_mq_sys_begin_sync(int fd, uint64_t offset, uint64_t size);

void __wrap_mq_sys_begin_sync(int fd, uint64_t offset, uint64_t size) {
    assert_true(offset == begun.end); /* nothing twice, and nothing left out */
    begun.calls++;
    begun.end = offset + size;
    __real_mq_sys_begin_sync(fd, offset, size);
}

/* What was written is on its way to the disk long before the file is closed. */
static void files_are_written_behind(void **state) {
    temporary *folder = *state;
    enum { PIECE = 1 << 20, PIECES = 40 };
    mq_output *output = NULL;
    mq_writer *writer = NULL;
    char *piece = make_text(PIECE);
    assert_int_equal(mq_output_begin(&output, temporary_path(folder, "out"), false, NULL), MQ_OK);
    assert_int_equal(mq_writer_open(&writer, output, "large", NULL), MQ_OK);
    begun.calls = 0;
    begun.end = 0;
    for (uint64_t i = 1; i <= PIECES; i++) {
        assert_int_equal(mq_write(writer, piece, PIECE, NULL), MQ_OK);
        assert_true(i * PIECE - begun.end < (uint64_t)16 * PIECE);
    }
    assert_true(begun.calls >= 2 && begun.calls <= PIECES / 4); /* and not a piece at a time */
    assert_int_equal(mq_writer_close(writer, NULL), MQ_OK);
    mq_output_discard(output);
    free(piece);
}

static void files_are_mapped(void **state) {
    temporary *folder = *state;
    char *text = make_text(100000);
    mq_error err;
    mq_mapping mapping;
    const char *path = temporary_write(folder, "mapped", text, 100000);
    assert_int_equal(mq_map_file(&mapping, path, &err), MQ_OK);
    assert_int_equal(mapping.size, 100000);
    const size_t hints[][2] = {{0, 100000},       {1, 5},      {5000, 20000},
                               {99999, SIZE_MAX}, {100000, 1}, {SIZE_MAX, 1}};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        mq_map_will_need(&mapping, hints[i][0], hints[i][1]);
        mq_map_dont_need(&mapping, hints[i][0], hints[i][1]);
        assert_memory_equal(mapping.data, text, 100000);
    }
    mq_unmap_file(&mapping);
    assert_null(mapping.data);
    free(text);
    assert_int_equal(mq_map_file(&mapping, temporary_write(folder, "empty", "", 0), &err), MQ_OK);
    assert_null(mapping.data);
    assert_int_equal(mapping.size, 0);
    mq_map_will_need(&mapping, 0, 10);
    mq_unmap_file(&mapping);
    assert_int_equal(mq_map_file(&mapping, folder->path, &err), MQ_ERR_INPUT);
    assert_true(mq_fault_configure("map:1:ENOMEM"));
    path = temporary_path(folder, "mapped");
    assert_int_equal(mq_map_file(&mapping, path, &err), MQ_ERR_MACHINE);
    assert_string_equal(err.file, path);
    assert_string_equal(err.message, "cannot map: Cannot allocate memory");
}

static void check_parents(void) {
    static const char *const parents[][2] = {{"a", "."},     {"a//", "."},      {"a/b/", "a"},
                                             {"/a", "/"},    {"/", "/"},        {"", "."},
                                             {"../a", ".."}, {"a/../b", "a/.."}};
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        char *parent = mq_path_parent(parents[i][0]);
        assert_string_equal(parent, parents[i][1]);
        mq_free(parent);
    }
}

static void paths_are_taken_apart(void **state) {
    temporary *folder = *state;
    char *joined = mq_path_join("a/", "b");
    assert_string_equal(joined, "a/b");
    mq_free(joined);
    joined = mq_path_join("a", "b");
    assert_string_equal(joined, "a/b");
    mq_free(joined);
    joined = mq_path_join("", "b");
    assert_string_equal(joined, "b");
    mq_free(joined);
    assert_string_equal(mq_path_base("a/b/c"), "c");
    assert_string_equal(mq_path_base("c"), "c");
    static const char *const named[][2] = {
        {"/models/int4/", "int4"}, {"int4", "int4"}, {"a//b//", "b"}, {"/", ""}, {"", ""}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        char *name = mq_path_name(named[i][0]);
        assert_string_equal(name, named[i][1]);
        mq_free(name);
    }
    const char *a = temporary_write(folder, "a", "12345", 5);
    const char *link_path = temporary_path(folder, "link");
    const char *broken = temporary_path(folder, "broken");
    assert_int_equal(symlink(a, link_path), 0);
    assert_int_equal(symlink("nowhere", broken), 0);
    assert_true(mq_same_file(a, link_path));
    assert_true(mq_same_file(a, a));
    assert_false(mq_same_file(a, folder->path));
    assert_false(mq_same_file(a, broken));
    check_parents();
    const char *const places[][2] = {{"new", "new/"}, {"new", "./new//"}, {"new/x", "new/x/"}};
    for (size_t i = 0; i < 3; i++) {
        bool same = false;
        assert_int_equal(mq_same_place(&same, temporary_path(folder, places[i][0]),
                                       temporary_path(folder, places[i][1]), NULL),
                         MQ_OK);
        assert_true(same == (i < 2)); /* nothing is said of folders that are not there */
        assert_int_equal(mq_same_place(&same, a, temporary_path(folder, places[i][1]), NULL),
                         MQ_OK);
        assert_false(same);
    }
    assert_true(mq_path_exists(broken));
    assert_true(mq_is_folder(folder->path));
    assert_false(mq_is_folder(a));
    size_t size;
    mq_error err;
    assert_int_equal(mq_file_size(&size, a, NULL), MQ_OK);
    assert_int_equal(size, 5);
    assert_int_equal(mq_file_size(&size, broken, &err), MQ_ERR_INPUT);
    assert_string_equal(err.file, broken);
    assert_int_equal(mq_file_size(&size, folder->path, &err), MQ_ERR_INPUT);
}

static void folders_are_listed_in_order(void **state) {
    temporary *folder = *state;
    const char *names[] = {"b", "B", ".hidden", "a10", "a9", "\xc3\xa4"};
    const char *sorted[] = {".hidden", "B", "a10", "a9", "b", "linked", "\xc3\xa4"};
    for (size_t i = 0; i < 6; i++) {
        temporary_write(folder, names[i], "", 0);
    }
    assert_int_equal(mkdir(temporary_path(folder, "inner"), 0777), 0);
    assert_int_equal(symlink("a9", temporary_path(folder, "linked")), 0);
    for (size_t countdown = 1;; countdown++) {
        char **list = NULL;
        size_t count = 0;
        mq_error err;
        size_t before = mq_alloc_current();
        mq_alloc_fail_after(countdown);
        mq_status status = mq_list_folder(&list, &count, folder->path, &err);
        mq_alloc_fail_after(0);
        if (status == MQ_OK) {
            assert_int_equal(count, 7);
            for (size_t i = 0; i < 7; i++) {
                assert_string_equal(list[i], sorted[i]);
            }
            mq_free_list(list, count);
            break;
        }
        assert_int_equal(status, MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), before);
    }
    char **list = NULL;
    size_t count = 0;
    mq_error err;
    assert_int_equal(mq_list_folder(&list, &count, temporary_path(folder, "none"), &err),
                     MQ_ERR_INPUT);
    assert_int_equal(mq_list_folder(&list, &count, temporary_path(folder, "b"), &err),
                     MQ_ERR_INPUT);
    assert_int_equal(mq_list_folder(&list, &count, temporary_path(folder, "inner"), &err), MQ_OK);
    assert_int_equal(count, 0);
    mq_free_list(list, count);
}

static void a_folder_has_the_bytes_of_its_files(void **state) {
    temporary *folder = *state;
    size_t size = 1;
    assert_int_equal(mkdir(temporary_path(folder, "inner"), 0777), 0);
    temporary_write(folder, "inner/c", "no file of the folder", 21);
    assert_int_equal(mq_folder_size(&size, folder->path, NULL), MQ_OK);
    assert_int_equal(size, 0);
    temporary_write(folder, "a", "abc", 3);
    temporary_write(folder, "b", "", 0);
    temporary_write(folder, ".d", "defgh", 5);
    assert_int_equal(mq_folder_size(&size, folder->path, NULL), MQ_OK);
    assert_int_equal(size, 8);
    assert_int_equal(mq_folder_size(&size, temporary_path(folder, "none"), NULL), MQ_ERR_INPUT);
}

static void free_space_is_that_of_the_nearest_folder(void **state) {
    temporary *folder = *state;
    size_t here;
    size_t below;
    assert_int_equal(mq_disk_free(&here, folder->path, NULL), MQ_OK);
    assert_true(here > 0);
    assert_int_equal(mq_disk_free(&below, temporary_path(folder, "not/yet//there/"), NULL), MQ_OK);
    assert_true(below > 0);
    assert_int_equal(mq_disk_free(&below, "neither-this/nor-that", NULL), MQ_OK);
    assert_int_equal(mq_disk_free(&below, "/neither-this", NULL), MQ_OK);
    assert_int_equal(mq_disk_free(&below, "", NULL), MQ_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(plain_files_are_read_whole),
        TEST(what_has_no_size_is_read_too),
        TEST(gzip_is_unpacked),
        TEST(zeros_after_gzip_are_passed_over),
        TEST(broken_gzip_is_refused),
        TEST(reading_survives_short_reads_and_reports_errors),
        TEST(reading_survives_lack_of_memory),
        TEST(faults_are_understood_or_refused),
        TEST(files_are_mapped),
        TEST(files_are_written_behind),
        TEST(paths_are_taken_apart),
        TEST(folders_are_listed_in_order),
        TEST(a_folder_has_the_bytes_of_its_files),
        TEST(free_space_is_that_of_the_nearest_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
