/* mq_quantize: plan, run the blocks into a master's writer, commit. */
#include "job/state.h"

#include <stdio.h>
#include <string.h>

typedef struct job {
    mq_quantize_plan plan;
    mq_output *output;
    mq_master_writer *writer;
    mq_quantize_state *state; /* NULL: without --state */
    size_t written;           /* bytes of the output's files, in the end */
    mq_block_loss *blocks;    /* [plan.selection.blocks] */
    bool learned;
    mq_refit_report refits[MQ_MAX_WIDTHS];
    mq_qat_report qat;
    mq_weights *embeddings[MQ_MAX_WIDTH + 1]; /* of each width's student; NULL: the model's */
    size_t coarse; /* linears in which 8 bits have steps too small for float16... */
    char first_coarse[MQ_NAME_SIZE]; /* ...and the first of them */
} job;

/* Part of a linear's groups of which nothing is said: 1 in so many. */
#define FEW_COARSE 50

static bool is_done(void *user, size_t layer) {
    const job *work = user;
    return work->plan.kept.block != NULL && work->plan.kept.block[layer];
}

static bool keeps(job *work, size_t layer) { return work->state != NULL && !is_done(work, layer); }

static void note_coarse(job *work, size_t layer, mq_linear linear, const mq_quantized *quantized) {
    const size_t few = quantized->out * quantized->groups / FEW_COARSE;
    if (mq_quantized_coarse_groups(quantized) > few && work->coarse++ == 0) {
        mq_config_linear_name(work->first_coarse, &work->plan.model->config, layer, linear,
                              "weight");
    }
}

static mq_status take_linear(void *user, size_t layer, mq_linear linear,
                             const mq_quantized *quantized, mq_error *err) {
    job *work = user;
    note_coarse(work, layer, linear, quantized);
    const size_t index = work->plan.linear_index[layer * MQ_LINEAR_COUNT + (size_t)linear];
    const size_t first = mq_config_linear_place(&work->plan.model->config, linear).first;
    const mq_status status = mq_master_writer_put_rows(work->writer, index, quantized, first, err);
    return status == MQ_OK && keeps(work, layer)
               ? mq_state_keep_linear(work->state, layer, linear, quantized, err)
               : status;
}

/* Blocks are read while the one before is learned: the system is told of a block's weights one
 * block ahead, and what it writes behind is the page cache's. */
static void read_ahead(const mq_quantize_plan *plan, size_t layer) {
    for (int i = 0; layer < plan->selection.blocks && i < MQ_LINEAR_COUNT; i++) {
        char name[MQ_NAME_SIZE];
        mq_config_linear_name(name, &plan->model->config, layer, (mq_linear)i, "weight");
        const mq_tensor_info *info = mq_tensors_find(plan->source, name);
        if (info != NULL) {
            mq_tensor_will_need(plan->source, info);
        }
    }
}

/* A norm that the equivalent transformation divided: every width's own. */
static mq_status take_norm(void *user, size_t layer, mq_norm norm, const float *values,
                           mq_error *err) {
    job *work = user;
    const mq_config *config = &work->plan.model->config;
    const size_t size = mq_config_norm_size(config, norm);
    char name[MQ_NAME_SIZE];
    mq_config_norm_name(name, config, layer, norm);
    float *weight = NULL;
    mq_status status = mq_new(&weight, size, sizeof *weight, "a norm", err);
    for (size_t i = 0; status == MQ_OK && i < size; i++) {
        weight[i] = config->arch->norm_plus_one ? values[i] - 1.0f : values[i];
    }
    const mq_master_layout *layout = &work->plan.layout;
    for (size_t k = 0; status == MQ_OK && k < layout->private_width_count; k++) {
        status = mq_master_writer_put_private(work->writer, name, layout->private_widths[k], weight,
                                              size, err);
    }
    mq_free(weight);
    return status == MQ_OK && keeps(work, layer)
               ? mq_state_keep_norm(work->state, layer, norm, values, err)
               : status;
}

