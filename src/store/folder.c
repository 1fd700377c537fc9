#include "store/folder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/utf8.h"
#include "matquant/format.h"

/* --- small files ------------------------------------------------------------------------------ */

static bool begins_with(const char *text, const char *begin) {
    return strncasecmp(text, begin, strlen(begin)) == 0;
}

typedef bool match(const char *name, const char *pattern);

static bool matches_one(const char *name, match *matches, const char *const *patterns,
                        size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (matches(name, patterns[i])) {
            return true;
        }
    }
    return false;
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* Pointers of Git LFS are smaller, by its specification. */
#define POINTER_BYTES ((size_t)1024)

/* A folder of the hub may hold the same weights once more. */
static bool is_weights(const char *name) {
    static const char *const ends[] = {
        ".index.json", ".bin",   ".pt",   ".pth",    ".ckpt",   ".gguf", ".ggml",      ".h5",
        ".hdf5",       ".keras", ".onnx", ".npz",    ".npy",    ".ot",   ".onnx_data", ".onnx.data",
        ".msgpack",    ".pkl",   ".pb",   ".tflite", ".distcp", ".nemo", ".mlmodel",   ".llamafile",
    };
    return strcasestr(name, ".safetensors") != NULL ||
           matches_one(name, mq_ends_with_any_case, ends, COUNT(ends));
}

/* What a training run, an editor or a download left behind. */
static bool is_leftover(const char *name) {
    static const char *const begins[] = {
        "events.out.tfevents", "trainer_state", "trainer_log", "training_args",
        "optimizer",           "scheduler",     "rng_state"};
    static const char *const ends[] = {".bak",  ".backup", ".old",        ".orig", "~",
                                       ".lock", ".part",   ".incomplete", ".tmp"};
    return matches_one(name, begins_with, begins, COUNT(begins)) ||
           matches_one(name, mq_ends_with_any_case, ends, COUNT(ends));
}

static bool same_name(const char *name, const char *other) { return strcmp(name, other) == 0; }

bool mq_is_small_file(const char *name) {
    /* What we write ourselves, and what is about other weights than ours: how they were quantized,
     * or what adapter they are. */
    static const char *const others[] = {MQ_CONFIG_FILE, MQ_PROVENANCE_FILE, "quantize_config.json",
                                         "hf_quant_config.json", MQ_ADAPTER_FILE};
    return name[0] != '.' && !begins_with(name, "README") && !is_weights(name) &&
           !is_leftover(name) && !matches_one(name, same_name, others, COUNT(others));
}

/* A vocabulary may be large, and no reader does without it. */
static bool is_tokenizer_file(const char *name) {
    static const char *const begins[] = {"tokenizer", "vocab", "merges", "tekken"};
    static const char *const ends[] = {".model", ".tiktoken"}; /* ".model": SentencePiece */
    return matches_one(name, begins_with, begins, COUNT(begins)) ||
           matches_one(name, mq_ends_with_any_case, ends, COUNT(ends));
}

static mq_status no_memory_for_path(mq_error *err, const char *name) {
    return mq_fail_memory(err, "a path", strlen(name));
}

/* Whether a file with the name of one that is copied is one. A name that is not UTF-8 has no place
 * in JSON, and "files" of matquant.json has to list all that were copied. */
static mq_status check_small_file(bool *copied, const char *folder, const char *name,
                                  const mq_context *context, mq_error *err) {
    *copied = false;
    char *path = mq_path_join(folder, name);
    if (path == NULL) {
        return no_memory_for_path(err, name);
    }
    const bool has_name = mq_utf8_valid(NULL, name, strlen(name));
    size_t size = 0;
    mq_status status = has_name ? mq_file_size(&size, path, err) : MQ_OK;
    const bool too_large = size > MQ_SMALL_FILE_BYTES && !is_tokenizer_file(name);
    if (!has_name) {
        mq_log(context, MQ_LOG_WARNING, "%s is not copied: its name is not UTF-8", path);
    } else if (too_large) {
        mq_log(context, MQ_LOG_WARNING,
               "%s is not copied: it is larger than %zu MiB and no file of a tokenizer", path,
               MQ_SMALL_FILE_BYTES >> 20);
    }
    *copied = status == MQ_OK && has_name && !too_large;
    mq_free(path);
    return status;
}

