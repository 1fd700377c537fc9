/* Errors are values: a function that can fail returns an mq_status and fills the caller's mq_error.
 *
 * There is no global or thread-local "last error". A caller that does not care passes NULL.
 *
 * Reports and results (mq_quantize_report, mq_slice_report, mq_verify_report, mq_eval_result,
 * mq_inspection) are always written, on failure as well. Freeing them is always allowed; it is
 * needed only if the call succeeded, or where the function says so. */
#ifndef MATQUANT_ERROR_H
#define MATQUANT_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong. The command-line program exits with this number. */
typedef enum mq_status {
    MQ_OK = 0,
    MQ_ERR_CHECK = 1,      /* a check that the user asked for failed (verify, eval --max-ppl) */
    MQ_ERR_USAGE = 2,      /* an option or an argument that makes no sense */
    MQ_ERR_INPUT = 3,      /* bad input: names the file and, if applicable, tensor and offset */
    MQ_ERR_MACHINE = 4,    /* the machine: memory, disk, an I/O error, threads */
    MQ_ERR_INTERRUPTED = 5 /* stopped on request */
} mq_status;

typedef struct mq_error {
    mq_status status;
    char message[512]; /* one line, no final period, no newline */
    char file[512];    /* "" when no file is to blame; a longer path is cut at its beginning */
    char tensor[256];  /* "" when no tensor is to blame */
    uint64_t offset;   /* byte offset in file, valid when has_offset */
    bool has_offset;
} mq_error;

/* Writes "FILE: tensor TENSOR: at byte OFFSET: MESSAGE" into out, without the parts that do not
 * apply, cut to size and always terminated. Returns the length of the whole line. */
size_t mq_error_format(char *out, size_t size, const mq_error *err);

/* Makes one line of text that a terminal takes for nothing else, in place: each byte of a control
 * character, of ASCII and of UTF-8's second ones (U+0080 to U+009F), becomes '?'. All errors and
 * messages of this library are such lines already. */
void mq_make_printable(char *text);

#ifdef __cplusplus
}
#endif
#endif
