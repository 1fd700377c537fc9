/* Which layers rotate, by which settings, and how much of a head. */
#include "base/error.h"
#include "model/config_parts.h"

/* --- how much of a head ----------------------------------------------------------------------- */

/* 0: it is not there. */
static mq_status get_rotary_factor(double *out, const cJSON *object, const char *file,
                                   mq_error *err) {
    const cJSON *item = mq_config_member(object, "partial_rotary_factor");
    *out = 0.0;
    if (item == NULL) {
        return MQ_OK;
    }
    if (!cJSON_IsNumber(item) || !(item->valuedouble > 0.0 && item->valuedouble <= 1.0)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "partial_rotary_factor is no number above 0 and not above 1");
    }
    *out = item->valuedouble;
    return MQ_OK;
}

/* It may stand by itself or with the other rotary settings, in either spelling of them; one that
 * is not there goes by the others. */
static mq_status find_rotary_factor(double *out, const cJSON *json, const char *file,
                                    mq_error *err) {
    const cJSON *const places[] = {json, mq_config_member(json, "rope_scaling"),
                                   mq_config_member(json, "rope_parameters")};
    double found = 0.0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        double factor;
        const mq_status status = get_rotary_factor(&factor, places[i], file, err);
        if (status != MQ_OK) {
            return status;
        }
        if (found > 0.0 && factor > 0.0 && (found < factor || found > factor)) {
            return mq_fail_file(err, MQ_ERR_INPUT, file,
                                "partial_rotary_factor is there twice, as %g and as %g", found,
                                factor);
        }
        found = factor > 0.0 ? factor : found;
    }
    *out = found > 0.0 ? found : 1.0;
    return MQ_OK;
}

/* transformers would round an odd number up; no model has one. */
static mq_status parse_rotary_part(mq_config *config, const cJSON *json, const char *file,
                                   mq_error *err) {
    double factor = 1.0;
    if (!config->arch->partial_rotary) {
        return MQ_OK; /* a factor that is not 1 is refused where it stands */
    }
    const mq_status status = find_rotary_factor(&factor, json, file, err);
    const size_t rotated = (size_t)((double)config->head_dim * factor);
    if (status == MQ_OK && (rotated == 0 || rotated % 2 != 0)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "partial_rotary_factor %g of head_dim %zu is %zu: that many numbers of "
                            "a head cannot be rotated in pairs",
                            factor, config->head_dim, rotated);
    }
    config->unrotated_dim = config->head_dim - rotated;
    return status;
}

/* --- which layers ----------------------------------------------------------------------------- */

static mq_status read_no_rope_layers(mq_config *config, const cJSON *list, const char *file,
                                     mq_error *err) {
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != config->num_hidden_layers) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "no_rope_layers is not a list of num_hidden_layers (%zu) numbers",
                            config->num_hidden_layers);
    }
    size_t layer = 0;
    for (const cJSON *item = list->child; item != NULL; item = item->next, layer++) {
        const double rotates = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
        if (rotates == 0.0) {
            config->layer_rotation[layer] = MQ_ROTATION_NONE;
        } else if (rotates != 1.0) {
            return mq_fail_file(err, MQ_ERR_INPUT, file,
                                "no_rope_layers[%zu] is neither 1 nor 0 (that layer does not "
                                "rotate)",
                                layer);
        }
    }
    return MQ_OK;
}

/* Every interval-th layer does not rotate. */
static mq_status read_no_rope_interval(mq_config *config, const cJSON *json, const char *file,
                                       mq_error *err) {
    size_t interval = config->arch->default_no_rope_layer_interval;
    mq_status status =
        mq_json_get_size(&interval, json, "no_rope_layer_interval", false, file, err);
    if (status == MQ_OK && interval == 0) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file, "no_rope_layer_interval is 0");
    }
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        if ((layer + 1) % interval == 0) {
            config->layer_rotation[layer] = MQ_ROTATION_NONE;
        }
    }
    return status;
}

/* transformers writes its default interval even beside a list that says something else: the list
 * decides. */
mq_status mq_config_parse_rotations(mq_config *config, const cJSON *json, const char *file,
                                    mq_error *err) {
    const mq_arch *arch = config->arch;
    mq_status status = mq_new(&config->layer_rotation, config->num_hidden_layers,
                              sizeof *config->layer_rotation, "the layers' rotations", err);
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        config->layer_rotation[layer] = arch->local_rope && config->layer_is_local[layer]
                                            ? MQ_ROTATION_LOCAL
                                            : MQ_ROTATION_GLOBAL;
    }
    if (status == MQ_OK) {
        status = parse_rotary_part(config, json, file, err);
    }
    if (status != MQ_OK || !arch->no_rope) {
        return status;
    }
    const cJSON *list = mq_config_member(json, "no_rope_layers");
    return list != NULL ? read_no_rope_layers(config, list, file, err)
                        : read_no_rope_interval(config, json, file, err);
}
