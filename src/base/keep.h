/* A folder in which a job keeps finished work from one run to the next: flat, of files whose names
 * the job knows, each written with mq_output_begin_file, so that it is there whole or not at all.
 * What such a writer left that was killed (a hidden folder) is counted as the file's. */
#ifndef MQ_BASE_KEEP_H
#define MQ_BASE_KEEP_H

#include "base/file.h"

typedef struct mq_keep mq_keep;

/* Whether a file of that name (not path) is one of the job's. */
typedef bool mq_keep_knows(const char *name);

/* Whether mq_keep_open would take the folder: it is not there yet, or there is nothing in it that
 * the job does not know (MQ_ERR_USAGE, naming what it is); and the folder, or its parent, may be
 * written in (MQ_ERR_INPUT, MQ_ERR_MACHINE, as the file system says). Nothing is written. */
mq_status mq_keep_check(const char *path, mq_keep_knows *knows, mq_error *err);

/* Bytes on the disk that killed writers have left in the folder, which those of the same files take
 * away. */
size_t mq_keep_leftover(const char *path);

/* Makes the folder if it is not there (its parent must be), locks it until it is closed, and then
 * checks what is in it: MQ_ERR_USAGE while another run has it. Where the file system knows no locks
 * it goes on without. */
mq_status mq_keep_open(mq_keep **out, const char *path, mq_keep_knows *knows, mq_error *err);
/* Removes what the job knows, the file `last` (which says what the others are of; NULL: none) after
 * all others, and the folder when nothing else is in it. It stays, empty, where it cannot be
 * removed: the path is a link to it, or ".", it is a mount point, or its parent may not be written
 * in. false: something that the job knows could not be removed. */
bool mq_keep_remove(mq_keep *keep, const char *last);
void mq_keep_close(mq_keep *keep); /* NULL allowed */

#endif
