#include "store/verification.h"

#include <string.h>
#include <strings.h>

#include "matquant/inspect.h"
#include "store/folder.h"
#include "store/names.h"
#include "store/slice_size.h"

/* --- what the folder does with a tensor of the source ----------------------------------------- */

/* P is a quantized layer of the folder, [out, in]. */
static bool find_linear(size_t *out, size_t *in, const mq_verification *self, const char *prefix) {
    const mq_master_view *view = self->master == NULL ? NULL : mq_master_find(self->master, prefix);
    if (view != NULL) {
        *out = view->out;
        *in = view->in;
        return true;
    }
    const mq_slice_view *sliced =
        self->slice == NULL ? NULL : mq_slice_reader_find(self->slice, prefix);
    if (sliced != NULL) {
        *out = sliced->out;
        *in = sliced->in;
    }
    return sliced != NULL;
}

static mq_role role_of(const mq_verification *self, const mq_tensor_info *info) {
    return self->master != NULL ? mq_master_role(NULL, self->master, info)
                                : mq_slice_reader_role(self->slice, info);
}

/* P is a layer that a reader must reject: the tensor that names it is there, and was counted when
 * it was read. */
static bool is_rejected(const mq_verification *self, const char *prefix) {
    char name[MQ_STORED_NAME_SIZE];
    const char *part = self->master != NULL ? "codes" : "scales";
    const mq_tensor_info *info =
        mq_tensors_find(self->tensors, mq_name_make(name, prefix, part, 0));
    return info != NULL && role_of(self, info) == MQ_ROLE_REJECTED;
}

/* A slice says in matquant.json which of its tensors were private to its width: those may differ
 * from the source's. */
static bool was_private(const mq_verification *self, const char *name) {
    const cJSON *slice = mq_provenance_slice(self->provenance);
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(slice, "private"), *item = NULL;
    cJSON_ArrayForEach(item, names) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0) {
            return true;
        }
    }
    return false;
}

static mq_status note(const mq_verification *self, const mq_error *problem, mq_error *err) {
    return problem->status == MQ_OK ? MQ_OK : mq_problem(self->problems, problem, err);
}

/* The element type that a slice's plain weights were converted to, as matquant.json says it; NULL:
 * they are the source's bytes. */
static const char *converted_to(const mq_verification *self) {
    const cJSON *slice = mq_provenance_slice(self->provenance);
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(slice, "dtype"));
}

static bool is_converted(const mq_verification *self, const mq_tensor_info *ours,
                         const mq_tensor_info *theirs) {
    const char *dtype = converted_to(self);
    return dtype != NULL && strcasecmp(dtype, mq_dtype_name(ours->dtype)) == 0 &&
           mq_dtype_is_weight(ours->dtype) && mq_dtype_is_weight(theirs->dtype) &&
           ours->dims == theirs->dims &&
           memcmp(ours->shape, theirs->shape, ours->dims * sizeof *ours->shape) == 0;
}

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t size) {
    size_t i = 0;
    while (i < size && a[i] == b[i]) {
        i++;
    }
    return i;
}

/* The first byte of ours that is not the source's, whose numbers are rounded to our element type;
 * ours->bytes: none. */
static size_t first_other_byte(const mq_tensor_info *ours, const mq_tensor_info *theirs) {
    enum { AT_ONCE = 1024 };
    if (ours->dtype == theirs->dtype) {
        return memcmp(ours->data, theirs->data, ours->bytes) == 0
                   ? ours->bytes
                   : first_difference(ours->data, theirs->data, ours->bytes);
    }
    const size_t size = mq_dtype_size(ours->dtype), from = mq_dtype_size(theirs->dtype);
    for (size_t first = 0; first < ours->elements; first += AT_ONCE) {
        const size_t left = ours->elements - first, now = left < AT_ONCE ? left : AT_ONCE;
        float values[AT_ONCE];
        unsigned char rounded[AT_ONCE * sizeof(float)];
        mq_to_f32(values, theirs->data + first * from, theirs->dtype, now);
        mq_from_f32(rounded, ours->dtype, values, now);
        const size_t at = first_difference(ours->data + first * size, rounded, now * size);
        if (at < now * size) {
            return first * size + at;
        }
    }
    return ours->bytes;
}

