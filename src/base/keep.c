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

#define MAX_TRIES 100 /* to lock a folder that others make and remove */

struct mq_keep {
    char *path;
    mq_keep_knows *knows;
    int lock; /* the folder, open and locked; -1 */
};

typedef enum kind { FOREIGN, KNOWN_FILE, LEFTOVER, GONE } kind;

/* What the entry of the folder open at fd is. */
static kind kind_of(int fd, const char *name, mq_keep_knows *knows) {
    struct stat about;
    if (fstatat(fd, name, &about, AT_SYMLINK_NOFOLLOW) != 0) {
        /* GONE: a run that has the folder removed it meanwhile */
        return errno == ENOENT ? GONE : FOREIGN;
    }
    if (S_ISREG(about.st_mode)) {
        return knows(name) ? KNOWN_FILE : FOREIGN;
    }
    char base[MQ_LEFTOVER_BASE];
    const bool leftover =
        S_ISDIR(about.st_mode) && mq_output_leftover_base(base, name) && knows(base);
    return leftover ? LEFTOVER : FOREIGN;
}

/* What is there is looked at once: asked twice, whether it exists and whether it is a folder, one
 * that another run removes in between would be something else. */
static mq_status check_is_folder(const char *path, mq_error *err) {
    struct stat about;
    const bool there =
        stat(path, &about) == 0 || lstat(path, &about) == 0; /* or a link to nothing */
    return there && !S_ISDIR(about.st_mode)
               ? mq_fail_file(err, MQ_ERR_USAGE, path, "exists and is not a folder")
               : MQ_OK;
}

/* Whether there is nothing in the folder that the job does not know. */
static mq_status check_entries(const char *path, mq_keep_knows *knows, mq_error *err) {
    DIR *stream = mq_sys_open_list(path);
    if (stream == NULL) {
        return mq_fail_errno(err, errno, path, "list the folder");
    }
    const struct dirent *entry;
    mq_status status;
    while ((status = mq_next_entry(&entry, stream, path, err)) == MQ_OK && entry != NULL) {
        if (kind_of(dirfd(stream), entry->d_name, knows) == FOREIGN) {
            status = mq_fail_file(err, MQ_ERR_USAGE, path,
                                  "holds \"%.200s\", which no run of matquant keeps there; name "
                                  "another folder",
                                  entry->d_name);
            break;
        }
    }
    closedir(stream);
    return status;
}

/* Whether the folder could be made. */
static mq_status check_parent(const char *path, mq_error *err) {
    char *parent = mq_path_parent(path);
    if (parent == NULL) {
        return mq_fail_memory(err, "a path", strlen(path));
    }
    const int result = access(parent, W_OK | X_OK);
    const int number = errno;
    mq_free(parent);
    return result == 0 ? MQ_OK : mq_fail_errno(err, number, path, "make the folder");
}

mq_status mq_keep_check(const char *path, mq_keep_knows *knows, mq_error *err) {
    if (!mq_path_exists(path)) {
        return check_parent(path, err);
    }
    mq_status status = check_is_folder(path, err);
    if (status == MQ_OK) {
        status = check_entries(path, knows, err);
    }
    return status == MQ_OK && access(path, W_OK | X_OK) != 0
               ? mq_fail_errno(err, errno, path, "write in the folder")
               : status;
}

size_t mq_keep_leftover(const char *path) { return mq_output_leftovers_in(path, NULL); }

/* Brings the folder's name in its parent to the disk. */
static mq_status sync_name(const char *path, mq_error *err) {
    char *parent = mq_path_parent(path);
    if (parent == NULL) {
        return mq_fail_memory(err, "a path", strlen(path));
    }
    const int result = mq_sync_folder(parent);
    const int number = errno;
    mq_free(parent);
    return result == 0 ? MQ_OK : mq_fail_errno(err, number, path, "bring to the disk");
}

