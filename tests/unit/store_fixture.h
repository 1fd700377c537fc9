/* A tiny plain checkpoint, masters of it with known codes, and edits of either: shared by the tests
 * of store and export.
 *
 * Everything goes through the library's own writers; what it wrote is checked by
 * tests/tools/read_mlx.py, which shares no code with it. Every function fails the test it is called
 * from when anything goes wrong. */
#ifndef MQ_TEST_STORE_FIXTURE_H
#define MQ_TEST_STORE_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/context.h"
#include "base/json.h"
#include "matquant/inspect.h"
#include "store/master.h"

#define UNUSED __attribute__((unused))

static char fixture_root[256];
static unsigned fixture_count;

static UNUSED int fixture_setup(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(fixture_root, sizeof fixture_root, "%s/matquant-store-XXXXXX",
             base != NULL ? base : "/tmp");
    return mkdtemp(fixture_root) == NULL ? -1 : 0;
}

static UNUSED int fixture_teardown(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture_root);
    return system(command);
}

/* A path below the test's folder; the caller's (mq_free). Names of folders that do not exist yet.
 */
static UNUSED char *fixture_path(const char *name) {
    char *path = mq_asprintf("%s/%s-%u", fixture_root, name, fixture_count++);
    assert_non_null(path);
    return path;
}

static UNUSED void must(mq_status status, const mq_error *err) {
    if (status != MQ_OK) {
        char line[1400];
        mq_error_format(line, sizeof line, err);
        fail_msg("%s", line);
    }
}

static UNUSED void fixture_random(void *out, size_t size, uint32_t seed) {
    unsigned char *bytes = out;
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(state >> 24);
    }
}

/* --- the plain checkpoint --------------------------------------------------------------------- */

enum { LAYERS = 2, HIDDEN = 64, INTERMEDIATE = 128, VOCAB = 96, LINEARS = 7 * LAYERS };

static const char fixture_config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64, "
    "\"intermediate_size\": 128, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, "
    "\"num_key_value_heads\": 1, \"vocab_size\": 96, \"max_position_embeddings\": 128, "
    "\"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": true, \"hidden_act\": \"silu\"}";

typedef struct fixture_linear {
    const char *name;
    size_t out, in;
} fixture_linear;

static const fixture_linear fixture_linears[7] = {
    {"self_attn.q_proj", HIDDEN, HIDDEN},    {"self_attn.k_proj", 32, HIDDEN},
    {"self_attn.v_proj", 32, HIDDEN},        {"self_attn.o_proj", HIDDEN, HIDDEN},
    {"mlp.gate_proj", INTERMEDIATE, HIDDEN}, {"mlp.up_proj", INTERMEDIATE, HIDDEN},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE},
};

static UNUSED void fixture_write_text(mq_output *output, const char *name, const char *text) {
    mq_error err;
    must(mq_write_file(output, name, text, strlen(text), &err), &err);
}

/* bf16 numbers, small and finite. */
static UNUSED void fixture_put_bf16(mq_tensor_writer *writer, size_t index, size_t count,
                                    uint32_t seed) {
    mq_error err;
    uint16_t *values = mq_alloc(count, sizeof *values);
    unsigned char *noise = mq_alloc(count, 1);
    assert_non_null(values);
    assert_non_null(noise);
    fixture_random(noise, count, seed);
    for (size_t i = 0; i < count; i++) {
        values[i] = mq_f32_to_bf16(((float)noise[i] - 127.5f) / 512.0f);
    }
    must(mq_tensor_writer_put(writer, index, values, count * sizeof *values, &err), &err);
    mq_free(values);
    mq_free(noise);
}

