/* The inside of mq_output, shared by output.c, replace.c, locks.c, file_write.c and keep.c. */
#ifndef MQ_BASE_OUTPUT_H
#define MQ_BASE_OUTPUT_H

#include <limits.h>

#include "base/file.h"
#include "base/folder.h"

struct mq_output {
    char *path;        /* as the user knows it, without trailing slashes */
    char *parent;      /* the folder it stands in */
    char *folder;      /* the temporary one, in parent */
    char *made;        /* what is renamed to path: folder, or the file in it */
    const char *magic; /* of an output that is one file, how it begins ("": in any way); NULL: a
                          folder */
    int lock;          /* the temporary folder, open and locked */
    bool replace;
    bool committed;
    bool kept; /* not committed, but not to be removed either */
};

/* --- what may be replaced (replace.c) --------------------------------------------------------- */

/* Whether what is at path, which is there, may be replaced: MQ_ERR_USAGE says why not. With magic,
 * a plain file that begins so. With NULL a folder that this process may write in, which is empty or
 * has config.json, matquant.json and no more than our runs write and copy, whatever killed runs
 * left in it, or a run that records in it (eval --record) has there for a moment. */
mq_status mq_output_check_replaceable(const char *path, const char *magic, mq_error *err);

/* --- what takes another's place (file_write.c) ------------------------------------------------ */

/* Gives a new file or folder, open at fd, the permissions of the old one whose place it takes: who
 * may read it was decided there, and not by the umask of this process. Nothing where nothing is
 * replaced. */
mq_status mq_output_keep_permissions(int fd, const mq_output *output, mq_error *err);

/* --- temporary folders beside an output (locks.c) --------------------------------------------- */

/* Letters at the end of their names. */
#define MQ_SUFFIX_LENGTH 6
extern const char mq_suffix_letters[65];

/* Whether a name in a folder is that of an output's temporary folder, and which output's. */
#define MQ_LEFTOVER_BASE 256
/* Bytes of the longest name that an output can have: ".BASE.matquant-XXXXXX-replaced", where an old
 * folder may be for a moment, is a name, too. */
#define MQ_LEFTOVER_BASE_MAX (NAME_MAX - (int)sizeof "..matquant--replaced" + 1 - MQ_SUFFIX_LENGTH)
bool mq_output_leftover_base(char base[MQ_LEFTOVER_BASE], const char *name);

/* Removes those of the output `base` in parent that no process holds. */
void mq_output_remove_leftovers(const char *parent, const char *base);
/* Bytes that these, or with NULL those of all outputs there, take on the disk. */
size_t mq_output_leftovers_in(const char *parent, const char *base);
/* Whether no process holds that folder; false where the file system has no locks and nobody can
 * tell. */
bool mq_folder_is_abandoned(const char *path);
/* *held: a process holds one, apart from `own` (a path; NULL: of all); false where the file system
 * knows no locks. An error, as of memory or of the file system, says that this is not known. */
mq_status mq_output_is_being_made(bool *held, const char *parent, const char *base, const char *own,
                                  mq_error *err);

#endif
