/* What a master says of its making. */
#include <stdio.h>
#include <string.h>

#include "matquant/names.h"
#include "matquant/version.h"
#include "quant/fold.h"
#include "quant/nested.h"
#include "quant/recipe.h"
#include "quant/refit.h"
#include "store/master_config.h"
#include "store/quantize.h"
#include "text/shown_name.h"

/* cJSON's adders return NULL for lack of memory alone; the first failure is remembered. */
static void put(bool *good, const cJSON *added) { *good = *good && added != NULL; }

static void put_strings(bool *good, cJSON *object, const char *key, const char *const *list,
                        size_t count) {
    cJSON *array = cJSON_AddArrayToObject(object, key);
    put(good, array);
    for (size_t i = 0; *good && i < count; i++) {
        put(good, cJSON_AddItemToArray(array, cJSON_CreateString(list[i])) ? array : NULL);
    }
}

/* Absent where there is none of it. */
static void put_codistill(bool *good, cJSON *recipe, const mq_quantize_options *options) {
    if (options->codistill_count == 0) {
        return;
    }
    cJSON *terms = cJSON_AddArrayToObject(recipe, "codistill");
    put(good, terms);
    for (size_t i = 0; *good && i < options->codistill_count; i++) {
        cJSON *term = cJSON_CreateObject();
        put(good, term);
        if (*good) {
            put(good, cJSON_AddNumberToObject(term, "teacher", options->codistill[i].teacher));
            put(good, cJSON_AddNumberToObject(term, "student", options->codistill[i].student));
            put(good, cJSON_AddNumberToObject(term, "lambda", options->codistill[i].lambda));
            put(good, cJSON_AddItemToArray(terms, term) ? terms : NULL);
        }
    }
}

static void put_recipe(bool *good, cJSON *root, const mq_quantize_options *options) {
    cJSON *recipe = cJSON_AddObjectToObject(root, "recipe");
    put(good, recipe);
    if (!*good) {
        return;
    }
    put(good,
        cJSON_AddStringToObject(recipe, "name", mq_name_at(mq_recipe_names(), options->recipe)));
    cJSON *bits = cJSON_AddArrayToObject(recipe, "bits");
    cJSON *lambda = cJSON_AddArrayToObject(recipe, "lambda");
    put(good, bits);
    put(good, lambda);
    for (size_t i = 0; *good && i < options->width_count; i++) {
        put(good, cJSON_AddItemToArray(bits, cJSON_CreateNumber(options->widths[i])) ? bits : NULL);
        put(good,
            cJSON_AddItemToArray(lambda, cJSON_CreateNumber(options->lambda[i])) ? lambda : NULL);
    }
    if (options->preset != MQ_PRESET_NONE) {
        put(good, cJSON_AddStringToObject(recipe, "preset",
                                          mq_name_at(mq_preset_names(), options->preset)));
    }
    put_codistill(good, recipe, options);
    put(good, cJSON_AddStringToObject(recipe, "slice_rule",
                                      mq_name_at(mq_slice_rule_names(), options->slice_rule)));
    put(good, cJSON_AddStringToObject(recipe, "zero_point",
                                      mq_name_at(mq_zero_point_names(), options->zero_point)));
    put(good, cJSON_AddNumberToObject(recipe, "group_size", (double)options->group_size));
    if (options->has_group_fallback) {
        put(good,
            cJSON_AddNumberToObject(recipe, "group_fallback", (double)options->group_fallback));
    }
    put(good,
        cJSON_AddStringToObject(recipe, "scope", mq_name_at(mq_scope_names(), options->scope)));
    if (options->embeddings != MQ_EMBEDDINGS_KEEP) {
        put(good, cJSON_AddStringToObject(recipe, "embeddings",
                                          mq_name_at(mq_embeddings_names(), options->embeddings)));
        if (options->embeddings == MQ_EMBEDDINGS_NESTED) {
            put(good, cJSON_AddNumberToObject(recipe, "embeddings_min_bits",
                                              options->embeddings_min_bits));
        }
    }
    put_strings(good, recipe, "include", options->include, options->include_count);
    put_strings(good, recipe, "exclude", options->exclude, options->exclude_count);
    if (options->recipe == MQ_RECIPE_RTN) {
        return;
    }
    const mq_grid_class *grid = mq_recipe_grid_class(options);
    put(good, cJSON_AddStringToObject(recipe, "loss", mq_name_at(mq_loss_names(), options->loss)));
    put(good, cJSON_AddStringToObject(recipe, "grid", grid->name));
    put(good, cJSON_AddBoolToObject(recipe, "compensate", mq_recipe_compensates(options)));
    if (options->fold) {
        put(good, cJSON_AddTrueToObject(recipe, "fold"));
        put(good, cJSON_AddNumberToObject(recipe, "fold_power", MQ_FOLD_POWER));
    }
    put(good, cJSON_AddNumberToObject(recipe, "samples", (double)options->samples));
    put(good, cJSON_AddNumberToObject(recipe, "seq_len", (double)options->seq_len));
    put(good, cJSON_AddNumberToObject(recipe, "epochs", (double)options->epochs));
    put(good, cJSON_AddNumberToObject(recipe, "batch", (double)options->batch));
    if (options->early_stop > 0.0) {
        put(good, cJSON_AddNumberToObject(recipe, "early_stop", options->early_stop));
    }
    put(good, cJSON_AddNumberToObject(recipe, "seed", (double)options->seed));
    put(good, cJSON_AddBoolToObject(recipe, "bos", options->bos));
    put(good, cJSON_AddNumberToObject(recipe, "int8_period", (double)options->int8_period));
    put(good, cJSON_AddBoolToObject(recipe, "extend", options->extend));
    if (options->sampled) {
        put(good, cJSON_AddTrueToObject(recipe, "sampled"));
    }
    if (options->let) {
        put(good, cJSON_AddTrueToObject(recipe, "let"));
        put(good, cJSON_AddNumberToObject(recipe, "rate_let", options->rate * (double)MQ_LET_RATE));
    }
    put(good,
        cJSON_AddNumberToObject(recipe, "rate_group", options->rate * (double)grid->rate_group));
    put(good, cJSON_AddNumberToObject(recipe, "rate_rounding",
                                      options->rate * (double)grid->rate_rounding));
    put(good, cJSON_AddNumberToObject(recipe, "beta1", grid->beta1));
}

