/* The header of one safetensors file: https://github.com/huggingface/safetensors, "Format". */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/safetensors_file.h"

#define LENGTH_BYTES 8
#define MAX_HEADER ((uint64_t)100 << 20)

/* What the functions below share while a header is looked at. */
typedef struct header_reader {
    const char *path;
    const unsigned char *data; /* the data section */
    size_t data_size;
    size_t data_start; /* its offset in the file */
    mq_error *err;
} header_reader;

static mq_status reject(const header_reader *r, const char *tensor, const char *why) {
    return mq_fail_tensor(r->err, MQ_ERR_INPUT, r->path, tensor, "%s", why);
}

/* --- one tensor ------------------------------------------------------------------------------- */

/* A number that is a whole one, not negative, and exact in the double that cJSON keeps. */
static bool whole_number(size_t *out, const cJSON *item) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 0x1p53)) {
        return false;
    }
    *out = (size_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static mq_status read_dtype(const header_reader *r, mq_tensor_info *info, const cJSON *item) {
    if (!cJSON_IsString(item)) {
        return reject(r, info->name, "\"dtype\" is missing or not a string");
    }
    if (!mq_dtype_parse(&info->dtype, item->valuestring)) {
        return mq_fail_tensor(r->err, MQ_ERR_INPUT, r->path, info->name, "unknown dtype \"%.32s\"",
                              item->valuestring);
    }
    return MQ_OK;
}

static mq_status read_shape(const header_reader *r, mq_tensor_info *info, const cJSON *item) {
    if (!cJSON_IsArray(item)) {
        return reject(r, info->name, "\"shape\" is missing or not an array");
    }
    info->elements = 1;
    bool overflow = false;
    for (const cJSON *entry = item->child; entry != NULL; entry = entry->next) {
        if (info->dims == MQ_MAX_DIMS) {
            return mq_fail_tensor(r->err, MQ_ERR_INPUT, r->path, info->name,
                                  "more than %d dimensions", MQ_MAX_DIMS);
        }
        size_t length;
        if (!whole_number(&length, entry)) {
            return reject(r, info->name, "an entry of \"shape\" is not a whole number");
        }
        info->shape[info->dims++] = length;
        overflow = overflow || !mq_mul_size(&info->elements, info->elements, length);
    }
    if (overflow || !mq_mul_size(&info->bytes, info->elements, mq_dtype_size(info->dtype))) {
        return reject(r, info->name, "the product of \"shape\" overflows");
    }
    return MQ_OK;
}

static mq_status read_offsets(const header_reader *r, mq_tensor_info *info, const cJSON *item) {
    size_t begin;
    size_t end;
    if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 ||
        !whole_number(&begin, item->child) || !whole_number(&end, item->child->next)) {
        return reject(r, info->name, "\"data_offsets\" are not two whole numbers");
    }
    uint64_t at = (uint64_t)r->data_start + begin;
    if (begin > end || end > r->data_size) {
        return mq_fail_offset(r->err, MQ_ERR_INPUT, r->path, info->name, at,
                              "\"data_offsets\" %zu to %zu are not within the %zu bytes of data",
                              begin, end, r->data_size);
    }
    if (end - begin != info->bytes) {
        return mq_fail_offset(r->err, MQ_ERR_INPUT, r->path, info->name, at,
                              "%zu bytes of data for a dtype and shape of %zu", end - begin,
                              info->bytes);
    }
    info->data = r->data + begin;
    info->file_offset = (size_t)at;
    return MQ_OK;
}

static mq_status read_tensor(const header_reader *r, mq_tensor_info *info, const cJSON *entry) {
    if (!cJSON_IsObject(entry)) {
        return reject(r, info->name, "its header entry is not an object");
    }
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    enum { DTYPE, SHAPE, OFFSETS, KEYS };
    const cJSON *found[KEYS] = {0};
    for (const cJSON *member = entry->child; member != NULL; member = member->next) {
        for (int i = 0; i < KEYS; i++) {
            if (strcmp(member->string, keys[i]) == 0) {
                if (found[i] != NULL) { /* cJSON keeps both, and would show the first */
                    return mq_fail_tensor(r->err, MQ_ERR_INPUT, r->path, info->name,
                                          "\"%s\" stands twice in its header entry", keys[i]);
                }
                found[i] = member;
            }
        }
    }
    mq_status status = read_dtype(r, info, found[DTYPE]);
    if (status == MQ_OK) {
        status = read_shape(r, info, found[SHAPE]);
    }
    return status == MQ_OK ? read_offsets(r, info, found[OFFSETS]) : status;
}

/* --- all tensors ------------------------------------------------------------------------------ */

static bool is_metadata(const cJSON *entry) { return strcmp(entry->string, "__metadata__") == 0; }

/* The infos, named, with room for all; names are copied, so that the JSON can go. */
static mq_status allocate_infos(const header_reader *r, mq_shard *shard, const cJSON *header) {
    size_t count = 0;
    size_t name_bytes = 0;
    for (const cJSON *entry = header->child; entry != NULL; entry = entry->next) {
        count++;
        name_bytes += strlen(entry->string) + 1;
    }
    mq_status status =
        mq_new(&shard->infos, count, sizeof *shard->infos, "a list of tensors", r->err);
    if (status == MQ_OK) {
        status = mq_new(&shard->names, name_bytes, 1, "the names of tensors", r->err);
    }
    if (status != MQ_OK) {
        return mq_error_in_file(r->err, status, r->path);
    }
    char *name = shard->names;
    for (const cJSON *entry = header->child; entry != NULL; entry = entry->next) {
        if (!is_metadata(entry)) {
            size_t size = strlen(entry->string) + 1;
            memcpy(name, entry->string, size);
            shard->infos[shard->count++] = (mq_tensor_info){.name = name, .file = shard->path};
            name += size;
        }
    }
    return MQ_OK;
}