static mq_status compare_bytes(const mq_verification *self, const mq_tensor_info *ours,
                               const mq_tensors *source, const mq_tensor_info *theirs,
                               mq_error *err) {
    mq_error problem = {.status = MQ_OK};
    char shape[128];
    if (!mq_same_form(ours, theirs) && !is_converted(self, ours, theirs)) {
        mq_fail_tensor(&problem, MQ_ERR_INPUT, ours->file, ours->name, "the source's is %s %s",
                       mq_dtype_name(theirs->dtype),
                       mq_shape_text(shape, sizeof shape, theirs->shape, theirs->dims));
    } else if (!was_private(self, ours->name)) {
        mq_tensor_will_need(self->tensors, ours);
        mq_tensor_will_need(source, theirs);
        const size_t at = first_other_byte(ours, theirs);
        if (at == ours->bytes) {
            self->report->compared++;
        } else {
            mq_fail_offset(&problem, MQ_ERR_INPUT, ours->file, ours->name, ours->file_offset + at,
                           "differs from the source's");
        }
        mq_tensor_dont_need(self->tensors, ours);
        mq_tensor_dont_need(source, theirs);
    }
    return note(self, &problem, err);
}

/* The folder and its source. MLX's slices may call the language model's tensors otherwise. */
typedef struct sides {
    const mq_config *ours, *theirs; /* the folder's configuration with the layout of either; NULL:
                                       it could not be read, and names are taken for the same */
    const mq_tensors *source;
} sides;

/* The name here of one of the source's tensors, and there of one of the folder's. */
static const char *name_here(char out[MQ_NAME_SIZE], const sides *both, const char *theirs) {
    return both->ours == NULL ? theirs
                              : mq_config_rename(out, both->theirs, theirs, both->ours->layout);
}

static const char *name_there(char out[MQ_NAME_SIZE], const sides *both, const char *ours) {
    return both->ours == NULL ? ours
                              : mq_config_rename(out, both->ours, ours, both->theirs->layout);
}

/* Whether MLX's slice has not the source's tensor of that name here, but nothing, or the scales or
 * biases of a packed layer. */
static bool is_left_out(const mq_verification *self, const sides *both, const mq_tensor_info *ours,
                        const char *name) {
    return self->slice != NULL && both->ours != NULL && !mq_mlx_has(both->ours, name) &&
           (ours == NULL || role_of(self, ours) == MQ_ROLE_LINEAR);
}

static mq_status compare_tensor(const mq_verification *self, const sides *both,
                                const mq_tensor_info *theirs, mq_error *err) {
    mq_error problem = {.status = MQ_OK};
    char renamed[MQ_NAME_SIZE];
    const char *here = name_here(renamed, both, theirs->name);
    mq_name name = mq_name_parse(here);
    size_t out = 0, in = 0;
    if (name.form == MQ_NAME_WEIGHT && find_linear(&out, &in, self, name.stem)) {
        char shape[128];
        if (theirs->dims != 2 || theirs->shape[0] != out || theirs->shape[1] != in) {
            mq_fail_tensor(&problem, MQ_ERR_INPUT, mq_tensors_where(self->tensors, here), name.stem,
                           "is quantized as [%zu, %zu], the source's weight is %s", out, in,
                           mq_shape_text(shape, sizeof shape, theirs->shape, theirs->dims));
        }
        return note(self, &problem, err);
    }
    const mq_tensor_info *ours = mq_tensors_find(self->tensors, here);
    if (is_left_out(self, both, ours, here) ||
        (name.form == MQ_NAME_WEIGHT && is_rejected(self, name.stem))) {
        return MQ_OK;
    }
    if (ours == NULL) {
        mq_fail_tensor(&problem, MQ_ERR_INPUT, mq_tensors_where(self->tensors, here), here,
                       "is in the source but missing here");
        return note(self, &problem, err);
    }
    return compare_bytes(self, ours, both->source, theirs, err);
}

