#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sha2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/fault.h"
#include "base/file.h"

#define READ_SIZE ((size_t)256 << 10)
#define LOOK_MS 100 /* how long to wait for a pipe before looking whether to stop */

/* --- mapping ---------------------------------------------------------------------------------- */

/* Opens for reading; folders are refused here, since read(2) says so only later. A named pipe's
 * writer is not waited for in open(2), which nothing would interrupt; elsewhere O_NONBLOCK means
 * nothing, but for a file that another machine has on lease. */
static mq_status open_to_read(int *fd, struct stat *about, const char *path, mq_error *err) {
    *fd = mq_sys_open(path, O_RDONLY | O_NONBLOCK, 0);
    if (*fd < 0 && errno == EWOULDBLOCK) {
        *fd = mq_sys_open(path, O_RDONLY, 0);
    }
    if (*fd < 0) {
        return mq_fail_errno(err, errno, path, "open");
    }
    int number = 0;
    if (fstat(*fd, about) != 0) {
        number = errno;
    } else if (S_ISDIR(about->st_mode)) {
        number = EISDIR;
    }
    if (number != 0) {
        close(*fd);
        return mq_fail_errno(err, number, path, "read");
    }
    return MQ_OK;
}

mq_status mq_map_file(mq_mapping *out, const char *path, mq_error *err) {
    int fd;
    struct stat about;
    mq_status status = open_to_read(&fd, &about, path, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_mapping mapping = {.data = NULL, .size = (size_t)about.st_size};
    if (!S_ISREG(about.st_mode)) {
        status = mq_fail_file(err, MQ_ERR_INPUT, path, "not a regular file");
    } else if (mapping.size > 0) {
        mapping.data = mq_sys_map(fd, mapping.size);
        if (mapping.data == NULL) {
            status = mq_fail_errno(err, errno, path, "map");
        }
    }
    close(fd);
    if (status == MQ_OK) {
        *out = mapping;
    }
    return status;
}

void mq_unmap_file(mq_mapping *mapping) {
    if (mapping->data != NULL) {
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    *mapping = (mq_mapping){0};
}

/* madvise on whole pages: those that the range touches, or only those within it. */
static void advise(const mq_mapping *mapping, size_t offset, size_t size, int advice, bool within) {
    if (mapping->data == NULL || offset >= mapping->size) {
        return;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t end = size < mapping->size - offset ? offset + size : mapping->size;
    size_t begin = offset;
    if (within) {
        begin += (page - begin % page) % page;
        end -= end == mapping->size ? 0 : end % page;
    } else {
        begin -= begin % page;
    }
    if (begin < end) {
        madvise((void *)(uintptr_t)(mapping->data + begin), end - begin, advice);
    }
}

void mq_map_will_need(const mq_mapping *mapping, size_t offset, size_t size) {
    advise(mapping, offset, size, MADV_WILLNEED, false);
}

void mq_map_dont_need(const mq_mapping *mapping, size_t offset, size_t size) {
    advise(mapping, offset, size, MADV_DONTNEED, true);
}

/* --- whole files ------------------------------------------------------------------------------ */

/* A growing text, limited to max_size bytes and the 0 byte after them. */
typedef struct contents {
    char *text;
    size_t size, capacity, max_size;
    const char *path;
} contents;

/* Makes room for more bytes (as many as the limit leaves, at least one past it so that excess is
 * seen). */
static mq_status reserve(contents *c, size_t more, mq_error *err) {
    if (c->capacity - c->size >= more) {
        return MQ_OK;
    }
    size_t wanted;
    if (!mq_add_size(&wanted, c->size, more) || !mq_mul_size(&wanted, wanted, 2)) {
        return mq_fail_memory(err, "the contents of a file", SIZE_MAX);
    }
    char *grown = mq_realloc(c->text, wanted, 1);
    if (grown == NULL) {
        return mq_error_in_file(err, mq_fail_memory(err, "the contents of a file", wanted),
                                c->path);
    }
    c->text = grown;
    c->capacity = wanted;
    return MQ_OK;
}

static mq_status append(contents *c, const void *data, size_t size, mq_error *err) {
    if (size > c->max_size - c->size) {
        return mq_fail_file(err, MQ_ERR_INPUT, c->path, "more than %zu bytes", c->max_size);
    }
    mq_status status = reserve(c, size + 1, err);
    if (status == MQ_OK && size > 0) {
        memcpy(c->text + c->size, data, size);
        c->size += size;
    }
    return status;
}

/* A file that is read in pieces: gzip streams are taken apart on the way. */
typedef struct reader {
    int fd;
    unsigned char
        *piece;      /* READ_SIZE bytes, followed by READ_SIZE for what is inflated from them */
    size_t length;   /* bytes in piece; 0 at the end of the file */
    uint64_t offset; /* of piece in the file */
    const char *path;
    SHA2_CTX *digest;          /* of all that is read; NULL: nobody asks */
    const mq_context *context; /* whether to stop; NULL: nobody asks that */
} reader;

static void digest_piece(const reader *r) {
    if (r->digest != NULL) {
        SHA256Update(r->digest, r->piece, r->length);
    }
}

/* read(2), with *got bytes, 0 at the end. What a pipe or a terminal may never have is waited for in
 * short turns: a request to stop that comes between looking and waiting is seen in the next. */
static mq_status read_some(size_t *got, const reader *r, unsigned char *room, size_t size,
                           mq_error *err) {
    struct pollfd wanted = {.fd = r->fd, .events = POLLIN}; /* a plain file's is always there */
    for (;;) {
        const mq_status status = mq_check_interrupt(r->context, err);
        if (status != MQ_OK) {
            return status;
        }
        const int there = poll(&wanted, 1, LOOK_MS);
        if (there == 0 || (there < 0 && errno == EINTR)) {
            continue;
        }
        const ssize_t length = mq_sys_read(r->fd, room, size);
        if (length >= 0) {
            *got = (size_t)length;
            return MQ_OK;
        }
        if (errno != EAGAIN) { /* that: another reader has had it */
            return mq_fail_errno(err, errno, r->path, "read");
        }
    }
}

static mq_status next_piece(reader *r, mq_error *err) {
    size_t got = 0;
    const mq_status status = read_some(&got, r, r->piece, READ_SIZE, err);
    if (status != MQ_OK) {
        return status;
    }
    r->offset += r->length;
    r->length = got;
    digest_piece(r);
    return MQ_OK;
}

static mq_status broken_gzip(const reader *r, const z_stream *stream, const char *why,
                             mq_error *err) {
    uint64_t offset = r->offset + r->length - stream->avail_in;
    return mq_fail_offset(err, MQ_ERR_INPUT, r->path, NULL, offset, "broken gzip stream: %s", why);
}

/* Files from tapes and blocks of a disk are filled up with zero bytes: gzip(1) and Python pass over
 * those at the end of a member, too. */
static void skip_zeros(z_stream *stream) {
    while (stream->avail_in > 0 && *stream->next_in == 0) {
        stream->next_in++;
        stream->avail_in--;
    }
}

/* Inflates what is left of the piece into c. *ended: the last call ended a member of the stream. */
static mq_status inflate_piece(contents *c, reader *r, z_stream *stream, bool *ended,
                               mq_error *err) {
    unsigned char *room = r->piece + READ_SIZE;
    do {
        if (*ended) { /* gzip files may be joined end to end */
            skip_zeros(stream);
            if (stream->avail_in == 0) {
                break;
            }
            inflateReset(stream);
            *ended = false;
        }
        stream->next_out = room;
        stream->avail_out = (uInt)READ_SIZE;
        int result = inflate(stream, Z_NO_FLUSH);
        if (result == Z_MEM_ERROR) {
            return mq_fail_memory(err, "inflating", READ_SIZE);
        }
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
            return broken_gzip(r, stream, stream->msg != NULL ? stream->msg : "bad data", err);
        }
        mq_status status = append(c, room, READ_SIZE - stream->avail_out, err);
        if (status != MQ_OK) {
            return status;
        }
        *ended = result == Z_STREAM_END;
    } while (stream->avail_in > 0 || (stream->avail_out == 0 && !*ended));
    return MQ_OK;
}

/* The rest of a gzip file whose first piece has been read. */
static mq_status read_gzip(contents *c, reader *r, mq_error *err) {
    z_stream stream = {0};
    if (inflateInit2(&stream, 15 + 16) != Z_OK) { /* 16: the gzip wrapper */
        return mq_fail_memory(err, "inflating", sizeof stream);
    }
    bool ended = false;
    mq_status status = MQ_OK;
    while (status == MQ_OK && r->length > 0) {
        stream.next_in = r->piece;
        stream.avail_in = (uInt)r->length;
        status = inflate_piece(c, r, &stream, &ended, err);
        if (status == MQ_OK) {
            status = next_piece(r, err);
        }
    }
    if (status == MQ_OK && !ended) {
        status = broken_gzip(r, &stream, "it ends too early", err);
    }
    inflateEnd(&stream);
    return status;
}

static mq_status read_plain(contents *c, reader *r, mq_error *err) {
    mq_status status = MQ_OK;
    while (status == MQ_OK && r->length > 0) {
        status = append(c, r->piece, r->length, err);
        if (status == MQ_OK) {
            status = next_piece(r, err);
        }
    }
    return status;
}

/* The first piece: READ_SIZE bytes or the whole file, so that a short read does not hide the gzip
 * magic. */
static mq_status first_piece(reader *r, mq_error *err) {
    size_t length = 0, got = 0;
    do {
        const mq_status status = read_some(&got, r, r->piece + length, READ_SIZE - length, err);
        if (status != MQ_OK) {
            return status;
        }
        length += got;
    } while (got > 0 && length < READ_SIZE);
    r->length = length;
    digest_piece(r);
    return MQ_OK;
}

/* A name is a promise: what ends in .gz and is something else was cut off in front, or is not the
 * file that was meant. */
static bool is_named_gzip(const char *path) { return mq_ends_with_any_case(path, ".gz"); }

static mq_status read_contents(contents *c, reader *r, size_t expected, mq_error *err) {
    mq_status status = first_piece(r, err);
    if (status != MQ_OK) {
        return status;
    }
    if (r->length >= 2 && r->piece[0] == 0x1f && r->piece[1] == 0x8b) {
        status = read_gzip(c, r, err);
    } else if (r->length > 0 && is_named_gzip(c->path)) {
        status = mq_fail_offset(err, MQ_ERR_INPUT, c->path, NULL, 0,
                                "broken gzip stream: it does not begin as one");
    } else if (expected > c->max_size) {
        status = mq_fail_file(err, MQ_ERR_INPUT, c->path, "more than %zu bytes", c->max_size);
    } else {
        status =
            reserve(c, expected / 2 + 1, err); /* it is doubled there: the file's size, in one go */
        if (status == MQ_OK) {
            status = read_plain(c, r, err);
        }
    }
    if (status == MQ_OK) {
        status = reserve(c, 1, err); /* an empty file */
    }
    return status;
}

mq_status mq_read_file(char **out, size_t *size, const char *path, size_t max_size, mq_error *err) {
    return mq_read_file_digest(out, size, NULL, path, max_size, NULL, err);
}

mq_status mq_read_file_digest(char **out, size_t *size, char sha256[65], const char *path,
                              size_t max_size, const mq_context *context, mq_error *err) {
    SHA2_CTX digest;
    reader r = {.path = path, .digest = sha256 != NULL ? &digest : NULL, .context = context};
    struct stat about;
    SHA256Init(&digest);
    mq_status status = open_to_read(&r.fd, &about, path, err);
    if (status != MQ_OK) {
        return status;
    }
    contents c = {.path = path, .max_size = max_size};
    status = mq_new(&r.piece, 2, READ_SIZE, "a read buffer", err);
    if (status == MQ_OK) {
        size_t expected = S_ISREG(about.st_mode) ? (size_t)about.st_size : 0;
        status = read_contents(&c, &r, expected, err);
    }
    mq_free(r.piece);
    close(r.fd);
    if (status != MQ_OK) {
        mq_free(c.text);
        return mq_error_in_file(err, status, path);
    }
    if (sha256 != NULL) {
        SHA256End(&digest, sha256);
    }
    c.text[c.size] = '\0';
    *out = c.text;
    *size = c.size;
    return MQ_OK;
}

bool mq_is_lfs_pointer(const void *data, size_t size) {
    static const char begin[] = "version https://git-lfs", oid[] = "\noid ";
    const size_t length = sizeof begin - 1;
    return size >= length && memcmp(data, begin, length) == 0 &&
           memmem(data, size, oid, sizeof oid - 1) != NULL;
}

mq_status mq_fail_lfs_pointer(mq_error *err, const char *path) {
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "is a Git LFS pointer in place of the file; fetch it with git lfs pull or "
                        "hf download");
}

/* --- digests ---------------------------------------------------------------------------------- */

uint32_t mq_crc32(uint32_t crc, const void *data, size_t size) {
    return (uint32_t)crc32_z(crc, size == 0 ? (const Bytef *)"" : data, size);
}

uint32_t mq_crc32_join(uint32_t first, uint32_t second, size_t size) {
    return (uint32_t)crc32_combine(first, second, (z_off_t)size);
}

mq_status mq_sha256_mapping(char out[65], const mq_mapping *mapping, const mq_context *context,
                            mq_error *err) {
    SHA2_CTX digest;
    SHA256Init(&digest);
    for (size_t at = 0; at < mapping->size; at += READ_SIZE) {
        const mq_status status = mq_check_interrupt(context, err);
        if (status != MQ_OK) {
            return status;
        }
        SHA256Update(&digest, mapping->data + at, mq_smaller(READ_SIZE, mapping->size - at));
    }
    SHA256End(&digest, out);
    return MQ_OK;
}

mq_status mq_sha256_file(char out[65], const char *path, const mq_context *context, mq_error *err) {
    SHA2_CTX digest;
    reader r = {.path = path, .digest = &digest, .context = context};
    struct stat about;
    mq_status status = open_to_read(&r.fd, &about, path, err);
    if (status != MQ_OK) {
        return status;
    }
    SHA256Init(&digest);
    status = mq_new(&r.piece, 1, READ_SIZE, "a read buffer", err);
    if (status == MQ_OK) {
        status = next_piece(&r, err);
    }
    while (status == MQ_OK && r.length > 0) {
        status = next_piece(&r, err);
    }
    mq_free(r.piece);
    close(r.fd);
    if (status == MQ_OK) {
        SHA256End(&digest, out);
    }
    return mq_error_in_file(err, status, path);
}
