/* layer: tensor */
/* short_model MODEL BLOCKS WIDTH OUT: the model with its first BLOCKS blocks only, and of their
 * feed-forward networks the first WIDTH (intermediate_size) channels: for tests that such a one
 * serves as well as a whole one. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/file.h"
#include "tensor/safetensors.h"

enum { MOST_BYTES = 1 << 30 };

typedef struct cut {
    unsigned long blocks, width;
} cut;

static bool kept(const char *name, const cut *to) {
    static const char prefix[] = "model.layers.";
    return strncmp(name, prefix, sizeof prefix - 1) != 0 ||
           strtoul(name + sizeof prefix - 1, NULL, 10) < to->blocks;
}

/* Rows of gate_proj and up_proj, columns of down_proj; everything else is whole. */
static void cut_shape(size_t *rows, size_t *columns, const mq_tensor_info *info, const cut *to) {
    *rows = info->dims == 2 ? info->shape[0] : 1;
    *columns = info->shape[info->dims - 1];
    if (info->dims == 2 && strstr(info->name, ".mlp.down_proj.")) {
        *columns = mq_smaller(*columns, to->width);
    } else if (info->dims == 2 && strstr(info->name, ".mlp.")) {
        *rows = mq_smaller(*rows, to->width);
    }
}

static mq_status put_tensor(mq_tensor_writer *writer, size_t index, const mq_tensor_info *info,
                            const cut *to, mq_error *err) {
    size_t rows, columns;
    const size_t size = mq_dtype_size(info->dtype);
    cut_shape(&rows, &columns, info, to);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < rows; i++) {
        status = mq_tensor_writer_put_part(writer, index, i * columns * size,
                                           info->data + i * info->shape[info->dims - 1] * size,
                                           columns * size, err);
    }
    return status;
}

static mq_status write_tensors(mq_output *output, const mq_tensors *all, const cut *to,
                               mq_error *err) {
    mq_tensor_writer *writer = NULL;
    mq_tensor_spec *specs = NULL;
    size_t count = 0;
    mq_status status = mq_new(&specs, mq_tensors_count(all), sizeof *specs, "names", err);
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(all); i++) {
        const mq_tensor_info *info = mq_tensors_at(all, i);
        if (kept(info->name, to)) {
            mq_tensor_spec *spec = &specs[count++];
            *spec = (mq_tensor_spec){.name = info->name, .dtype = info->dtype, .dims = info->dims};
            if (info->dims == 2) {
                cut_shape(&spec->shape[0], &spec->shape[1], info, to);
            } else {
                memcpy(spec->shape, info->shape, sizeof spec->shape);
            }
        }
    }
    if (status == MQ_OK) {
        status = mq_tensor_writer_open(&writer, output, specs, count, 0, err);
    }
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = put_tensor(writer, i, mq_tensors_find(all, specs[i].name), to, err);
    }
    mq_free(specs);
    if (status != MQ_OK) {
        mq_tensor_writer_abandon(writer);
        return status;
    }
    return mq_tensor_writer_close(writer, err);
}

/* config.json with other numbers of blocks and channels. */
static mq_status write_config(mq_output *output, const char *path, const cut *to, mq_error *err) {
    char *content;
    size_t size;
    mq_status status = mq_read_file(&content, &size, path, MOST_BYTES, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *config = cJSON_ParseWithLength(content, size);
    mq_free(content);
    cJSON *layers = cJSON_GetObjectItemCaseSensitive(config, "num_hidden_layers");
    cJSON *width = cJSON_GetObjectItemCaseSensitive(config, "intermediate_size");
    char *text = NULL;
    if (cJSON_IsNumber(layers) && layers->valuedouble >= (double)to->blocks &&
        cJSON_IsNumber(width) && width->valuedouble >= (double)to->width) {
        cJSON_SetNumberValue(layers, (double)to->blocks);
        cJSON_SetNumberValue(width, (double)to->width);
        text = cJSON_Print(config);
    }
    status = text ? mq_write_file(output, "config.json", text, strlen(text), err)
                  : mq_fail(err, MQ_ERR_INPUT, "%s: not that many blocks or channels", path);
    cJSON_free(text);
    cJSON_Delete(config);
    return status;
}

static mq_status write_file(mq_output *output, const char *model, const char *name, const cut *to,
                            mq_error *err) {
    char *path = mq_path_join(model, name);
    if (path == NULL) {
        return mq_fail(err, MQ_ERR_MACHINE, "out of memory");
    }
    const mq_status status = strcmp(name, "config.json") == 0
                                 ? write_config(output, path, to, err)
                                 : mq_copy_file(output, name, path, err);
    mq_free(path);
    return status;
}

static mq_status run(const char *model, const cut *to, const char *out, mq_error *err) {
    mq_output *output = NULL;
    mq_tensors *all = NULL;
    mq_status status = mq_tensors_open(&all, model, err);
    if (status == MQ_OK) {
        status = mq_output_begin(&output, out, true, err);
    }
    if (status == MQ_OK) {
        status = write_tensors(output, all, to, err);
    }
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json"};
    for (size_t i = 0; status == MQ_OK && i < sizeof names / sizeof names[0]; i++) {
        status = write_file(output, model, names[i], to, err);
    }
    mq_tensors_close(all);
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    mq_output_discard(output);
    return status;
}

int main(int argc, char **argv) {
    char *end[2] = {NULL, NULL};
    cut to = {0, 0};
    if (argc == 5) {
        to = (cut){strtoul(argv[2], &end[0], 10), strtoul(argv[3], &end[1], 10)};
    }
    if (to.blocks == 0 || to.width == 0 || *end[0] != '\0' || *end[1] != '\0') {
        fprintf(stderr, "Usage: short_model MODEL BLOCKS WIDTH OUT\n");
        return 2;
    }
    mq_error err = {0};
    if (run(argv[1], &to, argv[4], &err) != MQ_OK) {
        char line[1400];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "%s\n", line);
        return (int)err.status;
    }
    return 0;
}
