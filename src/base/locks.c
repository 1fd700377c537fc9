/* Locks on folders, which the kernel lets go when the process dies. Temporary folders beside an
 * output, those of killed runs and of runs that are at work: a run has its own locked (output.c);
 * who looks takes a lock that others who look can share. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

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
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        mq_remove_folder(path);
    }
    mq_folder_unlock(fd);
}

bool mq_folder_is_abandoned(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    const bool abandoned = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0;
    mq_folder_unlock(fd);
    return abandoned;
}

static bool is_held(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    const bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    mq_folder_unlock(fd);
    return held;
}

/* The path of the stream's next temporary folder of that output, to be freed; NULL: no more. */
static char *next_leftover(DIR *stream, const char *parent, const char *base) {
    const struct dirent *entry;
    char of[MQ_LEFTOVER_BASE];
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        if (mq_output_leftover_base(of, entry->d_name) && strcmp(of, base) == 0) {
            return mq_path_join(parent, entry->d_name);
        }
    }
    return NULL;
}

static void close_stream(DIR *stream) {
    if (stream != NULL) {
        closedir(stream);
    }
}

int mq_folder_lock(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = -1;
    while (fd >= 0 && (result = flock(fd, LOCK_EX)) != 0 && errno == EINTR) {
    }
    if (fd >= 0 && result != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void mq_folder_unlock(int lock) {
    if (lock >= 0) {
        close(lock);
    }
}

/* Neither fails: that an earlier run's folder stays is no reason not to start. */
void mq_output_remove_leftovers(const char *parent, const char *base) {
    DIR *stream = opendir(parent);
    for (char *path; (path = next_leftover(stream, parent, base)) != NULL; mq_free(path)) {
        remove_if_abandoned(path);
    }
    close_stream(stream);
}

bool mq_output_is_being_made(const char *parent, const char *base, const char *own) {
    DIR *stream = opendir(parent);
    bool held = false;
    for (char *path; (path = next_leftover(stream, parent, base)) != NULL; mq_free(path)) {
        const bool is_own = own != NULL && strcmp(mq_path_base(path), mq_path_base(own)) == 0;
        held = (!is_own && is_held(path)) || held;
    }
    close_stream(stream);
    return held;
}
