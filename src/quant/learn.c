/* The loops over calibration tokens for one block: teacher, training, measuring, advancing
 * (docs/method.md, 2). */
#include <string.h>

#include "base/random.h"
#include "quant/learner.h"
#include "quant/loss.h"
#include "quant/visit.h"

/* One batch: sequences [first, first + count) of the chains. */
typedef struct batch {
    size_t first, count; /* sequences */
    size_t tokens;
    size_t offset; /* floats from the start of a chain */
} batch;

static size_t batch_count(const mq_learner *learner) {
    return (learner->chains.sequences + learner->batch - 1) / learner->batch;
}

static batch batch_at(const mq_learner *learner, size_t index) {
    const mq_chains *chains = &learner->chains;
    batch result = {.first = index * learner->batch, .count = learner->batch};
    if (result.first + result.count > chains->sequences) {
        result.count = chains->sequences - result.first;
    }
    result.tokens = result.count * chains->length;
    result.offset = result.first * chains->length * learner->model->config.hidden_size;
    return result;
}

static mq_block_shape shape_of(const mq_learner *learner, size_t layer, size_t sequences) {
    return mq_block_shape_of(&learner->model->config, layer, &learner->rotations, sequences,
                             learner->chains.length);
}

/* The block's weights with trained width k's values in place of the quantized linears.
 *
 * With a bfloat16 gemm all of a block's products are of bfloat16: the teacher's and its Gram
 * matrices, which took an eighth of a block's time in float32 where there is AMX, training, and
 * also measuring and advancing the students' chains. Rounding lies 50 dB and more below the
 * activations, less than what int8 itself is off by, and it moves the chains no further than other
 * text would: how good the stored numbers are is for eval to say, in float32
 * (tests/bench/RESULTS.md, "The teacher in bfloat16"). */
static mq_block_weights weights_of(const mq_learner *learner, size_t k) {
    mq_block_weights weights = mq_block_params_view_bf16(&learner->params);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (learner->grid[i].groups > 0) { /* of the two one is there */
            weights.linear[i] = learner->values[i][k].f32;
            weights.linear_bf16[i] = learner->values[i][k].bf16;
        }
    }
    return weights;
}

/* Whether to go on: between batches. */
static mq_status check(const mq_learner *learner, mq_error *err) {
    const mq_status status = mq_check_interrupt(learner->context, err);
    return status == MQ_OK && learner->gemm != NULL ? mq_gemm_bf16_check(learner->gemm, err)
                                                    : status;
}

/* --- teacher ---------------------------------------------------------------------------------- */

/* Linears that share an input have one Gram matrix. */
static bool has_gram(const mq_learner *learner, mq_linear linear) {
    return !learner->taken && mq_block_input_owner(linear) == linear;
}

static void gram_begin(mq_learner *learner) {
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        if (!has_gram(learner, linear)) {
            continue;
        }
        size_t out, in;
        mq_config_linear_shape(&out, &in, &learner->model->config, linear);
        memset(learner->gram_sum[linear], 0, in * sizeof(double));
        float *matrix = mq_learner_gram_matrix(learner, linear);
        if (matrix != NULL) {
            memset(matrix, 0, in * in * sizeof *matrix);
        }
    }
}

/* The mean over tokens; an input that never moved gets a little weight, so that least squares stays
 * defined. */
static void gram_end(mq_learner *learner) {
    const double tokens = (double)learner->chains.sequences * (double)learner->chains.length;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        if (!has_gram(learner, linear)) {
            continue;
        }
        size_t out, in;
        mq_config_linear_shape(&out, &in, &learner->model->config, linear);
        double mean = 0.0;
        for (size_t c = 0; c < in; c++) {
            mean += learner->gram_sum[linear][c] / tokens / (double)in;
        }
        for (size_t c = 0; c < in; c++) {
            learner->gram[linear][c] =
                (float)(learner->gram_sum[linear][c] / tokens + 1e-6 * mean + 1e-12);
        }
    }
}

/* The block's weights of full precision: of bfloat16 in the room of a width's values, which are
 * made later. */
static mq_block_weights full_weights(const mq_learner *learner) {
    mq_block_params params = learner->params;
    bool kept[MQ_LINEAR_COUNT]; /* which loading has rounded */
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        kept[i] = learner->grid[i].groups == 0;
        if (!kept[i]) {
            params.rounded[i] = learner->values[i][0].bf16;
        }
    }
    mq_block_params_round(&params, &learner->model->config, kept);
    return mq_block_params_view_bf16(&params);
}

