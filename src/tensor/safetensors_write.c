#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "tensor/safetensors_file.h"

typedef struct entry {
    mq_tensor_spec spec; /* its name is ours */
    size_t bytes;
    size_t shard;
    size_t offset;  /* in the shard's data section */
    size_t written; /* bytes so far */
    uint32_t crc;   /* of those */
} entry;

typedef struct shard {
    char name[256];
    mq_writer *file;
    size_t data_start; /* offset of the data section in the file */
    size_t bytes;      /* of data */
    uint32_t header;   /* CRC-32 of what comes before the data */
} shard;

struct mq_tensor_writer {
    mq_output *output;
    entry *entries; /* [count], as declared */
    size_t count;
    const entry **by_name;   /* [count] */
    const entry **by_layout; /* [count]: by shard and offset */
    shard *shards;           /* [shard_count] */
    size_t shard_count;
    bool sealed;
};

/* --- what is declared ------------------------------------------------------------------------- */

static mq_status copy_spec(entry *out, const mq_tensor_spec *spec, mq_error *err) {
    size_t elements = 1;
    bool fits = spec->dims <= MQ_MAX_DIMS;
    for (size_t i = 0; fits && i < spec->dims; i++) {
        fits = mq_mul_size(&elements, elements, spec->shape[i]);
    }
    if (!fits || !mq_mul_size(&out->bytes, elements, mq_dtype_size(spec->dtype))) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, "", spec->name, "its shape cannot be written");
    }
    out->spec = *spec;
    out->spec.name = mq_strdup(spec->name);
    return out->spec.name != NULL ? MQ_OK
                                  : mq_fail_memory(err, "a tensor's name", strlen(spec->name) + 1);
}

static int compare_names(const void *a, const void *b) {
    const entry *const *left = a;
    const entry *const *right = b;
    return strcmp((*left)->spec.name, (*right)->spec.name);
}

static int compare_name_to(const void *name, const void *other) {
    return strcmp(name, (*(const entry *const *)other)->spec.name);
}

static mq_status copy_specs(mq_tensor_writer *writer, const mq_tensor_spec *specs, size_t count,
                            mq_error *err) {
    writer->entries = mq_calloc(count, sizeof *writer->entries);
    writer->by_name = mq_alloc(count, sizeof *writer->by_name);
    writer->by_layout = mq_alloc(count, sizeof *writer->by_layout);
    if (writer->entries == NULL || writer->by_name == NULL || writer->by_layout == NULL) {
        return mq_fail_memory(err, "a list of tensors", count * sizeof *writer->entries);
    }
    for (size_t i = 0; i < count; i++) {
        mq_status status = copy_spec(&writer->entries[i], &specs[i], err);
        if (status != MQ_OK) {
            return status;
        }
        writer->count++;
        writer->by_name[i] = &writer->entries[i];
        writer->by_layout[i] = &writer->entries[i];
    }
    if (count > 0) {
        qsort(writer->by_name, count, sizeof *writer->by_name, compare_names);
    }
    for (size_t i = 1; i < count; i++) {
        if (compare_names(&writer->by_name[i - 1], &writer->by_name[i]) == 0) {
            return mq_fail_tensor(err, MQ_ERR_INPUT, "", writer->by_name[i]->spec.name,
                                  "would be written twice");
        }
    }
    return MQ_OK;
}

/* --- where everything goes -------------------------------------------------------------------- */

/* Tensors go to shards in the declared order: a new one where the next tensor does not fit any
 * more. */
static size_t assign_shards(mq_tensor_writer *writer, size_t max_shard_size) {
    size_t last = 0;
    size_t used = 0;
    for (size_t i = 0; i < writer->count; i++) {
        entry *e = &writer->entries[i];
        size_t end;
        bool fits =
            mq_add_size(&end, used, e->bytes) && (max_shard_size == 0 || end <= max_shard_size);
        if (!fits && used > 0) {
            last++;
            end = e->bytes;
        }
        used = end;
        e->shard = last;
    }
    return last + 1;
}

