/* The folder is locked through a descriptor of its own (flock), as output.c does it. */
#include "base/keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/output.h"

struct mq_keep {
    char *path;
    mq_keep_knows *knows;
    int lock; /* the folder, open and locked; -1 */
};

typedef enum kind { FOREIGN, KNOWN_FILE, LEFTOVER } kind;

/* What the entry of the folder open at fd is. */
static kind kind_of(int fd, const char *name, mq_keep_knows *knows) {
    struct stat about;
    if (fstatat(fd, name, &about, AT_SYMLINK_NOFOLLOW) != 0) {
        return FOREIGN;
    }
    if (S_ISREG(about.st_mode)) {
        return knows(name) ? KNOWN_FILE : FOREIGN;
    }
    char base[MQ_LEFTOVER_BASE];
    const bool leftover =
        S_ISDIR(about.st_mode) && mq_output_leftover_base(base, name) && knows(base);
    return leftover ? LEFTOVER : FOREIGN;
}

static bool is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

mq_status mq_keep_check(const char *path, mq_keep_knows *knows, mq_error *err) {
    if (!mq_path_exists(path)) {
        return MQ_OK;
    }
    if (!mq_is_folder(path)) {
        return mq_fail_file(err, MQ_ERR_USAGE, path, "exists and is not a folder");
    }
    DIR *stream = opendir(path);
    if (stream == NULL) {
        return mq_fail_errno(err, errno, path, "list the folder");
    }
    mq_status status = MQ_OK;
    const struct dirent *entry;
    while (status == MQ_OK && (entry = readdir(stream)) != NULL) {
        if (!is_dots(entry->d_name) && kind_of(dirfd(stream), entry->d_name, knows) == FOREIGN) {
            status = mq_fail_file(err, MQ_ERR_USAGE, path,
                                  "holds \"%.200s\", which no run of matquant keeps there; name "
                                  "another folder",
                                  entry->d_name);
        }
    }
    closedir(stream);
    return status;
}

/* Makes the folder, unless it is there, so that its name in the parent lasts. */
static mq_status make(bool *made, const char *path, mq_error *err) {
    *made = mkdir(path, 0777) == 0;
    if (!*made) {
        return errno == EEXIST ? MQ_OK : mq_fail_errno(err, errno, path, "make the folder");
    }
    char *parent = mq_asprintf("%s/..", path);
    if (parent == NULL) {
        return mq_fail_memory(err, "a path", strlen(path));
    }
    const int result = mq_sync_folder(parent);
    const int number = errno;
    mq_free(parent);
    return result == 0 ? MQ_OK : mq_fail_errno(err, number, path, "bring to the disk");
}

static mq_status lock(mq_keep *keep, mq_error *err) {
    keep->lock = mq_sys_open(keep->path, O_RDONLY | O_DIRECTORY, 0);
    if (keep->lock < 0) {
        return mq_fail_errno(err, errno, keep->path, "open the folder");
    }
    if (flock(keep->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return mq_fail_file(err, MQ_ERR_USAGE, keep->path, "another run is at work with it");
    }
    return MQ_OK;
}

mq_status mq_keep_open(mq_keep **out, const char *path, mq_keep_knows *knows, mq_error *err) {
    mq_status status = mq_keep_check(path, knows, err);
    mq_keep *keep = NULL;
    if (status == MQ_OK) {
        status = mq_new(&keep, 1, sizeof *keep, "a folder", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    *keep = (mq_keep){.path = mq_strdup(path), .knows = knows, .lock = -1};
    bool made = false;
    status =
        keep->path == NULL ? mq_fail_memory(err, "a path", strlen(path)) : make(&made, path, err);
    if (status == MQ_OK) {
        status = lock(keep, err);
    }
    if (status != MQ_OK) {
        if (made) {
            rmdir(path);
        }
        mq_keep_close(keep);
        return status;
    }
    *out = keep;
    return MQ_OK;
}

bool mq_keep_remove(mq_keep *keep) {
    DIR *stream = opendir(keep->path);
    bool removed = stream != NULL;
    const struct dirent *entry;
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        const kind found =
            is_dots(entry->d_name) ? FOREIGN : kind_of(dirfd(stream), entry->d_name, keep->knows);
        if (found == KNOWN_FILE) {
            removed = unlinkat(dirfd(stream), entry->d_name, 0) == 0 && removed;
        } else if (found == LEFTOVER) {
            char *path = mq_path_join(keep->path, entry->d_name);
            if (path != NULL) {
                mq_remove_folder(path);
            }
            mq_free(path);
        }
    }
    if (stream != NULL) {
        closedir(stream);
    }
    return (rmdir(keep->path) == 0 || errno == ENOTEMPTY || errno == EEXIST) && removed;
}

void mq_keep_close(mq_keep *keep) {
    if (keep != NULL) {
        if (keep->lock >= 0) {
            close(keep->lock);
        }
        mq_free(keep->path);
        mq_free(keep);
    }
}
