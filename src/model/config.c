#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/config_parts.h"

/* Bounded so that a hostile file cannot make us allocate by the gigabyte. */
static const size_t max_layers = 100000;

/* Models with images or sound. Encoders with decoders are named so, too, but say that they are. */
static bool reads_more_than_text(const char *name, const cJSON *json) {
    return mq_ends_with(name, "ForConditionalGeneration") &&
           !cJSON_IsTrue(mq_config_member(json, "is_encoder_decoder"));
}

static mq_status unknown_architecture(const char *name, const cJSON *json, const char *file,
                                      mq_error *err) {
    char known[512] = "";
    size_t count, used = 0;
    const mq_arch *rows = mq_arch_table(&count);
    for (size_t i = 0; i < count && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ",
                                 rows[i].architecture);
    }
    return mq_fail_file(err, MQ_ERR_INPUT, file, "unknown architecture \"%.100s\" (known: %s)%s",
                        name, known,
                        reads_more_than_text(name, json)
                            ? "; of other models with images or sound only the language model can "
                              "be read, saved by itself as a ...ForCausalLM, and only if it is one "
                              "of these"
                            : "");
}

static const mq_arch *find_model_type(const char *model_type) {
    size_t count;
    const mq_arch *rows = mq_arch_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].model_type, model_type) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static mq_status parse_arch(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    const cJSON *list = mq_config_member(json, "architectures");
    const char *model_type = NULL;
    mq_status status = mq_json_get_string(&model_type, json, "model_type", list == NULL, file, err);
    if (status != MQ_OK) {
        return status;
    }
    if (list == NULL) {
        out->arch = find_model_type(model_type);
        return out->arch != NULL ? MQ_OK : unknown_architecture(model_type, json, file, err);
    }
    const cJSON *first = cJSON_IsArray(list) ? list->child : NULL;
    if (first == NULL || first->next != NULL || !cJSON_IsString(first)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "architectures is not a list of one name");
    }
    out->arch = mq_arch_find(first->valuestring);
    if (out->arch == NULL) {
        return unknown_architecture(first->valuestring, json, file, err);
    }
    if (model_type != NULL && strcmp(model_type, out->arch->model_type) != 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "model_type \"%.100s\" contradicts architectures (%s is \"%s\")",
                            model_type, out->arch->architecture, out->arch->model_type);
    }
    return MQ_OK;
}

/* A size in 1 … max; when absent and not required, *out stays. */
static mq_status get_dimension(size_t *out, const cJSON *json, const char *key, bool required,
                               size_t max, const char *file, mq_error *err) {
    mq_status status = mq_json_get_size(out, json, key, required, file, err);
    if (status == MQ_OK && (*out == 0 || *out > max)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "%s is %zu, not between 1 and %zu", key, *out,
                            max);
    }
    return status;
}

static mq_status parse_heads(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    out->num_key_value_heads = out->arch->default_num_key_value_heads;
    out->head_dim = out->arch->default_head_dim;
    /* transformers takes null, which some files have, for as many as there are query heads, and a
     * missing member for its own default. */
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, "num_key_value_heads");
    if (out->num_key_value_heads == 0 || cJSON_IsNull(member)) {
        out->num_key_value_heads = out->num_attention_heads;
    }
    mq_status status = get_dimension(&out->num_key_value_heads, json, "num_key_value_heads", false,
                                     MQ_MAX_DIMENSION, file, err);
    if (status != MQ_OK) {
        return status;
    }
    if (out->num_attention_heads % out->num_key_value_heads != 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "num_attention_heads %zu is not a multiple of num_key_value_heads %zu",
                            out->num_attention_heads, out->num_key_value_heads);
    }
    if (out->head_dim == 0 && mq_config_member(json, "head_dim") == NULL) {
        if (out->hidden_size % out->num_attention_heads != 0) {
            return mq_fail_file(err, MQ_ERR_INPUT, file,
                                "hidden_size %zu is not a multiple of num_attention_heads %zu, and "
                                "there is no head_dim",
                                out->hidden_size, out->num_attention_heads);
        }
        out->head_dim = out->hidden_size / out->num_attention_heads;
    }
    status = get_dimension(&out->head_dim, json, "head_dim", false, MQ_MAX_DIMENSION, file, err);
    if (status == MQ_OK && out->head_dim % 2 != 0) {
        status =
            mq_fail_file(err, MQ_ERR_INPUT, file,
                         "head_dim %zu is odd: a head cannot be rotated in pairs", out->head_dim);
    }
    return status;
}

