/* What --force may replace: what matquant wrote, and nothing else. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/json.h"
#include "base/output.h"
#include "matquant/format.h"

/* --- a file ----------------------------------------------------------------------------------- */

/* A plain file that begins with magic, which all do with "". */
static mq_status check_replaceable_file(const char *path, const struct stat *about,
                                        const char *magic, mq_error *err) {
    if (!S_ISREG(about->st_mode)) {
        return mq_fail_file(err, MQ_ERR_USAGE, path, "exists and is not a plain file");
    }
    if (magic[0] == '\0') {
        return MQ_OK;
    }
    char begin[16];
    const size_t length = strlen(magic);
    const int fd = mq_sys_open(path, O_RDONLY, 0);
    const bool same = fd >= 0 && length <= sizeof begin &&
                      mq_sys_read(fd, begin, length) == (ssize_t)length &&
                      memcmp(begin, magic, length) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return same ? MQ_OK
                : mq_fail_file(err, MQ_ERR_USAGE, path,
                               "is not replaced: it is no file that begins with \"%s\"", magic);
}

/* --- a folder --------------------------------------------------------------------------------- */

/* Whether it is a folder that a killed run left in that one, or one in which the provenance is
 * written anew (eval --record): whoever does that holds the folder around it for so long, and is
 * waited for before that is replaced. */
static bool is_passing(const char *parent, const char *name, const struct stat *about) {
    char base[MQ_LEFTOVER_BASE];
    if (!S_ISDIR(about->st_mode) || !mq_output_leftover_base(base, name)) {
        return false;
    }
    if (strcmp(base, MQ_PROVENANCE_FILE) == 0) {
        return true;
    }
    char *path = mq_path_join(parent, name);
    const bool abandoned = path != NULL && mq_folder_is_abandoned(path);
    mq_free(path);
    return abandoned;
}

/* Whether our runs write files of that name into such a folder, or the list in matquant.json of
 * those that they copied has it ("files", matquant/format.h). Slices alone have a model card, and
 * of them those in GPTQ's format alone a quantize_config.json. */
static bool is_written(const char *name, const cJSON *provenance) {
    static const char *const patterns[] = {"config.json", MQ_PROVENANCE_FILE, "model.safetensors",
                                           "model.safetensors.index.json",
                                           "model-[0-9]*-of-[0-9]*.safetensors"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        if (fnmatch(patterns[i], name, 0) == 0) {
            return true;
        }
    }
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(provenance, "slice");
    const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(slice, "format"));
    if ((strcmp(name, "README.md") == 0 && slice != NULL) ||
        (strcmp(name, "quantize_config.json") == 0 && format != NULL &&
         strcmp(format, "gptq") == 0)) {
        return true;
    }
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(provenance, "files");
    return cJSON_GetObjectItemCaseSensitive(files, name) != NULL;
}

/* Only plain files that our runs write; config.json and matquant.json, which all of them do, are
 * among them unless there is none. */
static mq_status check_entries(DIR *stream, const char *path, const cJSON *provenance,
                               mq_error *err) {
    size_t files = 0, in_all = 0;
    const struct dirent *entry;
    mq_status status;
    while ((status = mq_next_entry(&entry, stream, path, err)) == MQ_OK && entry != NULL) {
        const char *name = entry->d_name;
        struct stat about;
        const bool there = fstatat(dirfd(stream), name, &about, AT_SYMLINK_NOFOLLOW) == 0;
        if (there ? is_passing(path, name, &about) : errno == ENOENT) { /* gone meanwhile */
            continue;
        }
        if (!there || !S_ISREG(about.st_mode) || !is_written(name, provenance)) {
            return mq_fail_file(
                err, MQ_ERR_USAGE, path,
                "is not replaced: it holds \"%.200s\", which no run of matquant has "
                "written there, by its name or by the list in matquant.json; use "
                "another name, or remove it yourself",
                name);
        }
        files++;
        in_all += strcmp(name, "config.json") == 0 || strcmp(name, MQ_PROVENANCE_FILE) == 0;
    }
    return status == MQ_OK && files > 0 && in_all < 2
               ? mq_fail_file(err, MQ_ERR_USAGE, path,
                              "is not replaced: it has not both config.json and matquant.json, as "
                              "all have that matquant wrote; use another name, or remove it "
                              "yourself")
               : status;
}

/* *out: NULL where there is none; one that is damaged lists nothing either. */
static mq_status read_provenance(cJSON **out, const char *folder, mq_error *err) {
    struct stat about;
    *out = NULL;
    char *path = mq_path_join(folder, MQ_PROVENANCE_FILE);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(folder));
    }
    mq_status status = MQ_OK;
    if (lstat(path, &about) == 0 && S_ISREG(about.st_mode)) {
        status = mq_json_read(out, path, err);
    }
    mq_free(path);
    return status == MQ_ERR_INPUT ? MQ_OK : status;
}

/* Whether its files could be removed once it has been replaced. */
static mq_status check_may_change(const char *path, mq_error *err) {
    if (access(path, W_OK | X_OK) == 0) {
        return MQ_OK;
    }
    return errno == EACCES ? mq_fail_file(err, MQ_ERR_USAGE, path,
                                          "is not replaced: it is write-protected, or another "
                                          "user's; use another name, or remove it yourself")
                           : mq_fail_errno(err, errno, path, "look at the output");
}

static mq_status check_replaceable_folder(const char *path, mq_error *err) {
    mq_status status = check_may_change(path, err);
    if (status != MQ_OK) {
        return status;
    }
    cJSON *provenance = NULL;
    status = read_provenance(&provenance, path, err);
    if (status != MQ_OK) {
        return status;
    }
    DIR *stream = mq_sys_open_list(path);
    if (stream == NULL) {
        status = mq_fail_errno(err, errno, path, "list the folder");
    } else {
        status = check_entries(stream, path, provenance, err);
        closedir(stream);
    }
    cJSON_Delete(provenance);
    return status;
}

/* --- either ----------------------------------------------------------------------------------- */

mq_status mq_output_check_replaceable(const char *path, const char *magic, mq_error *err) {
    struct stat about;
    if (lstat(path, &about) != 0) {
        return mq_fail_errno(err, errno, path, "look at the output");
    }
    if (magic != NULL) {
        return check_replaceable_file(path, &about, magic, err);
    }
    return S_ISDIR(about.st_mode)
               ? check_replaceable_folder(path, err)
               : mq_fail_file(err, MQ_ERR_USAGE, path, "exists and is not a folder");
}
