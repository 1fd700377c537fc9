#include "export/stream.h"

#include <string.h>

#include "base/context.h"
#include "matquant/version.h"
#include "store/folder.h"
#include "store/pack.h"

typedef struct stream {
    const mq_export_job *job;
    const mq_slice_layout *layout;
    mq_tensor_writer *writer;
    unsigned char *block; /* [MQ_STREAM_BYTES], or a row that is longer */
    size_t block_bytes;
    mq_slice_report *report;
} stream;

/* --- codes ------------------------------------------------------------------------------------ */

/* Rows [first, first + count) of the codes as the slice holds them; [count, row_bytes]. One thread
 * packs some gigabytes a second, more than disks write: waking others would only cost. */
static void slice_rows(unsigned char *out, const mq_slice_layout *layout,
                       const mq_slice_piece *piece, mq_slice_rule rule, size_t first, size_t count,
                       size_t row_bytes) {
    size_t in = piece->linear->in;
    unsigned width = layout->width;
    const uint8_t *codes = piece->source->data + first * in;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = codes + i * in;
        unsigned char *to = out + i * row_bytes;
        if (layout->form == MQ_SLICE_MLX) {
            mq_pack_row((uint32_t *)(void *)to, from, in, width,
                        rule); /* rows of words in an aligned block */
        } else {
            mq_slice_codes(to, from, in, width, rule);
            for (size_t k = 0; k < in; k++) {
                to[k] = (uint8_t)(to[k] << (MQ_MAX_WIDTH - width));
            }
        }
    }
}

/* --- scales and biases ------------------------------------------------------------------------ */

/* Rows of float16, each number `repeat` times; [count, groups·repeat]. */
static void repeat_rows(unsigned char *out, const mq_slice_piece *piece, size_t first,
                        size_t count) {
    size_t groups = piece->linear->groups, repeat = piece->repeat, half = sizeof(uint16_t);
    const unsigned char *from = piece->source->data + first * groups * half;
    for (size_t i = 0; i < count * groups; i++) {
        for (size_t k = 0; k < repeat; k++) {
            memcpy(out, from + i * half, half);
            out += half;
        }
    }
}

/* --- all tensors ------------------------------------------------------------------------------ */

static size_t row_bytes_of(const mq_tensor_spec *spec) {
    return spec->shape[1] * mq_dtype_size(spec->dtype);
}

/* A scale or bias that is not finite is no model's (matquant/format.h): it must not travel on. */
static mq_status check_pair(const mq_tensor_info *info, mq_error *err) {
    const size_t at = mq_first_non_finite(info->data, info->dtype, info->elements);
    if (at == info->elements) {
        return MQ_OK;
    }
    return mq_fail_offset(err, MQ_ERR_INPUT, info->file, info->name,
                          info->file_offset + at * mq_dtype_size(info->dtype),
                          "element %zu is not finite", at);
}

static mq_status stream_linear_piece(const stream *self, size_t index, mq_error *err) {
    const mq_tensor_spec *spec = &self->layout->specs[index];
    const mq_slice_piece *piece = &self->layout->pieces[index];
    const mq_tensors *tensors = mq_master_tensors(self->job->master);
    mq_slice_rule rule = mq_master_slice_rule(self->job->master);
    size_t rows = spec->shape[0], row_bytes = row_bytes_of(spec),
           at_once = self->block_bytes / row_bytes;
    mq_tensor_will_need(tensors, piece->source);
    if (piece->kind != MQ_PIECE_CODES) {
        const mq_status status = check_pair(piece->source, err);
        if (status != MQ_OK) {
            return status;
        }
    }
    for (size_t first = 0; first < rows; first += at_once) {
        size_t count = rows - first < at_once ? rows - first : at_once;
        mq_status status = mq_check_interrupt(self->job->context, err);
        if (status != MQ_OK) {
            return status;
        }
        if (piece->kind == MQ_PIECE_CODES) {
            slice_rows(self->block, self->layout, piece, rule, first, count, row_bytes);
        } else {
            repeat_rows(self->block, piece, first, count);
        }
        status = mq_tensor_writer_put_part(self->writer, index, first * row_bytes, self->block,
                                           count * row_bytes, err);
        if (status != MQ_OK) {
            return status;
        }
    }
    mq_tensor_dont_need(tensors, piece->source);
    return MQ_OK;
}

