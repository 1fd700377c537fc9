/* What can be known before the first block, and the checks on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/keep.h"
#include "base/machine.h"
#include "job/state.h"
#include "quant/embedding.h"
#include "quant/recipe.h"
#include "store/folder.h"
#include "store/master_config.h"

/* --force removes what the output's folder holds. */
static mq_status check_calibration(const mq_quantize_options *options, mq_error *err) {
    if (options->calib == NULL || mq_quantize_is_self(options)) {
        return MQ_OK;
    }
    char *real = realpath(options->calib, NULL); /* a link may lead there */
    char *folder = mq_path_parent(real != NULL ? real : options->calib);
    free(real);
    if (folder == NULL) {
        return mq_fail_memory(err, "a path", strlen(options->calib));
    }
    const bool inside = mq_same_file(folder, options->output);
    mq_free(folder);
    return inside ? mq_fail_file(err, MQ_ERR_USAGE, options->calib,
                                 "the calibration text is in the output's folder, which --force "
                                 "would remove")
                  : MQ_OK;
}

static mq_status check_paths(const mq_quantize_options *options, mq_error *err) {
    if (options->model == NULL || options->output == NULL) {
        return mq_fail(err, MQ_ERR_USAGE, "a model folder and -o OUT are needed");
    }
    if (mq_path_exists(options->output) && mq_same_file(options->model, options->output)) {
        return mq_fail_file(err, MQ_ERR_USAGE, options->output, "the output is the input itself");
    }
    const mq_status status = mq_output_check(options->output, options->force, err);
    return status == MQ_OK ? check_calibration(options, err) : status;
}

mq_status mq_quantize_in_source(const mq_quantize_plan *plan, mq_status status, mq_error *err) {
    return status == MQ_ERR_INPUT && err != NULL && err->tensor[0] != '\0'
               ? mq_error_in_file(err, status, mq_tensors_where(plan->source, err->tensor))
               : status;
}

/* Names a weight that is NaN or infinite before an hour is spent on the blocks before it. */
static mq_status check_finite(mq_quantize_plan *plan, mq_error *err) {
    for (size_t i = 0; i < mq_tensors_count(plan->source); i++) {
        const mq_tensor_info *info = mq_tensors_at(plan->source, i);
        if (!mq_dtype_is_weight(info->dtype)) {
            continue;
        }
        mq_status status = mq_check_interrupt(plan->context, err);
        if (status != MQ_OK) {
            return status;
        }
        const size_t at = mq_first_non_finite(info->data, info->dtype, info->elements);
        if (at < info->elements) {
            const uint64_t offset = info->file_offset + at * mq_dtype_size(info->dtype);
            return mq_fail_offset(err, MQ_ERR_INPUT, info->file, info->name, offset,
                                  "weight number %zu is not finite", at);
        }
    }
    return MQ_OK;
}

/* --- layout ----------------------------------------------------------------------------------- */

static mq_status add_linear(mq_quantize_plan *plan, size_t layer, mq_linear linear, size_t *at,
                            mq_error *err) {
    const mq_config *config = &plan->model->config;
    const size_t groups = plan->selection.groups[layer][linear];
    const mq_linear_place place = mq_config_linear_place(config, linear);
    size_t *index = &plan->linear_index[layer * MQ_LINEAR_COUNT + (size_t)linear];
    if (place.first > 0) { /* the tensor of the linear before it */
        *index = groups > 0 ? index[-1] : 0;
        return MQ_OK;
    }
    char name[MQ_NAME_SIZE];
    mq_config_linear_name(name, config, layer, linear, "weight");
    name[strlen(name) - strlen(".weight")] = '\0';
    if (groups == 0) {
        char *copy = mq_strdup(name);
        if (copy == NULL) {
            return mq_fail_memory(err, "tensor names", sizeof name);
        }
        plan->ignored[plan->ignored_count++] = copy;
        return MQ_OK;
    }
    mq_master_linear *entry = &plan->linears[*at];
    memcpy(entry->prefix, name, sizeof name);
    mq_config_linear_shape(&entry->out, &entry->in, config, linear);
    entry->out = place.rows;
    entry->groups = groups;
    entry->min_width = 0;
    *index = (*at)++;
    return MQ_OK;
}