/* --- what the folder has that the source has not ---------------------------------------------- */

static mq_status check_extra(const mq_verification *self, const sides *both,
                             const mq_tensor_info *info, mq_error *err) {
    char weight[MQ_STORED_NAME_SIZE], renamed[MQ_NAME_SIZE];
    const mq_role role = role_of(self, info);
    const mq_name name = mq_name_parse(info->name);
    const bool is_first = name.form == MQ_NAME_CODES || name.form == MQ_NAME_WEIGHT;
    if (role == MQ_ROLE_REJECTED || role == MQ_ROLE_PRIVATE ||
        (role == MQ_ROLE_LINEAR && !is_first)) {
        return MQ_OK; /* counted when it was read; or stands beside one that is looked at */
    }
    mq_error problem = {.status = MQ_OK};
    /* the source's tensor that this one comes from */
    const char *needed = name_there(
        renamed, both,
        role == MQ_ROLE_LINEAR ? mq_name_make(weight, name.stem, "weight", 0) : info->name);
    if (mq_tensors_find(both->source, needed) == NULL) {
        mq_fail_tensor(&problem, MQ_ERR_INPUT, info->file, info->name, "the source has no %s",
                       needed);
    }
    return note(self, &problem, err);
}

/* --- config.json ------------------------------------------------------------------------------ */

static bool is_quantization(const char *key) {
    return strcmp(key, "quantization_config") == 0 || strcmp(key, "quantization") == 0;
}

/* What a slice may spell otherwise than its source, or say where the source leaves it to a default
 * (export/mlx_config.h). */
static bool is_respelled(const char *key) {
    static const char *const keys[] = {"rope_theta",
                                       "rope_scaling",
                                       "rope_parameters",
                                       "rope_local_base_freq",
                                       "partial_rotary_factor",
                                       "original_max_position_embeddings",
                                       "vocab_size",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "rms_norm_eps",
                                       "max_position_embeddings",
                                       "tie_word_embeddings",
                                       "model_type",
                                       "query_pre_attn_scalar",
                                       "embedding_multiplier",
                                       "attention_multiplier",
                                       "residual_multiplier",
                                       "logits_scaling",
                                       "attention_bias",
                                       "mlp_bias",
                                       "sliding_window",
                                       "sliding_window_pattern",
                                       "no_rope_layers"};
    bool found = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        found = found || strcmp(key, keys[i]) == 0;
    }
    return found;
}

/* What names the element type of plain weights. */
static bool is_dtype(const char *key) {
    return strcmp(key, "torch_dtype") == 0 || strcmp(key, "dtype") == 0;
}

/* *known: there is something in *out, to be freed. What is wrong with a configuration is no failure
 * of comparing it; that there is no memory to read it is. */
static mq_status parse_config(bool *known, mq_config *out, const cJSON *json, mq_error *err) {
    const mq_status status = mq_config_parse(out, json, MQ_CONFIG_FILE, err);
    *known = status == MQ_OK;
    return status == MQ_ERR_INPUT ? MQ_OK : status;
}

static mq_status same_computation(bool *same, const mq_config *ours, const cJSON *theirs,
                                  mq_error *err) {
    mq_config config;
    bool known;
    const mq_status status = parse_config(&known, &config, theirs, err);
    *same = known && ours != NULL && mq_config_same(&config, ours);
    if (known) {
        mq_config_free(&config);
    }
    return status;
}

/* What two config.json may differ in. */
typedef struct allowance {
    const char *text_field; /* the member that is compared member by member, too; NULL: none */
    bool all;               /* nothing may be spelled otherwise */
    bool converted;         /* the element type may be another */
} allowance;

static bool may_differ(const allowance *may, const char *key) {
    return is_quantization(key) || (!may->all && is_respelled(key)) ||
           (may->converted && is_dtype(key));
}

/* The first member of a, other than what may differ, that b has not or has otherwise; NULL: none.
 */
