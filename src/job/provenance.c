/* What a master says of its making. */
#include <stdio.h>
#include <string.h>

#include "base/json_build.h"
#include "job/job.h"
#include "matquant/names.h"
#include "matquant/version.h"
#include "quant/fold.h"
#include "quant/nested.h"
#include "quant/recipe.h"
#include "quant/refit.h"
#include "store/master_config.h"
#include "text/shown_name.h"

/* The name of an enumeration's value. */
static void put_name(mq_json *json, cJSON *at, const char *key, const char *const *names,
                     unsigned value) {
    mq_json_put_text(json, at, key, mq_name_at(names, value));
}

static void put_strings(mq_json *json, cJSON *at, const char *key, const char *const *list,
                        size_t count) {
    cJSON *array = mq_json_put_array(json, at, key);
    for (size_t i = 0; i < count; i++) {
        mq_json_put_text(json, array, NULL, list[i]);
    }
}

/* --- the recipe ------------------------------------------------------------------------------- */

/* Absent where there is none of it. */
static void put_codistill(mq_json *json, cJSON *recipe, const mq_quantize_options *options) {
    if (options->codistill_count == 0) {
        return;
    }
    cJSON *terms = mq_json_put_array(json, recipe, "codistill");
    for (size_t i = 0; i < options->codistill_count; i++) {
        cJSON *term = mq_json_put_object(json, terms, NULL);
        mq_json_put_size(json, term, "teacher", options->codistill[i].teacher);
        mq_json_put_size(json, term, "student", options->codistill[i].student);
        mq_json_put_number(json, term, "lambda", options->codistill[i].lambda);
    }
}

static void put_widths(mq_json *json, cJSON *recipe, const mq_quantize_options *options) {
    cJSON *bits = mq_json_put_array(json, recipe, "bits");
    cJSON *lambda = mq_json_put_array(json, recipe, "lambda");
    for (size_t i = 0; i < options->width_count; i++) {
        mq_json_put_size(json, bits, NULL, options->widths[i]);
        mq_json_put_number(json, lambda, NULL, options->lambda[i]);
    }
    if (options->preset != MQ_PRESET_NONE) {
        put_name(json, recipe, "preset", mq_preset_names(), options->preset);
    }
    put_codistill(json, recipe, options);
}

/* What is quantized, and into what. */
static void put_scope(mq_json *json, cJSON *recipe, const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    put_name(json, recipe, "slice_rule", mq_slice_rule_names(), options->slice_rule);
    put_name(json, recipe, "zero_point", mq_zero_point_names(), options->zero_point);
    mq_json_put_size(json, recipe, "group_size", plan->selection.group_size);
    if (options->has_group_fallback) {
        mq_json_put_size(json, recipe, "group_fallback", options->group_fallback);
    }
    put_name(json, recipe, "scope", mq_scope_names(), options->scope);
    if (options->embeddings != MQ_EMBEDDINGS_KEEP) {
        put_name(json, recipe, "embeddings", mq_embeddings_names(), options->embeddings);
    }
    if (options->embeddings == MQ_EMBEDDINGS_NESTED) {
        mq_json_put_size(json, recipe, "embeddings_min_bits", options->embeddings_min_bits);
    }
    put_strings(json, recipe, "include", options->include, options->include_count);
    put_strings(json, recipe, "exclude", options->exclude, options->exclude_count);
}

/* How the blocks are learned. */
static void put_learning(mq_json *json, cJSON *recipe, const mq_quantize_options *options) {
    put_name(json, recipe, "loss", mq_loss_names(), options->loss);
    mq_json_put_text(json, recipe, "grid", mq_recipe_grid_class(options)->name);
    mq_json_put_bool(json, recipe, "compensate", mq_recipe_compensates(options));
    if (options->fold) {
        mq_json_put_bool(json, recipe, "fold", true);
        mq_json_put_number(json, recipe, "fold_power", MQ_FOLD_POWER);
    }
    mq_json_put_size(json, recipe, "samples", options->samples);
    mq_json_put_size(json, recipe, "seq_len", options->seq_len);
    mq_json_put_size(json, recipe, "epochs", options->epochs);
    mq_json_put_size(json, recipe, "batch", options->batch);
    if (options->early_stop > 0.0) {
        mq_json_put_number(json, recipe, "early_stop", options->early_stop);
    }
    mq_json_put_number(json, recipe, "seed", (double)options->seed);
    mq_json_put_bool(json, recipe, "bos", options->bos);
    cJSON *periods = mq_json_put_array(json, recipe, "periods");
    for (size_t i = 0; i < options->width_count; i++) {
        mq_json_put_size(json, periods, NULL, mq_recipe_period(options, i));
    }
    mq_json_put_bool(json, recipe, "extend", options->extend);
    if (options->sampled) {
        mq_json_put_bool(json, recipe, "sampled", true);
    }
}

