/* layer: job */
/* --state: what it does not go on from. */
#include "job/state.h"
#include "quantize_state.h"

/* A state of this job with two blocks. */
static mq_quantize_options begun(void) {
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.seq_len = 16;
    leave_out_the_refit(&options);
    stopped("learn", 2.2, &options, 2);
    return options;
}

static void is_refused(const mq_quantize_options *options, mq_status expected, const char *what) {
    mq_error err;
    watch w = {.phase = NULL};
    assert_int_equal(run(&w, NULL, options, 2, &err), expected);
    if (strstr(err.message, what) == NULL && strstr(err.file, what) == NULL) {
        fail_msg("%s: %s; expected: %s", err.file, err.message, what);
    }
    assert_true(w.first < 0.0); /* before anything was learned */
    assert_false(mq_path_exists(out));
    assert_true(state_has("block-00001.safetensors"));
}

static void another_job_is_refused_by_name(void **state) {
    (void)state;
    const mq_quantize_options options = begun();
    const char *const include[] = {"mlp"};
    mq_quantize_options other[8];
    const char *field[8];
    for (size_t i = 0; i < 8; i++) {
        other[i] = options;
    }
    other[0].seed = 1;
    field[0] = "recipe.seed is 0, this one's is 1";
    other[1].lambda[1] = 5.0;
    field[1] = "recipe.lambda is [10,3,1], this one's is [10,5,1]";
    other[2].include = include;
    other[2].include_count = 1;
    field[2] = "recipe.include is [\"self_attn\"], this one's is [\"mlp\"]";
    other[3].samples = 7;
    field[3] = "recipe.samples is 8";
    other[4].refit = true;
    field[4] = "refit is nothing";
    other[5].qat = true;
    field[5] = "qat is nothing";
    other[6].calib = MATQUANT_DATA_DIR "/demo-eval.txt";
    field[6] = "calibration.files[0].file is \"demo-calib.jsonl.gz\"";
    other[7].early_stop = 1.0;
    field[7] = "recipe.early_stop is nothing, this one's is 1";
    for (size_t i = 0; i < 8; i++) {
        is_refused(&other[i], MQ_ERR_USAGE, field[i]);
    }
    mq_quantize_options dry = other[0];
    dry.dry_run = true;
    is_refused(&dry, MQ_ERR_USAGE, field[0]);
    /* The model's own text would have been sampled first: it is not. */
    mq_quantize_options self = other[0];
    self.calib = "self";
    is_refused(&self, MQ_ERR_USAGE, field[0]);
}

/* The seed is a number that doubles hold exactly, up to the last. */
static void large_seeds_differ(void **state) {
    (void)state;
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    leave_out_the_refit(&options);
    options.seed = (1ULL << 53) - 1;
    stopped("learn", 2.2, &options, 2);
    options.seed--;
    is_refused(&options, MQ_ERR_USAGE, "recipe.seed");
}

static void copy(const char *folder, const char *name, const char *to) {
    char *path = mq_path_join(folder, name), *copied = mq_path_join(to, name);
    char *text;
    size_t size;
    assert_int_equal(mq_read_file(&text, &size, path, (size_t)1 << 30, NULL), MQ_OK);
    assert_int_equal(mq_output_file(copied, text, size, true, NULL), MQ_OK);
    mq_free(text);
    mq_free(path);
    mq_free(copied);
}

/* The byte at `at` (from the end, if negative) is another. */
static void flip(const char *name, long at) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", state_folder, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void another_model_is_refused(void **state) {
    const char *model = temporary_path(*state, "model");
    assert_int_equal(mkdir(model, 0777), 0);
    copy(MODEL, "config.json", model);
    copy(MODEL, "tokenizer.json", model);
    copy(MODEL, "model.safetensors", model);
    mq_quantize_options options = begun();
    options.model = model;
    mq_error err;
    watch w = {.phase = "learn", .done = 2.2}; /* the same model by another path is no other */
    assert_int_equal(run(&w, NULL, &options, 2, &err), MQ_ERR_INTERRUPTED);
    assert_int_equal(w.taken, 2);
    char *path = mq_path_join(model, "model.safetensors");
    FILE *file = fopen(path, "r+b");
    assert_int_equal(fseek(file, -100, SEEK_END), 0);
    fputc(1, file);
    fclose(file);
    mq_free(path);
    is_refused(&options, MQ_ERR_USAGE, "source[0].sha256");
}

