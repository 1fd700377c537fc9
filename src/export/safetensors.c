/* Plain weights: every tensor dequantized and rounded to one element type, as any reader of the
 * source's folder reads them. In f32 exact: the numbers that `matquant eval` computes with. */
#include "export/export.h"
#include "export/rows.h"

/* --- the plan --------------------------------------------------------------------------------- */

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    return mq_add_dequantized(plan, view, mq_plan_dtype(plan), err);
}

/* Weights that are not quantized are converted, too, so that the folder is of one type. */
static mq_status add_unquantized(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    return mq_add_converted(plan, info, mq_plan_dtype(plan), err);
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    return mq_plan_walk(plan, add_linear, add_unquantized, err);
}

/* --- config.json ------------------------------------------------------------------------------ */

/* The type that nobody named; that of --dtype folder.c puts there for every format. */
static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    return plan->job->options->dtype == MQ_SLICE_DTYPE_SOURCE
               ? mq_export_put_dtype(config, mq_plan_dtype(plan), err)
               : MQ_OK;
}

const mq_export_format mq_export_safetensors = {
    .info = {"safetensors",
             "plain weights in the element type --dtype, for every program that reads the "
             "original model",
             "2 to 8"},
    .takes_dtype = true,
    .has_extra = true,
    .mixes = true,
    .library = "transformers",
    .usage = "    from transformers import AutoModelForCausalLM, AutoTokenizer\n"
             "    model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n"
             "    tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