static mq_status make_layout(mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_options *options = plan->options;
    const size_t all = plan->selection.layers * MQ_LINEAR_COUNT;
    mq_status status =
        mq_new(&plan->linears, all + MQ_EMBEDDING_LAYERS, sizeof *plan->linears, "the layout", err);
    if (status == MQ_OK) {
        status = mq_new(&plan->linear_index, all, sizeof *plan->linear_index, "the layout", err);
    }
    if (status == MQ_OK) {
        status = mq_new(&plan->ignored, all, sizeof *plan->ignored, "the layout", err);
    }
    size_t at = 0;
    for (size_t i = 0; status == MQ_OK && i < all; i++) {
        status = add_linear(plan, i / MQ_LINEAR_COUNT, (mq_linear)(i % MQ_LINEAR_COUNT), &at, err);
    }
    if (status == MQ_OK) {
        mq_quantize_embedding_layout(plan);
    }
    plan->refit_width_count = mq_recipe_refit_widths(plan->refit_widths, options);
    if (status == MQ_OK && (plan->refit_width_count > 0 || options->let)) {
        status = mq_quantize_private_names(plan, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    plan->layout = (mq_master_layout){
        .source = options->model,
        .group_size = plan->selection.group_size,
        .slice_rule = options->slice_rule,
        .zero_point = options->zero_point,
        .linears = plan->linears,
        .linear_count = at + plan->embedding_count,
        .ignored = (const char *const *)plan->ignored,
        .ignored_count = plan->ignored_count,
        .max_shard_size = options->max_shard_size,
        .private_width_count = plan->refit_width_count,
        .private_names = plan->norm_names,
        .private_name_count = plan->norm_count,
    };
    memcpy(plan->layout.private_widths, plan->refit_widths, sizeof plan->refit_widths);
    for (unsigned width = MQ_MAX_WIDTH; width >= MQ_MIN_WIDTH; width--) {
        plan->layout.widths[plan->layout.width_count++] = width;
    }
    if (options->let) { /* all widths' are the same and none is the source's */
        memcpy(plan->layout.private_widths, plan->layout.widths, sizeof plan->layout.widths);
        plan->layout.private_width_count = plan->layout.width_count;
    }
    return mq_master_size(&plan->output_bytes, &plan->layout, plan->source, err);
}

/* --- memory and disk -------------------------------------------------------------------------- */

/* The most memory that the master's writer keeps for each tensor that it will write: names, shape,
 * place, CRC-32. */
#define WRITER_BYTES_PER_TENSOR 1024

static bool fits(const mq_quantize_plan *plan, size_t needed, size_t *available) {
    return !mq_memory_available(available, plan->backend.unmapped) || *available >= needed;
}

mq_status mq_quantize_check_memory(const mq_quantize_plan *plan, size_t needed, const char *advice,
                                   mq_error *err) {
    size_t available;
    if (!fits(plan, needed, &available)) {
        return mq_fail(err, MQ_ERR_MACHINE,
                       "%.0f MiB of memory are needed and %.0f MiB are free; %s need less",
                       (double)needed / 1048576.0, (double)available / 1048576.0, advice);
    }
    return MQ_OK;
}

/* The most memory for blocks' insides (activations) kept between forward and backward. They could
 * be computed again in the backward pass, but that is a quarter of a step's arithmetic. A small
 * model's insides take less memory than its teacher's hidden states; this limits those of a large
 * model. The results are the same in either case. */
#define KEPT_BYTES ((size_t)1 << 30)

static mq_status end_to_end_memory(mq_quantize_plan *plan, mq_error *err) {
    mq_status status = plan->refit_width_count > 0 ? mq_quantize_refit_memory(plan, err) : MQ_OK;
    if (status == MQ_OK && plan->options->qat) {
        status = mq_quantize_qat_memory(plan, err);
    }
    return status;
}

/* Plans the end-to-end stages for a text of `available` sequences (0: as many as they want), and
 * checks that there is memory for them. Blocks' insides are kept between forward and backward only
 * if there is room for them. */
static mq_status check_refit(mq_quantize_plan *plan, size_t available, mq_error *err) {
    size_t wanted, room;
    mq_quantize_refit_share(&wanted, plan, available);
    plan->kept_bytes = KEPT_BYTES;
    mq_status status = end_to_end_memory(plan, err);
    if (status == MQ_OK && !fits(plan, mq_larger(plan->refit_memory, plan->qat_memory), &room)) {
        plan->kept_bytes = 0;
        status = end_to_end_memory(plan, err);
    }
    if (status == MQ_OK) {
        status = mq_quantize_check_memory(
            plan, plan->refit_memory, "fewer --refit-tokens, a smaller --refit-batch or --no-refit",
            err);
    }
    if (status == MQ_OK) {
        status = mq_quantize_check_memory(
            plan, plan->qat_memory, "fewer --qat-tokens, a smaller --refit-batch or no --qat", err);
    }
    return status;
}

/* left: what killed runs have left there, which is removed before the same is written. */
static mq_status check_room(size_t *room, const char *path, size_t needed, size_t left,
                            mq_error *err) {
    const mq_status status = mq_disk_free(room, path, err);
    *room = mq_sum_capped(*room, left);
    return status == MQ_OK && *room < needed
               ? mq_fail_file(err, MQ_ERR_MACHINE, path,
                              "%.0f MiB of disk are needed and %.0f MiB are free",
                              (double)needed / 1048576.0, (double)*room / 1048576.0)
               : status;
}

/* The output, and the state that grows beside it. */
static mq_status check_disk(mq_quantize_plan *plan, mq_error *err) {
    const mq_quantize_options *options = plan->options;
    mq_quantize_kept *kept = &plan->kept;
    const bool keeps = options->state != NULL;
    size_t needed = plan->output_bytes, left = mq_output_leftover(options->output);
    size_t state_left = keeps ? mq_keep_leftover(options->state) : 0;
    kept->same_disk = keeps && mq_same_disk(options->output, options->state);
    if (kept->same_disk) {
        needed += kept->bytes;
        left = state_left = left + state_left;
    }
    const mq_status status = check_room(&plan->disk_free, options->output, needed, left, err);
    return status == MQ_OK && keeps
               ? check_room(&kept->disk_free, options->state, kept->bytes, state_left, err)
               : status;
}

static mq_status check_blocks(mq_quantize_plan *plan, mq_error *err) {
    const mq_run_setup setup = {.options = plan->options,
                                .model = plan->model,
                                .selection = &plan->selection,
                                .gemm = plan->backend.bf16};
    const mq_status status = mq_run_memory(&plan->working_set, &setup, plan->context, err);
    return status == MQ_OK ? mq_quantize_check_memory(
                                 plan, plan->working_set,
                                 "fewer --samples, a shorter --seq-len or a smaller --batch", err)
                           : status;
}

/* Called before the calibration text is there: what is missing then (its ids) is small. */
static mq_status check_machine(mq_quantize_plan *plan, mq_error *err) {
    const mq_status status = check_blocks(plan, err);
    return status == MQ_OK ? check_disk(plan, err) : status;
}

/* What is held now (the model's tables, the calibration's ids) stays while the blocks are worked
 * on, and the writer's lists come on top; sampling the text, beside which the job holds less than
 * these, or the tokenizer with its text may need more than that. */
static void predict_memory(mq_quantize_plan *plan) {
    const size_t now = mq_alloc_current();
    const size_t stored = mq_tensors_count(plan->source) +
                          plan->layout.linear_count * 2 * plan->layout.width_count +
                          plan->norm_count * plan->layout.private_width_count;
    const size_t writer = now + stored * WRITER_BYTES_PER_TENSOR;
    const size_t stages =
        mq_larger(plan->working_set, mq_larger(plan->refit_memory, plan->qat_memory));
    plan->memory = mq_sum_capped(writer + plan->kept.memory,
                                 mq_sum_capped(stages, mq_quantize_embedding_memory(plan)));
    if (plan->embedding_count > 0) {
        const size_t slab = mq_embedding_memory(plan->options, &plan->model->config,
                                                plan->selection.embedding_groups);
        plan->memory = mq_larger(plan->memory, mq_sum_capped(writer, slab));
    }
    /* At the end the other files are copied. Only beside tiny models is that the most. */
    plan->memory = mq_larger(plan->memory, writer + MQ_COPY_BYTES);
    plan->memory = mq_larger(plan->memory, mq_alloc_peak());
    plan->memory =
        mq_larger(plan->memory, plan->sampling > 0 ? mq_sum_capped(writer, plan->sampling) : 0);
}

/* The calibration text, as far as it is there. The model writes the rest when the job has begun,
 * which may take minutes: all that can be checked is checked before. */
static mq_status prepare_text(mq_quantize_plan *plan, mq_error *err) {
    mq_status status = mq_quantize_read_text(plan, err);
    if (status == MQ_OK) {
        status = mq_state_check_job(plan, err);
    }
    if (status == MQ_OK && mq_quantize_has_written(plan)) {
        status = mq_state_take_text(&plan->text_taken, plan, err);
    }
    if (status == MQ_OK && plan->text_taken) { /* now it has a checksum */
        status = mq_state_check_job(plan, err);
    }
    const bool unwritten = mq_quantize_is_unwritten(plan);
    if (status == MQ_OK && unwritten) {
        status = mq_quantize_prepare_sampling(plan, err);
    }
    if (status == MQ_OK) {
        status = check_refit(plan, plan->read, err);
    }
    if (status == MQ_OK) { /* again: these products may have asked for more scratch */
        status = check_blocks(plan, err);
    }
    if (status == MQ_OK) { /* again, with what is kept of the text */
        status = check_disk(plan, err);
    }
    return status == MQ_OK && unwritten ? mq_quantize_check_sampling(plan, err) : status;
}

/* --- all of it, in this order ----------------------------------------------------------------- */

static mq_status check_request(const mq_quantize_options *options, mq_error *err) {
    static mq_status (*const checks[])(const mq_quantize_options *, mq_error *) = {
        mq_recipe_check, check_paths, mq_state_check_folder};
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof checks / sizeof *checks; i++) {
        status = checks[i](options, err);
    }
    return status;
}

static mq_status open_model(mq_quantize_plan *plan, mq_error *err) {
    const char *folder = plan->options->model;
    mq_status status = mq_folder_check(folder, err);
    if (status == MQ_OK) {
        status = mq_check_small_files(folder, plan->context, err);
    }
    return status == MQ_OK ? mq_model_open_plain(&plan->model, folder, err) : status;
}

static mq_status check_length(mq_quantize_plan *plan, mq_error *err) {
    const size_t length = plan->options->seq_len;
    const size_t most = plan->model->config.max_position_embeddings;
    if (plan->options->recipe == MQ_RECIPE_RTN) {
        return MQ_OK;
    }
    if (length > most) {
        mq_log(plan->context, MQ_LOG_WARNING,
               "sequences of %zu tokens are longer than the model's %zu positions: it learns what "
               "it is not used for",
               length, most);
    }
    return mq_config_check_length(&plan->model->config, length, err);
}

static mq_status open_tensors(mq_quantize_plan *plan, mq_error *err) {
    const char *heads[MQ_LAYOUT_COUNT + 1];
    return mq_tensors_open_without(&plan->source, plan->options->model,
                                   mq_config_unused_heads(heads, &plan->model->config), err);
}

static mq_status select_layers(mq_quantize_plan *plan, mq_error *err) {
    const mq_status status = mq_select(&plan->selection, plan->options, &plan->model->config, err);
    return mq_quantize_in_source(plan, status, err);
}

typedef mq_status plan_step(mq_quantize_plan *plan, mq_error *err);

static mq_status take_steps(mq_quantize_plan *plan, plan_step *const *steps, size_t count,
                            mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = steps[i](plan, err);
    }
    return status;
}