static mq_status parse_sizes(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    const mq_arch *arch = out->arch;
    const struct {
        const char *key;
        size_t *value, by_default, max; /* by_default 0: it must be there */
    } sizes[] = {
        {"hidden_size", &out->hidden_size, 0, MQ_MAX_DIMENSION},
        {"intermediate_size", &out->intermediate_size, 0, MQ_MAX_DIMENSION},
        {"num_hidden_layers", &out->num_hidden_layers, 0, max_layers},
        {"num_attention_heads", &out->num_attention_heads, arch->default_num_attention_heads,
         MQ_MAX_DIMENSION},
        {"vocab_size", &out->vocab_size, arch->default_vocab_size, MQ_MAX_DIMENSION},
        {"max_position_embeddings", &out->max_position_embeddings,
         arch->default_max_position_embeddings, MQ_MAX_DIMENSION},
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].value = sizes[i].by_default;
        status = get_dimension(sizes[i].value, json, sizes[i].key, sizes[i].by_default == 0,
                               sizes[i].max, file, err);
    }
    return status == MQ_OK ? parse_heads(out, json, file, err) : status;
}

/* Every matrix of the model must fit in an address space as float32. */
static bool matrix_fits(size_t rows, size_t columns) {
    size_t bytes;
    return mq_mul3_size(&bytes, rows, columns, sizeof(float)) && bytes <= PTRDIFF_MAX;
}

static mq_status check_products(const mq_config *config, const char *file, mq_error *err) {
    size_t heads;
    if (!mq_mul_size(&heads, config->num_attention_heads, config->head_dim) ||
        heads > MQ_MAX_DIMENSION) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "num_attention_heads times head_dim is too large");
    }
    for (int linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        size_t rows, columns;
        mq_config_linear_shape(&rows, &columns, config, (mq_linear)linear);
        rows = mq_config_linear_place(config, (mq_linear)linear).rows;
        if (rows > MQ_MAX_DIMENSION || !matrix_fits(rows, columns)) {
            return mq_fail_file(err, MQ_ERR_INPUT, file, "%s would have %zu x %zu weights",
                                config->arch->linear[linear], rows, columns);
        }
    }
    if (!matrix_fits(config->vocab_size, config->hidden_size)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "vocab_size times hidden_size is too large");
    }
    return MQ_OK;
}

static mq_status parse_layer_types(mq_config *out, const cJSON *list, const char *file,
                                   mq_error *err) {
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != out->num_hidden_layers) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "layer_types is not a list of num_hidden_layers (%zu) names",
                            out->num_hidden_layers);
    }
    size_t layer = 0;
    for (const cJSON *item = list->child; item != NULL; item = item->next, layer++) {
        const char *name = cJSON_IsString(item) ? item->valuestring : "";
        out->layer_is_local[layer] = strcmp(name, "sliding_attention") == 0;
        if (!out->layer_is_local[layer] && strcmp(name, "full_attention") != 0) {
            return mq_fail_file(err, MQ_ERR_INPUT, file,
                                "layer_types[%zu] \"%.100s\" is not supported (full_attention and "
                                "sliding_attention are)",
                                layer, name);
        }
    }
    return MQ_OK;
}

/* Every pattern-th layer is global. transformers writes the pattern back as
 * _sliding_window_pattern, but does not read that: where layer_types does not decide, the two must
 * not differ. */