/* A folder that does not exist yet; shards of at most max_shard_size bytes (0: one file). */
static UNUSED char *fixture_plain_sharded(size_t max_shard_size) {
    char *folder = fixture_path("plain"), names[64][96];
    mq_tensor_spec specs[64];
    size_t count = 0;
    snprintf(names[count], sizeof names[count], "model.embed_tokens.weight");
    specs[count++] = (mq_tensor_spec){.dtype = MQ_BF16, .dims = 2, .shape = {VOCAB, HIDDEN}};
    for (size_t layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < 7; i++) {
            const fixture_linear *linear = &fixture_linears[i];
            snprintf(names[count], sizeof names[count], "model.layers.%zu.%s.weight", layer,
                     linear->name);
            specs[count++] =
                (mq_tensor_spec){.dtype = MQ_BF16, .dims = 2, .shape = {linear->out, linear->in}};
        }
        static const char *const norms[] = {"input_layernorm", "post_attention_layernorm"};
        for (size_t i = 0; i < 2; i++) {
            snprintf(names[count], sizeof names[count], "model.layers.%zu.%s.weight", layer,
                     norms[i]);
            specs[count++] = (mq_tensor_spec){.dtype = MQ_BF16, .dims = 1, .shape = {HIDDEN}};
        }
    }
    snprintf(names[count], sizeof names[count], "model.norm.weight");
    specs[count++] = (mq_tensor_spec){.dtype = MQ_BF16, .dims = 1, .shape = {HIDDEN}};
    mq_error err;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    for (size_t i = 0; i < count; i++) {
        specs[i].name = names[i];
    }
    must(mq_output_begin(&output, folder, false, &err), &err);
    must(mq_tensor_writer_open(&writer, output, specs, count, max_shard_size, &err), &err);
    for (size_t i = 0; i < count; i++) {
        fixture_put_bf16(writer, i,
                         specs[i].shape[0] * (specs[i].dims == 2 ? specs[i].shape[1] : 1),
                         (uint32_t)i);
    }
    must(mq_tensor_writer_close(writer, &err), &err);
    fixture_write_text(output, "config.json", fixture_config);
    fixture_write_text(
        output, "tokenizer.json",
        "{\"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
        "\"add_prefix_space\": false, \"use_regex\": true}, \"model\": {\"type\": \"BPE\", "
        "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}");
    fixture_write_text(output, "README.md", "not copied");
    fixture_write_text(output, "pytorch_model.bin", "not copied either");
    must(mq_output_commit(output, &err), &err);
    mq_output_discard(output);
    return folder;
}

static UNUSED char *fixture_plain(void) { return fixture_plain_sharded(0); }

/* --- masters ---------------------------------------------------------------------------------- */

typedef struct fixture_master_options {
    size_t group_size;      /* 0: one a row */
    size_t down_group_size; /* of down_proj, as a fallback would make it; 0: as the others */
    mq_slice_rule rule;
    bool no_private; /* otherwise norms of the first block are private to 2 and 4 bits */
    size_t max_shard_size;
    size_t linear_count; /* 0: all */
} fixture_master_options;

/* Codes of all values, and finite pairs of which some are negative, subnormal or large. */
static UNUSED void fixture_quantized(mq_quantized *out, const mq_master_linear *linear,
                                     uint32_t seed) {
    size_t pairs = linear->out * linear->groups;
    *out = (mq_quantized){.out = linear->out, .in = linear->in, .groups = linear->groups};
    out->codes = mq_alloc(linear->out, linear->in);
    assert_non_null(out->codes);
    fixture_random(out->codes, linear->out * linear->in, seed);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        uint16_t *both[2];
        for (size_t k = 0; k < 2; k++) {
            both[k] = mq_alloc(pairs, sizeof *both[k]);
            assert_non_null(both[k]);
            fixture_random(both[k], pairs * sizeof *both[k], seed * 31 + width * 2 + (uint32_t)k);
            for (size_t i = 0; i < pairs; i++) {
                if ((both[k][i] & 0x7c00) == 0x7c00) { /* infinity or NaN */
                    both[k][i] = (uint16_t)(both[k][i] & 0xbfff);
                }
            }
        }
        out->scales[width] = both[0];
        out->biases[width] = both[1];
    }
}

static UNUSED void fixture_quantized_free(mq_quantized *quantized) {
    mq_free(quantized->codes);
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        mq_free(quantized->scales[width]);
        mq_free(quantized->biases[width]);
    }
}

