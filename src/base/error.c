#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Names out of files may hold anything. The second control characters are C2 80 to C2 9F. */
void mq_make_printable(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        if (*c < 0x20 || *c == 0x7f) {
            *c = '?';
        } else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f) {
            c[0] = c[1] = '?';
        }
    }
}

/* A path that is too long keeps its end, which says more than its beginning. */
static void set_file(mq_error *err, const char *file) {
    size_t length = strlen(file);
    size_t room = sizeof err->file - 1;
    const char *from = length > room ? file + (length - room) : file;
    snprintf(err->file, sizeof err->file, "%s", from);
    mq_make_printable(err->file);
}

static void set_file_in(mq_error *err, const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *separator = length > 0 && folder[length - 1] != '/' ? "/" : "";
    size_t taken = strlen(separator) + strlen(name) + 1;
    size_t room = sizeof err->file > taken ? sizeof err->file - taken : 0;
    const char *from = length > room ? folder + (length - room) : folder;
    snprintf(err->file, sizeof err->file, "%s%s%s", from, separator, name);
    mq_make_printable(err->file);
}

static void set_tensor(mq_error *err, const char *tensor) {
    snprintf(err->tensor, sizeof err->tensor, "%.*s", (int)(sizeof err->tensor - 1), tensor);
    mq_make_printable(err->tensor);
}

/* What there is of the parts; file, tensor and offset may be NULL. Built aside first: the arguments
 * may point into *err. */
static mq_status fail(mq_error *err, mq_status status, const char *file, const char *tensor,
                      const uint64_t *offset, const char *format, va_list arguments)
    __attribute__((format(printf, 6, 0)));

static mq_status fail(mq_error *err, mq_status status, const char *file, const char *tensor,
                      const uint64_t *offset, const char *format, va_list arguments) {
    if (err == NULL) {
        return status;
    }
    mq_error made = {.status = status};
    vsnprintf(made.message, sizeof made.message, format, arguments);
    mq_make_printable(made.message);
    if (file != NULL) {
        set_file(&made, file);
    }
    if (tensor != NULL) {
        set_tensor(&made, tensor);
    }
    if (offset != NULL) {
        made.offset = *offset;
        made.has_offset = true;
    }
    *err = made;
    return status;
}

mq_status mq_fail(mq_error *err, mq_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, status, NULL, NULL, NULL, format, arguments);
    va_end(arguments);
    return status;
}

mq_status mq_fail_file(mq_error *err, mq_status status, const char *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, status, file, NULL, NULL, format, arguments);
    va_end(arguments);
    return status;
}

mq_status mq_fail_file_in(mq_error *err, mq_status status, const char *folder, const char *name,
                          const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    mq_error made = {.status = status};
    fail(&made, status, NULL, NULL, NULL, format, arguments);
    va_end(arguments);
    if (err != NULL) {
        set_file_in(&made, folder, name);
        *err = made;
    }
    return status;
}

mq_status mq_fail_tensor(mq_error *err, mq_status status, const char *file, const char *tensor,
                         const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, status, file, tensor, NULL, format, arguments);
    va_end(arguments);
    return status;
}

mq_status mq_fail_offset(mq_error *err, mq_status status, const char *file, const char *tensor,
                         uint64_t offset, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(err, status, file, tensor, &offset, format, arguments);
    va_end(arguments);
    return status;
}

mq_status mq_fail_memory(mq_error *err, const char *what, size_t size) {
    return mq_fail(err, MQ_ERR_MACHINE, "not enough memory for %s (%zu bytes)", what, size);
}

mq_status mq_fail_errno(mq_error *err, int error_number, const char *file, const char *action) {
    static const int of_paths[] = {ENOENT, EISDIR, ENOTDIR, EACCES, ENAMETOOLONG, ELOOP};
    mq_status status = MQ_ERR_MACHINE;
    for (size_t i = 0; i < sizeof of_paths / sizeof *of_paths; i++) {
        if (error_number == of_paths[i]) {
            status = MQ_ERR_INPUT;
        }
    }
    char buffer[128];
    return mq_fail_file(err, status, file, "cannot %s: %s", action,
                        strerror_r(error_number, buffer, sizeof buffer));
}

mq_status mq_error_in_file(mq_error *err, mq_status status, const char *file) {
    if (err != NULL && status != MQ_OK && status != MQ_ERR_INTERRUPTED && err->file[0] == '\0') {
        set_file(err, file);
    }
    return status;
}

mq_status mq_error_in_tensor(mq_error *err, mq_status status, const char *tensor) {
    if (err != NULL && status != MQ_OK && err->tensor[0] == '\0') {
        set_tensor(err, tensor);
    }
    return status;
}

void mq_first_error_note(mq_first_error *first, size_t part, mq_status status,
                         const mq_error *err) {
    if (status == MQ_OK) {
        return;
    }
#pragma omp critical(mq_first_error)
    if (first->status == MQ_OK || part < first->part) {
        *first = (mq_first_error){.status = status, .part = part, .err = *err};
    }
}

mq_status mq_first_error_take(const mq_first_error *first, mq_error *err) {
    if (first->status != MQ_OK && err != NULL) {
        *err = first->err;
    }
    return first->status;
}

/* Appends at *length, counting what does not fit too. */
static void append(char *out, size_t size, size_t *length, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void append(char *out, size_t size, size_t *length, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    bool room = *length < size;
    int added =
        vsnprintf(room ? out + *length : NULL, room ? size - *length : 0, format, arguments);
    va_end(arguments);
    if (added > 0) {
        *length += (size_t)added;
    }
}

size_t mq_error_format(char *out, size_t size, const mq_error *err) {
    size_t length = 0;
    if (size > 0) {
        out[0] = '\0';
    }
    if (err->file[0] != '\0') {
        append(out, size, &length, "%s: ", err->file);
    }
    if (err->tensor[0] != '\0') {
        append(out, size, &length, "tensor %s: ", err->tensor);
    }
    if (err->has_offset) {
        append(out, size, &length, "at byte %llu: ", (unsigned long long)err->offset);
    }
    append(out, size, &length, "%s", err->message);
    return length;
}
