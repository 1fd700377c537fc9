/* Rotary settings of config.json, in either spelling, or in both if they say the same:
 *   transformers 4: rope_theta, rope_scaling (object or null), and for families whose local
 * layers have a base of their own rope_local_base_freq; transformers 5: rope_parameters, one
 * object, or for such families one a layer type. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/config_parts.h"

/* What stands beside the objects. */
typedef struct rope_beside {
    double theta[2];        /* bases of global and of local layers */
    size_t original_length; /* longrope's */
} rope_beside;

typedef struct rope_source {
    mq_rope *rope;
    const cJSON *object; /* NULL: no scaling */
    const char *name;    /* of the object, for messages */
    const rope_beside *beside;
    const mq_config *config;
    const char *file;
    mq_error *err;
} rope_source;

static const struct {
    const char *name;
    mq_rope_type type;
    const char *keys[8]; /* that this type reads, beyond those of every type */
} rope_types[] = {
    {"default", MQ_ROPE_NONE, {"factor", "original_max_position_embeddings", NULL}},
    {"linear", MQ_ROPE_LINEAR, {"factor", "original_max_position_embeddings", NULL}},
    {"dynamic", MQ_ROPE_DYNAMIC, {"factor", "original_max_position_embeddings", NULL}},
    {"llama3",
     MQ_ROPE_LLAMA3,
     {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", NULL}},
    {"yarn",
     MQ_ROPE_YARN,
     {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
      "mscale", "mscale_all_dim", "truncate"}},
    {"longrope",
     MQ_ROPE_LONGROPE,
     {"factor", "original_max_position_embeddings", "attention_factor", "short_factor",
      "long_factor", NULL}},
};
#define ROPE_TYPE_COUNT (sizeof rope_types / sizeof rope_types[0])

/* "finetuned" is written by YaRN's authors and read by nobody. */
static const char *const common_keys[] = {"rope_type", "type", "rope_theta",
                                          "partial_rotary_factor", "finetuned"};

static mq_status fail_key(const rope_source *source, const char *key, const char *what) {
    return mq_fail_file(source->err, MQ_ERR_INPUT, source->file, "%s.%s %s", source->name, key,
                        what);
}

/* A finite number, or *out unchanged when there is none. */
static mq_status get_number(double *out, const rope_source *source, const char *key) {
    const cJSON *item = mq_config_member(source->object, key);
    if (item == NULL) {
        return MQ_OK;
    }
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble)) {
        return fail_key(source, key, "is not a number");
    }
    *out = item->valuedouble;
    return MQ_OK;
}

/* Phi-3's first files say "su": transformers takes that, and "yarn", for longrope in a family that
 * has it, and may leave it in "type" where it writes "rope_type" beside it. */
static const char *name_of(const cJSON *type, const mq_arch *arch) {
    const char *name = type->valuestring;
    const bool older = strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0;
    return arch->longrope && older ? "longrope" : name;
}

static mq_status get_type(size_t *out, const rope_source *source) {
    const cJSON *type = mq_config_member(source->object, "rope_type");
    const cJSON *old = mq_config_member(source->object, "type");
    if (type == NULL) {
        type = old;
    }
    *out = 0;
    if (type == NULL) {
        return MQ_OK;
    }
    if (!cJSON_IsString(type) || (old != NULL && !cJSON_IsString(old))) {
        return fail_key(source, "rope_type", "is not a string");
    }
    const mq_arch *arch = source->config->arch;
    const char *name = name_of(type, arch);
    if (old != NULL && strcmp(name, name_of(old, arch)) != 0) {
        return fail_key(source, "type", "contradicts rope_type");
    }
    for (size_t i = 0; i < ROPE_TYPE_COUNT; i++) {
        const bool fits = rope_types[i].type == MQ_ROPE_NONE ||
                          (rope_types[i].type == MQ_ROPE_LONGROPE) == arch->longrope;
        if (fits && strcmp(rope_types[i].name, name) == 0) {
            *out = i;
            return MQ_OK;
        }
    }
    return mq_fail_file(
        source->err, MQ_ERR_INPUT, source->file, "%s.rope_type \"%s\" is not supported (%s are)",
        source->name, type->valuestring,
        arch->longrope ? "default and longrope" : "default, linear, dynamic, llama3 and yarn");
}

