#include "quant/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/recipe.h"

static mq_learner learner_for(const mq_run_setup *setup, const mq_context *context) {
    return (mq_learner){.options = setup->options,
                        .model = setup->model,
                        .selection = setup->selection,
                        .gemm = setup->gemm,
                        .context = context};
}

static void carve(mq_learner *learner, mq_slab *slab) {
    const bool learn = learner->options->recipe != MQ_RECIPE_RTN;
    mq_learner_carve(learner, slab, learn ? learner->options->samples : 0,
                     learn ? learner->options->seq_len : 0);
}

static mq_status measure_slab(mq_slab *slab, const mq_run_setup *setup, const mq_context *context,
                              mq_error *err) {
    mq_learner measuring = learner_for(setup, context);
    *slab = (mq_slab){0};
    carve(&measuring, slab);
    if (slab->overflow) {
        return mq_fail(
            err, MQ_ERR_USAGE,
            "the working set of a block overflows; use fewer --samples or a smaller --batch");
    }
    return MQ_OK;
}

mq_status mq_run_memory(size_t *out, const mq_run_setup *setup, const mq_context *context,
                        mq_error *err) {
    mq_slab slab;
    const mq_status status = measure_slab(&slab, setup, context, err);
    *out = slab.used;
    return status;
}

static mq_status embed(mq_learner *learner, const mq_run_setup *setup, mq_error *err) {
    mq_chains *chains = &learner->chains;
    const size_t tokens = chains->sequences * chains->length;
    mq_status status = mq_model_embed(chains->teacher, setup->model, setup->ids, tokens, err);
    for (size_t k = 0; status == MQ_OK && k < learner->grid_options.width_count; k++) {
        mq_weights *own = setup->embeddings[learner->grid_options.widths[k]];
        if (own != NULL) {
            mq_model student = *setup->model;
            student.weights = own;
            status = mq_model_embed(chains->student[k], &student, setup->ids, tokens, err);
            continue;
        }
        memcpy(chains->student[k], chains->teacher,
               tokens * setup->model->config.hidden_size * sizeof(float));
    }
    return status;
}

/* Whether the block that is loaded has anything to learn: --include may leave out all of it. */
static bool quantizes(const mq_learner *learner) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (learner->grid[i].groups > 0) {
            return true;
        }
    }
    return false;
}