mq_status mq_learner_teach(mq_learner *learner, size_t layer, mq_error *err) {
    const mq_block_weights weights = full_weights(learner);
    gram_begin(learner);
    for (size_t index = 0; index < batch_count(learner); index++) {
        const mq_status status = check(learner, err);
        if (status != MQ_OK) {
            return status;
        }
        const batch part = batch_at(learner, index);
        const mq_block_shape shape = shape_of(learner, layer, part.count);
        mq_block_forward(learner->chains.target + part.offset,
                         learner->chains.teacher + part.offset, &weights, &shape,
                         learner->activations, learner->context);
        for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
            if (has_gram(learner, linear)) {
                mq_block_gram_add(learner->gram_sum[linear],
                                  mq_learner_gram_matrix(learner, linear), linear, &weights, &shape,
                                  learner->activations, learner->context);
            }
        }
    }
    gram_end(learner);
    return MQ_OK;
}

/* --- training --------------------------------------------------------------------------------- */

/* What trained width k's output should be: full precision's, and that of the wider widths which it
 * learns from (co-distillation), whose outputs of this batch are in guide. factor: on all
 * weights. Their number. */
static size_t goals_of(mq_goal goals[MQ_MAX_GOALS], const mq_learner *learner, batch part, size_t k,
                       double factor) {
    const mq_quantize_options *options = learner->options;
    size_t count = 0;
    if (options->lambda[k] > 0.0) {
        goals[count++] =
            (mq_goal){learner->chains.target + part.offset, options->lambda[k] * factor};
    }
    for (size_t i = 0; i < options->codistill_count; i++) {
        for (size_t wide = 0; wide < k; wide++) {
            if (options->codistill[i].student == options->widths[k] &&
                options->codistill[i].teacher == options->widths[wide]) {
                goals[count++] =
                    (mq_goal){learner->guide[wide], options->codistill[i].lambda * factor};
            }
        }
    }
    return count;
}

/* The block's output of one batch at trained width k, also into guide[k] if narrower widths learn
 * from it. */
static void forward_of(mq_learner *learner, size_t layer, batch part, size_t k) {
    const mq_block_weights weights = weights_of(learner, k);
    const mq_block_shape shape = shape_of(learner, layer, part.count);
    mq_block_forward(learner->output, learner->chains.student[k] + part.offset, &weights, &shape,
                     learner->activations, learner->context);
    if (learner->guide[k] != NULL) {
        memcpy(learner->guide[k], learner->output,
               part.tokens * learner->model->config.hidden_size * sizeof(float));
    }
}

/* Forward, loss gradient and backward of one batch at trained width k, into
 * learner->gradients[..][k]. */
static void gradients_of(mq_learner *learner, size_t layer, batch part, size_t k, double factor) {
    const mq_block_weights weights = weights_of(learner, k);
    const mq_block_shape shape = shape_of(learner, layer, part.count);
    mq_block_grads grads = {0};
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (learner->grid[i].groups > 0) {
            grads.linear[i] = learner->gradients[i][k];
        }
    }
    if (learner->options->let && learner->let.scales_norm) {
        grads.norm[MQ_NORM_PRE_FFN] = learner->let.norm_part;
    }
    mq_goal goals[MQ_MAX_GOALS];
    const size_t goal_count = goals_of(goals, learner, part, k, factor);
    forward_of(learner, layer, part, k);
    if (learner->options->early_stop > 0.0) {
        const double loss =
            mq_block_loss_value(learner->output, learner->chains.target + part.offset, part.tokens,
                                learner->model->config.hidden_size, learner->options->loss);
        learner->loss_sum[k] += loss * (double)part.tokens;
        learner->loss_tokens[k] += part.tokens;
    }
    mq_block_loss_gradient(learner->output, goals, goal_count, part.tokens,
                           learner->model->config.hidden_size, learner->options->loss);
    mq_block_backward(&grads, learner->output, learner->chains.student[k] + part.offset, &weights,
                      &shape, learner->activations, learner->context);
    if (grads.norm[MQ_NORM_PRE_FFN] != NULL) {
        mq_let_add_norm(&learner->let);
    }
}