static mq_status open_source(mq_quantize_plan *plan, mq_error *err) {
    static plan_step *const steps[] = {open_model,     mq_quantize_small_digests,
                                       check_length,   open_tensors,
                                       select_layers,  make_layout,
                                       mq_state_survey};
    return take_steps(plan, steps, sizeof steps / sizeof *steps, err);
}

static mq_status open_backend(mq_quantize_plan *plan, mq_error *err) {
    mq_quantize_options chosen = *plan->options;
    const mq_status status = mq_state_backend(&chosen.gemm, plan->options, err);
    return status == MQ_OK
               ? mq_backend_open(&plan->backend, &chosen, &plan->model->config, plan->context, err)
               : status;
}

/* Whether the state is of this model and recipe, before a text is read. */
static mq_status check_state(mq_quantize_plan *plan, mq_error *err) {
    const mq_status status = mq_state_check_job(plan, err);
    return status == MQ_OK ? mq_state_check_files(plan, err) : status;
}

/* When there is no error to say the same, and before the model writes a text. */
static mq_status warn_of_source(mq_quantize_plan *plan, mq_error *err) {
    return mq_quantize_warn_of_source(plan, err);
}

static mq_status check_run(mq_quantize_plan *plan, mq_error *err) {
    static plan_step *const steps[] = {open_backend,         check_machine, check_finite,
                                       check_state,          prepare_text,  warn_of_source,
                                       mq_quantize_read_card};
    return take_steps(plan, steps, sizeof steps / sizeof *steps, err);
}