static mq_status take_block(void *user, size_t layer, const mq_block_loss *loss, mq_error *err) {
    job *work = user;
    read_ahead(&work->plan, layer + 2); /* the next block is being read already */
    if (loss != NULL) {
        work->blocks[layer] = *loss;
        work->learned = true;
    }
    const mq_block_loss none = {.epochs = 0};
    return keeps(work, layer)
               ? mq_state_keep_block(work->state, layer, loss != NULL ? loss : &none, err)
               : MQ_OK;
}

static mq_status restore(void *user, const mq_quantized quantized[MQ_LINEAR_COUNT], float *norm,
                         mq_block_loss *loss, size_t layer, mq_error *err) {
    const job *work = user;
    return mq_state_restore_block(quantized, norm, loss, work->state, layer, err);
}

/* What the model has to write of the text, kept as soon as it is there. */
static mq_status write_text(job *work, mq_error *err) {
    mq_quantize_plan *plan = &work->plan;
    const mq_status status =
        mq_quantize_is_unwritten(plan) ? mq_quantize_write_text(plan, err) : MQ_OK;
    return status == MQ_OK && work->state != NULL ? mq_state_begin(work->state, err) : status;
}

/* Other runs are kept out before the model writes text, which may take minutes. */
static mq_status open_all(job *work, mq_error *err) {
    mq_quantize_plan *plan = &work->plan;
    const mq_quantize_options *options = plan->options;
    mq_status status =
        mq_new(&work->blocks, plan->selection.blocks, sizeof *work->blocks, "the losses", err);
    if (status == MQ_OK) { /* of the files that are read, not of what they may be in the end */
        status = mq_quantize_digests(plan, err);
    }
    if (status == MQ_OK && options->state != NULL) {
        status = mq_state_open(&work->state, plan, err);
    }
    if (status == MQ_OK) {
        status = mq_output_begin(&work->output, options->output, options->force, err);
    }
    if (status == MQ_OK) {
        status = write_text(work, err);
    }
    if (status == MQ_OK) {
        status =
            mq_master_writer_open(&work->writer, &plan->layout, plan->source, work->output, err);
    }
    return status;
}

static void warn_coarse(const job *work) {
    const double rate = work->plan.options->rate;
    char high[64] = "";
    if (rate > 1.0) {
        snprintf(high, sizeof high, ", or --rate %g is too high", rate);
    }
    mq_log(work->plan.context, MQ_LOG_WARNING,
           "weights of %zu linear layers (first %s) are too small for scales in float16%s: 8 bits "
           "are worse than they should be",
           work->coarse, work->first_coarse, high);
}

static mq_status run_blocks(job *work, mq_error *err) {
    const mq_quantize_plan *plan = &work->plan;
    const mq_sequences *text = &plan->calibration;
    const mq_run_setup setup = {.options = plan->options,
                                .model = plan->model,
                                .selection = &plan->selection,
                                .gemm = plan->backend.bf16,
                                .embeddings = work->embeddings,
                                .ids = text->ids != NULL ? text->ids + plan->written * text->length
                                                         : NULL};
    const mq_run_sink sink = {work, take_linear, take_norm, take_block, is_done, restore};
    read_ahead(plan, 0);
    read_ahead(plan, 1);
    const mq_status status =
        mq_quantize_in_source(plan, mq_run(&setup, &sink, plan->context, err), err);
    if (status == MQ_OK && work->coarse > 0) {
        warn_coarse(work);
    }
    return status;
}

