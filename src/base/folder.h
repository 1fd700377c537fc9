/* What output folders, kept ones and listings need of a folder. */
#ifndef MQ_BASE_FOLDER_H
#define MQ_BASE_FOLDER_H

#include <dirent.h>

#include "base/error.h"

/* The next entry of the stream, "." and ".." apart, valid until the one after it; NULL: no more.
 * `folder` names it in errors: a folder that cannot be read to its end must not pass for one that
 * holds nothing more. */
mq_status mq_next_entry(const struct dirent **out, DIR *stream, const char *folder, mq_error *err);

/* Removes a folder and everything in it, as far as that can be done, write-protected folders of
 * one's own included. */
void mq_remove_folder(const char *path);

/* Brings a folder's entries to the disk: -1 and errno. File systems that have no such thing say
 * EINVAL, which is no failure. */
int mq_sync_folder(const char *path);

#endif