static void put_optimizer(mq_json *json, cJSON *recipe, const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    const mq_grid_class *grid = mq_recipe_grid_class(options);
    const double rate = options->rate;
    if (options->let) {
        mq_json_put_bool(json, recipe, "let", true);
        mq_json_put_number(json, recipe, "rate_let", rate * MQ_LET_RATE);
    }
    mq_json_put_number(json, recipe, "rate_group", rate * grid->rate_group);
    mq_json_put_number(json, recipe, "rate_rounding", rate * grid->rate_rounding);
    mq_json_put_number(json, recipe, "beta1", grid->beta1);
    mq_json_put_number(json, recipe, "epsilon",
                       mq_recipe_epsilon(options, plan->model->config.hidden_size));
}

static void put_recipe(mq_json *json, const mq_quantize_plan *plan) {
    const mq_quantize_options *options = plan->options;
    cJSON *recipe = mq_json_put_object(json, json->root, "recipe");
    put_name(json, recipe, "name", mq_recipe_names(), options->recipe);
    put_widths(json, recipe, options);
    put_scope(json, recipe, plan);
    if (options->recipe != MQ_RECIPE_RTN) {
        put_learning(json, recipe, options);
        put_optimizer(json, recipe, plan);
    }
}

/* --- what goes in ----------------------------------------------------------------------------- */

/* {"file": NAME, "sha256": DIGEST} appended to array; names only, no folders. */
static mq_status put_file(mq_json *json, cJSON *array, const char *path, const char *digest,
                          mq_error *err) {
    char *name = NULL;
    const mq_status status = mq_shown_name(&name, path, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *entry = mq_json_put_object(json, array, NULL);
    mq_json_put_text(json, entry, "file", name);
    mq_json_put_text(json, entry, "sha256", digest);
    mq_free(name);
    return MQ_OK;
}

/* Of the file that is at path now. */
static mq_status put_digest(mq_json *json, const char *path, const mq_context *context,
                            mq_error *err) {
    char digest[65];
    const mq_status status = mq_sha256_file(digest, path, context, err);
    return status == MQ_OK ? put_file(json, json->root, path, digest, err) : status;
}

mq_status mq_quantize_small_digests(mq_quantize_plan *plan, mq_error *err) {
    static const char *const names[] = {"config.json", "tokenizer.json"};
    mq_json json = mq_json_begin(cJSON_CreateArray());
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof names / sizeof names[0]; i++) {
        char *path = mq_path_join(plan->options->model, names[i]);
        if (path == NULL) {
            status = mq_fail_memory(err, "a path", strlen(plan->options->model));
        } else if (mq_path_exists(path)) {
            status = put_digest(&json, path, plan->context, err);
        }
        mq_free(path);
    }
    return mq_json_take(&plan->small_digests, &json, status, "the provenance", err);
}

mq_status mq_quantize_digests(mq_quantize_plan *plan, mq_error *err) {
    if (plan->digests != NULL) {
        return MQ_OK;
    }
    mq_json json = mq_json_begin(cJSON_CreateArray());
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_file_count(plan->source); i++) {
        char digest[65];
        status = mq_tensors_sha256(digest, plan->source, i, plan->context, err);
        if (status == MQ_OK) {
            status = put_file(&json, json.root, mq_tensors_file(plan->source, i), digest, err);
        }
    }
    for (const cJSON *item = plan->small_digests->child; item != NULL; item = item->next) {
        mq_json_put_copy(&json, json.root, NULL, item);
    }
    return mq_json_take(&plan->digests, &json, status, "the provenance", err);
}

