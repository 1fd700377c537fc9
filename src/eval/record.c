#include "eval/record.h"

#include <math.h>
#include <string.h>

#include "base/json_build.h"
#include "matquant/inspect.h"
#include "matquant/version.h"
#include "store/folder.h"
#include "store/master.h"
#include "store/readers.h"
#include "text/shown_name.h"

/* --- reading ---------------------------------------------------------------------------------- */

/* Before anything is measured: a link into a cache, say, is not replaced. */
static mq_status check_writable(const char *folder, mq_error *err) {
    char *path = mq_path_join(folder, MQ_PROVENANCE_FILE);
    mq_status status = path == NULL ? mq_fail_memory(err, "a path", strlen(folder))
                                    : mq_output_file_check(path, true, err);
    mq_free(path);
    return status;
}

mq_status mq_record_check(char master[65], const mq_eval_options *options, mq_error *err) {
    if (options->text == NULL) {
        return mq_fail(err, MQ_ERR_USAGE, "what is recorded is measured on a text");
    }
    if (options->layer_bits_count > 0) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "what is recorded is of one width for all layers, not of mixed ones");
    }
    mq_kind kind = MQ_KIND_PLAIN;
    mq_status status = mq_folder_kind(&kind, options->model, err);
    if (status == MQ_OK && kind != MQ_KIND_MASTER) {
        status = mq_fail_file(err, MQ_ERR_USAGE, options->model,
                              "is no master checkpoint: there is no provenance to record it in");
    }
    if (status == MQ_OK) {
        status = check_writable(options->model, err);
    }
    cJSON *provenance = NULL;
    if (status == MQ_OK) {
        status = mq_read_folder_json(&provenance, options->model, MQ_PROVENANCE_FILE, false, err);
    }
    if (status == MQ_OK) {
        status = mq_provenance_sha256(master, provenance, err);
    }
    cJSON_Delete(provenance);
    return status;
}

/* --- the entry -------------------------------------------------------------------------------- */

/* Numbers that are none have no place in JSON. */
static void put_number(mq_json *json, cJSON *object, const char *key, double value) {
    if (isfinite(value)) {
        mq_json_put_number(json, object, key, value);
    }
}

static void put_reference(mq_json *json, const mq_eval_result *result, const char *name) {
    cJSON *reference = mq_json_put_object(json, json->root, "reference");
    mq_json_put_text(json, reference, "model", name);
    put_number(json, reference, "perplexity", result->reference_perplexity);
    put_number(json, json->root, "kl", result->kl);
    put_number(json, json->root, "top1_agreement", result->top1_agreement);
}

static void put_numbers(mq_json *json, const mq_eval_result *result, const mq_eval_options *options,
                        const char *text_name) {
    cJSON *entry = json->root;
    mq_json_put_size(json, entry, "bits", result->width);
    cJSON *text = mq_json_put_object(json, entry, "text");
    mq_json_put_text(json, text, "file", text_name);
    mq_json_put_text(json, text, "sha256", result->text_sha256);
    mq_json_put_size(json, entry, "windows", result->windows);
    mq_json_put_size(json, entry, "seq_len", options->seq_len);
    mq_json_put_bool(json, entry, "bos_added", result->bos);
    put_number(json, entry, "perplexity", result->perplexity);
    put_number(json, entry, "nll", result->nll);
    put_number(json, entry, "nll_stderr", result->nll_stderr);
}

static mq_status make_entry(cJSON **out, const mq_eval_result *result,
                            const mq_eval_options *options, mq_error *err) {
    char *text_name = NULL, *reference_name = NULL;
    mq_status status = mq_shown_name(&text_name, options->text, err);
    if (status == MQ_OK && result->has_reference) {
        status = mq_shown_name(&reference_name, options->reference, err);
    }
    mq_json json = mq_json_begin(cJSON_CreateObject());
    if (status == MQ_OK) {
        put_numbers(&json, result, options, text_name);
        if (result->has_reference) {
            put_reference(&json, result, reference_name);
        }
        mq_json_put_text(&json, json.root, "tool", "matquant " MQ_VERSION);
    }
    mq_free(text_name);
    mq_free(reference_name);
    return mq_json_take(out, &json, status, "the provenance", err);
}

/* --- writing ---------------------------------------------------------------------------------- */

static mq_status write_back(const cJSON *provenance, const char *folder, mq_error *err) {
    char *path = mq_path_join(folder, MQ_PROVENANCE_FILE);
    char *text = path == NULL ? NULL : mq_json_print(provenance);
    mq_status status = text == NULL ? mq_fail_memory(err, "the provenance", 0)
                                    : mq_output_file(path, text, strlen(text), true, err);
    mq_free(text);
    mq_free(path);
    return status;
}

/* A run with --force may have put another master in its place while this one was measured. */
static mq_status check_same(const char master[65], const cJSON *provenance, const char *folder,
                            mq_error *err) {
    char now[65];
    const mq_status status = mq_provenance_sha256(now, provenance, err);
    return status == MQ_OK && strcmp(now, master) != 0
               ? mq_fail_file(err, MQ_ERR_INPUT, folder,
                              "is another master than the one that was measured: it was replaced "
                              "meanwhile, and nothing is recorded")
               : status;
}

mq_status mq_record_write(const mq_eval_result *results, size_t count, const char master[65],
                          const mq_eval_options *options, const mq_context *context,
                          mq_error *err) {
    cJSON *provenance = NULL;
    /* By one at a time: others may record their own meanwhile, or replace the folder. */
    int lock;
    mq_status status = mq_folder_lock(&lock, options->model, context, err);
    if (status == MQ_OK) {
        status = mq_read_folder_json(&provenance, options->model, MQ_PROVENANCE_FILE, false, err);
    }
    if (status == MQ_OK) {
        status = check_same(master, provenance, options->model, err);
    }
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        cJSON *entry = NULL;
        mq_json json = {.root = NULL};
        status = make_entry(&entry, &results[i], options, err);
        if (status == MQ_OK) {
            mq_provenance_put_evaluation(&json, provenance, entry);
            status = mq_json_check(&json, "the provenance", err);
        }
        cJSON_Delete(entry);
    }
    if (status == MQ_OK) {
        status = write_back(provenance, options->model, err);
    }
    mq_folder_unlock(lock);
    cJSON_Delete(provenance);
    return status;
}
