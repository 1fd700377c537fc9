#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/safetensors_file.h"

struct mq_tensors {
    mq_shard *shards; /* [shard_count], by name; offsets within each */
    size_t shard_count;
    size_t count;
    const mq_tensor_info **in_order; /* [count], by file and offset */
    const mq_tensor_info **by_name;  /* [count] */
    char *listing;                   /* path of the file that says which tensors there are */
};

/* --- names ------------------------------------------------------------------------------------ */

static int compare_names(const void *a, const void *b) {
    const mq_tensor_info *const *left = a;
    const mq_tensor_info *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static int compare_name_to(const void *name, const void *info) {
    return strcmp(name, (*(const mq_tensor_info *const *)info)->name);
}

/* The two lists over all shards' tensors; a name twice, in one shard or in two, is an error. */
static mq_status make_lists(mq_tensors *tensors, mq_error *err) {
    for (size_t i = 0; i < tensors->shard_count; i++) {
        tensors->count += tensors->shards[i].count;
    }
    size_t size = sizeof *tensors->by_name;
    mq_status status = mq_new(&tensors->in_order, tensors->count, size, "a list of tensors", err);
    if (status == MQ_OK) {
        status = mq_new(&tensors->by_name, tensors->count, size, "a list of tensors", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    size_t next = 0;
    for (size_t i = 0; i < tensors->shard_count; i++) {
        for (size_t j = 0; j < tensors->shards[i].count; j++) {
            tensors->in_order[next++] = &tensors->shards[i].infos[j];
        }
    }
    if (tensors->count > 0) {
        memcpy(tensors->by_name, tensors->in_order, tensors->count * size);
        qsort(tensors->by_name, tensors->count, size, compare_names);
    }
    for (size_t i = 1; i < tensors->count; i++) {
        const mq_tensor_info *a = tensors->by_name[i - 1];
        const mq_tensor_info *b = tensors->by_name[i];
        if (strcmp(a->name, b->name) == 0) {
            return a->file == b->file ? mq_fail_tensor(err, MQ_ERR_INPUT, a->file, a->name,
                                                       "stands twice in the header")
                                      : mq_fail_tensor(err, MQ_ERR_INPUT, a->file, a->name,
                                                       "is also in %s", mq_path_base(b->file));
        }
    }
    return MQ_OK;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Opens paths[count] into *tensors, which is {0}; whatever happens it is the caller's to close. */
static mq_status open_shards(mq_tensors *tensors, char *const *paths, size_t count, mq_error *err) {
    mq_status status = mq_new(&tensors->shards, count, sizeof *tensors->shards, "the shards", err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_shard_open(&tensors->shards[i], paths[i], err);
        tensors->shard_count += status == MQ_OK;
    }
    return status == MQ_OK ? make_lists(tensors, err) : status;
}

/* listing: the path of the index, or of the one file. */
static mq_status open_paths(mq_tensors **out, char *const *paths, size_t count, const char *listing,
                            mq_error *err) {
    mq_tensors *tensors = mq_calloc(1, sizeof *tensors);
    if (tensors == NULL) {
        return mq_fail_memory(err, "the tensors", sizeof *tensors);
    }
    tensors->listing = mq_strdup(listing);
    mq_status status = tensors->listing == NULL ? mq_fail_memory(err, "a path", strlen(listing) + 1)
                                                : open_shards(tensors, paths, count, err);
    if (status != MQ_OK) {
        mq_tensors_close(tensors);
        return status;
    }
    *out = tensors;
    return MQ_OK;
}

mq_status mq_tensors_open_file(mq_tensors **out, const char *path, mq_error *err) {
    char *copy = mq_strdup(path);
    if (copy == NULL) {
        return mq_fail_memory(err, "a path", strlen(path) + 1);
    }
    mq_status status = open_paths(out, &copy, 1, path, err);
    mq_free(copy);
    return mq_error_in_file(err, status, path);
}

/* Whether the CRC-32 that a sealed file names is its own. */
static bool is_whole(const mq_mapping *file) {
    if (file->size < MQ_SEAL_AT + MQ_SEAL_DIGITS ||
        memcmp(file->data + 8, MQ_SEAL_BEFORE, sizeof MQ_SEAL_BEFORE - 1) != 0) {
        return false;
    }
    const unsigned char *behind = file->data + MQ_SEAL_AT + MQ_SEAL_DIGITS;
    uint32_t crc = mq_crc32(0, file->data, MQ_SEAL_AT);
    crc = mq_crc32(crc, MQ_SEAL_NONE, MQ_SEAL_DIGITS);
    crc = mq_crc32(crc, behind, file->size - MQ_SEAL_AT - MQ_SEAL_DIGITS);
    char digits[sizeof MQ_SEAL_NONE];
    snprintf(digits, sizeof digits, "%08x", (unsigned)crc);
    return memcmp(file->data + MQ_SEAL_AT, digits, MQ_SEAL_DIGITS) == 0;
}

mq_status mq_tensors_open_sealed(mq_tensors **out, const char *path, mq_error *err) {
    mq_mapping file;
    const mq_status status = mq_map_file(&file, path, err);
    if (status != MQ_OK) {
        return status;
    }
    const bool whole = is_whole(&file);
    mq_unmap_file(&file);
    return whole ? mq_tensors_open_file(out, path, err)
                 : mq_fail_file(err, MQ_ERR_INPUT, path,
                                "is damaged: its checksum is not that of its content");
}

/* --- an index --------------------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The name of a file beside the index that an entry of weight_map gives, or NULL: none. */
static const char *file_name(const cJSON *entry) {
    const char *name = cJSON_IsString(entry) ? entry->valuestring : "";
    if (strncmp(name, "./", 2) == 0) {
        name += 2;
    }
    return name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, "..") == 0 ? NULL : name;
}

/* Checks that every entry of weight_map is the name of a file beside the index, and collects those
 * names, sorted, each once; they point into the JSON. */
static mq_status collect_files(const char ***out, size_t *count, const cJSON *weight_map,
                               const char *index, mq_error *err) {
    size_t entries = 0;
    for (const cJSON *entry = weight_map->child; entry != NULL; entry = entry->next) {
        if (file_name(entry) == NULL) {
            return mq_fail_tensor(err, MQ_ERR_INPUT, index, entry->string,
                                  "\"weight_map\" does not give the name of a file beside it");
        }
        entries++;
    }
    if (entries == 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, index, "\"weight_map\" is empty");
    }
    const char **files = NULL;
    mq_status status = mq_new(&files, entries, sizeof *files, "a list of files", err);
    if (status != MQ_OK) {
        return status;
    }
    size_t next = 0;
    for (const cJSON *entry = weight_map->child; entry != NULL; entry = entry->next) {
        files[next++] = file_name(entry);
    }
    qsort(files, entries, sizeof *files, compare_texts);
    size_t distinct = 1;
    for (size_t i = 1; i < entries; i++) {
        if (strcmp(files[i], files[distinct - 1]) != 0) {
            files[distinct++] = files[i];
        }
    }
    *out = files;
    *count = distinct;
    return MQ_OK;
}

static bool is_listed(const char *const *names, const char *name) {
    for (; names != NULL && *names != NULL; names++) {
        if (strcmp(*names, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Every tensor of the index must be in the file that it names, or be nowhere if it is unneeded. A
 * name that the index holds twice is in one file and, if the entries differ, not in the other. */
static mq_status check_index(const mq_tensors *tensors, const cJSON *weight_map, const char *index,
                             const char *const *unneeded, mq_error *err) {
    for (const cJSON *entry = weight_map->child; entry != NULL; entry = entry->next) {
        const mq_tensor_info *info = mq_tensors_find(tensors, entry->string);
        if (info == NULL && is_listed(unneeded, entry->string)) {
            continue;
        }
        if (info == NULL || strcmp(mq_path_base(info->file), file_name(entry)) != 0) {
            return mq_fail_tensor(err, MQ_ERR_INPUT, index, entry->string, "is not in %s",
                                  file_name(entry));
        }
    }
    return MQ_OK;
}

static mq_status open_weight_map(mq_tensors **out, const char *folder, const cJSON *weight_map,
                                 const char *index, const char *const *unneeded, mq_error *err) {
    const char **names = NULL;
    size_t count = 0;
    mq_status status = collect_files(&names, &count, weight_map, index, err);
    if (status != MQ_OK) {
        return status;
    }
    char **paths = mq_calloc(count, sizeof *paths);
    if (paths == NULL) {
        status = mq_fail_memory(err, "a list of files", count * sizeof *paths);
    }
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        paths[i] = mq_path_join(folder, names[i]);
        if (paths[i] == NULL) {
            status = mq_fail_memory(err, "a path", strlen(folder) + strlen(names[i]) + 2);
        }
    }
    mq_tensors *tensors = NULL;
    if (status == MQ_OK) {
        status = open_paths(&tensors, paths, count, index, err);
    }
    if (status == MQ_OK) {
        status = check_index(tensors, weight_map, index, unneeded, err);
    }
    if (paths != NULL) {
        mq_free_list(paths, count);
    }
    mq_free(names);
    if (status != MQ_OK) {
        mq_tensors_close(tensors);
        return status;
    }
    *out = tensors;
    return MQ_OK;
}

static mq_status open_index(mq_tensors **out, const char *folder, const char *index,
                            const char *const *unneeded, mq_error *err) {
    cJSON *json = NULL;
    mq_status status = mq_json_read(&json, index, err);
    if (status != MQ_OK) {
        return status;
    }
    const cJSON *weight_map = cJSON_GetObjectItemCaseSensitive(json, "weight_map");
    status =
        cJSON_IsObject(weight_map)
            ? open_weight_map(out, folder, weight_map, index, unneeded, err)
            : mq_fail_file(err, MQ_ERR_INPUT, index, "\"weight_map\" is missing or not an object");
    cJSON_Delete(json);
    return status;
}

mq_status mq_tensors_open(mq_tensors **out, const char *folder, mq_error *err) {
    return mq_tensors_open_without(out, folder, NULL, err);
}

mq_status mq_tensors_open_without(mq_tensors **out, const char *folder, const char *const *unneeded,
                                  mq_error *err) {
    char *single = mq_path_join(folder, "model.safetensors");
    char *index = mq_path_join(folder, "model.safetensors.index.json");
    mq_status status;
    if (single == NULL || index == NULL) {
        status = mq_fail_memory(err, "a path", strlen(folder));
    } else if (mq_path_exists(single)) {
        status = mq_tensors_open_file(out, single, err);
    } else if (mq_path_exists(index)) {
        status = open_index(out, folder, index, unneeded, err);
    } else if (mq_is_folder(folder)) {
        status = mq_fail_file(err, MQ_ERR_INPUT, single,
                              "is not there, and neither is model.safetensors.index.json; "
                              "weights in other formats are not read");
    } else {
        status = mq_fail_file(err, MQ_ERR_INPUT, folder, "is not a folder");
    }
    mq_free(single);
    mq_free(index);
    return mq_error_in_file(err, status, folder);
}

void mq_tensors_close(mq_tensors *tensors) {
    if (tensors == NULL) {
        return;
    }
    for (size_t i = 0; i < tensors->shard_count; i++) {
        mq_shard_close(&tensors->shards[i]);
    }
    mq_free(tensors->shards);
    mq_free(tensors->in_order);
    mq_free(tensors->by_name);
    mq_free(tensors->listing);
    mq_free(tensors);
}

/* --- looking ---------------------------------------------------------------------------------- */

size_t mq_tensors_count(const mq_tensors *tensors) { return tensors->count; }

const mq_tensor_info *mq_tensors_at(const mq_tensors *tensors, size_t index) {
    assert(index < tensors->count);
    return tensors->in_order[index];
}

const mq_tensor_info *mq_tensors_find(const mq_tensors *tensors, const char *name) {
    if (tensors->count == 0) {
        return NULL;
    }
    const mq_tensor_info *const *found =
        bsearch(name, tensors->by_name, tensors->count, sizeof *tensors->by_name, compare_name_to);
    return found == NULL ? NULL : *found;
}

const char *mq_tensors_where(const mq_tensors *tensors, const char *name) {
    const mq_tensor_info *info = mq_tensors_find(tensors, name);
    return info == NULL ? tensors->listing : info->file;
}

size_t mq_tensors_file_count(const mq_tensors *tensors) { return tensors->shard_count; }

const char *mq_tensors_file(const mq_tensors *tensors, size_t index) {
    assert(index < tensors->shard_count);
    return tensors->shards[index].path;
}

mq_status mq_tensors_sha256(char out[65], const mq_tensors *tensors, size_t index,
                            const mq_context *context, mq_error *err) {
    assert(index < tensors->shard_count);
    return mq_sha256_mapping(out, &tensors->shards[index].mapping, context, err);
}

static const mq_mapping *mapping_of(const mq_tensors *tensors, const mq_tensor_info *info) {
    size_t i = 0;
    while (tensors->shards[i].path != info->file) {
        i++;
        assert(i < tensors->shard_count); /* else the tensor is another checkpoint's */
    }
    return &tensors->shards[i].mapping;
}

void mq_tensor_will_need(const mq_tensors *tensors, const mq_tensor_info *info) {
    mq_map_will_need(mapping_of(tensors, info), info->file_offset, info->bytes);
}

void mq_tensor_dont_need(const mq_tensors *tensors, const mq_tensor_info *info) {
    mq_map_dont_need(mapping_of(tensors, info), info->file_offset, info->bytes);
}

mq_status mq_tensor_read_f32(float *out, const mq_tensor_info *info, size_t first, size_t count,
                             mq_error *err) {
    assert(first <= info->elements && count <= info->elements - first);
    if (!mq_dtype_is_weight(info->dtype)) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, info->file, info->name,
                              "its dtype is %s where F32, F16 or BF16 is needed",
                              mq_dtype_name(info->dtype));
    }
    size_t size = mq_dtype_size(info->dtype);
    const unsigned char *data = info->data + first * size;
    size_t bad = mq_first_non_finite(data, info->dtype, count);
    if (bad < count) {
        float value;
        mq_to_f32(&value, data + bad * size, info->dtype, 1);
        return mq_fail_offset(err, MQ_ERR_INPUT, info->file, info->name,
                              info->file_offset + (first + bad) * size, "element %zu is %s",
                              first + bad, isnan(value) ? "NaN" : "infinite");
    }
    mq_to_f32(out, data, info->dtype, count);
    return MQ_OK;
}