static mq_status stream_tensors(const stream *self, mq_error *err) {
    const mq_slice_layout *layout = self->layout;
    double start = mq_seconds();
    for (size_t i = 0; i < layout->count; i++) {
        const mq_slice_piece *piece = &layout->pieces[i];
        mq_status status =
            piece->kind == MQ_PIECE_COPY
                ? mq_copy_tensor(self->writer, i, mq_master_tensors(self->job->master),
                                 piece->source, self->job->context, err)
                : stream_linear_piece(self, i, err);
        if (status != MQ_OK) {
            return status;
        }
        self->report->tensors++;
        self->report->bytes_read += piece->source->bytes;
        mq_progress progress = {.phase = "slice",
                                .unit = "tensor",
                                .done = (double)(i + 1),
                                .total = (double)layout->count,
                                .elapsed_seconds = mq_seconds() - start};
        mq_report(self->job->context, &progress);
    }
    return MQ_OK;
}

/* --- matquant.json ---------------------------------------------------------------------------- */

static mq_status add_string(cJSON *object, const char *key, const char *text, mq_error *err) {
    return mq_json_add(object, key, cJSON_CreateString(text), err);
}

/* "master" of "/models/master/": the slice does not say where on this machine its master lay. */
static mq_status add_folder_name(cJSON *object, const char *key, const char *folder,
                                 mq_error *err) {
    char *copy = mq_strdup(folder);
    if (copy == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    for (size_t length = strlen(copy); length > 1 && copy[length - 1] == '/'; length--) {
        copy[length - 1] = '\0';
    }
    mq_status status = add_string(object, key, mq_path_base(copy), err);
    mq_free(copy);
    return status;
}

/* Which master: its name, and the digest of its matquant.json, which in turn has the CRC-32 of all
 * its tensors. */
static mq_status add_master(cJSON *slice, const mq_export_job *job, mq_error *err) {
    mq_status status = add_folder_name(slice, "master", job->folder, err);
    if (status != MQ_OK || mq_master_provenance(job->master) == NULL) {
        return status;
    }
    char *path = mq_path_join(job->folder, MQ_PROVENANCE_FILE);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(job->folder));
    }
    char digest[65];
    status = mq_sha256_file(digest, path, err);
    mq_free(path);
    if (status == MQ_OK) {
        status = add_string(slice, "master_sha256", digest, err);
    }
    static const char *const kept[][2] = {{"tool", "master_tool"},
                                          {"recipe", "recipe"},
                                          {"source", "source"},
                                          {"calibration", "calibration"}};
    for (size_t i = 0; status == MQ_OK && i < sizeof kept / sizeof *kept; i++) {
        const cJSON *item =
            cJSON_GetObjectItemCaseSensitive(mq_master_provenance(job->master), kept[i][0]);
        if (item != NULL) {
            status = mq_json_add(slice, kept[i][1], cJSON_Duplicate(item, true), err);
        }
    }
    return status;
}

static mq_status add_slice(cJSON *whole, const mq_export_job *job, const mq_slice_layout *layout,
                           const char *format, mq_error *err) {
    cJSON *slice = cJSON_AddObjectToObject(whole, "slice");
    if (slice == NULL) {
        return mq_fail_memory(err, "a JSON file", 0);
    }
    mq_status status = add_string(slice, "format", format, err);
    if (status == MQ_OK) {
        status = mq_json_add(slice, "width", cJSON_CreateNumber(layout->width), err);
    }
    if (status == MQ_OK) {
        status = add_master(slice, job, err);
    }
    cJSON *names = status == MQ_OK ? cJSON_AddArrayToObject(slice, "private") : NULL;
    if (status == MQ_OK && names == NULL) {
        return mq_fail_memory(err, "a JSON file", 0);
    }
    for (size_t i = 0; status == MQ_OK && i < layout->count; i++) {
        if (layout->pieces[i].is_private &&
            !cJSON_AddItemToArray(names, cJSON_CreateString(layout->specs[i].name))) {
            status = mq_fail_memory(err, "a JSON file", 0);
        }
    }
    return status;
}