static bool is_known_key(size_t type, const char *key) {
    for (size_t i = 0; i < sizeof common_keys / sizeof common_keys[0]; i++) {
        if (strcmp(common_keys[i], key) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < 8 && rope_types[type].keys[i] != NULL; i++) {
        if (strcmp(rope_types[type].keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static mq_status check_keys(const rope_source *source, size_t type) {
    for (const cJSON *item = source->object->child; item != NULL; item = item->next) {
        if (cJSON_GetObjectItemCaseSensitive(source->object, item->string) != item) {
            return fail_key(source, item->string, "is there twice");
        }
        if (!cJSON_IsNull(item) && !is_known_key(type, item->string)) {
            return mq_fail_file(source->err, MQ_ERR_INPUT, source->file,
                                "%s.%s is not supported with rope_type \"%s\"", source->name,
                                item->string, rope_types[type].name);
        }
    }
    double rotated = 1.0;
    if (!source->config->arch->partial_rotary &&
        (get_number(&rotated, source, "partial_rotary_factor") != MQ_OK || rotated != 1.0)) {
        return fail_key(source, "partial_rotary_factor",
                        "has a value that is not supported (only 1 is)");
    }
    return MQ_OK;
}

/* factor >= 1; without one, *out is left when that is allowed. */
static mq_status get_factor(const rope_source *source, bool required) {
    const bool given = mq_config_member(source->object, "factor") != NULL;
    if (required && !given) {
        return fail_key(source, "factor", "is missing");
    }
    mq_status status = get_number(&source->rope->factor, source, "factor");
    if (status == MQ_OK && given && !(source->rope->factor >= 1.0)) {
        return fail_key(source, "factor", "must be at least 1");
    }
    return status;
}

/* transformers reads neither of the two here. An original length alone scales nothing, but a factor
 * looks as if something were meant to be scaled. */
static mq_status read_default(const rope_source *source) {
    double factor = 1.0;
    if (get_number(&factor, source, "factor") != MQ_OK || factor != 1.0) {
        return fail_key(source, "factor",
                        "has a value that is not supported with rope_type \"default\" (only 1 is)");
    }
    return MQ_OK;
}

static mq_status get_original_length(const rope_source *source) {
    size_t length = source->config->max_position_embeddings;
    mq_status status = mq_json_get_size(&length, source->object, "original_max_position_embeddings",
                                        false, source->file, source->err);
    if (status != MQ_OK) {
        return status;
    }
    if (length == 0 || length > MQ_MAX_DIMENSION) {
        return fail_key(source, "original_max_position_embeddings",
                        "must be between 1 and 2147483647");
    }
    source->rope->original_max_position_embeddings = length;
    return MQ_OK;
}

static mq_status read_dynamic(const rope_source *source) {
    mq_status status = get_factor(source, true);
    if (status == MQ_OK) {
        status = get_original_length(source);
    }
    if (status != MQ_OK) {
        return status;
    }
    /* transformers scales by max_position_embeddings and does not look at this field. */
    if (source->rope->original_max_position_embeddings != source->config->max_position_embeddings) {
        return fail_key(source, "original_max_position_embeddings",
                        "contradicts max_position_embeddings");
    }
    if (mq_config_rotary_dim(source->config) <= 2) {
        return fail_key(source, "rope_type", "\"dynamic\" needs a head_dim above 2");
    }
    return MQ_OK;
}

static mq_status read_llama3(const rope_source *source) {
    mq_rope *rope = source->rope;
    mq_status status = get_factor(source, true);
    if (status == MQ_OK) {
        status = get_number(&rope->low_freq_factor, source, "low_freq_factor");
    }
    if (status == MQ_OK) {
        status = get_number(&rope->high_freq_factor, source, "high_freq_factor");
    }
    if (status == MQ_OK) {
        status = get_original_length(source);
    }
    if (status != MQ_OK) {
        return status;
    }
    if (!(rope->low_freq_factor > 0.0)) {
        return fail_key(source, "low_freq_factor", "is missing or not positive");
    }
    if (!(rope->high_freq_factor > rope->low_freq_factor)) {
        return fail_key(source, "high_freq_factor", "is missing or not above low_freq_factor");
    }
    return MQ_OK;
}

static mq_status read_yarn(const rope_source *source) {
    static const char *const positive[] = {"attention_factor", "beta_fast", "beta_slow", "mscale",
                                           "mscale_all_dim"};
    mq_rope *rope = source->rope;
    double *const values[] = {&rope->attention_factor, &rope->beta_fast, &rope->beta_slow,
                              &rope->mscale, &rope->mscale_all_dim};
    mq_status status = get_factor(source, false);
    if (status == MQ_OK) {
        status = get_original_length(source);
    }
    if (status == MQ_OK) {
        status = mq_json_get_bool(&rope->truncate, source->object, "truncate", false, source->file,
                                  source->err);
    }
    for (size_t i = 0; status == MQ_OK && i < sizeof positive / sizeof positive[0]; i++) {
        status = get_number(values[i], source, positive[i]);
        if (status == MQ_OK && mq_config_member(source->object, positive[i]) != NULL &&
            !(*values[i] >= 0.0)) {
            status = fail_key(source, positive[i], "must not be negative");
        }
    }
    if (status != MQ_OK) {
        return status;
    }
    if (mq_config_member(source->object, "factor") == NULL) {
        rope->factor = (double)source->config->max_position_embeddings /
                       (double)rope->original_max_position_embeddings;
    }
    /* As transformers' `value or default`. */
    rope->beta_fast = rope->beta_fast == 0.0 ? 32.0 : rope->beta_fast;
    rope->beta_slow = rope->beta_slow == 0.0 ? 1.0 : rope->beta_slow;
    if (!(rope->rope_theta > 1.0)) {
        return fail_key(source, "rope_theta", "must be above 1 with rope_type \"yarn\"");
    }
    return MQ_OK;
}

/* One of the two lists of longrope: a divisor of each frequency. */
static mq_status read_factors(double *out, const rope_source *source, const char *key) {
    const cJSON *list = mq_config_member(source->object, key);
    const size_t count = mq_config_rotary_dim(source->config) / 2;
    bool good = cJSON_IsArray(list) && (size_t)cJSON_GetArraySize(list) == count;
    size_t at = 0;
    for (const cJSON *item = good ? list->child : NULL; item != NULL; item = item->next) {
        good =
            good && cJSON_IsNumber(item) && isfinite(item->valuedouble) && item->valuedouble > 0.0;
        out[at++] = item->valuedouble;
    }
    return good
               ? MQ_OK
               : mq_fail_file(source->err, MQ_ERR_INPUT, source->file,
                              "%s.%s is not a list of %zu positive numbers, one for each pair that "
                              "rotates",
                              source->name, key, count);
}

/* transformers goes by the field beside the object, or by its default, whatever the object says. */
static mq_status get_longrope_length(const rope_source *source) {
    static const char key[] = "original_max_position_embeddings";
    const size_t length = source->beside->original_length;
    size_t here = length;
    mq_status status =
        mq_json_get_size(&here, source->object, key, false, source->file, source->err);
    if (status == MQ_OK && here != length) {
        status =
            mq_fail_file(source->err, MQ_ERR_INPUT, source->file,
                         "%s.%s %zu contradicts the field of that name beside %s, which is %zu",
                         source->name, key, here, source->name, length);
    }
    if (status == MQ_OK && (length < 2 || length > MQ_MAX_DIMENSION)) {
        status = mq_fail_file(source->err, MQ_ERR_INPUT, source->file,
                              "%s must be between 2 and 2147483647", key);
    }
    source->rope->original_max_position_embeddings = length;
    return status;
}

static mq_status read_longrope(const rope_source *source) {
    mq_rope *rope = source->rope;
    const size_t count = mq_config_rotary_dim(source->config) / 2;
    mq_status status = get_factor(source, false);
    if (status == MQ_OK) {
        status = get_number(&rope->attention_factor, source, "attention_factor");
    }
    if (status == MQ_OK && mq_config_member(source->object, "attention_factor") != NULL &&
        !(rope->attention_factor >= 0.0)) {
        status = fail_key(source, "attention_factor", "must not be negative");
    }
    if (status == MQ_OK) {
        status = get_longrope_length(source);
    }
    if (status == MQ_OK) {
        status = mq_new(&rope->short_factor, 2 * count, sizeof *rope->short_factor,
                        "the factors of longrope", source->err);
    }
    if (status == MQ_OK) {
        rope->long_factor = rope->short_factor + count;
        rope->factor_count = count;
        status = read_factors(rope->short_factor, source, "short_factor");
    }
    if (status == MQ_OK) {
        status = read_factors(rope->long_factor, source, "long_factor");
    }
    if (status == MQ_OK && mq_config_member(source->object, "factor") == NULL) {
        rope->factor = (double)source->config->max_position_embeddings /
                       (double)rope->original_max_position_embeddings;
    }
    return status;
}

/* Reads source->object into source->rope, which holds the defaults. */
static mq_status read_rope(const rope_source *source) {
    mq_rope *rope = source->rope;
    size_t type = 0;
    if (source->object != NULL) {
        if (!cJSON_IsObject(source->object)) {
            return mq_fail_file(source->err, MQ_ERR_INPUT, source->file, "%s is not an object",
                                source->name);
        }
        mq_status status = get_type(&type, source);
        if (status == MQ_OK) {
            status = check_keys(source, type);
        }
        if (status == MQ_OK) {
            status = get_number(&rope->rope_theta, source, "rope_theta");
        }
        if (status != MQ_OK) {
            return status;
        }
    }
    if (!(rope->rope_theta > 0.0) || !isfinite(rope->rope_theta)) {
        return mq_fail_file(source->err, MQ_ERR_INPUT, source->file, "%s must be positive",
                            rope == &source->config->rope[0] ? "rope_theta"
                                                             : "rope_local_base_freq");
    }
    rope->type = rope_types[type].type;
    switch (rope->type) {
    case MQ_ROPE_LINEAR:
        return get_factor(source, true);
    case MQ_ROPE_DYNAMIC:
        return read_dynamic(source);
    case MQ_ROPE_LLAMA3:
        return read_llama3(source);
    case MQ_ROPE_YARN:
        return read_yarn(source);
    case MQ_ROPE_LONGROPE:
        return read_longrope(source);
    default:
        return read_default(source);
    }
}

static mq_rope default_rope(double theta) {
    return (mq_rope){
        .type = MQ_ROPE_NONE,
        .rope_theta = theta,
        .factor = 1.0,
        .attention_factor = -1.0,
        .truncate = true,
    };
}

/* The two objects of a family with layer types; rope_parameters may hold nothing else. */
static mq_status split_layer_types(const cJSON *objects[2], const cJSON *parameters,
                                   const char *file, mq_error *err) {
    if (!cJSON_IsObject(parameters)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "rope_parameters is not an object");
    }
    for (const cJSON *item = parameters->child; item != NULL; item = item->next) {
        if (!cJSON_IsNull(item) && strcmp(item->string, "full_attention") != 0 &&
            strcmp(item->string, "sliding_attention") != 0) {
            return mq_fail_file(
                err, MQ_ERR_INPUT, file,
                "rope_parameters.%s is not supported (full_attention and sliding_attention are)",
                item->string);
        }
    }
    objects[0] = mq_config_member(parameters, "full_attention");
    objects[1] = mq_config_member(parameters, "sliding_attention");
    return MQ_OK;
}

/* Fills config->rope as one spelling says: rope_parameters if is_new, else rope_scaling, which is
 * for global layers only. object NULL: no scaling. */
static mq_status read_spelling(mq_config *config, const cJSON *object, bool is_new,
                               const rope_beside *beside, const char *file, mq_error *err) {
    const bool layered = config->arch->local_rope;
    const cJSON *objects[2] = {object, NULL};
    const char *names[2] = {is_new ? "rope_parameters" : "rope_scaling", ""};
    if (layered && is_new) {
        const mq_status status = split_layer_types(objects, object, file, err);
        if (status != MQ_OK) {
            return status;
        }
        names[0] = "rope_parameters.full_attention";
        names[1] = "rope_parameters.sliding_attention";
    }
    for (size_t i = 0; i < 2; i++) {
        config->rope[i] = default_rope(beside->theta[i]);
    }
    for (size_t i = 0; i < (layered ? 2u : 1u); i++) {
        const rope_source source = {&config->rope[i], objects[i], names[i], beside,
                                    config,           file,       err};
        const mq_status status = read_rope(&source);
        if (status != MQ_OK) {
            return status;
        }
    }
    if (!layered) {
        config->rope[1] = config->rope[0];
    }
    return MQ_OK;
}

/* Where both spellings are there, transformers goes by rope_scaling, and Gemma 3 by a mixture. */
static mq_status read_both(mq_config *config, const cJSON *scaling, const cJSON *parameters,
                           const rope_beside *beside, const char *file, mq_error *err) {
    mq_status status = read_spelling(config, parameters, true, beside, file, err);
    if (status != MQ_OK) {
        return status;
    }
    const mq_rope newer[2] = {config->rope[0], config->rope[1]};
    status = read_spelling(config, scaling, false, beside, file, err);
    if (status == MQ_OK &&
        !(mq_rope_same(&newer[0], &config->rope[0]) && mq_rope_same(&newer[1], &config->rope[1]))) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file,
                              "rope_scaling and rope_parameters contradict each other");
    }
    mq_free(newer[0].short_factor);
    return status;
}

static mq_status read_beside(rope_beside *out, const mq_arch *arch, const cJSON *json,
                             const char *file, mq_error *err) {
    *out = (rope_beside){
        .theta = {arch->default_rope_theta, arch->default_rope_local_base_freq},
        .original_length = arch->default_original_max_position_embeddings,
    };
    mq_status status = mq_json_get_double(&out->theta[0], json, "rope_theta", false, file, err);
    if (status == MQ_OK && arch->local_rope) {
        status = mq_json_get_double(&out->theta[1], json, "rope_local_base_freq", false, file, err);
    }
    if (status == MQ_OK && arch->longrope) {
        status = mq_json_get_size(&out->original_length, json, "original_max_position_embeddings",
                                  false, file, err);
    }
    return status;
}

mq_status mq_config_parse_rope(mq_config *config, const cJSON *json, const char *file,
                               mq_error *err) {
    rope_beside beside;
    const mq_status status = read_beside(&beside, config->arch, json, file, err);
    if (status != MQ_OK) {
        return status;
    }
    const cJSON *scaling = mq_config_member(json, "rope_scaling");
    const cJSON *parameters = mq_config_member(json, "rope_parameters");
    if (scaling != NULL && parameters != NULL) {
        return read_both(config, scaling, parameters, &beside, file, err);
    }
    return parameters != NULL ? read_spelling(config, parameters, true, &beside, file, err)
                              : read_spelling(config, scaling, false, &beside, file, err);
}
