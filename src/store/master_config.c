#include "store/master_config.h"

#include <stdio.h>
#include <string.h>

#include "matquant/names.h"

bool mq_serves(const mq_master_settings *settings, unsigned width) {
    for (size_t i = 0; i < settings->width_count; i++) {
        if (settings->widths[i] == width) {
            return true;
        }
    }
    return false;
}

unsigned mq_layer_min_width(const mq_master_settings *settings, const char *prefix) {
    for (size_t i = 0; i < settings->embedding_count; i++) {
        if (strcmp(settings->embedding_layers[i], prefix) == 0) {
            return settings->embedding_bits;
        }
    }
    return 0;
}

size_t mq_layer_widths(unsigned widths[7], const unsigned served[], size_t count,
                       unsigned min_width) {
    size_t stored = 0;
    for (size_t i = 0; i < count; i++) {
        const unsigned width = served[i] > min_width ? served[i] : min_width;
        if (stored == 0 || widths[stored - 1] != width) {
            widths[stored++] = width;
        }
    }
    return stored;
}

const char *mq_widths_text(char *out, size_t size, const unsigned *widths, size_t count) {
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < count && used < size; i++) {
        int length = snprintf(out + used, size - used, "%s%u", i == 0 ? "" : ", ", widths[i]);
        used += length > 0 ? (size_t)length : 0;
    }
    return out;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void put_embeddings(mq_json *json, cJSON *object, const mq_master_settings *settings) {
    if (settings->embedding_count == 0) {
        return;
    }
    cJSON *made = mq_json_put_object(json, object, "embeddings");
    mq_json_put_size(json, made, "min_bits", settings->embedding_bits);
    cJSON *layers = mq_json_put_array(json, made, "layers");
    for (size_t i = 0; i < settings->embedding_count; i++) {
        mq_json_put_text(json, layers, NULL, settings->embedding_layers[i]);
    }
}

cJSON *mq_master_settings_put(mq_json *json, cJSON *config, const mq_master_settings *settings,
                              const char *const *ignored, size_t ignored_count) {
    cJSON *object = mq_json_put_object(json, config, "quantization_config");
    mq_json_put_text(json, object, "quant_method", MQ_QUANT_METHOD);
    mq_json_put_size(json, object, "format_version", MQ_FORMAT_VERSION);
    mq_json_put_text(json, object, "slice_rule",
                     mq_name_at(mq_slice_rule_names(), settings->slice_rule));
    if (settings->zero_point != MQ_ZERO_FLOAT) {
        mq_json_put_text(json, object, "zero_point",
                         mq_name_at(mq_zero_point_names(), settings->zero_point));
    }
    mq_json_put_size(json, object, "group_size", settings->group_size);
    cJSON *widths = mq_json_put_array(json, object, "widths");
    for (size_t i = 0; i < settings->width_count; i++) {
        mq_json_put_size(json, widths, NULL, settings->widths[i]);
    }
    put_embeddings(json, object, settings);
    cJSON *names = mq_json_put_array(json, object, "ignored");
    for (size_t i = 0; i < ignored_count; i++) {
        mq_json_put_text(json, names, NULL, ignored[i]);
    }
    return object;
}

/* --- reading ---------------------------------------------------------------------------------- */

static mq_status parse_version(const cJSON *object, const char *file, mq_error *err) {
    size_t version = 0;
    mq_status status = mq_json_get_size(&version, object, "format_version", true, file, err);
    if (status != MQ_OK) {
        return status;
    }
    if (version > MQ_FORMAT_VERSION) {
        return mq_fail_file(
            err, MQ_ERR_INPUT, file,
            "format_version is %zu, this program reads up to %d: a newer matquant is needed",
            version, MQ_FORMAT_VERSION);
    }
    if (version == 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "format_version is 0, the first is 1");
    }
    return MQ_OK;
}

static mq_status parse_rule(mq_slice_rule *out, const cJSON *object, const char *file,
                            mq_error *err) {
    const char *name = NULL;
    mq_status status = mq_json_get_string(&name, object, "slice_rule", true, file, err);
    if (status != MQ_OK) {
        return status;
    }
    unsigned rule = MQ_SLICE_TOP;
    if (mq_name_find(&rule, mq_slice_rule_names(), name)) {
        *out = (mq_slice_rule)rule;
        return MQ_OK;
    }
    return mq_fail_file(err, MQ_ERR_INPUT, file,
                        "slice_rule is \"%s\", known are \"top\", \"round\" and \"round-extra\"",
                        name);
}