static mq_status run_and_write(job *work, mq_error *err) {
    mq_quantize_plan *plan = &work->plan;
    const mq_quantize_options *options = plan->options;
    mq_status status = open_all(work, err);
    if (status == MQ_OK) {
        status = mq_quantize_embeddings(plan, work->writer, err);
    }
    if (status == MQ_OK) {
        status = mq_quantize_embedded(work->embeddings, plan, work->writer, err);
    }
    if (status == MQ_OK) {
        status = run_blocks(work, err);
    }
    if (status == MQ_OK && options->qat) {
        status = mq_quantize_qat(&work->qat, plan, work->embeddings, work->writer, err);
    }
    if (status == MQ_OK && plan->refit_width_count > 0) {
        status =
            mq_quantize_refit(work->refits, plan, work->embeddings, work->writer, work->state, err);
    }
    cJSON *provenance = NULL;
    if (status == MQ_OK) {
        status = mq_quantize_provenance(&provenance, plan, work->learned ? work->blocks : NULL,
                                        work->refits, &work->qat, err);
    }
    if (status == MQ_OK) {
        status = mq_master_writer_finish(work->writer, provenance, work->plan.context, err);
        work->writer = NULL;
    }
    cJSON_Delete(provenance);
    if (status == MQ_OK) {
        status = mq_folder_size(&work->written, mq_output_folder(work->output), err);
    }
    if (status == MQ_OK) { /* the last moment at which a stop leaves nothing behind */
        status = mq_check_interrupt(plan->context, err);
    }
    if (status == MQ_OK) {
        status = mq_output_commit(work->output, err);
    }
    return status;
}

static void fill_report(mq_quantize_report *report, job *work, double started) {
    const mq_quantize_plan *plan = &work->plan;
    *report = (mq_quantize_report){
        .blocks = plan->selection.blocks,
        .group_size = plan->selection.group_size,
        .quantized_tensors = plan->layout.linear_count,
        .quantized_weights = plan->selection.weights + plan->embedding_count *
                                                           plan->model->config.vocab_size *
                                                           plan->model->config.hidden_size,
        .other_tensors = mq_tensors_count(plan->source) - plan->layout.linear_count,
        .memory_predicted = plan->memory,
        .operations = mq_quantize_work(plan),
        .gflops = mq_backend_rate(&plan->backend),
        .output_bytes = plan->options->dry_run ? plan->output_bytes : work->written,
        .disk_free = plan->disk_free,
        .calibration_tokens = plan->read * plan->calibration.length,
        .written_tokens = plan->written * plan->calibration.length,
        .state_blocks = plan->kept.block_count,
        .state_widths = plan->kept.width_count,
        .state_bytes = plan->kept.bytes,
        .state_disk_free = plan->kept.disk_free,
        .state_same_disk = plan->kept.same_disk,
        .refit_count = plan->options->dry_run ? 0 : plan->refit_width_count,
        .seconds = mq_seconds() - started,
    };
    if (plan->backend.name != NULL) {
        snprintf(report->gemm, sizeof report->gemm, "%s (%s)", plan->backend.name,
                 plan->backend.kernel);
    }
    if (!plan->options->dry_run) {
        report->memory_peak = mq_alloc_peak();
        memcpy(report->refit, work->refits, sizeof report->refit);
        report->qat = work->qat;
    }
    if (work->learned) {
        report->block = work->blocks;
        work->blocks = NULL;
    }
}

mq_status mq_quantize(mq_quantize_report *report, const mq_quantize_options *options,
                      const mq_context *context, mq_error *err) {
    const double started = mq_seconds();
    mq_context_use(context);
    job work = {0};
    *report = (mq_quantize_report){0};
    mq_alloc_reset_peak();
    mq_status status = mq_quantize_plan_make(&work.plan, options, context, err);
    if (status == MQ_OK && !options->dry_run) {
        status = run_and_write(&work, err);
    }
    if (status == MQ_OK) {
        fill_report(report, &work, started);
    }
    for (size_t i = 0; i <= MQ_MAX_WIDTH; i++) {
        mq_weights_free(work.embeddings[i]);
    }
    mq_master_writer_abandon(work.writer);
    mq_output_discard(work.output);
    mq_state_close(work.state, status == MQ_OK);
    mq_free(work.blocks);
    mq_quantize_plan_free(&work.plan);
    return status;
}

void mq_quantize_report_free(mq_quantize_report *report) {
    mq_free(report->block);
    *report = (mq_quantize_report){0};
}
