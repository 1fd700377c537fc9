/* A tiny plain checkpoint and masters of it with known codes: shared by the tests of store and
 * export.
 *
 * Everything goes through the library's own writers; what it wrote is checked by
 * tests/tools/read_mlx.py, which shares no code with it. Every function fails the test it is called
 * from when anything goes wrong. */
#ifndef MQ_TEST_STORE_FIXTURE_H
#define MQ_TEST_STORE_FIXTURE_H

#include "checkpoint_edits.h"

#include "base/context.h"
#include "base/json.h"
#include "matquant/inspect.h"
#include "store/master.h"

static UNUSED void fixture_random(void *out, size_t size, uint32_t seed) {
    unsigned char *bytes = out;
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(state >> 24);
    }
}

/* --- the plain checkpoint --------------------------------------------------------------------- */

enum { LAYERS = 2, HIDDEN = 64, INTERMEDIATE = 128, VOCAB = 96 };
enum { LINEARS = 7 * LAYERS, TENSORS = 1 + LAYERS * 9 + 1 };

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
    unsigned min_bits;   /* of the embedding, which is quantized after these (of them there must be
                            fewer than all); 0: it is not */
} fixture_master_options;

static UNUSED const fixture_master_options group32 = {.group_size = 32};

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
    if (options->min_bits != 0) {
        assert_true(count < LINEARS);
        linears[count] = (mq_master_linear){.prefix = "model.embed_tokens",
                                            .out = VOCAB,
                                            .in = HIDDEN,
                                            .groups = HIDDEN / options->group_size,
                                            .min_width = options->min_bits};
        count++;
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
        status = mq_master_writer_put_rows(writer, i, &quantized, 0, err);
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

/* One that lists these, too. */
static UNUSED char *good_master(const char *plain, const fixture_master_options *options) {
    char *folder = fixture_master(plain, options);
    fixture_relist(folder);
    return folder;
}

#endif
