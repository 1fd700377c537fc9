/* Files: read by mapping or whole, written safely or not at all. */
#ifndef MQ_BASE_FILE_H
#define MQ_BASE_FILE_H

#include <stdio.h>

#include "base/alloc.h"
#include "base/context.h"

/* --- reading ---------------------------------------------------------------------------------- */

/* A read-only mapping of a whole file; an empty file has data == NULL and size 0. */
typedef struct mq_mapping {
    const unsigned char *data;
    size_t size;
} mq_mapping;

mq_status mq_map_file(mq_mapping *out, const char *path, mq_error *err);
void mq_unmap_file(mq_mapping *mapping);
/* Tells the kernel that [offset, offset + size) will be / will no longer be needed; never fails. */
void mq_map_will_need(const mq_mapping *mapping, size_t offset, size_t size);
void mq_map_dont_need(const mq_mapping *mapping, size_t offset, size_t size);

/* Whole file, gunzipped if it begins with the gzip magic (which a file named .gz must, unless it is
 * empty), with a 0 byte after the end (not counted). *out is the caller's (mq_free). More than
 * max_size bytes, or a broken gzip stream, is MQ_ERR_INPUT. */
mq_status mq_read_file(char **out, size_t *size, const char *path, size_t max_size, mq_error *err);
/* The same for what may take long, since it is large or a pipe, or never come: checks for an
 * interrupt, also while it waits. With the SHA-256 of the file as it lies there, gzipped or not,
 * from the one time that it is read: it may be another file by the next time. As mq_sha256_file;
 * NULL: not wanted. */
mq_status mq_read_file_digest(char **out, size_t *size, char sha256[65], const char *path,
                              size_t max_size, const mq_context *context, mq_error *err);

/* Whether a file that begins so is what Git LFS leaves in the place of a large file that was not
 * fetched, and the error of finding one. */
bool mq_is_lfs_pointer(const void *data, size_t size);
mq_status mq_fail_lfs_pointer(mq_error *err, const char *path);

bool mq_path_exists(const char *path); /* also a broken link; false, too, if nobody can tell */
/* The same where it matters that nobody can tell, as in a folder that may not be searched: an
 * error, of the path. */
mq_status mq_path_is_there(bool *there, const char *path, mq_error *err);
bool mq_is_folder(const char *path);
bool mq_same_file(const char *a, const char *b); /* both exist and are the same inode */
/* Whether both are the same file or, where nothing is yet, would be: one name in one folder. */
mq_status mq_same_place(bool *same, const char *a, const char *b, mq_error *err);
mq_status mq_file_size(size_t *out, const char *path, mq_error *err);
char *mq_path_join(const char *folder, const char *name); /* the caller's; NULL: no memory */
const char *mq_path_base(const char *path);               /* after the last '/' */
/* Whether a name, or any other text, ends so; also if all of it is that. */
bool mq_ends_with(const char *text, const char *end);
bool mq_ends_with_any_case(const char *text, const char *end); /* ASCII letters of either case */
/* The last name: "int4" of "/models/int4/"; the caller's; NULL: no memory. */
char *mq_path_name(const char *path);
/* The folder that it stands in, by name: "." of "a//", "/" of "/a"; the caller's; NULL: no memory.
 */
char *mq_path_parent(const char *path);

/* Names (not paths) of the plain files directly in a folder, sorted by byte value; free each and
 * the list. */
mq_status mq_list_folder(char ***out, size_t *count, const char *folder, mq_error *err);
void mq_free_list(char **list, size_t count);
/* Bytes of those files together. */
mq_status mq_folder_size(size_t *out, const char *folder, mq_error *err);

/* --- writing ---------------------------------------------------------------------------------- */

/* An output folder that appears whole or not at all: it is built beside its final name as
 * ".NAME.matquant-XXXXXX" and renamed by mq_output_commit after every file and the folder are
 * fsynced. Until then mq_output_discard removes it without trace. With replace, an existing folder
 * of that name is exchanged at the moment of commit and removed after (MQ_ERR_USAGE if it is none
 * that a run of ours has written, so that --force cannot wipe a home folder, or another model: if
 * it is not empty it must hold config.json and matquant.json, and otherwise only files that our
 * runs write, or that matquant.json lists as copied; and if this process may not write in it); the
 * new one has its permissions.
 * Temporary folders of the same output that a killed run left behind are removed by the next
 * mq_output_begin for the same name, if no process holds their lock. */
typedef struct mq_output mq_output;

/* What mq_output_begin would refuse, found out without writing anything: the same errors. */
mq_status mq_output_check(const char *path, bool replace, mq_error *err);
/* Bytes on the disk that mq_output_begin would free there, since killed runs have left them; of
 * those that cannot be looked at, none. */
size_t mq_output_leftover(const char *path);
/* MQ_ERR_USAGE when path exists and replace is false, when something is mounted there, and when
 * another run is making a folder of that name; MQ_ERR_INPUT/MACHINE for what the file system says.
 */
mq_status mq_output_begin(mq_output **out, const char *path, bool replace, mq_error *err);
/* The same for an output that is one file: it is written, under the name that mq_output_file_name
 * says, into the temporary folder, and the file alone is renamed. With replace, only a plain file
 * that begins with magic (static text, "": any) is replaced; the new one has its permissions. */