/* Teacher, start, training and stored numbers of one block, with its losses. */
static mq_status learn_block(mq_learner *learner, size_t layer, double started, mq_block_loss *loss,
                             mq_error *err) {
    mq_status status = mq_learner_teach(learner, layer, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_learner_start(learner, layer);
    status = mq_learner_measure(loss->before, learner, layer, err);
    if (status == MQ_OK && quantizes(learner)) {
        status = mq_learner_train(learner, layer, started, err);
        loss->epochs = learner->epochs;
    }
    if (status == MQ_OK) {
        status = mq_learner_finish(learner, layer, err);
    }
    if (status == MQ_OK) {
        status = mq_learner_advance(loss->after, learner, layer, err);
    }
    return status;
}

/* The same of a block that an earlier run has learned. The teacher is the source's, and comes
 * before a norm that was divided takes the place of its own. */
static mq_status restore_block(mq_learner *learner, size_t layer, const mq_run_sink *sink,
                               mq_block_loss *loss, mq_error *err) {
    const bool divided = learner->options->let &&
                         mq_let_scales_norm(learner->selection, layer, &learner->model->config);
    mq_status status = mq_learner_teach(learner, layer, err);
    if (status == MQ_OK) {
        status =
            sink->restore(sink->user, learner->quantized,
                          divided ? learner->params.norm[MQ_NORM_PRE_FFN] : NULL, loss, layer, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    mq_learner_take(learner, layer);
    double again[MQ_MAX_WIDTHS]; /* what was measured then is known */
    return mq_learner_advance(again, learner, layer, err);
}

static mq_status emit(mq_learner *learner, size_t layer, const mq_run_sink *sink, mq_error *err) {
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (learner->grid[i].groups == 0) {
            continue;
        }
        const mq_status status =
            sink->linear(sink->user, layer, (mq_linear)i, &learner->quantized[i], err);
        if (status != MQ_OK) {
            return status;
        }
    }
    if (learner->options->let && learner->let.scales_norm) {
        return sink->norm(sink->user, layer, MQ_NORM_PRE_FFN, learner->params.norm[MQ_NORM_PRE_FFN],
                          err);
    }
    return MQ_OK;
}

static double decibels(double loss) { return -10.0 * log10(loss); } /* of 0: infinite */

static void report_block(const mq_learner *learner, size_t layer, double started,
                         const mq_block_loss *loss) {
    char detail[512];
    size_t used =
        (size_t)snprintf(detail, sizeof detail, "block %zu/%zu%s", layer + 1,
                         learner->selection->blocks, learner->taken ? ", learned before" : "");
    for (size_t k = 0;
         loss != NULL && k < learner->grid_options.width_count && used < sizeof detail; k++) {
        const char *format = learner->options->loss == MQ_LOSS_RELATIVE ? "  int%u %.2f -> %.2f dB"
                                                                        : "  int%u %.3g -> %.3g";
        const bool relative = learner->options->loss == MQ_LOSS_RELATIVE;
        const double before = relative ? decibels(loss->before[k]) : loss->before[k];
        const double after = relative ? decibels(loss->after[k]) : loss->after[k];
        used += (size_t)snprintf(detail + used, sizeof detail - used, format,
                                 learner->grid_options.widths[k], before, after);
    }
    const mq_progress progress = {
        .phase = loss != NULL ? "learn" : "round",
        .unit = "block",
        .done = (double)(layer + 1),
        .total = (double)learner->selection->blocks,
        .elapsed_seconds = mq_seconds() - started,
        .detail = detail,
        .taken = (double)learner->taken_count,
        .taken_seconds = learner->taken_seconds,
    };
    mq_report(learner->context, &progress);
}

static mq_status run_block(mq_learner *learner, size_t layer, double started,
                           const mq_run_sink *sink, mq_error *err) {
    const double begin = mq_seconds();
    const bool learn = learner->chains.sequences > 0;
    mq_block_loss loss = {{0}, {0}, 0, 0.0};
    learner->taken = learn && sink->is_done != NULL && sink->is_done(sink->user, layer);
    mq_status status = mq_learner_load(learner, layer, err);
    if (status != MQ_OK) {
        return status;
    }
    if (learner->taken) {
        status = restore_block(learner, layer, sink, &loss, err);
    } else if (learn) {
        status = learn_block(learner, layer, started, &loss, err);
    } else {
        mq_learner_start(learner, layer);
        status = mq_learner_finish(learner, layer, err);
    }
    if (status == MQ_OK) {
        status = emit(learner, layer, sink, err);
    }
    const double seconds = mq_seconds() - begin;
    if (learner->taken) {
        learner->taken_count++;
        learner->taken_seconds += seconds;
    } else {
        loss.seconds = seconds;
    }
    if (status == MQ_OK) {
        status = sink->block(sink->user, layer, learn ? &loss : NULL, err);
    }
    if (status == MQ_OK) {
        report_block(learner, layer, started, learn ? &loss : NULL);
    }
    return status;
}

mq_status mq_run(const mq_run_setup *setup, const mq_run_sink *sink, const mq_context *context,
                 mq_error *err) {
    mq_slab slab;
    mq_status status = measure_slab(&slab, setup, context, err);
    if (status != MQ_OK) {
        return status;
    }
    status = mq_slab_allocate(&slab, "a block's working set", err);
    if (status != MQ_OK) {
        return status;
    }
    mq_learner learner = learner_for(setup, context);
    carve(&learner, &slab);
    const double started = mq_seconds();
    if (setup->ids != NULL) {
        status = embed(&learner, setup, err);
    }
    for (size_t layer = 0; status == MQ_OK && layer < setup->selection->blocks; layer++) {
        status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            status = run_block(&learner, layer, started, sink, err);
        }
    }
    mq_slab_free(&slab);
    return status;
}
