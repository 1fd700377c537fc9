/* Names of files, and what is at them. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/folder.h"

bool mq_path_exists(const char *path) {
    struct stat about;
    return lstat(path, &about) == 0;
}

mq_status mq_path_is_there(bool *there, const char *path, mq_error *err) {
    struct stat about;
    *there = lstat(path, &about) == 0;
    return *there || errno == ENOENT || errno == ENOTDIR ? MQ_OK
                                                         : mq_fail_errno(err, errno, path, "open");
}

bool mq_is_folder(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool mq_same_file(const char *a, const char *b) {
    struct stat about_a;
    struct stat about_b;
    return stat(a, &about_a) == 0 && stat(b, &about_b) == 0 && about_a.st_dev == about_b.st_dev &&
           about_a.st_ino == about_b.st_ino;
}

mq_status mq_file_size(size_t *out, const char *path, mq_error *err) {
    struct stat about;
    if (stat(path, &about) != 0) {
        return mq_fail_errno(err, errno, path, "look at the file");
    }
    if (S_ISDIR(about.st_mode)) {
        return mq_fail_errno(err, EISDIR, path, "take the size");
    }
    *out = (size_t)about.st_size;
    return MQ_OK;
}

char *mq_path_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *separator = length == 0 || folder[length - 1] == '/' ? "" : "/";
    return mq_asprintf("%s%s%s", folder, separator, name);
}

const char *mq_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* The last characters of text, as many as end has; NULL: it is shorter. */
static const char *tail(const char *text, const char *end) {
    const size_t length = strlen(text), end_length = strlen(end);
    return length < end_length ? NULL : text + length - end_length;
}

bool mq_ends_with(const char *text, const char *end) {
    const char *at = tail(text, end);
    return at != NULL && strcmp(at, end) == 0;
}

bool mq_ends_with_any_case(const char *text, const char *end) {
    const char *at = tail(text, end);
    return at != NULL && strcasecmp(at, end) == 0;
}

/* Cuts path to its parent, in place; false when there is none above. */
static bool to_parent(char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        path[--length] = '\0';
    }
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        bool already = strcmp(path, ".") == 0;
        strcpy(path, ".");
        return !already;
    }
    if (slash == path) {
        bool already = path[1] == '\0';
        path[1] = '\0';
        return !already;
    }
    *slash = '\0';
    return true;
}

char *mq_path_parent(const char *path) {
    char *parent = mq_strdup(path[0] == '\0' ? "." : path);
    if (parent != NULL) {
        to_parent(parent);
    }
    return parent;
}

/* The last name in a path, trailing slashes apart. */
static const char *last_name(size_t *length, const char *path) {
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    *length = end - begin;
    return path + begin;
}

char *mq_path_name(const char *path) {
    size_t length;
    const char *name = last_name(&length, path);
    return mq_asprintf("%.*s", (int)length, name);
}

mq_status mq_same_place(bool *same, const char *a, const char *b, mq_error *err) {
    size_t length_a, length_b;
    const char *name_a = last_name(&length_a, a), *name_b = last_name(&length_b, b);
    *same = mq_same_file(a, b);
    if (*same || length_a != length_b || memcmp(name_a, name_b, length_a) != 0) {
        return MQ_OK;
    }
    char *parent_a = mq_path_parent(a), *parent_b = mq_path_parent(b);
    const bool enough = parent_a != NULL && parent_b != NULL;
    *same = enough && mq_same_file(parent_a, parent_b);
    mq_free(parent_a);
    mq_free(parent_b);
    return enough ? MQ_OK : mq_fail_memory(err, "a path", strlen(a));
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends a copy of name. */
static bool list_add(char ***list, size_t *count, const char *name) {
    if ((*count & (*count - 1)) == 0) { /* full at every power of two */
        char **grown = mq_realloc(*list, *count == 0 ? 1 : 2 * *count, sizeof **list);
        if (grown == NULL) {
            return false;
        }
        *list = grown;
    }
    (*list)[*count] = mq_strdup(name);
    if ((*list)[*count] == NULL) {
        return false;
    }
    (*count)++;
    return true;
}

mq_status mq_list_folder(char ***out, size_t *count, const char *folder, mq_error *err) {
    DIR *stream = mq_sys_open_list(folder);
    if (stream == NULL) {
        return mq_fail_errno(err, errno, folder, "list the folder");
    }
    mq_status status = MQ_OK;
    char **list = NULL;
    size_t found = 0;
    const struct dirent *entry;
    while (status == MQ_OK) {
        status = mq_next_entry(&entry, stream, folder, err);
        if (status != MQ_OK || entry == NULL) {
            break;
        }
        struct stat about;
        if (fstatat(dirfd(stream), entry->d_name, &about, 0) == 0 && S_ISREG(about.st_mode) &&
            !list_add(&list, &found, entry->d_name)) {
            status = mq_fail_memory(err, "a list of files", sizeof *list * (found + 1));
        }
    }
    closedir(stream);
    if (status != MQ_OK) {
        mq_free_list(list, found);
        return status;
    }
    if (found > 0) {
        qsort(list, found, sizeof *list, compare_names);
    }
    *out = list;
    *count = found;
    return MQ_OK;
}

void mq_free_list(char **list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mq_free(list[i]);
    }
    mq_free(list);
}

mq_status mq_folder_size(size_t *out, const char *folder, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_folder(&names, &count, folder, err);
    *out = 0;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        size_t size = 0;
        char *path = mq_path_join(folder, names[i]);
        status = path == NULL ? mq_fail_memory(err, "a path", strlen(folder))
                              : mq_file_size(&size, path, err);
        *out += size;
        mq_free(path);
    }
    mq_free_list(names, count);
    return status;
}

mq_status mq_disk_free(size_t *out, const char *path, mq_error *err) {
    char *existing = mq_asprintf("%s", path[0] == '\0' ? "." : path);
    if (existing == NULL) {
        return mq_fail_memory(err, "a path", strlen(path) + 1);
    }
    struct statvfs about;
    int result = statvfs(existing, &about);
    while (result != 0 && errno == ENOENT && to_parent(existing)) {
        result = statvfs(existing, &about);
    }
    int number = errno;
    mq_free(existing);
    if (result != 0) {
        return mq_fail_errno(err, number, path, "ask for free space");
    }
    *out = SIZE_MAX; /* more than can be counted is enough for anything */
    mq_mul_size(out, (size_t)about.f_bavail, (size_t)about.f_frsize);
    return MQ_OK;
}

/* The device of a path or of its nearest existing parent. */
static bool device_of(dev_t *out, const char *path) {
    char *existing = mq_asprintf("%s", path[0] == '\0' ? "." : path);
    struct stat about;
    bool found = existing != NULL && stat(existing, &about) == 0;
    while (existing != NULL && !found && errno == ENOENT && to_parent(existing)) {
        found = stat(existing, &about) == 0;
    }
    mq_free(existing);
    if (found) {
        *out = about.st_dev;
    }
    return found;
}

bool mq_same_disk(const char *a, const char *b) {
    dev_t first, second;
    return !device_of(&first, a) || !device_of(&second, b) || first == second;
}
