/* An output folder, or file, that appears whole or not at all.
 *
 * The temporary folder is locked through a descriptor of its own (flock), which the kernel lets go
 * when the process dies, however it dies, and which no file inside has to be removed for. Where a
 * file system knows no such locks (some network ones), folders left behind are not cleaned up:
 * nobody can tell whether they are still wanted. */
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"

#define MAX_TRIES 100

/* --- begin ------------------------------------------------------------------------------------ */

/* Whether something is mounted there; by another device alone where the system cannot say. */
static bool is_mount(const mq_output *output) {
#ifdef STATX_ATTR_MOUNT_ROOT
    struct statx more;
    if (statx(AT_FDCWD, output->path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &more) == 0 &&
        (more.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0) {
        return (more.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    }
#endif
    struct stat about, around;
    return lstat(output->path, &about) == 0 && stat(output->parent, &around) == 0 &&
           about.st_dev != around.st_dev;
}

/* Nothing can be put in the place of a file or folder that something is mounted on. */
static mq_status check_no_mount(const mq_output *output, mq_error *err) {
    return is_mount(output)
               ? mq_fail_file(err, MQ_ERR_USAGE, output->path,
                              "is a mount point, which cannot be replaced; name an output in it, "
                              "or beside it")
               : MQ_OK;
}

/* Refuses an output folder that another run is making: in the end, one of the two runs would lose
 * its work. (Not called for files, which are made quickly: the run that finishes last wins.) */
static mq_status check_alone(const mq_output *output, mq_error *err) {
    bool held;
    const mq_status status = mq_output_is_being_made(
        &held, output->parent, mq_path_base(output->path), output->folder, err);
    return status == MQ_OK && held
               ? mq_fail_file(err, MQ_ERR_USAGE, output->path, "is being made by another run")
               : status;
}

/* Sets output->path and output->parent. */
static mq_status split_path(mq_output *output, const char *path, mq_error *err) {
    output->path = mq_strdup(path);
    if (output->path == NULL) {
        return mq_fail_memory(err, "a path", strlen(path) + 1);
    }
    size_t length = strlen(path);
    while (length > 1 && output->path[length - 1] == '/') {
        output->path[--length] = '\0';
    }
    const char *base = mq_path_base(output->path);
    if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        return mq_fail(err, MQ_ERR_USAGE, "\"%s\" is no name for an output", path);
    }
    if (strlen(base) > MQ_LEFTOVER_BASE_MAX) { /* the temporary folder's name is longer */
        return mq_fail_file(err, MQ_ERR_USAGE, output->path,
                            "its name has %zu bytes; an output's may have %d", strlen(base),
                            MQ_LEFTOVER_BASE_MAX);
    }
    size_t parent_length = (size_t)(base - output->path);
    output->parent =
        parent_length == 0 ? mq_strdup(".") : mq_asprintf("%.*s", (int)parent_length, output->path);
    if (output->parent == NULL) {
        return mq_fail_memory(err, "a path", length + 1);
    }
    return MQ_OK;
}

/* Random letters for a temporary name; false and errno. */
static bool make_suffix(char suffix[MQ_SUFFIX_LENGTH + 1]) {
    unsigned char bytes[MQ_SUFFIX_LENGTH];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return false;
    }
    for (size_t i = 0; i < MQ_SUFFIX_LENGTH; i++) {
        suffix[i] = mq_suffix_letters[bytes[i] % (sizeof mq_suffix_letters - 1)];
    }
    suffix[MQ_SUFFIX_LENGTH] = '\0';
    return true;
}

/* Opens and locks the folder just made. *taken: a cleaning run came between and has removed it. */
static mq_status lock_folder(mq_output *output, bool *taken, mq_error *err) {
    *taken = false;
    output->lock = mq_sys_open(output->folder, O_RDONLY | O_DIRECTORY, 0);
    if (output->lock < 0) {
        *taken = errno == ENOENT;
        return *taken
                   ? MQ_OK
                   : mq_fail_errno(err, errno, output->path, "open the folder that it is made in");
    }
    bool locked = mq_sys_lock(output->lock, LOCK_EX | LOCK_NB) == 0;
    struct stat about;
    struct stat locked_about;
    *taken = (!locked && errno == EWOULDBLOCK) || stat(output->folder, &about) != 0 ||
             fstat(output->lock, &locked_about) != 0 || about.st_ino != locked_about.st_ino;
    if (*taken) { /* another run looks at it, or has removed it */
        close(output->lock);
        output->lock = -1;
        rmdir(output->folder);
    }
    return MQ_OK;
}

