/* What matquant.json says, of a master and of what was cut from it. */
#include <math.h>
#include <string.h>

#include "matquant/names.h"
#include "matquant/quantize.h"
#include "store/readers.h"

const cJSON *mq_provenance_slice(const cJSON *provenance) {
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    return cJSON_IsObject(slice) ? slice : NULL;
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
    const cJSON *cut = cJSON_GetObjectItemCaseSensitive(mq_provenance_slice(provenance), "width");
    const cJSON *recipe = mq_provenance_item(provenance, "recipe");
    const cJSON *kept = cJSON_GetObjectItemCaseSensitive(mq_provenance_refit(provenance, width),
                                                         "kept_epoch"); /* 0: what was before */
    return (cJSON_IsNumber(kept) && kept->valuedouble > 0.0) ||
           mq_provenance_recipe_trained(recipe,
                                        cJSON_IsNumber(cut) ? cut->valuedouble : (double)width);
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
