/* MLX's affine format: what mlx-lm's load() reads. Exact.
 *
 * P.weight U32 [out, in·r/32], each row an LSB-first bit stream, P.scales and P.biases F16 (of
 * embeddings and head mostly BF16: pair_dtype) [out, in/group_size], w = scale·s + bias. Slices
 * with an extra level (slice rule round-extra) take one bit more: MLX reads an int2 model of five
 * levels as one of 3 bits. A layer is taken for quantized when its scales are there, so that layers
 * without (ignored ones) need no entry. config.json names group size and bits once, and a layer
 * whose own differ (an embedding's may) by its own entry, under the layer's path beside the two.
 * Tensors that the language model does not have, or does not use, are left out, and those that it
 * has are called as published.
 * The safetensors header's "format" may stay "pt": MLX does not look at it and transformers accepts
 * it. */
#include "export/export.h"

#include <string.h>

#include "export/mlx_config.h"
#include "export/rows.h"
#include "store/folder.h"
#include "store/names.h"
#include "store/pack.h"
#include "store/slice_size.h"

/* --- rows ------------------------------------------------------------------------------------- */

/* One thread packs some gigabytes a second, more than disks write: waking others would only cost.
 */
static mq_status fill_codes(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                            size_t count, mq_error *err) {
    (void)err;
    const size_t in = piece->linear->in;
    const mq_slice_rule rule = mq_master_slice_rule(plan->job->master);
    const unsigned width = mq_plan_width(plan, piece->linear);
    for (size_t i = 0; i < count; i++) {
        /* rows of words in an aligned block */
        mq_pack_row((uint32_t *)(void *)(out + i * piece->row_bytes),
                    piece->linear->codes->data + (first + i) * in, in, width, rule);
    }
    return MQ_OK;
}

/* Rows of float16, or of the same numbers in bfloat16; each number `repeat` times. */
static mq_status fill_repeated(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                               size_t count, mq_error *err) {
    (void)plan;
    (void)err;
    const size_t groups = piece->linear->groups, half = sizeof(uint16_t);
    const unsigned char *from = piece->sources[0]->data + first * groups * half;
    for (size_t i = 0; i < count * groups; i++) {
        uint16_t number;
        memcpy(&number, from + i * half, half);
        if (piece->spec.dtype == MQ_BF16) {
            number = mq_f32_to_bf16(mq_f16_to_f32(number));
        }
        for (size_t k = 0; k < piece->repeat; k++) {
            memcpy(out, &number, half);
            out += half;
        }
    }
    return MQ_OK;
}

static bool are_bf16(const mq_tensor_info *halves) {
    for (size_t i = 0; i < halves->elements; i++) {
        uint16_t bits;
        memcpy(&bits, halves->data + i * sizeof bits, sizeof bits);
        const float value = mq_f16_to_f32(bits);
        if (mq_bf16_to_f32(mq_f32_to_bf16(value)) != value) {
            return false; /* nor is a NaN, which check_linear of stream.c reports */
        }
    }
    return true;
}

/* MLX computes in the type that the embeddings' scales have: what follows them is float16 where
 * these are, and Gemma 3's activations do not fit in that. So their numbers, which are bfloat16's
 * as well (matquant/format.h), are stored as such, unless what is plain is of float16. The
 * scales of linear layers decide nothing: with activations of bfloat16, MLX multiplies in float32.
 */
static mq_dtype pair_dtype(const mq_plan *plan, const mq_master_view *view, unsigned width) {
    const bool decides = view->min_width != 0 && mq_plan_dtype(plan) != MQ_F16;
    return decides && are_bf16(view->scales[width]) && are_bf16(view->biases[width]) ? MQ_BF16
                                                                                     : MQ_F16;
}

/* --- the plan --------------------------------------------------------------------------------- */

static unsigned bits_of(const mq_plan *plan) {
    return mq_mlx_bits(plan->job->width, mq_master_slice_rule(plan->job->master));
}

static unsigned bits_of_layer(const mq_plan *plan, const mq_master_view *view) {
    return mq_mlx_bits(mq_plan_width(plan, view), mq_master_slice_rule(plan->job->master));
}

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const unsigned width = mq_plan_width(plan, view);
    const unsigned bits = bits_of_layer(plan, view);
    if (bits == 0) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
                              "takes %u bits, which MLX's format has not; use --format safetensors",
                              width);
    }
    if (mq_mlx_group_size(view) == 0) {
        return mq_fail_tensor(
            err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
            "groups of %zu are no multiple of 32, 64 or 128, the only ones in MLX's format; use "
            "--format safetensors or gguf",
            view->in / view->groups);
    }
    char name[MQ_STORED_NAME_SIZE];
    const size_t words = view->in / 32 * bits;
    mq_piece piece = {.spec = {.dtype = MQ_U32, .dims = 2, .shape = {view->out, words}},
                      .rows = view->out,
                      .row_bytes = words * sizeof(uint32_t),
                      .fill = fill_codes,
                      .sources = {view->codes},
                      .linear = view};
    mq_status status =
        mq_plan_add(plan, mq_name_make(name, view->prefix, "weight", 0), &piece, err);
    const size_t groups = view->in / mq_mlx_group_size(view);
    piece = (mq_piece){
        .spec = {.dtype = pair_dtype(plan, view, width), .dims = 2, .shape = {view->out, groups}},
        .rows = view->out,
        .row_bytes = groups * sizeof(uint16_t),
        .fill = fill_repeated,
        .linear = view,
        .repeat = groups / view->groups};
    static const char *const parts[] = {"scales", "biases"};
    for (size_t i = 0; status == MQ_OK && i < 2; i++) {
        piece.sources[0] = i == 0 ? view->scales[width] : view->biases[width];
        status = mq_plan_add(plan, mq_name_make(name, view->prefix, parts[i], 0), &piece, err);
    }
    return status;
}

