/* Files by their digests: the tokenizer and whatever else was copied, and the source's weights; and
 * those that should not be there. */
#include "store/verification.h"

#include <fnmatch.h>
#include <string.h>

#include "store/folder.h"

#define TOKENIZER_FILE "tokenizer.json"

static mq_status note_file(const mq_verification *self, const char *name, const char *what,
                           mq_error *err) {
    mq_error problem;
    mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, name, "%s", what);
    return mq_problem(self->problems, &problem, err);
}

static mq_status digest_of(char digest[65], const mq_verification *self, const char *folder,
                           const char *name, mq_error *err) {
    char *path = mq_path_join(folder, name);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(name));
    }
    const mq_status status = mq_sha256_file(digest, path, self->context, err);
    mq_free(path);
    return status;
}

/* The folder's own file against a digest of the source's: what is missing, unreadable or another is
 * a problem, in these words. */
static mq_status check_file(const mq_verification *self, const char *name, const char *wanted,
                            const char *missing, const char *differs, mq_error *err) {
    char *path = mq_path_join(self->folder, name), digest[65];
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(name));
    }
    mq_error problem = {.status = MQ_OK};
    mq_status status = MQ_OK;
    if (!mq_path_exists(path)) {
        status = note_file(self, name, missing, err);
    } else if (mq_sha256_file(digest, path, self->context, &problem) == MQ_ERR_INPUT) {
        status = mq_problem(self->problems, &problem, err);
    } else if (problem.status != MQ_OK) {
        status = problem.status;
        if (err != NULL) {
            *err = problem;
        }
    } else if (strcmp(digest, wanted) != 0) {
        status = note_file(self, name, differs, err);
    }
    mq_free(path);
    return status;
}

/* The digest in an entry of the source's files, and the file's name; NULL: it has not both. */
static const char *entry_digest(const char **name, const cJSON *entry) {
    *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "file"));
    const cJSON *digest = cJSON_GetObjectItemCaseSensitive(entry, "sha256");
    return *name == NULL ? NULL : cJSON_GetStringValue(digest);
}

/* The digest that matquant.json has of the source's file; NULL: none. */
static const char *listed_digest(const mq_verification *self, const char *name) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, mq_provenance_item(self->provenance, "source")) {
        const char *file, *digest = entry_digest(&file, item);
        if (digest != NULL && strcmp(file, name) == 0) {
            return digest;
        }
    }
    return NULL;
}

/* An entry of the list of files that were written. */
static mq_status check_written(const mq_verification *self, const cJSON *entry, mq_error *err) {
    const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "sha256"));
    if (digest == NULL || entry->string[0] == '\0' || strchr(entry->string, '/') != NULL) {
        return note_file(self, MQ_PROVENANCE_FILE,
                         "lists a file without a name or without a SHA-256", err);
    }
    return check_file(self, entry->string, digest, "is missing; it was written with the tensors",
                      "is not as it was written: its SHA-256 is not the one in " MQ_PROVENANCE_FILE,
                      err);
}

static bool is_among(const char *name, char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* compared [count]: the files that mq_verify_files_against has looked at. */
static mq_status check_all_written(const mq_verification *self, const cJSON *files,
                                   char *const *compared, size_t count, mq_error *err) {
    const bool tokenizer_done = listed_digest(self, TOKENIZER_FILE) != NULL;
    const cJSON *item = NULL;
    mq_status status = MQ_OK;
    cJSON_ArrayForEach(item, files) {
        const bool done = (tokenizer_done && strcmp(item->string, TOKENIZER_FILE) == 0) ||
                          is_among(item->string, compared, count);
        if (status == MQ_OK && !done) {
            status = check_written(self, item, err);
        }
    }
    return status;
}

/* Files that came later: a chat template, say, that every reader goes by, and that a slice would
 * get, too. */
static mq_status check_added(const mq_verification *self, const cJSON *files, char *const *compared,
                             size_t count, mq_error *err) {
    char **names = NULL;
    size_t all = 0;
    mq_status status = mq_list_small_files(&names, &all, self->folder, NULL, err);
    for (size_t i = 0; status == MQ_OK && i < all; i++) {
        if (cJSON_GetObjectItemCaseSensitive(files, names[i]) == NULL &&
            !is_among(names[i], compared, count)) {
            status = note_file(self, names[i],
                               "was not written with the tensors: it is not listed "
                               "in " MQ_PROVENANCE_FILE,
                               err);
        }
    }
    mq_free_list(names, all);
    return status;
}

mq_status mq_verify_written(const mq_verification *self, const char *source, mq_error *err) {
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(self->provenance, "files");
    if (files == NULL) {
        return MQ_OK; /* an earlier program wrote it */
    }
    if (!cJSON_IsObject(files)) {
        return note_file(self, MQ_PROVENANCE_FILE, "its \"files\" are no object", err);
    }
    char **compared = NULL;
    size_t count = 0;
    mq_status status =
        source == NULL ? MQ_OK : mq_list_small_files(&compared, &count, source, NULL, err);
    if (status == MQ_OK) {
        status = check_all_written(self, files, compared, count, err);
    }
    if (status == MQ_OK) {
        status = check_added(self, files, compared, count, err);
    }
    mq_free_list(compared, count);
    return status;
}

static bool is_read(const mq_tensors *tensors, const char *name) {
    for (size_t i = 0; i < mq_tensors_file_count(tensors); i++) {
        if (strcmp(mq_path_base(mq_tensors_file(tensors, i)), name) == 0) {
            return true;
        }
    }
    return false;
}

mq_status mq_verify_weight_files(const mq_verification *self, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_folder(&names, &count, self->folder, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        if (fnmatch("model*.safetensors", names[i], 0) == 0 && !is_read(self->tensors, names[i])) {
            mq_error problem;
            mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, names[i],
                            "is not read, but may be by other programs: the tensors are those of "
                            "%s",
                            mq_path_base(mq_tensors_where(self->tensors, "")));
            status = mq_problem(self->problems, &problem, err);
        }
    }
    mq_free_list(names, count);
    return status;
}

