/* job.json of a state: which job it is of, and how one differs from another. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/json_build.h"
#include "job/state.h"
#include "store/master_config.h"

/* Raised with every change of what is learned with the same options, so that no master is half of
 * one and half of the other. 1: widths of the refit took the first of their sequences; 2: int8 took
 * the place of int2's step, attention's products were float32, what is measured on was among what a
 * shorter refit's blocks learn from, rows of .npy gave one sequence each; 3: bfloat16 products of
 * small models were made in tiles, and none of what the refit learns from, nor of what wide widths
 * do in it, was of bfloat16; 4: narrow widths were measured in float32; 5: the head's gradient took
 * larger chunks of the vocabulary with bfloat16; 6: of narrow widths the head was measured in
 * float32, and sequences that the model writes drew the numbers of the blocks' orders; 7: gate and
 * up were not rounded for backward with bfloat16; 8: what narrow widths are measured on had targets
 * of float32; 9: a wider width pulled on narrower ones' codes with its gradient as it was; 10:
 * bfloat16's products were not made in panels; 11: with them a block's teacher and the Gram
 * matrices were float32's; 12: the refit of 7 and 8 bits had lower rates; 13: 8 bits did not pull
 * on narrower codes; 14: Adam's epsilon was the same for models of every size; 15: where a
 * start's scale was brought into its bounds, its middle did not follow. */
#define STATE_VERSION 16

/* --- reading and writing ---------------------------------------------------------------------- */

/* CRC-32 of a job as it is printed; false: no memory. */
static bool job_crc(char crc[9], const cJSON *job) {
    char *text = mq_json_print(job);
    if (text == NULL) {
        return false;
    }
    snprintf(crc, 9, "%08x", (unsigned)mq_crc32(0, text, strlen(text)));
    mq_free(text);
    return true;
}

