/* The inside of mq_output, shared by output.c and file_write.c. */
#ifndef MQ_BASE_OUTPUT_H
#define MQ_BASE_OUTPUT_H

#include "base/file.h"

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
};

#endif