static mq_status parse_zero_point(mq_zero_point *out, const cJSON *object, const char *file,
                                  mq_error *err) {
    const char *name = mq_name_at(mq_zero_point_names(), MQ_ZERO_FLOAT);
    mq_status status = mq_json_get_string(&name, object, "zero_point", false, file, err);
    if (status != MQ_OK) {
        return status;
    }
    unsigned zero_point = MQ_ZERO_FLOAT;
    if (mq_name_find(&zero_point, mq_zero_point_names(), name)) {
        *out = (mq_zero_point)zero_point;
        return MQ_OK;
    }
    return mq_fail_file(err, MQ_ERR_INPUT, file,
                        "zero_point is \"%s\", known are \"float\" and \"symmetric\"", name);
}

static mq_status parse_widths(mq_master_settings *out, const cJSON *object, const char *file,
                              mq_error *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, "widths");
    if (!cJSON_IsArray(list) || list->child == NULL) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "widths is not a list of the widths served");
    }
    out->width_count = 0;
    double last = MQ_MAX_WIDTH + 1;
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        double width = cJSON_IsNumber(item) ? item->valuedouble : 0;
        if (!(width >= MQ_MIN_WIDTH && width < last) || width != (double)(unsigned)width) {
            return mq_fail_file(
                err, MQ_ERR_INPUT, file,
                "widths must be whole numbers from %d down to %d, each once and descending",
                MQ_MAX_WIDTH, MQ_MIN_WIDTH);
        }
        out->widths[out->width_count++] = (unsigned)width; /* strictly descending: at most 7 */
        last = width;
    }
    return MQ_OK;
}

static mq_status parse_embeddings(mq_master_settings *out, const cJSON *object, const char *file,
                                  mq_error *err) {
    const cJSON *embeddings = cJSON_GetObjectItemCaseSensitive(object, "embeddings");
    out->embedding_count = 0;
    out->embedding_bits = 0;
    if (embeddings == NULL) {
        return MQ_OK;
    }
    size_t bits = 0;
    mq_status status = mq_json_get_size(&bits, embeddings, "min_bits", true, file, err);
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(embeddings, "layers"), *item = NULL;
    bool good = cJSON_IsArray(layers) && bits >= MQ_MIN_WIDTH && bits <= MQ_MAX_WIDTH;
    cJSON_ArrayForEach(item, layers) {
        good = good && cJSON_IsString(item) && out->embedding_count < MQ_EMBEDDING_LAYERS;
        if (good) {
            out->embedding_layers[out->embedding_count++] = item->valuestring;
        }
    }
    if (status == MQ_OK && !good) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file,
                              "embeddings is not {\"min_bits\": %d to %d, \"layers\": at most %d "
                              "names}",
                              MQ_MIN_WIDTH, MQ_MAX_WIDTH, MQ_EMBEDDING_LAYERS);
    }
    out->embedding_bits = out->embedding_count > 0 ? (unsigned)bits : 0;
    return status;
}

static mq_status check_ignored(const cJSON *object, const char *file, mq_error *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, "ignored");
    if (list == NULL) {
        return MQ_OK;
    }
    bool good = cJSON_IsArray(list);
    for (const cJSON *item = good ? list->child : NULL; item != NULL; item = item->next) {
        good = good && cJSON_IsString(item);
    }
    return good ? MQ_OK : mq_fail_file(err, MQ_ERR_INPUT, file, "ignored is not a list of names");
}

mq_status mq_master_settings_parse(mq_master_settings *out, const cJSON *config, const char *file,
                                   mq_error *err) {
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(config, "quantization_config");
    if (!cJSON_IsObject(object)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "has no quantization_config: this is not a master checkpoint");
    }
    const char *method = NULL;
    mq_status status = mq_json_get_string(&method, object, "quant_method", true, file, err);
    if (status != MQ_OK) {
        return status;
    }
    if (strcmp(method, MQ_QUANT_METHOD) != 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "quant_method is \"%s\", not \"" MQ_QUANT_METHOD "\"", method);
    }
    if ((status = parse_version(object, file, err)) != MQ_OK ||
        (status = parse_rule(&out->slice_rule, object, file, err)) != MQ_OK ||
        (status = parse_zero_point(&out->zero_point, object, file, err)) != MQ_OK ||
        (status = mq_json_get_size(&out->group_size, object, "group_size", true, file, err)) !=
            MQ_OK ||
        (status = parse_widths(out, object, file, err)) != MQ_OK ||
        (status = parse_embeddings(out, object, file, err)) != MQ_OK) {
        return status;
    }
    return check_ignored(object, file, err);
}