mq_status mq_list_small_files(char ***out, size_t *count, const char *folder,
                              const mq_context *context, mq_error *err) {
    char **names = NULL;
    size_t all = 0, kept = 0;
    mq_status status = mq_list_folder(&names, &all, folder, err);
    for (size_t i = 0; i < all; i++) {
        bool copied = status == MQ_OK && mq_is_small_file(names[i]);
        if (copied) {
            status = check_small_file(&copied, folder, names[i], context, err);
        }
        if (copied) {
            names[kept++] = names[i];
        } else {
            mq_free(names[i]);
        }
    }
    if (status != MQ_OK) {
        mq_free_list(names, kept);
        return status;
    }
    *out = names;
    *count = kept;
    return MQ_OK;
}

static mq_status refuse_pointer(const char *folder, const char *name, mq_error *err) {
    char *path = mq_path_join(folder, name);
    if (path == NULL) {
        return no_memory_for_path(err, name);
    }
    mq_mapping file = {0};
    size_t size = 0;
    mq_status status = mq_file_size(&size, path, err);
    if (status == MQ_OK && size < POINTER_BYTES) {
        status = mq_map_file(&file, path, err);
    }
    if (status == MQ_OK && mq_is_lfs_pointer(file.data, file.size)) {
        status = mq_fail_lfs_pointer(err, path);
    }
    mq_unmap_file(&file);
    mq_free(path);
    return status;
}

mq_status mq_check_small_files(const char *folder, const mq_context *context, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_small_files(&names, &count, folder, context, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = refuse_pointer(folder, names[i], err);
    }
    mq_free_list(names, count);
    return status;
}

/* Copies (output != NULL) or adds up the small files. */
static mq_status walk_small_files(mq_output *output, size_t *total, const char *folder,
                                  const mq_context *context, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_small_files(&names, &count, folder, context, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        char *path = mq_path_join(folder, names[i]);
        size_t size = 0;
        if (path == NULL) {
            status = no_memory_for_path(err, names[i]);
        } else if (output != NULL) {
            status = mq_copy_file(output, names[i], path, err);
        } else {
            status = mq_file_size(&size, path, err);
            if (status == MQ_OK && access(path, R_OK) != 0) { /* before hours are spent */
                status = mq_fail_errno(err, errno, path, "read");
            }
            *total += size;
        }
        mq_free(path);
    }
    mq_free_list(names, count);
    return status;
}

mq_status mq_copy_small_files(mq_output *output, const char *folder, const mq_context *context,
                              mq_error *err) {
    return walk_small_files(output, NULL, folder, context, err);
}

mq_status mq_small_files_size(size_t *out, const char *folder, mq_error *err) {
    *out = 0;
    return walk_small_files(NULL, out, folder, NULL, err);
}

/* --- JSON ------------------------------------------------------------------------------------- */

mq_status mq_read_folder_json(cJSON **out, const char *folder, const char *name, bool optional,
                              mq_error *err) {
    *out = NULL;
    char *path = mq_path_join(folder, name);
    if (path == NULL) {
        return no_memory_for_path(err, name);
    }
    bool there = true;
    mq_status status = optional ? mq_path_is_there(&there, path, err) : MQ_OK;
    if (status == MQ_OK && there) {
        status = mq_json_read(out, path, err);
    }
    if (status == MQ_OK && *out != NULL && !cJSON_IsObject(*out)) {
        cJSON_Delete(*out);
        *out = NULL;
        status = mq_fail_file(err, MQ_ERR_INPUT, path, "is not a JSON object");
    }
    mq_free(path);
    return status;
}

