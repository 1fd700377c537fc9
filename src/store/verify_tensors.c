#include "store/verification.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/folder.h"

/* --- what matquant.json lists ----------------------------------------------------------------- */

typedef struct listed {
    const char *name;
    const cJSON *entry;
    uint32_t crc;
    bool readable; /* the entry is 8 hexadecimal digits */
    bool found;
} listed;

typedef struct listing {
    listed *entries; /* by name */
    size_t count;
} listing;

static int compare_listed(const void *a, const void *b) {
    return strcmp(((const listed *)a)->name, ((const listed *)b)->name);
}

static bool parse_crc(uint32_t *out, const cJSON *entry) {
    const cJSON *crc = cJSON_GetObjectItemCaseSensitive(entry, "crc32");
    static const char digits[] = "0123456789abcdefABCDEF";
    if (!cJSON_IsString(crc) || strlen(crc->valuestring) != 8 ||
        strspn(crc->valuestring, digits) != 8) {
        return false;
    }
    *out = (uint32_t)strtoul(crc->valuestring, NULL, 16);
    return true;
}

static mq_status read_listing(listing *out, const mq_verification *self, mq_error *err) {
    const cJSON *tensors = cJSON_GetObjectItemCaseSensitive(self->provenance, "tensors");
    mq_error problem = {.status = MQ_OK};
    if (!cJSON_IsObject(tensors)) {
        mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, MQ_PROVENANCE_FILE,
                        "%s: there is no CRC-32 to check",
                        self->provenance == NULL ? "is not there" : "lists no tensors");
        return mq_problem(self->problems, &problem, err);
    }
    size_t count = 0;
    for (const cJSON *item = tensors->child; item != NULL; item = item->next) {
        count++;
    }
    mq_status status =
        mq_new(&out->entries, count, sizeof *out->entries, "the list of tensors", err);
    if (status != MQ_OK) {
        return status;
    }
    for (const cJSON *item = tensors->child; item != NULL; item = item->next) {
        listed *entry = &out->entries[out->count++];
        *entry = (listed){.name = item->string, .entry = item};
        entry->readable = parse_crc(&entry->crc, item);
    }
    if (count > 0) {
        qsort(out->entries, count, sizeof *out->entries, compare_listed);
    }
    return MQ_OK;
}

static listed *find_listed(const listing *list, const char *name) {
    const listed key = {.name = name};
    return list->count == 0
               ? NULL
               : bsearch(&key, list->entries, list->count, sizeof *list->entries, compare_listed);
}

/* --- one tensor ------------------------------------------------------------------------------- */

/* CRC-32, and the first element that is not finite (or the number of elements), in one pass through
 * the file. */
static mq_status scan_tensor(uint32_t *crc, size_t *bad, const mq_verification *self,
                             const mq_tensor_info *info, mq_error *err) {
    bool is_float = mq_dtype_is_weight(info->dtype);
    size_t element = mq_dtype_size(info->dtype);
    *crc = 0;
    *bad = info->elements;
    mq_tensor_will_need(self->tensors, info);
    for (size_t done = 0; done < info->bytes;) {
        size_t piece = info->bytes - done < MQ_STREAM_BYTES ? info->bytes - done : MQ_STREAM_BYTES;
        mq_status status = mq_check_interrupt(self->context, err);
        if (status != MQ_OK) {
            return status;
        }
        *crc = mq_crc32(*crc, info->data + done, piece);
        if (is_float && *bad == info->elements) {
            size_t count = piece / element;
            size_t first = mq_first_non_finite(info->data + done, info->dtype, count);
            *bad = first < count ? done / element + first : info->elements;
        }
        done += piece;
    }
    mq_tensor_dont_need(self->tensors, info);
    return MQ_OK;
}

/* Whether dtype and shape are those of the entry; an earlier program did not list them. */
static bool has_listed_form(const mq_tensor_info *info, const cJSON *entry) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape"), *size = NULL;
    bool same = dtype == NULL || (cJSON_IsString(dtype) &&
                                  strcmp(dtype->valuestring, mq_dtype_name(info->dtype)) == 0);
    if (shape == NULL) {
        return same;
    }
    size_t dims = 0;
    cJSON_ArrayForEach(size, shape) {
        same = same && dims < info->dims && cJSON_IsNumber(size) &&
               size->valuedouble == (double)info->shape[dims];
        dims++;
    }
    return same && cJSON_IsArray(shape) && dims == info->dims;
}