/* Opens and locks the folder: keep->lock. *gone: a run that had it has removed it meanwhile. */
static mq_status lock(mq_keep *keep, bool *gone, mq_error *err) {
    const int fd = mq_sys_open(keep->path, O_RDONLY | O_DIRECTORY, 0);
    *gone = fd < 0 && errno == ENOENT;
    if (fd < 0) {
        return *gone ? MQ_OK : mq_fail_errno(err, errno, keep->path, "open the folder");
    }
    if (mq_sys_lock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        return mq_fail_file(err, MQ_ERR_USAGE, keep->path, "another run is at work with it");
    }
    struct stat named, locked;
    *gone = stat(keep->path, &named) != 0 || fstat(fd, &locked) != 0 ||
            named.st_dev != locked.st_dev || named.st_ino != locked.st_ino;
    if (*gone) {
        close(fd);
        return MQ_OK;
    }
    keep->lock = fd;
    return MQ_OK;
}

/* Makes the folder, unless it is there, and locks it. */
static mq_status make_and_lock(bool *made, mq_keep *keep, mq_error *err) {
    for (int i = 0; i < MAX_TRIES; i++) {
        *made = mq_sys_mkdir(keep->path, 0777) == 0;
        if (!*made && errno != EEXIST) {
            return mq_fail_errno(err, errno, keep->path, "make the folder");
        }
        bool gone;
        const mq_status status = lock(keep, &gone, err);
        if (!gone) {
            return status;
        }
    }
    return mq_fail_errno(err, ENOENT, keep->path, "open the folder");
}

mq_status mq_keep_open(mq_keep **out, const char *path, mq_keep_knows *knows, mq_error *err) {
    mq_status status = check_is_folder(path, err);
    mq_keep *keep = NULL;
    if (status == MQ_OK) {
        status = mq_new(&keep, 1, sizeof *keep, "a folder", err);
    }
    if (status != MQ_OK) {
        return status;
    }
    *keep = (mq_keep){.path = mq_strdup(path), .knows = knows, .lock = -1};
    bool made = false;
    status = keep->path == NULL ? mq_fail_memory(err, "a path", strlen(path))
                                : make_and_lock(&made, keep, err);
    if (status == MQ_OK) { /* only now: while another run has it, entries come and go */
        status = made ? sync_name(path, err) : check_entries(path, knows, err);
    }
    if (status != MQ_OK) {
        if (made && keep->lock >= 0) { /* else another run may have it by now */
            rmdir(path);
        }
        mq_keep_close(keep);
        return status;
    }
    *out = keep;
    return MQ_OK;
}

/* Why the folder may stay when what the job knows is gone: something else is in it (ENOTEMPTY,
 * EEXIST); the path is a link to it (ENOTDIR), or ends in "." (EINVAL); a file system begins there
 * (EBUSY); or its parent may not be changed (EACCES, EPERM, EROFS), so that it was there before the
 * job. */
static bool may_stay(int number) {
    static const int numbers[] = {ENOTEMPTY, EEXIST, ENOTDIR, EINVAL, EBUSY, EACCES, EPERM, EROFS};
    bool found = false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        found = found || number == numbers[i];
    }
    return found;
}

bool mq_keep_remove(mq_keep *keep, const char *last) {
    DIR *stream = mq_sys_open_list(keep->path);
    bool listed = stream != NULL, removed = true, has_last = false;
    const struct dirent *entry;
    while ((listed = listed && mq_next_entry(&entry, stream, keep->path, NULL) == MQ_OK) &&
           entry != NULL) {
        const kind found = kind_of(dirfd(stream), entry->d_name, keep->knows);
        if (found == KNOWN_FILE && last != NULL && strcmp(entry->d_name, last) == 0) {
            has_last = true;
        } else if (found == KNOWN_FILE) {
            removed = unlinkat(dirfd(stream), entry->d_name, 0) == 0 && removed;
        } else if (found == LEFTOVER) {
            char *path = mq_path_join(keep->path, entry->d_name);
            if (path != NULL) {
                mq_remove_folder(path);
            }
            mq_free(path);
        }
    }
    removed = removed && listed;
    if (has_last && removed) {
        removed = unlinkat(dirfd(stream), last, 0) == 0;
    }
    if (stream != NULL) {
        closedir(stream);
    }
    return (rmdir(keep->path) == 0 || may_stay(errno)) && removed;
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
