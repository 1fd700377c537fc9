/* layer: store */
#include "store_fixture.h"

#include "matquant/verify.h"
#include "store/folder.h"

/* Problems as the sink receives them. */
typedef struct log {
    size_t count;
    char lines[64][512];
} log_lines;

static void take_line(void *user, mq_log_level level, const char *text) {
    log_lines *log = user;
    if (level == MQ_LOG_WARNING && log->count < 64) {
        snprintf(log->lines[log->count++], sizeof log->lines[0], "%s", text);
    }
}

static mq_status verify(mq_verify_report *report, log_lines *log, const char *folder,
                        const char *against, mq_error *err) {
    *log = (log_lines){0};
    mq_context *context = NULL;
    const mq_context_options options = {.threads = 1, .sink = {.user = log, .message = take_line}};
    must(mq_context_new(&context, &options, err), err);
    mq_status status = mq_verify(report, folder, against, context, err);
    mq_context_free(context);
    return status;
}

static void expect_good(const char *folder, const char *against, size_t compared) {
    mq_error err;
    mq_verify_report report;
    log_lines log;
    must(verify(&report, &log, folder, against, &err), &err);
    assert_int_equal(report.problems, 0);
    assert_int_equal(log.count, 0);
    assert_int_equal(report.compared, compared);
}

/* Exactly `count` problems, each a line of its own, of which the first names tensor and words; and
 * a line holds `line`. */
static void expect_problems(const char *folder, const char *against, size_t count,
                            const char *tensor, const char *words) {
    mq_error err;
    mq_verify_report report;
    log_lines log;
    mq_status status = verify(&report, &log, folder, against, &err);
    expect_error(status, MQ_ERR_CHECK, &err, "", tensor, words);
    assert_int_equal(report.problems, count);
    assert_int_equal(log.count, count);
    for (size_t i = 0; i < log.count; i++) {
        assert_null(strchr(log.lines[i], '\n'));
    }
    assert_non_null(strstr(log.lines[0], tensor));
    assert_non_null(strstr(log.lines[0], words));
}

enum { OTHERS = TENSORS - LINEARS, PRIVATE = 2 };

static void a_whole_master_passes(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    expect_good(folder, NULL, 0);
    expect_good(folder, plain, OTHERS);
    mq_error err;
    mq_verify_report report;
    log_lines log;
    must(verify(&report, &log, folder, NULL, &err), &err);
    assert_int_equal(report.tensors, OTHERS + PRIVATE + LINEARS * 15);
    size_t size = 0;
    char *tensors = fixture_file(folder, "model.safetensors");
    must(mq_file_size(&size, tensors, &err), &err);
    assert_true(report.bytes < size && report.bytes + 64 * 1024 > size);
    mq_free(tensors);
    mq_free(folder);
    mq_free(plain);
}

/* A byte of every tensor, one after the other: always found, and by the right name. */
static void a_changed_byte_is_found(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    size_t count = mq_tensors_count(tensors);
    for (size_t i = 0; i < count; i += 7) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        size_t at = info->file_offset + (i % 2 == 0 ? 0 : info->bytes - 1);
        fixture_flip(info->file, at);
        mq_verify_report report;
        log_lines log;
        mq_status status = verify(&report, &log, folder, NULL, &err);
        assert_int_equal(status, MQ_ERR_CHECK);
        assert_string_equal(err.tensor, info->name);
        bool crc = false;
        for (size_t k = 0; k < log.count; k++) {
            crc = crc || (strstr(log.lines[k], "CRC-32") != NULL &&
                          strstr(log.lines[k], info->name) != NULL);
        }
        assert_true(crc);
        fixture_flip(info->file, at);
    }
    mq_tensors_close(tensors);
    expect_good(folder, NULL, 0);
    mq_free(folder);
    mq_free(plain);
}

