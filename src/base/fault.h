/* System calls of file.h, and the start of a thread, each through one door that MATQUANT_FAULT can
 * make fail (see file.h). */
#ifndef MQ_BASE_FAULT_H
#define MQ_BASE_FAULT_H

#include <dirent.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int mq_sys_open(const char *path, int flags, mode_t mode); /* "open"; -1 and errno, as open(2) */
ssize_t mq_sys_read(int fd, void *data, size_t size);      /* "read"; all deal with EINTR */
ssize_t mq_sys_read_at(int fd, void *data, size_t size, uint64_t offset);
ssize_t mq_sys_write_at(int fd, const void *data, size_t size, uint64_t offset); /* "write" */
/* Tells the system to begin bringing this range to the disk, where it can be told so. No promise:
 * what fails, fsync will say. */
void mq_sys_begin_sync(int fd, uint64_t offset, uint64_t size);
int mq_sys_fsync(int fd);              /* "fsync" */
void *mq_sys_map(int fd, size_t size); /* "map"; read-only, NULL and errno */
int mq_sys_rename(const char *from, const char *to, unsigned flags); /* "rename": renameat2(2) */
int mq_sys_chmod(int fd, mode_t mode);                               /* "chmod": fchmod(2) */
int mq_sys_mkdir(const char *path, mode_t mode);                     /* "mkdir": mkdir(2) */
/* "list": opendir(3), and readdir(3), which leaves errno as it was at the end. */
DIR *mq_sys_open_list(const char *path);
const struct dirent *mq_sys_next_listed(DIR *list);
int mq_sys_lock(int fd, int operation); /* "lock": flock(2) */
/* "thread": pthread_create(3), 0 or the error number. */
int mq_sys_thread(pthread_t *out, void *(*work)(void *), void *argument);

/* Tests: what the environment variable would say, with all calls counted from now; NULL or "": no
 * faults. false: not understood, and no faults. */
bool mq_fault_configure(const char *faults);
/* Tests: how many of those faults have come to pass since then. */
size_t mq_faults_met(void);

#endif
