#include "store/folder.h"
#include "store/layer_list.h"
#include "store/names.h"
#include "store/readers.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

struct mq_slice_reader {
    mq_tensors *tensors;
    cJSON *config, *provenance;
    const cJSON *quantization; /* in config */
    char *config_path;
    size_t width, group_size; /* of layers that have no entry of their own */
    mq_layer_list linears;    /* of mq_slice_view */
};

/* --- config.json ------------------------------------------------------------------------------ */

static mq_status check_format(size_t width, size_t group_size, const cJSON *entry, const char *file,
                              mq_error *err) {
    const char *mode = "affine";
    mq_status status = mq_json_get_string(&mode, entry, "mode", false, file, err);
    if (status != MQ_OK) {
        return status;
    }
    if (strcmp(mode, "affine") != 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "quantization mode is \"%s\", only \"affine\" is read", mode);
    }
    if (width < 2 || width == 7 || width > 8) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "quantization bits are %zu, MLX has 2, 3, 4, 5, 6 and 8", width);
    }
    if (group_size == 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "quantization group_size is 0");
    }
    return MQ_OK;
}

static mq_status parse_config(mq_slice_reader *slice, mq_error *err) {
    const char *file = slice->config_path;
    slice->quantization = cJSON_GetObjectItemCaseSensitive(slice->config, "quantization");
    if (!cJSON_IsObject(slice->quantization)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "has no \"quantization\": this is not a slice in MLX's format");
    }
    mq_status status =
        mq_json_get_size(&slice->width, slice->quantization, "bits", true, file, err);
    if (status == MQ_OK) {
        status = mq_json_get_size(&slice->group_size, slice->quantization, "group_size", true, file,
                                  err);
    }
    return status != MQ_OK
               ? status
               : check_format(slice->width, slice->group_size, slice->quantization, file, err);
}

/* Width and group size of a layer: from an entry under its name, where there is one. */
static mq_status layer_format(size_t *width, size_t *group_size, const mq_slice_reader *slice,
                              const char *prefix, mq_error *err) {
    *width = slice->width;
    *group_size = slice->group_size;
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(slice->quantization, prefix);
    if (entry == NULL) {
        return MQ_OK;
    }
    if (!cJSON_IsObject(entry)) {
        return mq_fail_file(err, MQ_ERR_INPUT, slice->config_path,
                            "quantization says that %s is not quantized, but it has scales",
                            prefix);
    }
    mq_status status = mq_json_get_size(width, entry, "bits", false, slice->config_path, err);
    if (status == MQ_OK) {
        status = mq_json_get_size(group_size, entry, "group_size", false, slice->config_path, err);
    }
    return status != MQ_OK ? status
                           : check_format(*width, *group_size, entry, slice->config_path, err);
}

/* --- one linear layer ------------------------------------------------------------------------- */

static mq_status find_part(const mq_tensor_info **out, const mq_slice_reader *slice,
                           const mq_tensor_info *scales, const char *prefix, const char *part,
                           mq_error *err) {
    char name[MQ_STORED_NAME_SIZE];
    *out = mq_tensors_find(slice->tensors, mq_name_make(name, prefix, part, 0));
    if (*out == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, scales->file, name, "is missing beside %s",
                              scales->name);
    }
    return MQ_OK;
}

static mq_status check_shapes(const mq_slice_view *view, size_t group_size, mq_error *err) {
    char shape[128];
    const mq_tensor_info *weight = view->weight, *scales = view->scales, *biases = view->biases;
    if (weight->dtype != MQ_U32 || weight->dims != 2 || weight->elements == 0 ||
        weight->shape[1] > SIZE_MAX / 32 || weight->shape[1] * 32 % view->width != 0) {
        return mq_fail_tensor(
            err, MQ_ERR_INPUT, weight->file, weight->name,
            "is %s %s; packed weights of %u bits are U32 of two dimensions, rows of whole weights",
            mq_dtype_name(weight->dtype),
            mq_shape_text(shape, sizeof shape, weight->shape, weight->dims), view->width);
    }
    size_t in = weight->shape[1] * 32 / view->width;
    if (!mq_dtype_is_weight(scales->dtype) || scales->dims != 2 ||
        scales->shape[0] != weight->shape[0] || in % group_size != 0 ||
        scales->shape[1] != in / group_size) {
        return mq_fail_tensor(
            err, MQ_ERR_INPUT, scales->file, scales->name,
            "is %s %s; for weights [%zu, %zu] in groups of %zu it must be F16 [%zu, %zu]",
            mq_dtype_name(scales->dtype),
            mq_shape_text(shape, sizeof shape, scales->shape, scales->dims), weight->shape[0], in,
            group_size, weight->shape[0], in / group_size);
    }
    if (!mq_same_form(scales, biases)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, biases->file, biases->name,
                              "must have the dtype and shape of %s", scales->name);
    }
    return MQ_OK;
}