static mq_status put_calibration(mq_json *json, const mq_quantize_plan *plan, mq_error *err) {
    const mq_sequences *text = &plan->calibration;
    if (text->ids == NULL) {
        return MQ_OK;
    }
    cJSON *calibration = mq_json_put_object(json, json->root, "calibration");
    cJSON *files = mq_json_put_array(json, calibration, "files");
    mq_json_put_size(json, calibration, "tokens", plan->read * text->length);
    if (mq_quantize_is_unwritten(plan)) {
        mq_json_put_null(json, calibration, "ids_crc32");
    } else {
        char crc[9];
        const size_t bytes = text->count * text->length * sizeof *text->ids;
        snprintf(crc, sizeof crc, "%08x", mq_crc32(0, text->ids, bytes));
        mq_json_put_text(json, calibration, "ids_crc32", crc);
    }
    if (plan->written > 0) {
        mq_json_put_size(json, calibration, "written_tokens", plan->written * text->length);
    }
    if (mq_quantize_is_self(plan->options)) {
        mq_json_put_bool(json, calibration, "self", true);
        return MQ_OK;
    }
    return put_file(json, files, plan->options->calib, text->sha256, err);
}

/* What made the products of learning, so that --gemm can ask for it again. */
static void put_backend(mq_json *json, const mq_backend *backend) {
    if (backend->name == NULL) {
        return;
    }
    cJSON *gemm = mq_json_put_object(json, json->root, "gemm");
    mq_json_put_text(json, gemm, "backend", backend->name);
    mq_json_put_text(json, gemm, "kernel", backend->kernel);
}

/* What went into the job beside the recipe. */
static mq_status put_inputs(mq_json *json, const mq_quantize_plan *plan, mq_error *err) {
    mq_json_put_copy(json, json->root, "source", plan->digests);
    const mq_status status = put_calibration(json, plan, err);
    char blas[96]; /* there may be no context to ask */
    mq_gemm_describe(blas, sizeof blas);
    mq_json_put_text(json, json->root, "blas", blas);
    put_backend(json, &plan->backend);
    mq_json_put_text(json, json->root, "kernels", mq_nested_kernels_best()->name);
    return status;
}

/* --- what comes out --------------------------------------------------------------------------- */

static void put_losses(mq_json *json, cJSON *block, const char *key,
                       const mq_quantize_options *options, const double *loss) {
    cJSON *object = mq_json_put_object(json, block, key);
    for (size_t k = 0; k < options->width_count; k++) {
        char width[16];
        snprintf(width, sizeof width, "w%u", options->widths[k]);
        mq_json_put_number(json, object, width, loss[k]);
    }
}

static void put_blocks(mq_json *json, const mq_quantize_plan *plan, const mq_block_loss *blocks) {
    if (blocks == NULL) {
        return;
    }
    cJSON *array = mq_json_put_array(json, json->root, "blocks");
    for (size_t layer = 0; layer < plan->selection.blocks; layer++) {
        cJSON *block = mq_json_put_object(json, array, NULL);
        put_losses(json, block, "before", plan->options, blocks[layer].before);
        put_losses(json, block, "after", plan->options, blocks[layer].after);
        if (plan->options->early_stop > 0.0) {
            mq_json_put_size(json, block, "epochs", blocks[layer].epochs);
        }
    }
}

/* refits NULL: before it, what will be done; train_tokens, in the job alone, is what the reports'
 * trained tokens say in the provenance. */
static void put_refits(mq_json *json, const mq_quantize_plan *plan, const mq_refit_report *refits) {
    if (plan->refit_width_count == 0) {
        return;
    }
    const mq_refit_setup setup = mq_quantize_end_to_end(plan, plan->refit_train);
    const size_t length = plan->calibration.length;
    cJSON *refit = mq_json_put_object(json, json->root, "refit");
    mq_json_put_size(json, refit, "epochs", plan->refit_epochs);
    mq_json_put_number(json, refit, "epsilon", mq_refit_epsilon(&setup));
    mq_json_put_size(json, refit, "batch", plan->options->refit_batch);
    mq_json_put_size(json, refit, "validation_tokens", plan->validation * length);
    if (refits == NULL) {
        mq_json_put_size(json, refit, "train_tokens", plan->refit_train * length);
    }
    cJSON *array = mq_json_put_array(json, refit, "widths");
    for (size_t i = 0; i < plan->refit_width_count; i++) {
        cJSON *width = mq_json_put_object(json, array, NULL);
        mq_json_put_size(json, width, "bits", plan->refit_widths[i]);
        mq_json_put_number(json, width, "rate", mq_refit_rate(plan->refit_widths[i]));
        mq_json_put_size(json, width, "measured_tokens",
                         mq_refit_measured(&setup, plan->refit_widths[i]) * length);
        if (refits != NULL) {
            mq_json_put_size(json, width, "trained_tokens", refits[i].tokens);
            mq_json_put_number(json, width, "kl_before", refits[i].kl_before);
            mq_json_put_number(json, width, "kl_after", refits[i].kl_after);
            mq_json_put_size(json, width, "kept_epoch", refits[i].kept_epoch);
        }
    }
}