/* Where a linear's values go: those of the widths that are wanted. */
static void values_of(mq_values values[MQ_MAX_WIDTHS], const mq_learner *learner, size_t linear,
                      const bool wanted[MQ_MAX_WIDTHS]) {
    for (size_t k = 0; k < MQ_MAX_WIDTHS; k++) {
        values[k] = wanted[k] ? learner->values[linear][k] : (mq_values){NULL, NULL};
    }
}

/* The equivalent transformation's step, when the grids' are done, and the values that follow from
 * it. */
static void step_let(mq_learner *learner, const bool wanted[MQ_MAX_WIDTHS], size_t step,
                     size_t steps) {
    const mq_adam adam =
        mq_adam_at(MQ_ADAM_BETA1, MQ_ADAM_EPSILON,
                   (float)MQ_LET_RATE * (float)learner->options->rate, 0.0f, step, steps);
    mq_let_step(&learner->let, &adam);
    for (int i = MQ_GATE; i <= MQ_DOWN; i++) {
        const mq_grid *grid = &learner->grid[i];
        if (grid->groups > 0 && grid->weight_gradient != NULL) {
            mq_values values[MQ_MAX_WIDTHS];
            values_of(values, learner, (size_t)i, wanted);
            grid->class_->values(values, grid);
        }
    }
}

/* One step of all that is learned, and the values that the next one reads. */
static void step_all(mq_learner *learner, const bool visited[MQ_MAX_WIDTHS], size_t step,
                     size_t steps) {
    const float rate = (float)learner->options->rate;
    const mq_adam adam = mq_adam_at(learner->grid_class->beta1, learner->epsilon,
                                    rate * (float)learner->grid_class->rate_group,
                                    rate * (float)learner->grid_class->rate_rounding, step, steps);
    bool wanted[MQ_MAX_WIDTHS];
    mq_visit_next(wanted, learner, step, steps);
    for (size_t i = 0; i < MQ_LINEAR_COUNT; i++) {
        mq_grid *grid = &learner->grid[i];
        if (grid->groups == 0) {
            continue;
        }
        const float *gradients[MQ_MAX_WIDTHS] = {NULL};
        for (size_t k = 0; k < learner->grid_options.width_count; k++) {
            gradients[k] = visited[k] ? learner->gradients[i][k] : NULL;
        }
        mq_values values[MQ_MAX_WIDTHS];
        values_of(values, learner, i, wanted);
        grid->class_->step(grid, gradients, values, &adam);
    }
    if (learner->options->let) {
        step_let(learner, wanted, step, steps);
    }
}

static void train_step(mq_learner *learner, size_t layer, batch part, size_t step, size_t steps) {
    const mq_grid_options *options = &learner->grid_options;
    bool visited[MQ_MAX_WIDTHS] = {false};
    double factor[MQ_MAX_WIDTHS];
    mq_visit_widths(visited, factor, learner, &learner->draws, step);
    if (learner->options->let) {
        mq_let_clear(&learner->let);
    }
    /* Widths fall, so that a guide is there before those that learn from it. */
    for (size_t k = 0; k < options->width_count; k++) {
        learner->visited[k] = learner->visited[k] || visited[k];
        if (visited[k]) {
            gradients_of(learner, layer, part, k, factor[k]);
        } else if (mq_visit_guides(learner, k, visited)) {
            forward_of(learner, layer, part, k);
        }
    }
    step_all(learner, visited, step, steps);
}

/* Whether the epoch that has just ended lowered no width's mean loss by options->early_stop
 * percent. Only widths that all batches of the epoch visited count (int8, for one, sees other
 * batches in every epoch, so its means cannot be compared). previous: the mean losses of the epoch
 * before, 0: there is none; it is updated to those of this epoch. A width that learns by
 * co-distillation only still counts, by its distance from full precision. */
static bool epoch_was_idle(double previous[MQ_MAX_WIDTHS], mq_learner *learner) {
    const double kept = 1.0 - learner->options->early_stop / 100.0;
    size_t compared = 0, idle = 0, most = 1;
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        most = learner->loss_tokens[k] > most ? learner->loss_tokens[k] : most;
    }
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        if (learner->loss_tokens[k] == most) {
            const double loss = learner->loss_sum[k] / (double)most;
            if (previous[k] > 0.0) {
                compared++;
                idle += loss > kept * previous[k] ? 1 : 0;
            }
            previous[k] = loss;
        }
        learner->loss_sum[k] = 0.0;
        learner->loss_tokens[k] = 0;
    }
    return compared > 0 && idle == compared;
}