static UNUSED void fixture_layout(mq_master_layout *layout, mq_master_linear linears[LINEARS],
                                  const char *plain, const fixture_master_options *options) {
    size_t count = options->linear_count != 0 ? options->linear_count : LINEARS;
    for (size_t i = 0; i < count; i++) {
        const fixture_linear *from = &fixture_linears[i % 7];
        size_t group_size = options->group_size != 0 ? options->group_size : from->in;
        if (i % 7 == 6 && options->down_group_size != 0) {
            group_size = options->down_group_size;
        }
        linears[i] =
            (mq_master_linear){.out = from->out, .in = from->in, .groups = from->in / group_size};
        snprintf(linears[i].prefix, sizeof linears[i].prefix, "model.layers.%zu.%s", i / 7,
                 from->name);
    }
    static const char *const ignored[] = {"model.layers.9.nothing"};
    *layout = (mq_master_layout){.source = plain,
                                 .group_size = options->group_size,
                                 .slice_rule = options->rule,
                                 .widths = {8, 7, 6, 5, 4, 3, 2},
                                 .width_count = 7,
                                 .linears = linears,
                                 .linear_count = count,
                                 .ignored = ignored,
                                 .ignored_count = 1,
                                 .max_shard_size = options->max_shard_size};
}

static UNUSED mq_status fixture_try_master(const char *folder, const char *plain,
                                           const fixture_master_options *options, mq_error *err) {
    mq_master_linear linears[LINEARS];
    mq_master_layout layout;
    fixture_layout(&layout, linears, plain, options);
    mq_tensors *source = NULL;
    mq_output *output = NULL;
    mq_master_writer *writer = NULL;
    cJSON *provenance = NULL;
    mq_status status = mq_tensors_open(&source, plain, err);
    if (status == MQ_OK) {
        status = mq_output_begin(&output, folder, false, err);
    }
    if (status == MQ_OK) {
        status = mq_master_writer_open(&writer, &layout, source, output, err);
    }
    for (size_t i = 0; status == MQ_OK && i < layout.linear_count; i++) {
        mq_quantized quantized;
        fixture_quantized(&quantized, &linears[i], (uint32_t)i);
        status = mq_master_writer_put(writer, i, &quantized, err);
        fixture_quantized_free(&quantized);
    }
    if (status == MQ_OK) {
        provenance = cJSON_Parse(
            "{\"recipe\": {\"name\": \"best\", \"bits\": [8, 4, 2]}, \"source\": \"tiny\", "
            "\"blocks\": [1, 2]}");
        assert_non_null(provenance);
        status = mq_master_writer_finish(writer, provenance, NULL, err);
    } else {
        mq_master_writer_abandon(writer);
    }
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    cJSON_Delete(provenance);
    if (output != NULL) {
        mq_output_discard(output);
    }
    mq_tensors_close(source);
    return status;
}

/* --- edits ------------------------------------------------------------------------------------ */

/* What to do with one tensor when a folder is written anew: drop it, give it another form (its
 * bytes repeated from a counter), or, when there is no such tensor, add it. */
typedef struct fixture_edit {
    const char *name;
    bool drop;
    mq_dtype dtype;
    size_t dims;
    size_t shape[2];
    unsigned char fill;
} fixture_edit;

static UNUSED char *fixture_file(const char *folder, const char *name) {
    char *path = mq_path_join(folder, name);
    assert_non_null(path);
    return path;
}

/* Sets the member `key` of FOLDER/NAME (inside its member `object`, unless that is NULL) to what
 * json says; NULL removes it. */
static UNUSED void fixture_set_json(const char *folder, const char *name, const char *object,
                                    const char *key, const char *json) {
    mq_error err;
    char *path = fixture_file(folder, name);
    cJSON *whole = NULL;
    must(mq_json_read(&whole, path, &err), &err);
    cJSON *inner = object == NULL ? whole : cJSON_GetObjectItemCaseSensitive(whole, object);
    assert_non_null(inner);
    cJSON_DeleteItemFromObjectCaseSensitive(inner, key);
    if (json != NULL) {
        cJSON *value = cJSON_Parse(json);
        assert_non_null(value);
        assert_true(cJSON_AddItemToObject(inner, key, value));
    }
    char *text = cJSON_Print(whole);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    cJSON_free(text);
    cJSON_Delete(whole);
    mq_free(path);
}