static const char *first_difference_of_objects(const cJSON *a, const cJSON *b,
                                               const allowance *may) {
    for (const cJSON *item = a->child; item != NULL; item = item->next) {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(b, item->string);
        const char *key = item->string;
        if (may_differ(may, key)) {
            continue;
        }
        if (may->text_field != NULL && strcmp(key, may->text_field) == 0 && cJSON_IsObject(other)) {
            const allowance inner = {.all = may->all, .converted = may->converted};
            key = first_difference_of_objects(item, other, &inner);
        } else if (other != NULL && cJSON_Compare(item, other, true)) {
            key = NULL;
        }
        if (key != NULL) {
            return key;
        }
    }
    return NULL;
}

/* The same of either one. */
static const char *difference_of_configs(const cJSON *a, const cJSON *b, const allowance *may) {
    const char *key = first_difference_of_objects(a, b, may);
    return key != NULL ? key : first_difference_of_objects(b, a, may);
}

static mq_status compare_configs(const mq_verification *self, const mq_config *config,
                                 const char *source, mq_error *err) {
    cJSON *theirs = NULL;
    mq_status status = mq_read_folder_json(&theirs, source, MQ_CONFIG_FILE, false, err);
    if (status != MQ_OK) {
        return status;
    }
    allowance may = {.text_field = config != NULL ? config->arch->text_field : NULL,
                     .converted = converted_to(self) != NULL};
    const char *key = difference_of_configs(theirs, self->config, &may);
    if (key == NULL) {
        bool same;
        status = same_computation(&same, config, theirs, err);
        may.all = true;
        key = same ? NULL : difference_of_configs(theirs, self->config, &may);
    }
    if (status == MQ_OK && key != NULL) {
        mq_error problem;
        mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, MQ_CONFIG_FILE,
                        "differs from the source's in \"%s\"", key);
        status = mq_problem(self->problems, &problem, err);
    }
    cJSON_Delete(theirs);
    return status;
}

/* --- all of it -------------------------------------------------------------------------------- */

/* config: the folder's; NULL: it could not be read. */
static mq_status compare_with(const mq_verification *self, mq_config *config,
                              const mq_tensors *source, mq_error *err) {
    sides both = {.ours = config, .source = source};
    mq_config of_source;
    if (config != NULL) {
        mq_config_find_layout(config, self->tensors);
        of_source = *config;
        mq_config_find_layout(&of_source, source);
        both.theirs = &of_source;
    }
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(source); i++) {
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            status = compare_tensor(self, &both, mq_tensors_at(source, i), err);
        }
    }
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(self->tensors); i++) {
        status = check_extra(self, &both, mq_tensors_at(self->tensors, i), err);
    }
    return status;
}

mq_status mq_verify_against(const mq_verification *self, const char *source, mq_error *err) {
    mq_kind kind = MQ_KIND_PLAIN;
    mq_status status = mq_folder_kind(&kind, source, err);
    if (status != MQ_OK) {
        return status;
    }
    if (kind != MQ_KIND_PLAIN) {
        return mq_fail_file_in(err, MQ_ERR_INPUT, source, MQ_CONFIG_FILE,
                               "is of a quantized model: it is not the source of %s", self->folder);
    }
    mq_config config;
    bool known;
    status = parse_config(&known, &config, self->config, err);
    mq_config *ours = known ? &config : NULL;
    mq_tensors *tensors = NULL;
    if (status == MQ_OK) {
        const char *heads[MQ_LAYOUT_COUNT + 1];
        status = mq_tensors_open_without(&tensors, source,
                                         known ? mq_config_unused_heads(heads, ours) : NULL, err);
    }
    if (status == MQ_OK) {
        status = compare_with(self, ours, tensors, err);
    }
    if (status == MQ_OK) {
        status = compare_configs(self, ours, source, err);
    }
    if (status == MQ_OK) {
        status = mq_verify_files_against(self, source, err);
    }
    if (status == MQ_OK) {
        status = mq_verify_weights_against(self, source, tensors, err);
    }
    mq_tensors_close(tensors);
    if (known) {
        mq_config_free(&config);
    }
    return status;
}
