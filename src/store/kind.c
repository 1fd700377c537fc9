#include "store/folder.h"
#include "store/master.h"
#include "store/readers.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* MLX's affine format writes "quantization": {"group_size", "bits", ...}, and the same as
 * "quantization_config". */
static bool is_mlx(const cJSON *quantization) {
    return cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(quantization, "bits")) &&
           cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(quantization, "group_size"));
}

static mq_status kind_of_config(mq_kind *kind, const cJSON *config, const char *path,
                                mq_error *err) {
    const cJSON *quantization = cJSON_GetObjectItemCaseSensitive(config, "quantization");
    const cJSON *legacy = cJSON_GetObjectItemCaseSensitive(config, "quantization_config");
    if ((quantization == NULL || cJSON_IsNull(quantization)) &&
        (legacy == NULL || cJSON_IsNull(legacy))) {
        *kind = MQ_KIND_PLAIN;
        return MQ_OK;
    }
    const cJSON *method = cJSON_GetObjectItemCaseSensitive(legacy, "quant_method");
    if (cJSON_IsString(method)) {
        if (strcmp(method->valuestring, MQ_QUANT_METHOD) == 0) {
            *kind = MQ_KIND_MASTER;
            return MQ_OK;
        }
        return mq_fail_file(err, MQ_ERR_INPUT, path,
                            "is quantized by another tool, quant_method \"%s\"",
                            method->valuestring);
    }
    if (is_mlx(quantization)) {
        *kind = MQ_KIND_SLICE;
        return MQ_OK;
    }
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "is quantized in a way that is neither quant_method \"" MQ_QUANT_METHOD
                        "\" nor MLX's \"quantization\" with group_size and bits");
}

/* Names our own slices that are written for others and not read here: a better word than "another
 * tool" for them. status: that of kind_of_config. */
static mq_status kind_of_provenance(mq_status status, const char *folder, mq_error *err) {
    cJSON *provenance = NULL;
    if (status != MQ_ERR_INPUT ||
        mq_read_folder_json(&provenance, folder, MQ_PROVENANCE_FILE, true, NULL) != MQ_OK) {
        return status;
    }
    const cJSON *format =
        cJSON_GetObjectItemCaseSensitive(mq_provenance_slice(provenance), "format");
    bool other = cJSON_IsString(format);
    static const char *const read[] = {"mlx", "safetensors", "matquant"};
    for (size_t i = 0; other && i < sizeof read / sizeof *read; i++) {
        other = strcmp(format->valuestring, read[i]) != 0;
    }
    if (other) {
        mq_fail_file(err, status, folder,
                     "is a slice in the format %s, which matquant writes for other programs and "
                     "does not read; mlx, safetensors and matquant it reads, and the master",
                     format->valuestring);
    }
    cJSON_Delete(provenance);
    return status;
}

static mq_status no_folder(const char *path, mq_error *err) {
    struct stat about;
    if (stat(path, &about) != 0) {
        return errno != ENOENT && errno != ENOTDIR
                   ? mq_fail_errno(err, errno, path, "open")
                   : mq_fail_file(err, MQ_ERR_INPUT, path,
                                  "there is no such folder; a model is a folder on this machine, "
                                  "and nothing is downloaded");
    }
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strcasecmp(dot, ".gguf") == 0) {
        return mq_fail_file(err, MQ_ERR_INPUT, path,
                            "is a GGUF file, which matquant writes and does not read; eval "
                            "measures the master that it was cut from, with --bits");
    }
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "is a file; a model is a folder with a " MQ_CONFIG_FILE);
}

static mq_status no_model(const char *folder, const char *config, mq_error *err) {
    char *adapter = mq_path_join(folder, MQ_ADAPTER_FILE);
    char *snapshots = mq_path_join(folder, "snapshots"); /* of models--OWNER--NAME */
    mq_status status;
    if (adapter == NULL || snapshots == NULL) {
        status = mq_fail_memory(err, "a path", strlen(folder));
    } else if (mq_path_exists(adapter)) {
        status = mq_fail_file(err, MQ_ERR_INPUT, folder,
                              "holds an adapter, not a model: merge it into its base first "
                              "(peft: merge_and_unload(), then save_pretrained) and quantize that");
    } else if (mq_is_folder(snapshots)) {
        status = mq_fail_file(err, MQ_ERR_INPUT, folder,
                              "is a folder of the hub's cache: the model is in snapshots/REVISION "
                              "below it");
    } else {
        status = mq_fail_file(err, MQ_ERR_INPUT, config, "is not there: the folder holds no model");
    }
    mq_free(adapter);
    mq_free(snapshots);
    return status;
}

mq_status mq_folder_check(const char *folder, mq_error *err) {
    if (!mq_is_folder(folder)) {
        return no_folder(folder, err);
    }
    char *path = mq_path_join(folder, MQ_CONFIG_FILE);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    bool there;
    mq_status status = mq_path_is_there(&there, path, err);
    if (status == MQ_OK && !there) {
        status = no_model(folder, path, err);
    }
    mq_free(path);
    return status;
}

mq_status mq_folder_kind(mq_kind *kind, const char *folder, mq_error *err) {
    char *path = mq_path_join(folder, MQ_CONFIG_FILE);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    cJSON *config = NULL;
    mq_status status = mq_folder_check(folder, err);
    if (status == MQ_OK) {
        status = mq_read_folder_json(&config, folder, MQ_CONFIG_FILE, false, err);
    }
    if (status == MQ_OK) {
        status = kind_of_provenance(kind_of_config(kind, config, path, err), folder, err);
    }
    mq_free(path);
    cJSON_Delete(config);
    return status;
}