/* {"file": NAME, "sha256": DIGEST} appended to array; names only, no folders. */
static mq_status put_file(bool *good, cJSON *array, const char *path, const char *digest,
                          mq_error *err) {
    char *name = NULL;
    const mq_status status = mq_shown_name(&name, path, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *entry = cJSON_CreateObject();
    put(good, entry);
    if (*good) {
        put(good, cJSON_AddStringToObject(entry, "file", name));
        put(good, cJSON_AddStringToObject(entry, "sha256", digest));
        put(good, cJSON_AddItemToArray(array, entry) ? array : NULL);
    }
    mq_free(name);
    return MQ_OK;
}

static mq_status put_digest(bool *good, cJSON *array, const char *path, mq_error *err) {
    char digest[65];
    const mq_status status = mq_sha256_file(digest, path, err);
    return status == MQ_OK ? put_file(good, array, path, digest, err) : status;
}

mq_status mq_quantize_digests(mq_quantize_plan *plan, mq_error *err) {
    if (plan->digests != NULL) {
        return MQ_OK;
    }
    cJSON *source = cJSON_CreateArray();
    bool good = source != NULL;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && good && i < mq_tensors_file_count(plan->source); i++) {
        status = put_digest(&good, source, mq_tensors_file(plan->source, i), err);
    }
    static const char *const others[] = {"config.json", "tokenizer.json"};
    for (size_t i = 0; status == MQ_OK && good && i < sizeof others / sizeof others[0]; i++) {
        char *path = mq_path_join(plan->options->model, others[i]);
        good = path != NULL;
        if (path != NULL && mq_path_exists(path)) {
            status = put_digest(&good, source, path, err);
        }
        mq_free(path);
    }
    if (status == MQ_OK && !good) {
        status = mq_fail_memory(err, "the provenance", 0);
    }
    if (status != MQ_OK) {
        cJSON_Delete(source);
        return status;
    }
    plan->digests = source;
    return MQ_OK;
}

static void put_source(bool *good, cJSON *root, const mq_quantize_plan *plan) {
    cJSON *source = cJSON_Duplicate(plan->digests, true);
    put(good, source);
    if (source != NULL && !cJSON_AddItemToObject(root, "source", source)) {
        cJSON_Delete(source);
        *good = false;
    }
}