static void values_that_are_not_finite(void **state) {
    (void)state;
    char *plain = fixture_plain(), *good = good_master(plain, &group32);
    static const fixture_edit edits[] = {
        {"model.layers.1.mlp.up_proj.biases.w6", false, MQ_F16, 2, {128, 2}, 0x7c},
        {"model.norm.weight", false, MQ_BF16, 1, {64, 0}, 0xff},
    };
    for (size_t i = 0; i < 2; i++) {
        char *folder = fixture_rewrite(good, &edits[i], 1);
        fixture_relist(folder);
        expect_problems(folder, NULL, 1, edits[i].name, "element 0 is not finite");
        mq_free(folder);
    }
    /* The last of more than are read at once. */
    static const fixture_edit large = {"large", false, MQ_BF16, 2, {1025, 2048}, 0x80};
    char *folder = fixture_rewrite(good, &large, 1);
    assert_true(2 * large.shape[0] * large.shape[1] > MQ_STREAM_BYTES);
    fixture_flip_last(folder, large.name); /* 0x8080 becomes 0x7f80, infinity */
    fixture_relist(folder);
    expect_problems(folder, NULL, 1, large.name, "element 2099199 is not finite");
    mq_free(folder);
    mq_free(good);
    mq_free(plain);
}

static void structure_and_listing(void **state) {
    (void)state;
    char *plain = fixture_plain(), *good = good_master(plain, &group32);
    /* A tensor dropped: it is listed, and the configuration needs it. */
    static const fixture_edit dropped = {
        "model.layers.0.input_layernorm.weight", true, MQ_U8, 0, {0, 0}, 0};
    char *folder = fixture_rewrite(good, &dropped, 1);
    expect_problems(folder, NULL, 2, dropped.name, "listed in matquant.json but missing");
    mq_free(folder);
    /* One added: not listed, not in the source. */
    static const fixture_edit added = {"extra", false, MQ_I64, 1, {3, 0}, 1};
    folder = fixture_rewrite(good, &added, 1);
    expect_problems(folder, NULL, 1, "extra", "not listed");
    expect_problems(folder, plain, 2, "extra", "not listed");
    fixture_relist(folder);
    expect_problems(folder, plain, 1, "extra", "the source has no extra");
    mq_free(folder);
    /* Two layers that a reader must reject are two problems, not one. */
    static const fixture_edit two[] = {
        {"model.layers.0.self_attn.q_proj.scales.w4", true, MQ_F16, 0, {0, 0}, 0},
        {"model.layers.1.self_attn.k_proj.biases.w2", false, MQ_F32, 2, {32, 2}, 0},
    };
    folder = fixture_rewrite(good, two, 2);
    fixture_relist(folder);
    expect_problems(folder, NULL, 2, two[0].name, "missing");
    expect_problems(folder, plain, 2, two[0].name, "missing"); /* not their weights, besides */
    mq_free(folder);
    /* Shapes that contradict config.json. */
    folder = fixture_rewrite(good, NULL, 0);
    fixture_set_json(folder, "config.json", NULL, "vocab_size", "97");
    expect_problems(folder, NULL, 2, "model.embed_tokens.weight", "config.json");
    expect_problems(folder, plain, 3, "model.embed_tokens.weight", "config.json");
    mq_free(folder);
    /* No provenance, or one that lists nothing or nonsense. */
    folder = fixture_rewrite(good, NULL, 0);
    fixture_set_json(folder, "matquant.json", "tensors", "model.norm.weight",
                     "{\"crc32\": \"12345\"}");
    expect_problems(folder, NULL, 1, "model.norm.weight", "hexadecimal");
    fixture_set_json(folder, "matquant.json", NULL, "tensors", NULL);
    expect_problems(folder, NULL, 1, "", "lists no tensors");
    char *json = fixture_file(folder, "matquant.json");
    assert_int_equal(unlink(json), 0);
    expect_problems(folder, NULL, 1, "", "is not there");
    mq_free(json);
    mq_free(folder);
    mq_free(good);
    mq_free(plain);
}