mq_status mq_verify_tokenizer(const mq_verification *self, mq_error *err) {
    const char *listed = listed_digest(self, TOKENIZER_FILE);
    return listed == NULL
               ? MQ_OK
               : check_file(
                     self, TOKENIZER_FILE, listed, "is missing; the source had one",
                     "is not the source's: its SHA-256 is not the one in " MQ_PROVENANCE_FILE, err);
}

static mq_status compare_file(const mq_verification *self, const char *source, const char *name,
                              mq_error *err) {
    char theirs[65];
    const mq_status status = digest_of(theirs, self, source, name, err);
    return status == MQ_OK ? check_file(self, name, theirs, "is missing; the source has it",
                                        "differs from the source's", err)
                           : status;
}

mq_status mq_verify_files_against(const mq_verification *self, const char *source, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_small_files(&names, &count, source, NULL, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            status = compare_file(self, source, names[i], err);
        }
    }
    mq_free_list(names, count);
    return status;
}

/* --- the source's weights --------------------------------------------------------------------- */

/* How many files of weights matquant.json has a digest of: all of the source's but these two. */
static size_t count_listed_weights(const mq_verification *self) {
    const cJSON *item = NULL;
    size_t count = 0;
    cJSON_ArrayForEach(item, mq_provenance_item(self->provenance, "source")) {
        const char *file, *digest = entry_digest(&file, item);
        count += digest != NULL && strcmp(file, MQ_CONFIG_FILE) != 0 &&
                 strcmp(file, TOKENIZER_FILE) != 0;
    }
    return count;
}

static mq_status compare_weights(const mq_verification *self, const char *path, const char *listed,
                                 mq_error *err) {
    char digest[65];
    const mq_status status = mq_sha256_file(digest, path, self->context, err);
    if (status != MQ_OK || strcmp(digest, listed) == 0) {
        return status;
    }
    self->report->weights = MQ_WEIGHTS_OTHER;
    mq_error problem;
    mq_fail_file(&problem, MQ_ERR_INPUT, path,
                 "is not the file that was quantized: its SHA-256 is not the one "
                 "in " MQ_PROVENANCE_FILE);
    return mq_problem(self->problems, &problem, err);
}

mq_status mq_verify_weights_against(const mq_verification *self, const char *folder,
                                    const mq_tensors *source, mq_error *err) {
    const size_t listed = count_listed_weights(self), count = mq_tensors_file_count(source);
    size_t known = 0;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const char *path = mq_tensors_file(source, i);
        const char *digest = listed_digest(self, mq_path_base(path));
        if (digest != NULL) {
            known++;
            status = compare_weights(self, path, digest, err);
        }
    }
    if (status != MQ_OK || listed == 0) {
        return status;
    }
    if (known < count || known < listed) {
        mq_log(self->context, MQ_LOG_WARNING,
               "%s has its weights in other files than those that were quantized: whether the "
               "quantized layers are of these weights cannot be told",
               folder);
    } else if (self->report->weights == MQ_WEIGHTS_UNKNOWN) {
        self->report->weights = MQ_WEIGHTS_SAME;
    }
    return MQ_OK;
}
