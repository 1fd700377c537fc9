/* Folders as a whole: their entries, their end, their way to the disk. */
#include "base/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"

static bool is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

mq_status mq_next_entry(const struct dirent **out, DIR *stream, const char *folder, mq_error *err) {
    do {
        errno = 0; /* which alone tells a failure from the end */
        *out = mq_sys_next_listed(stream);
    } while (*out != NULL && is_dots((*out)->d_name));
    return *out != NULL || errno == 0 ? MQ_OK
                                      : mq_fail_errno(err, errno, folder, "list the folder");
}

/* unlinkat(2) in the folder open at fd, although that is write-protected, if it is one's own. */
static int unlink_in(int fd, const char *name, int flags) {
    int result = unlinkat(fd, name, flags);
    if (result != 0 && errno == EACCES) {
        result = fchmod(fd, 0700) == 0 ? unlinkat(fd, name, flags) : -1;
    }
    return result;
}

/* Removes everything in the folder open at fd, as far as it can be; closes fd. Ours are flat; what
 * is deeper is removed all the same when the folder is known to be a temporary one. */
static void remove_contents(int fd) {
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        close(fd);
        return;
    }
    const struct dirent *entry;
    while (mq_next_entry(&entry, stream, "", NULL) == MQ_OK && entry != NULL) {
        if (unlink_in(fd, entry->d_name, 0) != 0 && (errno == EISDIR || errno == EPERM)) {
            int inner = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner >= 0) {
                remove_contents(inner);
            }
            unlink_in(fd, entry->d_name, AT_REMOVEDIR);
        }
    }
    closedir(stream);
}

void mq_remove_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        remove_contents(fd);
    }
    rmdir(path);
}

int mq_sync_folder(const char *path) {
    int fd = mq_sys_open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return -1;
    }
    int result = mq_sys_fsync(fd);
    int number = errno;
    close(fd);
    errno = number;
    return result != 0 && number == EINVAL ? 0 : result;
}