/* The final norm's entry in matquant.json with this dtype and shape; NULL: without. */
static void list_norm_as(const char *folder, const char *dtype, const char *shape) {
    const char *norm = "model.norm.weight";
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    const mq_tensor_info *info = mq_tensors_find(tensors, norm);
    assert_non_null(info);
    char entry[200];
    snprintf(entry, sizeof entry, "{\"crc32\": \"%08x\"%s%s%s%s}",
             (unsigned)mq_crc32(0, info->data, info->bytes), dtype != NULL ? ", \"dtype\": " : "",
             dtype != NULL ? dtype : "", shape != NULL ? ", \"shape\": " : "",
             shape != NULL ? shape : "");
    fixture_set_json(folder, "matquant.json", "tensors", norm, entry);
    mq_tensors_close(tensors);
}

/* The bytes are the same, whatever a header says that they are. */
static void forms_are_as_listed(void **state) {
    (void)state;
    static const char *const good[][2] = {
        {"\"BF16\"", "[64]"}, {"\"BF16\"", NULL}, {NULL, "[64]"}, {NULL, NULL}};
    static const char *const other[][2] = {
        {"\"F16\"", "[64]"}, {"\"F16\"", NULL},       {"16", "[64]"},     {"\"BF16\"", "[1, 64]"},
        {"\"BF16\"", "[]"},  {"\"BF16\"", "[64, 1]"}, {"\"BF16\"", "64"}, {NULL, "[65]"}};
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        list_norm_as(folder, good[i][0], good[i][1]);
        expect_good(folder, NULL, 0);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        list_norm_as(folder, other[i][0], other[i][1]);
        expect_problems(folder, NULL, 1, "model.norm.weight",
                        "is BF16 [64], which is not the dtype and shape in matquant.json");
    }
    mq_free(folder);
    mq_free(plain);
}

static void against_another_source(void **state) {
    (void)state;
    char *plain = fixture_plain(), *master = good_master(plain, &group32);
    static const struct {
        fixture_edit edit;
        size_t problems;
        const char *tensor, *words;
    } cases[] = {
        {{"model.norm.weight", false, MQ_BF16, 1, {64, 0}, 0},
         1,
         "model.norm.weight",
         "differs from the source's"},
        {{"model.norm.weight", false, MQ_F16, 1, {64, 0}, 0},
         1,
         "model.norm.weight",
         "the source's is F16 [64]"},
        {{"model.norm.weight", true, MQ_F16, 0, {0, 0}, 0},
         1,
         "model.norm.weight",
         "the source has no"},
        {{"other", false, MQ_F16, 1, {64, 0}, 0}, 1, "other", "missing here"},
        {{"model.layers.0.mlp.up_proj.weight", false, MQ_BF16, 2, {64, 128}, 0},
         1,
         "model.layers.0.mlp.up_proj",
         "the source's weight is [64, 128]"},
        {{"model.layers.0.mlp.up_proj.weight", true, MQ_BF16, 0, {0, 0}, 0},
         1,
         "model.layers.0.mlp.up_proj.codes",
         "the source has no model.layers.0.mlp.up_proj.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *source = fixture_rewrite(plain, &cases[i].edit, 1);
        expect_problems(master, source, cases[i].problems, cases[i].tensor, cases[i].words);
        mq_free(source);
    }
    char *source = fixture_rewrite(plain, NULL, 0);
    fixture_set_json(source, "config.json", NULL, "rms_norm_eps", "1e-6");
    expect_problems(master, source, 1, "", "\"rms_norm_eps\"");
    mq_free(source);
    mq_error err;
    mq_verify_report report;
    log_lines log;
    expect_error(verify(&report, &log, master, master, &err), MQ_ERR_INPUT, &err, "", "",
                 "is of a quantized model");
    expect_error(verify(&report, &log, plain, NULL, &err), MQ_ERR_INPUT, &err, "plain", "",
                 "is not quantized");
    mq_free(master);
    mq_free(plain);
}

static void put_source_file(cJSON *list, const char *file, const char *digest) {
    cJSON *entry = cJSON_CreateObject();
    assert_true(cJSON_AddItemToArray(list, entry));
    assert_non_null(cJSON_AddStringToObject(entry, "file", file));
    assert_non_null(cJSON_AddStringToObject(entry, "sha256", digest));
}

/* Makes matquant.json list the source's files of weights with their SHA-256, and another one,
 * unless that is NULL. */
static void list_source(const char *folder, const char *source, const char *another) {
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, source, &err), &err);
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < mq_tensors_file_count(tensors); i++) {
        char digest[65];
        const char *path = mq_tensors_file(tensors, i);
        must(mq_sha256_file(digest, path, NULL, &err), &err);
        put_source_file(list, mq_path_base(path), digest);
    }
    if (another != NULL) {
        put_source_file(list, another, "0");
    }
    char *text = cJSON_PrintUnformatted(list);
    fixture_set_json(folder, "matquant.json", NULL, "source", text);
    cJSON_free(text);
    cJSON_Delete(list);
    mq_tensors_close(tensors);
}