mq_status mq_write_json(mq_output *output, const char *name, const cJSON *value, mq_error *err) {
    char *text = mq_json_print(value);
    if (text == NULL) {
        return mq_fail_memory(err, "the text of a JSON file", 0);
    }
    mq_status status = mq_write_file(output, name, text, strlen(text), err);
    mq_free(text);
    return status;
}

void mq_json_put_tensors(mq_json *json, cJSON *at, const mq_tensor_writer *writer,
                         const mq_tensor_spec *specs, size_t count) {
    cJSON *tensors = mq_json_put_object(json, at, "tensors");
    for (size_t i = 0; i < count; i++) {
        const mq_tensor_spec *spec = &specs[i];
        cJSON *entry = mq_json_put_object(json, tensors, spec->name);
        char digits[9];
        snprintf(digits, sizeof digits, "%08" PRIx32, mq_tensor_writer_crc(writer, i));
        mq_json_put_text(json, entry, "crc32", digits);
        mq_json_put_text(json, entry, "dtype", mq_dtype_name(spec->dtype));
        cJSON *shape = mq_json_put_array(json, entry, "shape");
        for (size_t d = 0; d < spec->dims; d++) {
            mq_json_put_size(json, shape, NULL, spec->shape[d]);
        }
    }
}

static mq_status put_file(mq_json *json, cJSON *files, const char *folder, const char *name,
                          const mq_context *context, mq_error *err) {
    char digest[65];
    char *path = mq_path_join(folder, name);
    const mq_status status =
        path == NULL ? no_memory_for_path(err, name) : mq_sha256_file(digest, path, context, err);
    mq_free(path);
    if (status == MQ_OK) {
        mq_json_put_text(json, mq_json_put_object(json, files, name), "sha256", digest);
    }
    return status;
}

mq_status mq_json_put_files(mq_json *json, cJSON *at, const mq_output *output,
                            const mq_context *context, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    cJSON *files = mq_json_put_object(json, at, "files");
    const char *folder = mq_output_folder(output);
    mq_status status = mq_list_folder(&names, &count, folder, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        if (strcmp(names[i], MQ_CONFIG_FILE) == 0 || mq_is_small_file(names[i])) {
            status = put_file(json, files, folder, names[i], context, err);
        }
    }
    mq_free_list(names, count);
    return status;
}

/* --- tensors ---------------------------------------------------------------------------------- */

mq_status mq_copy_tensor(mq_tensor_writer *writer, size_t index, const mq_tensors *tensors,
                         const mq_tensor_info *info, const mq_context *context, mq_error *err) {
    mq_tensor_will_need(tensors, info);
    size_t done = 0;
    do { /* once even for a tensor without elements: it has to be put, too */
        size_t piece = info->bytes - done < MQ_STREAM_BYTES ? info->bytes - done : MQ_STREAM_BYTES;
        mq_status status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            status = mq_tensor_writer_put_part(writer, index, done, info->data + done, piece, err);
        }
        if (status != MQ_OK) {
            return status;
        }
        done += piece;
    } while (done < info->bytes);
    mq_tensor_dont_need(tensors, info);
    return MQ_OK;
}

bool mq_same_form(const mq_tensor_info *a, const mq_tensor_info *b) {
    return a->dtype == b->dtype && a->dims == b->dims &&
           memcmp(a->shape, b->shape, a->dims * sizeof *a->shape) == 0;
}

const char *mq_shape_text(char *out, size_t size, const size_t *shape, size_t dims) {
    size_t used = 0;
    for (size_t i = 0; i < dims && used < size; i++) {
        int length = snprintf(out + used, size - used, "%s%zu", i == 0 ? "[" : ", ", shape[i]);
        used += length > 0 ? (size_t)length : 0;
    }
    if (used < size) {
        snprintf(out + used, size - used, "%s", dims == 0 ? "[]" : "]");
    }
    return out;
}
