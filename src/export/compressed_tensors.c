/* compressed-tensors' pack-quantized format, for transformers and vLLM.
 *
 * P.weight_packed I32 [out, words], each row an LSB-first bit stream of t; P.weight_scale [out,
 * groups]; P.weight_zero_point I32 [words of out, groups], packed along out; P.weight_shape I64
 * [2]; w = scale·(t - z). (The reader counts both from -2^(bits - 1) on, which cancels; of a master
 * with a symmetric zero point z is 2^(bits - 1), and the tensor is left out.) Scales have the
 * source's element type, since readers cast them to it. */
#include "export/export.h"

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
    return mq_view_width(view, plan->job->width) == plan->job->width;
}

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const unsigned width = plan->job->width;
    const mq_integer_layout *layout = &mq_integer_of(plan)->layout;
    const size_t groups = view->in / layout->group_size;
    if (!mq_integer_is_packed(plan, view)) {
        return mq_integer_add_plain(plan, view,
                                    "readers of compressed-tensors know one width in a model", err);
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
    mq_status status = mq_integer_begin(plan, packs, mq_plan_source_dtype(plan), true, err);
    return status == MQ_OK ? mq_plan_walk(plan, add_linear, mq_plan_add_copy, err) : status;
}

/* --- config.json ------------------------------------------------------------------------------ */

static mq_status add_weights(cJSON *group, const mq_plan *plan, mq_error *err) {
    const struct {
        const char *key;
        cJSON *value;
    } members[] = {{"num_bits", cJSON_CreateNumber(plan->job->width)},
                   {"type", cJSON_CreateString("int")},
                   {"symmetric", cJSON_CreateBool(mq_plan_is_symmetric(plan))},
                   {"strategy", cJSON_CreateString("group")},
                   {"group_size", cJSON_CreateNumber((double)plan->group_size)},
                   {"dynamic", cJSON_CreateFalse()}};
    cJSON *weights = cJSON_CreateObject();
    mq_status status = mq_json_add(group, "weights", weights, err);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (status == MQ_OK) {
            status = mq_json_add(weights, members[i].key, members[i].value, err);
        } else {
            cJSON_Delete(members[i].value);
        }
    }
    return status;
}

/* All linear layers but those that the master left alone and a head that is not packed. */
static mq_status add_ignored(cJSON *quantization, const mq_plan *plan, mq_error *err) {
    const cJSON *old = cJSON_GetObjectItemCaseSensitive(mq_master_config(plan->job->master),
                                                        "quantization_config");
    const cJSON *ignored = cJSON_GetObjectItemCaseSensitive(old, "ignored");
    cJSON *list = ignored == NULL ? cJSON_CreateArray() : cJSON_Duplicate(ignored, true);
    mq_status status = mq_json_add(quantization, "ignore", list, err);
    if (status == MQ_OK && mq_integer_head(plan) == NULL &&
        !cJSON_AddItemToArray(list, cJSON_CreateString("lm_head"))) {
        status = mq_fail_memory(err, MQ_CONFIG_FILE, 0);
    }
    return status;
}

static mq_status add_groups(cJSON *quantization, const mq_plan *plan, mq_error *err) {
    cJSON *groups = cJSON_CreateObject();
    mq_status status = mq_json_add(quantization, "config_groups", groups, err);
    cJSON *group = status == MQ_OK ? cJSON_AddObjectToObject(groups, "group_0") : NULL;
    cJSON *targets = group != NULL ? cJSON_AddArrayToObject(group, "targets") : NULL;
    static const char *const classes[] = {"Linear", "Embedding"};
    const size_t count = mq_integer_embedding(plan) != NULL ? 2 : 1;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        if (targets == NULL || !cJSON_AddItemToArray(targets, cJSON_CreateString(classes[i]))) {
            status = mq_fail_memory(err, MQ_CONFIG_FILE, 0);
        }
    }
    return status == MQ_OK ? add_weights(group, plan, err) : status;
}

static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    cJSON *quantization = cJSON_CreateObject();
    mq_status status = mq_json_add(config, "quantization_config", quantization, err);
    static const char *const texts[][2] = {{"quant_method", "compressed-tensors"},
                                           {"format", "pack-quantized"},
                                           {"quantization_status", "compressed"}};
    for (size_t i = 0; status == MQ_OK && i < sizeof texts / sizeof *texts; i++) {
        status = mq_json_add(quantization, texts[i][0], cJSON_CreateString(texts[i][1]), err);
    }
    /* Versions from 0.18 on plan unpacked zero points for a layer that stays packed in
     * transformers, and then refuse packed ones; unpacked when the folder is loaded, they are read.
     */
    if (status == MQ_OK) {
        status = mq_json_add(quantization, "dequantize", cJSON_CreateTrue(), err);
    }
    if (status == MQ_OK) {
        status = add_groups(quantization, plan, err);
    }
    return status == MQ_OK ? add_ignored(quantization, plan, err) : status;
}

const mq_export_format mq_export_compressed_tensors = {
    .info =
        {"compressed-tensors",
         "packed words with whole zero points, for transformers and vLLM: fitted, but of a master "
         "with a symmetric zero point exact",
         "2 to 8"},
    .library = "transformers",
    .usage = "    from transformers import AutoModelForCausalLM, AutoTokenizer  # and "
             "compressed-tensors\n"
             "    model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n"
             "    tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n",
    .may_unpack = true,
    .exact_with = "--zero-point symmetric",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
