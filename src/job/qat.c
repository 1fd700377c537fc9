/* The end-to-end training of the codes as a stage of the job. */
#include <string.h>

#include "job/job.h"
#include "quant/recipe.h"

static mq_qat_setup setup_of(const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    mq_qat_setup setup = {.refit = mq_quantize_end_to_end(plan, plan->qat_train),
                          .width_count = options->width_count,
                          .int8_period =
                              options->widths[0] == MQ_MAX_WIDTH ? mq_recipe_period(options, 0) : 1,
                          .rate = mq_quantize_qat_rate(options)};
    setup.refit.codes_move = true;
    setup.refit.epochs = plan->qat_epochs;
    memcpy(setup.widths, options->widths, sizeof setup.widths);
    memcpy(setup.lambda, options->lambda, sizeof setup.lambda);
    return setup;
}

double mq_quantize_qat_rate(const mq_quantize_options *options) {
    return options->qat_rate > 0.0 ? options->qat_rate : mq_qat_rate(options->slice_rule);
}

mq_status mq_quantize_qat_memory(mq_quantize_plan *plan, mq_error *err) {
    const mq_qat_setup setup = setup_of(plan);
    const mq_status status = mq_qat_prepare(&setup, err);
    return status == MQ_OK ? mq_qat_memory(&plan->qat_memory, &setup, plan->context, err) : status;
}

mq_status mq_quantize_qat(mq_qat_report *report, const mq_quantize_plan *plan,
                          mq_weights *const embeddings[MQ_MAX_WIDTH + 1], mq_master_writer *writer,
                          mq_error *err) {
    mq_qat_setup setup = setup_of(plan);
    memcpy(setup.refit.embeddings, embeddings, sizeof setup.refit.embeddings);
    mq_refit_bridge bridge;
    const mq_refit_store store = mq_quantize_store(&bridge, plan, writer);
    mq_qat_result result;
    const mq_status status = mq_qat_run(&result, &setup, &store, plan->context, err);
    if (status == MQ_OK) {
        *report = (mq_qat_report){.loss_before = result.loss_before,
                                  .loss_after = result.loss_after,
                                  .kept_epoch = result.kept_epoch,
                                  .tokens = result.tokens,
                                  .moved = result.moved};
        memcpy(report->kl_before, result.kl_before, sizeof report->kl_before);
        memcpy(report->kl_after, result.kl_after, sizeof report->kl_after);
    }
    return status;
}
