/* layer: tensor */
/* short_model MODEL BLOCKS OUT: the model with its first BLOCKS blocks only, for tests that a short
 * one serves as well as a whole one: they take half the time on three of the demo's six. */
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

static bool kept(const char *name, unsigned long blocks) {
    static const char prefix[] = "model.layers.";
    return strncmp(name, prefix, sizeof prefix - 1) != 0 ||
           strtoul(name + sizeof prefix - 1, NULL, 10) < blocks;
}

static mq_status write_tensors(mq_output *output, const mq_tensors *all, unsigned long blocks,
                               mq_error *err) {
    mq_tensor_writer *writer = NULL;
    mq_tensor_spec *specs = NULL;
    size_t count = 0;
    mq_status status = mq_new(&specs, mq_tensors_count(all), sizeof *specs, "names", err);
    for (size_t i = 0; status == MQ_OK && i < mq_tensors_count(all); i++) {
        const mq_tensor_info *info = mq_tensors_at(all, i);
        if (kept(info->name, blocks)) {
            mq_tensor_spec *spec = &specs[count++];
            *spec = (mq_tensor_spec){.name = info->name, .dtype = info->dtype, .dims = info->dims};
            memcpy(spec->shape, info->shape, sizeof spec->shape);
        }
    }
    if (status == MQ_OK) {
        status = mq_tensor_writer_open(&writer, output, specs, count, 0, err);
    }
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const mq_tensor_info *info = mq_tensors_find(all, specs[i].name);
        status = mq_tensor_writer_put(writer, i, info->data, info->bytes, err);
    }
    mq_free(specs);
    if (status != MQ_OK) {
        mq_tensor_writer_abandon(writer);
        return status;
    }
    return mq_tensor_writer_close(writer, err);
}

/* config.json with another number of blocks. */
static mq_status write_config(mq_output *output, const char *path, unsigned long blocks,
                              mq_error *err) {
    char *content;
    size_t size;
    mq_status status = mq_read_file(&content, &size, path, MOST_BYTES, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *config = cJSON_ParseWithLength(content, size);
    mq_free(content);
    cJSON *layers = cJSON_GetObjectItemCaseSensitive(config, "num_hidden_layers");
    char *text = NULL;
    if (cJSON_IsNumber(layers) && layers->valuedouble >= (double)blocks) {
        cJSON_SetNumberValue(layers, (double)blocks);
        text = cJSON_Print(config);
    }
    status = text ? mq_write_file(output, "config.json", text, strlen(text), err)
                  : mq_fail(err, MQ_ERR_INPUT, "%s: not that many blocks", path);
    cJSON_free(text);
    cJSON_Delete(config);
    return status;
}

static mq_status write_file(mq_output *output, const char *model, const char *name,
                            unsigned long blocks, mq_error *err) {
    char *path = mq_path_join(model, name);
    if (path == NULL) {
        return mq_fail(err, MQ_ERR_MACHINE, "out of memory");
    }
    const mq_status status = strcmp(name, "config.json") == 0
                                 ? write_config(output, path, blocks, err)
                                 : mq_copy_file(output, name, path, err);
    mq_free(path);
    return status;
}

static mq_status run(const char *model, unsigned long blocks, const char *out, mq_error *err) {
    mq_output *output = NULL;
    mq_tensors *all = NULL;
    mq_status status = mq_tensors_open(&all, model, err);
    if (status == MQ_OK) {
        status = mq_output_begin(&output, out, true, err);
    }
    if (status == MQ_OK) {
        status = write_tensors(output, all, blocks, err);
    }
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json"};
    for (size_t i = 0; status == MQ_OK && i < sizeof names / sizeof names[0]; i++) {
        status = write_file(output, model, names[i], blocks, err);
    }
    mq_tensors_close(all);
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    mq_output_discard(output);
    return status;
}

int main(int argc, char **argv) {
    char *end = NULL;
    const unsigned long blocks = argc == 4 ? strtoul(argv[2], &end, 10) : 0;
    if (blocks == 0 || *end != '\0') {
        fprintf(stderr, "Usage: short_model MODEL BLOCKS OUT\n");
        return 2;
    }
    mq_error err = {0};
    if (run(argv[1], blocks, argv[3], &err) != MQ_OK) {
        char line[1400];
        mq_error_format(line, sizeof line, &err);
        fprintf(stderr, "%s\n", line);
        return (int)err.status;
    }
    return 0;
}