/* The format allows no gap between tensors, so alignment takes an order: larger elements first.
 * Among equals, the declared order, which that of the entries in memory is. */
static int compare_layout(const void *a, const void *b) {
    const entry *left = *(const entry *const *)a;
    const entry *right = *(const entry *const *)b;
    if (left->shard != right->shard) {
        return left->shard < right->shard ? -1 : 1;
    }
    size_t left_size = mq_dtype_size(left->spec.dtype);
    size_t right_size = mq_dtype_size(right->spec.dtype);
    if (left_size != right_size) {
        return left_size > right_size ? -1 : 1;
    }
    return left < right ? -1 : left > right;
}

static mq_status lay_out(mq_tensor_writer *writer, size_t max_shard_size, mq_error *err) {
    writer->shard_count = assign_shards(writer, max_shard_size);
    writer->shards = mq_calloc(writer->shard_count, sizeof *writer->shards);
    if (writer->shards == NULL) {
        size_t size = writer->shard_count * sizeof *writer->shards;
        writer->shard_count = 0;
        return mq_fail_memory(err, "the shards", size);
    }
    for (size_t i = 0; i < writer->shard_count; i++) {
        shard *s = &writer->shards[i];
        if (writer->sealed) {
            snprintf(s->name, sizeof s->name, "%s", mq_output_file_name(writer->output));
        } else if (writer->shard_count == 1) {
            snprintf(s->name, sizeof s->name, "model.safetensors");
        } else {
            snprintf(s->name, sizeof s->name, "model-%05zu-of-%05zu.safetensors", i + 1,
                     writer->shard_count);
        }
    }
    if (writer->count > 0) {
        qsort(writer->by_layout, writer->count, sizeof *writer->by_layout, compare_layout);
    }
    for (size_t i = 0; i < writer->count; i++) {
        entry *e = &writer->entries[writer->by_layout[i] - writer->entries];
        shard *s = &writer->shards[e->shard];
        e->offset = s->bytes;
        if (!mq_add_size(&s->bytes, s->bytes, e->bytes)) {
            return mq_fail_tensor(err, MQ_ERR_USAGE, "", e->spec.name,
                                  "its shape cannot be written");
        }
    }
    return MQ_OK;
}

/* --- headers ---------------------------------------------------------------------------------- */

static void put_entry(mq_buffer *header, const entry *e) {
    mq_buffer_put_text(header, ",");
    mq_buffer_put_json_string(header, e->spec.name);
    mq_buffer_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", mq_dtype_name(e->spec.dtype));
    for (size_t i = 0; i < e->spec.dims; i++) {
        mq_buffer_printf(header, i == 0 ? "%zu" : ",%zu", e->spec.shape[i]);
    }
    mq_buffer_printf(header, "],\"data_offsets\":[%zu,%zu]}", e->offset, e->offset + e->bytes);
}

/* The length and the header of a shard whose tensors begin at by_layout[first]; first moves on to
 * the next shard's. Padded so that the data begins at a multiple of 8. */
static void make_header(mq_buffer *header, const mq_tensor_writer *writer, size_t shard_index,
                        size_t *first) {
    static const char length_to_come[8] = {0};
    mq_buffer_put(header, length_to_come, sizeof length_to_come);
    mq_buffer_put_text(header, writer->sealed ? MQ_SEAL_BEFORE MQ_SEAL_NONE "\"}"
                                              : "{\"__metadata__\":{\"format\":\"pt\"}");
    while (*first < writer->count && writer->by_layout[*first]->shard == shard_index) {
        put_entry(header, writer->by_layout[(*first)++]);
    }
    mq_buffer_put_text(header, "}");
    while (!header->failed && header->length % 8 != 0) {
        mq_buffer_put_text(header, " ");
    }
    if (!header->failed) {
        uint64_t length = header->length - sizeof length_to_come;
        for (size_t i = 0; i < sizeof length_to_come; i++) {
            header->text[i] = (char)(length >> (8 * i) & 0xff);
        }
    }
}