static mq_status take_job(cJSON **out, cJSON *root, const char *path, mq_error *err) {
    size_t version = 0;
    const char *named = NULL;
    mq_status status = mq_json_get_size(&version, root, "state_version", true, path, err);
    if (status == MQ_OK) {
        status = mq_json_get_string(&named, root, "crc32", true, path, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    const cJSON *job = cJSON_GetObjectItemCaseSensitive(root, "job");
    if (version != STATE_VERSION) {
        return mq_fail_file(err, MQ_ERR_USAGE, path, "state_version %zu is not known", version);
    }
    char crc[9] = "";
    if (cJSON_IsObject(job) && !job_crc(crc, job)) {
        return mq_fail_memory(err, "a job", 0);
    }
    if (strcmp(crc, named) != 0 || !cJSON_IsObject(job)) {
        return mq_fail_file(err, MQ_ERR_INPUT, path, "its checksum is not that of its content");
    }
    *out = cJSON_DetachItemFromObjectCaseSensitive(root, "job");
    return MQ_OK;
}

mq_status mq_state_read_job(cJSON **out, const char *folder, mq_error *err) {
    *out = NULL;
    char *path = mq_path_join(folder, MQ_STATE_JOB);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    cJSON *root = NULL;
    mq_status status = MQ_OK;
    if (mq_path_exists(path)) {
        status = mq_json_read(&root, path, err);
        if (status == MQ_OK) {
            status = take_job(out, root, path, err);
        }
    }
    cJSON_Delete(root);
    mq_free(path);
    if (status == MQ_ERR_INPUT || status == MQ_ERR_USAGE) {
        char why[256];
        snprintf(why, sizeof why, "%.255s", err != NULL ? err->message : "");
        status = mq_fail_file_in(err, status, folder, MQ_STATE_JOB,
                                 "does not say which job's state the folder is (%s); remove the "
                                 "folder or name another",
                                 why);
    }
    return status;
}

mq_status mq_state_write_job(const char *folder, const cJSON *job, mq_error *err) {
    char crc[9] = "";
    mq_json json = mq_json_begin(cJSON_CreateObject());
    json.failed = json.failed || !job_crc(crc, job);
    mq_json_put_size(&json, json.root, "state_version", STATE_VERSION);
    mq_json_put_text(&json, json.root, "crc32", crc);
    mq_json_put_copy(&json, json.root, "job", job);
    char *text = json.failed ? NULL : mq_json_print(json.root);
    char *path = mq_path_join(folder, MQ_STATE_JOB);
    mq_status status = text == NULL || path == NULL
                           ? mq_fail_memory(err, "a job", 0)
                           : mq_output_file(path, text, strlen(text), false, err);
    mq_free(path);
    mq_free(text);
    cJSON_Delete(json.root);
    return status;
}

/* --- comparing -------------------------------------------------------------------------------- */

#define FIELD_SIZE 256
#define SHOWN_SIZE 100

/* Where two values differ first. */
typedef struct difference {
    char field[FIELD_SIZE];    /* "recipe.seed", "source[0].sha256" */
    const cJSON *there, *here; /* NULL: there is no such field */
} difference;

static bool differs(difference *out, const cJSON *there, const cJSON *here, bool all);

/* What stands in the field of two objects or, with a NULL name, in the index of two arrays. */
static bool differs_at(difference *out, const cJSON *there, const cJSON *here, const char *name,
                       int index, bool all) {
    const size_t length = strlen(out->field);
    char *end = out->field + length;
    const cJSON *a = name != NULL ? cJSON_GetObjectItemCaseSensitive(there, name)
                                  : cJSON_GetArrayItem(there, index);
    const cJSON *b = name != NULL ? cJSON_GetObjectItemCaseSensitive(here, name)
                                  : cJSON_GetArrayItem(here, index);
    if (name != NULL) {
        snprintf(end, FIELD_SIZE - length, "%s%s", length > 0 ? "." : "", name);
    } else {
        snprintf(end, FIELD_SIZE - length, "[%d]", index);
    }
    const bool found = differs(out, a, b, all);
    if (!found) {
        *end = '\0';
    }
    return found;
}

static bool objects_differ(difference *out, const cJSON *there, const cJSON *here, bool all) {
    for (const cJSON *item = here->child; item != NULL; item = item->next) {
        if (differs_at(out, there, here, item->string, 0, true)) {
            return true;
        }
    }
    for (const cJSON *item = there->child; all && item != NULL; item = item->next) {
        if (cJSON_GetObjectItemCaseSensitive(here, item->string) == NULL) {
            return differs_at(out, there, here, item->string, 0, true);
        }
    }
    return false;
}

/* As cJSON_Compare, which takes numbers for the same that are nearly so. */
static bool same(const cJSON *a, const cJSON *b) {
    if (cJSON_IsNumber(a) && cJSON_IsNumber(b)) {
        return a->valuedouble == b->valuedouble;
    }
    if (!cJSON_IsArray(a) || !cJSON_IsArray(b)) {
        return cJSON_Compare(a, b, true);
    }
    const cJSON *left = a->child, *right = b->child;
    while (left != NULL && right != NULL && same(left, right)) {
        left = left->next;
        right = right->next;
    }
    return left == NULL && right == NULL;
}

/* Without all: fields of `here` only. Lists of objects are gone through, others shown whole. What
 * is null here is not known yet. */
static bool differs(difference *out, const cJSON *there, const cJSON *here, bool all) {
    if (there != NULL && cJSON_IsNull(here)) {
        return false;
    }
    if (cJSON_IsObject(there) && cJSON_IsObject(here)) {
        return objects_differ(out, there, here, all);
    }
    const int count = cJSON_GetArraySize(here);
    if (cJSON_IsArray(there) && cJSON_IsArray(here) && cJSON_GetArraySize(there) == count &&
        count > 0 && cJSON_IsObject(here->child)) {
        bool found = false;
        for (int i = 0; !found && i < count; i++) {
            found = differs_at(out, there, here, NULL, i, true);
        }
        return found;
    }
    out->there = there;
    out->here = here;
    return there == NULL || here == NULL || !same(there, here);
}

static const char *shown(char out[SHOWN_SIZE], const cJSON *value) {
    char whole[4096];
    if (value == NULL) {
        snprintf(out, SHOWN_SIZE, "nothing");
    } else if (!cJSON_PrintPreallocated((cJSON *)(uintptr_t)value, whole, (int)sizeof whole,
                                        false)) {
        snprintf(out, SHOWN_SIZE, "more than can be shown");
    } else {
        const bool cut = strlen(whole) >= SHOWN_SIZE;
        snprintf(out, SHOWN_SIZE, "%.*s%s", cut ? SHOWN_SIZE - 4 : SHOWN_SIZE - 1, whole,
                 cut ? "..." : "");
    }
    return out;
}

mq_status mq_state_compare_jobs(const cJSON *there, const cJSON *here, bool all, const char *folder,
                                mq_error *err) {
    difference found = {.field = ""};
    if (!differs(&found, there, here, all)) {
        return MQ_OK;
    }
    char a[SHOWN_SIZE], b[SHOWN_SIZE];
    return mq_fail_file(err, MQ_ERR_USAGE, folder,
                        "is the state of another job: its %s is %s, this one's is %s; remove the "
                        "folder or name another",
                        found.field, shown(a, found.there), shown(b, found.here));
}
