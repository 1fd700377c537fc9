/* layer: export */
#include "export_fixture.h"

#include "base/fault.h"
#include "base/folder.h"
#include "json_memory.h"

static void interrupts_leave_nothing(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32),
         *output = fixture_path("interrupted");
    volatile sig_atomic_t flag = 1;
    mq_error err;
    mq_context *context = NULL;
    const mq_context_options options = {.threads = 1, .interrupted = &flag};
    must(mq_context_new(&context, &options, &err), &err);
    const mq_slice_options slice_options = options_of(master, output, 4);
    mq_slice_report report;
    assert_int_equal(mq_slice(&report, &slice_options, context, &err), MQ_ERR_INTERRUPTED);
    expect_nothing_left(output);
    mq_context_free(context);
    mq_free(output);
    mq_free(master);
    mq_free(plain);
}

/* A slice of 4 bits, with layers of 8 where the format can have them. */
static mq_status try_mixed(mq_slice_report *report, const char *master, const char *output,
                           mq_slice_format format, mq_error *err) {
    const mq_layer_bits layer_bits = {.pattern = "proj", .length = 4, .width = 8};
    mq_slice_options options = options_of(master, output, 4);
    options.format = format;
    options.layer_bits = &layer_bits;
    const bool mixes =
        format != MQ_SLICE_FORMAT_COMPRESSED_TENSORS && format != MQ_SLICE_FORMAT_MATQUANT;
    options.layer_bits_count = mixes ? 1 : 0;
    return mq_slice(report, &options, NULL, err);
}

static void slicing_without_memory(void **state) {
    (void)state;
    const fixture_master_options few = {.group_size = 32, .linear_count = 1};
    char *plain = fixture_plain(), *master = good_master(plain, &few), *output = NULL;
    for (mq_slice_format f = MQ_SLICE_FORMAT_MLX; mq_format_at(f) != NULL; f++) {
        char *folder = fixture_path("no-memory");
        output = f == MQ_SLICE_FORMAT_GGUF ? mq_asprintf("%s.gguf", folder) : mq_strdup(folder);
        mq_free(folder);
        mq_status status = MQ_ERR_MACHINE;
        size_t tried = 0;
        for (size_t at = 1; status != MQ_OK; at++) {
            mq_error err;
            mq_slice_report report;
            size_t before = mq_alloc_current();
            mq_alloc_fail_after(at);
            status = try_mixed(&report, master, output, f, &err);
            mq_alloc_fail_after(0);
            mq_slice_report_free(&report);
            assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
            assert_int_equal(mq_alloc_current(), before);
            if (status != MQ_OK) {
                expect_nothing_left(output);
            }
            tried = at;
        }
        assert_true(tried > 40);
        mq_free(output);
    }
    mq_free(master);
    mq_free(plain);
}

/* The same of what JSON is made of, which cJSON asks for by itself. */
static void slicing_without_memory_for_json(void **state) {
    (void)state;
    const fixture_master_options few = {.group_size = 32, .linear_count = 1};
    char *plain = fixture_plain(), *master = good_master(plain, &few);
    for (mq_slice_format f = MQ_SLICE_FORMAT_MLX; mq_format_at(f) != NULL; f++) {
        char *folder = fixture_path("no-memory");
        char *output =
            f == MQ_SLICE_FORMAT_GGUF ? mq_asprintf("%s.gguf", folder) : mq_strdup(folder);
        mq_free(folder);
        mq_status status = MQ_ERR_MACHINE;
        size_t tried = 0;
        for (size_t at = f; status != MQ_OK; at += 7) { /* all of them would take long */
            mq_error err;
            mq_slice_report report;
            const size_t before = mq_alloc_current();
            json_memory_begin(at);
            status = try_mixed(&report, master, output, f, &err);
            assert_int_equal(json_memory_end(), 0);
            mq_slice_report_free(&report);
            assert_int_equal(mq_alloc_current(), before);
            if (status != MQ_OK) {
                assert_int_equal(status, MQ_ERR_MACHINE);
                expect_nothing_left(output);
            }
            tried = at;
        }
        assert_true(tried > 1000);
        mq_free(output);
    }
    mq_free(master);
    mq_free(plain);
}

/* --- the machine ------------------------------------------------------------------------------ */

/* Whether a failed slice is kept beside `output`, as err says: with the files of `same`, and
 * removed here; not at all if that is NULL. */
static void expect_kept(const char *output, const char *same, const mq_error *err) {
    char name[64] = "";
    const int found = sscanf(err->message, "what was made is kept as %63[^;]", name);
    assert_int_equal(found == 1, same != NULL);
    if (same != NULL) {
        char *folder = mq_path_parent(output), *kept = fixture_file(folder, name);
        expect_same_folders(same, kept);
        mq_remove_folder(kept);
        mq_free(kept);
        mq_free(folder);
    }
}

static void failing_system_calls(void **state) {
    (void)state;
    static const struct {
        const char *call, *error;
        bool harmless; /* a short read or write is carried on */
        size_t at_least;
        size_t kept; /* that come when the slice is complete, at least: where a file system knows
                        no RENAME_NOREPLACE, renaming is two calls */
    } faults[] = {{"write", "ENOSPC", false, 10, 0}, {"write", "SHORT", true, 10, 0},
                  {"fsync", "EIO", false, 3, 2},     {"rename", "EIO", false, 1, 1},
                  {"open", "EMFILE", false, 5, 2},   {"map", "ENOMEM", false, 1, 0},
                  {"read", "EIO", false, 3, 0},      {"read", "SHORT", true, 3, 0}};
    const fixture_master_options few = {.group_size = 32, .linear_count = 2, .no_private = true};
    char *plain = fixture_plain(), *master = good_master(plain, &few),
         *reference = slice(master, 4, MQ_SLICE_FORMAT_MLX);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        size_t failed = 0, kept = 0;
        for (size_t at = 1; at < 200; at++) {
            char fault[64];
            char *output = fixture_path("fault");
            snprintf(fault, sizeof fault, "%s:%zu:%s", faults[i].call, at, faults[i].error);
            mq_error err;
            mq_slice_report report;
            size_t allocated = mq_alloc_current();
            assert_true(mq_fault_configure(fault));
            mq_status status = try_slice(&report, master, output, 4, MQ_SLICE_FORMAT_MLX, &err);
            assert_true(mq_fault_configure(NULL));
            assert_int_equal(mq_alloc_current(), allocated);
            bool done = status == MQ_OK && (!faults[i].harmless || at > faults[i].at_least);
            if (status == MQ_OK) {
                expect_same_folders(reference, output);
            } else {
                assert_false(faults[i].harmless);
                assert_int_equal(status, MQ_ERR_MACHINE);
                assert_string_not_equal(err.file, "");
                const bool is_kept = strstr(err.message, "is kept as") != NULL;
                expect_kept(output, is_kept ? reference : NULL, &err);
                kept += is_kept ? 1 : 0;
                expect_nothing_left(output);
                failed++;
            }
            mq_free(output);
            if (done) {
                break;
            }
        }
        assert_true(faults[i].harmless || failed >= faults[i].at_least);
        assert_true(kept >= faults[i].kept && (faults[i].kept > 0 || kept == 0));
    }
    mq_free(reference);
    mq_free(master);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interrupts_leave_nothing),
        cmocka_unit_test(slicing_without_memory),
        cmocka_unit_test(slicing_without_memory_for_json),
        cmocka_unit_test(failing_system_calls),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