static int compare_offsets(const void *a, const void *b) {
    const mq_tensor_info *left = a;
    const mq_tensor_info *right = b;
    if (left->file_offset != right->file_offset) {
        return left->file_offset < right->file_offset ? -1 : 1;
    }
    if (left->bytes !=
        right->bytes) { /* what is empty comes before what begins at the same place */
        return left->bytes < right->bytes ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static mq_status no_tensors_bytes(const header_reader *r, size_t from, size_t to) {
    return mq_fail_offset(r->err, MQ_ERR_INPUT, r->path, NULL, from,
                          "%zu bytes of data belong to no tensor", to - from);
}

/* Sorts the infos by offset. Each must begin where the one before it ends, the last end with the
 * file. */
static mq_status check_layout(const header_reader *r, mq_shard *shard) {
    if (shard->count > 0) {
        qsort(shard->infos, shard->count, sizeof *shard->infos, compare_offsets);
    }
    size_t end = r->data_start;
    for (size_t i = 0; i < shard->count; i++) {
        const mq_tensor_info *info = &shard->infos[i];
        if (i > 0 && strcmp(info->name, info[-1].name) == 0) { /* both at one place, then */
            return reject(r, info->name, "stands twice in the header");
        }
        if (info->file_offset < end) {
            return mq_fail_offset(r->err, MQ_ERR_INPUT, r->path, info->name, info->file_offset,
                                  "overlaps tensor %s", shard->infos[i - 1].name);
        }
        if (info->file_offset > end) {
            return no_tensors_bytes(r, end, info->file_offset);
        }
        end += info->bytes;
    }
    size_t file_end = r->data_start + r->data_size;
    return end < file_end ? no_tensors_bytes(r, end, file_end) : MQ_OK;
}

static mq_status read_entries(const header_reader *r, mq_shard *shard, const cJSON *header) {
    mq_status status = allocate_infos(r, shard, header);
    mq_tensor_info *info = shard->infos;
    for (const cJSON *entry = header->child; status == MQ_OK && entry != NULL;
         entry = entry->next) {
        if (!is_metadata(entry)) {
            status = read_tensor(r, info++, entry);
        } else if (!cJSON_IsObject(entry)) {
            status = mq_fail_file(r->err, MQ_ERR_INPUT, r->path, "__metadata__ is not an object");
        }
    }
    return status == MQ_OK ? check_layout(r, shard) : status;
}

/* --- the file --------------------------------------------------------------------------------- */

/* Errors of the JSON parser count from the header's beginning. */
static mq_status in_file_offsets(mq_error *err, mq_status status) {
    if (err != NULL && err->has_offset) {
        err->offset += LENGTH_BYTES;
    }
    return status;
}

static mq_status parse_header(const header_reader *r, mq_shard *shard, const char *text,
                              size_t size) {
    if (size == 0 || text[0] != '{') {
        return mq_fail_offset(r->err, MQ_ERR_INPUT, r->path, NULL, LENGTH_BYTES,
                              "the header does not begin with '{'");
    }
    cJSON *header = NULL;
    mq_status status = mq_json_parse(&header, text, size, r->path, r->err);
    if (status != MQ_OK) {
        return in_file_offsets(r->err, status);
    }
    status = read_entries(r, shard, header);
    cJSON_Delete(header);
    return status;
}

static mq_status read_header(mq_shard *shard, mq_error *err) {
    const mq_mapping *mapping = &shard->mapping;
    if (mapping->size < LENGTH_BYTES) {
        return mq_fail_offset(err, MQ_ERR_INPUT, shard->path, NULL, mapping->size,
                              "the file ends within the header length");
    }
    if (mq_is_lfs_pointer(mapping->data, mapping->size)) { /* they begin with no length */
        return mq_fail_lfs_pointer(err, shard->path);
    }
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        length = length << 8 | mapping->data[i];
    }
    if (length > MAX_HEADER) {
        return mq_fail_offset(err, MQ_ERR_INPUT, shard->path, NULL, 0,
                              "a header of %llu bytes, more than 100 MiB",
                              (unsigned long long)length);
    }
    if (length > mapping->size - LENGTH_BYTES) {
        return mq_fail_offset(err, MQ_ERR_INPUT, shard->path, NULL, 0,
                              "a header of %llu bytes in a file of %zu", (unsigned long long)length,
                              mapping->size);
    }
    size_t start = LENGTH_BYTES + (size_t)length;
    header_reader r = {.path = shard->path,
                       .data = mapping->data + start,
                       .data_size = mapping->size - start,
                       .data_start = start,
                       .err = err};
    return parse_header(&r, shard, (const char *)mapping->data + LENGTH_BYTES, (size_t)length);
}

mq_status mq_shard_open(mq_shard *out, const char *path, mq_error *err) {
    mq_shard shard = {.path = mq_strdup(path)};
    if (shard.path == NULL) {
        return mq_error_in_file(err, mq_fail_memory(err, "a path", strlen(path) + 1), path);
    }
    mq_status status = mq_map_file(&shard.mapping, path, err);
    if (status == MQ_OK) {
        status = read_header(&shard, err);
    }
    if (status != MQ_OK) {
        mq_shard_close(&shard);
        return status;
    }
    *out = shard;
    return MQ_OK;
}

void mq_shard_close(mq_shard *shard) {
    mq_unmap_file(&shard->mapping);
    mq_free(shard->path);
    mq_free(shard->infos);
    mq_free(shard->names);
    *shard = (mq_shard){0};
}
