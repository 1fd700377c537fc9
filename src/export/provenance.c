/* Where a slice comes from. */
#include <string.h>

#include "export/export.h"
#include "matquant/names.h"
#include "matquant/version.h"
#include "store/folder.h"
#include "store/readers.h"

/* "tool" of a master is what made it, but of one that is a slice itself (in the master's own
 * format) what cut it: that which made its master it has as "master_tool". */
static const cJSON *maker_of(const cJSON *provenance) {
    const bool is_slice = mq_provenance_slice(provenance) != NULL;
    return mq_provenance_item(provenance, is_slice ? "master_tool" : "tool");
}

static void put_item(mq_json *json, cJSON *slice, const char *key, const cJSON *item) {
    if (item != NULL) {
        mq_json_put_copy(json, slice, key, item);
    }
}

/* Which master: its name, and the digest of what its matquant.json says, which in turn has the
 * CRC-32 of all its tensors. */
static mq_status put_master(mq_json *json, cJSON *slice, const mq_export_job *job, mq_error *err) {
    const cJSON *provenance = mq_master_provenance(job->master);
    mq_json_put_text(json, slice, "master", job->master_name);
    if (provenance == NULL) {
        return MQ_OK;
    }
    char digest[65];
    const mq_status status = mq_provenance_sha256(digest, provenance, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_json_put_text(json, slice, "master_sha256", digest);
    put_item(json, slice, "master_tool", maker_of(provenance));
    static const char *const kept[] = {"recipe", "source", "calibration", "model_card"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        put_item(json, slice, kept[i], mq_provenance_item(provenance, kept[i]));
    }
    return MQ_OK;
}

/* Which layers have other widths than the slice's: how many, and the patterns that say so. */
static void put_mixture(mq_json *json, cJSON *slice, const mq_export_job *job) {
    if (mq_mixture_is_uniform(job->mixture)) {
        return;
    }
    const mq_slice_options *options = job->options;
    const mq_width_counts counts = mq_mixture_counts(job->mixture, job->config);
    mq_json_put_number(json, slice, "mean_bits", mq_mean_bits(&counts));
    cJSON *widths = mq_json_put_array(json, slice, "widths");
    for (unsigned width = MQ_MAX_WIDTH; width >= MQ_MIN_WIDTH; width--) {
        if (counts.layers[width] > 0) {
            cJSON *entry = mq_json_put_object(json, widths, NULL);
            mq_json_put_size(json, entry, "bits", width);
            mq_json_put_size(json, entry, "layers", counts.layers[width]);
        }
    }
    cJSON *given = mq_json_put_array(json, slice, "layer_bits");
    for (size_t i = 0; i < options->layer_bits_count; i++) {
        const mq_layer_bits *item = &options->layer_bits[i];
        char *text = mq_asprintf("%.*s=%u", (int)item->length, item->pattern, item->width);
        json->failed = json->failed || text == NULL;
        mq_json_put_text(json, given, NULL, text);
        mq_free(text);
    }
}

/* Of `all`, what was measured at this width. */
static void copy_evaluations(mq_json *json, cJSON *slice, const cJSON *all,
                             const mq_export_job *job) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, all) {
        const cJSON *bits = cJSON_GetObjectItemCaseSensitive(item, "bits");
        if (cJSON_IsNumber(bits) && bits->valuedouble == job->width) {
            mq_provenance_put_evaluation(json, slice, item);
        }
    }
}

/* Those of the master; where that is a slice itself, first what it has from its own master, since
 * what was recorded of it came later. All were measured at one width. */
static void put_evaluations(mq_json *json, cJSON *slice, const mq_export_job *job) {
    if (!mq_mixture_is_uniform(job->mixture)) {
        return;
    }
    const cJSON *provenance = mq_master_provenance(job->master);
    const cJSON *of_slice = mq_provenance_slice(provenance);
    copy_evaluations(json, slice, cJSON_GetObjectItemCaseSensitive(of_slice, "evaluations"), job);
    copy_evaluations(json, slice, cJSON_GetObjectItemCaseSensitive(provenance, "evaluations"), job);
}

static bool is_listed(const cJSON *names, const char *name) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, names) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Tensors that are private to the width, by their names here. A master that is a slice itself has
 * them under their plain names already, and lists them. */
static void put_private(mq_json *json, cJSON *slice, const mq_plan *plan) {
    cJSON *names = mq_json_put_array(json, slice, "private");
    const cJSON *listed = mq_provenance_item(mq_master_provenance(plan->job->master), "private");
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        const mq_tensor_info *source = piece->sources[0];
        if (piece->is_private || (source != NULL && is_listed(listed, source->name))) {
            mq_json_put_text(json, names, NULL, piece->spec.name);
        }
    }
}

mq_status mq_export_provenance(cJSON **out, const mq_plan *plan, const mq_export_format *format,
                               mq_error *err) {
    mq_json json = mq_json_begin(cJSON_CreateObject());
    mq_json_put_size(&json, json.root, "format_version", MQ_FORMAT_VERSION);
    mq_json_put_text(&json, json.root, "tool", "matquant " MQ_VERSION);
    cJSON *slice = mq_json_put_object(&json, json.root, "slice");
    mq_json_put_text(&json, slice, "format", format->info.name);
    mq_json_put_size(&json, slice, "width", plan->job->width);
    if (plan->job->options->dtype != MQ_SLICE_DTYPE_SOURCE) {
        mq_json_put_text(&json, slice, "dtype",
                         mq_name_at(mq_slice_dtype_names(), plan->job->options->dtype));
    }
    put_mixture(&json, slice, plan->job);
    const mq_status status = put_master(&json, slice, plan->job, err);
    if (mq_mixture_is_uniform(plan->job->mixture)) { /* else no layer may have had it */
        put_item(&json, slice, "refit",
                 mq_provenance_refit(mq_master_provenance(plan->job->master), plan->job->width));
    }
    put_evaluations(&json, slice, plan->job);
    put_private(&json, slice, plan);
    return mq_json_take(out, &json, status, MQ_PROVENANCE_FILE, err);
}
