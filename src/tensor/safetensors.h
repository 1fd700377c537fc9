/* Reading and writing safetensors: 8 bytes little-endian header length, a JSON header, then the
 * data.
 *
 * What a reader must reject, and this one does (MQ_ERR_INPUT with file, and tensor or offset): a
 * file shorter than 8 bytes; a header length over 100 MiB or past the end of the file; a header
 * that is not a JSON object in UTF-8, does not begin with '{', or holds a name twice; an unknown
 * dtype; a shape with negative or fractional entries or a product that overflows; data_offsets that
 * are not begin <= end <= data size or whose difference is not elements · size of the dtype;
 * tensors that overlap; bytes of the data section that belong to no tensor. */
#ifndef MQ_TENSOR_SAFETENSORS_H
#define MQ_TENSOR_SAFETENSORS_H

#include "base/context.h"
#include "base/file.h"
#include "tensor/dtype.h"

#define MQ_MAX_DIMS 8

typedef struct mq_tensor_info {
    const char *name;
    mq_dtype dtype;
    size_t dims;
    size_t shape[MQ_MAX_DIMS];
    size_t elements, bytes;
    const unsigned char *data; /* into the mapping: any alignment */
    const char *file;          /* path of the shard */
    size_t file_offset;        /* of data in that file */
} mq_tensor_info;

/* All tensors of a checkpoint folder: model.safetensors, or the shards that
 * model.safetensors.index.json names (an index that names a missing file or tensor, or a shard with
 * a tensor twice, is an error). */
typedef struct mq_tensors mq_tensors;

mq_status mq_tensors_open(mq_tensors **out, const char *folder, mq_error *err);
/* The same, but an index may name a tensor of `unneeded` (NULL-terminated; NULL: none), and the
 * file that it names have no such tensor. */
mq_status mq_tensors_open_without(mq_tensors **out, const char *folder, const char *const *unneeded,
                                  mq_error *err);
/* One file. */
mq_status mq_tensors_open_file(mq_tensors **out, const char *path, mq_error *err);
/* One file that mq_tensor_writer_open_sealed wrote; any byte of it that is another is MQ_ERR_INPUT.
 */
mq_status mq_tensors_open_sealed(mq_tensors **out, const char *path, mq_error *err);
void mq_tensors_close(mq_tensors *tensors);

size_t mq_tensors_count(const mq_tensors *tensors);
/* In the order of (file, offset). Valid until close. */
const mq_tensor_info *mq_tensors_at(const mq_tensors *tensors, size_t index);
const mq_tensor_info *mq_tensors_find(const mq_tensors *tensors, const char *name); /* NULL: none */
/* For messages about a tensor: the path of the file that holds it; when there is none of that name,
 * of the one that would have to name it: the single file, or the index of the shards. */
const char *mq_tensors_where(const mq_tensors *tensors, const char *name);
/* The shards' paths, in order; total bytes of all files. */
size_t mq_tensors_file_count(const mq_tensors *tensors);
const char *mq_tensors_file(const mq_tensors *tensors, size_t index);
/* SHA-256 (mq_sha256_file) of that file as its tensors are read: of the one that was opened,
 * whatever lies at its path by now. */
mq_status mq_tensors_sha256(char out[65], const mq_tensors *tensors, size_t index,
                            const mq_context *context, mq_error *err);

/* Read-ahead hint for one tensor; and a promise that it is not needed for now. */
void mq_tensor_will_need(const mq_tensors *tensors, const mq_tensor_info *info);
void mq_tensor_dont_need(const mq_tensors *tensors, const mq_tensor_info *info);

/* Elements [first, first + count) as float32. MQ_ERR_INPUT when the dtype is no weight's, or when a
 * value is NaN or infinite: the error names file, tensor and byte offset. */
mq_status mq_tensor_read_f32(float *out, const mq_tensor_info *info, size_t first, size_t count,
                             mq_error *err);

/* --- writing ---------------------------------------------------------------------------------- */

/* What a checkpoint will hold, declared before anything is written; then the tensors' bytes in any
 * order, each once. Tensors are laid out by falling element size, so that every offset is aligned
 * without a gap (which the format forbids), in the declared order among equals; the header is
 * padded with spaces to a multiple of 8 and begins with
 * "__metadata__": {"format": "pt"}. With more than max_shard_size bytes of data they are split, in
 * the declared order, into model-0000i-of-0000n.safetensors and an index. */
typedef struct mq_tensor_writer mq_tensor_writer;

typedef struct mq_tensor_spec {
    const char *name;
    mq_dtype dtype;
    size_t dims;
    size_t shape[MQ_MAX_DIMS];
} mq_tensor_spec;

/* specs[count] are copied. max_shard_size 0: no limit. */
mq_status mq_tensor_writer_open(mq_tensor_writer **out, mq_output *output,
                                const mq_tensor_spec *specs, size_t count, size_t max_shard_size,
                                mq_error *err);
/* A single file, of an output that is one (mq_output_begin_file), with a CRC-32 of the whole file
 * in its metadata, crc32, for mq_tensors_open_sealed to check. */
mq_status mq_tensor_writer_open_sealed(mq_tensor_writer **out, mq_output *output,
                                       const mq_tensor_spec *specs, size_t count, mq_error *err);
/* The whole tensor number index; bytes must be the declared size. */
mq_status mq_tensor_writer_put(mq_tensor_writer *writer, size_t index, const void *data,
                               size_t bytes, mq_error *err);
/* A piece of it, for tensors too large to hold: byte offset within the tensor; pieces in rising
 * order without gap. */
mq_status mq_tensor_writer_put_part(mq_tensor_writer *writer, size_t index, size_t offset,
                                    const void *data, size_t bytes, mq_error *err);
/* Bytes [offset, offset + bytes) of a tensor, which were put before. */
mq_status mq_tensor_writer_get_part(void *data, const mq_tensor_writer *writer, size_t index,
                                    size_t offset, size_t bytes, mq_error *err);
/* Forgets what was put of a tensor: it is to be put again. */
void mq_tensor_writer_begin_again(mq_tensor_writer *writer, size_t index);
/* CRC-32 of a finished tensor's bytes. */
uint32_t mq_tensor_writer_crc(const mq_tensor_writer *writer, size_t index);
/* Index by name, or count when there is none. */
size_t mq_tensor_writer_find(const mq_tensor_writer *writer, const char *name);
/* Checks that all tensors were put, closes and fsyncs. Frees in every case. */
mq_status mq_tensor_writer_close(mq_tensor_writer *writer, mq_error *err);
void mq_tensor_writer_abandon(mq_tensor_writer *writer); /* NULL allowed */

#endif