static mq_status put_calibration(bool *good, cJSON *root, const mq_quantize_plan *plan,
                                 mq_error *err) {
    if (plan->calibration.ids == NULL) {
        return MQ_OK;
    }
    cJSON *calibration = cJSON_AddObjectToObject(root, "calibration");
    cJSON *files = calibration != NULL ? cJSON_AddArrayToObject(calibration, "files") : NULL;
    put(good, files);
    const size_t tokens = plan->calibration.count * plan->calibration.length;
    const double length = (double)plan->calibration.length;
    char crc[9];
    snprintf(crc, sizeof crc, "%08x", mq_crc32(0, plan->calibration.ids, tokens * sizeof(int32_t)));
    if (*good) {
        put(good, cJSON_AddNumberToObject(calibration, "tokens", (double)plan->read * length));
        put(good, mq_quantize_is_unwritten(plan)
                      ? cJSON_AddNullToObject(calibration, "ids_crc32")
                      : cJSON_AddStringToObject(calibration, "ids_crc32", crc));
    }
    if (*good && plan->written > 0) {
        put(good,
            cJSON_AddNumberToObject(calibration, "written_tokens", (double)plan->written * length));
    }
    if (mq_quantize_is_self(plan->options)) {
        put(good, *good ? cJSON_AddTrueToObject(calibration, "self") : NULL);
        return MQ_OK;
    }
    return *good ? put_file(good, files, plan->options->calib, plan->calibration.sha256, err)
                 : MQ_OK;
}

static void put_losses(bool *good, cJSON *block, const char *key,
                       const mq_quantize_options *options, const double *loss) {
    cJSON *object = cJSON_AddObjectToObject(block, key);
    put(good, object);
    for (size_t k = 0; *good && k < options->width_count; k++) {
        char width[16];
        snprintf(width, sizeof width, "w%u", options->widths[k]);
        put(good, cJSON_AddNumberToObject(object, width, loss[k]));
    }
}

static void put_blocks(bool *good, cJSON *root, const mq_quantize_plan *plan,
                       const mq_block_loss *blocks) {
    if (blocks == NULL) {
        return;
    }
    cJSON *array = cJSON_AddArrayToObject(root, "blocks");
    put(good, array);
    for (size_t layer = 0; *good && layer < plan->selection.blocks; layer++) {
        cJSON *block = cJSON_CreateObject();
        put(good, block);
        if (*good) {
            put_losses(good, block, "before", plan->options, blocks[layer].before);
            put_losses(good, block, "after", plan->options, blocks[layer].after);
            if (plan->options->early_stop > 0.0) {
                put(good, cJSON_AddNumberToObject(block, "epochs", (double)blocks[layer].epochs));
            }
            put(good, cJSON_AddItemToArray(array, block) ? array : NULL);
        }
    }
}

/* In the job alone: what the reports' trained tokens say in the provenance. */
static void put_train(bool *good, cJSON *stage, const mq_quantize_plan *plan, size_t train) {
    put(good,
        cJSON_AddNumberToObject(stage, "train_tokens", (double)(train * plan->calibration.length)));
}

/* refits NULL: before it, what will be done. */
static void put_refits(bool *good, cJSON *root, const mq_quantize_plan *plan,
                       const mq_refit_report *refits) {
    if (plan->refit_width_count == 0) {
        return;
    }
    const double length = (double)plan->calibration.length;
    cJSON *refit = cJSON_AddObjectToObject(root, "refit");
    put(good, refit);
    if (*good) {
        put(good, cJSON_AddNumberToObject(refit, "epochs", (double)plan->refit_epochs));
        put(good, cJSON_AddNumberToObject(refit, "batch", (double)plan->options->refit_batch));
        put(good,
            cJSON_AddNumberToObject(refit, "validation_tokens", (double)plan->validation * length));
    }
    if (*good && refits == NULL) {
        put_train(good, refit, plan, plan->refit_train);
    }
    cJSON *array = *good ? cJSON_AddArrayToObject(refit, "widths") : NULL;
    put(good, array);
    for (size_t i = 0; *good && i < plan->refit_width_count; i++) {
        const unsigned bits = plan->refit_widths[i];
        cJSON *width = cJSON_CreateObject();
        put(good, width);
        if (*good) {
            put(good, cJSON_AddNumberToObject(width, "bits", bits));
            put(good, cJSON_AddNumberToObject(width, "rate", mq_refit_rate(bits)));
            put(good, cJSON_AddItemToArray(array, width) ? array : NULL);
        }
        if (*good && refits != NULL) {
            put(good, cJSON_AddNumberToObject(width, "trained_tokens", (double)refits[i].tokens));
            put(good, cJSON_AddNumberToObject(width, "kl_before", refits[i].kl_before));
            put(good, cJSON_AddNumberToObject(width, "kl_after", refits[i].kl_after));
            put(good, cJSON_AddNumberToObject(width, "kept_epoch", (double)refits[i].kept_epoch));
        }
    }
}

