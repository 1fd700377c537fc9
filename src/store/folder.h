/* What masters and slices have in common as folders: small files, JSON files, tensors carried over,
 * and what matquant.json says of tensors and files. */
#ifndef MQ_STORE_FOLDER_H
#define MQ_STORE_FOLDER_H

#include "base/context.h"
#include "base/json.h"
#include "base/json_build.h"
#include "tensor/safetensors.h"

#define MQ_CONFIG_FILE "config.json"
/* With peft installed, transformers loads the adapter's base model in place of a folder's own
 * weights if this is there. */
#define MQ_ADAPTER_FILE "adapter_config.json"

/* Bytes of a tensor that are read, worked on and written at once. */
#define MQ_STREAM_BYTES ((size_t)4 << 20)

/* The largest file that is copied, unless it is one of a tokenizer. */
#define MQ_SMALL_FILE_BYTES ((size_t)64 << 20)

/* Whether files of that name are copied: the tokenizer and whatever else stands in a folder beside
 * the tensors, but not hidden files, README, weights in any of the usual containers, what a
 * training run, an editor or a download left behind, config.json and matquant.json, which are
 * written anew, and files that describe other weights than ours. */
bool mq_is_small_file(const char *name);
/* The names of those plain files in folder that are not too large and whose names are UTF-8, sorted
 * by byte value; mq_free_list. With a context, warns of each of the others. */
mq_status mq_list_small_files(char ***out, size_t *count, const char *folder,
                              const mq_context *context, mq_error *err);
/* For folders that something is made of: the same warnings, and MQ_ERR_INPUT if one of the files is
 * a pointer of Git LFS, which, copied, would stand in the file's place for good. */
mq_status mq_check_small_files(const char *folder, const mq_context *context, mq_error *err);
/* Copies these files; warnings as above. */
mq_status mq_copy_small_files(mq_output *output, const char *folder, const mq_context *context,
                              mq_error *err);
mq_status mq_small_files_size(size_t *out, const char *folder, mq_error *err);

/* FOLDER/NAME as a JSON object; its absence is MQ_ERR_INPUT, or *out = NULL when it is optional. */
mq_status mq_read_folder_json(cJSON **out, const char *folder, const char *name, bool optional,
                              mq_error *err);
mq_status mq_write_json(mq_output *output, const char *name, const cJSON *value, mq_error *err);

/* Carries a tensor over byte for byte, in pieces; the pages read are given back. Checks for an
 * interrupt. */
mq_status mq_copy_tensor(mq_tensor_writer *writer, size_t index, const mq_tensors *tensors,
                         const mq_tensor_info *info, const mq_context *context, mq_error *err);

/* The member "tensors" of matquant.json (matquant/format.h) of finished tensors, put into `at`. */
void mq_json_put_tensors(mq_json *json, cJSON *at, const mq_tensor_writer *writer,
                         const mq_tensor_spec *specs, size_t count);

/* The member "files" of matquant.json: {NAME: {"sha256": "64 hexadecimal digits"}} of config.json
 * and the small files that stand in the output by then, put into `at`. Checks for an interrupt. */
mq_status mq_json_put_files(mq_json *json, cJSON *at, const mq_output *output,
                            const mq_context *context, mq_error *err);

/* Same dtype and shape. */
bool mq_same_form(const mq_tensor_info *a, const mq_tensor_info *b);
/* "[576, 1536]" into out; always terminated. */
const char *mq_shape_text(char *out, size_t size, const size_t *shape, size_t dims);

#endif