mq_status mq_quantize_plan_make(mq_quantize_plan *plan, const mq_quantize_options *options,
                                const mq_context *context, mq_error *err) {
    *plan = (mq_quantize_plan){.options = options, .context = context};
    mq_status status = check_request(options, err);
    if (status == MQ_OK) {
        status = open_source(plan, err);
    }
    if (status == MQ_OK) {
        status = check_run(plan, err);
    }
    if (status == MQ_OK) {
        predict_memory(plan);
        mq_backend_report(&plan->backend, context);
    }
    return status;
}

void mq_quantize_plan_free(mq_quantize_plan *plan) {
    for (size_t i = 0; i < plan->ignored_count; i++) {
        mq_free(plan->ignored[i]);
    }
    mq_free(plan->ignored);
    mq_free(plan->kept.block);
    cJSON_Delete(plan->small_digests);
    cJSON_Delete(plan->digests);
    cJSON_Delete(plan->card);
    mq_free(plan->norm_names);
    mq_free(plan->norms);
    mq_free(plan->linears);
    mq_free(plan->linear_index);
    mq_sequences_free(&plan->calibration);
    mq_backend_close(&plan->backend);
    mq_selection_free(&plan->selection);
    mq_tensors_close(plan->source);
    mq_model_free(plan->model);
    *plan = (mq_quantize_plan){0};
}