/* report NULL: before it. */
static void put_qat(bool *good, cJSON *root, const mq_quantize_plan *plan,
                    const mq_qat_report *report) {
    if (!plan->options->qat) {
        return;
    }
    cJSON *qat = cJSON_AddObjectToObject(root, "qat");
    put(good, qat);
    const mq_qat_report none = {.tokens = 0};
    const mq_qat_report *found = report != NULL ? report : &none;
    const struct {
        const char *name;
        double value;
        bool is_result;
    } numbers[] = {
        {"rate", mq_quantize_qat_rate(plan->options), false},
        {"epochs", (double)plan->qat_epochs, false},
        {"batch", (double)plan->options->refit_batch, false},
        {"trained_tokens", (double)found->tokens, true},
        {"validation_tokens", (double)(plan->validation * plan->calibration.length), false},
        {"loss_before", found->loss_before, true},
        {"loss_after", found->loss_after, true},
        {"kept_epoch", (double)found->kept_epoch, true},
        {"moved_codes", (double)found->moved, true},
    };
    for (size_t i = 0; *good && i < sizeof numbers / sizeof numbers[0]; i++) {
        if (report != NULL || !numbers[i].is_result) {
            put(good, cJSON_AddNumberToObject(qat, numbers[i].name, numbers[i].value));
        }
    }
    if (*good && report == NULL) {
        put_train(good, qat, plan, plan->qat_train);
        return;
    }
    cJSON *array = *good ? cJSON_AddArrayToObject(qat, "widths") : NULL;
    put(good, array);
    for (unsigned bits = MQ_MAX_WIDTH; *good && bits >= MQ_MIN_WIDTH; bits--) {
        cJSON *width = cJSON_CreateObject();
        put(good, width);
        if (*good) {
            put(good, cJSON_AddNumberToObject(width, "bits", bits));
            put(good, cJSON_AddNumberToObject(width, "kl_before", found->kl_before[bits]));
            put(good, cJSON_AddNumberToObject(width, "kl_after", found->kl_after[bits]));
            put(good, cJSON_AddItemToArray(array, width) ? array : NULL);
        }
    }
}

/* What made the products of learning, so that --gemm can ask for it again. */
static void put_backend(bool *good, cJSON *root, const mq_backend *backend) {
    if (backend->name == NULL) {
        return;
    }
    cJSON *gemm = cJSON_AddObjectToObject(root, "gemm");
    put(good, gemm);
    if (*good) {
        put(good, cJSON_AddStringToObject(gemm, "backend", backend->name));
        put(good, cJSON_AddStringToObject(gemm, "kernel", backend->kernel));
    }
}

/* What went into the job beside the recipe. */
static mq_status put_inputs(bool *good, cJSON *root, const mq_quantize_plan *plan, mq_error *err) {
    mq_status status = MQ_OK;
    if (*good) {
        put_source(good, root, plan);
    }
    if (*good) {
        status = put_calibration(good, root, plan, err);
    }
    if (*good && status == MQ_OK) {
        put(good, cJSON_AddStringToObject(root, "blas", mq_context_blas(plan->context)));
        put_backend(good, root, &plan->backend);
        put(good, cJSON_AddStringToObject(root, "kernels", mq_nested_kernels_best()->name));
    }
    return status;
}

/* *out is the root, if all went well. */
static mq_status end(cJSON **out, cJSON *root, bool good, mq_status status, mq_error *err) {
    if (status == MQ_OK && !good) {
        status = mq_fail_memory(err, "the provenance", 0);
    }
    if (status != MQ_OK) {
        cJSON_Delete(root);
        root = NULL;
    }
    *out = root;
    return status;
}

mq_status mq_quantize_provenance(cJSON **out, const mq_quantize_plan *plan,
                                 const mq_block_loss *blocks, const mq_refit_report *refits,
                                 const mq_qat_report *qat, mq_error *err) {
    bool good = true;
    cJSON *root = cJSON_CreateObject();
    put(&good, root);
    if (good) {
        put_recipe(&good, root, plan->options);
    }
    const mq_status status = put_inputs(&good, root, plan, err);
    if (good && status == MQ_OK) {
        put_blocks(&good, root, plan, blocks);
        put_qat(&good, root, plan, qat);
        put_refits(&good, root, plan, refits);
    }
    return end(out, root, good, status, err);
}

mq_status mq_quantize_job(cJSON **out, const mq_quantize_plan *plan, mq_error *err) {
    bool good = true;
    cJSON *root = cJSON_CreateObject();
    put(&good, root);
    if (good) {
        put(&good, cJSON_AddNumberToObject(root, "format_version", MQ_FORMAT_VERSION));
        put(&good, cJSON_AddStringToObject(root, "tool", "matquant " MQ_VERSION));
    }
    if (good) {
        put_recipe(&good, root, plan->options);
    }
    /* Before the text, which they may ask for more of: they are what was asked for. */
    if (good && plan->calibration.ids != NULL) {
        put_qat(&good, root, plan, NULL);
        put_refits(&good, root, plan, NULL);
    }
    const mq_status status = put_inputs(&good, root, plan, err);
    return end(out, root, good, status, err);
}