mq_status mq_learner_train(mq_learner *learner, size_t layer, double started, mq_error *err) {
    const size_t batches = batch_count(learner);
    const size_t steps = batches * learner->options->epochs;
    mq_random random;
    mq_random_seed(&random, learner->options->seed, MQ_STREAM_ORDER + layer);
    mq_random_seed(&learner->draws, learner->options->seed, MQ_STREAM_DRAWS + layer);
    for (size_t i = 0; i < batches; i++) {
        learner->order[i] = i;
    }
    double previous[MQ_MAX_WIDTHS] = {0.0};
    memset(learner->loss_sum, 0, sizeof learner->loss_sum);
    memset(learner->loss_tokens, 0, sizeof learner->loss_tokens);
    memset(learner->visited, 0, sizeof learner->visited);
    learner->epochs = learner->options->epochs;
    for (size_t step = 0; step < steps; step++) {
        const mq_status status = check(learner, err);
        if (status != MQ_OK) {
            return status;
        }
        if (step % batches == 0) {
            mq_random_shuffle(&random, learner->order, batches);
        }
        train_step(learner, layer, batch_at(learner, learner->order[step % batches]), step, steps);
        const mq_progress progress = {
            .phase = "learn",
            .unit = "block",
            .done = (double)layer + (double)(step + 1) / (double)(steps + 1),
            .total = (double)learner->selection->blocks,
            .elapsed_seconds = mq_seconds() - started,
            .taken = (double)learner->taken_count,
            .taken_seconds = learner->taken_seconds,
        };
        mq_report(learner->context, &progress);
        if (learner->options->early_stop > 0.0 && (step + 1) % batches == 0 &&
            epoch_was_idle(previous, learner)) {
            learner->epochs = (step + 1) / batches;
            break;
        }
    }
    return MQ_OK;
}

/* --- measuring and advancing ------------------------------------------------------------------ */

/* Batches that make up the measured sequences. */
static size_t measured_batches(const mq_learner *learner) {
    const size_t wanted = (MQ_MEASURED_SEQUENCES + learner->batch - 1) / learner->batch;
    return wanted < batch_count(learner) ? wanted : batch_count(learner);
}

/* A width's chain through the block with the values as they are: the first `batches` of it, into
 * chains.student if it is to advance. loss: the mean over the first `measured` of them. */
static mq_status pass_chain(double *loss, mq_learner *learner, size_t layer, size_t k,
                            size_t batches, size_t measured, bool advance, mq_error *err) {
    const mq_chains *chains = &learner->chains;
    const mq_block_weights weights = weights_of(learner, k);
    double sum = 0.0;
    size_t tokens = 0;
    for (size_t index = 0; index < batches; index++) {
        const mq_status status = check(learner, err);
        if (status != MQ_OK) {
            return status;
        }
        const batch part = batch_at(learner, index);
        const mq_block_shape shape = shape_of(learner, layer, part.count);
        float *x = chains->student[k] + part.offset, *y = advance ? x : learner->output;
        mq_block_forward(y, x, &weights, &shape, learner->activations, learner->context);
        if (index < measured) {
            sum += (double)part.tokens *
                   mq_block_loss_value(y, chains->target + part.offset, part.tokens,
                                       learner->model->config.hidden_size, learner->options->loss);
            tokens += part.tokens;
        }
    }
    *loss = sum / (double)tokens;
    return check(learner, err); /* of the last batch's products */
}

mq_status mq_learner_measure(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                             mq_error *err) {
    const size_t batches = measured_batches(learner);
    mq_status status = MQ_OK;
    for (size_t k = 0; status == MQ_OK && k < learner->grid_options.width_count; k++) {
        status = pass_chain(&loss[k], learner, layer, k, batches, batches, false, err);
    }
    return status;
}

mq_status mq_learner_advance(double loss[MQ_MAX_WIDTHS], mq_learner *learner, size_t layer,
                             mq_error *err) {
    mq_chains *chains = &learner->chains;
    const size_t measured = measured_batches(learner);
    const bool last = layer + 1 == learner->selection->blocks; /* nobody reads the chains then */
    const size_t batches = last ? measured : batch_count(learner);
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        const mq_status status =
            pass_chain(&loss[k], learner, layer, k, batches, measured, true, err);
        if (status != MQ_OK) {
            return status;
        }
    }
    float *next = chains->target;
    chains->target = chains->teacher;
    chains->teacher = next;
    return MQ_OK;
}