static mq_status parse_window_pattern(mq_config *out, const cJSON *json, const char *file,
                                      mq_error *err) {
    size_t pattern = out->arch->default_sliding_window_pattern;
    mq_status status =
        get_dimension(&pattern, json, "sliding_window_pattern", false, MQ_MAX_DIMENSION, file, err);
    size_t written_back = pattern;
    if (status == MQ_OK) {
        status = get_dimension(&written_back, json, "_sliding_window_pattern", false,
                               MQ_MAX_DIMENSION, file, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    if (written_back != pattern) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "_sliding_window_pattern %zu contradicts sliding_window_pattern %zu, "
                            "and there are no layer_types",
                            written_back, pattern);
    }
    for (size_t layer = 0; layer < out->num_hidden_layers; layer++) {
        out->layer_is_local[layer] = (layer + 1) % pattern != 0;
    }
    return MQ_OK;
}

size_t mq_config_window_pattern(const mq_config *config) {
    size_t pattern = 1;
    while (pattern <= config->num_hidden_layers && config->layer_is_local[pattern - 1]) {
        pattern++;
    }
    bool fits = true;
    for (size_t i = 0; fits && i < config->num_hidden_layers; i++) {
        fits = config->layer_is_local[i] == ((i + 1) % pattern != 0);
    }
    return fits ? pattern : 0;
}

static bool any_local(const mq_config *config) {
    bool any = false;
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        any = any || config->layer_is_local[layer];
    }
    return any;
}

/* In a family whose windows are not a layer's own, layer_types may only say that there are none.
 * (transformers' Mistral does not look there: sliding_window decides.) */
static mq_status check_no_windows(const mq_config *config, bool all, const char *file,
                                  mq_error *err) {
    if (any_local(config)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "layer_types has sliding_attention, which is not supported for %s",
                            config->arch->architecture);
    }
    return all ? mq_fail_file(err, MQ_ERR_INPUT, file,
                              "layer_types has only full_attention, but %s goes by sliding_window "
                              "(%zu if absent); set it to null if there are no windows",
                              config->arch->architecture, config->arch->default_sliding_window)
               : MQ_OK;
}

/* Which layers have a window, from layer_types or, where the family has one, a pattern; else all
 * or none. */
static mq_status parse_local_layers(mq_config *out, const cJSON *json, bool all, const char *file,
                                    mq_error *err) {
    const bool some = out->arch->windows == MQ_WINDOWS_SOME;
    const cJSON *layer_types = mq_config_member(json, "layer_types");
    if (layer_types == NULL && some) {
        return parse_window_pattern(out, json, file, err);
    }
    if (layer_types == NULL) {
        for (size_t layer = 0; layer < out->num_hidden_layers; layer++) {
            out->layer_is_local[layer] = all;
        }
        return MQ_OK;
    }
    const mq_status status = parse_layer_types(out, layer_types, file, err);
    return status == MQ_OK && !some ? check_no_windows(out, all, file, err) : status;
}

/* sliding_window_size, which the first Gemma 2 files have beside it, must be the same. */
static mq_status get_window(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    out->sliding_window = out->arch->default_sliding_window;
    mq_status status = get_dimension(&out->sliding_window, json, "sliding_window", false,
                                     MQ_MAX_DIMENSION, file, err);
    size_t beside = out->sliding_window;
    if (status == MQ_OK) {
        status =
            get_dimension(&beside, json, "sliding_window_size", false, MQ_MAX_DIMENSION, file, err);
    }
    return status == MQ_OK && beside != out->sliding_window
               ? mq_fail_file(err, MQ_ERR_INPUT, file,
                              "sliding_window_size %zu contradicts sliding_window %zu, which %s "
                              "goes by",
                              beside, out->sliding_window, out->arch->architecture)
               : status;
}

