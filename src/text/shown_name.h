/* Names of files and folders as they are written into JSON, model cards and GGUF. */
#ifndef MQ_TEXT_SHOWN_NAME_H
#define MQ_TEXT_SHOWN_NAME_H

#include "base/error.h"

/* The last name in a path, trailing slashes apart: no folders, one line, UTF-8. "." and ".." are
 * looked up; what is not UTF-8, and control characters, become U+FFFD. *out is the caller's
 * (mq_free). MQ_ERR_MACHINE: no memory. */
mq_status mq_shown_name(char **out, const char *path, mq_error *err);

#endif
