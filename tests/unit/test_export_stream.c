/* layer: export */
/* Tensors that are larger than a block: the smallest blocks there can be stand for those. */
#include "export_fixture.h"

#include <math.h>
#include <sys/stat.h>

#include "store/folder.h"

enum { SMALLEST = 8 }; /* an element of the largest type, or a row */

/* Every format has these widths. */
static const struct {
    unsigned width;
    mq_slice_dtype dtype;
} cuts[] = {{3, MQ_SLICE_DTYPE_SOURCE}, {4, MQ_SLICE_DTYPE_SOURCE}, {8, MQ_SLICE_DTYPE_F32}};

/* A folder that is the slice, or has it in it. */
static char *slice_in_blocks(mq_slice_report *report, mq_slice_options options,
                             size_t block_bytes) {
    mq_error err;
    char *folder = fixture_path("blocks"), *file = fixture_file(folder, "slice.gguf");
    const bool is_file = options.format == MQ_SLICE_FORMAT_GGUF;
    options.output = is_file ? file : folder;
    assert_true(!is_file || mkdir(folder, 0777) == 0);
    must(mq_slice_in_blocks(report, &options, block_bytes, NULL, &err), &err);
    if (!is_file) { /* a sum over the blocks, which rounds as they are */
        fixture_set_json(folder, "matquant.json", "slice", "relative_error", NULL);
    }
    mq_free(file);
    return folder;
}

static void expect_same_in_blocks(const mq_slice_options *options) {
    static const size_t block_bytes[2] = {SMALLEST, MQ_STREAM_BYTES};
    mq_slice_report reports[2];
    char *folders[2];
    for (size_t i = 0; i < 2; i++) {
        folders[i] = slice_in_blocks(&reports[i], *options, block_bytes[i]);
    }
    expect_same_folders(folders[0], folders[1]);
    const double error = reports[1].relative_error;
    assert_true(fabs(reports[0].relative_error - error) <= 1e-12 * error);
    for (size_t i = 0; i < 2; i++) {
        mq_slice_report_free(&reports[i]);
        mq_free(folders[i]);
    }
}

/* Layers that are packed, those of the second block and norms that are copied or converted, and
 * what GGUF has besides. */
static void the_blocks_change_nothing(void **state) {
    (void)state;
    const fixture_master_options some = {.group_size = 32, .linear_count = 7, .min_bits = 4};
    char *plain = fixture_plain();
    fixture_set_json(plain, "config.json", NULL, "rope_scaling",
                     "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                     "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}");
    char *master = good_master(plain, &some);
    for (mq_slice_format f = MQ_SLICE_FORMAT_MLX; mq_format_at(f) != NULL; f++) {
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            mq_slice_options options = options_of(master, NULL, cuts[i].width);
            options.format = f;
            if (f != MQ_SLICE_FORMAT_MATQUANT) {
                options.dtype = cuts[i].dtype;
            }
            expect_same_in_blocks(&options);
        }
    }
    mq_free(master);
    mq_free(plain);
}

/* Found in the last of them, it is named by its place in the tensor and in the file. */
static void what_is_not_finite_has_its_place(void **state) {
    (void)state;
    static const fixture_edit edit = {"model.norm.weight", false, MQ_BF16, 1, {HIDDEN, 0}, 0x80};
    char *plain = fixture_plain(), *good = good_master(plain, &group32),
         *master = fixture_rewrite(good, &edit, 1);
    const size_t end = fixture_flip_last(master, edit.name); /* 0x8080: 0x7f80, infinity */
    char *output = fixture_path("infinite");
    const mq_slice_options options = options_of(master, output, 4);
    mq_slice_report report;
    mq_error err;
    expect_error(mq_slice_in_blocks(&report, &options, SMALLEST, NULL, &err), MQ_ERR_INPUT, &err,
                 "model.safetensors", edit.name, "weight number 63 is not finite");
    assert_int_equal(err.offset, end - sizeof(uint16_t));
    expect_nothing_left(output);
    mq_free(output);
    mq_free(master);
    mq_free(good);
    mq_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_blocks_change_nothing),
        cmocka_unit_test(what_is_not_finite_has_its_place),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