static mq_status parse_windows(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    mq_status status =
        mq_new(&out->layer_is_local, out->num_hidden_layers, sizeof(bool), "the layer types", err);
    if (status != MQ_OK) {
        return status;
    }
    const cJSON *window = cJSON_GetObjectItemCaseSensitive(json, "sliding_window");
    const bool given =
        window != NULL ? !cJSON_IsNull(window) : out->arch->default_sliding_window > 0;
    const bool all = out->arch->windows == MQ_WINDOWS_ALL && given;
    status = parse_local_layers(out, json, all, file, err);
    if (status != MQ_OK || !any_local(out)) {
        return status;
    }
    if (cJSON_IsNull(window)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "sliding_window is null, but there are local layers");
    }
    return get_window(out, json, file, err);
}

static mq_status parse_text(mq_config *out, const cJSON *text, const char *file, mq_error *err) {
    static mq_status (*const parts[])(mq_config *, const cJSON *, const char *, mq_error *) = {
        parse_sizes,   mq_config_parse_activation, mq_config_parse_numbers,
        parse_windows, mq_config_parse_rotations,  mq_config_parse_rope,
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof parts / sizeof parts[0]; i++) {
        status = parts[i](out, text, file, err);
    }
    if (status == MQ_OK) {
        status = check_products(out, file, err);
    }
    return mq_config_in_text(err, status, out->arch);
}

static mq_status parse(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    if (!cJSON_IsObject(json)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "not a JSON object");
    }
    const cJSON *text = NULL;
    mq_status status = parse_arch(out, json, file, err);
    if (status == MQ_OK) {
        status = mq_config_find_text(&text, out->arch, json, file, err);
    }
    if (status == MQ_OK) {
        status = mq_config_check_fields(out->arch, json, text, file, err);
    }
    if (status == MQ_OK) {
        status = parse_text(out, text, file, err);
    }
    return status == MQ_OK ? mq_config_parse_beside(out, json, text, file, err) : status;
}

mq_status mq_config_parse(mq_config *out, const cJSON *json, const char *file, mq_error *err) {
    memset(out, 0, sizeof *out);
    mq_status status = parse(out, json, file, err);
    if (status != MQ_OK) {
        mq_config_free(out);
    }
    return status;
}

static mq_status refuse_quantized(const cJSON *json, const char *file, mq_error *err) {
    static const char *const keys[] = {"quantization_config", "quantization"};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, keys[i]);
        if (item == NULL || cJSON_IsNull(item)) {
            continue;
        }
        const cJSON *method = cJSON_GetObjectItemCaseSensitive(item, "quant_method");
        return mq_fail_file(err, MQ_ERR_INPUT, file, "the model is already quantized (%s %.100s)",
                            cJSON_IsString(method) ? "quant_method" : "it has the field",
                            cJSON_IsString(method) ? method->valuestring : keys[i]);
    }
    return MQ_OK;
}

static mq_status read_folder(mq_config *out, const char *folder, bool plain, mq_error *err) {
    memset(out, 0, sizeof *out);
    char *path = mq_path_join(folder, "config.json");
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    cJSON *json = NULL;
    mq_status status = mq_json_read(&json, path, err);
    if (status == MQ_OK && plain) {
        status = refuse_quantized(json, path, err);
    }
    if (status == MQ_OK) {
        status = mq_config_parse(out, json, path, err);
    }
    cJSON_Delete(json);
    mq_free(path);
    return status;
}

mq_status mq_config_read(mq_config *out, const char *folder, mq_error *err) {
    return read_folder(out, folder, false, err);
}

mq_status mq_config_read_plain(mq_config *out, const char *folder, mq_error *err) {
    return read_folder(out, folder, true, err);
}

void mq_config_free(mq_config *config) {
    mq_free(config->layer_is_local);
    mq_free(config->layer_rotation);
    mq_free(config->rope[0].short_factor); /* rope[1] has the same, or none */
    config->layer_is_local = NULL;
    config->layer_rotation = NULL;
    for (size_t i = 0; i < 2; i++) {
        config->rope[i].short_factor = config->rope[i].long_factor = NULL;
        config->rope[i].factor_count = 0;
    }
}
