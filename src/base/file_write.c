#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/output.h"

/* The disk begins on so many bytes as soon as they are there, and not when the file is closed: it
 * works while the next are made. */
#define SYNC_SIZE ((uint64_t)8 << 20)

struct mq_writer {
    int fd;
    uint64_t position; /* where mq_write goes on */
    uint64_t unsynced; /* bytes that the disk was not told of yet, all in [low, high) */
    uint64_t low, high;
    char *path; /* the file's final one, for messages */
};

/* Where they are the same, nothing is asked of the file system: some have no permissions to give.
 * That a file runs as its owner is not passed on. */
mq_status mq_output_keep_permissions(int fd, const mq_output *output, mq_error *err) {
    struct stat old, made;
    if (!output->replace || lstat(output->path, &old) != 0) {
        return MQ_OK; /* nothing is replaced */
    }
    const mode_t kept = S_ISDIR(old.st_mode) ? 03777 : 0777;
    const bool same = fstat(fd, &made) == 0 && ((made.st_mode ^ old.st_mode) & kept) == 0;
    return same || mq_sys_chmod(fd, old.st_mode & kept) == 0
               ? MQ_OK
               : mq_fail_errno(err, errno, output->path, "give its permissions to the new one");
}

mq_status mq_writer_open(mq_writer **out, mq_output *output, const char *name, mq_error *err) {
    if (name[0] == '\0' || strchr(name, '/') != NULL) {
        return mq_fail_file(err, MQ_ERR_INPUT, output->path, "\"%s\" is no name for a file", name);
    }
    mq_writer *writer = mq_calloc(1, sizeof *writer);
    char *temporary = mq_path_join(output->folder, name);
    char *path = output->magic == NULL ? mq_path_join(output->path, name) : mq_strdup(output->path);
    mq_status status = MQ_OK;
    if (writer == NULL || temporary == NULL || path == NULL) {
        status = mq_fail_memory(err, "a file writer", sizeof *writer);
    } else {
        writer->fd = mq_sys_open(temporary, O_RDWR | O_CREAT | O_EXCL, 0666);
        status = writer->fd < 0 ? mq_fail_errno(err, errno, path, "create") : MQ_OK;
        if (status == MQ_OK && output->magic != NULL) {
            status = mq_output_keep_permissions(writer->fd, output, err);
        }
        if (status != MQ_OK && writer->fd >= 0) {
            close(writer->fd);
        }
    }
    mq_free(temporary);
    if (status != MQ_OK) {
        mq_free(path);
        mq_free(writer);
        return status;
    }
    writer->path = path;
    *out = writer;
    return MQ_OK;
}

static void note_written(mq_writer *writer, uint64_t offset, uint64_t size) {
    const uint64_t end = offset + size;
    writer->low = writer->unsynced == 0 || offset < writer->low ? offset : writer->low;
    writer->high = writer->unsynced == 0 || end > writer->high ? end : writer->high;
    writer->unsynced += size;
    if (writer->unsynced >= SYNC_SIZE) {
        mq_sys_begin_sync(writer->fd, writer->low, writer->high - writer->low);
        writer->unsynced = 0;
    }
}

mq_status mq_write_at(mq_writer *writer, uint64_t offset, const void *data, size_t size,
                      mq_error *err) {
    const unsigned char *bytes = data;
    while (size > 0) {
        ssize_t put = mq_sys_write_at(writer->fd, bytes, size, offset);
        if (put <= 0) {
            return mq_fail_errno(err, put < 0 ? errno : EIO, writer->path, "write");
        }
        note_written(writer, offset, (uint64_t)put);
        bytes += put;
        size -= (size_t)put;
        offset += (uint64_t)put;
    }
    return MQ_OK;
}

mq_status mq_written_at(void *data, const mq_writer *writer, uint64_t offset, size_t size,
                        mq_error *err) {
    unsigned char *bytes = data;
    while (size > 0) {
        ssize_t got = mq_sys_read_at(writer->fd, bytes, size, offset);
        if (got <= 0) {
            return mq_fail_errno(err, got < 0 ? errno : EIO, writer->path, "read back");
        }
        bytes += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return MQ_OK;
}

mq_status mq_write(mq_writer *writer, const void *data, size_t size, mq_error *err) {
    mq_status status = mq_write_at(writer, writer->position, data, size, err);
    if (status == MQ_OK) {
        writer->position += size;
    }
    return status;
}

mq_status mq_writer_close(mq_writer *writer, mq_error *err) {
    mq_status status = MQ_OK;
    if (mq_sys_fsync(writer->fd) != 0) {
        status = mq_fail_errno(err, errno, writer->path, "bring to the disk");
    }
    if (close(writer->fd) != 0 && status == MQ_OK) {
        status = mq_fail_errno(err, errno, writer->path, "close");
    }
    mq_free(writer->path);
    mq_free(writer);
    return status;
}

void mq_writer_abandon(mq_writer *writer) {
    if (writer != NULL) {
        close(writer->fd);
        mq_free(writer->path);
        mq_free(writer);
    }
}

/* Ends a file whose writing came to `status`. */
static mq_status finish(mq_writer *writer, mq_status status, mq_error *err) {
    if (status != MQ_OK) {
        mq_writer_abandon(writer);
        return status;
    }
    return mq_writer_close(writer, err);
}

mq_status mq_write_file(mq_output *output, const char *name, const void *data, size_t size,
                        mq_error *err) {
    mq_writer *writer = NULL;
    mq_status status = mq_writer_open(&writer, output, name, err);
    if (status != MQ_OK) {
        return status;
    }
    return finish(writer, mq_write(writer, data, size, err), err);
}

static mq_status copy_bytes(mq_writer *writer, int from, const char *source, mq_error *err) {
    unsigned char *piece = NULL;
    mq_status status = mq_new(&piece, MQ_COPY_BYTES, 1, "a copy buffer", err);
    while (status == MQ_OK) {
        ssize_t got = mq_sys_read(from, piece, MQ_COPY_BYTES);
        if (got < 0) {
            status = mq_fail_errno(err, errno, source, "read");
        } else if (got == 0) {
            break;
        } else {
            status = mq_write(writer, piece, (size_t)got, err);
        }
    }
    mq_free(piece);
    return status;
}

mq_status mq_copy_file(mq_output *output, const char *name, const char *source, mq_error *err) {
    int from = mq_sys_open(source, O_RDONLY, 0);
    if (from < 0) {
        return mq_fail_errno(err, errno, source, "open");
    }
    mq_writer *writer = NULL;
    mq_status status = mq_writer_open(&writer, output, name, err);
    if (status == MQ_OK) {
        status = finish(writer, copy_bytes(writer, from, source, err), err);
    }
    close(from);
    return status;
}