static void put_qat_result(mq_json *json, cJSON *qat, const mq_qat_report *report) {
    mq_json_put_number(json, qat, "loss_before", report->loss_before);
    mq_json_put_number(json, qat, "loss_after", report->loss_after);
    mq_json_put_size(json, qat, "kept_epoch", report->kept_epoch);
    mq_json_put_size(json, qat, "moved_codes", report->moved);
    cJSON *array = mq_json_put_array(json, qat, "widths");
    for (unsigned bits = MQ_MAX_WIDTH; bits >= MQ_MIN_WIDTH; bits--) {
        cJSON *width = mq_json_put_object(json, array, NULL);
        mq_json_put_size(json, width, "bits", bits);
        mq_json_put_number(json, width, "kl_before", report->kl_before[bits]);
        mq_json_put_number(json, width, "kl_after", report->kl_after[bits]);
    }
}

/* report NULL: as put_refits. */
static void put_qat(mq_json *json, const mq_quantize_plan *plan, const mq_qat_report *report) {
    if (!plan->options->qat) {
        return;
    }
    const mq_refit_setup setup = mq_quantize_end_to_end(plan, plan->qat_train);
    const size_t length = plan->calibration.length;
    cJSON *qat = mq_json_put_object(json, json->root, "qat");
    mq_json_put_number(json, qat, "rate", mq_quantize_qat_rate(plan->options));
    mq_json_put_number(json, qat, "epsilon", mq_refit_epsilon(&setup));
    mq_json_put_size(json, qat, "epochs", plan->qat_epochs);
    mq_json_put_size(json, qat, "batch", plan->options->refit_batch);
    if (report != NULL) {
        mq_json_put_size(json, qat, "trained_tokens", report->tokens);
    }
    mq_json_put_size(json, qat, "validation_tokens", plan->validation * length);
    if (report != NULL) {
        put_qat_result(json, qat, report);
    } else {
        mq_json_put_size(json, qat, "train_tokens", plan->qat_train * length);
    }
}

mq_status mq_quantize_provenance(cJSON **out, const mq_quantize_plan *plan,
                                 const mq_block_loss *blocks, const mq_refit_report *refits,
                                 const mq_qat_report *qat, mq_error *err) {
    mq_json json = mq_json_begin(cJSON_CreateObject());
    put_recipe(&json, plan);
    const mq_status status = put_inputs(&json, plan, err);
    if (cJSON_GetArraySize(plan->card) > 0) {
        mq_json_put_copy(&json, json.root, "model_card", plan->card);
    }
    put_blocks(&json, plan, blocks);
    put_qat(&json, plan, qat);
    put_refits(&json, plan, refits);
    return mq_json_take(out, &json, status, "the provenance", err);
}

mq_status mq_quantize_job(cJSON **out, const mq_quantize_plan *plan, mq_error *err) {
    mq_json json = mq_json_begin(cJSON_CreateObject());
    mq_json_put_size(&json, json.root, "format_version", MQ_FORMAT_VERSION);
    mq_json_put_text(&json, json.root, "tool", "matquant " MQ_VERSION);
    put_recipe(&json, plan);
    /* Before the text, which they may ask for more of: they are what was asked for. */
    if (plan->calibration.ids != NULL) {
        put_qat(&json, plan, NULL);
        put_refits(&json, plan, NULL);
    }
    const mq_status status = put_inputs(&json, plan, err);
    return mq_json_take(out, &json, status, "the provenance", err);
}