/* That of most layers, the largest of those. */
static size_t common_group_size(const mq_plan *plan) {
    const mq_master *master = plan->job->master;
    static const size_t sizes[] = {128, 64, 32};
    size_t best = 0, best_count = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t count = 0;
        for (size_t k = 0; k < mq_master_linear_count(master); k++) {
            const mq_master_view *view = mq_master_linear_at(master, k);
            count += mq_mlx_group_size(view) == sizes[i] &&
                     !mq_config_is_unused_head(plan->job->config, view->prefix);
        }
        if (i == 0 || count > best_count) {
            best = sizes[i];
            best_count = count;
        }
    }
    return best;
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    if (bits_of(plan) == 0) {
        if (plan->job->width == 7) {
            return mq_fail(err, MQ_ERR_USAGE,
                           "MLX's format has no 7 bits; use --bits 2, 3, 4, 5, 6 or 8, or --format "
                           "compressed-tensors or matquant");
        }
        return mq_fail(
            err, MQ_ERR_USAGE,
            "MLX's format has no 7 bits, which slices of 6 with the extra level of slice "
            "rule round-extra need; use --bits 2, 3, 4, 5 or 8, or --format matquant");
    }
    mq_mlx_warn_of_reader(plan);
    plan->group_size = common_group_size(plan);
    plan->has = mq_mlx_has;
    plan->layout = MQ_LAYOUT_PUBLISHED;
    return mq_plan_walk(plan, add_linear, mq_add_unquantized, err);
}

/* --- config.json ------------------------------------------------------------------------------ */

/* {"group_size": N, "bits": R} */
static cJSON *put_quantization(mq_json *json, cJSON *at, const char *key, size_t group_size,
                               unsigned width) {
    cJSON *object = mq_json_put_object(json, at, key);
    mq_json_put_size(json, object, "group_size", group_size);
    mq_json_put_size(json, object, "bits", width);
    return object;
}

static void put_exceptions(mq_json *json, cJSON *quantization, const mq_plan *plan) {
    const mq_master *master = plan->job->master;
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        const size_t group_size = mq_mlx_group_size(view);
        const unsigned bits = bits_of_layer(plan, view);
        if ((group_size != plan->group_size || bits != bits_of(plan)) &&
            !mq_config_is_unused_head(plan->job->config, view->prefix)) {
            char name[MQ_NAME_SIZE];
            put_quantization(json, quantization,
                             mq_config_rename(name, plan->job->config, view->prefix, plan->layout),
                             group_size, bits);
        }
    }
}

/* "quantization", and the same as "quantization_config", which the hub shows. */
static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    mq_json json = {.root = NULL};
    mq_mlx_spell_config(&json, config, plan->job->config);
    cJSON *quantization =
        put_quantization(&json, config, "quantization", plan->group_size, bits_of(plan));
    put_exceptions(&json, quantization, plan);
    mq_json_put_copy(&json, config, "quantization_config", quantization);
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

/* --- the model card --------------------------------------------------------------------------- */

#define FLOAT32                                                                                    \
    "Scales and biases of linear layers are float16, which holds them exactly. Beside embeddings " \
    "in bfloat16 mlx-lm therefore computes in float32"

/* MLX's product of bfloat16 with float16 is a float32, and so is all that follows it, the cache of
 * keys and values too. */
static const char *note(const mq_plan *plan) {
    static const char always[] = FLOAT32 ".";
    static const char unless_asked[] =
        FLOAT32 "; cut with `--dtype f16`, the slice computes in float16 throughout.";
    if (mq_plan_dtype(plan) != MQ_BF16) {
        return NULL;
    }
    return plan->job->config->arch->float16_fault != NULL ? always : unless_asked;
}

const mq_export_format mq_export_mlx = {
    .info = {"mlx", "MLX's affine format: packed words, for mlx-lm and for matquant eval",
             "2, 3, 4, 5, 6, 8"},
    .takes_dtype = true,
    .has_extra = true,
    .mixes = true,
    .library = "mlx",
    .usage = "    from mlx_lm import load, generate\n"
             "    model, tokenizer = load(\"path/to/this/folder\")\n"
             "    print(generate(model, tokenizer, \"Once upon a time\"))\n",
    .note = note,
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