static void damage_is_an_error_that_names_the_file(void **state) {
    (void)state;
    const mq_quantize_options options = begun();
    static const char block[] = "block-00001.safetensors";
    /* Before the model's own text is sampled, which would show that it is another job. */
    mq_quantize_options self = options;
    self.calib = "self";
    is_refused(&self, MQ_ERR_USAGE, "calibration");
    flip(block, 300);
    is_refused(&self, MQ_ERR_INPUT, block);
    flip(block, 300);
    const long places[] = {0, 50, 300, -5000}; /* every one: test_tensor_safetensors_write */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip(block, places[i]);
        is_refused(&options, MQ_ERR_INPUT, i % 2 == 0 ? block : "remove it");
        flip(block, places[i]);
    }
    char path[600];
    snprintf(path, sizeof path, "%s/%s", state_folder, block);
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    const off_t sizes[] = {about.st_size - 1, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(path, sizes[i]), 0);
        is_refused(&options, MQ_ERR_INPUT, block);
    }
    /* Another block's file in its place is whole, and still not it. */
    char *text;
    size_t size;
    char *first = mq_path_join(state_folder, "block-00000.safetensors");
    assert_int_equal(mq_read_file(&text, &size, first, (size_t)1 << 30, NULL), MQ_OK);
    assert_int_equal(mq_output_file(path, text, size, true, NULL), MQ_OK);
    mq_free(text);
    mq_free(first);
    is_refused(&options, MQ_ERR_INPUT, block);
    assert_int_equal(remove(path), 0);
    mq_error err;
    assert_int_equal(run(NULL, NULL, &options, 2, &err), MQ_OK);
}

static void a_job_that_cannot_be_read_is_refused(void **state) {
    (void)state;
    const mq_quantize_options options = begun();
    flip("job.json", 200);
    is_refused(&options, MQ_ERR_INPUT, "job.json");
    flip("job.json", 200);
    char *path = mq_path_join(state_folder, "job.json"), *text;
    size_t size;
    assert_int_equal(mq_read_file(&text, &size, path, (size_t)1 << 20, NULL), MQ_OK);
    const long key = strstr(text, "\"job\"") - text;
    mq_free(text);
    flip("job.json", key + 1);
    is_refused(&options, MQ_ERR_INPUT, "job.json");
    static const struct {
        const char *text;
        mq_status expected;
    } others[] = {{"", MQ_ERR_INPUT},
                  {"{}", MQ_ERR_INPUT},
                  {"{\"state_version\": 100000, \"crc32\": \"\"}", MQ_ERR_USAGE}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(mq_output_file(path, others[i].text, strlen(others[i].text), true, NULL),
                         MQ_OK);
        is_refused(&options, others[i].expected, "job.json");
    }
    assert_int_equal(remove(path), 0);
    is_refused(&options, MQ_ERR_USAGE, "has no job.json");
    mq_free(path);
}

static void nobody_elses_files_are_touched(void **state) {
    (void)state;
    const mq_quantize_options options = begun();
    static const char *const names[] = {"notes.txt", "block-1.safetensors", ".hidden",
                                        "refit-w9.safetensors.bak"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = mq_path_join(state_folder, names[i]);
        assert_int_equal(mq_output_file(path, "mine", 4, false, NULL), MQ_OK);
        is_refused(&options, MQ_ERR_USAGE, names[i]);
        assert_int_equal(remove(path), 0);
        assert_int_equal(mkdir(path, 0777), 0);
        is_refused(&options, MQ_ERR_USAGE, names[i]);
        assert_int_equal(rmdir(path), 0);
        mq_free(path);
    }
    mq_quantize_options other = options;
    other.state = temporary_write(*state, "file", "mine", 4);
    is_refused(&other, MQ_ERR_USAGE, "not a folder");
    other.state = out;
    is_refused(&other, MQ_ERR_USAGE, "the same folder");
    other.state = MODEL;
    is_refused(&other, MQ_ERR_USAGE, "short-model");
    other.state = temporary_path(*state, "none/state");
    is_refused(&other, MQ_ERR_INPUT, "none/state");
    other.dry_run = true;
    is_refused(&other, MQ_ERR_INPUT, "none/state");
    other = small(MQ_RECIPE_RTN);
    other.state = state_folder;
    is_refused(&other, MQ_ERR_USAGE, "--state");
}

/* Whatever the paths look like, and whether or not anything is there. */
static void state_and_output_are_apart(void **state) {
    mq_quantize_options options = begun();
    options.force = true;
    options.output = temporary_path(*state, "state/master");
    is_refused(&options, MQ_ERR_USAGE, "the output is inside");
    options.output = out;
    static const char *const same[] = {"master//", "./master"};
    for (size_t i = 0; i < 2; i++) {
        options.state = temporary_path(*state, same[i]);
        is_refused(&options, MQ_ERR_USAGE, "the same folder");
    }
    options.state = temporary_path(*state, "master/state/");
    is_refused(&options, MQ_ERR_USAGE, "inside the output");
}

