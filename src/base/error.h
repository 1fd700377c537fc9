/* Filling in mq_error values. Every function accepts err == NULL. */
#ifndef MQ_BASE_ERROR_H
#define MQ_BASE_ERROR_H

#include <stdarg.h>

#include "matquant/error.h"

/* Each sets *err anew (file, tensor and offset empty unless given) and returns status, so that a
 * failing function ends with `return mq_fail(err, MQ_ERR_INPUT, "...")`. */
mq_status mq_fail(mq_error *err, mq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
mq_status mq_fail_file(mq_error *err, mq_status status, const char *file, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The file is `name` in a folder. */
mq_status mq_fail_file_in(mq_error *err, mq_status status, const char *folder, const char *name,
                          const char *format, ...) __attribute__((format(printf, 5, 6)));
mq_status mq_fail_tensor(mq_error *err, mq_status status, const char *file, const char *tensor,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));
mq_status mq_fail_offset(mq_error *err, mq_status status, const char *file, const char *tensor,
                         uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Out of memory while asking for size bytes for `what` (static text, such as "the activations"). */
mq_status mq_fail_memory(mq_error *err, const char *what, size_t size);

/* A failed system call on file: the status is MQ_ERR_INPUT for ENOENT, EISDIR, ENOTDIR, EACCES,
 * ENAMETOOLONG, ELOOP and MQ_ERR_MACHINE otherwise. */
mq_status mq_fail_errno(mq_error *err, int error_number, const char *file, const char *action);

/* Adds the file (or the tensor) to an error that a lower function left without; returns err's
 * status. Of a request to stop (MQ_ERR_INTERRUPTED) no file is to blame. */
mq_status mq_error_in_file(mq_error *err, mq_status status, const char *file);
mq_status mq_error_in_tensor(mq_error *err, mq_status status, const char *tensor);

/* Of parts that threads do side by side, the error of the earliest that failed, whichever was
 * noticed first: the same on every run. Begins as all zeros. */
typedef struct mq_first_error {
    mq_status status; /* MQ_OK: none */
    size_t part;
    mq_error err;
} mq_first_error;

/* Part number `part` ended with this status (MQ_OK: nothing to note) and, if failed, this error;
 * safe from any thread. */
void mq_first_error_note(mq_first_error *first, size_t part, mq_status status, const mq_error *err);
/* When all are done: fills in *err, if one failed, and returns the status. */
mq_status mq_first_error_take(const mq_first_error *first, mq_error *err);

#endif
