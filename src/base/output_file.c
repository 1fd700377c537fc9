/* An output that is one file, which appears whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/output.h"

/* The folder that path stands in; the caller's (mq_free), NULL: no memory. */
static char *parent_of(const char *path) {
    const char *base = mq_path_base(path);
    return base == path ? mq_strdup(".") : mq_asprintf("%.*s", (int)(base - path), path);
}

static mq_status check_place(const char *path, bool replace, mq_error *err) {
    const char *base = mq_path_base(path);
    if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        return mq_fail(err, MQ_ERR_USAGE, "\"%s\" is no name for an output file", path);
    }
    struct stat about;
    if (lstat(path, &about) != 0) {
        return MQ_OK;
    }
    if (!replace) {
        return mq_fail_file(err, MQ_ERR_USAGE, path, "exists already");
    }
    return S_ISREG(about.st_mode)
               ? MQ_OK
               : mq_fail_file(err, MQ_ERR_USAGE, path, "exists and is not a plain file");
}

mq_status mq_output_file_check(const char *path, bool replace, mq_error *err) {
    mq_status status = check_place(path, replace, err);
    if (status != MQ_OK) {
        return status;
    }
    char *parent = parent_of(path);
    if (parent == NULL) {
        return mq_fail_memory(err, "a path", strlen(path));
    }
    if (access(parent, W_OK | X_OK) != 0) {
        status = mq_fail_errno(err, errno, parent, "make a file in it");
    }
    mq_free(parent);
    return status;
}

/* The whole content into a new file, on the disk when this returns. */
static mq_status write_new(const char *temporary, const char *path, const void *data, size_t size,
                           mq_error *err) {
    const int fd = mq_sys_open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (fd < 0) {
        return mq_fail_errno(err, errno, path, "create");
    }
    mq_status status = MQ_OK;
    for (const unsigned char *bytes = data; status == MQ_OK && size > 0;) {
        const ssize_t put = mq_sys_write(fd, bytes, size);
        if (put <= 0) {
            status = mq_fail_errno(err, put < 0 ? errno : EIO, path, "write");
        } else {
            bytes += put;
            size -= (size_t)put;
        }
    }
    if (status == MQ_OK && mq_sys_fsync(fd) != 0) {
        status = mq_fail_errno(err, errno, path, "bring to the disk");
    }
    if (close(fd) != 0 && status == MQ_OK) {
        status = mq_fail_errno(err, errno, path, "close");
    }
    return status;
}

static mq_status put_in_place(const char *temporary, const char *path, bool replace,
                              mq_error *err) {
    const int result =
        replace ? mq_sys_rename(temporary, path, 0) : mq_output_move_to_free_name(temporary, path);
    if (result == 0) {
        return MQ_OK;
    }
    return errno == EEXIST ? mq_fail_file(err, MQ_ERR_USAGE, path, "has appeared meanwhile")
                           : mq_fail_errno(err, errno, path, "rename the finished file");
}

mq_status mq_output_file(const char *path, const void *data, size_t size, bool replace,
                         mq_error *err) {
    mq_status status = check_place(path, replace, err);
    if (status != MQ_OK) {
        return status;
    }
    char suffix[MQ_OUTPUT_SUFFIX_LENGTH + 1];
    if (!mq_output_suffix(suffix)) {
        return mq_fail_errno(err, errno, path, "make a temporary name");
    }
    const char *base = mq_path_base(path);
    char *temporary = mq_asprintf("%.*s.%s.matquant-%s", (int)(base - path), path, base, suffix);
    if (temporary == NULL) {
        return mq_fail_memory(err, "a path", strlen(path));
    }
    status = write_new(temporary, path, data, size, err);
    if (status == MQ_OK) {
        status = put_in_place(temporary, path, replace, err);
    }
    if (status != MQ_OK) {
        unlink(temporary);
    }
    mq_free(temporary);
    return status;
}
