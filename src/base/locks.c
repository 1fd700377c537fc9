/* Locks on folders, which the kernel lets go when the process dies. Temporary folders beside an
 * output, those of killed runs and of runs that are at work: a run has its own locked (output.c);
 * who looks takes a lock that others who look can share. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/output.h"

const char mq_suffix_letters[65] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/* Of a name ".BASE.matquant-XXXXXX". */
bool mq_output_leftover_base(char base[MQ_LEFTOVER_BASE], const char *name) {
    static const char middle[] = ".matquant-";
    const size_t length = strlen(name), end = sizeof middle - 1 + MQ_SUFFIX_LENGTH;
    if (name[0] != '.' || length <= 1 + end || length - end > MQ_LEFTOVER_BASE) {
        return false;
    }
    const char *rest = name + length - end;
    memcpy(base, name + 1, length - 1 - end);
    base[length - 1 - end] = '\0';
    return strncmp(rest, middle, sizeof middle - 1) == 0 &&
           strspn(rest + sizeof middle - 1, mq_suffix_letters) == MQ_SUFFIX_LENGTH;
}

static void remove_if_abandoned(const char *path) {
    const int fd = mq_sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd >= 0 && mq_sys_lock(fd, LOCK_EX | LOCK_NB) == 0) {
        mq_remove_folder(path);
    }
    mq_folder_unlock(fd);
}

bool mq_folder_is_abandoned(const char *path) {
    const int fd = mq_sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    const bool abandoned = fd >= 0 && mq_sys_lock(fd, LOCK_SH | LOCK_NB) == 0;
    mq_folder_unlock(fd);
    return abandoned;
}

/* What is gone meanwhile, no folder, or another user's that nobody else may look at is not held as
 * far as anybody can tell. */
static mq_status is_held(bool *held, const char *path, mq_error *err) {
    *held = false;
    const int fd = mq_sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0) {
        const bool none = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES;
        return none ? MQ_OK : mq_fail_errno(err, errno, path, "open the folder");
    }
    *held = mq_sys_lock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    mq_folder_unlock(fd);
    return MQ_OK;
}

/* The path of the stream's next temporary folder of that output (NULL: of any), to be freed; NULL:
 * no more. */
static mq_status next_leftover(char **out, DIR *stream, const char *parent, const char *base,
                               mq_error *err) {
    const struct dirent *entry;
    char of[MQ_LEFTOVER_BASE];
    mq_status status;
    *out = NULL;
    while ((status = mq_next_entry(&entry, stream, parent, err)) == MQ_OK && entry != NULL) {
        if (mq_output_leftover_base(of, entry->d_name) && (base == NULL || strcmp(of, base) == 0)) {
            *out = mq_path_join(parent, entry->d_name);
            return *out != NULL ? MQ_OK : mq_fail_memory(err, "a path", strlen(parent));
        }
    }
    return status;
}

/* Whoever works with a folder under its lock is done in far less time. */
#define LOCK_PATIENCE_MS 5000
#define LOCK_STEP_MS 50

mq_status mq_folder_lock(int *lock, const char *path, const mq_context *context, mq_error *err) {
    const struct timespec step = {.tv_nsec = LOCK_STEP_MS * 1000000L};
    mq_status status = MQ_OK;
    *lock = mq_sys_open(path, O_RDONLY | O_DIRECTORY, 0);
    if (*lock < 0) {
        return MQ_OK;
    }
    for (int waited = 0; mq_sys_lock(*lock, LOCK_EX | LOCK_NB) != 0; waited += LOCK_STEP_MS) {
        const bool is_held = errno == EWOULDBLOCK;
        status = mq_check_interrupt(context, err);
        if (status == MQ_OK && is_held && waited >= LOCK_PATIENCE_MS) {
            status = mq_fail_file(err, MQ_ERR_MACHINE, path, "another process has it locked");
        }
        if (status != MQ_OK || !is_held) {
            mq_folder_unlock(*lock);
            *lock = -1;
            break;
        }
        nanosleep(&step, NULL);
    }
    return status;
}

void mq_folder_unlock(int lock) {
    if (lock >= 0) {
        close(lock);
    }
}

/* Does not fail: that an earlier run's folder stays is no reason not to start. */
void mq_output_remove_leftovers(const char *parent, const char *base) {
    DIR *stream = mq_sys_open_list(parent);
    if (stream == NULL) {
        return;
    }
    char *path;
    while (next_leftover(&path, stream, parent, base, NULL) == MQ_OK && path != NULL) {
        remove_if_abandoned(path);
        mq_free(path);
    }
    closedir(stream);
}

/* What the plain files of a folder take. */
static size_t bytes_on_disk(const char *folder) {
    DIR *stream = mq_sys_open_list(folder);
    if (stream == NULL) {
        return 0;
    }
    const struct dirent *entry;
    struct stat about;
    size_t bytes = 0;
    while (mq_next_entry(&entry, stream, folder, NULL) == MQ_OK && entry != NULL) {
        if (fstatat(dirfd(stream), entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (size_t)about.st_blocks * 512; /* whatever the size of the disk's own */
        }
    }
    closedir(stream);
    return bytes;
}

/* Does not fail either: what is not counted is room that nobody knows of. */
size_t mq_output_leftovers_in(const char *parent, const char *base) {
    DIR *stream = mq_sys_open_list(parent);
    if (stream == NULL) {
        return 0;
    }
    size_t bytes = 0;
    char *path;
    while (next_leftover(&path, stream, parent, base, NULL) == MQ_OK && path != NULL) {
        bytes += mq_folder_is_abandoned(path) ? bytes_on_disk(path) : 0;
        mq_free(path);
    }
    closedir(stream);
    return bytes;
}

mq_status mq_output_is_being_made(bool *held, const char *parent, const char *base, const char *own,
                                  mq_error *err) {
    *held = false;
    DIR *stream = mq_sys_open_list(parent);
    if (stream == NULL) {
        return errno == ENOENT
                   ? mq_fail_file(err, MQ_ERR_INPUT, parent, "does not exist; create it first")
                   : mq_fail_errno(err, errno, parent, "list the folder");
    }
    mq_status status = MQ_OK;
    while (status == MQ_OK && !*held) {
        char *path;
        status = next_leftover(&path, stream, parent, base, err);
        if (status != MQ_OK || path == NULL) {
            break;
        }
        if (own == NULL || strcmp(mq_path_base(path), mq_path_base(own)) != 0) {
            status = is_held(held, path, err);
        }
        mq_free(path);
    }
    closedir(stream);
    return status;
}