static UNUSED const fixture_edit *fixture_find_edit(const fixture_edit *edits, size_t count,
                                                    const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(edits[i].name, name) == 0) {
            return &edits[i];
        }
    }
    return NULL;
}

static UNUSED void fixture_put_edit(mq_tensor_writer *writer, size_t index,
                                    const fixture_edit *edit) {
    mq_error err;
    size_t bytes =
        mq_dtype_size(edit->dtype) * edit->shape[0] * (edit->dims == 2 ? edit->shape[1] : 1);
    unsigned char *data = mq_alloc(bytes, 1);
    assert_non_null(data);
    memset(data, edit->fill, bytes);
    must(mq_tensor_writer_put(writer, index, data, bytes, &err), &err);
    mq_free(data);
}

/* Copies every file of `from` into a new folder, its tensors edited. */
static UNUSED char *fixture_rewrite(const char *from, const fixture_edit *edits,
                                    size_t edit_count) {
    char *folder = fixture_path("edited");
    mq_error err;
    mq_tensors *tensors = NULL;
    mq_output *output = NULL;
    mq_tensor_writer *writer = NULL;
    must(mq_tensors_open(&tensors, from, &err), &err);
    must(mq_output_begin(&output, folder, false, &err), &err);
    mq_tensor_spec specs[256];
    const fixture_edit *edited[256];
    const mq_tensor_info *kept[256];
    size_t count = 0;
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        const fixture_edit *edit = fixture_find_edit(edits, edit_count, info->name);
        if (edit != NULL) {
            continue;
        }
        specs[count] =
            (mq_tensor_spec){.name = info->name, .dtype = info->dtype, .dims = info->dims};
        memcpy(specs[count].shape, info->shape, sizeof specs[count].shape);
        edited[count] = NULL;
        kept[count++] = info;
    }
    for (size_t i = 0; i < edit_count; i++) {
        if (!edits[i].drop) {
            specs[count] = (mq_tensor_spec){
                .name = edits[i].name, .dtype = edits[i].dtype, .dims = edits[i].dims};
            memcpy(specs[count].shape, edits[i].shape, sizeof edits[i].shape);
            edited[count] = &edits[i];
            kept[count++] = NULL;
        }
    }
    must(mq_tensor_writer_open(&writer, output, specs, count, 0, &err), &err);
    for (size_t i = 0; i < count; i++) {
        if (edited[i] != NULL) {
            fixture_put_edit(writer, i, edited[i]);
        } else {
            must(mq_tensor_writer_put(writer, i, kept[i]->data, kept[i]->bytes, &err), &err);
        }
    }
    must(mq_tensor_writer_close(writer, &err), &err);
    char **names = NULL;
    size_t files = 0;
    must(mq_list_folder(&names, &files, from, &err), &err);
    for (size_t i = 0; i < files; i++) {
        if (strstr(names[i], ".safetensors") == NULL) {
            char *path = fixture_file(from, names[i]);
            must(mq_copy_file(output, names[i], path, &err), &err);
            mq_free(path);
        }
    }
    mq_free_list(names, files);
    must(mq_output_commit(output, &err), &err);
    mq_output_discard(output);
    mq_tensors_close(tensors);
    return folder;
}

/* A master with private norms: written by the writer, then two tensors added (with their CRCs left
 * out, which only mq_verify looks at; fixture_relist adds them). */
static UNUSED char *fixture_master(const char *plain, const fixture_master_options *options) {
    char *folder = fixture_path("master");
    mq_error err;
    must(fixture_try_master(folder, plain, options, &err), &err);
    if (options->no_private) {
        return folder;
    }
    static const fixture_edit private_norms[] = {
        {"model.layers.0.input_layernorm.weight.w4", false, MQ_BF16, 1, {HIDDEN, 0}, 0x3e},
        {"model.norm.weight.w2", false, MQ_BF16, 1, {HIDDEN, 0}, 0x3f},
    };
    char *with_private = fixture_rewrite(folder, private_norms, 2);
    mq_free(folder);
    return with_private;
}

