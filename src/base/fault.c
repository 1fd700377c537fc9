#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum call {
    CALL_OPEN,
    CALL_READ,
    CALL_WRITE,
    CALL_FSYNC,
    CALL_MAP,
    CALL_RENAME,
    CALL_CHMOD,
    CALL_MKDIR,
    CALL_LIST,
    CALL_LOCK,
    CALL_THREAD,
    CALL_COUNT
};

static const char *const call_names[CALL_COUNT] = {
    "open", "read", "write", "fsync", "map", "rename", "chmod", "mkdir", "list", "lock", "thread"};

#define SHORT_COUNT (-1) /* no error number: the call does half of what was asked */

static const struct {
    const char *name;
    int number;
} fault_names[] = {
    {"SHORT", SHORT_COUNT}, {"EACCES", EACCES}, {"EAGAIN", EAGAIN}, {"EEXIST", EEXIST},
    {"EINVAL", EINVAL},     {"EIO", EIO},       {"EMFILE", EMFILE}, {"ENOLCK", ENOLCK},
    {"ENOMEM", ENOMEM},     {"EPERM", EPERM},   {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
};

typedef struct fault {
    enum call call;
    size_t when; /* the when-th such call, from 1 */
    int number;  /* errno, or SHORT_COUNT */
} fault;

/* The fault table: process-wide, as the environment variable is. Empty unless a test asks. */
#define MAX_FAULTS 8
static fault faults[MAX_FAULTS];
static size_t fault_count;
static bool misspelled;
static atomic_size_t calls[CALL_COUNT];
static atomic_size_t met;
static pthread_once_t read_once = PTHREAD_ONCE_INIT;

static bool parse_fault(fault *out, const char *text) {
    char call[16];
    char name[16];
    size_t when;
    int used = 0;
    if (sscanf(text, "%15[a-z]:%zu:%15[A-Z]%n", call, &when, name, &used) != 3 ||
        text[used] != '\0') {
        return false;
    }
    bool known_call = false;
    for (int i = 0; i < CALL_COUNT; i++) {
        if (strcmp(call, call_names[i]) == 0) {
            out->call = (enum call)i;
            known_call = true;
        }
    }
    for (size_t i = 0; i < sizeof fault_names / sizeof *fault_names; i++) {
        if (strcmp(name, fault_names[i].name) == 0) {
            out->when = when;
            out->number = fault_names[i].number;
            return known_call;
        }
    }
    return false;
}

static bool parse_faults(const char *text) {
    fault_count = 0;
    while (text != NULL && *text != '\0') {
        size_t length = strcspn(text, ",");
        char one[48];
        snprintf(one, sizeof one, "%.*s", (int)(length < sizeof one ? length : sizeof one - 1),
                 text);
        if (fault_count == MAX_FAULTS || !parse_fault(&faults[fault_count], one)) {
            fault_count = 0;
            return false;
        }
        fault_count++;
        text += length + (text[length] == ',');
    }
    return true;
}

/* A test with a fault that nobody understands would pass without one: every call fails then. */
static void read_environment(void) { misspelled = !parse_faults(secure_getenv("MATQUANT_FAULT")); }

bool mq_fault_configure(const char *text) {
    pthread_once(&read_once, read_environment);
    for (int i = 0; i < CALL_COUNT; i++) {
        atomic_store(&calls[i], 0);
    }
    atomic_store(&met, 0);
    misspelled = false;
    return parse_faults(text);
}

size_t mq_faults_met(void) { return atomic_load(&met); }

/* Counts a call. 0: go on; SHORT_COUNT; or the error number to fail with, which errno is set to. */
static int next_fault(enum call call) {
    pthread_once(&read_once, read_environment);
    if (misspelled) {
        errno = EINVAL;
        return EINVAL;
    }
    if (fault_count == 0) {
        return 0;
    }
    size_t number = atomic_fetch_add(&calls[call], 1) + 1;
    for (size_t i = 0; i < fault_count; i++) {
        if (faults[i].call == call && faults[i].when == number) {
            atomic_fetch_add(&met, 1);
            if (faults[i].number != SHORT_COUNT) {
                errno = faults[i].number;
            }
            return faults[i].number;
        }
    }
    return 0;
}

int mq_sys_open(const char *path, int flags, mode_t mode) {
    return next_fault(CALL_OPEN) > 0 ? -1 : open(path, flags | O_CLOEXEC, mode);
}

/* What a short call does: half, but not nothing, which would mean the end. */
static size_t half_of(size_t size) { return size > 1 ? size / 2 : size; }

ssize_t mq_sys_read(int fd, void *data, size_t size) {
    int injected = next_fault(CALL_READ);
    if (injected > 0) {
        return -1;
    }
    ssize_t got;
    do {
        got = read(fd, data, injected == SHORT_COUNT ? half_of(size) : size);
    } while (got < 0 && errno == EINTR);
    return got;
}

ssize_t mq_sys_read_at(int fd, void *data, size_t size, uint64_t offset) {
    int injected = next_fault(CALL_READ);
    if (injected > 0) {
        return -1;
    }
    ssize_t got;
    do {
        got = pread(fd, data, injected == SHORT_COUNT ? half_of(size) : size, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    return got;
}

ssize_t mq_sys_write_at(int fd, const void *data, size_t size, uint64_t offset) {
    int injected = next_fault(CALL_WRITE);
    if (injected > 0) {
        return -1;
    }
    ssize_t put;
    do {
        put = pwrite(fd, data, injected == SHORT_COUNT ? half_of(size) : size, (off_t)offset);
    } while (put < 0 && errno == EINTR);
    return put;
}

int mq_sys_fsync(int fd) {
    if (next_fault(CALL_FSYNC) > 0) {
        return -1;
    }
    int result;
    do {
        result = fsync(fd);
    } while (result < 0 && errno == EINTR);
    return result;
}

void mq_sys_begin_sync(int fd, uint64_t offset, uint64_t size) {
#if defined(SYNC_FILE_RANGE_WRITE)
    (void)sync_file_range(fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
#else
    (void)fd;
    (void)offset;
    (void)size;
#endif
}

void *mq_sys_map(int fd, size_t size) {
    if (next_fault(CALL_MAP) > 0) {
        return NULL;
    }
    void *mapped = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

int mq_sys_rename(const char *from, const char *to, unsigned flags) {
    if (next_fault(CALL_RENAME) > 0) {
        return -1;
    }
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

int mq_sys_chmod(int fd, mode_t mode) { return next_fault(CALL_CHMOD) > 0 ? -1 : fchmod(fd, mode); }

int mq_sys_mkdir(const char *path, mode_t mode) {
    return next_fault(CALL_MKDIR) > 0 ? -1 : mkdir(path, mode);
}

DIR *mq_sys_open_list(const char *path) { return next_fault(CALL_LIST) > 0 ? NULL : opendir(path); }

const struct dirent *mq_sys_next_listed(DIR *list) {
    return next_fault(CALL_LIST) > 0 ? NULL : readdir(list);
}

int mq_sys_lock(int fd, int operation) {
    return next_fault(CALL_LOCK) > 0 ? -1 : flock(fd, operation);
}

int mq_sys_thread(pthread_t *out, void *(*work)(void *), void *argument) {
    const int injected = next_fault(CALL_THREAD);
    return injected > 0 ? injected : pthread_create(out, NULL, work, argument);
}
