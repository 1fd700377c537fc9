/* Where a slice comes from. */
#include <string.h>

#include "export/export.h"
#include "matquant/version.h"
#include "store/folder.h"

static mq_status add_string(cJSON *object, const char *key, const char *text, mq_error *err) {
    return mq_json_add(object, key, cJSON_CreateString(text), err);
}

/* What the master's provenance says under `key`. One that is a slice itself (in the master's own
 * format) has it from its master, one level deeper, as `key_in_slice`. */
static const cJSON *origin(const mq_master *master, const char *key, const char *key_in_slice) {
    const cJSON *provenance = mq_master_provenance(master);
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    return cJSON_IsObject(slice) ? cJSON_GetObjectItemCaseSensitive(slice, key_in_slice)
                                 : cJSON_GetObjectItemCaseSensitive(provenance, key);
}

/* Which master: its name, and the digest of its matquant.json, which in turn has the CRC-32 of all
 * its tensors. */
static mq_status add_master(cJSON *slice, const mq_export_job *job, mq_error *err) {
    const char *folder = job->options->master;
    mq_status status = add_string(slice, "master", job->master_name, err);
    if (status != MQ_OK || mq_master_provenance(job->master) == NULL) {
        return status;
    }
    char *path = mq_path_join(folder, MQ_PROVENANCE_FILE);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    char digest[65];
    status = mq_sha256_file(digest, path, err);
    mq_free(path);
    if (status == MQ_OK) {
        status = add_string(slice, "master_sha256", digest, err);
    }
    static const char *const kept[][2] = {{"tool", "master_tool"},
                                          {"recipe", "recipe"},
                                          {"source", "source"},
                                          {"calibration", "calibration"}};
    for (size_t i = 0; status == MQ_OK && i < sizeof kept / sizeof *kept; i++) {
        const cJSON *item = origin(job->master, kept[i][0], kept[i][1]);
        if (item != NULL) {
            status = mq_json_add(slice, kept[i][1], cJSON_Duplicate(item, true), err);
        }
    }
    return status;
}

/* What the end-to-end refit did to this width. */
static mq_status add_refit(cJSON *slice, const mq_export_job *job, mq_error *err) {
    const cJSON *refit = origin(job->master, "refit", "refit");
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(refit, "widths");
    if (refit != NULL && all == NULL) { /* of a slice: that of its width */
        return mq_json_add(slice, "refit", cJSON_Duplicate(refit, true), err);
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, all) {
        const cJSON *bits = cJSON_GetObjectItemCaseSensitive(item, "bits");
        if (cJSON_IsNumber(bits) && bits->valuedouble == job->width) {
            return mq_json_add(slice, "refit", cJSON_Duplicate(item, true), err);
        }
    }
    return MQ_OK;
}

/* Of `all`, what was measured at this width. */
static mq_status copy_evaluations(cJSON *slice, const cJSON *all, const mq_export_job *job,
                                  mq_error *err) {
    cJSON *own = cJSON_GetObjectItemCaseSensitive(slice, "evaluations");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, all) {
        const cJSON *bits = cJSON_GetObjectItemCaseSensitive(item, "bits");
        if (!cJSON_IsNumber(bits) || bits->valuedouble != job->width) {
            continue;
        }
        if (own == NULL) {
            own = cJSON_AddArrayToObject(slice, "evaluations");
        }
        cJSON *copy = own == NULL ? NULL : cJSON_Duplicate(item, true);
        if (copy == NULL || !cJSON_AddItemToArray(own, copy)) {
            cJSON_Delete(copy);
            return mq_fail_memory(err, "a JSON file", 0);
        }
    }
    return MQ_OK;
}

/* Those of the master, and, where that is a slice itself, what was recorded of it as such. */
static mq_status add_evaluations(cJSON *slice, const mq_export_job *job, mq_error *err) {
    const cJSON *provenance = mq_master_provenance(job->master);
    const cJSON *of_slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    const cJSON *lists[] = {cJSON_GetObjectItemCaseSensitive(provenance, "evaluations"),
                            cJSON_GetObjectItemCaseSensitive(of_slice, "evaluations")};
    mq_status status = copy_evaluations(slice, lists[0], job, err);
    return status == MQ_OK ? copy_evaluations(slice, lists[1], job, err) : status;
}

static mq_status add_name(cJSON *names, const char *name, mq_error *err) {
    return cJSON_AddItemToArray(names, cJSON_CreateString(name))
               ? MQ_OK
               : mq_fail_memory(err, "a JSON file", 0);
}

static mq_status add_private(cJSON *slice, const mq_plan *plan, mq_error *err) {
    cJSON *names = cJSON_AddArrayToObject(slice, "private");
    if (names == NULL) {
        return mq_fail_memory(err, "a JSON file", 0);
    }
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < plan->count; i++) {
        if (plan->pieces[i].is_private) {
            status = add_name(names, plan->pieces[i].spec.name, err);
        }
    }
    const cJSON *item = NULL; /* a slice has them under their plain names already */
    cJSON_ArrayForEach(item, origin(plan->job->master, "private", "private")) {
        if (status == MQ_OK && cJSON_IsString(item)) {
            status = add_name(names, item->valuestring, err);
        }
    }
    return status;
}

mq_status mq_export_provenance(cJSON **out, const mq_plan *plan, const mq_export_format *format,
                               mq_error *err) {
    cJSON *whole = cJSON_CreateObject();
    cJSON *slice = whole == NULL ? NULL : cJSON_CreateObject();
    mq_status status = slice == NULL ? mq_fail_memory(err, "a JSON file", 0) : MQ_OK;
    if (status == MQ_OK) {
        status = mq_json_add(whole, "format_version", cJSON_CreateNumber(MQ_FORMAT_VERSION), err);
    }
    if (status == MQ_OK) {
        status = add_string(whole, "tool", "matquant " MQ_VERSION, err);
    }
    if (status == MQ_OK) {
        status = add_string(slice, "format", format->info.name, err);
    }
    if (status == MQ_OK) {
        status = mq_json_add(slice, "width", cJSON_CreateNumber(plan->job->width), err);
    }
    if (status == MQ_OK) {
        status = add_master(slice, plan->job, err);
    }
    if (status == MQ_OK) {
        status = add_refit(slice, plan->job, err);
    }
    if (status == MQ_OK) {
        status = add_evaluations(slice, plan->job, err);
    }
    if (status == MQ_OK) {
        status = add_private(slice, plan, err);
    }
    if (status == MQ_OK) {
        status = mq_json_add(whole, "slice", slice, err);
        slice = NULL;
    }
    cJSON_Delete(slice);
    if (status != MQ_OK) {
        cJSON_Delete(whole);
        return status;
    }
    *out = whole;
    return MQ_OK;
}
