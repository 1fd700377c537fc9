/* What a block's learner holds, how it is carved, loaded, started and finished; the loops over
 * tokens are in learn.c. */
#include "quant/learner.h"

#include <string.h>

#include "base/context.h"
#include "quant/recipe.h"
#include "tensor/gemm.h"

/* Groups a row that a linear needs room for: the most of any block. */
static size_t most_groups(const mq_selection *selection, int linear) {
    size_t most = 0;
    for (size_t layer = 0; layer < selection->layers; layer++) {
        const size_t groups = selection->groups[layer][linear];
        most = groups > most ? groups : most;
    }
    return most;
}

/* Whether the last bits of this linear's codes are chosen by error compensation. */
static bool compensates(const mq_learner *learner, int linear) {
    return mq_recipe_compensates(learner->options) && learner->grid_class->compensate != NULL &&
           most_groups(learner->selection, linear) > 0;
}

static void carve_compensation(mq_learner *learner, mq_slab *slab) {
    mq_compensation_work *work = &learner->compensation_work;
    *work = (mq_compensation_work){.threads = mq_context_threads(learner->context)};
    memset(learner->gram_matrix, 0, sizeof learner->gram_matrix);
    memset(learner->compensation, 0, sizeof learner->compensation);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, &learner->model->config, (mq_linear)i);
        const mq_linear source = mq_block_input_owner((mq_linear)i);
        if (!compensates(learner, i)) {
            continue;
        }
        if (learner->compensation[source].in == 0) { /* the first that reads this input */
            learner->gram_matrix[source] = mq_carve(slab, in, in * sizeof(float));
            mq_compensation_carve(&learner->compensation[source], in, slab);
        }
        const size_t bytes =
            learner->grid_class->compensate_bytes(out, in, most_groups(learner->selection, i));
        work->bytes = bytes > work->bytes ? bytes : work->bytes;
    }
    work->memory = mq_carve(slab, work->threads, work->bytes);
}

static void carve_params(mq_learner *learner, mq_slab *slab, bool learn) {
    const mq_selection *selection = learner->selection;
    const mq_config *config = &learner->model->config;
    bool kept[MQ_LINEAR_COUNT];
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        kept[i] = mq_selection_keeps(selection, selection->blocks, i);
    }
    mq_block_params_carve(&learner->params, slab, config);
    if (learn && learner->gemm != NULL) {
        mq_block_params_carve_rounded(&learner->params, slab, config, kept);
    }
}

static void carve_linear(mq_learner *learner, int i, mq_slab *slab, bool learn) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, &learner->model->config, (mq_linear)i);
    const size_t groups = most_groups(learner->selection, i);
    const mq_linear source = mq_block_input_owner((mq_linear)i);
    if ((mq_linear)i == source) {
        learner->gram_sum[i] = mq_carve(slab, in, sizeof(double));
        learner->gram[i] = mq_carve(slab, in, sizeof(float));
    } else {
        learner->gram_sum[i] = learner->gram_sum[source];
        learner->gram[i] = learner->gram[source];
    }
    for (size_t c = 0; !learn && learner->gram[i] != NULL && c < in; c++) {
        learner->gram[i][c] = 1.0f; /* without text every input weighs the same */
    }
    if (groups == 0) {
        return;
    }
    mq_grid_carve(&learner->grid[i], learner->grid_class, &learner->grid_options, out, in, groups,
                  slab);
    mq_quantized_carve(&learner->quantized[i], out, in, groups, slab);
    mq_finish_scratch_carve(&learner->finish[i], &learner->grid_options, out, groups, slab);
    learner->finish[i].visited = learn ? learner->visited : NULL;
    for (size_t k = 0; learn && k < learner->grid_options.width_count; k++) {
        if (learner->gemm != NULL) {
            learner->values[i][k].bf16 = mq_carve(slab, out, in * sizeof(mq_bf16));
        } else {
            learner->values[i][k].f32 = mq_carve(slab, out, in * sizeof(float));
        }
        learner->gradients[i][k] = mq_carve(slab, out, in * sizeof(float));
    }
}