/* Flips a byte of a quantized layer's weight in the source, and says in which file. */
static void change_linear(char file[64], const char *source) {
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, source, &err), &err);
    const mq_tensor_info *info = mq_tensors_find(tensors, "model.layers.1.self_attn.q_proj.weight");
    assert_non_null(info);
    snprintf(file, 64, "%s", mq_path_base(info->file));
    fixture_flip(info->file, info->file_offset);
    mq_tensors_close(tensors);
}

/* One warning, and that is no problem. */
static void expect_untold(const char *folder, const char *against) {
    mq_error err;
    mq_verify_report report;
    log_lines log;
    must(verify(&report, &log, folder, against, &err), &err);
    assert_int_equal(report.problems, 0);
    assert_int_equal(report.weights, MQ_WEIGHTS_UNKNOWN);
    assert_int_equal(log.count, 1);
    assert_non_null(strstr(log.lines[0], "cannot be told"));
}

/* The weights of quantized layers are the source's by the digests of its files, however many. */
static void against_other_weights(void **state) {
    (void)state;
    static const size_t shard_sizes[] = {0, 32 * 1024};
    char *folders[2], *sources[2];
    for (size_t i = 0; i < 2; i++) {
        sources[i] = fixture_plain_sharded(shard_sizes[i]);
        folders[i] = good_master(sources[i], &group32);
        list_source(folders[i], sources[i], NULL);
    }
    for (size_t i = 0; i < 2; i++) {
        expect_good(folders[i], sources[i], OTHERS);
        expect_untold(folders[i], sources[1 - i]);
    }
    list_source(folders[0], sources[0], "more.safetensors");
    expect_untold(folders[0], sources[0]);
    /* What has not both a name and a digest says nothing. */
    fixture_set_json(folders[0], "matquant.json", NULL, "source",
                     "[5, {\"file\": 1, \"sha256\": \"0\"}, {\"file\": \"model.safetensors\"}]");
    expect_good(folders[0], sources[0], OTHERS);
    list_source(folders[0], sources[0], NULL);
    for (size_t i = 0; i < 2; i++) {
        char file[64];
        change_linear(file, sources[i]);
        mq_error err;
        mq_verify_report report;
        log_lines log;
        expect_error(verify(&report, &log, folders[i], sources[i], &err), MQ_ERR_CHECK, &err, file,
                     "", "is not the file that was quantized");
        assert_int_equal(report.problems, 1);
        assert_int_equal(report.compared, OTHERS);
        assert_int_equal(report.weights, MQ_WEIGHTS_OTHER);
        expect_untold(folders[1 - i], sources[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        mq_free(folders[i]);
        mq_free(sources[i]);
    }
}

static void folders_that_cannot_be_read(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    char *tensors = fixture_file(folder, "model.safetensors");
    size_t size = 0;
    mq_error err;
    mq_verify_report report;
    log_lines log;
    must(mq_file_size(&size, tensors, &err), &err);
    assert_int_equal(truncate(tensors, (off_t)(size / 2)), 0);
    mq_status status = verify(&report, &log, folder, NULL, &err);
    assert_int_equal(status, MQ_ERR_INPUT);
    assert_non_null(strstr(err.file, "model.safetensors"));
    assert_int_equal(verify(&report, &log, "/nowhere", NULL, &err), MQ_ERR_INPUT);
    assert_int_equal(verify(&report, &log, folder, "/nowhere", &err), MQ_ERR_INPUT);
    mq_free(tensors);
    mq_free(folder);
    mq_free(plain);
}

static void an_interrupt_stops(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    volatile sig_atomic_t flag = 1;
    mq_context *context = NULL;
    const mq_context_options options = {.threads = 1, .interrupted = &flag};
    mq_error err;
    mq_verify_report report;
    must(mq_context_new(&context, &options, &err), &err);
    assert_int_equal(mq_verify(&report, folder, NULL, context, &err), MQ_ERR_INTERRUPTED);
    mq_context_free(context);
    mq_free(folder);
    mq_free(plain);
}

/* Asks to stop at the first problem. */
static void stop_at_problem(void *user, mq_log_level level, const char *text) {
    (void)level;
    (void)text;
    *(volatile sig_atomic_t *)user = 1;
}

/* While the source's weights are read: what is before them here is a problem with the last of the
 * other files, and nothing is behind them that would look for the request. */
static void an_interrupt_stops_reading_the_source(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    list_source(folder, plain, NULL);
    fixture_set_json(folder, "matquant.json", NULL, "files", NULL);
    fixture_set_json(plain, "tokenizer.json", NULL, "version", "\"2\"");
    volatile sig_atomic_t flag = 0;
    mq_context *context = NULL;
    const mq_context_options options = {.threads = 1,
                                        .interrupted = &flag,
                                        .sink = {(void *)(uintptr_t)&flag, stop_at_problem, NULL}};
    mq_error err;
    mq_verify_report report;
    must(mq_context_new(&context, &options, &err), &err);
    assert_int_equal(mq_verify(&report, folder, plain, context, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(flag, 1);
    assert_int_equal(report.problems, 1);
    mq_context_free(context);
    mq_free(folder);
    mq_free(plain);
}

static void verify_without_memory(void **state) {
    (void)state;
    char *plain = fixture_plain(), *folder = good_master(plain, &group32);
    list_source(folder, plain, NULL);
    mq_error err;
    mq_status status = MQ_ERR_MACHINE;
    size_t tried = 0;
    for (size_t at = 1; status != MQ_OK; at++) {
        mq_verify_report report;
        size_t before = mq_alloc_current();
        mq_alloc_fail_after(at);
        status = mq_verify(&report, folder, plain, NULL, &err);
        mq_alloc_fail_after(0);
        assert_true(status == MQ_OK || status == MQ_ERR_MACHINE);
        assert_int_equal(mq_alloc_current(), before);
        tried = at;
    }
    assert_true(tried > 20);
    mq_free(folder);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_master_passes),
        cmocka_unit_test(a_changed_byte_is_found),
        cmocka_unit_test(values_that_are_not_finite),
        cmocka_unit_test(structure_and_listing),
        cmocka_unit_test(forms_are_as_listed),
        cmocka_unit_test(against_another_source),
        cmocka_unit_test(against_other_weights),
        cmocka_unit_test(folders_that_cannot_be_read),
        cmocka_unit_test(an_interrupt_stops),
        cmocka_unit_test(an_interrupt_stops_reading_the_source),
        cmocka_unit_test(verify_without_memory),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
