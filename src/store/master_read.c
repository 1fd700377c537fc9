#include "store/folder.h"
#include "store/layer_list.h"
#include "store/master_config.h"
#include "store/names.h"
#include "store/readers.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

struct mq_master {
    mq_tensors *tensors;
    cJSON *config, *provenance;
    char *config_path;
    mq_master_settings settings;
    mq_layer_list linears; /* of mq_master_view */
};

/* --- one linear layer ------------------------------------------------------------------------- */

static mq_status check_codes(const mq_master *master, const mq_tensor_info *codes,
                             const char *prefix, mq_error *err) {
    char name[MQ_STORED_NAME_SIZE], shape[128];
    if (codes->dtype != MQ_U8 || codes->dims != 2 || codes->elements == 0) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, codes->file, codes->name,
                              "codes are U8 of two dimensions, these are %s %s",
                              mq_dtype_name(codes->dtype),
                              mq_shape_text(shape, sizeof shape, codes->shape, codes->dims));
    }
    const mq_tensor_info *weight =
        mq_tensors_find(master->tensors, mq_name_make(name, prefix, "weight", 0));
    if (weight != NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, weight->file, weight->name,
                              "stands beside %s: a linear layer is quantized or it is not",
                              codes->name);
    }
    return MQ_OK;
}

/* P.scales.wR or P.biases.wR; the first one found says how many groups there are. */
static mq_status find_affine(const mq_tensor_info **out, mq_master_view *view,
                             const mq_master *master, const char *part, unsigned width,
                             mq_error *err) {
    char name[MQ_STORED_NAME_SIZE], shape[128];
    mq_name_make(name, view->prefix, part, width);
    const mq_tensor_info *info = mq_tensors_find(master->tensors, name);
    if (info == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, view->codes->file, name,
                              "is missing: config.json says that %u "
                              "bits are served",
                              width);
    }
    size_t groups = info->dims == 2 ? info->shape[1] : 0;
    if (info->dtype != MQ_F16 || info->dims != 2 || info->shape[0] != view->out || groups == 0 ||
        view->in % groups != 0) {
        return mq_fail_tensor(
            err, MQ_ERR_INPUT, info->file, info->name,
            "is %s %s; for codes [%zu, %zu] it must be F16 [%zu, groups] with groups dividing %zu",
            mq_dtype_name(info->dtype), mq_shape_text(shape, sizeof shape, info->shape, info->dims),
            view->out, view->in, view->out, view->in);
    }
    if (view->groups == 0) {
        view->groups = groups;
    } else if (groups != view->groups) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, info->file, info->name,
                              "has %zu groups a row, the layer's other scales and biases have %zu",
                              groups, view->groups);
    }
    *out = info;
    return MQ_OK;
}

/* Of mq_layer_reader; user: the master. */
static mq_status read_linear(void *out, const char *prefix, const mq_tensor_info *codes,
                             const void *user, mq_error *err) {
    const mq_master *master = user;
    mq_master_view *view = out;
    mq_status status = check_codes(master, codes, prefix, err);
    if (status != MQ_OK) {
        return status;
    }
    *view = (mq_master_view){
        .prefix = prefix,
        .index = master->linears.count, /* those before it */
        .codes = codes,
        .out = codes->shape[0],
        .in = codes->shape[1],
        .min_width = mq_layer_min_width(&master->settings, prefix),
    };
    unsigned widths[7];
    const size_t count = mq_layer_widths(widths, master->settings.widths,
                                         master->settings.width_count, view->min_width);
    for (size_t i = 0; i < count; i++) {
        const unsigned width = widths[i];
        if ((status = find_affine(&view->scales[width], view, master, "scales", width, err)) !=
                MQ_OK ||
            (status = find_affine(&view->biases[width], view, master, "biases", width, err)) !=
                MQ_OK) {
            return status;
        }
    }
    return MQ_OK;
}

/* --- all of them ------------------------------------------------------------------------------ */

/* The length of P when name is P.codes, else 0. */
static size_t codes_stem(const char *name) {
    const mq_name parsed = mq_name_parse(name);
    return parsed.form == MQ_NAME_CODES ? strlen(parsed.stem) : 0;
}