static mq_status write_provenance(const stream *self, const char *format, mq_error *err) {
    cJSON *whole = cJSON_CreateObject();
    if (whole == NULL) {
        return mq_fail_memory(err, "a JSON file", 0);
    }
    mq_status status =
        mq_json_add(whole, "format_version", cJSON_CreateNumber(MQ_FORMAT_VERSION), err);
    if (status == MQ_OK) {
        status = add_string(whole, "tool", "matquant " MQ_VERSION, err);
    }
    if (status == MQ_OK) {
        status = add_slice(whole, self->job, self->layout, format, err);
    }
    if (status == MQ_OK) {
        status =
            mq_json_add_crcs(whole, self->writer, self->layout->specs, self->layout->count, err);
    }
    if (status == MQ_OK) {
        status = mq_write_json(self->job->output, MQ_PROVENANCE_FILE, whole, err);
    }
    cJSON_Delete(whole);
    return status;
}

/* --- the folder ------------------------------------------------------------------------------- */

static size_t longest_row(const mq_slice_layout *layout) {
    size_t longest = 0;
    for (size_t i = 0; i < layout->count; i++) {
        if (layout->pieces[i].kind != MQ_PIECE_COPY && row_bytes_of(&layout->specs[i]) > longest) {
            longest = row_bytes_of(&layout->specs[i]);
        }
    }
    return longest;
}

cJSON *mq_export_quantization(size_t group_size, unsigned width) {
    cJSON *object = cJSON_CreateObject();
    if (object == NULL ||
        cJSON_AddNumberToObject(object, "group_size", (double)group_size) == NULL ||
        cJSON_AddNumberToObject(object, "bits", width) == NULL) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

static mq_status write_all(stream *self, const cJSON *config, const char *format, mq_error *err) {
    size_t longest = longest_row(self->layout);
    self->block_bytes = longest > MQ_STREAM_BYTES ? longest : MQ_STREAM_BYTES;
    mq_status status = mq_new(&self->block, self->block_bytes, 1, "a block of rows", err);
    if (status == MQ_OK) {
        status = mq_tensor_writer_open(&self->writer, self->job->output, self->layout->specs,
                                       self->layout->count, self->job->max_shard_size, err);
    }
    if (status == MQ_OK) {
        status = stream_tensors(self, err);
    }
    if (status == MQ_OK) {
        status = write_provenance(self, format, err);
    }
    if (status == MQ_OK) {
        status = mq_tensor_writer_close(self->writer, err);
        self->writer = NULL;
    }
    if (status == MQ_OK) {
        status = mq_write_json(self->job->output, MQ_CONFIG_FILE, config, err);
    }
    return status == MQ_OK ? mq_copy_small_files(self->job->output, self->job->folder, err)
                           : status;
}

mq_status mq_export_stream(const mq_export_job *job, const mq_slice_layout *layout,
                           const cJSON *config, const char *format, mq_slice_report *report,
                           mq_error *err) {
    stream self = {.job = job, .layout = layout, .report = report};
    mq_status status = write_all(&self, config, format, err);
    mq_tensor_writer_abandon(self.writer);
    mq_free(self.block);
    if (status == MQ_OK) {
        report->bits_per_weight =
            layout->quantized_weights == 0
                ? 0.0
                : 8.0 * (double)layout->quantized_bytes / (double)layout->quantized_weights;
    }
    return status;
}