/* entry: NULL, there is none. The bytes alone do not say what they are: F16 and BF16 have the same
 * size, and so have many shapes. */
static mq_status compare_to_listed(mq_error *problem, const mq_tensor_info *info, uint32_t crc,
                                   const listed *entry) {
    char shape[128];
    if (entry == NULL) {
        return mq_fail_tensor(problem, MQ_ERR_INPUT, info->file, info->name,
                              "is not listed in " MQ_PROVENANCE_FILE);
    }
    if (!entry->readable) {
        return mq_fail_tensor(problem, MQ_ERR_INPUT, info->file, info->name,
                              "its crc32 in " MQ_PROVENANCE_FILE " is not 8 hexadecimal digits");
    }
    if (!has_listed_form(info, entry->entry)) {
        return mq_fail_tensor(problem, MQ_ERR_INPUT, info->file, info->name,
                              "is %s %s, which is not the dtype and shape in " MQ_PROVENANCE_FILE,
                              mq_dtype_name(info->dtype),
                              mq_shape_text(shape, sizeof shape, info->shape, info->dims));
    }
    return entry->crc == crc ? MQ_OK
                             : mq_fail_tensor(problem, MQ_ERR_INPUT, info->file, info->name,
                                              "CRC-32 is %08" PRIx32 ", " MQ_PROVENANCE_FILE
                                              " says %08" PRIx32 ": the bytes have changed",
                                              crc, entry->crc);
}

static mq_status check_tensor(const mq_verification *self, const mq_tensor_info *info,
                              const listing *list, mq_error *err) {
    uint32_t crc = 0;
    size_t bad = 0;
    mq_status status = scan_tensor(&crc, &bad, self, info, err);
    if (status == MQ_OK && bad < info->elements) {
        mq_error problem;
        mq_fail_offset(&problem, MQ_ERR_INPUT, info->file, info->name,
                       info->file_offset + bad * mq_dtype_size(info->dtype),
                       "element %zu is not finite", bad);
        status = mq_problem(self->problems, &problem, err);
    }
    if (status != MQ_OK || list->entries == NULL) {
        return status;
    }
    listed *entry = find_listed(list, info->name);
    if (entry != NULL) {
        entry->found = true;
    }
    mq_error problem;
    return compare_to_listed(&problem, info, crc, entry) == MQ_OK
               ? MQ_OK
               : mq_problem(self->problems, &problem, err);
}

/* --- all tensors ------------------------------------------------------------------------------ */

static mq_status check_missing(const mq_verification *self, const listing *list, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < list->count; i++) {
        if (!list->entries[i].found) {
            mq_error problem;
            const char *name = list->entries[i].name;
            mq_fail_tensor(&problem, MQ_ERR_INPUT, mq_tensors_where(self->tensors, name), name,
                           "is listed in " MQ_PROVENANCE_FILE " but missing");
            status = mq_problem(self->problems, &problem, err);
        }
    }
    return status;
}

mq_status mq_verify_tensors(const mq_verification *self, mq_error *err) {
    listing list = {0};
    double start = mq_seconds();
    mq_status status = read_listing(&list, self, err);
    size_t count = mq_tensors_count(self->tensors);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const mq_tensor_info *info = mq_tensors_at(self->tensors, i);
        status = check_tensor(self, info, &list, err);
        self->report->tensors++;
        self->report->bytes += info->bytes;
        mq_progress progress = {.phase = "verify",
                                .unit = "tensor",
                                .done = (double)(i + 1),
                                .total = (double)count,
                                .elapsed_seconds = mq_seconds() - start};
        mq_report(self->context, &progress);
    }
    if (status == MQ_OK) {
        status = check_missing(self, &list, err);
    }
    mq_free(list.entries);
    return status;
}