static mq_status read_linears(mq_master *master, mq_problems *problems, mq_error *err) {
    static_assert(offsetof(mq_master_view, prefix) == 0, "mq_layer_list reads it there");
    const mq_layer_reader reader = {.view_size = sizeof(mq_master_view),
                                    .stem = codes_stem,
                                    .read = read_linear,
                                    .user = master};
    return mq_layer_list_read(&master->linears, &reader, master->tensors, problems, err);
}

/* Every layer that "embeddings" names is one. */
static mq_status check_embeddings(const mq_master *master, mq_problems *problems, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < master->settings.embedding_count; i++) {
        char name[MQ_STORED_NAME_SIZE];
        const char *prefix = master->settings.embedding_layers[i];
        const bool there =
            strlen(prefix) < MQ_STORED_STEM_MAX &&
            mq_tensors_find(master->tensors, mq_name_make(name, prefix, "codes", 0)) != NULL;
        if (!there) {
            mq_error problem;
            mq_fail_tensor(&problem, MQ_ERR_INPUT, master->config_path, prefix,
                           "has no codes, though embeddings in config.json names it");
            status = mq_problem(problems, &problem, err);
        }
    }
    return status;
}

/* A layer of this name has scales and biases of this width. */
static bool has_width(const mq_master *master, const char *prefix, unsigned width) {
    unsigned widths[7];
    const size_t count =
        mq_layer_widths(widths, master->settings.widths, master->settings.width_count,
                        mq_layer_min_width(&master->settings, prefix));
    for (size_t i = 0; i < count; i++) {
        if (widths[i] == width) {
            return true;
        }
    }
    return false;
}

/* Tensors that carry a name of ours but belong to no layer, and private ones that could not be
 * used. */
static mq_status check_other_names(const mq_master *master, mq_problems *problems, mq_error *err) {
    for (size_t i = 0; i < mq_tensors_count(master->tensors); i++) {
        const mq_tensor_info *info = mq_tensors_at(master->tensors, i);
        mq_name name = mq_name_parse(info->name);
        char codes[MQ_STORED_NAME_SIZE], shape[128];
        mq_error problem = {.status = MQ_OK};
        if (name.form == MQ_NAME_SCALES || name.form == MQ_NAME_BIASES) {
            if (mq_tensors_find(master->tensors, mq_name_make(codes, name.stem, "codes", 0)) ==
                NULL) {
                mq_fail_tensor(&problem, MQ_ERR_INPUT, info->file, info->name,
                               "has no codes beside it (%s)", codes);
            } else if (!has_width(master, name.stem, name.width)) {
                mq_fail_tensor(&problem, MQ_ERR_INPUT, info->file, info->name,
                               "is for %u bits, which config.json does not say are served",
                               name.width);
            }
        } else if (name.form == MQ_NAME_WIDTH && mq_serves(&master->settings, name.width)) {
            const mq_tensor_info *shared = mq_tensors_find(master->tensors, name.stem);
            if (shared != NULL && !mq_same_form(shared, info)) {
                mq_fail_tensor(&problem, MQ_ERR_INPUT, info->file, info->name,
                               "must have the dtype and shape of %s, which is %s %s", name.stem,
                               mq_dtype_name(shared->dtype),
                               mq_shape_text(shape, sizeof shape, shared->shape, shared->dims));
            }
        }
        mq_status status = problem.status == MQ_OK ? MQ_OK : mq_problem(problems, &problem, err);
        if (status != MQ_OK) {
            return status;
        }
    }
    return MQ_OK;
}

