#include "text/shown_name.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/utf8.h"

static mq_status append_shown(mq_bytes *out, const char *name, mq_error *err) {
    const size_t size = strlen(name);
    mq_status status = mq_bytes_reserve(out, size + 1, err);
    for (size_t at = 0; status == MQ_OK && at < size;) {
        uint32_t code_point;
        at += mq_utf8_decode(&code_point, name + at, size - at);
        const bool shown = code_point != MQ_UTF8_BAD && code_point >= 0x20 &&
                           (code_point < 0x7f || code_point > 0x9f);
        status = mq_bytes_append_char(out, shown ? code_point : MQ_UTF8_REPLACEMENT, err);
    }
    return status == MQ_OK ? mq_bytes_append(out, "", 1, err) : status;
}

mq_status mq_shown_name(char **out, const char *path, mq_error *err) {
    char *name = mq_path_name(path);
    if (name != NULL && (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        char *whole = realpath(path, NULL);
        if (whole != NULL) {
            mq_free(name);
            name = mq_path_name(whole);
            free(whole);
        }
    }
    mq_bytes shown = {0};
    const mq_status status = name == NULL ? mq_fail_memory(err, "a path", strlen(path))
                                          : append_shown(&shown, name, err);
    mq_free(name);
    if (status != MQ_OK) {
        mq_bytes_free(&shown);
        return status;
    }
    *out = shown.data;
    return MQ_OK;
}