static mq_status open_files(mq_tensor_writer *writer, mq_error *err) {
    size_t first = 0;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < writer->shard_count; i++) {
        shard *s = &writer->shards[i];
        mq_buffer header = {0};
        make_header(&header, writer, i, &first);
        if (header.failed) {
            status = mq_fail_memory(err, "the header of a safetensors file", header.capacity);
        } else {
            s->data_start = header.length;
            s->header = mq_crc32(0, header.text, header.length);
            status = mq_writer_open(&s->file, writer->output, s->name, err);
        }
        if (status == MQ_OK) {
            status = mq_write_at(s->file, 0, header.text, header.length, err);
        }
        mq_free(header.text);
    }
    return status;
}

static mq_status open_writer(mq_tensor_writer **out, mq_output *output, const mq_tensor_spec *specs,
                             size_t count, size_t max_shard_size, bool sealed, mq_error *err) {
    mq_tensor_writer *writer = mq_calloc(1, sizeof *writer);
    if (writer == NULL) {
        return mq_fail_memory(err, "a writer of tensors", sizeof *writer);
    }
    writer->output = output;
    writer->sealed = sealed;
    mq_status status = copy_specs(writer, specs, count, err);
    if (status == MQ_OK) {
        status = lay_out(writer, max_shard_size, err);
    }
    if (status == MQ_OK) {
        status = open_files(writer, err);
    }
    if (status != MQ_OK) {
        mq_tensor_writer_abandon(writer);
        return status;
    }
    *out = writer;
    return MQ_OK;
}

mq_status mq_tensor_writer_open(mq_tensor_writer **out, mq_output *output,
                                const mq_tensor_spec *specs, size_t count, size_t max_shard_size,
                                mq_error *err) {
    return open_writer(out, output, specs, count, max_shard_size, false, err);
}

mq_status mq_tensor_writer_open_sealed(mq_tensor_writer **out, mq_output *output,
                                       const mq_tensor_spec *specs, size_t count, mq_error *err) {
    return open_writer(out, output, specs, count, 0, true, err);
}

/* --- data ------------------------------------------------------------------------------------- */

mq_status mq_tensor_writer_put_part(mq_tensor_writer *writer, size_t index, size_t offset,
                                    const void *data, size_t bytes, mq_error *err) {
    entry *e = &writer->entries[index];
    shard *s = &writer->shards[e->shard];
    if (offset != e->written || bytes > e->bytes - e->written) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, s->name, e->spec.name,
                              "%zu bytes at %zu do not follow the %zu of %zu that are there", bytes,
                              offset, e->written, e->bytes);
    }
    mq_status status =
        mq_write_at(s->file, (uint64_t)s->data_start + e->offset + offset, data, bytes, err);
    if (status != MQ_OK) {
        return mq_error_in_tensor(err, status, e->spec.name);
    }
    e->crc = mq_crc32(e->crc, data, bytes);
    e->written += bytes;
    return MQ_OK;
}

mq_status mq_tensor_writer_put(mq_tensor_writer *writer, size_t index, const void *data,
                               size_t bytes, mq_error *err) {
    const entry *e = &writer->entries[index];
    if (bytes != e->bytes) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, writer->shards[e->shard].name, e->spec.name,
                              "%zu bytes where %zu were declared", bytes, e->bytes);
    }
    return mq_tensor_writer_put_part(writer, index, 0, data, bytes, err);
}

mq_status mq_tensor_writer_get_part(void *data, const mq_tensor_writer *writer, size_t index,
                                    size_t offset, size_t bytes, mq_error *err) {
    const entry *e = &writer->entries[index];
    const shard *s = &writer->shards[e->shard];
    if (offset > e->written || bytes > e->written - offset) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, s->name, e->spec.name,
                              "%zu bytes at %zu are wanted back, but %zu were written", bytes,
                              offset, e->written);
    }
    const mq_status status =
        mq_written_at(data, s->file, (uint64_t)s->data_start + e->offset + offset, bytes, err);
    return status == MQ_OK ? MQ_OK : mq_error_in_tensor(err, status, e->spec.name);
}

