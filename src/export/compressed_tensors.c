/* compressed-tensors' pack-quantized format, for transformers (vLLM: not tried).
 *
 * P.weight_packed I32 [out, words], each row an LSB-first bit stream of t; P.weight_scale [out,
 * groups]; P.weight_zero_point I32 [words of out, groups], packed along out; P.weight_shape I64
 * [2]; w = scale·(t - z). (The reader counts both from -2^(bits - 1) on, which cancels; of a master
 * with a symmetric zero point z is 2^(bits - 1), and the tensor is left out.) Scales have the
 * element type of what is plain, since readers cast them to it. */
#include "export/export.h"

#include <stdio.h>
#include <string.h>

#include "export/integer_format.h"
#include "export/rows.h"
#include "store/folder.h"

static mq_status fill_shape(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                            size_t count, mq_error *err) {
    (void)plan;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        const int64_t size = (int64_t)(first + i == 0 ? piece->linear->out : piece->linear->in);
        memcpy(out + i * sizeof size, &size, sizeof size);
    }
    return MQ_OK;
}

/* transformers unpacks a folder by the first of its groups, so that embeddings are packed where
 * they have the width of everything else. */
static bool packs(const mq_plan *plan, const mq_master_view *view) {
    return mq_plan_width(plan, view) == plan->job->width;
}

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const unsigned width = plan->job->width;
    const mq_integer_layout *layout = &mq_integer_of(plan)->layout;
    const size_t groups = view->in / layout->group_size;
    if (!mq_integer_is_packed(plan, view)) {
        return mq_integer_add_dequantized(
            plan, view, "readers of compressed-tensors know one width in a model", err);
    }
    mq_status status = mq_integer_add(plan, view, "weight_packed", MQ_I32, view->out,
                                      mq_packed_words(view->in, width), mq_fill_codes, err);
    if (status == MQ_OK) {
        status = mq_integer_add(plan, view, "weight_scale", layout->scale_dtype, view->out, groups,
                                mq_fill_scales_by_row, err);
    }
    if (status == MQ_OK && !mq_plan_is_symmetric(plan)) {
        status =
            mq_integer_add(plan, view, "weight_zero_point", MQ_I32,
                           mq_packed_words(view->out, width), groups, mq_fill_zeros_by_words, err);
    }
    if (status == MQ_OK) {
        status = mq_integer_add(plan, view, "weight_shape", MQ_I64, 2, 1, fill_shape, err);
    }
    if (status == MQ_OK) {
        plan->pieces[plan->count - 1].spec.dims = 1; /* [2] */
    }
    return status;
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    mq_status status = mq_integer_begin(plan, packs, mq_plan_dtype(plan), true, err);
    return status == MQ_OK ? mq_plan_walk(plan, add_linear, mq_add_unquantized, err) : status;
}

/* --- config.json ------------------------------------------------------------------------------ */

static void put_groups(mq_json *json, cJSON *quantization, const mq_plan *plan) {
    cJSON *groups = mq_json_put_object(json, quantization, "config_groups");
    cJSON *group = mq_json_put_object(json, groups, "group_0");
    cJSON *targets = mq_json_put_array(json, group, "targets");
    mq_json_put_text(json, targets, NULL, "Linear");
    if (mq_integer_embedding(plan) != NULL) {
        mq_json_put_text(json, targets, NULL, "Embedding");
    }
    cJSON *weights = mq_json_put_object(json, group, "weights");
    mq_json_put_size(json, weights, "num_bits", plan->job->width);
    mq_json_put_text(json, weights, "type", "int");
    mq_json_put_bool(json, weights, "symmetric", mq_plan_is_symmetric(plan));
    mq_json_put_text(json, weights, "strategy", "group");
    mq_json_put_size(json, weights, "group_size", plan->group_size);
    mq_json_put_bool(json, weights, "dynamic", false);
}

/* Regular expressions that find the modules of other parts whatever stands before their names. */
static void put_other_parts(mq_json *json, cJSON *list, const mq_config *config) {
    const char *const *parts = mq_arch_layout(config->arch, MQ_LAYOUT_PUBLISHED)->other_parts;
    for (size_t i = 0; parts != NULL && parts[i] != NULL; i++) {
        const size_t length = strcspn(parts[i], ".");
        if (i == 0 || strncmp(parts[i], parts[i - 1], length + 1) != 0) {
            char pattern[MQ_NAME_SIZE];
            snprintf(pattern, sizeof pattern, "re:.*%.*s.*", (int)length, parts[i]);
            mq_json_put_text(json, list, NULL, pattern);
        }
    }
}

/* Which modules are not packed, by transformers' names: layers that the master left alone, a head
 * that is not packed, and all of other parts. */
static void put_ignored(mq_json *json, cJSON *quantization, const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const cJSON *old = cJSON_GetObjectItemCaseSensitive(mq_master_config(plan->job->master),
                                                        "quantization_config");
    const cJSON *ignored = cJSON_GetObjectItemCaseSensitive(old, "ignored"), *item = NULL;
    cJSON *list = mq_json_put_array(json, quantization, "ignore");
    char name[MQ_NAME_SIZE];
    cJSON_ArrayForEach(item, ignored) {
        mq_json_put_text(json, list, NULL,
                         mq_config_rename(name, config, item->valuestring, MQ_LAYOUT_MODULES));
    }
    if (mq_integer_head(plan) == NULL) {
        mq_json_put_text(json, list, NULL, "lm_head");
    }
    put_other_parts(json, list, config);
}

static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    mq_json json = {.root = NULL};
    cJSON *quantization = mq_json_put_object(&json, config, "quantization_config");
    mq_json_put_text(&json, quantization, "quant_method", "compressed-tensors");
    mq_json_put_text(&json, quantization, "format", "pack-quantized");
    mq_json_put_text(&json, quantization, "quantization_status", "compressed");
    /* Versions from 0.18 on plan unpacked zero points for a layer that stays packed in
     * transformers, and then refuse packed ones; unpacked when the folder is loaded, they are read.
     */
    mq_json_put_bool(&json, quantization, "dequantize", true);
    put_groups(&json, quantization, plan);
    put_ignored(&json, quantization, plan);
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

const mq_export_format mq_export_compressed_tensors = {
    .info = {"compressed-tensors",
             "packed words with whole zero points, for transformers (vLLM: not tried): fitted, but "
             "exact from a master with a symmetric zero point",
             "2 to 8"},
    .library = "transformers",
    .usage = "    from transformers import AutoModelForCausalLM, AutoTokenizer  # and "
             "compressed-tensors\n"
             "    model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n"
             "    tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n",
    .takes_dtype = true,
    .may_unpack = true,
    .exact_with = "--zero-point symmetric",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
