/* Plain weights: every tensor dequantized and rounded to one element type, as any reader of the
 * source's folder reads them. In f32 exact: the numbers that `matquant eval` computes with. */
#include "export/export.h"
#include "export/rows.h"

#include <string.h>

#include "store/folder.h"

/* Settled when the plan is made: --dtype, or that of the source's embeddings. */
typedef struct plain {
    mq_dtype dtype;
} plain;

static mq_dtype dtype_of(const mq_plan *plan) { return ((const plain *)plan->own)->dtype; }

/* --- the plan --------------------------------------------------------------------------------- */

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    return mq_add_dequantized(plan, view, dtype_of(plan), err);
}

/* Weights that are not quantized are converted, too, so that the folder is of one type; what is no
 * weight (an integer table) stays. */
static mq_status add_plain(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    const mq_dtype dtype = dtype_of(plan);
    if (info->dtype == dtype || !mq_dtype_is_weight(info->dtype) || info->dims == 0 ||
        info->dims > 2 || info->elements == 0) {
        return mq_plan_add_copy(plan, info, err);
    }
    const size_t rows = info->dims == 1 ? 1 : info->shape[0];
    mq_piece piece = {.spec = {.dtype = dtype, .dims = info->dims},
                      .rows = rows,
                      .row_bytes = info->elements / rows * mq_dtype_size(dtype),
                      .fill = mq_fill_values,
                      .is_inexact = dtype != MQ_F32};
    memcpy(piece.spec.shape, info->shape, info->dims * sizeof *info->shape);
    piece.sources[0] = mq_plan_source(&piece.is_private, plan, info);
    return mq_plan_add(plan, info->name, &piece, err);
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    plain *own = mq_calloc(1, sizeof *own);
    if (own == NULL) {
        return mq_fail_memory(err, "the plan", sizeof *own);
    }
    plan->own = own;
    plan->free_own = mq_free;
    own->dtype = mq_plan_dtype(plan);
    return mq_plan_walk(plan, add_linear, add_plain, err);
}

/* --- config.json ------------------------------------------------------------------------------ */

/* The element type that readers load the weights in: "dtype", or "torch_dtype" in files that older
 * programs wrote. */
static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    static const char *const torch_names[] = {
        [MQ_F32] = "float32", [MQ_F16] = "float16", [MQ_BF16] = "bfloat16"};
    const char *key =
        cJSON_GetObjectItemCaseSensitive(config, "torch_dtype") != NULL ? "torch_dtype" : "dtype";
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    mq_json json = {.root = NULL};
    mq_json_put_text(&json, config, key, torch_names[dtype_of(plan)]);
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

const mq_export_format mq_export_safetensors = {
    .info = {"safetensors",
             "plain weights in the element type --dtype, for every program that reads the "
             "original model",
             "2 to 8"},
    .takes_dtype = true,
    .has_extra = true,
    .library = "transformers",
    .usage = "    from transformers import AutoModelForCausalLM, AutoTokenizer\n"
             "    model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n"
             "    tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
