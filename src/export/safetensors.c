/* Plain weights: every tensor dequantized and rounded to one element type, as any reader of the
 * source's folder reads them. In f32 exact: the numbers that `matquant eval` computes with. */
#include "export/export.h"
#include "export/rows.h"

/* Settled when the plan is made: --dtype, or that of the source's embeddings. */
typedef struct plain {
    mq_dtype dtype;
} plain;

static mq_dtype dtype_of(const mq_plan *plan) { return ((const plain *)plan->own)->dtype; }

/* --- the plan --------------------------------------------------------------------------------- */

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    return mq_add_dequantized(plan, view, dtype_of(plan), err);
}

/* Weights that are not quantized are converted, too, so that the folder is of one type. */
static mq_status add_plain(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    return mq_add_converted(plan, info, dtype_of(plan), err);
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

static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    return mq_export_put_dtype(config, dtype_of(plan), err);
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