void mq_tensor_writer_begin_again(mq_tensor_writer *writer, size_t index) {
    entry *e = &writer->entries[index];
    e->written = 0;
    e->crc = 0;
}

uint32_t mq_tensor_writer_crc(const mq_tensor_writer *writer, size_t index) {
    return writer->entries[index].crc;
}

size_t mq_tensor_writer_find(const mq_tensor_writer *writer, const char *name) {
    if (writer->count == 0) {
        return 0;
    }
    const entry *const *found =
        bsearch(name, writer->by_name, writer->count, sizeof *writer->by_name, compare_name_to);
    return found == NULL ? writer->count : (size_t)(*found - writer->entries);
}

/* --- the end ---------------------------------------------------------------------------------- */

static mq_status write_index(const mq_tensor_writer *writer, mq_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < writer->shard_count; i++) {
        total += writer->shards[i].bytes;
    }
    mq_buffer text = {0};
    mq_buffer_printf(&text, "{\n  \"metadata\": {\"total_size\": %zu},\n  \"weight_map\": {",
                     total);
    for (size_t i = 0; i < writer->count; i++) {
        const entry *e = writer->by_name[i];
        mq_buffer_put_text(&text, i == 0 ? "\n    " : ",\n    ");
        mq_buffer_put_json_string(&text, e->spec.name);
        mq_buffer_printf(&text, ": \"%s\"", writer->shards[e->shard].name);
    }
    mq_buffer_put_text(&text, "\n  }\n}\n");
    mq_status status = text.failed ? mq_fail_memory(err, "the index of the shards", text.capacity)
                                   : mq_write_file(writer->output, "model.safetensors.index.json",
                                                   text.text, text.length, err);
    mq_free(text.text);
    return status;
}

/* The CRC-32 of header and data into the header. */
static mq_status seal(mq_tensor_writer *writer, mq_error *err) {
    uint32_t crc = writer->shards[0].header;
    for (size_t i = 0; i < writer->count; i++) {
        crc = mq_crc32_join(crc, writer->by_layout[i]->crc, writer->by_layout[i]->bytes);
    }
    char digits[sizeof MQ_SEAL_NONE];
    snprintf(digits, sizeof digits, "%08x", (unsigned)crc);
    return mq_write_at(writer->shards[0].file, MQ_SEAL_AT, digits, MQ_SEAL_DIGITS, err);
}

mq_status mq_tensor_writer_close(mq_tensor_writer *writer, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < writer->count; i++) {
        const entry *e = &writer->entries[i];
        if (e->written != e->bytes) {
            status = mq_fail_tensor(err, MQ_ERR_USAGE, writer->shards[e->shard].name, e->spec.name,
                                    "%zu of %zu bytes were written", e->written, e->bytes);
        }
    }
    if (status == MQ_OK && writer->sealed) {
        status = seal(writer, err);
    }
    for (size_t i = 0; status == MQ_OK && i < writer->shard_count; i++) {
        status = mq_writer_close(writer->shards[i].file, err);
        writer->shards[i].file = NULL;
    }
    if (status == MQ_OK && writer->shard_count > 1) {
        status = write_index(writer, err);
    }
    mq_tensor_writer_abandon(writer);
    return status;
}

void mq_tensor_writer_abandon(mq_tensor_writer *writer) {
    if (writer == NULL) {
        return;
    }
    for (size_t i = 0; i < writer->shard_count; i++) {
        mq_writer_abandon(writer->shards[i].file);
    }
    for (size_t i = 0; i < writer->count; i++) {
        mq_free((char *)(uintptr_t)writer->entries[i].spec.name);
    }
    mq_free(writer->entries);
    mq_free(writer->by_name);
    mq_free(writer->by_layout);
    mq_free(writer->shards);
    mq_free(writer);
}
