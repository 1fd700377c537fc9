/* layer: store */
/* Which files of a folder are copied. */
#include "temporary.h"

#include "base/file.h"
#include "store/folder.h"

static void names_say_what_is_copied(void **state) {
    (void)state;
    static const char *const copied[] = {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "modeling_custom.py",
        "LICENSE",
        "USE_POLICY.md",
        "bin",
        "a.bin.md",
        "preprocessor_config.json",
    };
    static const char *const left_out[] = {
        /* written anew, or about other weights */
        "config.json", "matquant.json", "quantize_config.json", "hf_quant_config.json",
        "adapter_config.json", "README.md", "readme.txt", ".gitattributes",
        /* weights */
        "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors",
        "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5",
        "tf_model.h5.index.json", "consolidated.00.pth", "model.pt", "flax_model.msgpack",
        "rust_model.ot", "weights.npz", "model.onnx", "model.onnx_data", "MODEL.GGUF",
        /* backups */
        "model.safetensors.bak", "Model.Safetensors~", "config.json.orig", "model.bin.old",
        "model.gguf.part", "download.lock",
        /* training */
        "events.out.tfevents.1700000000.host.1.0", "trainer_state.json", "trainer_log.jsonl",
        "training_args.bin", "training_args.yaml", "optimizer.pt", "scheduler.pt", "rng_state.pth",
        "optimizer.json"};
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        if (!mq_is_small_file(copied[i])) {
            fail_msg("%s is left out", copied[i]);
        }
    }
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++) {
        if (mq_is_small_file(left_out[i])) {
            fail_msg("%s is copied", left_out[i]);
        }
    }
}

/* Without data: a hole. */
static void make_file(void **state, const char *name, size_t size) {
    assert_int_equal(truncate(temporary_write(*state, name, "", 0), (off_t)size), 0);
}

static void count_message(void *user, mq_log_level level, const char *text) {
    assert_int_equal(level, MQ_LOG_WARNING);
    assert_non_null(strstr(text, "/data.txt is not copied: it is larger than 64 MiB"));
    ++*(size_t *)user;
}

static void large_files_are_left_out(void **state) {
    const size_t limit = MQ_SMALL_FILE_BYTES;
    make_file(state, "data.txt", limit + 1);
    make_file(state, "limit.txt", limit);
    make_file(state, "tokenizer.json", limit + 1);
    make_file(state, "spiece.model", limit + 1);
    make_file(state, "model.safetensors", limit + 1); /* which nobody expects to be copied */

    size_t warnings = 0;
    mq_context *context = NULL;
    const mq_context_options settings = {.threads = 1, .sink = {&warnings, count_message, NULL}};
    assert_int_equal(mq_context_new(&context, &settings, NULL), MQ_OK);
    char **names = NULL;
    size_t count = 0, total = 0;
    const char *folder = ((temporary *)*state)->path;
    assert_int_equal(mq_list_small_files(&names, &count, folder, context, NULL), MQ_OK);
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "limit.txt");
    assert_string_equal(names[1], "spiece.model");
    assert_string_equal(names[2], "tokenizer.json");
    assert_int_equal(warnings, 1);
    mq_free_list(names, count);
    assert_int_equal(mq_small_files_size(&total, folder, NULL), MQ_OK);
    assert_int_equal(total, 3 * limit + 2);
    mq_context_free(context);
}

/* Whatever the file is for; only what is copied is looked at. */
static void pointers_of_git_lfs_are_refused(void **state) {
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    static const char *const refused[] = {"tokenizer.model", "chat_template.jinja", "LICENSE"};
    static const char *const others[] = {"README.md", "pytorch_model.bin"};
    const char *folder = ((temporary *)*state)->path;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        temporary_write(*state, others[i], pointer, strlen(pointer));
    }
    temporary_write(*state, "a.txt", pointer, strlen("version https://git"));
    temporary_write(*state, "empty.txt", "", 0);
    const char *about = "version https://git-lfs.github.com/spec/v1 begins a pointer.\n";
    temporary_write(*state, "notes.txt", about, strlen(about));
    assert_int_equal(mq_check_small_files(folder, NULL, NULL), MQ_OK);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mq_error err = {0};
        const char *path = temporary_write(*state, refused[i], pointer, strlen(pointer));
        assert_int_equal(mq_check_small_files(folder, NULL, &err), MQ_ERR_INPUT);
        assert_string_equal(err.file, path);
        assert_non_null(strstr(err.message, "Git LFS pointer"));
        remove(path);
    }
}

static void count_name_message(void *user, mq_log_level level, const char *text) {
    assert_int_equal(level, MQ_LOG_WARNING);
    assert_non_null(strstr(text, "b\xff.txt is not copied: its name is not UTF-8"));
    ++*(size_t *)user;
}

static void names_that_are_not_utf8_are_left_out(void **state) {
    const char *folder = ((temporary *)*state)->path;
    temporary_write(*state, "b\xff.txt", "123", 3);
    temporary_write(*state, "b\xc3\xbf.txt", "12", 2);
    size_t warnings = 0, count = 0, total = 0;
    mq_context *context = NULL;
    const mq_context_options settings = {.threads = 1,
                                         .sink = {&warnings, count_name_message, NULL}};
    assert_int_equal(mq_context_new(&context, &settings, NULL), MQ_OK);
    char **names = NULL;
    assert_int_equal(mq_list_small_files(&names, &count, folder, context, NULL), MQ_OK);
    assert_int_equal(count, 1);
    assert_string_equal(names[0], "b\xc3\xbf.txt");
    assert_int_equal(warnings, 1);
    mq_free_list(names, count);
    assert_int_equal(mq_small_files_size(&total, folder, NULL), MQ_OK);
    assert_int_equal(total, 2);
    mq_context_free(context);
}

static void empty_folders_have_none(void **state) {
    char **names = NULL;
    size_t count = 1;
    const char *folder = ((temporary *)*state)->path;
    assert_int_equal(mq_list_small_files(&names, &count, folder, NULL, NULL), MQ_OK);
    assert_int_equal(count, 0);
    mq_free_list(names, count);
    assert_int_not_equal(
        mq_list_small_files(&names, &count, temporary_path(*state, "none"), NULL, NULL), MQ_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_say_what_is_copied),
        cmocka_unit_test_setup_teardown(large_files_are_left_out, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(pointers_of_git_lfs_are_refused, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(names_that_are_not_utf8_are_left_out, temporary_setup,
                                        temporary_teardown),
        cmocka_unit_test_setup_teardown(empty_folders_have_none, temporary_setup,
                                        temporary_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
