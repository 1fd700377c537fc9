/* layer: tensor */
/* Opens any bytes as a safetensors file and touches all that the reader lets through. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target.h"
#include "tensor/safetensors.h"

static void touch(const mq_tensor_info *info) {
    unsigned sum = 0;
    for (size_t i = 0; i < info->bytes; i++) {
        sum += info->data[i];
    }
    volatile unsigned kept = sum;
    (void)kept;
    if (mq_dtype_is_weight(info->dtype)) {
        float values[16];
        size_t count = info->elements < 16 ? info->elements : 16;
        mq_status status = mq_tensor_read_f32(values, info, 0, count, NULL);
        assert(status == MQ_OK || status == MQ_ERR_INPUT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    mq_tensors *tensors = NULL;
    mq_error err = {0};
    mq_status status = mq_tensors_open_file(&tensors, path, &err);
    if (status == MQ_OK) {
        size_t end = 0;
        for (size_t i = 0; i < mq_tensors_count(tensors); i++) {
            const mq_tensor_info *info = mq_tensors_at(tensors, i);
            assert(info->file_offset >= end && info->file_offset + info->bytes <= size);
            end = info->file_offset + info->bytes;
            assert(mq_tensors_find(tensors, info->name) == info);
            touch(info);
        }
        mq_tensors_close(tensors);
    } else {
        assert(status == MQ_ERR_INPUT && err.status == status && err.message[0] != '\0' &&
               err.file[0] != '\0');
    }
    close(fd);
    assert(mq_alloc_current() == 0);
    return 0;
}
