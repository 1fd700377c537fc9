/* The inside of mq_output, shared by output.c, output_file.c and file_write.c. */
#ifndef MQ_BASE_OUTPUT_H
#define MQ_BASE_OUTPUT_H

#include "base/file.h"

struct mq_output {
    char *path;        /* as the user knows it, without trailing slashes */
    char *parent;      /* the folder it stands in */
    char *folder;      /* the temporary one, in parent */
    char *made;        /* what is renamed to path: folder, or the file in it */
    const char *magic; /* of an output that is one file, how it begins; NULL: a folder */
    int lock;          /* the temporary folder, open and locked */
    bool replace;
    bool committed;
};

#define MQ_OUTPUT_SUFFIX_LENGTH 6
/* Random letters for a temporary name; false and errno. */
bool mq_output_suffix(char suffix[MQ_OUTPUT_SUFFIX_LENGTH + 1]);

/* Brings a folder's entries to the disk; file systems that have no such thing say EINVAL, which is
 * no failure. */
int mq_output_sync_folder(const char *path);

/* Moves a file or folder to a name where nothing is (rename(2) alone would take the place of what
 * is there): -1 and errno, EEXIST among them. */
int mq_output_move_to_free_name(const char *from, const char *to);

#endif