/* Makes matquant.json list every tensor of the folder with its CRC-32. */
static UNUSED void fixture_relist(const char *folder) {
    mq_error err;
    mq_tensors *tensors = NULL;
    must(mq_tensors_open(&tensors, folder, &err), &err);
    cJSON *list = cJSON_CreateObject();
    for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(tensors, i);
        char digits[9];
        snprintf(digits, sizeof digits, "%08x", (unsigned)mq_crc32(0, info->data, info->bytes));
        cJSON *entry = cJSON_AddObjectToObject(list, info->name);
        assert_non_null(cJSON_AddStringToObject(entry, "crc32", digits));
    }
    char *text = cJSON_PrintUnformatted(list);
    fixture_set_json(folder, "matquant.json", NULL, "tensors", text);
    cJSON_free(text);
    cJSON_Delete(list);
    mq_tensors_close(tensors);
}

/* Flips every bit of one byte of a file. */
static UNUSED void fixture_flip(const char *path, size_t offset) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_not_equal(byte, EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 0xff, file), byte ^ 0xff);
    assert_int_equal(fclose(file), 0);
}

/* --- expectations ----------------------------------------------------------------------------- */

/* status, that the error is one line that holds all of these words, and its tensor ("": none). */
static UNUSED void expect_error(mq_status status, mq_status wanted, const mq_error *err,
                                const char *file, const char *tensor, const char *words) {
    char line[1400];
    mq_error_format(line, sizeof line, err);
    if (status != wanted) {
        fail_msg("status %d instead of %d: %s", (int)status, (int)wanted, line);
    }
    assert_int_equal(err->status, wanted);
    if (strstr(err->file, file) == NULL || strstr(err->message, words) == NULL ||
        strcmp(err->tensor, tensor) != 0) {
        fail_msg("expected file %s, tensor \"%s\", \"%s\"; got: %s", file, tensor, words, line);
    }
    assert_null(strchr(line, '\n'));
}

/* Nothing of this name, hidden leftovers included, stands in its folder, which is there. */
static UNUSED void expect_nothing_left(const char *path) {
    char *folder = mq_path_parent(path);
    assert_non_null(folder);
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        fail_msg("cannot open %s", folder);
    }
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strstr(entry->d_name, mq_path_base(path)) != NULL) {
            fail_msg("left behind: %s/%s", folder, entry->d_name);
        }
    }
    closedir(entries);
    mq_free(folder);
}

/* How many entries a folder has, hidden ones and folders included. */
static UNUSED size_t fixture_entries(const char *folder) {
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        fail_msg("cannot open %s", folder);
    }
    size_t count = 0;
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count - 2; /* . and .. */
}

/* Two folders of plain files: the same names with the same bytes, and nothing else in either. */
static UNUSED void expect_same_folders(const char *a, const char *b) {
    mq_error err;
    char **names = NULL;
    size_t count = 0;
    must(mq_list_folder(&names, &count, a, &err), &err);
    assert_int_equal(fixture_entries(a), count);
    assert_int_equal(fixture_entries(b), count);
    for (size_t i = 0; i < count; i++) {
        char *path[2] = {fixture_file(a, names[i]), fixture_file(b, names[i])}, *content[2];
        size_t size[2];
        for (size_t k = 0; k < 2; k++) {
            must(mq_read_file(&content[k], &size[k], path[k], (size_t)1 << 30, &err), &err);
        }
        if (size[0] != size[1] || memcmp(content[0], content[1], size[0]) != 0) {
            fail_msg("%s and %s differ", path[0], path[1]);
        }
        for (size_t k = 0; k < 2; k++) {
            mq_free(content[k]);
            mq_free(path[k]);
        }
    }
    mq_free_list(names, count);
}

#endif