static void carve_chains(mq_learner *learner, mq_slab *slab) {
    const mq_config *config = &learner->model->config;
    mq_chains *chains = &learner->chains;
    size_t tokens = 0;
    if (!mq_mul_size(&tokens, chains->sequences, chains->length)) {
        slab->overflow = true;
        return;
    }
    const size_t row = config->hidden_size * sizeof(float);
    chains->teacher = mq_carve(slab, tokens, row);
    chains->target = mq_carve(slab, tokens, row);
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        chains->student[k] = mq_carve(slab, tokens, row);
    }
    learner->output = mq_carve(slab, learner->batch * chains->length, row);
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        learner->guide[k] = mq_recipe_is_teacher(learner->options, learner->grid_options.widths[k])
                                ? mq_carve(slab, learner->batch * chains->length, row)
                                : NULL;
    }
    mq_rotations_carve(&learner->rotations, slab, config, chains->length);
    learner->order =
        mq_carve(slab, (chains->sequences + learner->batch - 1) / learner->batch, sizeof(size_t));
    const bool rounds = learner->gemm != NULL;
    const mq_activations_use use = {.config = config,
                                    .sequences = learner->batch,
                                    .length = chains->length,
                                    .f32 = rounds ? MQ_PASS_NONE : MQ_PASS_BACKWARD,
                                    .bf16 = rounds ? MQ_PASS_BACKWARD : MQ_PASS_NONE,
                                    .gemm = learner->gemm};
    learner->activations = mq_activations_carve(slab, &use, learner->context);
}

void mq_learner_carve(mq_learner *learner, mq_slab *slab, size_t sequences, size_t length) {
    const bool learn = sequences > 0;
    learner->grid_options = mq_recipe_grid(learner->options);
    learner->grid_class = mq_recipe_grid_class(learner->options);
    learner->chains = (mq_chains){.sequences = sequences, .length = length};
    learner->batch = learner->options->batch < sequences ? learner->options->batch : sequences;
    learner->epsilon = mq_recipe_epsilon(learner->options, learner->model->config.hidden_size);
    carve_params(learner, slab, learn);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        carve_linear(learner, i, slab, learn);
    }
    if (learn) {
        carve_compensation(learner, slab);
        carve_chains(learner, slab);
    }
    if (learn && learner->options->fold) {
        const mq_config *config = &learner->model->config;
        size_t out, heads, inner;
        mq_config_linear_shape(&out, &heads, config, MQ_O);
        mq_config_linear_shape(&out, &inner, config, MQ_DOWN);
        learner->fold_scale = mq_carve(slab, heads > inner ? heads : inner, sizeof(float));
    }
    if (learn && learner->options->let) {
        mq_let_carve(&learner->let, slab, &learner->model->config, &learner->params, learner->grid);
    }
    if (learn && slab->base != NULL && !slab->overflow) {
        mq_rotations_fill(&learner->rotations, &learner->model->config, length);
    }
}

mq_status mq_learner_load(mq_learner *learner, size_t layer, mq_error *err) {
    const mq_status status = mq_block_params_load(&learner->params, learner->model, layer, err);
    if (status != MQ_OK) {
        return status;
    }
    bool quantized[MQ_LINEAR_COUNT];
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        learner->grid[i].groups = learner->selection->groups[layer][i];
        learner->quantized[i].groups = learner->grid[i].groups;
        quantized[i] = learner->grid[i].groups > 0;
    }
    mq_block_params_round(&learner->params, &learner->model->config, quantized);
    return MQ_OK;
}

float *mq_learner_gram_matrix(const mq_learner *learner, mq_linear input) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (mq_block_input_owner((mq_linear)i) == input && learner->grid[i].groups > 0) {
            return learner->gram_matrix[input];
        }
    }
    return NULL;
}

/* Factors of the block's Gram matrices, and whose codes are compensated with them. */
static void start_compensation(mq_learner *learner, size_t layer) {
    bool usable[MQ_LINEAR_COUNT] = {false};
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const float *gram = mq_learner_gram_matrix(learner, (mq_linear)i);
        usable[i] =
            gram != NULL && mq_compensation_set(&learner->compensation[i], gram, learner->context);
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_linear source = mq_block_input_owner((mq_linear)i);
        learner->finish[i].compensation = usable[source] ? &learner->compensation[source] : NULL;
        learner->finish[i].work = &learner->compensation_work;
        if (learner->grid[i].groups > 0 && learner->gram_matrix[source] != NULL &&
            !usable[source]) {
            char name[MQ_NAME_SIZE];
            mq_config_linear_name(name, &learner->model->config, layer, (mq_linear)i, "weight");
            mq_log(learner->context, MQ_LOG_WARNING,
                   "%s: its inputs are all 0 or not finite, so its last bits are plainly rounded",
                   name);
        }
    }
}

