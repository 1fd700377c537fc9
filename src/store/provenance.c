/* What matquant.json says, of a master and of what was cut from it. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "matquant/names.h"
#include "matquant/quantize.h"
#include "store/readers.h"

#define EVALUATIONS "evaluations"

const cJSON *mq_provenance_slice(const cJSON *provenance) {
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    return cJSON_IsObject(slice) ? slice : NULL;
}

unsigned mq_provenance_width(const cJSON *provenance) {
    const cJSON *cut = cJSON_GetObjectItemCaseSensitive(mq_provenance_slice(provenance), "width");
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        if (cJSON_IsNumber(cut) && cut->valuedouble == width) {
            return width;
        }
    }
    return 0;
}

const cJSON *mq_provenance_item(const cJSON *provenance, const char *key) {
    const cJSON *slice = mq_provenance_slice(provenance);
    return cJSON_GetObjectItemCaseSensitive(slice != NULL ? slice : provenance, key);
}

/* The first object of a list whose member `key` is that width; NULL: none. */
static const cJSON *find_width(const cJSON *list, const char *key, double width) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        const cJSON *bits = cJSON_GetObjectItemCaseSensitive(item, key);
        if (cJSON_IsNumber(bits) && bits->valuedouble == width) {
            return item;
        }
    }
    return NULL;
}

/* Whether a width of the recipe's bits, the one at `index`, was in the loss. A recipe without
 * weights leaves none out. */
static bool has_loss(const cJSON *recipe, int index, double width) {
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(recipe, "lambda");
    const cJSON *lambda = cJSON_GetArrayItem(all, index);
    const cJSON *terms = cJSON_GetObjectItemCaseSensitive(recipe, "codistill");
    return !cJSON_IsNumber(lambda) || lambda->valuedouble > 0.0 ||
           find_width(terms, "student", width) != NULL;
}

bool mq_provenance_recipe_trained(const cJSON *recipe, double width) {
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(recipe, "name");
    if (cJSON_IsString(name) &&
        strcmp(name->valuestring, mq_name_at(mq_recipe_names(), MQ_RECIPE_RTN)) == 0) {
        return false;
    }
    const cJSON *bits = cJSON_GetObjectItemCaseSensitive(recipe, "bits"), *item = NULL;
    int index = 0;
    cJSON_ArrayForEach(item, bits) {
        if (cJSON_IsNumber(item) && item->valuedouble == width) {
            return has_loss(recipe, index, width);
        }
        index++;
    }
    return false;
}

const cJSON *mq_provenance_refit(const cJSON *provenance, unsigned width) {
    const cJSON *refit = mq_provenance_item(provenance, "refit");
    return mq_provenance_slice(provenance) != NULL
               ? refit
               : find_width(cJSON_GetObjectItemCaseSensitive(refit, "widths"), "bits", width);
}

bool mq_provenance_trained(const cJSON *provenance, unsigned width) {
    const unsigned cut = mq_provenance_width(provenance);
    const cJSON *recipe = mq_provenance_item(provenance, "recipe");
    const cJSON *kept = cJSON_GetObjectItemCaseSensitive(mq_provenance_refit(provenance, width),
                                                         "kept_epoch"); /* 0: what was before */
    return (cJSON_IsNumber(kept) && kept->valuedouble > 0.0) ||
           mq_provenance_recipe_trained(recipe, cut != 0 ? cut : width);
}

double mq_provenance_refit_kl(const cJSON *provenance, unsigned width) {
    const cJSON *slice = mq_provenance_slice(provenance);
    if (cJSON_GetObjectItemCaseSensitive(slice, "layer_bits") != NULL) {
        return NAN; /* measured was the width alone */
    }
    const cJSON *kl =
        cJSON_GetObjectItemCaseSensitive(mq_provenance_refit(provenance, width), "kl_after");
    return cJSON_IsNumber(kl) ? kl->valuedouble : NAN;
}

/* --- evaluations ------------------------------------------------------------------------------ */

mq_status mq_provenance_sha256(char out[65], const cJSON *provenance, mq_error *err) {
    cJSON *copy = cJSON_Duplicate(provenance, true);
    cJSON_DeleteItemFromObjectCaseSensitive(copy, EVALUATIONS);
    char *text = copy == NULL ? NULL : mq_json_print(copy);
    cJSON_Delete(copy);
    if (text == NULL) {
        return mq_fail_memory(err, "the provenance", 0);
    }
    const mq_mapping content = {(const unsigned char *)text, strlen(text)};
    const mq_status status = mq_sha256_mapping(out, &content, NULL, err);
    mq_free(text);
    return status;
}

/* The same width on the same windows: what replaces an earlier measurement, a. */
static bool same_windows(const cJSON *a, const cJSON *b) {
    static const char *const keys[] = {"bos_added", "bits", "windows", "seq_len"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const cJSON *of_a = cJSON_GetObjectItemCaseSensitive(a, keys[i]);
        if (i == 0 && of_a == NULL) {
            continue; /* written before there was such a member */
        }
        if (!cJSON_Compare(of_a, cJSON_GetObjectItemCaseSensitive(b, keys[i]), true)) {
            return false;
        }
    }
    const cJSON *texts[] = {cJSON_GetObjectItemCaseSensitive(a, "text"),
                            cJSON_GetObjectItemCaseSensitive(b, "text")};
    return cJSON_Compare(cJSON_GetObjectItemCaseSensitive(texts[0], "sha256"),
                         cJSON_GetObjectItemCaseSensitive(texts[1], "sha256"), true);
}

/* What was measured against a reference holds on, if the new measurement had none: it is the same
 * master on the same windows. */
static void keep_reference(mq_json *json, cJSON *entry, const cJSON *old) {
    static const char *const keys[] = {"reference", "kl", "top1_agreement"};
    if (cJSON_HasObjectItem(entry, keys[0])) {
        return;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(old, keys[i]);
        if (item != NULL) {
            mq_json_put_copy(json, entry, keys[i], item);
        }
    }
}

void mq_provenance_put_evaluation(mq_json *json, cJSON *at, const cJSON *evaluation) {
    cJSON *list = cJSON_GetObjectItemCaseSensitive(at, EVALUATIONS);
    if (!cJSON_IsArray(list)) {
        cJSON_DeleteItemFromObjectCaseSensitive(at, EVALUATIONS);
        list = mq_json_put_array(json, at, EVALUATIONS);
    }
    cJSON *old = list == NULL ? NULL : list->child;
    while (old != NULL && !same_windows(old, evaluation)) {
        old = old->next;
    }
    cJSON *entry = mq_json_put_copy(json, list, NULL, evaluation);
    if (old != NULL && entry != NULL) {
        keep_reference(json, entry, old);
        cJSON_DetachItemViaPointer(list, entry);
        cJSON_ReplaceItemViaPointer(list, old, entry);
    }
}