mq_status mq_output_begin_file(mq_output **out, const char *path, const char *magic, bool replace,
                               mq_error *err);
const char *mq_output_file_name(const mq_output *output);
const char *mq_output_folder(const mq_output *output); /* where to write meanwhile */
/* On failure it still has to be discarded. MQ_ERR_USAGE: what has appeared in its place, or in the
 * folder there, is not replaced. A finished folder that cannot be put in its place, for that or for
 * what the file system says, is kept as "NAME-finished-XXXXXX" beside it, or if that fails, too, as
 * the temporary folder, which the next run removes; err says where, and discarding does not touch
 * it. */
mq_status mq_output_commit(mq_output *output, mq_error *err);
void mq_output_discard(mq_output *output); /* also frees; after commit it only frees */

/* Waits until no other process holds the folder, and holds it until mq_folder_unlock, or the end of
 * the process: for files in it that are read and written anew. mq_output_commit waits, too, before
 * it replaces the folder (and is not interrupted there, where all is done). Whoever asks for it
 * here holds it for moments; MQ_ERR_MACHINE if somebody holds it for five seconds;
 * MQ_ERR_INTERRUPTED. *lock is -1 after an error, and where nobody waits: the file system knows no
 * locks, or there is no such folder. */
mq_status mq_folder_lock(int *lock, const char *path, const mq_context *context, mq_error *err);
void mq_folder_unlock(int lock); /* -1: does nothing */

/* A file written front to back or at given offsets; every byte written is checked, EINTR and short
 * writes are dealt with, and mq_writer_close fsyncs. Errors name the file's final path as the user
 * knows it. */
typedef struct mq_writer mq_writer;

mq_status mq_writer_open(mq_writer **out, mq_output *output, const char *name, mq_error *err);
mq_status mq_write(mq_writer *writer, const void *data, size_t size, mq_error *err);
mq_status mq_write_at(mq_writer *writer, uint64_t offset, const void *data, size_t size,
                      mq_error *err);
/* What was written there before, of which nothing may be missing. */
mq_status mq_written_at(void *data, const mq_writer *writer, uint64_t offset, size_t size,
                        mq_error *err);
mq_status mq_writer_close(mq_writer *writer, mq_error *err); /* frees in every case */
void mq_writer_abandon(mq_writer *writer); /* closes without caring, frees; NULL allowed */

/* A small file in one call, and a byte for byte copy of an existing one, for which MQ_COPY_BYTES
 * are allocated. */
#define MQ_COPY_BYTES ((size_t)1 << 20)
mq_status mq_write_file(mq_output *output, const char *name, const void *data, size_t size,
                        mq_error *err);
mq_status mq_copy_file(mq_output *output, const char *name, const char *source, mq_error *err);

/* mq_output_begin_file (any magic), mq_write_file and mq_output_commit in one: an output that is a
 * single small file. The check says what can be known beforehand. */
mq_status mq_output_file_check(const char *path, bool replace, mq_error *err);
mq_status mq_output_file(const char *path, const void *data, size_t size, bool replace,
                         mq_error *err);

mq_status mq_disk_free(size_t *out, const char *path,
                       mq_error *err); /* bytes, of the nearest existing parent */
/* Whether both (or their nearest existing parents) are on one file system; true if that cannot be
 * told. */
bool mq_same_disk(const char *a, const char *b);

/* --- faults ----------------------------------------------------------------------------------- */

/* The environment variable MATQUANT_FAULT makes system calls of this file, and starts of a thread
 * (machine.h), fail, so that tests reach the failures that a healthy machine does not show:
 * "write:N:ENOSPC" (the N-th write fails), "write:N:SHORT" (writes half), "read:N:EIO",
 * "read:N:SHORT", "fsync:N:EIO", "rename:N:EIO", "map:N:ENOMEM", "open:N:EMFILE", "chmod:N:EPERM",
 * "mkdir:N:ENOSPC", "list:N:EIO" (a folder is opened to be listed, or its next entry is read, or
 * its end is found), "lock:N:ENOLCK", "thread:N:EAGAIN"; several joined by commas. Read once, at
 * the first call; with anything else every call fails, as an invalid argument. Not reached like
 * that are calls that ask what is there (those like stat, access, statvfs), wait (poll), advise
 * (madvise) or remove, and what is opened to be removed. */

/* --- digests ---------------------------------------------------------------------------------- */

uint32_t mq_crc32(uint32_t crc, const void *data, size_t size); /* zlib's; start with 0 */
/* Of two pieces in a row, the second of `size` bytes, from those of each. */
uint32_t mq_crc32_join(uint32_t first, uint32_t second, size_t size);
/* Lower-case hexadecimal SHA-256 of a file (libmd), 64 characters and a 0. Checks for an interrupt.
 */
mq_status mq_sha256_file(char out[65], const char *path, const mq_context *context, mq_error *err);
/* The same of a mapped file, whatever its path leads to by now. */
mq_status mq_sha256_mapping(char out[65], const mq_mapping *mapping, const mq_context *context,
                            mq_error *err);

#endif