static mq_status no_room(const mq_output *output, int number, mq_error *err) {
    return number == ENOENT
               ? mq_fail_file(err, MQ_ERR_INPUT, output->parent, "does not exist; create it first")
               : mq_fail_errno(err, number, output->parent, "make a folder in it");
}

/* Makes, opens and locks output->folder. mkdtemp(3) would make it private for good: 0777 leaves
 * that to the umask. */
static mq_status make_folder(mq_output *output, mq_error *err) {
    for (int i = 0; i < MAX_TRIES; i++) {
        char suffix[MQ_SUFFIX_LENGTH + 1];
        if (!make_suffix(suffix)) {
            return mq_fail_errno(err, errno, output->parent, "make a temporary name");
        }
        mq_free(output->folder);
        const char *separator = output->parent[strlen(output->parent) - 1] == '/' ? "" : "/";
        output->folder = mq_asprintf("%s%s.%s.matquant-%s", output->parent, separator,
                                     mq_path_base(output->path), suffix);
        if (output->folder == NULL) {
            return mq_fail_memory(err, "a path", strlen(output->path));
        }
        if (mq_sys_mkdir(output->folder, 0777) != 0) {
            if (errno == EEXIST) {
                continue;
            }
            return no_room(output, errno, err);
        }
        bool taken;
        mq_status status = lock_folder(output, &taken, err);
        if (status != MQ_OK) {
            mq_remove_folder(output->folder);
        }
        if (!taken) {
            return status;
        }
    }
    return mq_fail_errno(err, EEXIST, output->parent, "make a folder in it");
}

/* Looks for other runs before the folder is there, and again when it is locked: of two that start
 * at once the one that locks later sees the other. (Both may, and then neither goes on.) */
static mq_status make_folder_alone(mq_output *output, mq_error *err) {
    mq_status status = check_alone(output, err);
    status = status == MQ_OK ? make_folder(output, err) : status;
    if (status != MQ_OK) {
        return status;
    }
    status = check_alone(output, err);
    if (status == MQ_OK) { /* at once: what is in the making is as private as what it replaces */
        status = mq_output_keep_permissions(output->lock, output, err);
    }
    if (status != MQ_OK) {
        mq_remove_folder(output->folder);
    }
    return status;
}

static void free_output(mq_output *output) {
    mq_folder_unlock(output->lock);
    mq_free(output->path);
    mq_free(output->parent);
    mq_free(output->folder);
    mq_free(output->made);
    mq_free(output);
}

/* An output whose place is free, or may be freed; nothing is written yet. */
static mq_status new_output(mq_output **out, const char *path, const char *magic, bool replace,
                            mq_error *err) {
    mq_output *output = NULL;
    mq_status status = mq_new(&output, 1, sizeof *output, "the output", err);
    if (status != MQ_OK) {
        return status;
    }
    *output = (mq_output){.lock = -1, .replace = replace, .magic = magic};
    status = split_path(output, path, err);
    if (status == MQ_OK && mq_path_exists(output->path)) {
        status = replace ? check_no_mount(output, err)
                         : mq_fail_file(err, MQ_ERR_USAGE, output->path,
                                        "the output exists already; --force replaces it");
        status = status == MQ_OK ? mq_output_check_replaceable(output->path, magic, err) : status;
    }
    if (status != MQ_OK) {
        free_output(output);
        return status;
    }
    *out = output;
    return MQ_OK;
}

