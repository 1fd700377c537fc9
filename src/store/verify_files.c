/* Files beside the tensors: the tokenizer and whatever else was copied. */
#include "store/verify.h"

#include <string.h>

#include "store/folder.h"

#define TOKENIZER_FILE "tokenizer.json"

static mq_status note_file(const mq_verification *self, const char *name, const char *what,
                           mq_error *err) {
    mq_error problem;
    mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, name, "%s", what);
    return mq_problem(self->problems, &problem, err);
}

/* *there: false if the folder has no such file. */
static mq_status digest_of(char digest[65], bool *there, const char *folder, const char *name,
                           mq_error *err) {
    char *path = mq_path_join(folder, name);
    if (path == NULL) {
        return mq_fail_memory(err, "a path", strlen(name));
    }
    *there = mq_path_exists(path);
    const mq_status status = *there ? mq_sha256_file(digest, path, err) : MQ_OK;
    mq_free(path);
    return status;
}

/* The digest that matquant.json has of the source's file; NULL: none. */
static const char *listed_digest(const mq_verification *self, const char *name) {
    const cJSON *slice = cJSON_GetObjectItemCaseSensitive(self->provenance, "slice");
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(
        cJSON_IsObject(slice) ? slice : self->provenance, "source");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, files) {
        const cJSON *file = cJSON_GetObjectItemCaseSensitive(item, "file");
        const cJSON *digest = cJSON_GetObjectItemCaseSensitive(item, "sha256");
        if (cJSON_IsString(file) && cJSON_IsString(digest) &&
            strcmp(file->valuestring, name) == 0) {
            return digest->valuestring;
        }
    }
    return NULL;
}

mq_status mq_verify_tokenizer(const mq_verification *self, mq_error *err) {
    const char *listed = listed_digest(self, TOKENIZER_FILE);
    char digest[65];
    bool there = false;
    mq_status status =
        listed != NULL ? digest_of(digest, &there, self->folder, TOKENIZER_FILE, err) : MQ_OK;
    if (status != MQ_OK || listed == NULL) {
        return status;
    }
    if (!there) {
        return note_file(self, TOKENIZER_FILE, "is missing; the source had one", err);
    }
    return strcmp(digest, listed) == 0
               ? MQ_OK
               : note_file(self, TOKENIZER_FILE,
                           "is not the source's: its SHA-256 is not the one in " MQ_PROVENANCE_FILE,
                           err);
}

static mq_status compare_file(const mq_verification *self, const char *source, const char *name,
                              mq_error *err) {
    char theirs[65], ours[65];
    bool there = false;
    mq_status status = digest_of(theirs, &there, source, name, err);
    if (status == MQ_OK) {
        status = digest_of(ours, &there, self->folder, name, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    return !there                      ? note_file(self, name, "is missing; the source has it", err)
           : strcmp(ours, theirs) == 0 ? MQ_OK
                                       : note_file(self, name, "differs from the source's", err);
}

mq_status mq_verify_files_against(const mq_verification *self, const char *source, mq_error *err) {
    char **names = NULL;
    size_t count = 0;
    mq_status status = mq_list_folder(&names, &count, source, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK && mq_is_small_file(names[i])) {
            status = compare_file(self, source, names[i], err);
        }
    }
    mq_free_list(names, count);
    return status;
}
