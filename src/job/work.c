/* How much arithmetic a job is. */
#include "job/job.h"
#include "quant/recipe.h"
#include "quant/refit.h"

/* Multiply-adds of one token, times two, through the linear layers of a block: all of them, those
 * whose weights are learned, and the first, queries, keys and values, before which nothing is. */
typedef struct layer_work {
    double all, learned, first;
} layer_work;

static layer_work work_of(const mq_quantize_plan *plan, size_t layer) {
    layer_work work = {0.0, 0.0, 0.0};
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &plan->model->config, linear);
        const double one = 2.0 * (double)out * (double)in;
        work.all += one;
        work.learned += plan->selection.groups[layer][linear] > 0 ? one : 0.0;
        work.first += linear == MQ_Q || linear == MQ_K || linear == MQ_V ? one : 0.0;
    }
    return work;
}

/* Passes over the text of the blocks that train something, widths added up. A block may stop early
 * after two. */
static double passes(const mq_quantize_options *options) {
    const size_t batch = mq_smaller(options->batch, options->samples);
    const size_t batches = (options->samples + batch - 1) / batch;
    const size_t epochs =
        options->early_stop > 0.0 ? mq_smaller(options->epochs, 2) : options->epochs;
    const size_t steps = batches * epochs;
    size_t visits = options->sampled ? steps : 0;
    for (size_t i = 0; !options->sampled && i < options->width_count; i++) {
        visits += mq_recipe_visits(options, i, steps);
    }
    return (double)visits / (double)batches;
}

/* The teacher, training, and the students' way to the next block, which the last one leaves out. A
 * width's training makes its outputs and the gradients of weights, and of inputs but the first's.
 */
static double block_work(const mq_quantize_plan *plan, size_t layer) {
    const mq_quantize_options *options = plan->options;
    const layer_work work = work_of(plan, layer);
    const bool last = layer + 1 == plan->selection.blocks;
    const double inputs = work.learned == work.all ? work.all - work.first : 0.0;
    const double step = work.learned > 0.0 ? work.all + work.learned + inputs : 0.0;
    return (double)options->samples * (double)options->seq_len *
           (work.all + passes(options) * step +
            (last ? 0.0 : (double)options->width_count * work.all));
}

/* A token's training end to end: as a block's, but that gradients pass through everything, to the
 * norms; and the head, for the student, for full precision, and back. */
static double end_to_end_work(const mq_quantize_plan *plan) {
    const mq_config *config = &plan->model->config;
    double work = 3.0 * 2.0 * (double)config->vocab_size * (double)config->hidden_size;
    for (size_t layer = 0; layer < plan->selection.layers; layer++) {
        const layer_work part = work_of(plan, layer);
        work += 2.0 * part.all + part.learned;
    }
    return work;
}

/* Sequences that --qat trains on, at all widths, as often as it does: int8 on some steps only. */
static double qat_sequences(const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    const size_t batch = mq_smaller(options->refit_batch, plan->qat_train);
    const size_t steps = batch > 0 ? plan->qat_train / batch * plan->qat_epochs : 0;
    size_t visits = 0;
    for (size_t i = 0; i < options->width_count; i++) {
        const bool seldom = options->widths[i] == MQ_MAX_WIDTH;
        if (!(options->lambda[i] > 0.0)) {
            continue; /* is only measured */
        }
        visits += seldom ? steps / mq_recipe_period(options, i) : steps;
    }
    return (double)visits * (double)batch;
}

double mq_quantize_work(const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    if (options->recipe == MQ_RECIPE_RTN) {
        return 0.0;
    }
    double work = 0.0;
    for (size_t layer = 0; layer < plan->selection.blocks; layer++) {
        work += plan->kept.block != NULL && plan->kept.block[layer] ? 0.0 : block_work(plan, layer);
    }
    const mq_refit_setup setup = mq_quantize_end_to_end(plan, plan->refit_train);
    double sequences = options->qat ? qat_sequences(plan) : 0.0;
    for (size_t i = 0; i < plan->refit_width_count; i++) {
        const unsigned width = plan->refit_widths[i];
        sequences += plan->kept.width[width]
                         ? 0.0
                         : (double)mq_refit_share(&setup, width) * (double)plan->refit_epochs;
    }
    return work + sequences * (double)options->seq_len * end_to_end_work(plan);
}