/* Scales a producer and its consumer, if both are quantized: nothing else may differ from the
 * source. So a producer may not have a bias either, which would have to be divided too. */
static void fold_pair(mq_learner *learner, mq_linear producer, mq_linear consumer, size_t heads,
                      size_t copies) {
    const mq_config *config = &learner->model->config;
    mq_fold_pair pair = {.heads = heads,
                         .copies = copies,
                         .producer = learner->params.linear[producer],
                         .consumer = learner->params.linear[consumer],
                         .gram = learner->gram[consumer],
                         .gram_matrix = mq_learner_gram_matrix(learner, consumer)};
    size_t out, in;
    mq_config_linear_shape(&out, &pair.producer_in, config, producer);
    mq_config_linear_shape(&pair.consumer_out, &in, config, consumer);
    pair.width = out / heads;
    if (learner->grid[producer].groups > 0 && learner->grid[consumer].groups > 0 &&
        !mq_config_has_bias(config, producer)) {
        mq_fold(learner->fold_scale, &pair);
    }
}

static void fold_block(mq_learner *learner) {
    const mq_config *config = &learner->model->config;
    const size_t heads = config->num_key_value_heads;
    fold_pair(learner, MQ_V, MQ_O, heads, config->num_attention_heads / heads);
    fold_pair(learner, MQ_UP, MQ_DOWN, 1, 1);
}

void mq_learner_start(mq_learner *learner, size_t layer) {
    if (learner->options->let) {
        mq_let_begin(&learner->let, learner->selection, layer, &learner->model->config);
    }
    if (learner->chains.sequences > 0 && learner->options->fold) {
        fold_block(learner);
    }
    if (learner->chains.sequences > 0) {
        start_compensation(learner, layer);
    }
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        mq_grid *grid = &learner->grid[i];
        if (grid->groups == 0) {
            continue;
        }
        grid->class_->start(grid, learner->params.linear[i], learner->gram[i]);
        if (learner->chains.sequences > 0) {
            grid->class_->values(learner->values[i], grid);
        }
    }
}

/* What every trained width makes of the stored numbers. */
static void stored_values(mq_learner *learner, int linear) {
    for (size_t k = 0; k < learner->grid_options.width_count; k++) {
        mq_quantized_values(&learner->values[linear][k], &learner->quantized[linear],
                            learner->grid_options.widths[k], learner->options->slice_rule);
    }
}

void mq_learner_take(mq_learner *learner, size_t layer) {
    learner->let.scales_norm =
        learner->options->let &&
        mq_let_scales_norm(learner->selection, layer, &learner->model->config);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (learner->grid[i].groups > 0) {
            stored_values(learner, i);
        }
    }
}

/* A pair did not fit in float16. The recipe's own rates do not get there from weights that fit. */
static mq_status fail_finish(const mq_learner *learner, size_t layer, int linear, mq_error *err) {
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, &learner->model->config, layer, (mq_linear)linear, "weight");
    const double rate = learner->options->rate;
    if (learner->chains.sequences > 0 && rate > 1.0) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, NULL, name,
                              "with --rate %g what was learned does not fit in float16", rate);
    }
    return mq_fail_tensor(err, MQ_ERR_INPUT, NULL, name,
                          "its weights are too large for scales and biases in float16");
}

static mq_status finish_linear(mq_learner *learner, size_t layer, int linear, mq_error *err) {
    const mq_grid *grid = &learner->grid[linear];
    if (grid->groups == 0) {
        return MQ_OK;
    }
    if (!mq_grid_finish(&learner->quantized[linear], grid, learner->gram[linear],
                        learner->options->slice_rule, &learner->finish[linear])) {
        return fail_finish(learner, layer, linear, err);
    }
    if (learner->chains.sequences > 0) {
        stored_values(learner, linear);
    }
    return MQ_OK;
}

mq_status mq_learner_finish(mq_learner *learner, size_t layer, mq_error *err) {
    if (learner->options->let) {
        mq_let_finish(&learner->let, learner->gram[MQ_GATE], learner->gram[MQ_DOWN],
                      learner->model->config.arch->norm_plus_one);
    }
    mq_gemm_enter_single();
    mq_status status = MQ_OK;
    for (int i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        status = finish_linear(learner, layer, i, err);
    }
    mq_gemm_leave_single(learner->context);
    return status;
}