/* A job that is planned, as another run's may be at the same time. */
typedef struct planned {
    mq_quantize_options options;
    mq_quantize_plan plan;
    mq_context *context;
} planned;

static void plan_job(planned *p, const mq_quantize_options *options) {
    mq_error err;
    p->options = *options;
    assert_int_equal(mq_context_new(&p->context, NULL, &err), MQ_OK);
    assert_int_equal(mq_quantize_plan_make(&p->plan, &p->options, p->context, &err), MQ_OK);
    assert_int_equal(mq_quantize_digests(&p->plan, &err), MQ_OK);
}

/* The job begins, and ends before its first block: refused with what, or NULL: it is not. */
static void begin_job(planned *p, const char *what) {
    mq_quantize_state *opened = NULL;
    mq_error err;
    assert_int_equal(mq_state_open(&opened, &p->plan, &err), what != NULL ? MQ_ERR_USAGE : MQ_OK);
    if (what != NULL) {
        assert_non_null(strstr(err.message, what));
    }
    mq_state_close(opened, false);
    mq_quantize_plan_free(&p->plan);
    mq_context_free(p->context);
}

/* Between a run's plan and its first block another one begins, goes on, or ends. */
static void what_others_do_meanwhile_is_seen(void **state) {
    (void)state;
    mq_quantize_options options = with_state(MQ_RECIPE_BEST);
    options.seq_len = 16;
    leave_out_the_refit(&options);
    planned here[4];
    mq_quantize_options other = options;
    other.seed = 1;
    plan_job(&here[0], &other);
    plan_job(&here[1], &options);
    plan_job(&here[2], &other);
    begun();
    plan_job(&here[3], &options);
    begin_job(&here[0], "recipe.seed");
    begin_job(&here[1], "start again");
    assert_true(state_has("block-00000.safetensors"));
    assert_true(state_has("block-00001.safetensors"));
    plan_job(&here[1], &options);
    char *text = mq_path_join(state_folder, "text.safetensors");
    assert_int_equal(mq_output_file(text, "mine", 4, false, NULL), MQ_OK);
    begin_job(&here[1], "start again");
    assert_int_equal(remove(text), 0);
    mq_free(text);
    static const char *const blocks[] = {"block-00000.safetensors", "block-00001.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        char *path = mq_path_join(state_folder, blocks[i]);
        assert_int_equal(remove(path), 0);
        mq_free(path);
    }
    begin_job(&here[2], "recipe.seed"); /* of which there is but the job */
    assert_true(state_has("job.json"));
    plan_job(&here[2], &options);
    temporary_remove(state_folder);
    mq_error err; /* nobody is told to remove what is not there */
    assert_int_equal(mq_state_check_files(&here[3].plan, &err), MQ_ERR_USAGE);
    assert_string_equal(err.file, state_folder);
    assert_string_equal(err.message, "another run has been at work with it; start again");
    begin_job(&here[3], "start again");
    assert_false(mq_path_exists(state_folder));
    begin_job(&here[2], NULL);
    assert_false(mq_path_exists(state_folder)); /* nothing was finished */
}

/* What a killed run leaves is no obstacle and goes with the rest; an empty folder is one that was
 * made for it. */
static void leftovers_go(void **state) {
    (void)state;
    const mq_quantize_options options = begun();
    char leftover[600];
    snprintf(leftover, sizeof leftover, "%s/.block-00001.safetensors.matquant-abcDEF",
             state_folder);
    assert_int_equal(mkdir(leftover, 0777), 0);
    mq_error err;
    assert_int_equal(run(NULL, NULL, &options, 2, &err), MQ_OK);
    assert_false(mq_path_exists(state_folder));
    temporary_remove(out);
    assert_int_equal(mkdir(state_folder, 0777), 0);
    assert_int_equal(run(NULL, NULL, &options, 2, &err), MQ_OK);
    assert_false(mq_path_exists(state_folder));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(another_job_is_refused_by_name),
        TEST(large_seeds_differ),
        TEST(another_model_is_refused),
        TEST(damage_is_an_error_that_names_the_file),
        TEST(a_job_that_cannot_be_read_is_refused),
        TEST(nobody_elses_files_are_touched),
        TEST(state_and_output_are_apart),
        TEST(what_others_do_meanwhile_is_seen),
        TEST(leftovers_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