/* Of mq_layer_reader; user: the slice. */
static mq_status read_linear(void *out, const char *prefix, const mq_tensor_info *scales,
                             const void *user, mq_error *err) {
    const mq_slice_reader *slice = user;
    mq_slice_view *view = out;
    size_t width = 0, group_size = 0;
    *view = (mq_slice_view){.prefix = prefix, .scales = scales};
    mq_status status = find_part(&view->weight, slice, scales, prefix, "weight", err);
    if (status == MQ_OK) {
        status = find_part(&view->biases, slice, scales, prefix, "biases", err);
    }
    if (status == MQ_OK) {
        status = layer_format(&width, &group_size, slice, prefix, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    view->width = (unsigned)width;
    status = check_shapes(view, group_size, err);
    if (status == MQ_OK) {
        view->out = view->weight->shape[0];
        view->in = view->weight->shape[1] * 32 / width;
        view->groups = view->in / group_size;
    }
    return status;
}

/* --- all of them ------------------------------------------------------------------------------ */

/* The length of P when name is P.scales, else 0. */
static size_t scales_stem(const char *name) {
    static const char end[] = ".scales";
    size_t length = strlen(name), end_length = sizeof end - 1;
    bool is_scales = length > end_length && length - end_length < MQ_STORED_STEM_MAX &&
                     strcmp(name + length - end_length, end) == 0;
    return is_scales ? length - end_length : 0;
}

static mq_status read_linears(mq_slice_reader *slice, mq_problems *problems, mq_error *err) {
    static_assert(offsetof(mq_slice_view, prefix) == 0, "mq_layer_list reads it there");
    const mq_layer_reader reader = {.view_size = sizeof(mq_slice_view),
                                    .stem = scales_stem,
                                    .read = read_linear,
                                    .user = slice};
    return mq_layer_list_read(&slice->linears, &reader, slice->tensors, problems, err);
}

static mq_status open_folder(mq_slice_reader *slice, const char *folder, mq_problems *problems,
                             mq_error *err) {
    mq_status status = mq_read_folder_json(&slice->config, folder, MQ_CONFIG_FILE, false, err);
    if (status != MQ_OK) {
        return status;
    }
    slice->config_path = mq_path_join(folder, MQ_CONFIG_FILE);
    if (slice->config_path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    if ((status = parse_config(slice, err)) != MQ_OK ||
        (status = mq_read_folder_json(&slice->provenance, folder, MQ_PROVENANCE_FILE, true, err)) !=
            MQ_OK ||
        (status = mq_tensors_open(&slice->tensors, folder, err)) != MQ_OK) {
        return status;
    }
    return read_linears(slice, problems, err);
}

mq_status mq_slice_reader_open(mq_slice_reader **out, const char *folder, mq_problems *problems,
                               mq_error *err) {
    mq_slice_reader *slice = mq_calloc(1, sizeof *slice);
    if (slice == NULL) {
        return mq_fail_memory(err, "a slice", sizeof *slice);
    }
    mq_status status = open_folder(slice, folder, problems, err);
    if (status != MQ_OK) {
        mq_slice_reader_close(slice);
        return status;
    }
    *out = slice;
    return MQ_OK;
}

void mq_slice_reader_close(mq_slice_reader *slice) {
    if (slice == NULL) {
        return;
    }
    mq_layer_list_free(&slice->linears);
    mq_tensors_close(slice->tensors);
    cJSON_Delete(slice->config);
    cJSON_Delete(slice->provenance);
    mq_free(slice->config_path);
    mq_free(slice);
}

const mq_tensors *mq_slice_reader_tensors(const mq_slice_reader *slice) { return slice->tensors; }
const cJSON *mq_slice_reader_config(const mq_slice_reader *slice) { return slice->config; }
const cJSON *mq_slice_reader_provenance(const mq_slice_reader *slice) { return slice->provenance; }
size_t mq_slice_reader_group_size(const mq_slice_reader *slice) { return slice->group_size; }
size_t mq_slice_reader_count(const mq_slice_reader *slice) { return slice->linears.count; }

unsigned mq_slice_reader_width(const mq_slice_reader *slice) {
    const unsigned cut = mq_provenance_width(slice->provenance);
    return cut != 0 ? cut : (unsigned)slice->width;
}

unsigned mq_slice_reader_width_of(const mq_slice_reader *slice, const mq_slice_view *view) {
    return view->width == (unsigned)slice->width ? mq_slice_reader_width(slice) : view->width;
}

const mq_slice_view *mq_slice_reader_at(const mq_slice_reader *slice, size_t index) {
    return mq_layer_list_at(&slice->linears, index);
}

const mq_slice_view *mq_slice_reader_find(const mq_slice_reader *slice, const char *prefix) {
    return mq_layer_list_find(&slice->linears, prefix);
}

mq_role mq_slice_reader_role(const mq_slice_reader *slice, const mq_tensor_info *info) {
    const char *dot = strrchr(info->name, '.');
    char stem[MQ_STORED_STEM_MAX], scales[MQ_STORED_NAME_SIZE];
    if (dot == NULL || (size_t)(dot - info->name) >= sizeof stem) {
        return MQ_ROLE_PLAIN;
    }
    memcpy(stem, info->name, (size_t)(dot - info->name));
    stem[dot - info->name] = '\0';
    if (strcmp(dot, ".weight") != 0 && strcmp(dot, ".scales") != 0 && strcmp(dot, ".biases") != 0) {
        return MQ_ROLE_PLAIN;
    }
    if (mq_slice_reader_find(slice, stem) != NULL) {
        return MQ_ROLE_LINEAR;
    }
    return mq_tensors_find(slice->tensors, mq_name_make(scales, stem, "scales", 0)) != NULL
               ? MQ_ROLE_REJECTED
               : MQ_ROLE_PLAIN;
}
