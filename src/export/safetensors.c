/* Plain weights: every tensor dequantized and rounded to one element type, as any reader of the
 * source's folder reads them. In f32 exact: the numbers that `matquant eval` computes with. */
#include "export/export.h"

#include <string.h>

#include "store/folder.h"
#include "store/names.h"

/* Settled when the plan is made: --dtype, or that of the source's embeddings. */
typedef struct plain {
    mq_dtype dtype;
} plain;

static mq_dtype dtype_of(const mq_plan *plan) { return ((const plain *)plan->own)->dtype; }

/* --- rows ------------------------------------------------------------------------------------- */

/* values[count] in the element type; what rounding costs is added up. */
static void round_values(unsigned char *out, mq_piece *piece, const float *values, size_t count) {
    const mq_dtype dtype = piece->spec.dtype;
    mq_from_f32(out, dtype, values, count);
    if (dtype == MQ_F32) {
        return;
    }
    float rounded[256];
    for (size_t first = 0; first < count; first += 256) {
        const size_t now = count - first < 256 ? count - first : 256;
        mq_to_f32(rounded, out + first * mq_dtype_size(dtype), dtype, now);
        for (size_t i = 0; i < now; i++) {
            const double value = values[first + i], error = rounded[i] - value;
            piece->error += error * error;
            piece->power += value * value;
        }
    }
}

static mq_status fill_values(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                             size_t count, mq_error *err) {
    const mq_weights *weights = plan->job->weights;
    const size_t columns = piece->row_bytes / mq_dtype_size(piece->spec.dtype);
    float *values = NULL;
    mq_status status = mq_new(&values, count * columns, sizeof *values, "rows of weights", err);
    if (status == MQ_OK) {
        status = weights->class_->read(values, weights, piece->spec.name, first, count, err);
    }
    if (status == MQ_OK) {
        round_values(out, piece, values, count * columns);
        const size_t at = mq_first_non_finite(out, piece->spec.dtype, count * columns);
        if (at < count * columns) {
            status = mq_fail_tensor(err, MQ_ERR_USAGE, "", piece->spec.name,
                                    "holds %g, which %s cannot; use --dtype bf16 or f32",
                                    (double)values[at], mq_dtype_name(piece->spec.dtype));
        }
    }
    mq_free(values);
    return status;
}

/* --- the plan --------------------------------------------------------------------------------- */

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const mq_dtype dtype = dtype_of(plan);
    mq_piece piece = {.spec = {.dtype = dtype, .dims = 2, .shape = {view->out, view->in}},
                      .rows = view->out,
                      .row_bytes = view->in * mq_dtype_size(dtype),
                      .fill = fill_values,
                      .is_inexact = dtype != MQ_F32};
    mq_piece_reads_all(&piece, plan, view);
    char name[MQ_STORED_NAME_SIZE];
    return mq_plan_add(plan, mq_name_make(name, view->prefix, "weight", 0), &piece, err);
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
                      .fill = fill_values};
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
    mq_status status = mq_plan_dtype(&own->dtype, plan, err);
    return status == MQ_OK ? mq_plan_walk(plan, add_linear, add_plain, err) : status;
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
    return mq_json_add(config, key, cJSON_CreateString(torch_names[dtype_of(plan)]), err);
}

const mq_export_format mq_export_safetensors = {
    .info = {"safetensors",
             "plain weights in the element type --dtype, for whatever reads the "
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