static mq_status check(const char *path, const char *magic, bool replace, mq_error *err) {
    mq_output *output = NULL;
    mq_status status = new_output(&output, path, magic, replace, err);
    if (status != MQ_OK) {
        return status;
    }
    if (access(output->parent, W_OK | X_OK) != 0) {
        status = no_room(output, errno, err);
    }
    status = status == MQ_OK && magic == NULL ? check_alone(output, err) : status;
    free_output(output);
    return status;
}

mq_status mq_output_check(const char *path, bool replace, mq_error *err) {
    return check(path, NULL, replace, err);
}

mq_status mq_output_file_check(const char *path, bool replace, mq_error *err) {
    return check(path, "", replace, err);
}

size_t mq_output_leftover(const char *path) {
    char *parent = mq_path_parent(path), *base = mq_path_name(path);
    const size_t bytes = parent != NULL && base != NULL ? mq_output_leftovers_in(parent, base) : 0;
    mq_free(parent);
    mq_free(base);
    return bytes;
}

static mq_status begin(mq_output **out, const char *path, const char *magic, bool replace,
                       mq_error *err) {
    mq_output *output = NULL;
    mq_status status = new_output(&output, path, magic, replace, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_output_remove_leftovers(output->parent, mq_path_base(output->path));
    status = magic == NULL ? make_folder_alone(output, err) : make_folder(output, err);
    if (status == MQ_OK) {
        output->made = magic == NULL ? mq_strdup(output->folder)
                                     : mq_path_join(output->folder, mq_output_file_name(output));
        if (output->made == NULL) {
            mq_remove_folder(output->folder);
            status = mq_fail_memory(err, "a path", strlen(path));
        }
    }
    if (status != MQ_OK) {
        free_output(output);
        return status;
    }
    *out = output;
    return MQ_OK;
}

mq_status mq_output_begin(mq_output **out, const char *path, bool replace, mq_error *err) {
    return begin(out, path, NULL, replace, err);
}

mq_status mq_output_begin_file(mq_output **out, const char *path, const char *magic, bool replace,
                               mq_error *err) {
    return begin(out, path, magic, replace, err);
}

const char *mq_output_folder(const mq_output *output) { return output->folder; }

const char *mq_output_file_name(const mq_output *output) { return mq_path_base(output->path); }

/* --- commit ----------------------------------------------------------------------------------- */

static bool not_supported(int number) {
    return number == EINVAL || number == ENOSYS || number == ENOTSUP;
}

/* Moves a file or folder to a name where nothing is (rename(2) alone would take the place of what
 * is there): -1 and errno, EEXIST among them. */
static int move_to_free_name(const char *from, const char *to) {
    if (mq_sys_rename(from, to, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (!not_supported(errno)) {
        return -1;
    }
    if (mq_path_exists(to)) {
        errno = EEXIST;
        return -1;
    }
    return mq_sys_rename(from, to, 0);
}

/* Exchanges two folders or files. Without the system's own exchange a file takes the other's place
 * for good; an old folder is set aside for a moment, under a name that no later run takes for a
 * leftover: killed in between, both are there. */
static int exchange(const char *folder, const char *path, bool is_file) {
    if (mq_sys_rename(folder, path, RENAME_EXCHANGE) == 0) {
        return 0;
    }
    if (!not_supported(errno)) {
        return -1;
    }
    if (is_file) {
        return mq_sys_rename(folder, path, 0);
    }
    char *aside = mq_asprintf("%s-replaced", folder);
    if (aside == NULL) {
        errno = ENOMEM;
        return -1;
    }
    int result = mq_sys_rename(path, aside, 0);
    if (result == 0) {
        result = mq_sys_rename(folder, path, 0);
        const char *back = result == 0 ? folder : path;
        int number = errno;
        if (mq_sys_rename(aside, back, 0) != 0 && result == 0) {
            number = errno;
        }
        errno = number;
    }
    mq_free(aside);
    return result;
}

/* Puts the finished output in its place, where something `exists` or nothing is. MQ_ERR_USAGE: what
 * is there by now is not replaced. */
static mq_status put_in_place(mq_output *output, bool exists, mq_error *err) {
    mq_status status =
        exists ? mq_output_check_replaceable(output->path, output->magic, err) : MQ_OK;
    if (status == MQ_OK && output->magic == NULL) { /* they may be others by now */
        status = mq_output_keep_permissions(output->lock, output, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    const int result = exists ? exchange(output->made, output->path, output->magic != NULL)
                              : move_to_free_name(output->made, output->path);
    if (result == 0) {
        return MQ_OK;
    }
    return errno == EEXIST ? mq_fail_file(err, MQ_ERR_USAGE, output->path, "has appeared meanwhile")
                           : mq_fail_errno(err, errno, output->path, "rename the finished output");
}

/* A finished folder may be hours of work, which are not lost for what somebody has put in its place
 * meanwhile, or for what the file system says: it stays beside it, under a name that no later run
 * takes for a leftover, or where not even that name can be had, under the temporary one. */
static mq_status keep_beside(mq_output *output, const mq_error *why, mq_error *err) {
    const char *suffix = output->folder + strlen(output->folder) - MQ_SUFFIX_LENGTH;
    char *kept = mq_asprintf("%s-finished-%s", output->path, suffix);
    const bool moved = kept != NULL && move_to_free_name(output->folder, kept) == 0;
    if (moved) {
        mq_sync_folder(output->parent);
    }
    mq_fail_file(err, why->status, output->path, "what was made is kept as %s%s; %s%s",
                 mq_path_base(moved ? kept : output->folder),
                 moved ? "" : ", which the next run with this output removes",
                 why->status == MQ_ERR_USAGE ? "what is there " : "", why->message);
    output->kept = true;
    mq_free(kept);
    return why->status;
}

/* What could not be committed: kept, or if it is one file, which is quick to make, given up. */
static mq_status give_up(mq_output *output, const mq_error *why, mq_error *err) {
    if (output->magic == NULL) {
        return keep_beside(output, why, err);
    }
    if (err != NULL) {
        *err = *why;
    }
    return why->status;
}

mq_status mq_output_commit(mq_output *output, mq_error *err) {
    mq_error problem;
    if (mq_sync_folder(output->folder) != 0) {
        mq_fail_errno(&problem, errno, output->path, "bring to the disk");
        return give_up(output, &problem, err);
    }
    const bool is_file = output->magic != NULL;
    const bool exists = output->replace && mq_path_exists(output->path);
    int lock = -1;
    mq_status status = MQ_OK;
    if (exists && !is_file) { /* not while somebody is writing in the old folder */
        status = mq_folder_lock(&lock, output->path, NULL, &problem);
    }
    if (status == MQ_OK) {
        status = put_in_place(output, exists, &problem);
    }
    mq_folder_unlock(lock);
    if (status != MQ_OK) {
        return give_up(output, &problem, err);
    }
    if (mq_sync_folder(output->parent) != 0) {
        /* Nobody was told that it is there: as if it had never been. */
        mq_fail_errno(&problem, errno, output->parent, "bring to the disk");
        if (exists) {
            exchange(output->made, output->path, is_file); /* in vain if it took its place */
        } else {
            move_to_free_name(output->path, output->made);
        }
        return give_up(output, &problem, err);
    }
    output->committed = true;
    mq_folder_unlock(output->lock); /* it is in its place now, where others may record in it */
    output->lock = -1;
    if (exists || is_file) {
        mq_remove_folder(
            output->folder); /* it is, or holds, the old one now; or the file has left it */
    }
    return MQ_OK;
}

void mq_output_discard(mq_output *output) {
    if (output == NULL) {
        return;
    }
    if (!output->committed && !output->kept) {
        mq_remove_folder(output->folder);
    }
    free_output(output);
}

mq_status mq_output_file(const char *path, const void *data, size_t size, bool replace,
                         mq_error *err) {
    mq_output *output = NULL;
    mq_status status = mq_output_begin_file(&output, path, "", replace, err);
    if (status == MQ_OK) {
        status = mq_write_file(output, mq_output_file_name(output), data, size, err);
    }
    if (status == MQ_OK) {
        status = mq_output_commit(output, err);
    }
    mq_output_discard(output);
    return status;
}