static mq_status open_folder(mq_master *master, const char *folder, mq_problems *problems,
                             mq_error *err) {
    mq_status status = mq_read_folder_json(&master->config, folder, MQ_CONFIG_FILE, false, err);
    if (status != MQ_OK) {
        return status;
    }
    master->config_path = mq_path_join(folder, MQ_CONFIG_FILE);
    if (master->config_path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    if ((status = mq_master_settings_parse(&master->settings, master->config, master->config_path,
                                           err)) != MQ_OK ||
        (status = mq_read_folder_json(&master->provenance, folder, MQ_PROVENANCE_FILE, true,
                                      err)) != MQ_OK ||
        (status = mq_tensors_open(&master->tensors, folder, err)) != MQ_OK ||
        (status = read_linears(master, problems, err)) != MQ_OK ||
        (status = check_embeddings(master, problems, err)) != MQ_OK) {
        return status;
    }
    return check_other_names(master, problems, err);
}

mq_status mq_master_scan(mq_master **out, const char *folder, mq_problems *problems,
                         mq_error *err) {
    mq_master *master = mq_calloc(1, sizeof *master);
    if (master == NULL) {
        return mq_fail_memory(err, "a master checkpoint", sizeof *master);
    }
    mq_status status = open_folder(master, folder, problems, err);
    if (status != MQ_OK) {
        mq_master_close(master);
        return status;
    }
    *out = master;
    return MQ_OK;
}

mq_status mq_master_open(mq_master **out, const char *folder, mq_error *err) {
    return mq_master_scan(out, folder, NULL, err);
}

void mq_master_close(mq_master *master) {
    if (master == NULL) {
        return;
    }
    mq_layer_list_free(&master->linears);
    mq_tensors_close(master->tensors);
    cJSON_Delete(master->config);
    cJSON_Delete(master->provenance);
    mq_free(master->config_path);
    mq_free(master);
}

/* --- questions -------------------------------------------------------------------------------- */

const mq_tensors *mq_master_tensors(const mq_master *master) { return master->tensors; }
const cJSON *mq_master_config(const mq_master *master) { return master->config; }
const cJSON *mq_master_provenance(const mq_master *master) { return master->provenance; }
mq_slice_rule mq_master_slice_rule(const mq_master *master) { return master->settings.slice_rule; }
mq_zero_point mq_master_zero_point(const mq_master *master) { return master->settings.zero_point; }
unsigned mq_master_embedding_bits(const mq_master *master) {
    return master->settings.embedding_bits;
}
size_t mq_master_group_size(const mq_master *master) { return master->settings.group_size; }

size_t mq_master_widths(unsigned widths[7], const mq_master *master) {
    memcpy(widths, master->settings.widths, sizeof master->settings.widths);
    return master->settings.width_count;
}

bool mq_master_serves(const mq_master *master, unsigned width) {
    return mq_serves(&master->settings, width);
}

size_t mq_master_linear_count(const mq_master *master) { return master->linears.count; }

const mq_master_view *mq_master_linear_at(const mq_master *master, size_t index) {
    return mq_layer_list_at(&master->linears, index);
}

const mq_master_view *mq_master_find(const mq_master *master, const char *prefix) {
    return mq_layer_list_find(&master->linears, prefix);
}

const mq_tensor_info *mq_master_private(const mq_master *master, const char *name, unsigned width) {
    char private_name[MQ_STORED_NAME_SIZE];
    if (strlen(name) >= MQ_STORED_STEM_MAX || !mq_master_serves(master, width)) {
        return NULL;
    }
    return mq_tensors_find(master->tensors, mq_name_private(private_name, name, width));
}

mq_role mq_master_role(unsigned *width, const mq_master *master, const mq_tensor_info *info) {
    mq_name name = mq_name_parse(info->name);
    switch (name.form) {
    case MQ_NAME_CODES:
        return mq_master_find(master, name.stem) != NULL ? MQ_ROLE_LINEAR : MQ_ROLE_REJECTED;
    case MQ_NAME_SCALES:
    case MQ_NAME_BIASES:
        return has_width(master, name.stem, name.width) && mq_master_find(master, name.stem) != NULL
                   ? MQ_ROLE_LINEAR
                   : MQ_ROLE_REJECTED;
    case MQ_NAME_WIDTH: {
        const mq_tensor_info *shared = mq_tensors_find(master->tensors, name.stem);
        if (shared == NULL || !mq_serves(&master->settings, name.width)) {
            return MQ_ROLE_PLAIN;
        }
        if (width != NULL) {
            *width = name.width;
        }
        return mq_same_form(shared, info) ? MQ_ROLE_PRIVATE : MQ_ROLE_REJECTED;
    }
    default:
        return MQ_ROLE_PLAIN;
    }
}
